//! What a machine stands in: an authority, two responders on the host of which its packet filter knows
//! one, and the folder with its configuration.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use clinch::cli::demo::authority::{Authority, LeafSpec};

use super::{HOST, Machine, Parts, address, disks, operator, port};
use crate::peers::{self, Said};
use crate::responder::Responder;

/// Servers on the host, and a configuration for the machine.
pub struct Place {
    /// Signs certificates and responses.
    pub authority: Arc<Authority>,
    /// The responder of `edge.test`.
    pub responder: Responder,
    /// The responder of `cut-off.test`, which the packet filter does not name.
    pub forbidden: Responder,
    /// The host's port that leads to the machine's listener.
    pub port: u16,
    /// A directory of the test's own.
    pub dir: tempfile::TempDir,
}

impl Place {
    /// Starts the servers and writes the configuration.
    pub fn new() -> Self {
        let authority = Arc::new(Authority::new(SystemTime::now()).expect("keys can be made"));
        let place = Self {
            responder: Responder::start(address(), Arc::clone(&authority)),
            forbidden: Responder::start(address(), Arc::clone(&authority)),
            port: port(),
            dir: tempfile::tempdir().expect("a temporary directory"),
            authority,
        };
        fs::create_dir(place.config()).expect("in our own directory");
        fs::write(place.root(), place.authority.root_pem()).expect("in our own directory");
        place.write(
            "clinch.toml",
            &format!(
                "user = 'clinch'\n[egress]\nuser = 'clinch-egress'\nallow = ['{HOST}', 'fec0::/64', '2001:db8::/64']\nports = ['1-65535']\n\
                 [steering]\nmode = 'kernel'\n[listen.public]\naddress = ['0.0.0.0:8443', '[::]:8443']\n",
            ),
        );
        place.add_site("edge.test", &format!("{HOST}:{}", place.responder.port()));
        place.add_site(
            "cut-off.test",
            &format!("{HOST}:{}", place.forbidden.port()),
        );
        place.write(
            "machine.toml",
            &format!(
                "hostname = 'edge-1'\n[egress]\nallow = ['{HOST}:{}']\n",
                place.responder.port()
            ),
        );
        place
    }

    /// Adds a site with a certificate that names a responder at this place, as the machine sees it.
    pub fn add_site(&self, name: &str, responder: &str) {
        let issued = self.authority.issue(&LeafSpec {
            names: vec![name.to_owned()],
            ocsp_urls: vec![format!("http://{responder}/ocsp")],
            ..LeafSpec::default()
        });
        let issued = issued.expect("a sound specification");
        self.write(&format!("{name}.pem"), &issued.chain_pem);
        self.write(&format!("{name}.key"), &issued.key_pem);
        self.add(
            "clinch.toml",
            &format!(
                "[[site]]\nnames = ['{name}']\ncert = '/config/{name}.pem'\nkey = '/config/{name}.key'\nbackend = '{HOST}:9'\n"
            ),
        );
    }

    /// Opens the admin interface to the host, for whoever has the key that is returned.
    pub fn allow_operator(&self) -> PathBuf {
        let key = operator::key(self.dir.path());
        let said = operator::tool(&["key", &key.display().to_string()]);
        let public = said.text.trim();
        self.add(
            "machine.toml",
            &format!(
                "[admin]\nlisten = '0.0.0.0:9443'\nfrom = ['10.0.2.0/24']\nkeys = ['{public}']\n"
            ),
        );
        key
    }

    /// Writes a file of the configuration.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.config().join(name), text).expect("in our own directory");
    }

    /// A file of the configuration.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.config().join(name)).expect("written before")
    }

    /// Adds lines to a file of the configuration.
    pub fn add(&self, name: &str, lines: &str) {
        let mut text = self.read(name);
        let _ = write!(text, "{lines}");
        self.write(name, &text);
    }

    /// The folder of the configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    /// The root certificate, for clients.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root.pem")
    }

    /// The configuration as a volume.
    pub fn volume(&self) -> PathBuf {
        disks::volume(&self.config(), &self.dir.path().join("volume.img"))
    }

    /// A state partition that nobody has written to.
    pub fn state(&self) -> PathBuf {
        disks::state(&self.dir.path().join("state.img"))
    }

    /// A machine with these disks and its listener forwarded.
    pub fn parts(&self, disks: &[&Path]) -> Parts {
        Parts {
            disks: disks.iter().map(|disk| disk.to_path_buf()).collect(),
            forwards: vec![(self.port, 8443)],
            ..Parts::default()
        }
    }

    /// What `openssl s_client -status` says to the machine about a name.
    pub fn handshake(&self, name: &str) -> Said {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        peers::openssl_client(address, name, &self.root(), &["-status"])
    }

    /// Asserts that a handshake brings a good staple.
    #[track_caller]
    pub fn assert_stapled(&self) {
        self.handshake("edge.test")
            .has("OCSP Response Status: successful (0x0)")
            .has("Cert Status: good");
    }

    /// Asserts what a machine with this configuration must show: a good staple, steering in the
    /// kernel, no more modules, and that the packet filter leads to the one responder alone.
    #[track_caller]
    pub fn assert_serves_closed(&self, machine: &mut Machine) {
        self.assert_stapled();
        for part in [
            "modules locked",
            "network eth0 10.0.2.15/24",
            "clinch serves",
            "steering kernel",
            "site edge.test staple stapled",
            "handshakes per second",
        ] {
            machine.says(part);
        }
        // The other responder is as near, and says good; only the packet filter is in the way.
        machine.says("site cut-off.test staple missing");
        machine.says("ocsp_failed");
        assert_eq!(
            self.forbidden.count(),
            0,
            "egress reached what it must not:\n{}",
            machine.said()
        );
        assert!(self.responder.count() >= 1);
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}
