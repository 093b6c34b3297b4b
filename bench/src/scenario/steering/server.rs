//! A clinch with two workers and its own sites, steered or not.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clinch::cli::demo::authority::{Authority, KeyAlgorithm, LeafSpec};

use crate::bench::{Bench, free_address};
use crate::machine;
use crate::peers::Running;
use crate::process::{Launch, STARTS_WITHIN, Server};

/// Certificates in a folder, and which core each site may use.
pub(super) struct Sites {
    directory: PathBuf,
    /// Name of each site and the lines of its table.
    pub(super) list: Vec<(String, String)>,
    authority: Authority,
}

impl Sites {
    /// No sites yet; files go into a folder of this name.
    pub(super) fn new(bench: &Bench, name: &str) -> Result<Self> {
        let directory = bench.directory.path().join(name);
        std::fs::create_dir(&directory)?;
        Ok(Self {
            directory,
            list: Vec::new(),
            authority: Authority::new(std::time::SystemTime::now())?,
        })
    }

    /// Adds a site with a certificate of its own.
    pub(super) fn add(&mut self, name: &str, key: KeyAlgorithm, more: &str) -> Result<()> {
        let issued = self.authority.issue(&LeafSpec {
            names: vec![name.to_owned()],
            key,
            ..LeafSpec::default()
        })?;
        let at = |kind: &str| self.directory.join(format!("{name}.{kind}"));
        write_private(&at("pem"), &issued.chain_pem)?;
        write_private(&at("key"), &issued.key_pem)?;
        self.list.push((name.to_owned(), more.to_owned()));
        Ok(())
    }

    fn tables(&self, backend: SocketAddr) -> String {
        let directory = self.directory.display();
        let mut text = String::new();
        for (name, more) in &self.list {
            let _ = writeln!(
                text,
                "[[site]]\nnames = [\"{name}\"]\ncert = \"{directory}/{name}.pem\"\nkey = \"{directory}/{name}.key\"\nbackend = [\"{backend}\"]\n{more}"
            );
        }
        text
    }
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text)?;
    Ok(std::fs::set_permissions(
        path,
        std::fs::Permissions::from_mode(0o600),
    )?)
}

/// Starts it with two workers; it steers, if it is to, when this returns.
pub(super) fn start(bench: &Bench, name: &str, sites: &Sites, steered: bool) -> Result<Running> {
    let address = free_address()?;
    let directory = bench.directory.path();
    let admin = directory.join(format!("{name}.sock"));
    let steering = match steered {
        true => "[steering]\nmode = \"kernel\"\nmisplaced = \"serve\"\n",
        false => "",
    };
    let text = format!(
        "workers = 2\ncache_dir = false\n[ocsp]\nenabled = false\n{steering}[listen.bench]\naddress = [\"{address}\"]\nmin_version = \"1.3\"\n\
         groups = [\"X25519\"]\ntickets = 0\n[admin]\nlisten = \"unix:{}\"\n{}",
        admin.display(),
        sites.tables(bench.backend)
    );
    let configuration = directory.join(format!("{name}.toml"));
    std::fs::write(&configuration, text)?;
    let launch = Launch {
        name: name.to_owned(),
        program: bench.clinch.clone(),
        arguments: vec![
            "run".to_owned(),
            "-c".to_owned(),
            configuration.display().to_string(),
        ],
        environment: Vec::new(),
        log: directory.join(format!("{name}.log")),
        cores: vec![machine::SERVER_CORE, machine::CLIENT_CORE],
        whole_process: false,
    };
    let mut server = Server::start(&launch)?;
    server.wait_until_listening(address, STARTS_WITHIN)?;
    let running = Running { server, address };
    if steered {
        wait_for_kernel(bench, &running, &configuration)?;
    }
    Ok(running)
}

fn wait_for_kernel(bench: &Bench, at: &Running, configuration: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let configuration = configuration.display().to_string();
    let show = ["steering", "show", "-c", &configuration];
    loop {
        let first = machine::output(&bench.clinch, &show);
        if first == "mode kernel" {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "the kernel does not steer: {first}; {}",
            at.server.output()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
