//! What control knows, as data: for `clinch status`, the admin interface and the metrics.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Control;
use super::lists::CrlStatus;
use super::load::Class;
use super::tally::ResponderStatus;
use crate::snapshot::{BackendAddress, CertificateIndex, SlotState};
use crate::{clock, egress};

/// Everything, at one instant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Generation of the snapshot last published.
    pub generation: u64,
    /// The generation each worker serves from, in order of the workers.
    pub adopted: Vec<u64>,
    /// Number of the configuration in force: 1 at start, one more with each reload.
    pub epoch: u64,
    /// Whether responders can be asked.
    pub egress: egress::State,
    /// Why the last reload was refused; `None` when it took effect.
    pub last_reload_error: Option<String>,
    /// Why the clock of this machine cannot be believed, in words.
    pub clock: Option<String>,
    /// Responders asked since the start.
    pub responders: Vec<ResponderStatus>,
    /// Certificates in table order.
    pub certificates: Vec<CertificateStatus>,
    /// Sites in configuration order.
    pub sites: Vec<SiteStatus>,
}

/// One certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// Subject for people.
    pub subject: String,
    /// SHA-256 of the certificate, hexadecimal.
    pub fingerprint: String,
    /// SHA-256 of its public key, hexadecimal.
    pub spki_sha256: String,
    /// Issuer for people.
    pub issuer: String,
    /// End of the certificate's validity.
    #[serde(with = "instant")]
    pub not_after: SystemTime,
    /// Names of the sites that use it.
    pub sites: Vec<String>,
    /// Kind of revocation information it has.
    pub class: Class,
    /// The certificate carries the TLS feature *status_request*.
    pub must_staple: bool,
    /// Without a staple, handshakes are refused.
    pub staple_required: bool,
    /// State of the staple.
    pub staple: StapleStatus,
    /// Start of the staple's validity.
    #[serde(with = "optional_instant")]
    pub this_update: Option<SystemTime>,
    /// When the responder has newer information.
    #[serde(with = "optional_instant")]
    pub next_update: Option<SystemTime>,
    /// From then on it is not sent.
    #[serde(with = "optional_instant")]
    pub staple_not_after: Option<SystemTime>,
    /// When the responder is asked next; `None` while it is being asked, or never.
    #[serde(with = "optional_instant")]
    pub next_fetch: Option<SystemTime>,
    /// Failures since the last success.
    pub failures: u32,
    /// Why the last attempt failed, in words.
    pub last_error: Option<String>,
    /// Responder asked first.
    pub responder: Option<String>,
    /// Why nothing is ever stapled, in words, if so.
    pub not_stapled: Option<String>,
    /// The CRL that is watched instead.
    pub crl: Option<CrlStatus>,
}

impl CertificateStatus {
    /// Why the CRL that is watched says nothing about the certificate, though it is in order.
    pub fn crl_silence(&self) -> Option<&str> {
        let watched = self.crl.is_some() && self.staple == StapleStatus::NotApplicable;
        self.last_error.as_deref().filter(|_| watched)
    }

    /// Whether a CRL is watched and says nothing about the certificate at that time: it has not come
    /// in, has run out, or is silent.
    pub fn crl_is_unknown(&self, at: SystemTime) -> bool {
        let over = |crl: &CrlStatus| crl.not_after.is_none_or(|end| end <= at);
        self.crl.as_ref().is_some_and(over) || self.crl_silence().is_some()
    }
}

/// State of a certificate's staple.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StapleStatus {
    /// Nothing to staple.
    NotApplicable,
    /// Wanted, not there.
    Missing,
    /// Verified and valid.
    Stapled,
    /// Was there and has run out.
    Expired,
    /// The responder says revoked; the certificate is not served.
    Revoked,
}

/// One site.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SiteStatus {
    /// First name.
    pub name: String,
    /// Positions in [`Status::certificates`].
    pub certificates: Vec<u32>,
    /// Resolved backends.
    pub backends: Vec<String>,
}

impl Control {
    /// Everything that is known now.
    pub(super) fn status(&self) -> Status {
        let snapshot = self.publisher.current();
        let certificates = 0..snapshot.table.certificates.len();
        let sites = snapshot.table.sites.iter().map(|site| SiteStatus {
            name: site.name.clone(),
            certificates: site.certificates.clone(),
            backends: site.backends.iter().map(backend).collect(),
        });
        Status {
            generation: snapshot.generation,
            adopted: self.publisher.adopted().collect(),
            epoch: snapshot.table.epoch,
            egress: self.client.state(),
            last_reload_error: self.reloads.last_error.clone(),
            clock: self
                .timekeeping
                .suspicion(clock::now())
                .map(|s| s.to_string()),
            responders: self.tally.report(),
            certificates: certificates.map(|index| self.certificate(index)).collect(),
            sites: sites.collect(),
        }
    }

    pub(super) fn certificate(&self, index: usize) -> CertificateStatus {
        let snapshot = self.publisher.current();
        let certificate = &snapshot.table.certificates[index];
        let leaf = &certificate.identity.leaf;
        let subject = &self.book.subjects[index];
        let track = &self.book.tracks[index];
        let state = &snapshot.slots[index].state;
        let staple = match state {
            SlotState::Stapled(staple) => Some(staple),
            _ => None,
        };
        let crl = self
            .lists
            .status(index.try_into().expect("fewer than 2^32"));
        let position = CertificateIndex::try_from(index).expect("as many as the table");
        CertificateStatus {
            subject: leaf.subject.clone(),
            fingerprint: leaf.fingerprint.to_string(),
            spki_sha256: leaf.spki_sha256.map(|byte| format!("{byte:02x}")).concat(),
            issuer: leaf.issuer.clone(),
            not_after: leaf.not_after,
            sites: subject.sites.clone(),
            class: subject.class,
            must_staple: leaf.must_staple,
            staple_required: certificate.staple_required,
            staple: staple_status(state),
            this_update: staple.map(|staple| staple.this_update()),
            next_update: staple.and_then(|staple| staple.next_update()),
            staple_not_after: staple.map(|staple| staple.not_after()),
            next_fetch: match &crl {
                Some(crl) => crl.next_fetch,
                None => self.book.queue.due_at(position),
            },
            failures: track.failures,
            last_error: track.last_error.clone(),
            responder: subject.plan.as_ref().ok().map(|plan| plan[0].clone()),
            not_stapled: subject.plan.as_ref().err().map(ToString::to_string),
            crl,
        }
    }
}

fn staple_status(state: &SlotState) -> StapleStatus {
    match state {
        SlotState::NotApplicable => StapleStatus::NotApplicable,
        SlotState::Missing => StapleStatus::Missing,
        SlotState::Stapled(staple) if clock::now() < staple.not_after() => StapleStatus::Stapled,
        SlotState::Stapled(_) => StapleStatus::Expired,
        SlotState::Revoked => StapleStatus::Revoked,
    }
}

fn backend(address: &BackendAddress) -> String {
    match address {
        BackendAddress::Tcp(address) => address.to_string(),
        BackendAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// Instants as RFC 3339 text.
mod instant {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::clock;

    pub(super) fn serialize<S: Serializer>(at: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&clock::rfc3339(*at))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(from)?;
        clock::parse_rfc3339(&text).map_err(D::Error::custom)
    }
}

/// Instants that may be absent.
pub(super) mod optional_instant {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use crate::clock;

    pub(in crate::control) fn serialize<S: Serializer>(
        at: &Option<SystemTime>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        at.map(clock::rfc3339).serialize(to)
    }

    pub(in crate::control) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        Option::<String>::deserialize(from)?
            .map(|text| clock::parse_rfc3339(&text).map_err(D::Error::custom))
            .transpose()
    }
}
