//! What the configuration and the certificates say about the pinned egress process: its user, the
//! resolvers, the destinations. Reads files, and no keys; resolves no destination.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::destinations::{Destination, Destinations};
use super::resolvers;
use crate::certificate::{Leaf, certificates_from_pem};
use crate::config::{self, Config, ConfigError, FirewallFormat};
use crate::egress::NamedBy;
use crate::egress::policy::Policy;
use crate::limits::CREDENTIAL_FILE_BYTES;
use crate::sys::privileges::{Account, PrivilegeError};

/// What the rules are made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The egress process's user id.
    pub uid: u32,
    /// Its user, as the configuration names it.
    pub user: String,
    /// The user id of control, which may ask for openings.
    pub asker: Option<u32>,
    /// DNS servers.
    pub resolvers: Vec<SocketAddr>,
    /// How they are asked; `None`: as the system does.
    pub resolver: Option<config::Resolver>,
    /// Hosts that may be reached.
    pub destinations: Destinations,
    /// Networks outside of which nothing is opened; empty: no such bound.
    pub prefixes: Vec<IpNet>,
    /// What egress itself may ask, which holds here, too.
    pub policy: Policy,
    /// How long an address stays open beyond its TTL.
    pub hold: Duration,
    /// The packet filter to use.
    pub format: FirewallFormat,
    /// Where control asks; `None`: names are resolved here, on a schedule.
    pub socket: Option<PathBuf>,
    /// Certificates that could not be read, each a sentence; their responders are missing.
    pub warnings: Vec<String>,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The file cannot be read.
    #[error("{}: {reason}; name the configuration file with -c", .path.display())]
    File {
        /// Of the file.
        path: PathBuf,
        /// The system's reason.
        reason: io::Error,
    },
    /// It is no valid configuration.
    #[error("{}: {reason}", .path.display())]
    Config {
        /// Of the file.
        path: PathBuf,
        /// Everything that is wrong with it.
        reason: Box<ConfigError>,
    },
    /// The rules could not tell its packets apart.
    #[error(
        "the egress process has no user of its own, so no rule can tell its traffic from that of clinch to its backends; set `egress.user` to a user that runs nothing else"
    )]
    NoUser,
    /// The user does not exist.
    #[error("`{key}`: {reason}")]
    User {
        /// In the configuration.
        key: &'static str,
        /// What is wrong with it.
        reason: PrivilegeError,
    },
    /// Rules for root would bind half of the machine.
    #[error(
        "`egress.user` is root, whose traffic is that of the machine; choose a user that runs nothing else"
    )]
    Root,
}

impl PlanError {
    fn user(key: &'static str) -> impl FnOnce(PrivilegeError) -> Self {
        move |reason| Self::User { key, reason }
    }
}

impl Plan {
    /// Reads the configuration file and the certificates that it names. Blocks.
    pub fn read(path: &Path) -> Result<Self, PlanError> {
        let text = std::fs::read_to_string(path).map_err(|reason| PlanError::File {
            path: path.to_owned(),
            reason,
        })?;
        let config = Config::parse(&text).map_err(|reason| PlanError::Config {
            path: path.to_owned(),
            reason: Box::new(reason),
        })?;
        Self::of(&config)
    }

    /// As [`Plan::read`], from a configuration that was read already.
    pub fn of(config: &Config) -> Result<Self, PlanError> {
        let user = config.egress.user.clone().ok_or(PlanError::NoUser)?;
        let uid = Account::find(&user)
            .map_err(PlanError::user("egress.user"))?
            .uid;
        let main = config.user.as_deref().map(Account::find).transpose();
        let asker = main.map_err(PlanError::user("user"))?.map(|main| main.uid);
        if asker == Some(uid) {
            return Err(PlanError::NoUser);
        }
        if uid == 0 {
            return Err(PlanError::Root);
        }
        let firewall = config.firewall.clone().unwrap_or_default();
        let mut plan = Self {
            uid,
            user,
            asker,
            prefixes: firewall.prefixes,
            policy: Policy::of(&config.egress),
            hold: firewall.hold,
            format: firewall.format,
            socket: firewall.socket,
            resolvers: match &config.egress.resolver {
                Some(own) => own.servers.clone(),
                None => resolvers(),
            },
            resolver: config.egress.resolver.clone(),
            ..Self::default()
        };
        match &config.egress.proxy {
            Some(proxy) => plan
                .destinations
                .insert(Destination::new(&proxy.host, proxy.port), NamedBy::Operator),
            None => plan.gather(config),
        }
        Ok(plan)
    }

    /// Without a proxy, which would be the only destination.
    fn gather(&mut self, config: &Config) {
        for site in config.sites.iter().filter(|site| site.ocsp.enabled) {
            if let Some(responder) = &site.ocsp.responder {
                self.ask(responder, NamedBy::Operator);
            }
            for files in &site.certificates {
                match leaf(&files.cert) {
                    Ok(leaf) if site.ocsp.responder.is_none() => self.take(&leaf),
                    Ok(_) => {}
                    Err(reason) => self.warnings.push(format!(
                        "{}: {reason}; its responder is not among the destinations",
                        files.cert.display()
                    )),
                }
            }
        }
    }

    /// What control asks for it: its responders or, where it has none, its CRLs.
    fn take(&mut self, leaf: &Leaf) {
        let urls = match leaf.ocsp_urls.is_empty() {
            false => &leaf.ocsp_urls,
            true => &leaf.crl_urls,
        };
        for url in urls.iter().filter(|_| !leaf.self_signed) {
            self.ask(url, NamedBy::Certificate);
        }
    }

    /// What egress would not ask anyway is no destination; control says so where it matters.
    fn ask(&mut self, url: &str, by: NamedBy) {
        if self.policy.check(url, by).is_ok() {
            self.destinations.add(url, by);
        }
    }
}

/// Where DNS may be spoken. A resolver without an address in reach of a rule is none.
fn resolvers() -> Vec<SocketAddr> {
    // Without the file, libc asks this machine, as with an empty one.
    resolvers::parse(&std::fs::read_to_string(resolvers::FILE).unwrap_or_default())
}

fn leaf(path: &Path) -> Result<Leaf, String> {
    use io::Read;
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut pem = Vec::new();
    file.take(CREDENTIAL_FILE_BYTES)
        .read_to_end(&mut pem)
        .map_err(|error| error.to_string())?;
    let chain = certificates_from_pem(&pem).map_err(|error| error.to_string())?;
    Leaf::parse(&chain[0]).map_err(|error| error.to_string())
}
