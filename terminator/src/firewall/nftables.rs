//! Rules for nftables: a table of our own, so that nothing of anybody else is touched.
//!
//! Each text is one transaction of `nft -f`: it holds whole or not at all, and there is no moment
//! without rules. Nothing is executed here.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::{Opening, Rules};

/// Where the rules are.
pub const TABLE: &str = "inet clinch_egress";

/// Takes the table away; harmless where there is none.
pub const REMOVAL: &str = "table inet clinch_egress\ndelete table inet clinch_egress\n";

/// The complete rule set. Loaded again it replaces itself.
pub fn table(rules: &Rules) -> String {
    let mut text = format!("{REMOVAL}table {TABLE} {{\n");
    for (set, kind, v4) in SETS {
        let _ = write!(
            text,
            "  set {set} {{\n    type {kind} . inet_service\n    flags timeout\n"
        );
        let elements = elements(&rules.openings, v4);
        if !elements.is_empty() {
            let _ = writeln!(text, "    elements = {{ {elements} }}");
        }
        text.push_str("  }\n");
    }
    text.push_str("  chain egress {\n");
    for resolver in &rules.resolvers {
        let (family, address, port) = (family(*resolver), resolver.ip(), resolver.port());
        let _ = writeln!(
            text,
            "    {family} daddr {address} meta l4proto {{ tcp, udp }} th dport {port} counter accept comment \"resolver\""
        );
    }
    let _ = write!(
        text,
        "    ip daddr . tcp dport @responders4 counter accept comment \"responders\"
    ip6 daddr . tcp dport @responders6 counter accept comment \"responders\"
    counter reject with icmpx admin-prohibited comment \"refused\"
  }}
  chain output {{
    type filter hook output priority filter; policy accept;
    meta skuid {} jump egress
  }}
}}
",
        rules.uid
    );
    text
}

/// Replaces what the sets hold, and leaves rules and counters alone.
pub fn refill(openings: &[Opening]) -> String {
    let mut text = String::new();
    for (set, _, v4) in SETS {
        let _ = writeln!(text, "flush set {TABLE} {set}");
        let elements = elements(openings, v4);
        if !elements.is_empty() {
            let _ = writeln!(text, "add element {TABLE} {set} {{ {elements} }}");
        }
    }
    text
}

fn elements(openings: &[Opening], v4: bool) -> String {
    let of_family = openings
        .iter()
        .filter(|opening| opening.to.is_ipv4() == v4)
        .map(|opening| {
            let (address, port) = (opening.to.ip(), opening.to.port());
            match opening.seconds() {
                Some(seconds) => format!("{address} . {port} timeout {seconds}s"),
                None => format!("{address} . {port}"),
            }
        });
    of_family.collect::<Vec<_>>().join(", ")
}

fn family(address: SocketAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}

/// Name, type of address, and whether it is that of IPv4.
const SETS: [(&str, &str, bool); 2] = [
    ("responders4", "ipv4_addr", true),
    ("responders6", "ipv6_addr", false),
];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn opening(to: &str, left: Option<u64>) -> Opening {
        Opening {
            to: to.parse().expect("an address"),
            hosts: "ocsp.example".to_owned(),
            left: left.map(Duration::from_millis),
        }
    }

    #[test]
    fn the_table_names_the_user_and_every_destination_with_its_port() {
        let text = table(&Rules {
            uid: 901,
            user: "clinch-egress".to_owned(),
            resolvers: vec![
                "127.0.0.53:53".parse().expect("v4"),
                "[2001:db8::1]:53".parse().expect("v6"),
            ],
            openings: vec![
                opening("192.0.2.1:80", None),
                opening("[2001:db8::9]:8080", Some(1500)),
            ],
        });
        for part in [
            "meta skuid 901 jump egress",
            "ip daddr 127.0.0.53 meta l4proto { tcp, udp } th dport 53 counter accept",
            "ip6 daddr 2001:db8::1 meta l4proto { tcp, udp } th dport 53 counter accept",
            "elements = { 192.0.2.1 . 80 }",
            "elements = { 2001:db8::9 . 8080 timeout 2s }",
            "counter reject with icmpx admin-prohibited",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(text.starts_with(REMOVAL), "replaces itself");
    }

    #[test]
    fn a_refill_empties_the_sets_even_when_nothing_is_open() {
        let text = refill(&[]);
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.lines().all(|line| line.starts_with("flush set")));
    }
}
