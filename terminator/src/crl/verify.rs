//! The verdict on a CRL: in full, for one certificate, at one instant (RFC 5280 section 6.3.3).

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;

use super::der::shortest;
use super::entries::Entries;
use super::extensions::ListExtensions;
use super::list::List;
use super::name::{readable, same_name};
use super::number::CrlNumber;
use super::refusal::Refusal;
use super::scope::{Reasons, covered};
use super::{AGE_WITHOUT_NEXT_UPDATE, Policy};
use crate::certificate::{Fingerprint, SignatureError, Tolerance, is_issued, parse_certificate};

/// What proves that a CRL was verified in full for one certificate and does not list it: signature and
/// the issuer's right to sign, scope, validity at the time given, every entry looked at.
///
/// Only [`VerifiedList::judge`] makes one. It does not prove that the list is still valid: whoever
/// relies on it compares [`NotRevoked::not_after`] with the present.
#[derive(Clone, Debug)]
pub struct NotRevoked {
    certificate: Fingerprint,
    this_update: SystemTime,
    next_update: Option<SystemTime>,
    not_after: SystemTime,
    number: Option<CrlNumber>,
    entries: usize,
}

impl NotRevoked {
    /// The certificate it speaks about.
    pub fn certificate(&self) -> Fingerprint {
        self.certificate
    }
    /// When the list was made.
    pub fn this_update(&self) -> SystemTime {
        self.this_update
    }
    /// When a newer list will be there, if the CA says so.
    pub fn next_update(&self) -> Option<SystemTime> {
        self.next_update
    }
    /// From this instant on it says nothing: nextUpdate, or the end of the age bound if
    /// that comes first.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
    /// The list's number, if it has one.
    pub fn number(&self) -> Option<CrlNumber> {
        self.number
    }
    /// How many certificates the list has revoked.
    pub fn entries(&self) -> usize {
        self.entries
    }
}

/// A CRL whose signature, issuer, critical extensions and validity at one instant were checked. What
/// it says about a certificate of that issuer is for [`VerifiedList::judge`] to find, once for each.
pub struct VerifiedList<'a> {
    list: List<'a>,
    extensions: ListExtensions<'a>,
    issuers: Vec<X509Certificate<'a>>,
    not_after: SystemTime,
}

/// Verifies a CRL in full for one certificate at one instant. `crl` is DER, see
/// [`decode`](super::decode).
///
/// `issuers` are certificates of the CA, for which the caller vouches: usually the one that issued
/// the leaf, and more where the CA has changed its key, so that another one signs the list (RFC 5280
/// section 6.3.3 (f)). Certificates of others among them, such as those of a chain, do no harm.
///
/// The signature comes before everything that it protects: [`Refusal::Revoked`] is therefore a
/// statement of the CA that holds at `at`, not of whoever handed out the list.
pub fn verify(
    crl: &[u8],
    leaf: &CertificateDer<'_>,
    issuers: &[CertificateDer<'_>],
    policy: &Policy,
    at: SystemTime,
) -> Result<NotRevoked, Refusal> {
    let certificate = parse(leaf, "in question")?;
    let list = VerifiedList::verify(crl, issuers, policy, at)?;
    list.judge_parsed(leaf, &certificate)
}

impl<'a> VerifiedList<'a> {
    /// Verifies what does not depend on the certificate in question.
    pub fn verify(
        crl: &'a [u8],
        issuers: &'a [CertificateDer<'_>],
        policy: &Policy,
        at: SystemTime,
    ) -> Result<Self, Refusal> {
        let issuers = issuers.iter().map(|issuer| parse(issuer, "of the issuer"));
        let issuers = issuers.collect::<Result<Vec<_>, _>>()?;
        let list = List::parse(crl)?;
        authorise(&list, &issuers, policy)?;
        let extensions = ListExtensions::parse(list.extensions)?;
        check_number(extensions.number, policy.last_number)?;
        let not_after = window(&list, policy, at)?;
        Ok(Self {
            list,
            extensions,
            issuers,
            not_after,
        })
    }

    /// When the list was made.
    pub fn this_update(&self) -> SystemTime {
        self.list.this_update
    }
    /// When a newer list will be there, if the CA says so.
    pub fn next_update(&self) -> Option<SystemTime> {
        self.list.next_update
    }
    /// From this instant on it says nothing; see [`NotRevoked::not_after`].
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
    /// The list's number, if it has one.
    pub fn number(&self) -> Option<CrlNumber> {
        self.extensions.number
    }

    /// Finds what the list says about a certificate, looking at every entry.
    pub fn judge(&self, leaf: &CertificateDer<'_>) -> Result<NotRevoked, Refusal> {
        self.judge_parsed(leaf, &parse(leaf, "in question")?)
    }

    /// Finds what the list says about each of many certificates, looking at every entry once.
    pub fn judge_all(&self, leaves: &[&CertificateDer<'_>]) -> Vec<Result<NotRevoked, Refusal>> {
        let parsed = leaves.iter().map(|leaf| parse(leaf, "in question"));
        let parsed: Vec<Result<X509Certificate<'_>, Refusal>> = parsed.collect();
        let certificates = parsed.iter().flatten();
        let mut found = certificates.map(|c| (shortest(c.raw_serial()), None));
        let mut found: Found<'_> = found.by_ref().collect();
        let entries = self.find(&mut found);
        let both = leaves.iter().zip(&parsed);
        let verdicts = both.map(|(leaf, parsed)| {
            let certificate = parsed.as_ref().map_err(Clone::clone)?;
            self.conclude(leaf, certificate, &found, &entries)
        });
        verdicts.collect()
    }

    fn judge_parsed(
        &self,
        leaf: &CertificateDer<'_>,
        certificate: &X509Certificate<'_>,
    ) -> Result<NotRevoked, Refusal> {
        let mut found = Found::from([(shortest(certificate.raw_serial()), None)]);
        let entries = self.find(&mut found);
        self.conclude(leaf, certificate, &found, &entries)
    }

    /// What follows for one certificate, given what was found in the entries.
    fn conclude(
        &self,
        leaf: &CertificateDer<'_>,
        certificate: &X509Certificate<'_>,
        found: &Found<'_>,
        entries: &Result<usize, Refusal>,
    ) -> Result<NotRevoked, Refusal> {
        self.check_issued(leaf, certificate)?;
        let covered = covered(self.extensions.scope.as_ref(), certificate)?;
        let entries = *entries.as_ref().map_err(Clone::clone)?;
        if let Some(Some(refusal)) = found.get(shortest(certificate.raw_serial())) {
            return Err(refusal.clone());
        }
        // What is listed is revoked whatever the list leaves out; from here on it is about whether
        // the absence of an entry says anything.
        if covered != Reasons::ALL {
            let covered = covered.to_string();
            return Err(Refusal::SomeReasons { covered });
        }
        Ok(NotRevoked {
            certificate: Fingerprint::of(leaf),
            this_update: self.list.this_update,
            next_update: self.list.next_update,
            not_after: self.not_after,
            number: self.extensions.number,
            entries,
        })
    }

    /// The list is about certificates in the name of its issuer, and this is one of them.
    fn check_issued(
        &self,
        leaf: &CertificateDer<'_>,
        certificate: &X509Certificate<'_>,
    ) -> Result<(), Refusal> {
        let wanted = certificate.issuer().as_raw();
        if !same_name(self.list.issuer, wanted) {
            return Err(Refusal::OtherIssuer {
                found: readable(self.list.issuer),
                wanted: readable(wanted),
            });
        }
        let issued = |issuer| is_issued(leaf, certificate, issuer);
        match self.issuers.iter().any(issued) {
            true => Ok(()),
            false => Err(Refusal::NotTheIssuer),
        }
    }

    /// Looks for serial numbers and returns how many entries there are. All are looked at: a critical
    /// extension in any of them spoils the list (RFC 5280 section 5.3), and a certificate may be there
    /// twice.
    fn find(&self, wanted: &mut Found<'_>) -> Result<usize, Refusal> {
        let mut entries = Entries::new(self.list.entries, self.list.version);
        let mut count = 0;
        while let Some(entry) = entries.next()? {
            count += 1;
            let Some(found) = wanted.get_mut(entry.serial) else {
                continue;
            };
            let (serial, reason) = (hex(entry.serial), entry.reason());
            if reason.is_some_and(|reason| reason.is_removal()) {
                found.get_or_insert(Refusal::Removed { serial });
            } else if !matches!(found, Some(Refusal::Revoked { .. })) {
                *found = Some(Refusal::Revoked {
                    serial,
                    revoked_at: entry.date,
                    reason,
                });
            }
        }
        Ok(count)
    }
}

/// For each serial number in its shortest form what was found about it.
type Found<'s> = HashMap<&'s [u8], Option<Refusal>>;

/// Checks that the issuer signed the list, and may (RFC 5280 section 6.3.3 (b), (f) and (g)).
fn authorise(
    list: &List<'_>,
    issuers: &[X509Certificate<'_>],
    policy: &Policy,
) -> Result<(), Refusal> {
    // A short key is taken: whoever finds it out makes certificates, and needs no CRLs.
    let tolerance = Tolerance {
        sha1: policy.allow_sha1,
        short_rsa: true,
    };
    let named = |issuer: &&X509Certificate<'_>| same_name(list.issuer, issuer.subject().as_raw());
    let mut error: Option<SignatureError> = None;
    for issuer in issuers.iter().filter(named) {
        match list.signed.verify(issuer.public_key().raw, tolerance) {
            Ok(()) => return may_sign(issuer),
            Err(other) => drop(error.get_or_insert(other)),
        }
    }
    Err(error.map_or_else(
        || Refusal::OtherIssuer {
            found: readable(list.issuer),
            wanted: issuers.first().map_or_else(String::new, subject),
        },
        Refusal::Signature,
    ))
}

/// Key usage, where there is one, has cRLSign (RFC 5280 section 6.3.3 (f)).
fn may_sign(issuer: &X509Certificate<'_>) -> Result<(), Refusal> {
    let usage = issuer.key_usage().map_err(|error| Refusal::Certificate {
        whose: "of the issuer",
        reason: error.to_string(),
    })?;
    match usage.is_none_or(|usage| usage.value.crl_sign()) {
        true => Ok(()),
        false => Err(Refusal::IssuerNotAllowed {
            issuer: subject(issuer),
        }),
    }
}

fn subject(certificate: &X509Certificate<'_>) -> String {
    readable(certificate.subject().as_raw())
}

/// Until when the list holds, if it holds now (RFC 5280 section 6.3.3 (a)), with the CA's clock
/// allowed to be ahead by the skew.
fn window(list: &List<'_>, policy: &Policy, at: SystemTime) -> Result<SystemTime, Refusal> {
    let (this_update, next_update) = (list.this_update, list.next_update);
    if let Some(next_update) = next_update
        && next_update < this_update
    {
        return Err(Refusal::Reversed {
            this_update,
            next_update,
        });
    }
    if at.checked_add(policy.skew).unwrap_or(at) < this_update {
        return Err(Refusal::NotYetValid { this_update, at });
    }
    if let Some(next_update) = next_update
        && at >= next_update
    {
        return Err(Refusal::Expired { next_update, at });
    }
    let default = next_update.is_none().then_some(AGE_WITHOUT_NEXT_UPDATE);
    let max_age = policy.max_age.or(default).map(|age| age.min(CENTURY));
    let too_old = max_age.map(|age| this_update + age);
    if let (Some(max_age), Some(too_old)) = (max_age, too_old)
        && at >= too_old
    {
        return Err(Refusal::TooOld {
            this_update,
            max_age,
            at,
        });
    }
    let ends = [next_update, too_old].into_iter().flatten();
    Ok(ends.min().expect("without nextUpdate there is an age"))
}

/// RFC 5280 section 5.2.3: numbers only rise. The same list may come again. A list without a number
/// is taken (old CAs write none), but not in the place of one that had one.
fn check_number(number: Option<CrlNumber>, last: Option<CrlNumber>) -> Result<(), Refusal> {
    match (number, last) {
        (_, None) => Ok(()),
        (None, Some(last)) => Err(Refusal::Unnumbered { last }),
        (Some(number), Some(last)) if number < last => Err(Refusal::Older { number, last }),
        (Some(_), Some(_)) => Ok(()),
    }
}

fn parse<'a>(
    der: &'a CertificateDer<'_>,
    whose: &'static str,
) -> Result<X509Certificate<'a>, Refusal> {
    parse_certificate(der).map_err(|error| Refusal::Certificate {
        whose,
        reason: error.to_string(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// No bound is longer, so that adding it to a time of four-digit years cannot overflow.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
