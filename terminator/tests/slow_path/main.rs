//! The slow path, control and egress, with its real parts: the clinch binary as egress process, real
//! HTTP servers on loopback, real files.

mod control;
mod egress;
mod load;
mod policy;
mod reload;
mod revoked;
mod schedule;
mod support;
mod world;
