//! What observers see of steering: the mode in force and why, the table, the kernel's counters.
//! Written by the steering thread, read by status and metrics.

use std::sync::{Mutex, PoisonError};

use clinch_steering_abi::Event;
use serde::{Deserialize, Serialize};

/// How connections find their worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// By the kernel, from the server name in the ClientHello.
    Kernel,
    /// The kernel spreads connections by hash, and a worker hands over what belongs to another.
    HandOver,
    /// The kernel spreads connections by hash, and they stay where they came.
    #[default]
    Reuseport,
}

impl Mode {
    /// The word in status and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::HandOver => "hand_over",
            Self::Reuseport => "reuseport",
        }
    }
}

/// Steering at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The mode in force.
    pub mode: Mode,
    /// Why it is not the one that the configuration asks for.
    pub reason: Option<String>,
    /// Server names in the kernel's table.
    pub names: u64,
    /// Server names that found no room there; they are spread by hash.
    pub names_left_out: u64,
    /// The first sites of the table.
    pub table: Vec<Row>,
    /// What the kernel counted, by event.
    pub events: Vec<(String, u64)>,
    /// How often a plug was put in.
    pub plugs: u64,
}

/// A site and where its connections go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the site.
    pub site: String,
    /// Workers in order of preference.
    pub workers: Vec<u16>,
    /// Among how many of them connections are spread.
    pub share: u16,
}

/// The place where the report is left.
#[derive(Debug, Default)]
pub struct View(Mutex<Report>);

impl View {
    /// A copy of the present report.
    pub fn report(&self) -> Report {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Changes the report.
    pub fn update(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The word for an event, as in metrics.
pub(super) fn word(event: Event) -> &'static str {
    match event {
        Event::Landing => "landing",
        Event::Steered => "steered",
        Event::Moved => "moved",
        Event::HashNoTimestamps => "hash_no_timestamps",
        Event::HashBeyond => "hash_beyond_first_segment",
        Event::HashUnnamed => "hash_no_name",
        Event::HashUnknown => "hash_unknown_name",
        Event::HashOther => "hash_not_tls",
        Event::HashOff => "hash_off",
        Event::RefusedEarly => "refused_early",
        Event::OutOfOrder => "out_of_order",
        Event::NoSocket => "no_socket",
    }
}
