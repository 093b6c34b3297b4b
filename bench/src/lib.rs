//! Measurements of clinch: what a stapled handshake costs, side by side with what else terminates TLS.
//!
//! The figure is CPU time of the whole server process tree per connection, not wall time: on a small
//! shared machine the former is steady and the latter is not. Contenders take turns within one run
//! (A B C, C B A, …), and only ratios paired within a round are concluded from, because the machine
//! drifts by more than the differences looked for.
//!
//! The server under test has core 0 to itself; the load client, the backend and the OCSP responder
//! share core 1. See `docs/PERFORMANCE.md` for the method and `bench/results/` for what was recorded.

#![forbid(unsafe_code)]

pub mod backend;
pub mod bench;
pub mod client;
pub mod crowd;
pub mod data_plane;
pub mod limit;
pub mod load;
pub mod machine;
pub mod parts;
pub mod peers;
pub mod pictures;
pub mod pki;
pub mod process;
pub mod relay;
pub mod report;
pub mod responder;
pub mod rounds;
pub mod scenario;
