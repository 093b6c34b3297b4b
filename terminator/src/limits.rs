//! Every bound of the process, in one place: what may be held, for how long, how often retried.
//!
//! Operators change the fields of [`Limits`] and [`Timeouts`] (tables `[limits]` and `[timeouts]`);
//! the constants are fixed. A bound reached is counted, never silently passed.

use std::time::Duration;

/// What one worker may hold at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections a worker holds at once; at the bound it stops accepting, so that the
    /// kernel's backlog pushes back. `None`: as many as the file-descriptor limit carries.
    pub connections_per_worker: Option<usize>,
    /// Connections one client address may hold on one worker. 0 means no bound.
    pub connections_per_client: u32,
    /// Bytes a client may send before its handshake is complete.
    pub handshake_bytes: usize,
    /// Largest read from a peer in bulk transfer, bytes.
    pub read_buffer: usize,
    /// Certificates (with keys and staple) that one core keeps ready to sign; beyond it the
    /// least recently used is made again when next asked for.
    pub ready_certificates_per_core: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_per_worker: None,
            connections_per_client: 0,
            handshake_bytes: 64 * 1024,
            read_buffer: 256 * 1024,
            ready_certificates_per_core: 4096,
        }
    }
}

/// How long each wait may last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// One attempt to connect to one backend.
    pub connect: Duration,
    /// Without a byte in either direction.
    pub idle: Duration,
    /// After SIGTERM, before connections that remain are closed.
    pub drain: Duration,
    /// Without a byte in either direction, once one side has ended its stream.
    pub linger: Duration,
    /// Before listening, for the first staples.
    pub startup_wait: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(300),
            drain: Duration::from_secs(30),
            linger: Duration::from_secs(30),
            startup_wait: Duration::from_secs(5),
        }
    }
}

/// A whole OCSP request, resolution and connect included.
pub const FETCH_DEADLINE: Duration = Duration::from_secs(10);

/// Largest OCSP response taken, bytes. Real ones are 0.5 to 3 KiB.
pub const OCSP_RESPONSE_BYTES: usize = 64 * 1024;

/// Largest CRL taken, bytes. The largest public ones have some tens of MB.
pub const CRL_BYTES: usize = 128 * 1024 * 1024;

/// Longest URL path built for a GET request; beyond it the request is a POST (RFC 9919 section 5).
pub const OCSP_GET_BYTES: usize = 255;

/// Fetches in flight at once, over all responders.
pub const FETCHES_IN_FLIGHT: usize = 64;

/// Sessions tickets are encrypted under a key for this long, and taken for twice as long.
pub const TICKET_KEY_PERIOD: Duration = Duration::from_secs(6 * 3600);

/// Certificates that have series of their own in the metrics; those that run out first.
pub const METRICS_CERTIFICATES: usize = 2000;

/// Connections to the admin interface at once; further ones wait.
pub const ADMIN_CONNECTIONS: usize = 32;

/// Bytes of an admin request's line and headers. Bodies are not read.
pub const ADMIN_REQUEST_BYTES: usize = 16 * 1024;

/// For the headers of an admin request to arrive.
pub const ADMIN_HEADER_TIME: Duration = Duration::from_secs(5);

/// For control to say what it knows; after that the answer is given without.
pub const ADMIN_STATUS_TIME: Duration = Duration::from_secs(5);

/// For a whole admin request, a reload included.
pub const ADMIN_REQUEST_TIME: Duration = Duration::from_secs(60);

/// Client connections a worker holds at most where the operator gave no figure and the descriptor
/// limit would allow more.
pub const CONNECTIONS_PER_WORKER: usize = 250_000;

/// File descriptors of one connection: the client's and the backend's.
pub const DESCRIPTORS_PER_CONNECTION: u64 = 2;

/// File descriptors of a worker beside its connections: ring, eventfds, listeners.
pub const DESCRIPTORS_PER_WORKER: u64 = 32;

/// File descriptors of the process beside its workers: log, egress, files read at a reload, those of a
/// [`CACHE_GROUP`], and the admin interface's [`ADMIN_CONNECTIONS`].
pub const DESCRIPTORS_PER_PROCESS: u64 = 160;

/// How much one responder is asked, as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turns {
    /// Questions in flight at once; one while it is in trouble.
    pub concurrency: usize,
    /// Questions at once after a pause, before the pace holds.
    pub burst: u32,
    /// Between two questions, on average.
    pub pace: Duration,
}

impl Default for Turns {
    /// 72,000 questions an hour.
    fn default() -> Self {
        Self {
            concurrency: 4,
            burst: 64,
            pace: Duration::from_millis(50),
        }
    }
}

/// Questions in flight at responders in trouble, together: so many that hang leave room for the rest.
pub const FETCHES_IN_TROUBLE: usize = FETCHES_IN_FLIGHT / 2;

/// Responders that fetches are counted for by name; those beyond are counted together.
pub const RESPONDERS_COUNTED: usize = 256;

/// CRLs in flight at once: each may have [`CRL_BYTES`].
pub const CRLS_IN_FLIGHT: usize = 4;

/// A whole CRL: some have tens of MB.
pub const CRL_DEADLINE: Duration = Duration::from_secs(60);

/// Between two looks at a CRL whose server can say that it has not changed, at most.
pub const CRL_PACE: Duration = Duration::from_secs(3600);

/// Certificates that one name given to `clinch ocsp fetch` or `explain` may stand for.
pub const CERTIFICATES_NAMED: usize = 16;

/// Before a responder that failed is asked again, for whichever certificate; doubled with each
/// further failure.
pub const RESPONDER_FIRST_REST: Duration = Duration::from_millis(500);

/// Between two fetches from a responder that keeps failing, at most.
pub const RESPONDER_LONGEST_REST: Duration = Duration::from_secs(60);

/// Hosts that are passed over for a while because they failed, where a certificate names others.
pub const DETOURS: usize = 1024;

/// Between two fetches for a certificate whose staple still holds for long, at most.
pub const LONGEST_RETRY: Duration = Duration::from_secs(3600);

/// Between two fetches for a certificate without a staple, at most, in the first while. A responder
/// that is down is spared by [`Turns`] and its rest.
pub const LONGEST_UNSTAPLED_RETRY: Duration = Duration::from_secs(60);

/// After a verified *revoked*: a hold may be lifted (RFC 5280 section 5.3.1).
pub const REVOKED_RETRY: Duration = Duration::from_secs(3600);

/// Largest certificate or key file taken, bytes. A chain of ten RSA certificates has 20 KiB.
pub const CREDENTIAL_FILE_BYTES: u64 = 256 * 1024;

/// For all backend names of a configuration together to be looked up.
pub const BACKEND_LOOKUP_TIME: Duration = Duration::from_secs(10);

/// Backend names looked up at once.
pub const BACKEND_LOOKUPS: usize = 16;

/// Addresses kept of one backend name.
pub const BACKEND_ADDRESSES: usize = 64;

/// Commands that wait for control; beyond, callers wait to hand theirs over.
pub const CONTROL_COMMANDS: usize = 64;

/// Staples that wait for the disk; beyond, they are not kept, which is counted.
pub const CACHE_QUEUE: usize = 4096;

/// Files of the cache that are written before the first of them is synced. Each is open until then.
pub const CACHE_GROUP: usize = 32;

/// At the end of the process, for the cache to be written out.
pub const CACHE_FINISH_TIME: Duration = Duration::from_secs(2);

/// Longest frame between control and the egress process, bytes.
pub const EGRESS_FRAME_BYTES: usize = 64 * 1024;

/// Largest piece of a body in one frame, bytes; leaves room for the frame's own fields.
pub const EGRESS_CHUNK_BYTES: usize = 32 * 1024;

/// Longest value of an HTTP header that is passed on, bytes; a longer one is left out.
pub const EGRESS_HEADER_BYTES: usize = 1024;

/// Status line and headers of an HTTP answer, bytes.
pub const EGRESS_HEAD_BYTES: usize = 32 * 1024;

/// Headers of an HTTP answer.
pub const EGRESS_HEADERS: usize = 64;

/// Addresses of one host that are tried at most.
pub const EGRESS_ADDRESSES: usize = 8;

/// Addresses of one host that are looked at; of these, [`EGRESS_ADDRESSES`] are tried.
pub const EGRESS_FOUND: usize = 64;

/// CAs that `egress.trust` may have. Debian's own bundle has about 140.
pub const EGRESS_ANCHORS: usize = 1024;

/// Names that the egress worker remembers from `egress.resolvers`, while their TTL lasts.
pub const EGRESS_NAMES: u64 = 1024;

/// Addresses that wait for control to let them through.
pub const EGRESS_ADMISSIONS: usize = EGRESS_REQUESTS;

/// Processes and threads of the egress user: the monitor, and the worker with [`EGRESS_LOOKUPS`].
pub const EGRESS_THREADS: u64 = 4 * EGRESS_LOOKUPS as u64;

/// Memory that the egress worker may write to, bytes. It uses some MB; the allocator reserves a GiB
/// ahead.
pub const EGRESS_DATA_BYTES: u64 = 3 << 30;

/// Requests that the egress worker makes at once; above what control keeps in flight, so that only
/// a mistake reaches it.
pub const EGRESS_REQUESTS: usize = 2 * FETCHES_IN_FLIGHT;

/// Frames between the egress worker's tasks and its socket; with full chunks, 1 MiB.
pub const EGRESS_QUEUE: usize = 32;

/// Host names that the egress worker looks up at once: the resolver of libc blocks a thread.
pub const EGRESS_LOOKUPS: usize = 64;

/// File descriptors of the egress worker: sockets of all requests, several addresses each.
pub const EGRESS_FILES: u64 = 2048;

/// Beyond a request's own deadline, for the worker's answer to arrive.
pub const EGRESS_GRACE: Duration = Duration::from_secs(1);

/// Between two starts of an egress process or worker that keeps dying, at most.
pub const EGRESS_LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Server names that the kernel's steering table has room for at most. A name costs about 80 bytes
/// of kernel memory once it is entered, and each place 16 bytes of the table's index from the start.
pub const STEERED_NAMES_MAX: usize = 1 << 22;

/// How far above the mean a worker's connections may be before names go to their next choice.
pub const STEERING_BOUND: f64 = 1.25;

/// Connections up to which no worker counts as overloaded.
pub const STEERING_BOUND_MIN: u64 = 256;

/// Sites that the steering report lists.
pub const STEERING_ROWS: usize = 1000;

/// Connections on their way from one worker to another, for each receiver; beyond it they are
/// served where they are.
pub const HANDED_OVER_WAITING: usize = 1024;

/// Addresses that are open for one host at once, and that a question may name.
pub const FIREWALL_ADDRESSES: usize = 64;

/// Longest TTL that an opening is given: names in use are asked for again anyway.
pub const FIREWALL_LONGEST_TTL: Duration = Duration::from_secs(3600);

/// Between two looks whether the rules are still there. Each question is a look, too.
pub const FIREWALL_CHECK: Duration = Duration::from_secs(5);

/// Between two readings of the configuration by the keeper of the rules; how long a certificate with
/// a new responder may have to wait.
pub const FIREWALL_REREAD: Duration = Duration::from_secs(2);

/// How long an address that the keeper of the rules looked up itself is taken to hold. It looks
/// twice in that time.
pub const FIREWALL_RESOLVE: Duration = Duration::from_secs(60);

/// Names that the keeper of the rules looks up at once.
pub const FIREWALL_LOOKUPS: usize = 16;

/// For `nft`, `iptables` or `ipset` to end.
pub const FIREWALL_PROGRAM_TIME: Duration = Duration::from_secs(10);

/// For the keeper of the rules to answer a question; egress connects afterwards.
pub const FIREWALL_ASK_TIME: Duration = Duration::from_secs(3);

/// Questions to the keeper of the rules at once; further ones wait.
pub const FIREWALL_CONNECTIONS: usize = 64;

/// Longest question, and longest answer, bytes.
pub const FIREWALL_LINE_BYTES: u64 = 16 * 1024;
