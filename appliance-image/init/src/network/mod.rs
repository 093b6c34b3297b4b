//! The network: links, addresses, routes, DHCP, resolvers and time.
//!
//! [`bring_up`] configures every interface of the machine configuration, and stays in the
//! background for those that live on a lease. It does not filter ([`crate::firewall`] does).

pub mod dhcp;
pub mod link;
pub mod time;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use link::Links;

use crate::machine::{Interface, Machine};
use crate::say;

/// What is known about the network now; shared with the status screen.
#[derive(Clone, Debug, Default)]
pub struct Network {
    inner: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// Addresses by interface, for people.
    addresses: BTreeMap<String, Vec<String>>,
    /// What DHCP servers named.
    leased_resolvers: Vec<IpAddr>,
    leased_time_servers: Vec<IpAddr>,
}

impl Network {
    /// Lines such as `eth0 10.0.2.15/24`, with the addresses that routers brought.
    pub fn lines(&self) -> Vec<String> {
        let known = self.known();
        let mut addresses = known.addresses.clone();
        drop(known);
        for (name, address) in inet6(&fs::read_to_string("/proc/net/if_inet6").unwrap_or_default())
        {
            addresses.entry(name).or_default().push(address);
        }
        addresses
            .into_iter()
            .map(|(name, mut list)| {
                list.sort();
                list.dedup();
                format!("{name} {}", list.join(" "))
            })
            .collect()
    }

    /// DNS servers that DHCP named.
    pub fn leased_resolvers(&self) -> Vec<IpAddr> {
        self.known().leased_resolvers.clone()
    }

    /// Time servers that DHCP named.
    pub fn leased_time_servers(&self) -> Vec<IpAddr> {
        self.known().leased_time_servers.clone()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_addresses(&self, interface: &str, addresses: Vec<String>) {
        self.known()
            .addresses
            .insert(interface.to_owned(), addresses);
    }

    fn leased(&self, lease: &dhcp::Lease) {
        let mut known = self.known();
        known.leased_resolvers.clone_from(&lease.resolvers);
        known.leased_time_servers.clone_from(&lease.time_servers);
    }
}

/// Configures all interfaces, and waits at most `wait` for the first address of each that asks for
/// one. Returns what is known; leases are renewed in the background.
pub fn bring_up(machine: &Machine, wait: Duration) -> Network {
    let network = Network::default();
    let mut links = match Links::open() {
        Ok(links) => links,
        Err(error) => {
            say!("no network: netlink cannot be opened: {error}");
            return network;
        }
    };
    if let Err(error) = links.up("lo") {
        say!("lo cannot be brought up: {error}");
    }
    let interfaces = if machine.interfaces.is_empty() {
        ethernet().into_iter().map(automatic).collect()
    } else {
        machine.interfaces.clone()
    };
    if interfaces.is_empty() {
        say!("no network card was found; see the hardware table in docs/APPLIANCE.md");
    }
    let mut waiting = Vec::new();
    for interface in &interfaces {
        match configure(&mut links, interface, &network) {
            Ok(()) if interface.dhcp => {
                waiting.push(dhcp::start(interface.name.clone(), network.clone()));
            }
            Ok(()) => {}
            Err(error) => say!("interface {}: {error}", interface.name),
        }
    }
    let deadline = Instant::now() + wait;
    for (interface, first) in interfaces.iter().filter(|i| i.dhcp).zip(waiting) {
        let left = deadline.saturating_duration_since(Instant::now());
        if first.recv_timeout(left).is_err() {
            say!(
                "interface {}: no DHCP server has answered yet; it is asked again",
                interface.name
            );
        }
    }
    write_resolvers(machine, &network);
    network
}

/// Writes `/run/resolv.conf` from the configuration, else from the leases.
pub fn write_resolvers(machine: &Machine, network: &Network) {
    let text: String = resolvers(machine, network)
        .iter()
        .map(|address| format!("nameserver {address}\n"))
        .collect();
    // A name that does not resolve must not hold a fetch for long.
    let text = text + "options timeout:2 attempts:2\n";
    if let Err(error) = fs::write("/run/resolv.conf", text) {
        say!("/run/resolv.conf cannot be written: {error}");
    }
}

/// The DNS servers in use.
pub fn resolvers(machine: &Machine, network: &Network) -> Vec<IpAddr> {
    if machine.resolvers.is_empty() {
        network.leased_resolvers()
    } else {
        machine.resolvers.clone()
    }
}

fn configure(links: &mut Links, interface: &Interface, network: &Network) -> std::io::Result<()> {
    match (&interface.parent, interface.vlan) {
        (Some(parent), Some(vlan)) => {
            links.up(parent)?;
            links.add_vlan(&interface.name, parent, vlan)?;
        }
        _ => {
            if let Some(mac) = &interface.mac {
                let found = ethernet()
                    .into_iter()
                    .find(|name| mac_of(name).eq_ignore_ascii_case(mac));
                let Some(found) = found else {
                    return Err(std::io::Error::other(format!(
                        "no card has the address {mac}"
                    )));
                };
                if found != interface.name {
                    links.rename(&found, &interface.name)?;
                }
            }
        }
    }
    let name = &interface.name;
    let set = |key: &str, value: &str| {
        if let Err(error) = fs::write(format!("/proc/sys/net/{key}"), value) {
            say!("interface {name}: {key} cannot be set: {error}");
        }
    };
    let on = if interface.slaac { "1" } else { "0" };
    set(&format!("ipv6/conf/{name}/accept_ra"), on);
    set(&format!("ipv6/conf/{name}/autoconf"), on);
    if let Some(mtu) = interface.mtu {
        links.set_mtu(name, mtu)?;
    }
    links.up(name)?;
    for address in &interface.addresses {
        links.add_address(name, *address)?;
    }
    for gateway in &interface.gateways {
        links.add_default_route(name, *gateway)?;
    }
    if !interface.dhcp {
        // With an address there, packets must come from where answers would go. A DHCP client has
        // none at first, so its interface stays without.
        set(&format!("ipv4/conf/{name}/rp_filter"), "1");
    }
    network.set_addresses(
        name,
        interface
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect(),
    );
    Ok(())
}

fn automatic(name: String) -> Interface {
    Interface {
        name,
        mac: None,
        parent: None,
        vlan: None,
        dhcp: true,
        slaac: true,
        addresses: Vec::new(),
        gateways: Vec::new(),
        mtu: None,
    }
}

/// Ethernet cards, in order of their names.
fn ethernet() -> Vec<String> {
    const ETHER: &str = "1";
    let entries = fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names
        .filter(|name| {
            let folder = Path::new("/sys/class/net").join(name);
            let kind = fs::read_to_string(folder.join("type")).unwrap_or_default();
            kind.trim() == ETHER && folder.join("device").exists()
        })
        .collect();
    names.sort();
    names
}

fn mac_of(interface: &str) -> String {
    let text = fs::read_to_string(format!("/sys/class/net/{interface}/address"));
    text.unwrap_or_default().trim().to_owned()
}

/// Interfaces and addresses of `/proc/net/if_inet6`, without link-local ones.
fn inet6(text: &str) -> Vec<(String, String)> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [address, _, prefix, _, _, name] = fields[..] else {
            return None;
        };
        let address = std::net::Ipv6Addr::from(u128::from_str_radix(address, 16).ok()?);
        let prefix = u8::from_str_radix(prefix, 16).ok()?;
        let local = address.is_loopback() || address.is_unicast_link_local();
        (!local).then(|| (name.to_owned(), format!("{address}/{prefix}")))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn global_addresses_are_shown() {
        let text = "00000000000000000000000000000001 01 80 10 80       lo\n\
                    fe800000000000005054fffe123456ff 02 40 20 80     eth0\n\
                    20010db8000000000000000000000007 02 40 00 80     eth0\nbroken\n";
        assert_eq!(
            inet6(text),
            [("eth0".to_owned(), "2001:db8::7/64".to_owned())]
        );
    }
}
