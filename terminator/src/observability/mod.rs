//! What the process tells: counters, metrics, log events, health, status.

pub mod counters;
