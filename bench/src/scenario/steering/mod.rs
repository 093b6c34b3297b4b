//! Steering by server name in the kernel: what it costs, what the programs themselves take, how far a
//! busy site is kept from its neighbours, and what a core need not hold. Needs root; without it, or
//! where the kernel does not take the programs, a scenario fails and says so.
//!
//! For want of a third core the second worker shares core 1 with client and backend, for whom is
//! steered and for whom is not.

mod cost;
mod isolation;
mod program;
mod server;
mod sites;

use anyhow::Result;

use crate::bench::Bench;
use crate::report::Report;

/// CPU and latency per handshake with steering and without.
pub(super) fn cost(bench: &Bench) -> Result<Report> {
    cost::run(bench)
}

/// Nanoseconds per run of the program, by packet class.
pub(super) fn program(bench: &Bench) -> Result<Report> {
    program::run(bench)
}

/// What a site waits while another saturates its core.
pub(super) fn isolation(bench: &Bench) -> Result<Report> {
    isolation::run(bench)
}

/// Memory and CPU with very many sites.
pub(super) fn sites(bench: &Bench) -> Result<Report> {
    sites::run(bench)
}
