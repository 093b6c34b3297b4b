//! Lines for the operator: on the console that the kernel was given, which is serial as well as the
//! screen.
//!
//! Nothing is kept; a log collector is to read the serial line. Lines of clinch pass through
//! unchanged.

use std::io::Write;

/// Writes one line of PID 1's own.
pub fn say(line: &str) {
    // The console may be gone or stuck at flow control; nothing can be done about that.
    let _ = writeln!(std::io::stdout().lock(), "init: {line}\r");
}

/// Writes one line of a program that PID 1 runs.
pub fn pass_on(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}\r");
}

/// `say` with formatting.
#[macro_export]
macro_rules! say {
    ($($part:tt)+) => { $crate::console::say(&format!($($part)+)) };
}
