//! The name servers that the system's resolver asks, as resolv.conf(5) lists them.
//!
//! The text is parsed here; which file it came from is the caller's business.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Name servers of a resolv.conf, at most the three that libc uses; without any, the one on this
/// machine, as resolv.conf(5) says. A scope (`fe80::1%eth0`) is left out: rules know no interface
/// here.
pub(super) fn parse(text: &str) -> Vec<SocketAddr> {
    let servers: Vec<SocketAddr> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next()? == "nameserver").then(|| words.next())?
        })
        .filter_map(|word| word.split('%').next()?.parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, PORT))
        .take(MOST)
        .collect();
    match servers.is_empty() {
        true => vec![(Ipv4Addr::LOCALHOST, PORT).into()],
        false => servers,
    }
}

/// The file.
pub(super) const FILE: &str = "/etc/resolv.conf";

const PORT: u16 = 53;

/// MAXNS of libc.
const MOST: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_found_among_other_lines() {
        let text = "# nameserver 192.0.2.9\nsearch example\nnameserver 127.0.0.53\n nameserver\t2001:db8::1 # c\nnameserver fe80::1%eth0\nnameserver 192.0.2.4\n";
        let found: Vec<String> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["127.0.0.53:53", "[2001:db8::1]:53", "[fe80::1]:53"]);
    }

    #[test]
    fn without_any_the_one_on_this_machine_is_meant() {
        assert_eq!(
            parse("options edns0\n"),
            ["127.0.0.1:53".parse().expect("v4")]
        );
    }
}
