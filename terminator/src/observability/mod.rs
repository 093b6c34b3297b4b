//! What the process tells: counters, metrics, log events, health, status, and the admin interface
//! that serves them.
//!
//! Nothing here decides anything about connections or staples. `run` makes one [`Instance`] and
//! keeps its phase true; all figures are read when somebody asks.

pub mod admin;
pub mod counters;
pub mod events;
pub mod health;
pub mod instance;
pub mod metrics;
mod page;
pub mod report;

pub use instance::{Instance, ListenerView, Phase, WorkerView};
