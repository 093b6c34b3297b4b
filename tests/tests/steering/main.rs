//! Steering by server name on the real kernel, between two network namespaces, over IPv4 and IPv6.
//!
//! `make steering` runs the long form of what is short here.

mod changes;
mod crowds;
mod degraded;
mod names;
mod plug;
mod scene;
mod segments;
