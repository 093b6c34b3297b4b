//! Clinch: a TLS terminator that staples a verified OCSP response to every handshake that asks.
//!
//! The crate is a set of floors; a module imports only from floors below its own (see
//! `docs/ARCHITECTURE.md`, enforced by the tidy test). The library exists so that the benchmarks
//! and the end-to-end tests drive the real parts; the product is the binary.

#![deny(unsafe_code)]

pub mod certificate;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod crl;
pub mod data;
pub mod egress;
pub mod firewall;
pub mod limits;
pub mod observability;
pub mod ocsp;
pub mod snapshot;
pub mod steering;
pub mod sys;
