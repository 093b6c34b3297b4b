//! Workers driven in this process, over real sockets, by rustls clients: what moves must arrive whole,
//! in order and once, and ends must be passed on as ends.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clinch::certificate::Identity;
use clinch::cli::demo::authority::{Authority, LeafSpec};
use clinch::config::{Cipher, Group, Listener, TlsVersion};
use clinch::data::{self, Worker, WorkerSetup};
use clinch::limits::{Limits, Timeouts};
use clinch::observability::counters::{Completed, Counters, HandshakeFailure, RelayEnd, Stapling};
use clinch::snapshot::{
    BackendAddress, Certificate, Publisher, Site, Slot, SlotState, Snapshot, Table, TicketKey,
    TicketKeys,
};
use clinch::sys::sockets;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, RootCertStore, StreamOwned,
};

type Tls = StreamOwned<ClientConnection, TcpStream>;

struct Edge {
    address: SocketAddr,
    counters: Vec<Arc<Counters>>,
    workers: Vec<Worker>,
    client: ClientConfig,
    publisher: Publisher,
    chain_pem: String,
    key_pem: String,
}

impl Edge {
    fn new(backends: Vec<BackendAddress>, workers: usize, timeouts: &Timeouts) -> Self {
        let authority = Authority::new(SystemTime::now()).expect("an authority");
        let spec = LeafSpec {
            names: vec!["a.test".into()],
            ..LeafSpec::default()
        };
        let issued = authority.issue(&spec).expect("a leaf");
        let table = table(1, backends, &issued.chain_pem, &issued.key_pem);
        let first = Snapshot {
            generation: 1,
            table: Arc::new(table),
            slots: std::iter::once(Slot {
                since: 1,
                state: SlotState::Missing,
            })
            .collect(),
            tickets: Arc::new(TicketKeys {
                current: TicketKey {
                    name: [1; 16],
                    key: [2; 32].into(),
                },
                previous: None,
            }),
        };
        let (publisher, subscribers) = Publisher::new(first, workers).expect("a publisher");
        let mut address: SocketAddr = ([127, 0, 0, 1], 0).into();
        let mut counters = Vec::new();
        let mut running = Vec::new();
        for (index, subscriber) in subscribers.into_iter().enumerate() {
            let socket = sockets::bind(address).expect("bound");
            let socket = sockets::listen(socket, 128).expect("listening");
            address = socket.local_addr().expect("an address");
            let counted = Arc::new(Counters::default());
            counters.push(Arc::clone(&counted));
            let setup = WorkerSetup {
                index,
                core: None,
                sockets: vec![(0, socket)],
                subscriber,
                counters: counted,
                limits: Limits::default(),
                capacity: 1000,
                timeouts: timeouts.clone(),
                landings: Vec::new(),
                desk: None,
            };
            running.push(data::start(setup).expect("a worker"));
        }
        let mut roots = RootCertStore::empty();
        let root = authority.root_pem();
        let root = rustls::pki_types::CertificateDer::from_pem_slice(root.as_bytes());
        roots.add(root.expect("a root")).expect("a root");
        Self {
            address,
            counters,
            workers: running,
            client: ClientConfig::builder_with_provider(Arc::new(
                rustls::crypto::aws_lc_rs::default_provider(),
            ))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth(),
            publisher,
            chain_pem: issued.chain_pem,
            key_pem: issued.key_pem,
        }
    }

    fn connect(&self) -> Tls {
        self.connect_with(Arc::new(self.client.clone()))
    }

    fn connect_with(&self, config: Arc<ClientConfig>) -> Tls {
        let name = ServerName::try_from("a.test").expect("a name");
        let socket = TcpStream::connect(self.address).expect("connected");
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a time-out");
        StreamOwned::new(
            ClientConnection::new(config, name).expect("a client"),
            socket,
        )
    }

    fn count(&self, what: impl Fn(&Counters) -> u64) -> u64 {
        self.counters.iter().map(|counters| what(counters)).sum()
    }

    /// Waits until a figure is reached, and fails if it is not within a generous time.
    fn await_count(&self, wanted: u64, what: impl Fn(&Counters) -> u64) {
        let until = SystemTime::now() + Duration::from_secs(20);
        while self.count(&what) != wanted {
            assert!(
                SystemTime::now() < until,
                "{} instead of {wanted}",
                self.count(&what)
            );
            std::thread::yield_now();
        }
    }

    fn drain(self) {
        self.workers.iter().for_each(Worker::drain);
        for worker in self.workers {
            worker.join().expect("no panic");
        }
    }
}

fn table(epoch: u64, backends: Vec<BackendAddress>, chain: &str, key: &str) -> Table {
    let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes());
    let site = Site {
        name: "a.test".into(),
        certificates: vec![0],
        backends,
        proxy_protocol: None,
        alpn: vec![],
        confinement: Default::default(),
    };
    let certificate = Certificate {
        identity: Arc::new(identity.expect("an identity")),
        staple_required: false,
        on_revoked: clinch::config::OnRevoked::Refuse,
    };
    let sites = vec![(site, vec![0], vec!["a.test".into()])];
    Table::new(epoch, vec![listener()], sites, vec![certificate])
}

fn listener() -> Listener {
    Listener {
        name: "test".into(),
        addresses: vec![],
        min_version: TlsVersion::Tls12,
        ciphers: vec![
            Cipher::TLS13_AES_128_GCM_SHA256,
            Cipher::TLS13_CHACHA20_POLY1305_SHA256,
            Cipher::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        ],
        groups: vec![Group::X25519Mlkem768, Group::X25519, Group::P256],
        tickets: 2,
        proxy_from: vec![],
        default_site: None,
        ktls: false,
        backlog: 128,
    }
}

/// A backend that serves each connection with `serve` on a thread of its own.
fn backend(serve: impl Fn(TcpStream) + Send + Clone + 'static) -> BackendAddress {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bound");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, serve) = (stream.expect("a connection"), serve.clone());
            std::thread::spawn(move || serve(stream));
        }
    });
    BackendAddress::Tcp(address)
}

/// Bytes that tell their position: any loss, repetition or disorder shows.
fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

fn echo(mut stream: TcpStream) {
    let mut copy = stream.try_clone().expect("a clone");
    let _ = std::io::copy(&mut stream, &mut copy);
    let _ = copy.shutdown(Shutdown::Write);
}

#[test]
fn megabytes_arrive_whole_in_both_directions_at_once_under_every_version() {
    let edge = Edge::new(vec![backend(echo)], 1, &Timeouts::default());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut config = ClientConfig::builder_with_provider(edge.client.crypto_provider().clone())
            .with_protocol_versions(&[version])
            .expect("a version")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer))
            .with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        let mut tls = edge.connect_with(Arc::new(config));
        let sent = pattern(6_000_001, 7);
        let mut received = Vec::new();
        // Sizes that meet and miss every boundary: of a record, of a buffer, of a segment.
        let sizes = [1, 100, 16_384, 16_385, 70_000, 300_000];
        let (mut at, mut turn) = (0, 0);
        let mut buffer = vec![0; 400_000];
        while at < sent.len() {
            let size = sizes[turn % sizes.len()].min(sent.len() - at);
            tls.write_all(&sent[at..at + size]).expect("sent");
            (at, turn) = (at + size, turn + 1);
            while received.len() + 200_000 < at {
                let n = tls.read(&mut buffer).expect("received");
                received.extend_from_slice(&buffer[..n]);
            }
        }
        tls.conn.send_close_notify();
        tls.flush().expect("flushed");
        // Returns an error unless the server ends with a close_notify.
        tls.read_to_end(&mut received).expect("a proper end");
        assert!(
            received == sent,
            "{} bytes of {}",
            received.len(),
            sent.len()
        );
    }
    edge.await_count(2, |c| c.relay_ends.value(RelayEnd::Finished));
    assert_eq!(edge.count(|c| c.bytes_up.value()), 2 * 6_000_001);
    assert_eq!(edge.count(|c| c.bytes_down.value()), 2 * 6_000_001);
    edge.drain();
}

#[test]
fn a_client_that_has_finished_still_gets_the_whole_answer() {
    let edge = Edge::new(
        vec![backend(|mut stream| {
            let mut request = Vec::new();
            stream
                .read_to_end(&mut request)
                .expect("a request and its end");
            stream
                .write_all(&pattern(request.len() * 1000, 3))
                .expect("answered");
        })],
        1,
        &Timeouts::default(),
    );
    let mut tls = edge.connect();
    tls.write_all(&[5; 2000]).expect("sent");
    tls.conn.send_close_notify();
    tls.flush().expect("flushed");
    tls.sock.shutdown(Shutdown::Write).expect("half closed");
    let mut answer = Vec::new();
    tls.read_to_end(&mut answer).expect("a proper end");
    assert!(answer == pattern(2_000_000, 3));
    edge.drain();
}

#[test]
fn a_backend_that_has_finished_still_gets_the_whole_upload() {
    let (uploaded, upload) = std::sync::mpsc::channel();
    let edge = Edge::new(
        vec![backend(move |mut stream| {
            stream.write_all(b"go on").expect("answered");
            stream.shutdown(Shutdown::Write).expect("half closed");
            let mut body = Vec::new();
            stream
                .read_to_end(&mut body)
                .expect("an upload and its end");
            uploaded.send(body).expect("told");
        })],
        1,
        &Timeouts::default(),
    );
    let mut tls = edge.connect();
    let mut answer = Vec::new();
    tls.read_to_end(&mut answer).expect("a proper end");
    assert_eq!(answer, b"go on");
    let body = pattern(3_000_000, 11);
    tls.write_all(&body).expect("sent");
    tls.conn.send_close_notify();
    tls.flush().expect("flushed");
    assert!(
        upload
            .recv_timeout(Duration::from_secs(20))
            .expect("uploaded")
            == body
    );
    edge.await_count(1, |c| c.relay_ends.value(RelayEnd::Finished));
    edge.drain();
}

#[test]
fn a_hello_in_single_bytes_is_a_hello() {
    let edge = Edge::new(vec![backend(echo)], 1, &Timeouts::default());
    let mut tls = edge.connect();
    let mut hello = Vec::new();
    tls.conn.write_tls(&mut hello).expect("a hello");
    tls.sock.set_nodelay(true).expect("set");
    for byte in hello {
        tls.sock.write_all(&[byte]).expect("sent");
    }
    tls.write_all(b"hello").expect("sent");
    let mut answer = [0; 5];
    tls.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"hello");
    drop(tls);
    edge.drain();
}

#[test]
fn a_session_resumes_on_every_worker() {
    let edge = Edge::new(vec![backend(echo)], 2, &Timeouts::default());
    let config = Arc::new(edge.client.clone());
    for turn in 0..40u64 {
        let mut tls = edge.connect_with(Arc::clone(&config));
        tls.write_all(b"x").expect("sent");
        tls.read_exact(&mut [0]).expect("an answer");
        let resumed = tls.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        assert_eq!(resumed, turn > 0, "turn {turn}");
    }
    let shares: Vec<u64> = edge.counters.iter().map(|c| c.accepted.value()).collect();
    assert!(
        shares.iter().all(|&share| share > 0),
        "one worker had none: {shares:?}"
    );
    assert_eq!(
        edge.count(|c| c.completed.value(Completed::Tls13Resumed)),
        39
    );
    assert_eq!(edge.count(|c| c.stapling.value(Stapling::Missing)), 1);
    edge.drain();
}

#[test]
fn an_idle_connection_ends_with_a_close_notify() {
    let timeouts = Timeouts {
        idle: Duration::from_millis(1500),
        ..Timeouts::default()
    };
    let edge = Edge::new(vec![backend(echo)], 1, &timeouts);
    let mut tls = edge.connect();
    tls.write_all(b"x").expect("sent");
    tls.read_exact(&mut [0]).expect("an answer");
    let mut rest = Vec::new();
    tls.read_to_end(&mut rest).expect("a proper end");
    assert!(rest.is_empty());
    edge.await_count(1, |c| c.relay_ends.value(RelayEnd::Idle));
    edge.drain();
}

#[test]
fn a_connection_that_gave_its_buffers_back_goes_on() {
    let edge = Edge::new(vec![backend(echo)], 1, &Timeouts::default());
    let mut tls = edge.connect();
    // Between two answers it waits, and whoever waits holds no buffer.
    for (round, size) in [50_000, 1, 50_000, 5_000].into_iter().enumerate() {
        let sent = vec![round as u8; size];
        tls.write_all(&sent).expect("sent");
        let mut answer = vec![0xff; size];
        tls.read_exact(&mut answer).expect("an answer");
        assert!(answer == sent, "round {round}");
    }
    drop(tls);
    edge.drain();
}

#[test]
fn a_silent_client_is_ended_and_a_draining_worker_waits_for_the_others() {
    let timeouts = Timeouts {
        handshake: Duration::from_millis(600),
        ..Timeouts::default()
    };
    let edge = Edge::new(vec![backend(echo)], 1, &timeouts);
    let mut silent = TcpStream::connect(edge.address).expect("connected");
    assert_eq!(silent.read(&mut [0]).expect("an end"), 0);
    edge.await_count(1, |c| {
        c.handshake_failures.value(HandshakeFailure::TimedOut)
    });
    let mut tls = edge.connect();
    tls.write_all(b"before").expect("sent");
    let mut answer = [0; 6];
    tls.read_exact(&mut answer).expect("an answer");
    edge.workers[0].drain();
    let until = SystemTime::now() + Duration::from_secs(20);
    while TcpStream::connect(edge.address).is_ok() {
        assert!(SystemTime::now() < until, "a draining worker still accepts");
        std::thread::yield_now();
    }
    tls.write_all(b"during").expect("sent");
    tls.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"during");
    drop(tls);
    edge.drain();
}

#[test]
fn a_key_update_is_answered_and_the_stream_goes_on() {
    let edge = Edge::new(vec![backend(echo)], 1, &Timeouts::default());
    let mut tls = edge.connect();
    for round in 0..5u8 {
        tls.write_all(&[round; 1000]).expect("sent");
        let mut answer = [0; 1000];
        tls.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer, [round; 1000]);
        tls.conn.refresh_traffic_keys().expect("a key update");
    }
    drop(tls);
    edge.drain();
}

#[test]
fn a_reload_that_mends_the_chain_of_the_same_leaf_is_served() {
    let backend = backend(echo);
    let mut edge = Edge::new(vec![backend.clone()], 1, &Timeouts::default());
    let mut config = ClientConfig::builder_with_provider(edge.client.crypto_provider().clone())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    let config = Arc::new(config);
    let chain = |edge: &Edge| {
        let mut tls = edge.connect_with(Arc::clone(&config));
        tls.write_all(b"x").expect("sent");
        tls.read_exact(&mut [0]).expect("an answer");
        tls.conn.peer_certificates().expect("a chain").len()
    };
    assert_eq!(chain(&edge), 2);
    let leaf_alone = edge
        .chain_pem
        .split_inclusive("-----END CERTIFICATE-----\n")
        .next();
    let leaf_alone = leaf_alone.expect("a leaf").to_owned();
    for (epoch, pem, len) in [(2, leaf_alone, 1), (3, edge.chain_pem.clone(), 2)] {
        let table = table(epoch, vec![backend.clone()], &pem, &edge.key_pem);
        let generation = edge.publisher.publish(|next| next.table = Arc::new(table));
        edge.await_count(generation, |c| c.generation.value());
        assert_eq!(chain(&edge), len);
    }
    edge.drain();
}

/// No client cuts a message after the handshake in pieces; one that does must cost only itself.
#[test]
fn a_message_in_pieces_after_the_handshake_ends_the_connection_and_nothing_else() {
    let edge = Edge::new(vec![backend(echo)], 1, &Timeouts::default());
    let mut config = edge.client.clone();
    config.enable_secret_extraction = true;
    let mut tls = edge.connect_with(Arc::new(config));
    tls.write_all(b"x").expect("sent");
    tls.read_exact(&mut [0]).expect("an answer");
    let mut socket = tls.sock;
    let secrets = tls.conn.dangerous_extract_secrets().expect("keys");
    let (sequence, ConnectionTrafficSecrets::Aes128Gcm { key, iv }) = secrets.tx else {
        panic!("another cipher than the listener's first");
    };
    // The first two bytes of a KeyUpdate of five (RFC 8446 section 4.6.3), as a handshake record.
    let record = sealed_record(key.as_ref(), iv.as_ref(), sequence, &[24, 0, HANDSHAKE]);
    socket.write_all(&record).expect("sent");
    let mut rest = Vec::new();
    // It may end with a reset or a plain end.
    let _ = socket.read_to_end(&mut rest);
    edge.await_count(1, |c| c.relay_ends.value(RelayEnd::ClientProtocol));
    let mut other = edge.connect();
    other.write_all(b"still here").expect("sent");
    other.read_exact(&mut [0; 10]).expect("an answer");
    drop(other);
    edge.drain();
}

const HANDSHAKE: u8 = 22;

/// A TLS 1.3 record under AES-128-GCM (RFC 8446 section 5.2 and 5.3); `inner` ends with its type.
fn sealed_record(key: &[u8], iv: &[u8], sequence: u64, inner: &[u8]) -> Vec<u8> {
    use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let mut nonce: [u8; 12] = iv.try_into().expect("an IV of twelve bytes");
    for (byte, part) in nonce[4..].iter_mut().zip(sequence.to_be_bytes()) {
        *byte ^= part;
    }
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).expect("a key"));
    let len = u16::try_from(inner.len() + 16).expect("short");
    let mut record = vec![23, 3, 3];
    record.extend(len.to_be_bytes());
    let mut sealed = inner.to_vec();
    key.seal_in_place_append_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::from(&record[..]),
        &mut sealed,
    )
    .expect("sealed");
    record.extend(sealed);
    record
}

/// Takes any certificate; what is tested is the relay.
#[derive(Debug)]
struct AnyServer;

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
