//! The harness of the end-to-end tests: a test PKI, a responder that misbehaves on demand, backends,
//! clients, and a guard around the real `clinch` binary.
//!
//! It mocks nothing of clinch: the tests talk to the built program over sockets and read its own
//! metrics and log. What a test needs from the machine and does not find, it reports with [`skip!`].
//!
//! Every server of a test lives on a loopback address of its own ([`place`]), so tests run in
//! parallel without asking each other for ports.

pub mod appliance;
pub mod backend;
pub mod bulk;
pub mod client;
pub mod dns;
pub mod fuzz;
pub mod hello;
pub mod machine;
pub mod matrix;
pub mod metrics;
pub mod network;
pub mod openssl_ca;
pub mod peers;
pub mod place;
pub mod process;
pub mod proxy;
pub mod responder;
pub mod setup;
pub mod target;

use std::time::{Duration, Instant};

/// How long an event may take that should be prompt, on a loaded machine.
pub const PROMPT: Duration = Duration::from_secs(20);

/// Looks until `probe` finds what it waits for, and returns that.
///
/// # Panics
/// When `limit` passes first; the message names `what`.
#[track_caller]
pub fn eventually<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reports the current test as skipped, with the reason, and returns from it.
///
/// The line goes to standard error and to the file that `$CLINCH_SKIPS` names, which
/// `tests/run.sh` counts.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {{
        $crate::record_skip(&format!($($reason)+));
        return;
    }};
}

/// The work behind [`skip!`].
pub fn record_skip(reason: &str) {
    use std::io::Write;
    let thread = std::thread::current();
    let line = format!("{}: {reason}\n", thread.name().unwrap_or("a test"));
    eprint!("skipped: {line}");
    if let Some(path) = std::env::var_os("CLINCH_SKIPS") {
        std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
