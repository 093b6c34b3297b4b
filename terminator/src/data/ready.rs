//! What one core keeps ready to serve: certificates with keys that can sign, TLS configurations, and
//! sites with their backends.
//!
//! The snapshot holds bytes that all cores share read-only; what rustls wants behind an `Arc` is made
//! here, per core, on first use, so that no reference count is shared between cores. Certificates are
//! kept by fingerprint and survive a reload; they are bounded, the least recently used goes first.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use lru::LruCache;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};

use super::backend::{Backend, Backends};
use super::driven::{Candidate, Resolver};
use super::tickets::Tickets;
use crate::certificate::Fingerprint;
use crate::config::{Cipher, Group, Listener, OnRevoked, ProxyVersion, TlsVersion};
use crate::observability::counters::{HandshakeFailure, Stapling};
use crate::snapshot::{CertificateIndex, SiteIndex, SlotState, Snapshot, Table};

/// Everything ready on one core.
pub(super) struct Ready {
    certificates: LruCache<Fingerprint, ReadyCertificate, foldhash::fast::RandomState>,
    sites: HashMap<(usize, SiteIndex), Rc<ReadySite>, foldhash::fast::RandomState>,
    configs: HashMap<(usize, Vec<Vec<u8>>), Arc<ServerConfig>>,
    epoch: u64,
}

/// A site on one listener.
pub(super) struct ReadySite {
    /// The TLS configuration: the listener's policy with the site's ALPN.
    pub(super) config: Arc<ServerConfig>,
    /// Where its bytes go.
    pub(super) backends: Vec<Rc<Backend>>,
    /// PROXY header for the backend.
    pub(super) proxy_protocol: Option<ProxyVersion>,
    certificates: Vec<CertificateIndex>,
    /// Certificates of the listener's default site, which step in for revoked ones.
    fallback: Vec<CertificateIndex>,
}

struct ReadyCertificate {
    plain: Arc<CertifiedKey>,
    /// The table that `plain` was last compared with.
    epoch: u64,
    /// The chain with a staple, and the slot's `since` that it was made from.
    stapled: Option<(Arc<CertifiedKey>, u64)>,
}

impl Ready {
    pub(super) fn new(certificates: usize) -> Self {
        let bound = NonZeroUsize::new(certificates).unwrap_or(NonZeroUsize::MIN);
        Self {
            certificates: LruCache::with_hasher(bound, foldhash::fast::RandomState::default()),
            sites: HashMap::default(),
            configs: HashMap::new(),
            epoch: 0,
        }
    }

    /// Certificates kept ready.
    pub(super) fn certificates(&self) -> usize {
        self.certificates.len()
    }

    /// The site as this core serves it, made on first use.
    pub(super) fn site(
        &mut self,
        snapshot: &Snapshot,
        listener: usize,
        site: SiteIndex,
        backends: &Backends,
    ) -> Result<Rc<ReadySite>, rustls::Error> {
        if self.epoch != snapshot.table.epoch {
            self.epoch = snapshot.table.epoch;
            self.sites.clear();
            self.configs.clear();
        }
        if let Some(ready) = self.sites.get(&(listener, site)) {
            return Ok(Rc::clone(ready));
        }
        let source = &snapshot.table.sites[site as usize];
        let config = match self.configs.get(&(listener, source.alpn.clone())) {
            Some(config) => Arc::clone(config),
            None => {
                let config = Arc::new(config(&snapshot.table.listeners[listener], &source.alpn)?);
                self.configs
                    .insert((listener, source.alpn.clone()), Arc::clone(&config));
                config
            }
        };
        let ready = Rc::new(ReadySite {
            config,
            backends: source
                .backends
                .iter()
                .map(|address| backends.at(address))
                .collect(),
            proxy_protocol: source.proxy_protocol,
            certificates: source.certificates.clone(),
            fallback: fallback(&snapshot.table, listener, site),
        });
        if self.sites.len() >= self.certificates.cap().get() {
            // Sites are cheap to make again; a working set over the bound starts afresh.
            self.sites.clear();
        }
        self.sites.insert((listener, site), Rc::clone(&ready));
        Ok(ready)
    }

    /// The certificates of a site, each with what may be served of it at `now`.
    pub(super) fn candidates(
        &mut self,
        snapshot: &Snapshot,
        site: &ReadySite,
        now: SystemTime,
        into: &mut smallvec::SmallVec<[Candidate; 2]>,
    ) -> Result<(), rustls::Error> {
        for &index in &site.certificates {
            into.push(self.candidate(snapshot, index, now)?);
        }
        let falls_back = |&index: &CertificateIndex| {
            let on_revoked = snapshot.table.certificates[index as usize].on_revoked;
            let state = &snapshot.slots[index as usize].state;
            on_revoked == OnRevoked::Fallback && matches!(state, SlotState::Revoked)
        };
        if !site.fallback.is_empty() && site.certificates.iter().any(falls_back) {
            for &index in &site.fallback {
                into.push(self.candidate(snapshot, index, now)?);
            }
        }
        Ok(())
    }

    fn candidate(
        &mut self,
        snapshot: &Snapshot,
        index: CertificateIndex,
        now: SystemTime,
    ) -> Result<Candidate, rustls::Error> {
        let certificate = &snapshot.table.certificates[index as usize];
        let slot = &snapshot.slots[index as usize];
        let fingerprint = certificate.identity.leaf.fingerprint;
        let epoch = snapshot.table.epoch;
        let ready = self
            .certificates
            .try_get_or_insert_mut(fingerprint, || ReadyCertificate::new(certificate, epoch))?;
        if ready.epoch != epoch {
            ready.epoch = epoch;
            // The same leaf may have come with another chain.
            if ready.plain.cert != certificate.identity.chain {
                *ready = ReadyCertificate::new(certificate, epoch)?;
            }
        }
        let unstapled = |stapling| {
            if certificate.staple_required {
                Err(HandshakeFailure::StapleRequired)
            } else {
                Ok((Arc::clone(&ready.plain), stapling))
            }
        };
        let verdict = match &slot.state {
            SlotState::Revoked if certificate.on_revoked == OnRevoked::ServeUnstapled => {
                unstapled(Stapling::Revoked)
            }
            SlotState::Revoked => Err(HandshakeFailure::Revoked),
            SlotState::NotApplicable => unstapled(Stapling::NotApplicable),
            SlotState::Missing => unstapled(Stapling::Missing),
            SlotState::Stapled(staple) if now >= staple.not_after() => unstapled(Stapling::Expired),
            SlotState::Stapled(staple) => {
                let key = match &ready.stapled {
                    Some((key, since)) if *since == slot.since => Arc::clone(key),
                    _ => {
                        let key = Arc::new(CertifiedKey {
                            ocsp: Some(staple.der().to_vec()),
                            ..CertifiedKey::clone(&ready.plain)
                        });
                        ready.stapled = Some((Arc::clone(&key), slot.since));
                        key
                    }
                };
                Ok((key, Stapling::Stapled))
            }
        };
        Ok(Candidate {
            fingerprint,
            verdict,
            key: Arc::clone(&ready.plain),
        })
    }
}

impl ReadyCertificate {
    fn new(certificate: &crate::snapshot::Certificate, epoch: u64) -> Result<Self, rustls::Error> {
        let key = certificate.identity.signing_key()?;
        let chain = certificate.identity.chain.clone();
        Ok(Self {
            plain: Arc::new(CertifiedKey::new(chain, key)),
            epoch,
            stapled: None,
        })
    }
}

/// The certificates that step in for revoked ones of a site, if any of its own asks for that.
fn fallback(table: &Table, listener: usize, site: SiteIndex) -> Vec<CertificateIndex> {
    let own = &table.sites[site as usize].certificates;
    let wanted = own
        .iter()
        .any(|&index| table.certificates[index as usize].on_revoked == OnRevoked::Fallback);
    let default = table.listeners[listener].default_site.filter(|_| wanted);
    let theirs = default.map(|default| table.sites[default].certificates.iter());
    let theirs = theirs.into_iter().flatten().copied();
    theirs.filter(|index| !own.contains(index)).collect()
}

/// The TLS configuration for a listener's policy and a site's ALPN.
fn config(listener: &Listener, alpn: &[Vec<u8>]) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider(listener)))
        .with_protocol_versions(versions(listener.min_version))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Resolver));
    config.ignore_client_order = true;
    config.alpn_protocols = alpn.to_vec();
    // Tickets alone resume sessions: what one core remembers would not help on another.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = usize::from(listener.tickets);
    // Without it rustls keeps session keys to itself.
    config.enable_secret_extraction = listener.ktls;
    if listener.tickets > 0 {
        config.ticketer = Arc::new(Tickets);
    }
    Ok(config)
}

fn versions(oldest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] =
        [&rustls::version::TLS13, &rustls::version::TLS12];
    match oldest {
        TlsVersion::Tls12 => &BOTH,
        TlsVersion::Tls13 => &BOTH[..1],
    }
}

/// aws-lc-rs with the listener's suites and groups.
pub(super) fn provider(listener: &Listener) -> CryptoProvider {
    CryptoProvider {
        cipher_suites: listener
            .ciphers
            .iter()
            .map(|&cipher| suite(cipher))
            .collect(),
        kx_groups: listener
            .groups
            .iter()
            .map(|&group| key_exchange(group))
            .collect(),
        ..rustls::crypto::aws_lc_rs::default_provider()
    }
}

fn suite(cipher: Cipher) -> SupportedCipherSuite {
    use rustls::crypto::aws_lc_rs::cipher_suite as suites;
    match cipher {
        Cipher::TLS13_AES_128_GCM_SHA256 => suites::TLS13_AES_128_GCM_SHA256,
        Cipher::TLS13_AES_256_GCM_SHA384 => suites::TLS13_AES_256_GCM_SHA384,
        Cipher::TLS13_CHACHA20_POLY1305_SHA256 => suites::TLS13_CHACHA20_POLY1305_SHA256,
        Cipher::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => {
            suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        }
        Cipher::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => {
            suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        }
        Cipher::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        Cipher::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => {
            suites::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        }
        Cipher::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => {
            suites::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
        }
        Cipher::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => {
            suites::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        }
    }
}

fn key_exchange(group: Group) -> &'static dyn rustls::crypto::SupportedKxGroup {
    use rustls::crypto::aws_lc_rs::kx_group;
    match group {
        Group::X25519Mlkem768 => kx_group::X25519MLKEM768,
        Group::X25519 => kx_group::X25519,
        Group::P256 => kx_group::SECP256R1,
        Group::P384 => kx_group::SECP384R1,
    }
}
