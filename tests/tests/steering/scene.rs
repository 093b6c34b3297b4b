//! A steered server between two network namespaces, what it counts, and handshakes with it.

use std::collections::HashMap;
use std::net::SocketAddr;

use clinch_tests::backend::Backend;
use clinch_tests::client::{Client, Offer};
use clinch_tests::network::Network;
use clinch_tests::process::{Clinch, Start};
use clinch_tests::setup::{Files, Setup};
use clinch_tests::{PROMPT, eventually};
use rustls::NamedGroup;

pub(crate) const NAMES: [&str; 4] = ["a.test", "b.test", "c.test", "d.test"];
pub(crate) const PORT: u16 = 8443;

/// A server whose sites are steered.
pub(crate) struct Scene {
    pub(crate) clinch: Clinch,
    pub(crate) setup: Setup,
    /// Sends hellos that fit into one segment; see [`Scene::with_large_hellos`].
    pub(crate) client: Client,
    pub(crate) backend: Backend,
    /// Certificate and key of each site.
    files: Vec<(String, Files)>,
    pub(crate) network: Network,
}

impl Scene {
    /// `None` where the machine has no namespaces.
    pub(crate) fn started(steering: &str, top: &str, how: &Start) -> Option<Self> {
        Self::started_in(steering, top, how, |_| ())
    }

    /// The same in a network that is changed first.
    pub(crate) fn started_in(
        steering: &str,
        top: &str,
        how: &Start,
        change: impl FnOnce(&Network),
    ) -> Option<Self> {
        let network = Network::enter()?;
        change(&network);
        let mut setup = Setup::new();
        setup.address = ([0, 0, 0, 0], PORT).into();
        setup.top += top;
        let backend = Backend::echo();
        let mut files = Vec::new();
        for name in NAMES.into_iter().chain(["*.wild.test"]) {
            let issued = setup.authority.issue(&setup.leaf(name));
            files.push((
                name.to_owned(),
                setup.write(&issued.expect("a sound specification")),
            ));
        }
        for (name, files) in &files {
            let names = [name.as_str()];
            setup.site_of(&names, files, &[backend.written()], "ocsp = false");
        }
        setup.tables = format!("[steering]\n{steering}\n[listen.six]\naddress = \"[::]:{PORT}\"\n");
        let clinch = setup.start_as(how);
        let small = Offer {
            groups: vec![NamedGroup::X25519],
            ..Offer::default()
        };
        let scene = Self {
            client: Client::offering(setup.authority.root(), &small),
            clinch,
            setup,
            backend,
            files,
            network,
        };
        Some(scene)
    }

    /// From now on hellos carry post-quantum keys and take two segments, and as the client permutes
    /// its extensions, the name is now in the first and now in the second.
    pub(crate) fn with_large_hellos(mut self) -> Self {
        self.client = Client::new(self.setup.authority.root());
        self
    }

    pub(crate) fn steering(&self) -> serde_json::Value {
        self.clinch.status()["steering"].clone()
    }

    pub(crate) fn wait_for_mode(&self, mode: &str) {
        eventually(&format!("mode {mode}"), PROMPT, || {
            (self.steering()["mode"] == mode).then_some(())
        });
    }

    /// Waits until the kernel has counted so many of an event; clinch reads it four times a second.
    pub(crate) fn wait_for_event(&self, event: &str, least: u64) {
        eventually(&format!("{event} >= {least}"), PROMPT, || {
            (self.event(event) >= least).then_some(())
        });
    }

    pub(crate) fn event(&self, event: &str) -> u64 {
        let status = self.steering();
        let events = status["events"].as_array().expect("a list").clone();
        let found = events.iter().find(|pair| pair[0] == event);
        found.and_then(|pair| pair[1].as_u64()).unwrap_or(0)
    }

    pub(crate) fn of_workers(&self, field: &str) -> Vec<u64> {
        let status = self.clinch.status();
        let workers = status["workers"].as_array().expect("a list");
        workers
            .iter()
            .map(|w| w[field].as_u64().expect("a number"))
            .collect()
    }

    /// The home of each site, as clinch reports it.
    pub(crate) fn homes(&self) -> HashMap<String, usize> {
        let status = self.steering();
        let rows = status["table"].as_array().expect("a list");
        let home = |row: &serde_json::Value| {
            let site = row["site"].as_str().expect("a name").to_owned();
            (site, row["workers"][0].as_u64().expect("a number") as usize)
        };
        rows.iter().map(home).collect()
    }

    /// `times` handshakes for each name, of which none may fail. The server has counted all of them
    /// afterwards: a client is done before it.
    pub(crate) fn handshakes(&self, address: SocketAddr, names: &[&str], times: usize) {
        let client = self.client.clone();
        let counted = || self.of_workers("handshakes").iter().sum::<u64>();
        let (before, all) = (counted(), names.len() * times);
        self.network.visit(|| {
            for name in names.iter().cycle().take(all) {
                client
                    .connect(address, name)
                    .unwrap_or_else(|error| panic!("{address} {name}: {error}"));
            }
        });
        eventually("all are counted", PROMPT, || {
            (counted() >= before + all as u64).then_some(())
        });
    }

    /// Asserts that connections for a name complete their handshake on its home and nowhere else.
    #[track_caller]
    pub(crate) fn reach_their_core(&self, address: SocketAddr, times: usize) {
        for name in NAMES {
            self.all_on_home(name, times, || self.handshakes(address, &[name], times));
        }
    }

    /// Asserts that `what` completes so many handshakes, all of them on the home of `name`.
    #[track_caller]
    pub(crate) fn all_on_home(&self, name: &str, times: usize, what: impl FnOnce()) {
        let home = self.homes()[name];
        let before = self.of_workers("handshakes");
        what();
        let after = eventually("all are counted", PROMPT, || {
            let after = self.of_workers("handshakes");
            let all = |counts: &[u64]| counts.iter().sum::<u64>();
            (all(&after) >= all(&before) + times as u64).then_some(after)
        });
        for (worker, (after, before)) in after.iter().zip(&before).enumerate() {
            let expected = if worker == home { times as u64 } else { 0 };
            assert_eq!(after - before, expected, "{name} on worker {worker}");
        }
    }

    /// What the server's side of an open connection negotiated.
    pub(crate) fn options(&self, address: SocketAddr) -> String {
        let client = self.client.clone();
        let (session, options) = self.network.visit(|| {
            let session = client.connect(address, "a.test").expect("a handshake");
            let port = session.stream.sock.local_addr().expect("connected").port();
            (session, port)
        });
        let filter = format!("dport = :{options}");
        let text = self.network.on_server("ss", &["-tinoH", &filter]);
        drop(session);
        text
    }

    /// A figure of the server side's /proc/net/netstat.
    pub(crate) fn netstat(&self, name: &str) -> u64 {
        netstat(&self.network.on_server("cat", &["/proc/net/netstat"]), name)
    }

    /// Segments that clients have sent again.
    pub(crate) fn repeated(&self) -> u64 {
        netstat(
            &self.network.on_client("cat", &["/proc/net/snmp"]),
            "RetransSegs",
        )
    }

    /// Gives the server a configuration with this table, and waits until it is in force.
    pub(crate) fn reload(&self) {
        let applied = || self.clinch.count("clinch_reloads_total", &["applied"]);
        let before = applied();
        self.setup.write_config();
        self.clinch.signal(rustix::process::Signal::HUP);
        eventually("reloaded", PROMPT, || (applied() > before).then_some(()));
    }

    /// Writes the sites again, with further lines for each.
    pub(crate) fn rewrite_sites(&mut self, more: &str) {
        self.setup.clear_sites();
        let files: Vec<_> = self.files.clone();
        for (name, files) in &files {
            let more = format!("ocsp = false\n{more}");
            self.setup
                .site_of(&[name.as_str()], files, &[self.backend.written()], &more);
        }
    }
}

/// A [`Scene`], or the test is skipped.
macro_rules! scene {
    ($steering:expr) => {
        scene!($steering, "", &clinch_tests::process::Start::default())
    };
    ($steering:expr, $top:expr, $how:expr) => {
        match crate::scene::Scene::started($steering, $top, $how) {
            Some(scene) => scene,
            None => clinch_tests::skip!("network namespaces need root and iproute2"),
        }
    };
}
pub(crate) use scene;

/// How often something is done: in `make test`, and in the long form (`make steering`).
pub(crate) fn rounds(quick: usize, full: usize) -> usize {
    match std::env::var("CLINCH_STEERING") {
        Ok(form) if form == "full" => full,
        _ => quick,
    }
}

/// A figure of /proc/net/netstat, or of /proc/net/snmp.
fn netstat(text: &str, name: &str) -> u64 {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let found = names.split(' ').position(|known| known == name);
        if let Some(at) = found {
            return values
                .split(' ')
                .nth(at)
                .and_then(|v| v.parse().ok())
                .expect("a number");
        }
    }
    panic!("no {name}")
}
