//! A certificate authority kept by the real `openssl`, and a web server for its CRL: what clinch has
//! to do with where there is no OCSP.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::peers::run;
use crate::place;

/// The authority, in a directory of its own.
pub struct OpensslCa {
    dir: tempfile::TempDir,
    /// Serves the CRL.
    pub server: CrlServer,
}

/// A web server for CRLs, which understands ETags.
pub struct CrlServer {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    /// By path.
    bodies: HashMap<String, Vec<u8>>,
    /// Answers given: path and status.
    answers: Vec<(String, u16)>,
}

impl OpensslCa {
    /// A new authority with an empty CRL, served.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let server = CrlServer::start();
        let ca = Self { dir, server };
        std::fs::write(ca.path("index.txt"), "").expect("in our own directory");
        std::fs::write(ca.path("serial"), "1000\n").expect("in our own directory");
        std::fs::write(ca.path("crlnumber"), "01\n").expect("in our own directory");
        let key = ca.path("ca.key");
        ca.openssl(&[
            "ecparam",
            "-name",
            "prime256v1",
            "-genkey",
            "-noout",
            "-out",
            &key,
        ]);
        ca.openssl(&[
            "req",
            "-new",
            "-x509",
            "-days",
            "30",
            "-config",
            &ca.config(WHOLE),
            "-extensions",
            "authority",
            "-subj",
            "/CN=OpenSSL CA",
            "-key",
            &key,
            "-out",
            &ca.path("ca.pem"),
        ]);
        ca.publish();
        ca
    }

    /// Where the CRL is.
    pub fn url(&self) -> String {
        self.url_of(WHOLE)
    }

    fn url_of(&self, part: &str) -> String {
        format!("http://{}/{part}.crl", self.server.address)
    }

    /// A certificate for a name, with the CRL as its only pointer: chain and key, PEM.
    pub fn issue(&self, name: &str) -> (String, String) {
        self.issue_in(WHOLE, name)
    }

    /// The same, with another part of the CRL.
    pub fn issue_in(&self, part: &str, name: &str) -> (String, String) {
        let (key, request, leaf) = (
            self.path(&format!("{name}.key")),
            self.path(&format!("{name}.csr")),
            self.path(&format!("{name}.pem")),
        );
        let config = self.config(part);
        self.openssl(&[
            "ecparam",
            "-name",
            "prime256v1",
            "-genkey",
            "-noout",
            "-out",
            &key,
        ]);
        self.openssl(&[
            "req",
            "-new",
            "-config",
            &config,
            "-subj",
            &format!("/CN={name}"),
            "-addext",
            &format!("subjectAltName=DNS:{name}"),
            "-key",
            &key,
            "-out",
            &request,
        ]);
        self.openssl(&[
            "ca",
            "-batch",
            "-notext",
            "-config",
            &config,
            "-extensions",
            "leaf",
            "-in",
            &request,
            "-out",
            &leaf,
        ]);
        let read = |path: &str| std::fs::read_to_string(path).expect("written by openssl");
        let key = run("openssl", &["pkcs8", "-topk8", "-nocrypt", "-in", &key]);
        (read(&leaf) + &read(&self.path("ca.pem")), key.text)
    }

    /// Revokes the certificate of a name and publishes a new CRL.
    pub fn revoke(&self, name: &str) {
        let leaf = self.path(&format!("{name}.pem"));
        let config = self.config(WHOLE);
        self.openssl(&[
            "ca",
            "-config",
            &config,
            "-revoke",
            &leaf,
            "-crl_reason",
            "keyCompromise",
        ]);
        self.publish();
    }

    /// Takes back every revocation, as of a hold, and publishes a new CRL.
    pub fn take_back(&self) {
        let index = std::fs::read_to_string(self.path("index.txt")).expect("written by openssl");
        let lines = index.lines().map(|line| {
            let mut fields: Vec<&str> = line.split('\t').collect();
            fields[0] = "V";
            fields[2] = "";
            fields.join("\t") + "\n"
        });
        let index: String = lines.collect();
        std::fs::write(self.path("index.txt"), index).expect("in our own directory");
        self.publish();
    }

    /// Makes a new CRL and serves it.
    pub fn publish(&self) {
        self.publish_part(WHOLE);
    }

    /// Makes a new CRL that says it is this part (RFC 5280 section 5.2.5), and serves it.
    pub fn publish_part(&self, part: &str) {
        let (pem, der) = (self.path("crl.pem"), self.path("crl.der"));
        let config = self.config(part);
        self.openssl(&["ca", "-gencrl", "-config", &config, "-out", &pem]);
        self.openssl(&["crl", "-in", &pem, "-outform", "DER", "-out", &der]);
        let der = std::fs::read(der).expect("written by openssl");
        self.server.serve(part, der);
    }

    /// What openssl is to do where this part of the CRL matters.
    fn config(&self, part: &str) -> String {
        let path = self.path(&format!("{part}.cnf"));
        let text = CONFIG
            .replace("DIR", &self.dir.path().display().to_string())
            .replace("URL", &self.url_of(part));
        std::fs::write(&path, text).expect("in our own directory");
        path
    }

    /// The CA's certificate, PEM.
    pub fn certificate(&self) -> PathBuf {
        self.path("ca.pem").into()
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn openssl(&self, arguments: &[&str]) {
        let said = run("openssl", arguments);
        assert_eq!(said.code, Some(0), "openssl {arguments:?}: {}", said.text);
    }
}

impl Default for OpensslCa {
    fn default() -> Self {
        Self::new()
    }
}

impl CrlServer {
    fn start() -> Self {
        let listener = TcpListener::bind(place::fresh()).expect("a place of our own");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::<Mutex<Shared>>::default();
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Whoever breaks off gets no answer.
                let _ = answer(stream, &theirs);
            }
        });
        Self { address, shared }
    }

    /// From now on it serves this as that part of the CRL.
    pub fn serve(&self, part: &str, body: Vec<u8>) {
        let path = format!("/{part}.crl");
        let mut shared = self.shared.lock().expect("no panic");
        shared.bodies.insert(path, body);
    }

    /// From now on it has no such part.
    pub fn forget(&self, part: &str) {
        let path = format!("/{part}.crl");
        self.shared.lock().expect("no panic").bodies.remove(&path);
    }

    /// What it serves as that part of the CRL.
    pub fn body(&self, part: &str) -> Vec<u8> {
        let path = format!("/{part}.crl");
        self.shared.lock().expect("no panic").bodies[&path].clone()
    }

    /// Path and status code of all answers so far.
    pub fn answers(&self) -> Vec<(String, u16)> {
        self.shared.lock().expect("no panic").answers.clone()
    }
}

fn answer(stream: TcpStream, shared: &Mutex<Shared>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(crate::PROMPT))?;
    let mut lines = BufReader::new(&stream).lines();
    let mut known = None;
    let request = lines.next().transpose()?.unwrap_or_default();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    while let Some(line) = lines.next().transpose()? {
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("if-none-match:") {
            known = Some(value.trim().to_owned());
        }
    }
    let mut shared = shared.lock().expect("no panic");
    let Some(whole) = shared.bodies.get(&path).cloned() else {
        shared.answers.push((path, 404));
        return (&stream).write_all(b"HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n");
    };
    // Changes with every CRL: its signature does.
    let tail: String = whole
        .iter()
        .rev()
        .take(8)
        .map(|b| format!("{b:02x}"))
        .collect();
    let etag = format!("\"{tail}\"");
    let same = known.as_deref() == Some(etag.as_str());
    let (status, body) = if same {
        (304, Vec::new())
    } else {
        (200, whole)
    };
    shared.answers.push((path, status));
    let head = format!(
        "HTTP/1.1 {status} X\r\netag: {etag}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    drop(shared);
    let mut stream = stream;
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)
}

/// The part of the CRL that most certificates name.
pub const WHOLE: &str = "ca";

const CONFIG: &str = "\
[ca]
default_ca = ours
[ours]
database = DIR/index.txt
new_certs_dir = DIR
certificate = DIR/ca.pem
private_key = DIR/ca.key
serial = DIR/serial
crlnumber = DIR/crlnumber
default_md = sha256
default_days = 20
default_crl_days = 7
policy = any
copy_extensions = copy
crl_extensions = list
unique_subject = no
[any]
commonName = supplied
[req]
distinguished_name = none
[none]
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = CA:FALSE
crlDistributionPoints = URI:URL
authorityKeyIdentifier = keyid
[list]
authorityKeyIdentifier = keyid
issuingDistributionPoint = critical,@point
[point]
fullname = URI:URL
onlyuser = TRUE
";
