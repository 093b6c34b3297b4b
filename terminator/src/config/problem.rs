//! What can be wrong with a configuration, in words for the operator: where, what, and what to do.

use std::fmt;

/// A configuration that cannot be used: everything that is wrong with it, in file order. Holds at
/// least one problem.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Line in the file, from 1.
    pub line: usize,
    /// Path of the key, e.g. `site[0].backend`; empty for the file as a whole.
    pub key: String,
    /// What is wrong there.
    pub fault: Fault,
}

/// What is wrong with one key or value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    /// The file is not TOML.
    #[error("this is not TOML: {0}")]
    Syntax(String),
    /// TOML of a shape that the schema takes and the reader does not: a mistake of ours.
    #[error("cannot be read: {0}; please report this, the schema should have caught it")]
    Unreadable(String),
    /// A key that clinch does not have.
    #[error("unknown key `{key}` in {table}{}", nearest_or_known(.nearest.as_deref(), .known))]
    UnknownKey {
        /// The key.
        key: String,
        /// Where it stands, e.g. `[listen.public]`.
        table: String,
        /// The known key that looks most like it.
        nearest: Option<String>,
        /// All keys of that table.
        known: Vec<String>,
    },
    /// A key that must be there.
    #[error("{table} lacks `{key}`")]
    MissingKey {
        /// The key.
        key: String,
        /// Where it should stand.
        table: String,
    },
    /// A value of the wrong type.
    #[error("is {found}, but must be {expected}")]
    WrongType {
        /// What stands there.
        found: &'static str,
        /// What may stand there.
        expected: String,
    },
    /// A word that is not one of those accepted.
    #[error("`{value}` is not accepted{}", few_or_nearest(.nearest.as_deref(), .accepted))]
    NotAccepted {
        /// The value.
        value: String,
        /// The accepted value that looks most like it.
        nearest: Option<String>,
        /// All accepted values.
        accepted: Vec<String>,
    },
    /// A number, duration or length outside its range.
    #[error("{value} is out of range; write {range}")]
    OutOfRange {
        /// The value.
        value: String,
        /// The accepted range.
        range: String,
    },
    /// Not a duration.
    #[error(
        "`{0}` is not a duration; write a number with a unit, e.g. \"5s\", \"300ms\" or \"2h 30m\""
    )]
    NotADuration(String),
    /// A value that may stand only once.
    #[error("{what} `{value}` is there already, in line {first}; {remedy}")]
    Duplicate {
        /// Kind of value.
        what: &'static str,
        /// The value.
        value: String,
        /// Line of the first one.
        first: usize,
        /// What to do.
        remedy: &'static str,
    },
    /// A reference to something that the file does not define.
    #[error("there is no {what} `{value}`{}", nearest_or_known(.nearest.as_deref(), .known))]
    NoSuch {
        /// Kind of thing.
        what: &'static str,
        /// Name used.
        value: String,
        /// The defined name that looks most like it.
        nearest: Option<String>,
        /// All defined names.
        known: Vec<String>,
    },
    /// The default site of a listener that does not serve it.
    #[error("site `{0}` is not served on this listener; add the listener to the site's `listen`")]
    DefaultSiteElsewhere(String),
    /// A value that does not mean what its key needs.
    #[error("`{value}` {why}")]
    Unusable {
        /// The value.
        value: String,
        /// What is wrong with it and what to write instead.
        why: Unusable,
    },
    /// Nothing to listen on.
    #[error(
        "nothing to listen on; add a table such as [listen.public] with address = [\"0.0.0.0:443\", \"[::]:443\"]"
    )]
    NoListener,
    /// Nothing to serve.
    #[error("nothing to serve; add a [[site]] table with names, cert, key and backend")]
    NoSite,
    /// A site without a certificate.
    #[error("the site has no certificate; add `cert` and `key`, or `certificates`")]
    NoCertificate,
    /// A certificate without a key, or the other way round.
    #[error("`{present}` is there but `{missing}` is not; a certificate needs both")]
    HalfCertificate {
        /// The key that is there.
        present: &'static str,
        /// The key that is missing.
        missing: &'static str,
    },
    /// Both forms of naming certificates.
    #[error("`cert` and `certificates` exclude each other; move the pair into `certificates`")]
    CertificateTwice,
    /// `min_version = "1.3"` with cipher suites of TLS 1.2 only.
    #[error(
        "none of these cipher suites belongs to TLS 1.3, but min_version is \"1.3\"; add TLS13_AES_128_GCM_SHA256"
    )]
    NoTls13Cipher,
    /// Rules for a user that is not told apart.
    #[error(
        "has rules for the user of the egress process, which has none of its own; set `egress.user` to a user that runs nothing else"
    )]
    NobodyToPin,
    /// Bounds that leave nothing in between.
    #[error("is more than `ttl_max`, which is {longest:?}; make it shorter, or `ttl_max` longer")]
    TtlOrder {
        /// `egress.ttl_max`.
        longest: std::time::Duration,
    },
    /// `min_version = "1.2"` with only groups that belong to TLS 1.3.
    #[error(
        "no group here can be used by TLS 1.2, but min_version is \"1.2\"; add X25519, or set min_version = \"1.3\""
    )]
    NoTls12Group,
}

/// Why a value does not mean what its key needs, and what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Socket address.
    #[error("is not an address with a port; write \"0.0.0.0:443\" or \"[::]:443\"")]
    Address,
    /// Socket address with port 0.
    #[error("has port 0, which would give each worker a port of its own; choose a port")]
    PortZero,
    /// Not a network.
    #[error("is not a network; write e.g. \"10.0.0.0/8\" or \"2001:db8::/32\"")]
    Network,
    /// A name that is not a DNS name.
    #[error("is not a DNS name; write e.g. \"example.com\" or \"*.example.com\"")]
    DnsName,
    /// A wildcard elsewhere than as the whole first label.
    #[error(
        "has a wildcard that is not the whole first label; only \"*.example.com\" is possible (RFC 9525 section 6.3)"
    )]
    Wildcard,
    /// An address as a name.
    #[error(
        "is an address, and clients cannot ask for addresses by server name (RFC 6066 section 3); use the listener's default_site"
    )]
    AddressAsName,
    /// A path that depends on the working directory.
    #[error(
        "is not an absolute path; a service has no useful working directory, so write the path from \"/\" on"
    )]
    RelativePath,
    /// A unix socket path that the kernel cannot take.
    #[error("is too long for a unix socket, whose path has at most 107 bytes")]
    LongSocketPath,
    /// A backend without a port.
    #[error("has no port; write \"host:port\" or \"unix:/path\"")]
    BackendPort,
    /// A backend written as a URL.
    #[error("is a URL, but bytes are passed on as they are; write \"host:port\" or \"unix:/path\"")]
    BackendUrl,
    /// A bare IPv6 address with a port.
    #[error("has an IPv6 address without brackets; write \"[address]:port\"")]
    BareIpv6,
    /// A backend host that is neither name nor address.
    #[error("has no valid host; write \"host:port\" or \"unix:/path\"")]
    BackendHost,
    /// An ALPN protocol of a wrong length.
    #[error(
        "is not an ALPN protocol name, which has 1 to 255 bytes (RFC 7301); write e.g. \"h2\" or \"http/1.1\""
    )]
    Alpn,
    /// Not an http or https URL, nor that of a file.
    #[error(
        "is not the URL of a responder; write \"http://host/path\", or \"file:///path\" for a response in a file"
    )]
    ResponderUrl,
    /// Neither a port nor a range.
    #[error("is no range of ports; write a port such as 8080, or \"8080-8090\"")]
    Ports,
    /// Not a DNS server.
    #[error("is not the address of a DNS server; write \"192.0.2.53\" or \"192.0.2.53:5353\"")]
    Resolver,
    /// Not a proxy.
    #[error(
        "is not an HTTP proxy; write \"http://HOST:PORT\" or \"http://USER:PASSWORD@HOST:PORT\""
    )]
    Proxy,
    /// An admin address that others can reach.
    #[error(
        "is not a loopback address, and the admin interface has no password; write \"127.0.0.1:PORT\" or \"unix:/path\""
    )]
    AdminNotLoopback,
    /// Not an admin address at all.
    #[error("is no place to listen on; write \"unix:/path\", \"127.0.0.1:PORT\" or false")]
    AdminAddress,
    /// Not a log level.
    #[error(
        "is not a log level; write error, warn, info, debug or trace, or by module: \"info,clinch::data=debug\""
    )]
    LogLevel,
    /// Not a user.
    #[error("is not a user; write \"name\" or \"name:group\"")]
    User,
    /// A listener name that does not fit into metrics and logs.
    #[error("cannot name a listener; use 1 to 32 letters, digits, \"-\" and \"_\"")]
    ListenerName,
}

impl ConfigError {
    /// Puts problems in file order. The list must not be empty.
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        debug_assert!(!problems.is_empty());
        problems.sort_by_key(|problem| problem.line);
        Self { problems }
    }

    /// Everything that is wrong, in file order; at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    /// One line for each problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if !self.fault.names_its_place() && !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        self.fault.fmt(f)
    }
}

impl Fault {
    /// Whether the sentence says by itself which key it is about.
    fn names_its_place(&self) -> bool {
        matches!(self, Self::UnknownKey { .. } | Self::MissingKey { .. })
    }
}

/// The candidate that looks most like `word`, if any looks like it at all.
pub(super) fn nearest(word: &str, candidates: &[String]) -> Option<String> {
    let word = word.to_lowercase();
    candidates
        .iter()
        .map(|known| (strsim::jaro_winkler(&word, &known.to_lowercase()), known))
        .filter(|(likeness, _)| *likeness > LIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known.clone())
}

/// Jaro-Winkler likeness from which on a word is offered as what was probably meant.
const LIKE: f64 = 0.75;

/// A short list is shown whole, whatever looks like the word.
fn few_or_nearest(nearest: Option<&str>, accepted: &[String]) -> String {
    if accepted.len() <= 4 {
        return format!("; write one of {}", accepted.join(", "));
    }
    nearest_or_known(nearest, accepted)
}

fn nearest_or_known(nearest: Option<&str>, known: &[String]) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean `{nearest}`?"),
        None if known.is_empty() => String::new(),
        None => format!("; known are {}", known.join(", ")),
    }
}
