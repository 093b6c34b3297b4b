//! What most tests stand on: an authority, its responder, a directory with certificates and keys,
//! and the text of a configuration, from which [`Setup::start`] starts clinch.
//!
//! A test adds sites and configuration lines, then starts. It may write the configuration again
//! and reload.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use clinch::certificate::Fingerprint;
use clinch::cli::demo::authority::{Authority, Issued, LeafSpec};
use clinch::ocsp;
use rustls::pki_types::CertificateDer;

use crate::client::{Client, Session};
use crate::place;
use crate::process::{Clinch, Start};
use crate::responder::Responder;

/// Certificates, a responder and a configuration in the making.
pub struct Setup {
    /// Signs certificates and responses.
    pub authority: Arc<Authority>,
    /// Answers for the authority; named in each certificate that [`Setup::leaf`] describes.
    pub responder: Responder,
    /// URL of the responder.
    pub url: String,
    /// Where the public listener is.
    pub address: SocketAddr,
    /// Lines before the first table.
    pub top: String,
    /// Lines of `[listen.public]` after the addresses.
    pub listen: String,
    /// Lines of `[timeouts]`. Draining is short, since a test that ends may still hold connections.
    pub timeouts: String,
    /// Lines of `[log]`.
    pub log: String,
    /// Lines of `[egress]`: responders on this machine and in the tests' networks may be asked.
    pub egress: String,
    /// Tables after the sites.
    pub tables: String,
    sites: Vec<String>,
    files: usize,
    dir: tempfile::TempDir,
}

/// Certificate and key written to files.
#[derive(Clone, Debug)]
pub struct Files {
    /// The chain, PEM.
    pub cert: PathBuf,
    /// The key, PEM, mode 600.
    pub key: PathBuf,
}

impl Setup {
    /// A new authority with a responder that says *good*, and a configuration without sites: two
    /// workers, an admin socket, a cache.
    pub fn new() -> Self {
        let authority = Arc::new(Authority::new(SystemTime::now()).expect("keys can be made"));
        let (at, url) = Responder::place();
        let responder = Responder::start(at, Arc::clone(&authority));
        let dir = tempfile::Builder::new()
            .prefix("clinch-test-")
            .tempdir()
            .expect("a temporary directory");
        let cache = dir.path().join("cache");
        std::fs::create_dir(&cache).expect("in our own directory");
        let setup = Self {
            authority,
            responder,
            url,
            address: place::fresh(),
            top: format!("workers = 2\ncache_dir = {cache:?}\n"),
            listen: String::new(),
            timeouts: "drain = \"2s\"\n".to_owned(),
            log: "level = \"clinch=debug,info\"\n".to_owned(),
            egress: NEAR.to_owned(),
            tables: String::new(),
            sites: Vec::new(),
            files: 0,
            dir,
        };
        std::fs::write(setup.root_path(), setup.authority.root_pem())
            .expect("in our own directory");
        setup
    }

    /// One site, `name`, with an ECDSA certificate and this backend.
    pub fn with_site(name: &str, backend: &str) -> (Self, Issued) {
        let mut setup = Self::new();
        let issued = setup.site(name, backend, "");
        (setup, issued)
    }

    /// What an ordinary leaf for `name` says: ECDSA on P-256, our responder.
    pub fn leaf(&self, name: &str) -> LeafSpec {
        LeafSpec {
            names: vec![name.to_owned()],
            ocsp_urls: vec![self.url.clone()],
            ..LeafSpec::default()
        }
    }

    /// Adds a site with a fresh ordinary certificate; `more` are further lines of its table.
    pub fn site(&mut self, name: &str, backend: &str, more: &str) -> Issued {
        let spec = self.leaf(name);
        self.site_with(&spec, backend, more)
    }

    /// Adds a site for the names of `spec` with a certificate made to it.
    pub fn site_with(&mut self, spec: &LeafSpec, backend: &str, more: &str) -> Issued {
        let issued = self.authority.issue(spec).expect("a sound specification");
        let files = self.write(&issued);
        let names: Vec<&str> = spec.names.iter().map(String::as_str).collect();
        self.site_of(&names, &files, &[backend], more);
        issued
    }

    /// Adds a site from files.
    pub fn site_of(&mut self, names: &[&str], files: &Files, backends: &[&str], more: &str) {
        let Files { cert, key } = files;
        self.sites.push(format!(
            "[[site]]\nnames = {names:?}\ncert = {cert:?}\nkey = {key:?}\nbackend = {backends:?}\n{more}\n"
        ));
    }

    /// Adds a site whose certificates are given as lines of its table.
    pub fn site_of_certificates(&mut self, names: &[&str], certificates: &str, backends: &[&str]) {
        self.sites.push(format!(
            "[[site]]\nnames = {names:?}\n{certificates}\nbackend = {backends:?}\n"
        ));
    }

    /// Writes a certificate and its key to fresh files.
    pub fn write(&mut self, issued: &Issued) -> Files {
        self.write_pem(&issued.chain_pem, &issued.key_pem)
    }

    /// Writes PEM texts to fresh files, the key with mode 600.
    pub fn write_pem(&mut self, chain: &str, key: &str) -> Files {
        self.files += 1;
        let path = |kind| self.dir.path().join(format!("{}.{kind}", self.files));
        let files = Files {
            cert: path("pem"),
            key: path("key"),
        };
        std::fs::write(&files.cert, chain).expect("in our own directory");
        std::fs::write(&files.key, key).expect("in our own directory");
        set_mode(&files.key, 0o600);
        files
    }

    /// Takes the sites away again, to write others.
    pub fn clear_sites(&mut self) {
        self.sites.clear();
    }

    /// The text of the configuration.
    pub fn text(&self) -> String {
        let mut text = self.top.clone();
        let admin = format!("unix:{}", self.admin_path().display());
        let _ = writeln!(text, "[admin]\nlisten = {admin:?}");
        let _ = writeln!(text, "[log]\n{}", self.log);
        let _ = writeln!(text, "[timeouts]\n{}", self.timeouts);
        let _ = writeln!(text, "[egress]\n{}", self.egress);
        let _ = writeln!(
            text,
            "[listen.public]\naddress = [\"{}\"]\n{}",
            self.address, self.listen
        );
        for site in &self.sites {
            text.push_str(site);
        }
        text.push_str(&self.tables);
        text
    }

    /// Writes the configuration file.
    pub fn write_config(&self) -> PathBuf {
        let path = self.dir.path().join("clinch.toml");
        std::fs::write(&path, self.text()).expect("in our own directory");
        path
    }

    /// Writes the configuration and starts clinch, which is ready when this returns.
    #[track_caller]
    pub fn start(&self) -> Clinch {
        self.start_as(&Start::default())
    }

    /// Like [`Setup::start`], as `how` says.
    #[track_caller]
    pub fn start_as(&self, how: &Start) -> Clinch {
        Clinch::start(&self.write_config(), &self.admin_path(), how)
    }

    /// A client that trusts the authority.
    pub fn client(&self) -> Client {
        Client::new(self.authority.root())
    }

    /// A handshake for `name` that must succeed, by a fresh client.
    #[track_caller]
    pub fn connect(&self, name: &str) -> Session {
        self.client()
            .connect(self.address, name)
            .unwrap_or_else(|error| panic!("handshake for {name}: {error}"))
    }

    /// The directory of this test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The cache directory.
    pub fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    /// The root certificate, PEM.
    pub fn root_path(&self) -> PathBuf {
        self.dir.path().join("root.pem")
    }

    /// The admin socket.
    pub fn admin_path(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

/// Sets a file's mode.
pub fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("our own file");
}

/// Asserts that a session carries a staple that clinch's own verifier takes for this certificate.
#[track_caller]
pub fn assert_stapled(session: &Session, issued: &Issued) {
    let staple = session.staple.as_deref().expect("a staple");
    assert_right(staple, &issued.leaf, &issued.issuer);
}

/// Asserts that a staple is right for a certificate now.
#[track_caller]
pub fn assert_right(staple: &[u8], leaf: &CertificateDer<'_>, issuer: &CertificateDer<'_>) {
    let policy = ocsp::Policy::default();
    let verified = ocsp::verify(staple, leaf, issuer, &policy, SystemTime::now())
        .unwrap_or_else(|refusal| panic!("a wrong staple was sent: {refusal}"));
    let fingerprint = Fingerprint(sha256(leaf));
    assert_eq!(
        verified.certificate(),
        fingerprint,
        "the staple is for another certificate"
    );
}

fn sha256(der: &CertificateDer<'_>) -> [u8; 32] {
    clinch::certificate::Leaf::parse(der)
        .expect("a certificate of the test authority")
        .fingerprint
        .0
}

/// Lines of `[egress]` that allow the addresses and ports that tests have.
const NEAR: &str =
    "allow = [\"127.0.0.0/8\", \"::1\", \"10.0.0.0/8\", \"fd00::/8\"]\nports = [\"1-65535\"]\n";
