//! Rules for iptables: a chain of our own, entered from the top of OUTPUT for packets of one user.
//!
//! Written by hand for an operator it is a shell script that lists every destination ([`script`]);
//! kept by `clinch firewall apply`, destinations are members of two ipsets ([`chain`], [`refill`]).
//! Each COMMIT holds whole or not at all. Nothing is executed here.

use std::fmt::Write as _;

use super::{Opening, Rules};

/// The chain that holds the rules, in the table `filter`.
pub const CHAIN: &str = "CLINCH-EGRESS";

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `iptables`.
    V4,
    /// `ip6tables`.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The ipset of this family's destinations.
    pub fn set(self) -> &'static str {
        match self {
            Self::V4 => "clinch-egress-4",
            Self::V6 => "clinch-egress-6",
        }
    }

    fn has(self, address: std::net::SocketAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }

    /// As `ipset create` has it.
    fn word(self) -> &'static str {
        match self {
            Self::V4 => "inet",
            Self::V6 => "inet6",
        }
    }

    fn refusal(self) -> &'static str {
        match self {
            Self::V4 => "icmp-admin-prohibited",
            Self::V6 => "icmp6-adm-prohibited",
        }
    }
}

/// The rule in OUTPUT, without the command before it.
fn jump(uid: u32) -> String {
    format!("OUTPUT -m owner --uid-owner {uid} -m comment --comment clinch -j {CHAIN}")
}

/// A script for `sh` that loads the rules for both families with `program` (`iptables`, `iptables-nft`
/// or `iptables-legacy`). Run again it replaces them.
pub fn script(rules: &Rules, program: &str) -> String {
    let jump = jump(rules.uid);
    let mut text = String::from("set -eu\n");
    for family in Family::ALL {
        let program = match family {
            Family::V4 => program.to_owned(),
            Family::V6 => six(program),
        };
        if family == Family::V6 {
            text.push_str("[ -e /proc/net/if_inet6 ] || exit 0 # a kernel without IPv6\n");
        }
        let _ = write!(text, "{program}-restore -w --noflush <<'END'\n*filter\n");
        let listed: String = openings(rules, family)
            .map(|opening| {
                let (address, port) = (opening.to.ip(), opening.to.port());
                format!("-A {CHAIN} -d {address} -p tcp --dport {port} -j ACCEPT\n")
            })
            .collect();
        text.push_str(&body(rules, family, &listed));
        text.push_str("COMMIT\nEND\n");
        let _ = writeln!(
            text,
            "{program} -w -C {jump} 2>/dev/null || {program} -w -I {jump}"
        );
    }
    text
}

/// Input of `iptables-restore --noflush` for one family, its destinations being the members of
/// [`Family::set`]. `present` are the rules of OUTPUT, as `iptables -S` prints them: those that enter
/// our chain are replaced by one at the top.
pub fn chain(rules: &Rules, family: Family, present: &str) -> String {
    let members = format!(
        "-A {CHAIN} -p tcp -m set --match-set {} dst,dst -j ACCEPT\n",
        family.set()
    );
    let mut text = String::from("*filter\n");
    text.push_str(&body(rules, family, &members));
    text.push_str(&leave(present));
    let _ = write!(text, "-I {}\nCOMMIT\n", jump(rules.uid));
    text
}

/// Input of `iptables-restore --noflush` that takes the chain and the way into it away.
pub fn removal(present: &str) -> String {
    format!(
        "*filter\n{}-F {CHAIN}\n-X {CHAIN}\nCOMMIT\n",
        leave(present)
    )
}

/// The rules among these, as `iptables -S` prints them, that enter our chain.
pub fn jumps(present: &str) -> impl Iterator<Item = &str> {
    let enters = |line: &&str| {
        line.strip_suffix(CHAIN)
            .is_some_and(|line| line.starts_with("-A OUTPUT ") && line.ends_with(" -j "))
    };
    present.lines().filter(enters)
}

/// Input of `ipset restore -exist` that makes the sets and exchanges what they hold, each at one
/// stroke.
pub fn refill(openings: &[Opening]) -> String {
    let mut text = String::new();
    for family in Family::ALL {
        let (set, kind) = (family.set(), family.word());
        for name in [set.to_owned(), format!("{set}-next")] {
            let _ = writeln!(text, "create {name} hash:ip,port family {kind} timeout 0");
        }
        let _ = writeln!(text, "flush {set}-next");
        for opening in openings.iter().filter(|opening| family.has(opening.to)) {
            let (address, port) = (opening.to.ip(), opening.to.port());
            // 0: for good.
            let seconds = opening.seconds().unwrap_or(0);
            let _ = writeln!(
                text,
                "add {set}-next {address},tcp:{port} timeout {seconds}"
            );
        }
        let _ = writeln!(text, "swap {set} {set}-next\ndestroy {set}-next");
    }
    text
}

/// The name of a program's other half: `ip6tables-legacy` for `iptables-legacy`.
pub fn six(program: &str) -> String {
    program.replacen("ip", "ip6", 1)
}

fn openings(rules: &Rules, family: Family) -> impl Iterator<Item = &Opening> {
    rules.openings.iter().filter(move |o| family.has(o.to))
}

/// The chain's own rules; `destinations` are those for responders.
fn body(rules: &Rules, family: Family, destinations: &str) -> String {
    let mut text = format!(":{CHAIN} - [0:0]\n");
    for resolver in rules.resolvers.iter().filter(|to| family.has(**to)) {
        let (address, port) = (resolver.ip(), resolver.port());
        for protocol in ["udp", "tcp"] {
            let _ = writeln!(
                text,
                "-A {CHAIN} -d {address} -p {protocol} --dport {port} -j ACCEPT"
            );
        }
    }
    text.push_str(destinations);
    // Every rule counts; this one counts what was refused.
    let _ = writeln!(
        text,
        "-A {CHAIN} -j REJECT --reject-with {}",
        family.refusal()
    );
    text
}

fn leave(present: &str) -> String {
    jumps(present)
        .map(|rule| format!("{}\n", rule.replacen("-A", "-D", 1)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        let opening = |to: &str| Opening {
            to: to.parse().expect("an address"),
            hosts: "ocsp.example".to_owned(),
            left: None,
        };
        Rules {
            uid: 901,
            user: "clinch-egress".to_owned(),
            resolvers: vec!["127.0.0.53:53".parse().expect("v4")],
            openings: vec![opening("192.0.2.1:80"), opening("[2001:db8::9]:8080")],
        }
    }

    #[test]
    fn the_script_lists_each_destination_under_its_own_family() {
        let text = script(&rules(), "iptables-legacy");
        let (four, six) = text.split_once("ip6tables-legacy-restore").expect("both");
        assert!(four.contains("-d 192.0.2.1 -p tcp --dport 80 -j ACCEPT"));
        assert!(four.contains("-d 127.0.0.53 -p udp --dport 53 -j ACCEPT"));
        assert!(four.contains("--reject-with icmp-admin-prohibited"));
        assert!(six.contains("-d 2001:db8::9 -p tcp --dport 8080 -j ACCEPT"));
        assert!(!six.contains("127.0.0.53") && !four.contains("2001:db8"));
        assert!(six.contains("ip6tables-legacy -w -I OUTPUT -m owner --uid-owner 901"));
    }

    #[test]
    fn ways_into_the_chain_are_replaced_and_other_rules_are_not() {
        let present = "-P OUTPUT ACCEPT\n-A OUTPUT -p tcp -j LOG\n-A OUTPUT -m owner --uid-owner 7 -j CLINCH-EGRESS\n-A OUTPUT -j NOT-CLINCH-EGRESS\n";
        let text = chain(&rules(), Family::V4, present);
        assert!(text.contains("-D OUTPUT -m owner --uid-owner 7 -j CLINCH-EGRESS\n"));
        assert_eq!(text.matches("-D ").count(), 1, "{text}");
        assert_eq!(text.matches("-I OUTPUT").count(), 1, "{text}");
    }

    #[test]
    fn a_refill_exchanges_both_sets_whole() {
        let text = refill(&rules().openings);
        assert!(text.contains("add clinch-egress-4-next 192.0.2.1,tcp:80 timeout 0"));
        assert!(text.contains("add clinch-egress-6-next 2001:db8::9,tcp:8080 timeout 0"));
        assert_eq!(text.matches("swap ").count(), 2);
    }
}
