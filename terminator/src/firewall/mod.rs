//! The packet filter that pins the egress process: its user reaches the resolvers and the responders
//! of the configuration, and nothing else on any network, loopback included.
//!
//! [`Plan`] reads what may be reached from the configuration and the certificates (no keys).
//! [`nftables`] and [`iptables`] write rules as text and touch nothing. [`Keeper`], behind `clinch
//! firewall apply`, is a process of its own with the right to change rules: control asks it
//! ([`Gate`]) to open the addresses that egress found for a name, before egress connects, and it
//! closes them when their time is over. It never trusts who asks: the name must be in its own plan
//! and the address within bounds ([`Book`]). Whoever runs it must start it before egress.

mod ask;
mod book;
mod destinations;
pub mod iptables;
mod keeper;
mod kernel;
pub mod nftables;
mod plan;
mod resolvers;
mod rules;

pub use ask::{Gate, GateError, attend};
pub use book::{Book, Denial};
pub use destinations::{Destination, Destinations};
pub use keeper::Keeper;
pub use kernel::{Kernel, KernelError};
pub use plan::{Plan, PlanError};
pub use rules::{Opening, Rules};
