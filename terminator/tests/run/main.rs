//! `clinch run` as a process: what it may do, what it answers to, what it tells its surroundings.
//!
//! The real binary on real sockets. Tests that need root say so and are skipped aloud without it.

mod admin;
mod packaging;
mod place;
mod privileges;
mod service_manager;
mod signals;
mod startup;
