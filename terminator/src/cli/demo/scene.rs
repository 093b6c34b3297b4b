//! What the demo stands on: certificates, keys and the configuration in a temporary directory, and
//! a free port. A target for load generators differs in a few lines of the configuration, see
//! [`Purpose`].

use std::fmt::Write as _;
use std::fs::Permissions;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use hyper::Method;
use rustls_pki_types::CertificateDer;

use super::authority::{Authority, KeyAlgorithm, LeafSpec};
use super::responder::Responder;
use super::visit::Visit;
use crate::cli::admin;
use crate::config::AdminAddress;
use crate::observability::report::Report;
use crate::sys::privileges::{self, Account};

/// Files, names and addresses. Dropping it removes the files.
pub(super) struct Scene {
    dir: tempfile::TempDir,
    root: CertificateDer<'static>,
    addresses: Vec<SocketAddr>,
    purpose: Purpose,
    sites: Vec<Site>,
}

/// What the demo is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be watched and tried out.
    Show,
    /// To bear load: exactly the port asked for, metrics over TCP on the next one, clients without
    /// a server name are served, one more site has no staple, the log has warnings only.
    Target,
}

struct Site {
    /// What the certificate says.
    pattern: &'static str,
    /// A name it serves.
    name: &'static str,
    /// What it is there to show.
    about: &'static str,
    leaf: CertificateDer<'static>,
    issuer: CertificateDer<'static>,
}

impl Scene {
    /// Makes certificates, makes the responder know them, and writes everything.
    pub(super) fn make(
        authority: &Authority,
        responder: &Responder,
        backend: SocketAddr,
        first_port: u16,
        purpose: Purpose,
    ) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("clinch-demo-").tempdir()?;
        let mut scene = Self {
            dir,
            root: authority.root().clone(),
            addresses: match purpose {
                Purpose::Show => free_addresses(first_port, PORTS)?,
                Purpose::Target => free_addresses(first_port, 0)?,
            },
            purpose,
            sites: Vec::new(),
        };
        scene.write("root.pem", &authority.root_pem(), 0o644)?;
        std::fs::create_dir(scene.path("cache"))?;
        let mut config = scene.head()?;
        for (pattern, name, key, must_staple, about) in SITES {
            let issued = authority.issue(&LeafSpec {
                names: vec![pattern.to_owned()],
                key,
                must_staple,
                ocsp_urls: vec![responder.url()],
                ..LeafSpec::default()
            })?;
            responder.register(&issued.serial);
            let cert = scene.write(&format!("{name}.pem"), &issued.chain_pem, 0o644)?;
            let key = scene.write(&format!("{name}.key"), &issued.key_pem, 0o600)?;
            write!(
                config,
                "\n[[site]]\nnames = [{pattern:?}]\ncert = {cert:?}\nkey = {key:?}\nbackend = [\"{backend}\"]\n"
            )?;
            let (leaf, issuer) = (issued.leaf, issued.issuer);
            scene.sites.push(Site {
                pattern,
                name,
                about,
                leaf,
                issuer,
            });
        }
        if purpose == Purpose::Target {
            config += &scene.unstapled(authority, backend)?;
        }
        scene.write("clinch.toml", &config, 0o644)?;
        scene.hand_over()?;
        Ok(scene)
    }

    /// The site of a target that has nothing to staple.
    fn unstapled(&self, authority: &Authority, backend: SocketAddr) -> anyhow::Result<String> {
        let issued = authority.issue(&LeafSpec {
            names: vec![UNSTAPLED.to_owned()],
            ..LeafSpec::default()
        })?;
        let cert = self.write(&format!("{UNSTAPLED}.pem"), &issued.chain_pem, 0o644)?;
        let key = self.write(&format!("{UNSTAPLED}.key"), &issued.key_pem, 0o600)?;
        Ok(format!(
            "\n[[site]]\nnames = [{UNSTAPLED:?}]\ncert = {cert:?}\nkey = {key:?}\nbackend = [\"{backend}\"]\n"
        ))
    }

    /// The configuration file.
    pub(super) fn config(&self) -> PathBuf {
        self.path("clinch.toml")
    }

    /// Where the child's log goes.
    pub(super) fn log(&self) -> PathBuf {
        self.path("clinch.log")
    }

    /// Asks the running terminator for its state.
    pub(super) async fn report(&self) -> anyhow::Result<Report> {
        let answer = self.ask("/status").await?;
        serde_json::from_slice(&answer.body).context("its status is not JSON")
    }

    /// Asks the admin interface of the running terminator.
    pub(super) async fn ask(&self, path: &str) -> anyhow::Result<admin::Answer> {
        let address = match self.purpose {
            Purpose::Show => AdminAddress::Unix(self.path("admin.sock")),
            Purpose::Target => AdminAddress::Tcp(self.metrics()),
        };
        admin::request(&admin::Where(address), Method::GET, path).await
    }

    /// Every name, over TLS 1.3 and 1.2, on each address in turn.
    pub(super) fn visits(&self) -> Vec<Visit> {
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        let addresses = self.addresses.iter().cycle();
        let each = self
            .sites
            .iter()
            .flat_map(|site| versions.map(|version| (site, version)));
        each.zip(addresses)
            .map(|((site, version), address)| Visit {
                address: *address,
                name: site.name,
                version,
                root: self.root.clone(),
                leaf: site.leaf.clone(),
                issuer: site.issuer.clone(),
            })
            .collect()
    }

    /// Where a target's admin interface listens: the port after its own.
    fn metrics(&self) -> SocketAddr {
        let port = self.addresses[0].port();
        SocketAddr::from((Ipv4Addr::LOCALHOST, port.saturating_add(1)))
    }

    /// What a load generator has to be told.
    fn target(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(SocketAddr::to_string).collect();
        let names: Vec<&str> = self.sites.iter().map(|site| site.name).collect();
        format!(
            "target    {}\n\
             names     {} (the first also for clients that send none); {UNSTAPLED} has no staple\n\
             root      {}\n\
             paths     / (a line), /bytes/N (N bytes), POST anywhere (the body is read and dropped)\n\
             metrics   http://{}/metrics\n\
             log       {}\n\
             Lines to copy are in docs/LOAD_TESTING.md. Ctrl-C ends it and removes the files.\n",
            addresses.join(" and "),
            names.join(" "),
            self.path("root.pem").display(),
            self.metrics(),
            self.log().display(),
        )
    }

    /// What there is to try, as lines to copy.
    pub(super) fn guide(&self) -> String {
        if self.purpose == Purpose::Target {
            return self.target();
        }
        let root = self.path("root.pem");
        let root = root.display();
        let addresses: Vec<String> = self.addresses.iter().map(SocketAddr::to_string).collect();
        let first = self.addresses[0];
        let port = first.port();
        let mut text = format!("clinch serves on {}\n", addresses.join(" and "));
        for site in &self.sites {
            let _ = writeln!(text, "  {:24} {}", site.pattern, site.about);
        }
        let _ = writeln!(text, "\nTry, in another terminal:");
        for site in &self.sites {
            let name = site.name;
            let _ = writeln!(
                text,
                "  openssl s_client -connect {first} -servername {name} -CAfile {root} -status </dev/null"
            );
        }
        for site in &self.sites {
            let name = site.name;
            let _ = writeln!(
                text,
                "  curl --cert-status --cacert {root} --resolve {name}:{port}:{} https://{name}:{port}/",
                first.ip()
            );
        }
        let program = std::env::current_exe().unwrap_or_else(|_| "clinch".into());
        let _ = writeln!(
            text,
            "  {} status -c {}",
            program.display(),
            self.config().display()
        );
        let _ = writeln!(
            text,
            "\nlog: {}\nCtrl-C ends it and removes the files.\n",
            self.log().display()
        );
        text
    }

    fn head(&self) -> anyhow::Result<String> {
        let addresses: Vec<String> = self.addresses.iter().map(SocketAddr::to_string).collect();
        let mut text = String::new();
        if privileges::is_root() {
            writeln!(text, "user = {ACCOUNT:?}")?;
        }
        let target = self.purpose == Purpose::Target;
        let admin = if target {
            self.metrics().to_string()
        } else {
            format!("unix:{}", self.path("admin.sock").display())
        };
        writeln!(text, "cache_dir = {:?}\n", self.path("cache"))?;
        writeln!(text, "[listen.demo]\naddress = {addresses:?}")?;
        if target {
            // Generators that connect to an address send no name.
            writeln!(text, "default_site = {:?}", SITES[0].1)?;
            writeln!(text, "\n[log]\nlevel = \"warn\"")?;
        }
        writeln!(text, "\n[admin]\nlisten = {admin:?}\n")?;
        writeln!(
            text,
            "# The demo's responder is here; a public CA's needs no such lines."
        )?;
        writeln!(
            text,
            "[egress]\nallow = [\"127.0.0.1\"]\nports = [\"1024-65535\"]\n"
        )?;
        writeln!(text, "[timeouts]\ndrain = \"2s\"")?;
        Ok(text)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        std::fs::set_permissions(&path, Permissions::from_mode(mode))?;
        Ok(path)
    }

    /// Gives the files to the user that the terminator becomes, if it becomes another.
    fn hand_over(&self) -> anyhow::Result<()> {
        if !privileges::is_root() {
            return Ok(());
        }
        let account = Account::find(ACCOUNT)?;
        let give = |path: &Path| chown(path, Some(account.uid), Some(account.gid));
        give(self.dir.path())?;
        for entry in std::fs::read_dir(self.dir.path())? {
            give(&entry?.path())?;
        }
        Ok(())
    }
}

/// The first of the ports from `first` to `more` after it that is free on 127.0.0.1, and on ::1 where the machine has it.
fn free_addresses(first: u16, more: u16) -> anyhow::Result<Vec<SocketAddr>> {
    let free = |ip: IpAddr, port: u16| TcpListener::bind((ip, port)).is_ok();
    let v4 = IpAddr::from(Ipv4Addr::LOCALHOST);
    let v6 = IpAddr::from(Ipv6Addr::LOCALHOST);
    let has_v6 = free(v6, 0);
    for port in first..=first.saturating_add(more) {
        if free(v4, port) && (!has_v6 || free(v6, port)) {
            let ips = [v4, v6];
            return Ok(ips[..=usize::from(has_v6)]
                .iter()
                .map(|ip| SocketAddr::new(*ip, port))
                .collect());
        }
    }
    match more {
        0 => bail!("port {first} is taken on the loopback; name another with --port"),
        _ => bail!("no port from {first} on is free on the loopback; name another with --port"),
    }
}

/// The user that the terminator becomes when the demo is run by root.
const ACCOUNT: &str = "nobody";

/// The site of a target that has nothing to staple.
const UNSTAPLED: &str = "plain.clinch.test";

/// How many ports are tried after the first.
const PORTS: u16 = 100;

/// Names of the certificate, a name it serves, key, Must-Staple, what it shows.
const SITES: [(&str, &str, KeyAlgorithm, bool, &str); 4] = [
    (
        "ecdsa.clinch.test",
        "ecdsa.clinch.test",
        KeyAlgorithm::P256,
        false,
        "ECDSA on P-256",
    ),
    (
        "rsa.clinch.test",
        "rsa.clinch.test",
        KeyAlgorithm::Rsa2048,
        false,
        "RSA with 2048 bits",
    ),
    (
        "must.clinch.test",
        "must.clinch.test",
        KeyAlgorithm::P256,
        true,
        "Must-Staple: refused rather than served unstapled",
    ),
    (
        "*.wild.clinch.test",
        "any.wild.clinch.test",
        KeyAlgorithm::P256,
        false,
        "a wildcard",
    ),
];
