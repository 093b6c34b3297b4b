//! `machine.toml`: what the machine is, beside `clinch.toml`, which says what it serves.
//!
//! Pure: text in, a checked value or every mistake in words out. Unknown keys are mistakes.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ed25519_dalek::VerifyingKey;
use ipnet::IpNet;
use serde::Deserialize;

/// A checked machine configuration.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Name of the host.
    pub hostname: String,
    /// DNS servers; those of DHCP where there are none.
    pub resolvers: Vec<IpAddr>,
    /// Interfaces in order; every Ethernet interface by DHCP and SLAAC where there are none.
    pub interfaces: Vec<Interface>,
    /// Time servers; those of DHCP where there are none.
    pub time_servers: Vec<String>,
    /// How long serving waits for a time server.
    pub time_wait: Duration,
    /// Where the egress user may go besides the resolvers.
    pub egress: Vec<SocketAddr>,
    /// Whether everything else is closed to it.
    pub pinned: bool,
    /// Whether the configuration is stored sealed by the TPM.
    pub sealed: bool,
    /// The admin interface; none where nobody may use it.
    pub admin: Option<Admin>,
    /// How the machine proves that it serves.
    pub health: Health,
}

/// One interface.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// The name clinch's machine gives it, such as `eth0`, or the VLAN's own name.
    pub name: String,
    /// Hardware address to find it by, instead of the name.
    pub mac: Option<String>,
    /// The interface below, for a VLAN.
    pub parent: Option<String>,
    /// VLAN number, 1 to 4094.
    pub vlan: Option<u16>,
    /// Ask for an IPv4 address.
    #[serde(default)]
    pub dhcp: bool,
    /// Take an IPv6 address from router advertisements.
    #[serde(default = "yes")]
    pub slaac: bool,
    /// Fixed addresses with their prefix.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    /// Default routers.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// Largest packet.
    pub mtu: Option<u32>,
}

/// The admin interface of the machine.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Who may reach it at all.
    pub from: Vec<IpNet>,
    /// Who may command.
    pub keys: Vec<VerifyingKey>,
}

/// The proof that an update or a configuration serves.
#[derive(Clone, Debug)]
pub struct Health {
    /// Listener to connect to.
    pub address: SocketAddr,
    /// Server name to ask for; the first site's where absent.
    pub server_name: Option<String>,
    /// How long it may take.
    pub within: Duration,
}

/// What is wrong with `machine.toml`.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// No TOML, or keys that do not exist.
    #[error("machine.toml cannot be read: {0}")]
    Syntax(Box<toml::de::Error>),
    /// A value that cannot be.
    #[error("machine.toml: {0}")]
    Value(String),
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            hostname: "clinch".to_owned(),
            resolvers: Vec::new(),
            interfaces: Vec::new(),
            time_servers: Vec::new(),
            time_wait: DEFAULT_TIME_WAIT,
            egress: Vec::new(),
            pinned: true,
            sealed: false,
            admin: None,
            health: Health {
                address: DEFAULT_HEALTH,
                server_name: None,
                within: DEFAULT_HEALTH_WITHIN,
            },
        }
    }
}

impl Machine {
    /// Parses and checks.
    pub fn parse(text: &str) -> Result<Self, MachineError> {
        let raw: Raw =
            toml::from_str(text).map_err(|error| MachineError::Syntax(Box::new(error)))?;
        let default = Self::default();
        for interface in &raw.interface {
            interface.check()?;
        }
        let admin = raw.admin.map(RawAdmin::check).transpose()?;
        Ok(Self {
            hostname: raw
                .hostname
                .map(hostname)
                .transpose()?
                .unwrap_or(default.hostname),
            resolvers: raw.resolvers,
            interfaces: raw.interface,
            time_servers: raw.time.servers,
            time_wait: duration("time.wait", raw.time.wait, default.time_wait)?,
            egress: raw.egress.allow,
            pinned: raw.egress.pinned,
            sealed: raw.keys.sealed,
            admin,
            health: Health {
                address: raw.health.address.unwrap_or(default.health.address),
                server_name: raw.health.server_name,
                within: duration("health.within", raw.health.within, default.health.within)?,
            },
        })
    }
}

impl Interface {
    fn check(&self) -> Result<(), MachineError> {
        let wrong = |what: String| {
            Err(MachineError::Value(format!(
                "interface {}: {what}",
                self.name
            )))
        };
        let sound = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        // IFNAMSIZ is 16 with the final zero.
        if self.name.is_empty() || self.name.len() > 15 || !self.name.chars().all(sound) {
            return wrong("the name must have 1 to 15 letters, digits, or - _ .".to_owned());
        }
        match (&self.parent, self.vlan) {
            (None, None) => {}
            (Some(_), Some(1..=4094)) => {}
            (Some(_), Some(other)) => {
                return wrong(format!("vlan = {other} is not within 1 to 4094"));
            }
            _ => return wrong("a VLAN needs both `parent` and `vlan`".to_owned()),
        }
        let mac = |text: &str| {
            let parts: Vec<&str> = text.split(':').collect();
            parts.len() == 6
                && parts
                    .iter()
                    .all(|part| part.len() == 2 && u8::from_str_radix(part, 16).is_ok())
        };
        if let Some(text) = &self.mac
            && !mac(text)
        {
            return wrong(format!(
                "mac = {text:?} is not of the form 52:54:00:12:34:56"
            ));
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    hostname: Option<String>,
    #[serde(default)]
    resolvers: Vec<IpAddr>,
    #[serde(default)]
    interface: Vec<Interface>,
    #[serde(default)]
    time: RawTime,
    #[serde(default)]
    egress: RawEgress,
    #[serde(default)]
    keys: RawKeys,
    admin: Option<RawAdmin>,
    #[serde(default)]
    health: RawHealth,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTime {
    #[serde(default)]
    servers: Vec<String>,
    wait: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKeys {
    #[serde(default)]
    sealed: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEgress {
    #[serde(default)]
    allow: Vec<SocketAddr>,
    #[serde(default = "yes")]
    pinned: bool,
}

impl Default for RawEgress {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            pinned: true,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAdmin {
    listen: SocketAddr,
    from: Vec<IpNet>,
    keys: Vec<String>,
}

impl RawAdmin {
    fn check(self) -> Result<Admin, MachineError> {
        let key = |text: &String| {
            key(text).ok_or_else(|| {
                MachineError::Value(format!(
                    "admin.keys: {text:?} is no key; `clinch-appliance key FILE` prints one"
                ))
            })
        };
        let keys = self.keys.iter().map(key).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() || self.from.is_empty() {
            return Err(MachineError::Value(
                "admin needs at least one network in `from` and one key in `keys`".to_owned(),
            ));
        }
        Ok(Admin {
            listen: self.listen,
            from: self.from,
            keys,
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHealth {
    address: Option<SocketAddr>,
    server_name: Option<String>,
    within: Option<String>,
}

/// A public key from its 64 hexadecimal digits.
pub fn key(text: &str) -> Option<VerifyingKey> {
    let bytes: [u8; 32] = from_hex(text.trim())?.try_into().ok()?;
    VerifyingKey::from_bytes(&bytes).ok()
}

/// Bytes from hexadecimal digits.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let pairs = (0..text.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

/// Hexadecimal digits of bytes.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hostname(name: String) -> Result<String, MachineError> {
    let sound = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if name.is_empty() || name.len() > 63 || !name.chars().all(sound) {
        return Err(MachineError::Value(format!(
            "hostname = {name:?} must have 1 to 63 letters, digits, - or ."
        )));
    }
    Ok(name)
}

fn duration(name: &str, text: Option<String>, default: Duration) -> Result<Duration, MachineError> {
    let Some(text) = text else { return Ok(default) };
    let parsed = humantime::parse_duration(&text)
        .map_err(|error| MachineError::Value(format!("{name} = {text:?}: {error}")))?;
    if parsed > LONGEST_WAIT {
        return Err(MachineError::Value(format!(
            "{name} = {text:?} is more than 10 minutes"
        )));
    }
    Ok(parsed)
}

fn yes() -> bool {
    true
}

const DEFAULT_TIME_WAIT: Duration = Duration::from_secs(20);
const DEFAULT_HEALTH_WITHIN: Duration = Duration::from_secs(90);
const LONGEST_WAIT: Duration = Duration::from_secs(600);
const DEFAULT_HEALTH: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 443);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_a_machine_by_dhcp_with_its_egress_pinned() {
        let machine = Machine::parse("").unwrap();
        assert!(machine.interfaces.is_empty() && machine.pinned && machine.admin.is_none());
    }

    #[test]
    fn keys_are_sealed_where_it_is_asked_for() {
        assert!(Machine::parse("[keys]\nsealed = true").unwrap().sealed);
        assert!(!Machine::parse("[keys]").unwrap().sealed);
    }

    #[test]
    fn a_vlan_with_fixed_addresses_is_read() {
        let machine = Machine::parse(
            "hostname = 'edge-1'\n[[interface]]\nname = 'eth0'\ndhcp = true\n[[interface]]\nname = 'public'\nparent = 'eth0'\nvlan = 100\n\
             addresses = ['192.0.2.7/24', '2001:db8::7/64']\ngateways = ['192.0.2.1']\nslaac = false\n[time]\nservers = ['192.0.2.2']\nwait = '5s'\n",
        )
        .unwrap();
        assert_eq!(machine.interfaces[1].vlan, Some(100));
        assert_eq!(machine.time_wait, Duration::from_secs(5));
    }

    #[test]
    fn mistakes_are_refused_in_words() {
        for (text, part) in [
            ("hostnam = 'a'", "hostnam"),
            ("hostname = 'a b'", "hostname"),
            ("[[interface]]\nname = 'v'\nvlan = 7", "parent"),
            (
                "[[interface]]\nname = 'v'\nparent = 'e'\nvlan = 5000",
                "4094",
            ),
            (
                "[[interface]]\nname = 'a-name-that-is-too-long'",
                "15 letters",
            ),
            ("[[interface]]\nname = 'e'\nmac = '1:2'", "form"),
            ("[time]\nwait = '2 fortnights'", "time.wait"),
            ("[time]\nwait = '3h'", "10 minutes"),
            (
                "[admin]\nlisten = '10.0.0.1:9'\nfrom = ['10.0.0.0/8']\nkeys = ['xyz']",
                "no key",
            ),
            (
                "[admin]\nlisten = '10.0.0.1:9'\nfrom = []\nkeys = []",
                "at least one",
            ),
        ] {
            let error = Machine::parse(text).expect_err(text).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
