//! The hosts and ports that egress may be asked to reach: responders and CRL servers of the
//! certificates and of the configuration. Pure; nothing is resolved.

use std::collections::BTreeMap;
use std::net::IpAddr;

use url::{Host, Url};

use crate::egress::NamedBy;

/// A host, by name or by address, and a TCP port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    /// Name in lower case without a final dot, or an address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Destination {
    /// Of an http or https URL; `None` where it is something else.
    pub fn of_url(url: &str) -> Option<Self> {
        let url = Url::parse(url).ok()?;
        if !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        let port = url.port_or_known_default()?;
        let host = match url.host()? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        Some(Self::new(&host, port))
    }

    /// As somebody wrote it.
    pub fn new(host: &str, port: u16) -> Self {
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = bare.unwrap_or(host).trim_end_matches('.');
        let host = host.to_ascii_lowercase();
        Self { host, port }
    }

    /// The address, where the host is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.address() {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// All of them, each with who chose it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destinations {
    known: BTreeMap<Destination, NamedBy>,
}

impl Destinations {
    /// Adds the destination of a URL, if it is one that is ever fetched.
    pub fn add(&mut self, url: &str, by: NamedBy) {
        if let Some(destination) = Destination::of_url(url) {
            self.insert(destination, by);
        }
    }

    /// Adds a destination. Chosen by both, it is the operator's.
    pub fn insert(&mut self, destination: Destination, by: NamedBy) {
        let known = self.known.entry(destination).or_insert(by);
        if by == NamedBy::Operator {
            *known = by;
        }
    }

    /// Who chose a destination; `None` where nobody did.
    pub fn named_by(&self, destination: &Destination) -> Option<NamedBy> {
        self.known.get(destination).copied()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Destination> {
        self.known.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_becomes_host_and_port() {
        let of = |url| Destination::of_url(url).map(|found| found.to_string());
        assert_eq!(of("http://OCSP.example./x"), Some("ocsp.example:80".into()));
        assert_eq!(of("https://ocsp.example"), Some("ocsp.example:443".into()));
        assert_eq!(
            of("http://[2001:db8::1]:81/"),
            Some("[2001:db8::1]:81".into())
        );
        assert_eq!(of("ldap://ca.example/cn=x"), None);
    }

    #[test]
    fn what_the_operator_wrote_stays_the_operators() {
        let mut all = Destinations::default();
        all.add("http://ocsp.example/", NamedBy::Operator);
        all.add("http://ocsp.example/other", NamedBy::Certificate);
        let found = all.named_by(&Destination::new("OCSP.example", 80));
        assert_eq!(found, Some(NamedBy::Operator));
    }
}
