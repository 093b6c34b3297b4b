//! A small world for control: an authority, a responder that a test tells what to answer, a
//! directory with certificates, and the configuration that names them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clinch::cli::demo::authority::{Authority, Issued, LeafSpec, OcspAnswer};
use clinch::config::Config;
use clinch::control::{Control, Handle, Setup, StartError, Status};
use clinch::observability::counters::FetchCounters;
use clinch::snapshot::Subscriber;

use crate::support::{Asked, Reply, eventually, program, serve};

/// Given the authority, the DER of a request and the method it came with, decides the answer.
type Behaviour = Box<dyn Fn(&Authority, &[u8], &str) -> Reply + Send>;

pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) authority: Arc<Authority>,
    behaviour: Arc<Mutex<Behaviour>>,
    asked: Arc<AtomicUsize>,
    /// URL of the responder.
    pub(crate) responder: String,
    sites: Vec<String>,
    /// Put in front of the tables.
    pub(crate) top: String,
    /// Lines of `[egress]`: responders on this machine may be asked.
    pub(crate) egress: String,
    /// Address of the listener.
    pub(crate) address: String,
}

/// Control at work.
pub(crate) struct Running {
    pub(crate) handle: Handle,
    pub(crate) counters: Arc<FetchCounters>,
    pub(crate) subscribers: Vec<Subscriber>,
}

impl World {
    /// With a responder that says *good* to everything.
    pub(crate) async fn new() -> Self {
        let authority = Arc::new(Authority::new(SystemTime::now()).expect("an authority"));
        let behaviour: Arc<Mutex<Behaviour>> = Arc::new(Mutex::new(Box::new(good)));
        let asked = Arc::new(AtomicUsize::new(0));
        let (says, counts) = (Arc::clone(&behaviour), Arc::clone(&asked));
        let signs = Arc::clone(&authority);
        let address = serve(move |asked| {
            counts.fetch_add(1, Ordering::SeqCst);
            let behaviour = says.lock().expect("no panic");
            behaviour(&signs, &request_of(&asked), &asked.method)
        })
        .await;
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("cache")).expect("made");
        Self {
            directory,
            authority,
            behaviour,
            asked,
            responder: format!("http://{address}/ocsp"),
            sites: Vec::new(),
            top: String::new(),
            egress: "allow = [\"127.0.0.0/8\", \"::1\"]\nports = [\"1-65535\"]".to_owned(),
            address: "127.0.0.1:8443".to_owned(),
        }
    }

    /// From now on the responder answers like this.
    pub(crate) fn answers(
        &self,
        behaviour: impl Fn(&Authority, &[u8], &str) -> Reply + Send + 'static,
    ) {
        *self.behaviour.lock().expect("no panic") = Box::new(behaviour);
    }

    /// Requests that the responder got so far.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A certificate for `name` that names the responder.
    pub(crate) fn spec(&self, name: &str) -> LeafSpec {
        LeafSpec {
            names: vec![name.to_owned()],
            ocsp_urls: vec![self.responder.clone()],
            ..LeafSpec::default()
        }
    }

    /// A site with a certificate of its own; `more` is added to its table.
    pub(crate) fn site(&mut self, spec: &LeafSpec, more: &str) -> Issued {
        let issued = self.issue(spec);
        self.name_site(spec, more);
        issued
    }

    /// Puts a site into the configuration whose certificate is there already.
    pub(crate) fn name_site(&mut self, spec: &LeafSpec, more: &str) {
        let name = &spec.names[0];
        let cert = self.path(&format!("{name}.pem"));
        let key = self.path(&format!("{name}.key"));
        self.sites.push(format!(
            "[[site]]\nnames = {name:?}\ncert = {cert:?}\nkey = {key:?}\nbackend = \"127.0.0.1:8080\"\n{more}\n"
        ));
    }

    /// Takes all sites out of the configuration.
    pub(crate) fn clear_sites(&mut self) {
        self.sites.clear();
    }

    /// Puts a new certificate where the site of that name has it.
    pub(crate) fn issue(&self, spec: &LeafSpec) -> Issued {
        let issued = self.authority.issue(spec).expect("issued");
        let name = &spec.names[0];
        replace(&self.path(&format!("{name}.key")), &issued.key_pem, 0o600);
        replace(&self.path(&format!("{name}.pem")), &issued.chain_pem, 0o644);
        issued
    }

    /// Writes the configuration file.
    pub(crate) fn write_config(&self) -> PathBuf {
        let path = self.path("clinch.toml");
        let text = format!(
            "cache_dir = {:?}\n{}\n[egress]\n{}\n[admin]\nlisten = false\n[listen.public]\naddress = {:?}\n{}",
            self.path("cache"),
            self.top,
            self.egress,
            self.address,
            self.sites.join("\n")
        );
        replace(&path, &text, 0o644);
        path
    }

    fn setup(&self) -> Setup {
        let config_path = self.write_config();
        let text = fs::read_to_string(&config_path).expect("written");
        let config = match Config::parse(&text) {
            Ok(config) => config,
            Err(error) => panic!("{error}"),
        };
        Setup {
            config_path,
            config,
            workers: 1,
            egress_program: program().to_owned(),
            counters: Arc::default(),
        }
    }

    /// Prepares control and leaves it there.
    pub(crate) async fn prepare(&self) -> Result<(Control, Vec<Subscriber>), StartError> {
        Control::prepare(self.setup()).await
    }

    /// Starts control as `clinch run` does, and leaves it running.
    pub(crate) async fn start(&self, wait: Duration) -> Running {
        let setup = self.setup();
        let counters = Arc::clone(&setup.counters);
        let (mut control, subscribers) = match Control::prepare(setup).await {
            Ok(prepared) => prepared,
            Err(error) => panic!("{error}"),
        };
        control.first_fetch(wait).await;
        let handle = control.handle();
        tokio::spawn(control.run());
        Running {
            handle,
            counters,
            subscribers,
        }
    }

    /// The only file of the cache.
    pub(crate) fn cached(&self) -> Option<PathBuf> {
        let mut entries = fs::read_dir(self.path("cache")).expect("listed");
        let first = entries.next()?.expect("listed").path();
        (first.extension()? == "ocsp").then_some(first)
    }
}

impl Running {
    pub(crate) async fn status(&self) -> Status {
        self.handle.status().await.expect("control is there")
    }

    /// The status as soon as it is as wanted.
    pub(crate) async fn status_when(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        eventually(what, async || {
            let status = self.status().await;
            wanted(&status).then_some(status)
        })
        .await
    }
}

/// Replaces a file at once, as certificate clients do.
pub(crate) fn replace(path: &Path, text: &str, mode: u32) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).expect("written");
    fs::set_permissions(&beside, Permissions::from_mode(mode)).expect("changed");
    fs::rename(&beside, path).expect("renamed");
}

/// What an OCSP responder sends with a body.
pub(crate) fn ocsp(body: Vec<u8>) -> Reply {
    let label = "application/ocsp-response".to_owned();
    Reply::Http(200, vec![("content-type", label)], body)
}

/// *Good* for a week.
pub(crate) fn good(authority: &Authority, request: &[u8], _method: &str) -> Reply {
    signed(authority, request, |_| {})
}

/// *Good*, but for what `change` does.
pub(crate) fn signed(
    authority: &Authority,
    request: &[u8],
    change: impl Fn(&mut OcspAnswer),
) -> Reply {
    let mut answer = OcspAnswer::good(SystemTime::now());
    change(&mut answer);
    ocsp(authority.respond(&answer, request).expect("signed"))
}

/// From the path of a GET (RFC 6960 appendix A.1) or the body of a POST.
pub(crate) fn request_of(asked: &Asked) -> Vec<u8> {
    if asked.method == "POST" {
        return asked.body.clone();
    }
    let encoded = asked.path.rsplit('/').next().expect("a path");
    let encoded = encoded
        .replace("%2B", "+")
        .replace("%2F", "/")
        .replace("%3D", "=");
    STANDARD.decode(encoded).expect("base64")
}
