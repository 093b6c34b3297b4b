//! From the raw tables to the valid types: what the values mean, and whether they fit together.
//! Finds all problems rather than the first.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::document::{Document, Path};
use super::forms::{OcspSwitch, PathOrOff, PortOrRange};
use super::problem::{Fault, Problem, Unusable, nearest};
use super::raw::{
    EgressTable, File, FirewallTable, LimitsTable, ListenTable, LogFormat, Misplaced, OcspTable,
    SiteTable, SteeringTable, TimeoutsTable, UnknownSni,
};
use super::{
    Admin, AdminAddress, Backend, CertificateFiles, Cipher, Config, Confinement, Egress, Firewall,
    Group, Listener, Log, Ocsp, PortRange, Proxy, Resolver, Site, Steering, TlsVersion,
};
use super::{names, values};
use crate::limits::{Limits, Timeouts, Turns};

/// Makes the configuration, or says everything that is wrong with it.
pub(super) fn build(document: &Document<'_>, file: File) -> Result<Config, Vec<Problem>> {
    let mut builder = Builder {
        document,
        problems: Vec::new(),
    };
    let config = builder.config(file);
    if builder.problems.is_empty() {
        Ok(config)
    } else {
        Err(builder.problems)
    }
}

struct Builder<'d, 't> {
    document: &'d Document<'t>,
    problems: Vec<Problem>,
}

impl Builder<'_, '_> {
    fn config(&mut self, file: File) -> Config {
        let top = Path::default();
        let mut tables: Vec<(String, ListenTable)> = file.listen.into_iter().collect();
        tables.sort_by_key(|(name, _)| self.document.line(&top.key("listen").key(name)));
        let sites = self.sites(file.site, &tables, &file.ocsp);
        let listeners = self.listeners(tables, &sites);
        self.names_once(&sites, &listeners);
        let own_user = file.egress.user.is_some() && file.egress.user != file.user;
        let at = top.key("firewall");
        let firewall = file
            .firewall
            .map(|table| self.firewall(&at, table, own_user));
        Config {
            user: self.user(&top.key("user"), file.user),
            workers: file.workers,
            cache: self.directory(&top.key("cache_dir"), file.cache_dir),
            limits: limits(&file.limits),
            timeouts: timeouts(&file.timeouts),
            listeners,
            sites,
            admin: self.admin(&top.key("admin").key("listen"), file.admin.listen),
            log: Log {
                json: file.log.format == LogFormat::Json,
                level: self.checked(&top.key("log").key("level"), file.log.level, |level| {
                    values::log_level(level)
                }),
            },
            egress: self.egress(&top.key("egress"), file.egress),
            firewall,
            steering: file.steering.as_ref().map(steering).unwrap_or_default(),
        }
    }

    fn report(&mut self, path: &Path, fault: Fault) {
        self.problems.push(self.document.problem(path, fault));
    }

    /// Reports a value that `read` does not take.
    fn usable<T>(
        &mut self,
        path: &Path,
        text: &str,
        read: impl FnOnce(&str) -> Result<T, Unusable>,
    ) -> Option<T> {
        read(text)
            .map_err(|why| {
                let value = text.to_owned();
                self.report(path, Fault::Unusable { value, why });
            })
            .ok()
    }

    /// Passes a text on as it is, reporting it where `check` refuses it.
    fn checked(
        &mut self,
        path: &Path,
        text: String,
        check: impl FnOnce(&str) -> Result<(), Unusable>,
    ) -> String {
        self.usable(path, &text, check);
        text
    }

    /// Reads a list whose entries may stand only once.
    fn list<T: PartialEq>(
        &mut self,
        path: &Path,
        what: &'static str,
        texts: &[String],
        read: impl Fn(&str) -> Result<T, Unusable>,
    ) -> Vec<T> {
        let mut values: Vec<T> = Vec::with_capacity(texts.len());
        let mut lines = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let here = path.index(index);
            let Some(value) = self.usable(&here, text, &read) else {
                continue;
            };
            match values.iter().position(|known| *known == value) {
                Some(first) => {
                    self.report(&here, duplicate(what, text, lines[first], "remove one"))
                }
                None => {
                    values.push(value);
                    lines.push(self.document.line(&here));
                }
            }
        }
        values
    }

    fn user(&mut self, path: &Path, user: Option<String>) -> Option<String> {
        user.map(|user| self.checked(path, user, values::user))
    }

    fn directory(&mut self, path: &Path, directory: PathOrOff) -> Option<PathBuf> {
        match directory {
            PathOrOff::Off => None,
            PathOrOff::Text(text) => self.usable(path, &text, values::absolute),
        }
    }

    fn admin(&mut self, path: &Path, listen: PathOrOff) -> Admin {
        let listen: Option<AdminAddress> = match listen {
            PathOrOff::Off => None,
            PathOrOff::Text(text) => self.usable(path, &text, values::admin_address),
        };
        Admin { listen }
    }

    fn egress(&mut self, path: &Path, table: EgressTable) -> Egress {
        let at = |key| path.key(key);
        let allow = self.list(&at("allow"), "network", &table.allow, values::network);
        let mut ports = Vec::with_capacity(table.ports.len());
        for (index, port) in table.ports.iter().enumerate() {
            ports.extend(match port {
                &PortOrRange::Port(port) => Some(PortRange {
                    first: port,
                    last: port,
                }),
                PortOrRange::Range(text) => {
                    self.usable(&at("ports").index(index), text, values::port_range)
                }
            });
        }
        let trust = table.trust.as_deref();
        let proxy = table.proxy.as_deref();
        let proxy = proxy.and_then(|text| self.usable(&at("proxy"), text, values::proxy));
        let servers = self.list(
            &at("resolvers"),
            "server",
            &table.resolvers,
            values::resolver,
        );
        let (ttl_min, ttl_max) = (table.ttl_min.0, table.ttl_max.0);
        if ttl_min > ttl_max {
            self.report(&at("ttl_min"), Fault::TtlOrder { longest: ttl_max });
        }
        Egress {
            user: self.user(&at("user"), table.user),
            allow,
            ports,
            https: table.https,
            trust: trust.and_then(|text| self.usable(&at("trust"), text, values::absolute)),
            proxy: proxy.map(|proxy| Proxy {
                tunnel: table.proxy_tunnel,
                ..proxy
            }),
            resolver: (!servers.is_empty()).then_some(Resolver {
                servers,
                timeout: table.resolver_timeout.0,
                ttl_min,
                ttl_max,
            }),
            turns: Turns {
                concurrency: table.concurrency,
                burst: table.burst,
                pace: table.pace.0,
            },
        }
    }

    fn firewall(&mut self, path: &Path, table: FirewallTable, own_user: bool) -> Firewall {
        if !own_user {
            self.report(path, Fault::NobodyToPin);
        }
        let socket = match table.socket {
            PathOrOff::Off => None,
            PathOrOff::Text(text) => self.usable(&path.key("socket"), &text, values::socket_path),
        };
        let prefixes = path.key("prefixes");
        Firewall {
            format: table.format,
            socket,
            prefixes: self.list(&prefixes, "network", &table.prefixes, values::network),
            hold: table.hold.0,
        }
    }

    fn listeners(&mut self, tables: Vec<(String, ListenTable)>, sites: &[Site]) -> Vec<Listener> {
        let top = Path::default();
        if tables.is_empty() {
            self.report(&top, Fault::NoListener);
        }
        let mut taken: HashMap<SocketAddr, usize> = HashMap::new();
        let mut listeners = Vec::with_capacity(tables.len());
        for (index, (name, table)) in tables.into_iter().enumerate() {
            let path = top.key("listen").key(&name);
            self.usable(&path, &name, values::listener_name);
            let addresses = self.addresses(&path.key("address"), &table.address.0, &mut taken);
            let (ciphers, groups) = self.policy(&path, &table);
            let default_site = table.default_site.as_deref();
            listeners.push(Listener {
                name,
                addresses,
                min_version: table.min_version,
                ciphers,
                groups,
                tickets: table.tickets,
                proxy_from: self.list(
                    &path.key("proxy_protocol_from"),
                    "network",
                    &table.proxy_protocol_from,
                    values::network,
                ),
                default_site: default_site.and_then(|site| {
                    self.default_site(&path.key("default_site"), site, index, sites)
                }),
                ktls: table.ktls,
                backlog: table.backlog,
            });
        }
        listeners
    }

    fn addresses(
        &mut self,
        path: &Path,
        texts: &[String],
        taken: &mut HashMap<SocketAddr, usize>,
    ) -> Vec<SocketAddr> {
        let mut addresses = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let here = path.index(index);
            let Some(address) = self.usable(&here, text, values::address) else {
                continue;
            };
            let line = self.document.line(&here);
            if let Some(&first) = taken.get(&address) {
                self.report(
                    &here,
                    duplicate("address", text, first, "listen on it once"),
                );
            }
            taken.entry(address).or_insert(line);
            addresses.push(address);
        }
        addresses
    }

    /// Cipher suites and groups, which must leave something for the oldest version.
    fn policy(&mut self, path: &Path, table: &ListenTable) -> (Vec<Cipher>, Vec<Group>) {
        let oldest = table.min_version;
        let ciphers = table
            .ciphers
            .clone()
            .unwrap_or_else(|| Cipher::ALL.to_vec());
        let groups = table.groups.clone().unwrap_or_else(|| Group::ALL.to_vec());
        if oldest == TlsVersion::Tls13 && !ciphers.iter().any(|cipher| cipher.is_tls13()) {
            self.report(&path.key("ciphers"), Fault::NoTls13Cipher);
        }
        if oldest == TlsVersion::Tls12 && groups.iter().all(|group| *group == Group::X25519Mlkem768)
        {
            self.report(&path.key("groups"), Fault::NoTls12Group);
        }
        self.once(&path.key("ciphers"), "cipher suite", &ciphers, |cipher| {
            format!("{cipher:?}")
        });
        self.once(&path.key("groups"), "group", &groups, |group| {
            format!("{group:?}")
        });
        (ciphers, groups)
    }

    fn once<T: PartialEq>(
        &mut self,
        path: &Path,
        what: &'static str,
        values: &[T],
        word: impl Fn(&T) -> String,
    ) {
        for (index, value) in values.iter().enumerate() {
            if let Some(first) = values[..index].iter().position(|known| known == value) {
                let line = self.document.line(&path.index(first));
                self.report(
                    &path.index(index),
                    duplicate(what, &word(value), line, "remove one"),
                );
            }
        }
    }

    fn default_site(
        &mut self,
        path: &Path,
        text: &str,
        listener: usize,
        sites: &[Site],
    ) -> Option<usize> {
        let name = self.usable(path, text, names::site_name)?;
        let has_name = |site: &&Site| site.names.contains(&name);
        let here = |site: &&Site| site.listeners.contains(&listener);
        if let Some(found) = sites.iter().position(|site| has_name(&site) && here(&site)) {
            return Some(found);
        }
        let fault = if sites.iter().any(|site| has_name(&site)) {
            Fault::DefaultSiteElsewhere(name)
        } else {
            let known: Vec<String> = sites.iter().flat_map(|site| site.names.clone()).collect();
            no_such("site", text, known)
        };
        self.report(path, fault);
        None
    }

    fn sites(
        &mut self,
        tables: Vec<SiteTable>,
        listen: &[(String, ListenTable)],
        ocsp: &OcspTable,
    ) -> Vec<Site> {
        if tables.is_empty() {
            self.report(&Path::default(), Fault::NoSite);
        }
        self.ocsp_values(&Path::default().key("ocsp"), ocsp);
        let known: Vec<String> = listen.iter().map(|(name, _)| name.clone()).collect();
        let path = Path::default().key("site");
        tables
            .into_iter()
            .enumerate()
            .map(|(index, table)| self.site(&path.index(index), table, &known, ocsp))
            .collect()
    }

    fn site(
        &mut self,
        path: &Path,
        table: SiteTable,
        listeners: &[String],
        ocsp: &OcspTable,
    ) -> Site {
        let site_names = self.list(&path.key("names"), "name", &table.names.0, names::site_name);
        let backends: Vec<Backend> = self.list(
            &path.key("backend"),
            "backend",
            &table.backend.0,
            values::backend,
        );
        let alpn_path = path.key("alpn");
        let alpn = self.list(&alpn_path, "protocol", &table.alpn, |text| {
            values::alpn(text)
        });
        Site {
            name: site_names.first().cloned().unwrap_or_default(),
            names: site_names,
            listeners: self.on(&path.key("listen"), table.listen.as_deref(), listeners),
            certificates: self.certificates(path, &table),
            backends,
            proxy_protocol: table.proxy_protocol,
            alpn,
            ocsp: self.ocsp(&path.key("ocsp"), &table.ocsp, ocsp),
            confinement: Confinement {
                workers: table.cores.unwrap_or_default(),
                share: table.core_share,
            },
        }
    }

    /// Indices of the listeners that serve a site.
    fn on(&mut self, path: &Path, wanted: Option<&[String]>, known: &[String]) -> Vec<usize> {
        let Some(wanted) = wanted else {
            return (0..known.len()).collect();
        };
        let mut indices = Vec::with_capacity(wanted.len());
        for (position, name) in wanted.iter().enumerate() {
            match known.iter().position(|listener| listener == name) {
                Some(index) => indices.push(index),
                None => self.report(
                    &path.index(position),
                    no_such("listener", name, known.to_vec()),
                ),
            }
        }
        self.once(path, "listener", wanted, String::clone);
        indices
    }

    fn certificates(&mut self, path: &Path, table: &SiteTable) -> Vec<CertificateFiles> {
        let half = |present, missing| Fault::HalfCertificate { present, missing };
        let pairs: Vec<(Path, &str, &str)> =
            match (&table.cert, &table.key, table.certificates.as_slice()) {
                (None, None, []) => {
                    self.report(path, Fault::NoCertificate);
                    return Vec::new();
                }
                (Some(cert), Some(key), []) => vec![(path.clone(), cert, key)],
                (None, None, list) => {
                    let at = |index| path.key("certificates").index(index);
                    let list = list.iter().enumerate();
                    list.map(|(index, pair)| (at(index), pair.cert.as_str(), pair.key.as_str()))
                        .collect()
                }
                (Some(_), None, []) => {
                    self.report(&path.key("cert"), half("cert", "key"));
                    return Vec::new();
                }
                (None, Some(_), []) => {
                    self.report(&path.key("key"), half("key", "cert"));
                    return Vec::new();
                }
                (_, _, [_, ..]) => {
                    self.report(&path.key("certificates"), Fault::CertificateTwice);
                    return Vec::new();
                }
            };
        let mut files: Vec<CertificateFiles> = Vec::with_capacity(pairs.len());
        let mut lines = Vec::with_capacity(pairs.len());
        for (here, cert, key) in pairs {
            let cert = self.usable(&here.key("cert"), cert, values::absolute);
            let key = self.usable(&here.key("key"), key, values::absolute);
            let (Some(cert), Some(key)) = (cert, key) else {
                continue;
            };
            if let Some(first) = files.iter().position(|known| known.cert == cert) {
                let fault = duplicate(
                    "certificate",
                    &cert.to_string_lossy(),
                    lines[first],
                    "remove one",
                );
                self.report(&here.key("cert"), fault);
            }
            lines.push(self.document.line(&here.key("cert")));
            files.push(CertificateFiles { cert, key });
        }
        files
    }

    fn ocsp(&mut self, path: &Path, switch: &OcspSwitch, all: &OcspTable) -> Ocsp {
        let nothing = OcspTable::default();
        let (own, switched_off) = match switch {
            OcspSwitch::Switch(on) => (&nothing, !on),
            OcspSwitch::Table(table) => (table, false),
        };
        self.ocsp_values(path, own);
        Ocsp::of(own, all, switched_off)
    }

    fn ocsp_values(&mut self, path: &Path, table: &OcspTable) {
        if let Some(url) = &table.responder {
            self.usable(&path.key("responder"), url, values::responder);
        }
        if let Some(file) = &table.trust {
            self.usable(&path.key("trust"), file, values::absolute);
        }
    }

    /// On one listener a name leads to one site.
    fn names_once(&mut self, sites: &[Site], listeners: &[Listener]) {
        let mut owners: HashMap<(usize, &str), usize> = HashMap::new();
        let top = Path::default();
        for (index, site) in sites.iter().enumerate() {
            let path = top.key("site").index(index).key("names");
            for (position, name) in site.names.iter().enumerate() {
                let here = path.index(position);
                let line = self.document.line(&here);
                let mut first = None;
                for &listener in &site.listeners {
                    debug_assert!(listener < listeners.len());
                    first = first.or(owners.get(&(listener, name.as_str())).copied());
                    owners.entry((listener, name)).or_insert(line);
                }
                if let Some(first) = first {
                    let remedy = "one listener serves a name from one site, so remove one of them";
                    self.report(&here, duplicate("name", name, first, remedy));
                }
            }
        }
    }
}

fn duplicate(what: &'static str, value: &str, first: usize, remedy: &'static str) -> Fault {
    let value = value.to_owned();
    Fault::Duplicate {
        what,
        value,
        first,
        remedy,
    }
}

fn no_such(what: &'static str, value: &str, known: Vec<String>) -> Fault {
    Fault::NoSuch {
        what,
        value: value.to_owned(),
        nearest: nearest(value, &known),
        known,
    }
}

fn limits(table: &LimitsTable) -> Limits {
    Limits {
        connections_per_worker: table.connections_per_worker,
        connections_per_client: table.connections_per_client,
        handshake_bytes: table.handshake_bytes,
        read_buffer: table.read_buffer,
        ready_certificates_per_core: table.ready_certificates_per_core,
    }
}

fn steering(table: &SteeringTable) -> Steering {
    Steering {
        mode: table.mode,
        refuse_unknown: table.unknown_sni == UnknownSni::RefuseEarly,
        serve_misplaced: table.misplaced == Misplaced::Serve,
        prepared: true,
    }
}

fn timeouts(table: &TimeoutsTable) -> Timeouts {
    Timeouts {
        handshake: table.handshake.0,
        connect: table.connect.0,
        idle: table.idle.0,
        drain: table.drain.0,
        linger: table.linger.0,
        startup_wait: table.startup_wait.0,
    }
}
