//! What the configuration says about the rules that pin the egress process. Values; nothing is put
//! into a kernel.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Config;

/// The rules that pin the egress process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firewall {
    /// The packet filter.
    pub format: FirewallFormat,
    /// Where `clinch firewall apply` is asked for openings; `None`: it is not.
    pub socket: Option<PathBuf>,
    /// Networks outside of which nothing is opened; empty: no such bound.
    pub prefixes: Vec<IpNet>,
    /// How long an address stays open beyond its TTL.
    pub hold: Duration,
}

impl Config {
    /// Where the keeper of the rules is asked before egress connects, if it is.
    pub fn firewall_socket(&self) -> Option<&Path> {
        self.firewall.as_ref()?.socket.as_deref()
    }
}

impl Default for Firewall {
    /// Without the table: nobody is asked.
    fn default() -> Self {
        Self {
            format: FirewallFormat::default(),
            socket: None,
            prefixes: Vec::new(),
            hold: HOLD,
        }
    }
}

/// A packet filter and the program that speaks to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FirewallFormat {
    /// `nft`.
    #[default]
    Nftables,
    /// `iptables`, whichever of the two that is on this machine, and `ipset`.
    Iptables,
    /// `iptables-nft` and `ipset`.
    IptablesNft,
    /// `iptables-legacy` and `ipset`.
    IptablesLegacy,
}

impl FirewallFormat {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Nftables,
        Self::Iptables,
        Self::IptablesNft,
        Self::IptablesLegacy,
    ];

    /// As the configuration has it.
    pub fn word(self) -> &'static str {
        self.program().unwrap_or("nftables")
    }

    /// The member of the iptables family that it is.
    pub fn program(self) -> Option<&'static str> {
        match self {
            Self::Nftables => None,
            Self::Iptables => Some("iptables"),
            Self::IptablesNft => Some("iptables-nft"),
            Self::IptablesLegacy => Some("iptables-legacy"),
        }
    }
}

/// Default of `firewall.socket`: where clinch-firewall.service has its runtime directory.
pub(super) const SOCKET: &str = "/run/clinch-firewall/socket";

/// Default of `firewall.hold`: a fetch, with room for a slow one.
pub(super) const HOLD: Duration = Duration::from_secs(60);
