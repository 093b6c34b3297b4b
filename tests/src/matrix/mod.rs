//! The misbehaviour matrix: every fault of a responder against clinch and against the servers it is
//! compared with, and what their clients saw.
//!
//! For each pair a fresh authority, responder and server, with certificates made alike. The server
//! starts while the fault is on and is visited every 700 ms ([`watch`]); then the responder becomes
//! good, and the time to the first right staple is taken, up to a bound. All faults of one server
//! run at once, since they mostly wait, and one server after the other.
//!
//! It must run in network and mount namespaces of its own ([`inside`]), where the name server and
//! the addresses that lead nowhere are.

pub mod faults;
pub mod page;
pub mod servers;
pub mod watch;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backend::{Backend, Hanging};
use crate::dns::{Dns, Lookup};
use crate::setup::Setup;
use faults::{Fault, Way};
use servers::{Ground, Server};
use watch::{Cell, Watch};

/// How long everything takes.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The fault is on and watched for this long.
    pub fault: Duration,
    /// The first right staple is waited for at most this long.
    pub recovery: Duration,
}

/// What came of one fault at one server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Name of the fault.
    pub fault: String,
    /// What was seen.
    pub cell: Cell,
}

/// Runs all faults against one server at once.
pub fn run(server: Server, faults: &[Fault], times: Times, dns: &Dns) -> Vec<Outcome> {
    std::thread::scope(|scope| {
        let runs: Vec<_> = faults
            .iter()
            .enumerate()
            .map(|(number, fault)| scope.spawn(move || one(server, number, fault, times, dns)))
            .collect();
        let cells = runs.into_iter().map(|run| run.join());
        let named = faults.iter().zip(cells);
        named
            .map(|(fault, cell)| Outcome {
                fault: fault.name.clone(),
                cell: cell.unwrap_or_else(|_| panic!("{}: {}", server.name(), fault.name)),
            })
            .collect()
    })
}

fn one(server: Server, number: usize, fault: &Fault, times: Times, dns: &Dns) -> Cell {
    let echo = Backend::echo();
    let mut setup = Setup::new();
    let at: SocketAddr = setup
        .url
        .strip_prefix("http://")
        .and_then(|rest| rest.split('/').next()?.parse().ok())
        .expect("the responder has a plain address");
    let name = format!("f{number}.{}.example", server.key());
    let mut spec = setup.leaf(SITE);
    if fault.way != Way::Address {
        spec.ocsp_urls = vec![format!("http://{name}:{}/ocsp", at.port())];
        setup.url.clone_from(&spec.ocsp_urls[0]);
    }
    let issued = setup.authority.issue(&spec).expect("a sound specification");
    let files = setup.write(&issued);
    setup.site_of(&[SITE], &files, &[echo.written()], "");
    setup.responder.set(fault.mode_for(&setup.url));
    let _nowhere = fault.way.prepare(dns, &name, at);

    let ground = Ground {
        setup: &setup,
        files: &files,
        issued: &issued,
        backend: echo.written(),
    };
    let mut running = server.start(&ground);
    let mut watch = Watch::new(setup.address, SITE, &setup.authority, &issued);
    watch.until_listening(&mut running);
    watch.fault(times.fault);
    setup.responder.says(crate::responder::Answer::Good);
    dns.set(&name, Lookup::Addresses(vec![at.ip()]));
    watch.recovery(times.recovery);
    watch.cell()
}

impl Way {
    /// Sets the name up. What is returned keeps the addresses that lead nowhere.
    fn prepare(self, dns: &Dns, name: &str, at: SocketAddr) -> Option<Hanging> {
        let dead: IpAddr = NOWHERE.parse().expect("an address");
        let (lookup, hanging) = match self {
            Self::Address => return None,
            Self::NoSuchName => (Lookup::NoSuchName, None),
            Self::LookupFails => (Lookup::Failure, None),
            Self::LookupSilent => (Lookup::Silent, None),
            Self::LookupFlaps => (Lookup::Flapping(vec![at.ip()]), None),
            Self::BlackHole6 => (Lookup::Addresses(vec![dead, at.ip()]), Some(dead)),
            Self::BlackHole => (Lookup::Addresses(vec![dead]), Some(dead)),
        };
        dns.set(name, lookup);
        let hanging = hanging?;
        let address = SocketAddr::new(hanging, at.port());
        Some(Hanging::on(address).expect("the namespace has this address"))
    }
}

/// The commands that prepare the namespaces, and then `program` with its arguments inside.
///
/// The name server's address is [`NAME_SERVER`]; there is an address for connections that lead
/// nowhere.
pub fn inside(program: &std::path::Path, arguments: &[String]) -> std::process::Command {
    let script = format!(
        "ip link set lo up && ip addr add {ORDINARY}/32 dev lo && ip -6 addr add {NOWHERE}/128 dev lo nodad && \
         resolv=$(mktemp) && echo 'nameserver {NAME_SERVER}' > $resolv && \
         mount --bind $resolv \"$(readlink -f /etc/resolv.conf)\" && rm $resolv && exec \"$@\""
    );
    let mut command = std::process::Command::new("unshare");
    command
        .args([
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .args(["sh", "-c", &script, "sh"])
        .arg(program)
        .args(arguments);
    command
}

/// The site that is visited.
const SITE: &str = "a.example";

/// Where the name server listens inside.
pub const NAME_SERVER: &str = "127.0.0.53";

/// Makes this a machine with IPv4 for programs that look up addresses: loopback does not count
/// (`AI_ADDRCONFIG` of getaddrinfo(3)).
const ORDINARY: &str = "192.0.2.1";

/// Connections there are neither taken nor refused.
const NOWHERE: &str = "2001:db8::dead";
