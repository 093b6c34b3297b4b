//! The connection whose handshake this core is driving at this instant.
//!
//! rustls asks for a certificate and for ticket keys through callbacks that it shares between all
//! connections of a configuration; which connection asks, they are not told. So the handshake lends
//! what it has chosen to the thread for the length of one call ([`Driven::during`]), and the
//! callbacks here read it. Nothing is locked and nothing leaves the core.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use smallvec::SmallVec;

use crate::certificate::Fingerprint;
use crate::observability::counters::{HandshakeFailure, Stapling};

/// A certificate that may serve the connection, judged at the instant of the handshake.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// Identity of the leaf; tickets are bound to it.
    pub(super) fingerprint: Fingerprint,
    /// What to serve, or why this certificate must not be.
    pub(super) verdict: Result<(Arc<CertifiedKey>, Stapling), HandshakeFailure>,
    /// The key, to ask whether the client can verify it even if it must not be served.
    pub(super) key: Arc<CertifiedKey>,
}

/// What the handshake of one connection has chosen, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Driven {
    /// Certificates of the site in order of preference.
    pub(super) candidates: SmallVec<[Candidate; 2]>,
    /// The certificate served, and what there was to staple for it, asked or not.
    pub(super) served: Option<(Fingerprint, Stapling)>,
    /// Why none was.
    pub(super) refused: Option<HandshakeFailure>,
}

thread_local! {
    static PRESENT: RefCell<Driven> = RefCell::default();
}

impl Driven {
    /// Makes `self` what the callbacks see while `call` runs.
    pub(super) fn during<R>(&mut self, call: impl FnOnce() -> R) -> R {
        PRESENT.with_borrow_mut(|present| std::mem::swap(present, self));
        let result = call();
        PRESENT.with_borrow_mut(|present| std::mem::swap(present, self));
        result
    }

    /// The first certificate that the client can verify and that may be served.
    fn choose(&mut self, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let mut refused = HandshakeFailure::NothingInCommon;
        for candidate in &self.candidates {
            if candidate.key.key.choose_scheme(schemes).is_none() {
                continue;
            }
            match &candidate.verdict {
                Ok((key, stapling)) => {
                    self.served = Some((candidate.fingerprint, *stapling));
                    return Some(Arc::clone(key));
                }
                Err(why) => refused = *why,
            }
        }
        self.refused = Some(refused);
        None
    }
}

/// The certificate that the present handshake serves, which its tickets are bound to. None where it
/// is revoked, though served: no session outlives that.
pub(super) fn ticket_certificate() -> Option<Fingerprint> {
    PRESENT.with_borrow(|present| {
        let (fingerprint, stapling) = present.served?;
        (stapling != Stapling::Revoked).then_some(fingerprint)
    })
}

/// Chooses the certificate of the present handshake.
#[derive(Debug)]
pub(super) struct Resolver;

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        PRESENT.with_borrow_mut(|present| present.choose(hello.signature_schemes()))
    }
}
