//! A load generator for TLS servers that knows what a staple is.
//!
//! A [`Plan`] says what the connections do, how they arrive and for how long; [`run`] carries it out
//! on a thread for each core and gives an [`Outcome`]; [`Report`] makes a table, JSON, percentile
//! files and a page of it. In an *open loop* connections start when they are due, whatever became of
//! those before them, and their latency counts from the instant at which they were due: a server that
//! stalls is charged for everybody who came meanwhile. In a *closed loop* a fixed number of clients
//! each start again when they have finished, which finds the server's capacity and hides its stalls.
//!
//! Verifying is part of the load: the verifier of staples is clinch's own. HTTP is only as much as a
//! measurement needs: one request on each connection, and a body of known length or up to the end.

#![forbid(unsafe_code)]

mod failure;
mod generator;
pub mod html;
mod judge;
mod pace;
mod plan;
pub mod plot;
mod record;
mod report;
mod responder;
pub mod segments;
mod session;
mod tickets;
mod visit;

pub use failure::Failure;
pub use generator::{Outcome, Progress, Share, run};
pub use plan::{Arrivals, Check, Pace, Plan, Resolver, Revocation, Suite, Version, Work};
pub use record::{Counts, Phase, Recorder};
pub use report::{Curve, PhaseReport, Report, SecondReport, ThreadReport, hgrm};
