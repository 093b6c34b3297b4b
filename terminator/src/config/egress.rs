//! What the configuration says about the egress process. Values; nothing is connected or looked up.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::limits::Turns;

/// The egress process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    /// The user it runs as; `None`: the user of the main process.
    pub user: Option<String>,
    /// Networks in which responders may be although they are not public.
    pub allow: Vec<IpNet>,
    /// Ports at which responders named by certificates are asked; at least one range.
    pub ports: Vec<PortRange>,
    /// Whether https URLs are asked.
    pub https: bool,
    /// PEM file with the CAs of https responders; `None`: Mozilla's.
    pub trust: Option<PathBuf>,
    /// The only host that is connected to, if there is one.
    pub proxy: Option<Proxy>,
    /// DNS servers of its own; `None`: the system looks up.
    pub resolver: Option<Resolver>,
    /// How much one responder is asked.
    pub turns: Turns,
}

/// Ports from the first to the last, both included; the first is not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// Lowest.
    pub first: u16,
    /// Highest.
    pub last: u16,
}

impl PortRange {
    /// Whether a port is in it.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// An HTTP proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxy {
    /// Name or address, the latter without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// `user:password` for it (RFC 7617).
    pub credentials: Option<Secret>,
    /// CONNECT is used for http URLs too.
    pub tunnel: bool,
}

/// DNS servers of one's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    /// Asked one after the other; at least one.
    pub servers: Vec<SocketAddr>,
    /// For one server to answer.
    pub timeout: Duration,
    /// Answers are used again for at least this long.
    pub ttl_min: Duration,
    /// And for no longer than this.
    pub ttl_max: Duration,
}

/// Text that no message and no log shows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(String);

impl Secret {
    /// Keeps the text to itself.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for whom it is meant.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}
