//! A second, independent responder: `openssl ocsp` over a CA that openssl made. What clinch takes,
//! openssl signed; what openssl says of a certificate, clinch does.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use clinch_tests::backend::Backend;
use clinch_tests::client::Client;
use clinch_tests::peers::{openssl_client, present, run};
use clinch_tests::process::Clinch;
use clinch_tests::setup::{Files, Setup, assert_right};
use clinch_tests::skip;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// The name of the site in each test.
const NAME: &str = "a.example";

/// The serial number of its certificate.
const SERIAL: u32 = 0x1001;

/// A CA in files, with the index that `openssl ocsp` answers from.
struct Ca {
    dir: tempfile::TempDir,
    responder: Child,
    port: u16,
}

/// Who signs the responses.
#[derive(Clone, Copy, Debug)]
enum Signer {
    Ca,
    Delegate,
}

/// What the CA knows of a certificate.
#[derive(Clone, Copy, Debug)]
enum Known {
    Valid,
    Revoked,
    Unheard,
}

impl Known {
    /// The index of `openssl ca`: state, end, revocation, serial, file, subject.
    fn index(self) -> String {
        match self {
            Self::Valid => format!("V\t491231235959Z\t\t{SERIAL:04X}\tunknown\t/CN={NAME}\n"),
            Self::Revoked => format!(
                "R\t491231235959Z\t250101000000Z,keyCompromise\t{SERIAL:04X}\tunknown\t/CN={NAME}\n"
            ),
            Self::Unheard => String::new(),
        }
    }
}

impl Ca {
    /// Makes a CA with keys of an algorithm (`ec` or `rsa`) and starts its responder, which knows
    /// this of the certificate to be issued.
    fn start(algorithm: &str, signer: Signer, known: Known) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name).display().to_string();
        let ca = [
            "basicConstraints=critical,CA:TRUE",
            "keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
        ];
        openssl(
            &[
                "req",
                "-x509",
                "-subj",
                "/CN=OpenSSL CA",
                "-days",
                "30",
                "-keyout",
                &at("ca.key"),
                "-out",
                &at("ca.pem"),
            ],
            &[
                &new_key(algorithm)[..],
                &["-addext", ca[0], "-addext", ca[1]],
            ]
            .concat(),
        );
        std::fs::write(at("index.txt"), known.index()).expect("our own directory");
        let signer = match signer {
            Signer::Ca => "ca",
            Signer::Delegate => {
                let usage =
                    "extendedKeyUsage=OCSPSigning\nnoCheck=ignored\nkeyUsage=digitalSignature\n";
                issue(dir.path(), "signer", 1, algorithm, usage);
                "signer"
            }
        };
        let mut responder = Command::new("openssl")
            .args([
                "ocsp",
                "-port",
                "0",
                "-nmin",
                "60",
                "-index",
                &at("index.txt"),
                "-CA",
                &at("ca.pem"),
            ])
            .args([
                "-rsigner",
                &at(&format!("{signer}.pem")),
                "-rkey",
                &at(&format!("{signer}.key")),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl runs");
        // "ACCEPT 0.0.0.0:41234 PID=99"
        let mut said = BufReader::new(responder.stdout.take().expect("piped")).lines();
        let line = said
            .find_map(|line| line.ok().filter(|line| line.starts_with("ACCEPT")))
            .expect("openssl ocsp says where it listens");
        let port = line
            .split_whitespace()
            .nth(1)
            .and_then(|address| address.rsplit(':').next()?.parse().ok())
            .unwrap_or_else(|| panic!("no port in {line:?}"));
        std::thread::spawn(move || said.for_each(drop));
        Self {
            dir,
            responder,
            port,
        }
    }

    /// Issues the certificate of the site.
    fn leaf(&self) -> Files {
        let url = format!("http://127.0.0.1:{}/", self.port);
        let extensions = format!(
            "subjectAltName=DNS:{NAME}\nauthorityInfoAccess=OCSP;URI:{url}\nextendedKeyUsage=serverAuth\n"
        );
        issue(self.dir.path(), NAME, SERIAL, "ec", &extensions);
        self.files(NAME)
    }

    fn files(&self, name: &str) -> Files {
        let chain = [format!("{name}.pem"), "ca.pem".to_owned()]
            .map(|file| std::fs::read_to_string(self.path(&file)).expect("ours"))
            .concat();
        let cert = self.path(&format!("{name}.chain.pem"));
        std::fs::write(&cert, chain).expect("ours");
        let key = self.path(&format!("{name}.key"));
        clinch_tests::setup::set_mode(&key, 0o600);
        Files { cert, key }
    }

    fn root(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path("ca.pem")).expect("openssl writes PEM")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Clinch in front of one site with this certificate.
    fn serve(&self, files: &Files, backend: &str) -> (Setup, Clinch) {
        let mut setup = Setup::new();
        setup.site_of(&[NAME], files, &[backend], "");
        let clinch = setup.start();
        (setup, clinch)
    }
}

impl Drop for Ca {
    fn drop(&mut self) {
        let _ = self.responder.kill();
        let _ = self.responder.wait();
    }
}

fn new_key(algorithm: &str) -> Vec<&'static str> {
    match algorithm {
        "rsa" => vec!["-nodes", "-newkey", "rsa:2048"],
        _ => vec![
            "-nodes",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ],
    }
}

/// Issues NAME.pem with NAME.key in the CA's directory.
fn issue(dir: &Path, name: &str, serial: u32, algorithm: &str, extensions: &str) {
    let at = |kind: &str| dir.join(kind).display().to_string();
    let [key, request, extension_file, cert] =
        ["key", "csr", "ext", "pem"].map(|kind| at(&format!("{name}.{kind}")));
    let subject = format!("/CN={name}");
    openssl(
        &[
            "req", "-new", "-subj", &subject, "-keyout", &key, "-out", &request,
        ],
        &new_key(algorithm),
    );
    std::fs::write(&extension_file, extensions).expect("ours");
    let (ca, ca_key, serial) = (at("ca.pem"), at("ca.key"), serial.to_string());
    openssl(
        &[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-set_serial",
            &serial,
        ],
        &["-days", "20", "-extfile", &extension_file, "-out", &cert],
    );
}

#[track_caller]
fn openssl(arguments: &[&str], more: &[&str]) {
    let said = run("openssl", &[arguments, more].concat());
    assert_eq!(
        said.code,
        Some(0),
        "openssl {arguments:?} {more:?}\n{}",
        said.text
    );
}

#[test]
fn a_response_of_openssl_is_stapled_and_s_client_verifies_it() {
    if !present("openssl") {
        skip!("openssl is not installed");
    }
    let echo = Backend::echo();
    for algorithm in ["ec", "rsa"] {
        for signer in [Signer::Ca, Signer::Delegate] {
            let ca = Ca::start(algorithm, signer, Known::Valid);
            let files = ca.leaf();
            let (setup, clinch) = ca.serve(&files, echo.written());
            openssl_client(setup.address, NAME, &ca.path("ca.pem"), &["-status"])
                .has("OCSP Response Status: successful (0x0)")
                .has("Cert Status: good")
                .has("Verify return code: 0 (ok)");
            let client = Client::new(&ca.root());
            let session = client.connect(setup.address, NAME).expect("a handshake");
            let staple = session.staple.as_deref().expect("a staple");
            assert_right(staple, &session.chain[0], &session.chain[1]);
            clinch.stop();
        }
    }
}

#[test]
fn a_certificate_that_openssl_calls_revoked_is_not_served() {
    if !present("openssl") {
        skip!("openssl is not installed");
    }
    let echo = Backend::echo();
    let ca = Ca::start("ec", Signer::Delegate, Known::Revoked);
    let files = ca.leaf();
    let (setup, clinch) = ca.serve(&files, echo.written());
    clinch.wait_for_count("clinch_ocsp_fetches_total", &["result=\"revoked\""], 1.0);
    let client = Client::new(&ca.root());
    client
        .connect(setup.address, NAME)
        .err()
        .expect("a revoked certificate");
    clinch.stop();
}

#[test]
fn a_certificate_that_openssl_does_not_know_is_served_unstapled() {
    if !present("openssl") {
        skip!("openssl is not installed");
    }
    let echo = Backend::echo();
    let ca = Ca::start("ec", Signer::Ca, Known::Unheard);
    let files = ca.leaf();
    let (setup, clinch) = ca.serve(&files, echo.written());
    clinch.wait_for_count("clinch_ocsp_fetches_total", &["result=\"refused\""], 1.0);
    let client = Client::new(&ca.root());
    let session = client
        .connect(setup.address, NAME)
        .expect("soft by default");
    assert_eq!(session.staple, None);
    clinch.stop();
}
