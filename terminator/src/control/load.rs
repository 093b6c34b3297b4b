//! Files and names become a [`Table`]: certificates and keys are read and matched, backends resolved.
//!
//! Everything that is wrong is found in one go, with the file, the cause and the remedy, so that
//! `clinch check` and a refused reload say all of it at once. Nothing is published here, and no
//! responder is asked.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;

use super::fetch;
use super::files::{self, FileError};
use super::resolve::{self, Resolved};
use crate::certificate::{Identity, certificates_from_pem, is_issued, parse_certificate};
use crate::clock;
use crate::config::{self, Backend, CertificateFiles, Config, Listener, Ocsp, OnRevoked};
use crate::egress::{self, NamedBy};
use crate::snapshot::{BackendAddress, Certificate, CertificateIndex, Site, Table};
use crate::sys::ktls;
use crate::sys::privileges::Account;

/// A configuration whose files were read and found usable.
pub struct Loaded {
    /// What the workers serve from.
    pub table: Table,
    /// One for each certificate of the table, in its order.
    pub subjects: Vec<Subject>,
    /// For the egress process.
    pub egress: egress::Settings,
    /// What does not prevent serving but should be known, each a sentence.
    pub warnings: Vec<String>,
}

/// What control does about one certificate of the table.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The files it came from.
    pub files: CertificateFiles,
    /// Names of the sites that use it.
    pub sites: Vec<String>,
    /// Kind of revocation information it has.
    pub class: Class,
    /// Stapling as configured.
    pub ocsp: Ocsp,
    /// What `ocsp.trust` holds.
    pub trust: Arc<[CertificateDer<'static>]>,
    /// What is fetched: responders to ask in turn, or why nothing is.
    pub plan: Result<Vec<String>, Skip>,
    /// CRLs to watch, to be tried in turn: those of a certificate that has no responder.
    pub crls: Vec<String>,
}

impl Subject {
    /// The certificate that issued the leaf: from the certificate file, else from `ocsp.trust`.
    pub fn issuer<'a>(&'a self, identity: &'a Identity) -> Option<&'a CertificateDer<'static>> {
        let trusted = || issuer_among(&identity.chain[0], &self.trust);
        identity.issuer().or_else(trusted)
    }

    /// Who chose the responders.
    pub(super) fn named_by(&self) -> NamedBy {
        match self.ocsp.responder {
            Some(_) => NamedBy::Operator,
            None => NamedBy::Certificate,
        }
    }

    /// Why none of its responders or CRLs can be asked as things are configured, if so. What their names turn
    /// out to be is seen when they are asked.
    fn refused(&self, egress: &egress::Settings) -> Option<String> {
        let (what, urls, by) = match &self.plan {
            Ok(responders) => ("responder", responders, self.named_by()),
            Err(_) => ("CRL at", &self.crls, NamedBy::Certificate),
        };
        let mut first = None;
        for url in urls {
            if by == NamedBy::Operator && fetch::file_of(url).is_some() {
                return None;
            }
            let error = egress.policy.check(url, by).err()?;
            first.get_or_insert((url, error));
        }
        let (url, error) = first?;
        let cert = self.files.cert.display();
        Some(format!(
            "{cert}: its {what} {url} will not be asked: {error}"
        ))
    }

    /// Every file that it depends on.
    pub(super) fn all_files(&self) -> impl Iterator<Item = PathBuf> {
        let responses = self.ocsp.responder.iter();
        let responses = responses.filter_map(|url| fetch::file_of(url));
        [self.files.cert.clone(), self.files.key.clone()]
            .into_iter()
            .chain(self.ocsp.trust.clone())
            .chain(responses.collect::<Vec<_>>())
    }
}

/// Where a certificate's revocation state can be learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// An OCSP responder, its own or a configured one.
    Ocsp,
    /// Only a CRL.
    CrlOnly,
    /// Valid for ten days at most and without pointers: needs none.
    ShortLived,
    /// Nothing.
    None,
}

/// Why nothing is fetched for a certificate. No fault: most certificates of today are like that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Skip {
    /// `ocsp = false`.
    #[error("stapling is switched off for the site")]
    Disabled,
    /// It signs itself.
    #[error("it is self-signed, so nobody can revoke it")]
    SelfSigned,
    /// No URL in the certificate or the configuration.
    #[error("it names no OCSP responder")]
    NoResponder,
    /// Responses could not be verified.
    #[error(
        "its issuer is missing from the certificate file, and responses cannot be verified without"
    )]
    NoIssuer,
}

/// Everything that makes the files of a configuration unusable, all found in one go.
#[derive(Debug)]
pub struct LoadError {
    /// One sentence each, naming the file, the cause and the remedy.
    pub problems: Vec<String>,
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for LoadError {}

/// Reads all certificates and keys, resolves all backends, and builds the table of `epoch`.
/// `kept` is the table in force: certificates whose files hold what they held are taken from there, as
/// they were checked then, and so is a key that can no longer be read, its privileges gone. Blocks: files
/// and name resolution.
pub fn load(
    config: &Config,
    epoch: u64,
    kept: Option<&Table>,
    at: SystemTime,
) -> Result<Loaded, LoadError> {
    let user = config.user.as_deref().and_then(|u| Account::find(u).ok());
    let hosts = config.sites.iter().flat_map(|site| &site.backends);
    let hosts = resolve::resolve(hosts.filter_map(|backend| match backend {
        Backend::Tcp(host) => Some(host.as_str()),
        Backend::Unix(_) => None,
    }));
    let kept = kept.map_or(&[][..], |table| &table.certificates);
    let kept = kept.iter().map(|c| (&c.identity.chain[..], &c.identity));
    let mut loader = Loader {
        listeners: &config.listeners,
        sites: &config.sites,
        kept: kept.collect(),
        at,
        user,
        hosts,
        certificates: Vec::new(),
        subjects: Vec::new(),
        by_files: HashMap::new(),
        unusable: HashSet::new(),
        trusts: HashMap::new(),
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    let sites = config.sites.iter().map(|site| loader.site(site)).collect();
    let egress = egress::Settings::read(&config.egress);
    let egress = match egress {
        Ok(egress) if loader.problems.is_empty() => egress,
        egress => {
            let trust = egress.err().map(|error| error.to_string());
            let problems = loader.problems.into_iter().chain(trust).collect();
            return Err(LoadError { problems });
        }
    };
    let refused = loader.subjects.iter().filter_map(|s| s.refused(&egress));
    loader.warnings.extend(refused);
    let sealing = config.listeners.iter().any(|listener| listener.ktls);
    if let Some(lack) = sealing.then(ktls::offer).and_then(|o| o.lack.as_ref()) {
        loader.warnings.push(lack.to_string());
    }
    let listeners = config.listeners.clone();
    let mut table = Table::new(epoch, listeners, sites, loader.certificates);
    table.steering = config.steering.clone();
    Ok(Loaded {
        table,
        subjects: loader.subjects,
        egress,
        warnings: loader.warnings,
    })
}

/// True where a certificate for `pattern` is good for `name`; both lower case, `name` possibly a
/// wildcard itself. A wildcard stands for exactly one label (RFC 9525 section 6.3).
fn covers(pattern: &str, name: &str) -> bool {
    pattern == name
        || pattern.strip_prefix("*.").is_some_and(|parent| {
            name.split_once('.')
                .is_some_and(|(label, rest)| label != "*" && rest == parent)
        })
}

struct Loader<'a> {
    listeners: &'a [Listener],
    sites: &'a [config::Site],
    /// What is in force, by its chain.
    kept: HashMap<&'a [CertificateDer<'static>], &'a Arc<Identity>>,
    at: SystemTime,
    /// Who clinch becomes.
    user: Option<Account>,
    hosts: HashMap<String, Resolved>,
    certificates: Vec<Certificate>,
    subjects: Vec<Subject>,
    /// The certificates made from a pair of files; more than one only where sites differ in how
    /// they staple it.
    by_files: HashMap<&'a CertificateFiles, Vec<CertificateIndex>>,
    /// Pairs of files that were reported already.
    unusable: HashSet<&'a CertificateFiles>,
    /// What the files of `ocsp.trust` hold; nothing, where one was reported.
    trusts: HashMap<&'a Path, Arc<[CertificateDer<'static>]>>,
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl<'a> Loader<'a> {
    fn site(&mut self, site: &'a config::Site) -> (Site, Vec<usize>, Vec<String>) {
        let certificates: Vec<CertificateIndex> = site
            .certificates
            .iter()
            .filter_map(|files| self.certificate(site, files))
            .collect();
        if certificates.len() == site.certificates.len() {
            self.check_names(site, &certificates);
            self.check_fallback(site);
        }
        let built = Site {
            name: site.name.clone(),
            certificates,
            backends: self.backends(site),
            proxy_protocol: site.proxy_protocol,
            alpn: site.alpn.iter().map(|p| p.clone().into_bytes()).collect(),
            confinement: site.confinement.clone(),
        };
        (built, site.listeners.clone(), site.names.clone())
    }

    /// Says where `on_revoked = "fallback"` leads nowhere.
    fn check_fallback(&mut self, site: &config::Site) {
        let nowhere = |&&listener: &&usize| {
            let default = self.listeners[listener].default_site;
            default.is_none_or(|default| self.sites[default].name == site.name)
        };
        if site.ocsp.on_revoked == OnRevoked::Fallback
            && site.certificates.len() == 1
            && let Some(&listener) = site.listeners.iter().find(nowhere)
        {
            let listener = &self.listeners[listener].name;
            self.warnings.push(format!(
                "site {}: `ocsp.on_revoked = \"fallback\"` has nothing to fall back on at listener {listener}: give the site a second certificate, or the listener a `default_site` that is another one",
                site.name
            ));
        }
    }

    fn backends(&mut self, site: &config::Site) -> Vec<BackendAddress> {
        let mut addresses = Vec::new();
        for backend in &site.backends {
            match backend {
                Backend::Unix(path) => addresses.push(BackendAddress::Unix(path.clone())),
                Backend::Tcp(host) => match &self.hosts[host] {
                    Ok(found) => {
                        addresses.extend(found.iter().copied().map(BackendAddress::Tcp));
                    }
                    Err(reason) => self.problems.push(format!(
                        "site {}: backend {host} cannot be resolved: {reason}",
                        site.name
                    )),
                },
            }
        }
        addresses
    }

    fn certificate(
        &mut self,
        site: &'a config::Site,
        files: &'a CertificateFiles,
    ) -> Option<CertificateIndex> {
        if self.unusable.contains(files) {
            return None;
        }
        let made = self.by_files.get(files).map_or(&[][..], Vec::as_slice);
        let same = |&&index: &&CertificateIndex| self.subjects[index as usize].ocsp == site.ocsp;
        if let Some(&index) = made.iter().find(same) {
            self.subjects[index as usize].sites.push(site.name.clone());
            return Some(index);
        }
        let identity = match made.first() {
            Some(&index) => Arc::clone(&self.certificates[index as usize].identity),
            None => match self.identity(files) {
                Ok(identity) => {
                    self.check_validity(files, &identity);
                    identity
                }
                Err(problem) => {
                    self.unusable.insert(files);
                    self.problems.push(format!("site {}: {problem}", site.name));
                    return None;
                }
            },
        };
        let index = CertificateIndex::try_from(self.certificates.len()).expect("fewer than 2^32");
        self.enter(site, files, identity);
        self.by_files.entry(files).or_default().push(index);
        Some(index)
    }

    fn enter(&mut self, site: &'a config::Site, files: &CertificateFiles, identity: Arc<Identity>) {
        let trust = self.trust(site);
        let plan = plan(&identity, &site.ocsp, &trust);
        let must_staple = identity.leaf.must_staple;
        let cert = files.cert.display();
        match (&plan, site.ocsp.hard) {
            (Err(skip @ (Skip::NoIssuer | Skip::NoResponder | Skip::SelfSigned)), Some(true)) => {
                self.problems.push(format!(
                    "site {}: `ocsp.policy = \"hard\"` refuses every handshake with {cert}, because it can never be stapled: {skip}; complete the file, set `ocsp.responder`, or use `ocsp.policy` \"soft\"",
                    site.name
                ));
            }
            (Err(skip), _) if must_staple => self.warnings.push(format!(
                "{cert} is a Must-Staple certificate and cannot be stapled: {skip}"
            )),
            (Err(Skip::NoIssuer), _) => self.warnings.push(format!(
                "{cert} is not stapled: {}; append the certificate of {} to it",
                Skip::NoIssuer,
                identity.leaf.issuer
            )),
            _ => {}
        }
        // `ocsp = false` is the operator's word that the certificate is served as it is.
        let staple_required = site.ocsp.enabled && site.ocsp.hard.unwrap_or(must_staple);
        self.subjects.push(Subject {
            files: files.clone(),
            sites: vec![site.name.clone()],
            class: class(&identity, &site.ocsp),
            ocsp: site.ocsp.clone(),
            crls: crls(&identity, &plan, &trust),
            trust,
            plan,
        });
        self.certificates.push(Certificate {
            identity,
            staple_required,
            on_revoked: site.ocsp.on_revoked,
        });
    }

    /// What the site's `ocsp.trust` holds, read once however many sites name it.
    fn trust(&mut self, site: &'a config::Site) -> Arc<[CertificateDer<'static>]> {
        let Some(path) = &site.ocsp.trust else {
            return Arc::default();
        };
        if let Some(known) = self.trusts.get(path.as_path()) {
            return Arc::clone(known);
        }
        let read = files::read_chain(path)
            .map_err(|error| error.to_string())
            .and_then(|pem| {
                let parsed = certificates_from_pem(&pem);
                parsed.map_err(|error| format!("{}: {error}", path.display()))
            });
        let trust: Arc<[CertificateDer<'static>]> = match read {
            Ok(certificates) => certificates.into(),
            Err(problem) => {
                let site = &site.name;
                self.problems
                    .push(format!("site {site}: `ocsp.trust`: {problem}"));
                Arc::default()
            }
        };
        self.trusts.insert(path, Arc::clone(&trust));
        trust
    }

    fn identity(&mut self, files: &CertificateFiles) -> Result<Arc<Identity>, String> {
        let chain = files::read_chain(&files.cert).map_err(|error| error.to_string())?;
        let us = rustix::process::geteuid().as_raw();
        let mut owners = vec![us];
        owners.extend(self.user.as_ref().map(|user| user.uid));
        let kept = self.kept_identity(&chain);
        match files::read_key(&files.key, &owners) {
            Ok(key) => match kept {
                Some(kept) if kept.has_key(&key) => Ok(kept),
                _ => Identity::from_pem(&chain, &key)
                    .map(Arc::new)
                    .map_err(|error| {
                        format!(
                            "{} with key {}: {error}",
                            files.cert.display(),
                            files.key.display()
                        )
                    }),
            },
            Err(error @ FileError::NotReadable { .. }) => {
                let kept = kept.ok_or_else(|| error.to_string())?;
                self.warnings.push(format!(
                    "{error}; its certificate did not change, so the key in memory stays in use"
                ));
                Ok(kept)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// The identity in force whose chain is exactly this one.
    fn kept_identity(&self, pem: &[u8]) -> Option<Arc<Identity>> {
        if self.kept.is_empty() {
            return None;
        }
        let chain = certificates_from_pem(pem).ok()?;
        self.kept.get(&chain[..]).copied().cloned()
    }

    fn check_validity(&mut self, files: &CertificateFiles, identity: &Identity) {
        let leaf = &identity.leaf;
        let cert = files.cert.display();
        if leaf.not_after <= self.at {
            let ended = clock::rfc3339(leaf.not_after);
            self.warnings.push(format!(
                "{cert} expired on {ended}: clients will refuse it; renew it and reload"
            ));
        } else if leaf.not_before > self.at {
            let begins = clock::rfc3339(leaf.not_before);
            self.warnings.push(format!(
                "{cert} is not valid before {begins}: clients will refuse it until then; check the clock of this machine"
            ));
        }
        if identity.issuer().is_none() && !leaf.self_signed && leaf.ocsp_urls.is_empty() {
            self.warnings.push(format!(
                "{cert} holds no certificate but the leaf: many clients cannot build its chain; append the certificate of {}",
                leaf.issuer
            ));
        }
    }

    fn check_names(&mut self, site: &config::Site, certificates: &[CertificateIndex]) {
        for name in &site.names {
            let covered = certificates.iter().any(|&index| {
                let leaf = &self.certificates[index as usize].identity.leaf;
                leaf.names.iter().any(|pattern| covers(pattern, name))
            });
            if !covered {
                self.warnings.push(format!(
                    "site {}: no certificate of the site is for {name}; clients that ask for it will refuse the connection",
                    site.name
                ));
            }
        }
    }
}

/// The certificate that issued a leaf, if it is there.
fn issuer_among<'a>(
    leaf: &CertificateDer<'_>,
    candidates: &'a [CertificateDer<'static>],
) -> Option<&'a CertificateDer<'static>> {
    let parsed = parse_certificate(leaf).ok()?;
    candidates.iter().find(|candidate| {
        parse_certificate(candidate).is_ok_and(|issuer| is_issued(leaf, &parsed, &issuer))
    })
}

fn plan(
    identity: &Identity,
    ocsp: &Ocsp,
    trust: &[CertificateDer<'static>],
) -> Result<Vec<String>, Skip> {
    if !ocsp.enabled {
        return Err(Skip::Disabled);
    }
    if identity.leaf.self_signed {
        return Err(Skip::SelfSigned);
    }
    let responders = match &ocsp.responder {
        Some(responder) => vec![responder.clone()],
        None => identity.leaf.ocsp_urls.clone(),
    };
    if responders.is_empty() {
        return Err(Skip::NoResponder);
    }
    if identity.issuer().is_none() && issuer_among(&identity.chain[0], trust).is_none() {
        return Err(Skip::NoIssuer);
    }
    Ok(responders)
}

/// A list can be verified only with the issuer at hand.
fn crls(
    identity: &Identity,
    plan: &Result<Vec<String>, Skip>,
    trust: &[CertificateDer<'static>],
) -> Vec<String> {
    let issued =
        || identity.issuer().is_some() || issuer_among(&identity.chain[0], trust).is_some();
    match plan {
        Err(Skip::NoResponder) if !identity.leaf.crl_urls.is_empty() && issued() => {
            identity.leaf.crl_urls.clone()
        }
        _ => Vec::new(),
    }
}

fn class(identity: &Identity, ocsp: &Ocsp) -> Class {
    let leaf = &identity.leaf;
    let validity = leaf.not_after.duration_since(leaf.not_before);
    if ocsp.responder.is_some() || !leaf.ocsp_urls.is_empty() {
        Class::Ocsp
    } else if !leaf.crl_urls.is_empty() {
        Class::CrlOnly
    } else if validity.is_ok_and(|validity| validity <= SHORT_LIVED) {
        Class::ShortLived
    } else {
        Class::None
    }
}

/// A certificate valid no longer than this needs no revocation pointer (CA/Browser Forum Baseline
/// Requirements section 4.9, certificates issued before 2026-03-15; seven days after).
const SHORT_LIVED: Duration = Duration::from_secs(10 * 86400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_exactly_one_label() {
        assert!(covers("a.example", "a.example"));
        assert!(covers("*.example", "a.example"));
        assert!(covers("*.example", "*.example"));
        assert!(!covers("*.example", "a.b.example"));
        assert!(!covers("*.example", "example"));
        assert!(!covers("a.example", "*.example"));
        assert!(!covers("*.b.example", "*.example"));
        assert!(!covers("*.example", "*.b.example"));
    }
}
