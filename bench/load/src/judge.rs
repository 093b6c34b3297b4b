//! The verifier in every handshake: chain, staple and signature, as the plan wants them.
//!
//! It never asks a responder; that is `responder`, after the handshake.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use clinch::ocsp::{self, Policy};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::failure::refused;
use crate::plan::{Check, Revocation};
use crate::{Failure, Plan};

/// Judges handshakes of one thread.
pub(crate) struct Judge {
    /// `None`: the chain is not judged.
    chains: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    revocation: Revocation,
    check: Check,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Staples that came, wanted or not.
    staples: u64,
    /// Chains found good, by leaf and name.
    chains: HashMap<(Vec<u8>, ServerName<'static>), ()>,
    responses: Responses,
}

/// Responses found good: their bytes and how long they hold, by leaf.
#[derive(Default)]
pub(crate) struct Responses(HashMap<Vec<u8>, (Vec<u8>, SystemTime)>);

impl Responses {
    /// Verifies a response, or recognises it.
    pub(crate) fn judge(
        &mut self,
        response: &[u8],
        chain: &[&CertificateDer<'_>],
        check: Check,
        at: SystemTime,
    ) -> Result<(), &'static str> {
        let [leaf, issuer, ..] = chain else {
            return Err(refused(ocsp::RefusalKind::Input));
        };
        if check == Check::Distinct
            && let Some((known, until)) = self.0.get(leaf.as_ref())
            && known == response
            && at < *until
        {
            return Ok(());
        }
        let staple = ocsp::verify(response, leaf, issuer, &Policy::default(), at)
            .map_err(|refusal| refused(refusal.kind()))?;
        if self.0.len() < MOST {
            let value = (response.to_vec(), staple.not_after());
            self.0.insert(leaf.to_vec(), value);
        }
        Ok(())
    }
}

impl Judge {
    pub(crate) fn new(plan: &Plan, provider: Arc<CryptoProvider>) -> anyhow::Result<Self> {
        let chains = if plan.roots.is_empty() {
            None
        } else {
            let mut roots = RootCertStore::empty();
            for root in &plan.roots {
                roots.add(root.clone())?;
            }
            let builder =
                WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
            Some(builder.build()?)
        };
        Ok(Self {
            chains,
            provider,
            revocation: plan.revocation,
            check: plan.check,
            seen: Mutex::default(),
        })
    }

    /// Staples that came, wanted or not.
    pub(crate) fn staples(&self) -> u64 {
        self.seen().staples
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge_chain(
        &self,
        seen: &mut Seen,
        chain: &[&CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let Some(judge) = &self.chains else {
            return Ok(());
        };
        let key = (chain[0].to_vec(), name.to_owned());
        if self.check == Check::Distinct && seen.chains.contains_key(&key) {
            return Ok(());
        }
        let rest: Vec<CertificateDer<'_>> = chain[1..].iter().map(|&der| der.clone()).collect();
        judge.verify_server_cert(chain[0], &rest, name, &[], now)?;
        if seen.chains.len() < MOST {
            seen.chains.insert(key, ());
        }
        Ok(())
    }
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Judge({:?}, {:?})", self.revocation, self.check)
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        staple: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain: Vec<&CertificateDer<'_>> = std::iter::once(leaf).chain(intermediates).collect();
        let mut seen = self.seen();
        seen.staples += u64::from(!staple.is_empty());
        self.judge_chain(&mut seen, &chain, name, now)?;
        if self.revocation == Revocation::Staple {
            if staple.is_empty() {
                return Err(Failure::NoStaple.into_tls());
            }
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(now.as_secs());
            seen.responses
                .judge(staple, &chain, self.check, at)
                .map_err(|why| Failure::BadStaple(why).into_tls())?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.check == Check::Distinct {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.check == Check::Distinct {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Verdicts remembered; further ones are reached anew each time.
const MOST: usize = 16 * 1024;
