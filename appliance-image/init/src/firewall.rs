//! The packet filter of the machine, as nftables rules.
//!
//! In: the listeners, the admin interface from its networks, and what the machine needs to live
//! (ICMP, answers to its own connections, DHCP). Out: the egress user reaches resolvers and the
//! addresses of the configuration, nothing else; where `clinch firewall apply` keeps the pin
//! ([`crate::keeper`]), that has rules of its own for it. No connection is tracked: that table would be the
//! first thing that a flood fills. [`render`] is pure; [`apply`] hands the rules to `nft` as one
//! transaction, so there is no moment without them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use ipnet::IpNet;

use crate::machine::Machine;
use crate::run::Children;

/// The user of the egress process in the image.
pub const EGRESS_USER: u32 = 901;

/// What the rules are made of.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// DNS servers in use.
    pub resolvers: &'a [IpAddr],
    /// Ports that clinch listens on.
    pub ports: &'a BTreeSet<u16>,
    /// Whether the egress pin is kept by `clinch firewall apply`.
    pub kept: bool,
}

/// Loads the rules.
pub fn apply(children: &Children, plan: &Plan<'_>) -> Result<(), String> {
    let file = "/run/firewall.nft";
    std::fs::write(file, render(plan)).map_err(|error| format!("{file}: {error}"))?;
    children
        .succeed(Command::new("/bin/nft").args(["-f", file]))
        .map(drop)
}

/// The rules as text.
pub fn render(plan: &Plan<'_>) -> String {
    let mut text = String::from(
        "table inet clinch_machine\ndelete table inet clinch_machine\ntable inet clinch_machine {\n",
    );
    inbound(&mut text, plan);
    text.push_str("  chain forward { type filter hook forward priority filter; policy drop; }\n");
    if plan.machine.pinned && !plan.kept {
        outbound(&mut text, plan);
    }
    text.push_str("}\n");
    text
}

fn inbound(text: &mut String, plan: &Plan<'_>) {
    text.push_str("  chain input {\n    type filter hook input priority filter; policy drop;\n    iif lo accept\n");
    // Segments of connections that exist. One that belongs to none is answered by a reset.
    text.push_str("    tcp flags & (syn | ack) != syn accept\n");
    let ports: Vec<String> = plan.ports.iter().map(u16::to_string).collect();
    if !ports.is_empty() {
        let _ = writeln!(text, "    tcp dport {{ {} }} accept", ports.join(", "));
    }
    if let Some(admin) = &plan.machine.admin {
        for from in &admin.from {
            let (family, port) = (family(from.addr()), admin.listen.port());
            let _ = writeln!(
                text,
                "    {family} saddr {} tcp dport {port} accept",
                net(*from)
            );
        }
    }
    // Sockets of ours are connected, so an answer from elsewhere finds none.
    let answering: Vec<String> = answering(plan.machine).iter().map(u16::to_string).collect();
    let _ = writeln!(
        text,
        "    udp sport {{ {} }} udp dport 1024-65535 accept",
        answering.join(", ")
    );
    text.push_str("    udp sport 67 udp dport 68 accept\n");
    text.push_str("    icmp type { echo-request, destination-unreachable, time-exceeded, parameter-problem } limit rate 100/second accept\n");
    text.push_str("    icmpv6 type { echo-request, destination-unreachable, packet-too-big, time-exceeded, parameter-problem } limit rate 100/second accept\n");
    text.push_str("    icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-query } ip6 hoplimit 255 accept\n");
    text.push_str(
        "    icmpv6 type mld-listener-query accept\n    counter comment \"refused\"\n  }\n",
    );
}

/// Ports from which answers come: DNS, NTP, and those of time servers that have another.
fn answering(machine: &Machine) -> BTreeSet<u16> {
    let named = machine.time_servers.iter();
    let others = named.filter_map(|server| Some(server.parse::<SocketAddr>().ok()?.port()));
    others.chain([53, 123]).collect()
}

fn outbound(text: &mut String, plan: &Plan<'_>) {
    text.push_str("  chain egress {\n");
    for resolver in plan.resolvers {
        let family = family(*resolver);
        let _ = writeln!(text, "    {family} daddr {resolver} udp dport 53 accept");
        let _ = writeln!(text, "    {family} daddr {resolver} tcp dport 53 accept");
    }
    for to in &plan.machine.egress {
        let _ = writeln!(text, "    {} accept", destination(to));
    }
    text.push_str(
        "    counter comment \"egress refused\"\n    reject with icmpx admin-prohibited\n  }\n",
    );
    text.push_str(
        "  chain output {\n    type filter hook output priority filter; policy accept;\n",
    );
    let _ = writeln!(text, "    meta skuid {EGRESS_USER} jump egress\n  }}");
}

fn destination(to: &SocketAddr) -> String {
    format!(
        "{} daddr {} tcp dport {}",
        family(to.ip()),
        to.ip(),
        to.port()
    )
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}

fn net(net: IpNet) -> String {
    net.trunc().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(machine: &str) -> String {
        rules_with(machine, false)
    }

    fn rules_with(machine: &str, kept: bool) -> String {
        let machine = Machine::parse(machine).unwrap();
        render(&Plan {
            machine: &machine,
            resolvers: &["10.0.2.3".parse().unwrap()],
            ports: &BTreeSet::from([443, 8443]),
            kept,
        })
    }

    #[test]
    fn only_listeners_and_what_lives_is_let_in() {
        let rules = rules("");
        assert!(rules.contains("tcp dport { 443, 8443 } accept"));
        assert!(rules.contains("hook input priority filter; policy drop"));
        assert!(rules.contains("hook forward priority filter; policy drop"));
    }

    #[test]
    fn egress_is_pinned_unless_the_machine_says_otherwise() {
        let pinned = rules("[egress]\nallow = ['192.0.2.9:80', '[2001:db8::9]:80']");
        for part in [
            "meta skuid 901 jump egress",
            "ip daddr 192.0.2.9 tcp dport 80",
            "ip6 daddr 2001:db8::9 tcp dport 80",
            "reject",
        ] {
            assert!(pinned.contains(part), "{part} in {pinned}");
        }
        assert!(!rules("[egress]\npinned = false").contains("skuid"));
        assert!(!rules_with("", true).contains("skuid"));
    }

    #[test]
    fn answers_come_from_the_ports_of_time_servers_too() {
        assert!(rules("").contains("udp sport { 53, 123 } udp dport 1024-65535 accept"));
        let other = rules("[time]\nservers = ['192.0.2.1:1123', 'time.example']");
        assert!(other.contains("udp sport { 53, 123, 1123 }"));
    }

    #[test]
    fn the_admin_interface_is_open_to_its_networks_alone() {
        let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let rules = rules(&format!(
            "[admin]\nlisten = '10.0.2.15:9000'\nfrom = ['10.0.2.9/24']\nkeys = ['{key}']"
        ));
        assert!(rules.contains("ip saddr 10.0.2.0/24 tcp dport 9000 accept"));
    }
}
