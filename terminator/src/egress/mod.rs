//! The egress process: the only part that talks to responders. Bytes out, bytes in; no keys, no verdicts.
//!
//! `clinch run` starts `clinch egress` as a child with a user of its own before it drops its
//! privileges, and asks it over a socket pair ([`protocol`]). The child is a monitor that only waits,
//! and a worker that only fetches ([`process`]): a worker that dies is replaced without privileges.
//! [`Client`] is control's end. What comes back is what the network said: the caller verifies it.
//!
//! A request goes through [`policy`] twice: its URL before anything is looked up, and each address
//! before it is connected to.

pub mod client;
mod connect;
mod files;
mod filter;
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod lookup;
pub mod policy;
pub mod process;
pub mod protocol;
mod settings;
mod socket;
mod target;
mod tls;
mod worker;

pub use client::{Client, Launch, LaunchError, Pending, SELF, State};
pub use lookup::{Found, Resolver};
pub use policy::NamedBy;
pub use protocol::{Destination, FetchError, Head, Method, Request, Response, Validators};
pub use settings::{Settings, TrustError};
