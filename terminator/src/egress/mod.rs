//! The egress process: the only part that talks to responders. Bytes out, bytes in; no keys, no verdicts.
//!
//! `clinch run` starts `clinch egress` as a child with a user of its own before it drops its
//! privileges, and asks it over a socket pair ([`protocol`]). The child is a monitor that only waits,
//! and a worker that only fetches ([`process`]): a worker that dies is replaced without privileges.
//! [`Client`] is control's end. What comes back is what the network said: the caller verifies it.

pub mod client;
mod filter;
#[doc(hidden)]
pub mod fuzzing;
mod http;
pub mod process;
pub mod protocol;
mod socket;
mod worker;

pub use client::{Client, LaunchError, SELF, State};
pub use protocol::{FetchError, Head, Method, Request, Response, Validators};
