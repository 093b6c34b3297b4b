//! Names become addresses: by the system, as for every program, or by DNS servers that the operator
//! named. The answers are bounded here and judged by the caller.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData};
use tokio::time::timeout;

use crate::config;
use crate::limits::{EGRESS_FOUND, EGRESS_NAMES};

/// Looks up names.
pub enum Resolver {
    /// getaddrinfo(3), on a thread.
    System,
    /// DNS servers of our own choice.
    Own(Servers),
}

/// DNS servers, each by itself: the library gives all that are asked for one name the time of one,
/// and takes a failure of the first for the answer.
pub struct Servers {
    all: Vec<TokioResolver>,
    /// The one that answered last, which is asked first.
    first: AtomicUsize,
}

/// Why a server did not give an address.
struct Failure {
    reason: String,
    /// It says that there is none, so that no other server need be asked.
    definite: bool,
}

/// What a name was found to be.
#[derive(Debug)]
pub struct Found {
    /// In order of preference, at most [`EGRESS_FOUND`]; may be empty.
    pub addresses: Vec<IpAddr>,
    /// For how long; `None` where the system does not say.
    pub ttl: Option<Duration>,
}

impl Resolver {
    /// As the configuration has it. Fails where the library cannot be set up.
    pub fn new(settings: Option<&config::Resolver>) -> Result<Self, String> {
        let Some(settings) = settings else {
            return Ok(Self::System);
        };
        let all = settings.servers.iter().map(|at| server(*at, settings));
        Ok(Self::Own(Servers {
            all: all.collect::<Result<_, _>>()?,
            first: AtomicUsize::new(0),
        }))
    }

    /// Looks a name up. The error is a reason in words; how long it may take is the caller's to bound.
    pub async fn look_up(&self, host: &str) -> Result<Found, String> {
        match self {
            Self::System => system(host).await,
            Self::Own(servers) => servers.look_up(host).await,
        }
    }
}

impl Servers {
    /// Asks one after the other until one knows. Whoever bounds the whole lookup bounds how many are.
    async fn look_up(&self, host: &str) -> Result<Found, String> {
        let mut name = Name::from_ascii(host).map_err(|error| error.to_string())?;
        // The name in a certificate is whole: no search domain is tried.
        name.set_fqdn(true);
        let begin = self.first.load(Ordering::Relaxed);
        let mut reason = String::new();
        for index in (0..self.all.len()).map(|offset| (begin + offset) % self.all.len()) {
            match ask(&self.all[index], &name).await {
                Ok(found) => {
                    self.first.store(index, Ordering::Relaxed);
                    return Ok(found);
                }
                Err(failure) if failure.definite => return Err(failure.reason),
                Err(failure) => reason = failure.reason,
            }
        }
        Err(reason)
    }
}

/// A resolver that asks one server.
fn server(at: SocketAddr, settings: &config::Resolver) -> Result<TokioResolver, String> {
    let transports = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    let transports = transports.map(|mut transport| {
        transport.port = at.port();
        transport
    });
    let server = NameServerConfig::new(at.ip(), true, transports.to_vec());
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let mut options = ResolverOpts::default();
    options.timeout = settings.timeout;
    options.attempts = 0;
    options.edns0 = true;
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = EGRESS_NAMES;
    options.positive_min_ttl = Some(settings.ttl_min);
    options.positive_max_ttl = Some(settings.ttl_max);
    // What failed is asked again when control asks again, which backs off by itself.
    options.negative_max_ttl = Some(settings.ttl_min);
    options.num_concurrent_reqs = 1;
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(options)
        .build()
        .map_err(|error| error.to_string())
}

async fn system(host: &str) -> Result<Found, String> {
    let found = tokio::net::lookup_host((host, 0)).await;
    let found = found.map_err(|error| error.to_string())?;
    let mut addresses: Vec<IpAddr> = found.map(|found| found.ip()).take(EGRESS_FOUND).collect();
    addresses.dedup();
    Ok(Found {
        addresses,
        ttl: None,
    })
}

/// Both families are asked for at once, and one that answers does not wait long for one that does not
/// (RFC 8305 section 3). IPv6 comes first, as there.
async fn ask(resolver: &TokioResolver, name: &Name) -> Result<Found, Failure> {
    let v6 = resolver.ipv6_lookup(name.clone());
    let v4 = resolver.ipv4_lookup(name.clone());
    tokio::pin!(v6, v4);
    let (v6, v4) = tokio::select! {
        first = &mut v6 => {
            let second = beside(first.is_ok(), v4).await;
            (Some(first), second)
        }
        first = &mut v4 => {
            let second = beside(first.is_ok(), v6).await;
            (second, Some(first))
        }
    };
    let mut found = Found {
        addresses: Vec::new(),
        ttl: None,
    };
    let mut failed: Option<Failure> = None;
    for answer in [v6, v4].into_iter().flatten() {
        match answer {
            Ok(answer) => found.take(&answer),
            Err(error) => {
                let definite = failed.is_none_or(|failure| failure.definite);
                failed = Some(Failure {
                    reason: error.to_string(),
                    definite: definite && error.is_no_records_found(),
                });
            }
        }
    }
    found.addresses.truncate(EGRESS_FOUND);
    match failed {
        Some(failure) if found.addresses.is_empty() => Err(failure),
        _ => Ok(found),
    }
}

/// Waits for the second family: briefly where the first one is there.
async fn beside<T>(first_is_there: bool, second: impl Future<Output = T>) -> Option<T> {
    match first_is_there {
        true => timeout(RESOLUTION_DELAY, second).await.ok(),
        false => Some(second.await),
    }
}

impl Found {
    fn take(&mut self, answer: &Lookup) {
        let addresses = answer
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::A(address) => Some(IpAddr::V4(address.0)),
                RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                _ => None,
            });
        self.addresses.extend(addresses.take(EGRESS_FOUND));
        let left = answer
            .valid_until()
            .saturating_duration_since(Instant::now());
        self.ttl = Some(self.ttl.map_or(left, |ttl| ttl.min(left)));
    }
}

/// Alternates address families in the order in which the resolver preferred them (RFC 8305
/// section 4), and keeps `most` of them.
pub(super) fn interleave(found: Vec<IpAddr>, port: u16, most: usize) -> Vec<SocketAddr> {
    let Some(preferred) = found.first().map(IpAddr::is_ipv6) else {
        return Vec::new();
    };
    let (first, second): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|address| address.is_ipv6() == preferred);
    let mut ordered = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let (a, b) = (first.next(), second.next());
        if a.is_none() && b.is_none() {
            break;
        }
        ordered.extend(a.into_iter().chain(b).map(|ip| SocketAddr::new(ip, port)));
    }
    ordered.truncate(most);
    ordered
}

/// For the other family once one has answered. RFC 8305 section 8 says 50 ms, for people who wait.
const RESOLUTION_DELAY: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate_beginning_with_the_preferred_one() {
        let found = ["::1", "::2", "1.1.1.1", "::3", "2.2.2.2"];
        let found = found.map(|text| text.parse().expect("an address"));
        let ordered = interleave(found.to_vec(), 80, 4);
        let expected = ["[::1]:80", "1.1.1.1:80", "[::2]:80", "2.2.2.2:80"];
        let expected = expected.map(|text| text.parse().expect("an address"));
        assert_eq!(ordered, expected);
    }
}
