//! The deployment of docs/EGRESS.md, step by step, under a real systemd: both units with their drop-ins,
//! users, system call filters and capabilities.

use std::net::SocketAddr;
use std::sync::Arc;

use clinch::cli::demo::authority::{Issued, LeafSpec};
use clinch_tests::dns::{Dns, Lookup};
use clinch_tests::machine::Machine;
use clinch_tests::network::Network;
use clinch_tests::responder::Responder;
use clinch_tests::setup::{Setup, assert_stapled};
use clinch_tests::{PROMPT, eventually, skip};

/// What an operator does, after which both services run. Certificate, key and configuration are in /opt.
const DEPLOY: &str = "
cd /opt/packaging
cp clinch.service clinch-firewall.service /lib/systemd/system/
units=/etc/systemd/system
mkdir -p $units/clinch.service.d
cp clinch.service.d/separate-egress.conf clinch.service.d/pinned.conf $units/clinch.service.d/
cp clinch.sysusers /usr/lib/sysusers.d/clinch.conf
cp clinch.tmpfiles /usr/lib/tmpfiles.d/clinch.conf
systemd-sysusers clinch.conf
mkdir -p /etc/clinch/keys
install -m 644 /opt/1.pem /opt/clinch.toml /etc/clinch/
install -m 600 /opt/1.key /etc/clinch/keys/
systemd-tmpfiles --create clinch.conf
";

const IPTABLES: &str = "
mkdir -p /etc/systemd/system/clinch-firewall.service.d
cp /opt/packaging/clinch-firewall.service.d/iptables.conf /etc/systemd/system/clinch-firewall.service.d/
";

const START: &str = "systemctl daemon-reload; systemctl start clinch-firewall clinch";

/// Finds the worker of egress.
const WORKER: &str = "grep -lzx -e '--[w]orker' /proc/[0-9]*/cmdline | cut -d/ -f3";

const SITE: &str = "a.test";

/// A responder that can move, and the deployment that asks it.
struct Scene {
    machine: Machine,
    setup: Setup,
    issued: Issued,
    dns: Dns,
    second: Responder,
    _others: [Responder; 2],
    _network: Network,
}

impl Scene {
    fn new(format: &str) -> Option<Self> {
        let network = Network::enter()?;
        for address in ["10.77.0.3/16", "10.77.0.4/16", "10.77.0.53/16"] {
            network.on_client("ip", &["addr", "add", address, "dev", "veth0"]);
        }
        let mut setup = Setup::new();
        let spec = LeafSpec {
            ocsp_urls: vec!["http://ocsp.test:8080/".to_owned()],
            ..setup.leaf(SITE)
        };
        let issued = setup.authority.issue(&spec).expect("sound");
        setup.write(&issued);
        let config = format!(
            "user = \"clinch\"\ncache_dir = \"/var/cache/clinch\"\n\
             [egress]\nuser = \"clinch-egress\"\nallow = [\"10.77.0.0/16\"]\nports = [8080]\nresolvers = [\"10.77.0.53\"]\nttl_min = \"0s\"\n\
             [firewall]\nformat = \"{format}\"\n\
             [listen.public]\naddress = \"10.77.0.1:443\"\n\
             [[site]]\nnames = [\"{SITE}\"]\ncert = \"/etc/clinch/1.pem\"\nkey = \"/etc/clinch/keys/1.key\"\nbackend = \"127.0.0.1:9\"\n"
        );
        std::fs::write(setup.dir().join("clinch.toml"), config).expect("our own directory");
        let dns = network.visit(|| Dns::start(([10, 77, 0, 53], 53).into()));
        let responder = |last| {
            let at = SocketAddr::from(([10, 77, 0, last], 8080));
            let authority = Arc::clone(&setup.authority);
            network.visit(|| Responder::start(at, authority))
        };
        let others = [responder(2), responder(3)];
        let second = responder(4);
        let scene = Self {
            machine: Machine::boot()?,
            dns: dns.expect("root may listen"),
            issued,
            second,
            _others: others,
            setup,
            _network: network,
        };
        scene.responder_is_at(3);
        Some(scene)
    }

    fn responder_is_at(&self, last: u8) {
        let at = Lookup::Addresses(vec![[10, 77, 0, last].into()]);
        self.dns.set("ocsp.test", at);
    }

    #[track_caller]
    fn assert_stapled(&self) {
        let at = ([10, 77, 0, 1], 443).into();
        let session = self.setup.client().connect(at, SITE);
        assert_stapled(&session.expect("a handshake"), &self.issued);
    }

    /// Whether a user of the machine can connect to the responder at an address.
    fn reaches(&self, user: &str, last: u8) -> bool {
        let script = format!(
            "setpriv --reuid={user} --clear-groups bash -c 'echo > /dev/tcp/10.77.0.{last}/8080'"
        );
        self.machine.run(&script).code == Some(0)
    }

    /// A line of what the kernel says about the process that a command finds.
    fn status(&self, find: &str, key: &str) -> String {
        let script = format!("grep ^{key}: /proc/$({find})/status");
        let line = self.machine.must(&script);
        let value = line.split_ascii_whitespace().nth(1);
        value.expect("a value").to_owned()
    }

    #[track_caller]
    fn fetches(&self) {
        eventually("a fetch succeeds", PROMPT, || {
            let said = self.machine.run(&format!("clinch ocsp fetch {SITE}"));
            said.text.contains("verified and stapled").then_some(())
        });
    }
}

fn the_deployment_works(format: &str) {
    let Some(scene) = Scene::new(format) else {
        skip!("systemd cannot be run in namespaces here (root, systemd and overlayfs are needed)");
    };
    let machine = &scene.machine;
    for file in ["1.pem", "1.key", "clinch.toml"] {
        machine.put(&scene.setup.dir().join(file), &format!("/opt/{file}"));
    }
    machine.must(DEPLOY);
    let nftables = format == "nftables";
    if !nftables {
        machine.must(IPTABLES);
    }
    machine.must(START);
    scene.assert_stapled();
    let journal = machine.must("journalctl --no-pager --unit=clinch --unit=clinch-firewall");
    assert!(journal.contains("firewall_ready"), "{journal}");
    assert!(!journal.contains("egress_unconfined"), "{journal}");

    // CAP_NET_ADMIN; for the iptables family CAP_NET_RAW, too. None for egress.
    let keeper = "systemctl show --property=MainPID --value clinch-firewall";
    let capabilities = if nftables { "1000" } else { "3000" };
    for (find, capabilities) in [(keeper, capabilities), (WORKER, "0")] {
        assert_eq!(scene.status(find, "CapEff"), format!("{capabilities:0>16}"));
        assert_eq!(scene.status(find, "NoNewPrivs"), "1");
        assert_eq!(scene.status(find, "Seccomp"), "2", "a filter");
    }

    assert!(scene.reaches("clinch-egress", 3) && !scene.reaches("clinch-egress", 4));
    assert!(scene.reaches("clinch", 4));
    scene.responder_is_at(4);
    scene.fetches();
    assert!(scene.reaches("clinch-egress", 4));

    // Both die, and are there again.
    machine.must(&format!(
        "systemctl kill --signal=KILL clinch-firewall; kill -9 $({WORKER})"
    ));
    let asked = scene.second.count();
    scene.fetches();
    assert!(scene.second.count() > asked);

    // Without the keeper the rules stay, and clinch serves what it has.
    machine.must("systemctl stop clinch-firewall");
    assert!(!scene.reaches("clinch-egress", 2) && scene.reaches("clinch", 2));
    scene.assert_stapled();
    let removed = machine.must("clinch firewall apply --remove");
    assert!(removed.starts_with("removed "), "{removed}");
    machine.must("systemctl stop clinch");
}

#[test]
fn the_deployment_with_nftables_works_under_systemd() {
    the_deployment_works("nftables");
}

#[test]
fn the_deployment_with_iptables_works_under_systemd() {
    the_deployment_works("iptables");
}
