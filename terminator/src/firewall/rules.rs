//! What a rule set says, before it is written in the language of a packet filter.

use std::net::SocketAddr;
use std::time::Duration;

/// One complete set of rules for one user. What it does not list, that user does not reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// User id of the egress process.
    pub uid: u32,
    /// That user, as the configuration names it.
    pub user: String,
    /// Where DNS may be spoken, over UDP and TCP.
    pub resolvers: Vec<SocketAddr>,
    /// Where TCP connections may be made to.
    pub openings: Vec<Opening>,
}

/// An address and port that may be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Where to.
    pub to: SocketAddr,
    /// The hosts for which it is open, for people.
    pub hosts: String,
    /// How much longer; `None`: until the rules change.
    pub left: Option<Duration>,
}

impl Opening {
    /// Whole seconds that it stays open, at least one; `None`: for good.
    pub(super) fn seconds(&self) -> Option<u64> {
        let left = self.left?;
        Some((left.as_secs() + u64::from(left.subsec_nanos() > 0)).max(1))
    }
}
