//! The process `clinch egress`: a monitor that waits, a worker that fetches.

use std::process::ExitCode;

/// What `clinch egress` does: the monitor, or with `worker` the worker. Standard input is the
/// socket to control.
pub fn main(worker: bool) -> ExitCode {
    let _ = worker;
    todo!()
}
