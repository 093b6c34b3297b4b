//! What a worker counts, in memory that only this worker writes.
//!
//! A [`Counters`] belongs to one worker; control holds it too and only reads. Because there is one
//! writer, counting is a plain load and store, no locked instruction, and the cache line stays with
//! the core. Merging the workers' figures is the reader's business.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A count with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one. Only the owning worker may call it.
    pub fn one(&self) {
        self.add(1);
    }

    /// Counts `n`. Only the owning worker may call it.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Sets a gauge. Only the owning worker may call it.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The present value; any thread.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Counters by a reason: one per variant of `R`.
#[derive(Debug)]
pub struct ByReason<R: Reason, const N: usize> {
    counts: [Counter; N],
    reason: std::marker::PhantomData<fn(R)>,
}

/// An enumeration whose variants label a family of counters.
pub trait Reason: Copy + 'static {
    /// Every variant in declaration order.
    const ALL: &'static [Self];
    /// The label's value, snake case.
    fn label(self) -> &'static str;
    /// Position in [`Reason::ALL`].
    fn index(self) -> usize;
}

impl<R: Reason, const N: usize> Default for ByReason<R, N> {
    fn default() -> Self {
        const { assert!(N == R::ALL.len(), "one counter per variant") };
        Self {
            counts: [const { Counter(AtomicU64::new(0)) }; N],
            reason: std::marker::PhantomData,
        }
    }
}

impl<R: Reason, const N: usize> ByReason<R, N> {
    /// Counts one occurrence. Only the owning worker may call it.
    pub fn one(&self, reason: R) {
        self.counts[reason.index()].one();
    }

    /// The present value for a reason; any thread.
    pub fn value(&self, reason: R) -> u64 {
        self.counts[reason.index()].value()
    }
}

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident => $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }
        impl Reason for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)*];
            fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
            fn index(self) -> usize {
                self as usize
            }
        }
        impl $name {
            /// How many variants there are.
            pub const COUNT: usize = <Self as Reason>::ALL.len();
        }
    };
}

reasons! {
    /// How a completed handshake ended, by version and kind.
    Completed {
        /// TLS 1.2, certificate sent.
        Tls12Full => "tls12_full",
        /// TLS 1.2, from a ticket.
        Tls12Resumed => "tls12_resumed",
        /// TLS 1.3, certificate sent.
        Tls13Full => "tls13_full",
        /// TLS 1.3, from a ticket.
        Tls13Resumed => "tls13_resumed",
    }
}

reasons! {
    /// What became of the staple in a full handshake.
    Stapling {
        /// The client asked and got a valid staple.
        Stapled => "stapled",
        /// The client did not send `status_request`.
        NotAsked => "not_asked",
        /// Asked, and the certificate has nothing to staple (no responder, or switched off).
        NotApplicable => "not_applicable",
        /// Asked, but no verified response was there yet.
        Missing => "missing",
        /// Asked, but the response had run out at this instant.
        Expired => "expired",
        /// Asked, but the certificate is revoked, and served all the same.
        Revoked => "revoked",
    }
}

reasons! {
    /// Why a handshake did not complete, by who is at fault and how.
    HandshakeFailure {
        /// The first bytes are an HTTP request: answered with 400 in plain text.
        PlainHttp => "plain_http",
        /// The first bytes are neither TLS nor HTTP.
        NotTls => "not_tls",
        /// An SSLv2 or SSLv3 hello, or TLS before 1.2.
        OldVersion => "old_version",
        /// A ClientHello or a later message that does not parse.
        Malformed => "malformed",
        /// More bytes than a handshake may take.
        TooLarge => "too_large",
        /// No server name, and no default site.
        NoServerName => "no_server_name",
        /// A server name that no site has.
        UnknownServerName => "unknown_server_name",
        /// No cipher suite, group or signature scheme in common.
        NothingInCommon => "nothing_in_common",
        /// ALPN without a protocol in common.
        NoApplicationProtocol => "no_application_protocol",
        /// The certificate must be stapled and no valid staple is there.
        StapleRequired => "staple_required",
        /// Every certificate that suits the client is revoked.
        Revoked => "revoked",
        /// The client sent an alert.
        PeerAlert => "peer_alert",
        /// The client closed or reset the connection.
        PeerClosed => "peer_closed",
        /// The time for a handshake ran out.
        TimedOut => "timed_out",
        /// A PROXY header is missing, wrong, or came from a source that may not send one.
        ProxyHeader => "proxy_header",
        /// Anything else, which is ours to explain.
        Internal => "internal",
    }
}

reasons! {
    /// Why an established connection ended.
    RelayEnd {
        /// Both sides finished.
        Finished => "finished",
        /// The client vanished or reset.
        ClientLost => "client_lost",
        /// The client sent something that is not TLS any more.
        ClientProtocol => "client_protocol",
        /// No backend could be reached.
        NoBackend => "no_backend",
        /// The backend reset the connection.
        BackendLost => "backend_lost",
        /// Nothing moved for the idle time-out.
        Idle => "idle",
        /// The worker shut down with the connection open.
        Drained => "drained",
        /// The kernel could not go on sealing it: a key update that it cannot follow, or keys that it did
        /// not take.
        Ktls => "ktls",
    }
}

reasons! {
    /// What became of a connection whose listener asks for kTLS.
    Offload {
        /// The kernel seals and opens its records.
        Offloaded => "offloaded",
        /// Clinch does: the kernel has no kTLS, or may not load it.
        NoKernel => "no_kernel",
        /// Clinch does: kTLS lacks the cipher.
        NoCipher => "no_cipher",
        /// Clinch does: the connection is TLS 1.2.
        Tls12 => "tls12",
        /// Clinch does: part of a record was received already, and the rest was not there.
        MidRecord => "mid_record",
        /// Clinch does: the client was leaving already.
        Leaving => "leaving",
        /// Nobody does: the kernel took the connection, but not its keys. It was ended.
        Failed => "failed",
    }
}

reasons! {
    /// What became of a key update on a connection whose records the kernel seals.
    KeyUpdate {
        /// The client changed its keys, and the kernel followed.
        Received => "received",
        /// Clinch changed its own, asked by the client or because they had sealed enough.
        Sent => "sent",
        /// The kernel cannot exchange keys (before 6.14): the connection was ended.
        NotFollowed => "not_followed",
    }
}

reasons! {
    /// Why one attempt to reach one backend failed.
    BackendFailure {
        /// The connect time-out passed.
        TimedOut => "timed_out",
        /// Refused, or no socket at the path.
        Refused => "refused",
        /// No route, no address, or another error of the network.
        Unreachable => "unreachable",
        /// No descriptors or memory left here.
        Local => "local",
    }
}

reasons! {
    /// Why a connection was not taken up.
    AcceptFailure {
        /// The process has no file descriptors left; accepting pauses.
        NoDescriptors => "no_descriptors",
        /// The client address holds its share already.
        ClientLimit => "client_limit",
        /// The kernel reported another error.
        Other => "other",
    }
}

reasons! {
    /// How one attempt to get an OCSP response ended.
    FetchResult {
        /// A verified response that says *good*.
        Good => "good",
        /// The responder has nothing newer than the staple in use (HTTP status 304).
        Unchanged => "unchanged",
        /// A verified response that says *revoked*.
        Revoked => "revoked",
        /// The responder asked to come back later (`tryLater`).
        TryLater => "try_later",
        /// The responder does not know the certificate (`unauthorized`), common right after issuance.
        Unauthorized => "unauthorized",
        /// An answer that is no usable OCSP response, or one that the verifier refused.
        Refused => "refused",
        /// An HTTP status other than 200, a wrong content type, or a body over the bound.
        Http => "http",
        /// No connection, no address, or the connection broke.
        Network => "network",
        /// The deadline passed.
        TimedOut => "timed_out",
        /// The URL, or where it leads, is not allowed by `[egress]`.
        NotAllowed => "not_allowed",
        /// The egress process was not there.
        Egress => "egress",
        /// The file that stands for a responder cannot be read.
        File => "file",
    }
}

reasons! {
    /// Why the egress process did not ask a responder, or was not let through to it.
    EgressRefusal {
        /// The URL is none.
        Url => "url",
        /// Neither http nor https, or https where that is off.
        Scheme => "scheme",
        /// A user name or password in the URL.
        Credentials => "credentials",
        /// A host written so that programs understand it differently.
        Host => "host",
        /// A port that is not in `egress.ports`.
        Port => "port",
        /// An address that is not public and not in `egress.allow`.
        Address => "address",
        /// Control or its firewall did not let the address through.
        Firewall => "firewall",
        /// The certificate of an https responder was not accepted, or TLS failed.
        Tls => "tls",
        /// The proxy did not connect through.
        Proxy => "proxy",
    }
}

reasons! {
    /// How one look at a CRL ended.
    CrlResult {
        /// A verified list, newer or not.
        Taken => "taken",
        /// The server has nothing newer (HTTP status 304).
        Unchanged => "unchanged",
        /// Something that is no CRL, or that the verifier refused.
        Refused => "refused",
        /// An HTTP status other than 200, or a body over the bound.
        Http => "http",
        /// No connection, no address, or the connection broke.
        Network => "network",
        /// The deadline passed.
        TimedOut => "timed_out",
        /// The URL, or where it leads, is not allowed by `[egress]`.
        NotAllowed => "not_allowed",
        /// The egress process was not there.
        Egress => "egress",
    }
}

/// What control counts about responders. Control is its only writer.
#[derive(Debug, Default)]
pub struct FetchCounters {
    /// Attempts by result.
    pub results: ByReason<FetchResult, { FetchResult::COUNT }>,
    /// Looks at CRLs by result.
    pub crl_results: ByReason<CrlResult, { CrlResult::COUNT }>,
    /// Certificates for which there is nothing to fetch.
    pub skipped: Counter,
    /// How long attempts took.
    pub time: Durations,
    /// Staples taken from the cache at start.
    pub from_cache: Counter,
    /// Cache entries that were not taken: unreadable, or refused by the verifier.
    pub cache_refused: Counter,
    /// Files that were written to the cache and are on the disk.
    pub cache_writes: Counter,
    /// Writes to the cache that failed.
    pub cache_write_failures: Counter,
    /// Requests that the egress policy, or what stands for it, did not let through.
    pub egress_refused: ByReason<EgressRefusal, { EgressRefusal::COUNT }>,
    /// Times the egress process was started.
    pub egress_starts: Counter,
    /// Reloads that took effect.
    pub reloads: Counter,
    /// Reloads that changed nothing because the new configuration was bad.
    pub reloads_refused: Counter,
}

/// Everything one worker counts.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections held now.
    pub active: Counter,
    /// Connections held now whose handshake is not complete.
    pub handshaking: Counter,
    /// Times accepting paused because the worker held as many connections as it may.
    pub full: Counter,
    /// Generation of the snapshot in use.
    pub generation: Counter,
    /// Connections taken from a landing listener, whose plug was missing.
    pub landed: Counter,
    /// Connections handed over to the worker they belong to.
    pub handed_over: Counter,
    /// Connections taken over from other workers; they count as accepted here too.
    pub taken_over: Counter,
    /// Connections of another worker that are served here, as its queue was full.
    pub kept_misplaced: Counter,
    /// Connections not taken up.
    pub accept_failures: ByReason<AcceptFailure, { AcceptFailure::COUNT }>,
    /// Handshakes completed.
    pub completed: ByReason<Completed, { Completed::COUNT }>,
    /// What full handshakes stapled.
    pub stapling: ByReason<Stapling, { Stapling::COUNT }>,
    /// Handshakes not completed.
    pub handshake_failures: ByReason<HandshakeFailure, { HandshakeFailure::COUNT }>,
    /// Established connections that ended.
    pub relay_ends: ByReason<RelayEnd, { RelayEnd::COUNT }>,
    /// Clients that ended their stream without a close_notify.
    pub truncated: Counter,
    /// Connections of listeners that ask for kTLS.
    pub offloads: ByReason<Offload, { Offload::COUNT }>,
    /// Key updates on connections whose records the kernel seals.
    pub key_updates: ByReason<KeyUpdate, { KeyUpdate::COUNT }>,
    /// Backend connections made.
    pub backend_connects: Counter,
    /// Attempts on a backend that failed.
    pub backend_failures: ByReason<BackendFailure, { BackendFailure::COUNT }>,
    /// Times a backend was set aside after failures.
    pub backend_ejections: Counter,
    /// Plaintext bytes from clients to backends.
    pub bytes_up: Counter,
    /// Plaintext bytes from backends to clients.
    pub bytes_down: Counter,
    /// Time from accept to the end of the handshake, completed ones.
    pub handshake_time: Durations,
    /// Certificates ready to sign on this core.
    pub ready_certificates: Counter,
}

/// A histogram of durations with two buckets per power of two, from 64 µs to 16 s.
#[derive(Debug)]
pub struct Durations {
    buckets: [Counter; Durations::BUCKETS],
    sum_us: Counter,
}

impl Default for Durations {
    fn default() -> Self {
        Self {
            buckets: [const { Counter(AtomicU64::new(0)) }; Self::BUCKETS],
            sum_us: Counter::default(),
        }
    }
}

impl Durations {
    const FIRST_BITS: u32 = 6;
    const BUCKETS: usize = 38;

    /// Counts one duration. Only the owning worker may call it.
    pub fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[Self::bucket(us)].one();
        self.sum_us.add(us);
    }

    /// Each bucket's inclusive upper bound in seconds (infinite for the last) and its own count.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.buckets
            .iter()
            .enumerate()
            .map(|(i, count)| (Self::bound(i), count.value()))
    }

    /// Sum of all durations in seconds.
    pub fn sum(&self) -> f64 {
        self.sum_us.value() as f64 / 1e6
    }

    fn bucket(us: u64) -> usize {
        if us < 1 << Self::FIRST_BITS {
            return 0;
        }
        let bits = us.ilog2();
        let half = (us >> (bits - 1)) & 1;
        let index = 1 + 2 * (bits - Self::FIRST_BITS) as usize + half as usize;
        index.min(Self::BUCKETS - 1)
    }

    fn bound(index: usize) -> f64 {
        if index + 1 == Self::BUCKETS {
            return f64::INFINITY;
        }
        let (power, half) = (index / 2, index % 2);
        let base = (1u64 << (Self::FIRST_BITS as usize + power)) as f64;
        (if half == 0 { base } else { base * 1.5 }) / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_bucket_whose_bounds_hold_it() {
        for us in [0, 1, 63, 64, 95, 96, 127, 128, 5_000, 16_000_000] {
            let i = Durations::bucket(us);
            let seconds = us as f64 / 1e6;
            assert!(seconds < Durations::bound(i), "{us} µs above bucket {i}");
            if i > 0 {
                assert!(
                    seconds >= Durations::bound(i - 1),
                    "{us} µs below bucket {i}"
                );
            }
        }
        assert_eq!(Durations::bucket(u64::MAX), Durations::BUCKETS - 1);
    }

    #[test]
    fn reasons_are_counted_apart() {
        let counters = Counters::default();
        counters.handshake_failures.one(HandshakeFailure::NotTls);
        assert_eq!(
            counters.handshake_failures.value(HandshakeFailure::NotTls),
            1
        );
        assert_eq!(
            counters
                .handshake_failures
                .value(HandshakeFailure::Malformed),
            0
        );
    }
}
