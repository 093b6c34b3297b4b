//! What is open, for which host, and until when. Decides what may be opened; opens nothing.
//!
//! Who asks is less trusted than this: a name must be a destination, and an address one that egress's
//! own policy allows ([`Policy`]) and that is within the configured prefixes, if there are any. Time
//! is passed in.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::destinations::{Destination, Destinations};
use super::{Opening, Plan};
use crate::egress::policy::{Class, Policy};
use crate::limits::{FIREWALL_ADDRESSES, FIREWALL_LONGEST_TTL};

/// The openings in force.
#[derive(Debug)]
pub struct Book {
    destinations: Destinations,
    prefixes: Vec<IpNet>,
    policy: Policy,
    hold: Duration,
    /// Until when an address is open for a host.
    open: BTreeMap<(Destination, IpAddr), Instant>,
}

/// Why an address is not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Neither a certificate nor the configuration names it.
    #[error("no certificate and no `ocsp.responder` names {0}, so there is no reason to reach it")]
    UnknownHost(Destination),
    /// Not within `firewall.prefixes`.
    #[error(
        "{host} has the address {address}, which is in none of `firewall.prefixes`; add its network there if that is right"
    )]
    OutsidePrefixes {
        /// The host.
        host: Destination,
        /// Its address.
        address: IpAddr,
    },
    /// An address that no public responder has.
    #[error(
        "{host} has the address {address}, {class}; if that is right, list its network in `egress.allow`"
    )]
    NotPublic {
        /// The host.
        host: Destination,
        /// Its address.
        address: IpAddr,
        /// What is wrong with it.
        class: Class,
    },
    /// Nothing was found for it.
    #[error("no address was found for {0}")]
    NoAddress(Destination),
}

impl Book {
    /// An empty one.
    pub fn new(plan: &Plan) -> Self {
        Self {
            destinations: plan.destinations.clone(),
            prefixes: plan.prefixes.clone(),
            policy: plan.policy.clone(),
            hold: plan.hold,
            open: BTreeMap::new(),
        }
    }

    /// Takes over what a plan allows, and closes what it does not allow any more.
    pub fn adopt(&mut self, plan: &Plan) {
        let mut open = std::mem::take(&mut self.open);
        *self = Self::new(plan);
        open.retain(|(host, address), _| self.judge(host, *address).is_ok());
        self.open = open;
    }

    /// Opens addresses that were found for a host and hold for `ttl`. Gives those that are open now,
    /// or why none is.
    pub fn admit(
        &mut self,
        host: &Destination,
        addresses: &[IpAddr],
        ttl: Duration,
        now: Instant,
    ) -> Result<Vec<IpAddr>, Denial> {
        if self.destinations.named_by(host).is_none() {
            return Err(Denial::UnknownHost(host.clone()));
        }
        let until = now + ttl.min(FIREWALL_LONGEST_TTL) + self.hold;
        let mut denial = Denial::NoAddress(host.clone());
        let mut admitted = Vec::new();
        for &address in addresses.iter().take(FIREWALL_ADDRESSES) {
            match self.judge(host, address) {
                Ok(()) => {
                    let end = self.open.entry((host.clone(), address)).or_insert(until);
                    *end = until.max(*end);
                    admitted.push(address);
                }
                Err(reason) => denial = reason,
            }
        }
        self.bound(host);
        match admitted.is_empty() {
            true => Err(denial),
            false => Ok(admitted),
        }
    }

    /// Whether all these stay open long enough for a fetch, without anything being done: for half of
    /// the hold, so that many questions about one host are one change.
    pub fn holds(&self, host: &Destination, addresses: &[IpAddr], now: Instant) -> bool {
        !addresses.is_empty()
            && addresses.iter().all(|address| {
                let end = self.open.get(&(host.clone(), *address));
                end.is_some_and(|end| *end >= now + self.hold / 2)
            })
    }

    /// Forgets what is over.
    pub fn expire(&mut self, now: Instant) {
        self.open.retain(|_, until| *until > now);
    }

    /// What is open now, each address and port once. Hosts that are addresses are open for good.
    pub fn openings(&self, now: Instant) -> Vec<Opening> {
        let mut merged: BTreeMap<SocketAddr, Opening> = BTreeMap::new();
        let written = self.destinations.iter().filter_map(|host| {
            let address = host.address()?;
            let allowed = self.judge(host, address).is_ok();
            allowed.then_some((host, address, None))
        });
        let found = self.open.iter().filter_map(|((host, address), until)| {
            let left = until.checked_duration_since(now)?;
            (!left.is_zero()).then_some((host, *address, Some(left)))
        });
        for (host, address, left) in written.chain(found) {
            let to = SocketAddr::new(address, host.port);
            let opening = merged.entry(to).or_insert_with(|| Opening {
                to,
                hosts: String::new(),
                left,
            });
            opening.left = opening.left.zip(left).map(|(one, other)| one.max(other));
            if !opening.hosts.split(' ').any(|known| known == host.host) {
                let space = if opening.hosts.is_empty() { "" } else { " " };
                opening.hosts += &format!("{space}{}", host.host);
            }
        }
        merged.into_values().collect()
    }

    fn judge(&self, host: &Destination, address: IpAddr) -> Result<(), Denial> {
        let Some(by) = self.destinations.named_by(host) else {
            return Err(Denial::UnknownHost(host.clone()));
        };
        let host = host.clone();
        let inside = self.prefixes.iter().any(|net| net.contains(&address));
        if !self.prefixes.is_empty() && !inside {
            return Err(Denial::OutsidePrefixes { host, address });
        }
        let judged = self.policy.check_address(address, by);
        judged.map_err(|class| Denial::NotPublic {
            host,
            address,
            class,
        })
    }

    /// Closes what ends first where a host has too many addresses.
    fn bound(&mut self, host: &Destination) {
        let mut of_host: Vec<(Instant, IpAddr)> = self
            .open
            .iter()
            .filter(|((known, _), _)| known == host)
            .map(|((_, address), until)| (*until, *address))
            .collect();
        of_host.sort_unstable();
        let excess = of_host.len().saturating_sub(FIREWALL_ADDRESSES);
        for (_, address) in of_host.into_iter().take(excess) {
            self.open.remove(&(host.clone(), address));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::NamedBy;

    const TTL: Duration = Duration::from_secs(20);
    const HOLD: Duration = Duration::from_secs(10);

    fn plan(allow: &[&str], prefixes: &[&str]) -> Plan {
        let networks = |texts: &[&str]| texts.iter().map(|n| n.parse().expect("a net")).collect();
        let mut plan = Plan {
            prefixes: networks(prefixes),
            hold: HOLD,
            ..Plan::default()
        };
        plan.policy.allow = networks(allow);
        for (url, by) in [
            ("http://ocsp.example/", NamedBy::Certificate),
            ("http://10.0.0.9:81/", NamedBy::Operator),
            ("http://169.254.169.254/", NamedBy::Certificate),
        ] {
            plan.destinations.add(url, by);
        }
        plan
    }

    fn host() -> Destination {
        Destination::new("ocsp.example", 80)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn open(book: &Book, now: Instant) -> Vec<String> {
        let openings = book.openings(now);
        openings.iter().map(|o| o.to.to_string()).collect()
    }

    #[test]
    fn an_address_is_open_until_its_ttl_and_the_hold_are_over() {
        let (mut book, now) = (Book::new(&plan(&[], &[])), Instant::now());
        let addresses = [ip("93.184.215.14")];
        let admitted = book.admit(&host(), &addresses, TTL, now);
        assert_eq!(admitted, Ok(addresses.to_vec()));
        assert!(book.holds(&host(), &addresses, now + TTL));
        assert!(book.holds(&host(), &addresses, now + TTL + HOLD / 2));
        assert!(!book.holds(&host(), &addresses, now + TTL + HOLD));
        let late = now + TTL + HOLD - Duration::from_secs(1);
        assert_eq!(open(&book, late), ["10.0.0.9:81", "93.184.215.14:80"]);
        assert_eq!(open(&book, now + TTL + HOLD), ["10.0.0.9:81"]);
        book.expire(now + TTL + HOLD);
        assert!(book.open.is_empty());
    }

    #[test]
    fn hosts_ports_and_addresses_that_nobody_configured_are_refused() {
        let (mut book, now) = (Book::new(&plan(&[], &[])), Instant::now());
        let public = [ip("93.184.215.14")];
        for other in [
            Destination::new("evil.example", 80),
            Destination::new("ocsp.example", 22),
        ] {
            let refused = book.admit(&other, &public, TTL, now);
            assert_eq!(refused, Err(Denial::UnknownHost(other)));
        }
        for address in [
            "127.0.0.1",
            "10.0.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
        ] {
            let refused = book.admit(&host(), &[ip(address)], TTL, now);
            assert!(
                matches!(refused, Err(Denial::NotPublic { .. })),
                "{address}"
            );
        }
        // The operator's own may be internal; what a certificate says may not.
        assert_eq!(open(&book, now), ["10.0.0.9:81"]);
    }

    #[test]
    fn of_several_addresses_those_within_the_prefixes_are_opened() {
        let plan = plan(&["10.7.0.0/16"], &["10.0.0.0/8"]);
        let (mut book, now) = (Book::new(&plan), Instant::now());
        let found = [ip("93.184.215.14"), ip("10.7.7.7"), ip("10.8.7.7")];
        let admitted = book.admit(&host(), &found, TTL, now);
        assert_eq!(admitted, Ok(vec![found[1]]));
        let refused = book.admit(&host(), &found[..1], TTL, now);
        assert!(matches!(refused, Err(Denial::OutsidePrefixes { .. })));
        // Prefixes restrict, and allow nothing.
        let refused = book.admit(&host(), &found[2..], TTL, now);
        assert!(matches!(refused, Err(Denial::NotPublic { .. })));
    }

    #[test]
    fn a_new_plan_closes_what_it_does_not_name() {
        let (mut book, now) = (Book::new(&plan(&[], &[])), Instant::now());
        let found = [ip("93.184.215.14")];
        book.admit(&host(), &found, TTL, now).expect("public");
        book.adopt(&Plan::default());
        assert!(open(&book, now).is_empty());
    }

    #[test]
    fn a_host_that_changes_its_address_without_end_holds_no_more_than_the_bound() {
        let (mut book, now) = (Book::new(&plan(&[], &[])), Instant::now());
        for n in 0..=255 {
            let address = IpAddr::from([93, 184, 215, n]);
            book.admit(
                &host(),
                &[address],
                TTL,
                now + Duration::from_millis(n.into()),
            )
            .expect("public");
        }
        assert_eq!(book.open.len(), FIREWALL_ADDRESSES);
        let last = (host(), IpAddr::from([93, 184, 215, 255]));
        assert!(book.open.contains_key(&last), "the newest is kept");
    }
}
