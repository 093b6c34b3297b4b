//! From a target to a stream on which its request can be made: looked up, judged, let through,
//! connected to, through the proxy where there is one, and secured for https.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::http::{Deadline, Sink, USER_AGENT};
use super::lookup::{Found, Resolver, interleave};
use super::policy::NamedBy;
use super::protocol::{Destination, FetchError, Stage};
use super::settings::Settings;
use super::target::{Host, Target};
use super::tls::Tls;
use crate::config::Proxy;
use crate::limits::{EGRESS_ADDRESSES, EGRESS_HEAD_BYTES, EGRESS_HEADERS};

/// What requests are made with.
pub(super) struct Means {
    pub(super) settings: Settings,
    resolver: Resolver,
    tls: Tls,
}

/// Bytes both ways.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A stream to the server, or to a proxy that stands for it.
pub(super) struct Connected {
    pub(super) stream: Box<dyn Stream>,
    /// The proxy is asked for the whole URL.
    pub(super) absolute: bool,
    /// Keeps the tunnel through a proxy going.
    _tunnel: JoinSet<()>,
}

impl Means {
    /// Fails where the settings, which control has checked, do not suit the libraries.
    pub(super) fn new(settings: Settings) -> Result<Self, String> {
        Ok(Self {
            resolver: Resolver::new(settings.resolver.as_ref())?,
            tls: Tls::new(&settings.anchors).map_err(|error| error.to_string())?,
            settings,
        })
    }

    /// Connects.
    pub(super) async fn connect(
        &self,
        target: &Target,
        by: NamedBy,
        clock: &mut Deadline,
        sink: &mut impl Sink,
    ) -> Result<Connected, FetchError> {
        // Where a proxy connects, this is all that can be judged here.
        self.settings.policy.check_target(target, by)?;
        let mut tunnel = JoinSet::new();
        let (mut stream, mut absolute): (Box<dyn Stream>, bool) = match &self.settings.proxy {
            None => {
                let found = clock
                    .cover(Stage::Resolve, self.find(&target.host))
                    .await??;
                clock.done(Stage::Resolve);
                let ttl = found.ttl;
                let addresses = self.allowed(target, found.addresses, by)?;
                let end = (&target.host, target.port);
                (self.reach(end, addresses, ttl, clock, sink).await?, false)
            }
            Some(proxy) => {
                let host = Host::read(&proxy.host);
                let found = clock.cover(Stage::Resolve, self.find(&host)).await??;
                clock.done(Stage::Resolve);
                let (ttl, addresses) = (found.ttl, found.addresses);
                let end = (&host, proxy.port);
                (self.reach(end, addresses, ttl, clock, sink).await?, true)
            }
        };
        if let Some(proxy) = &self.settings.proxy
            && (target.secure || proxy.tunnel)
        {
            let through = connect_through(stream, proxy, target, &mut tunnel);
            stream = clock.cover(Stage::Connect, through).await??;
            absolute = false;
        }
        clock.done(Stage::Connect);
        if target.secure {
            let handshake = self.tls.connect(stream, &target.host);
            let secured = clock.cover(Stage::Secure, handshake).await?;
            stream = Box::new(secured.map_err(|reason| FetchError::Tls {
                host: target.authority(),
                reason,
            })?);
            clock.done(Stage::Secure);
        }
        Ok(Connected {
            stream,
            absolute,
            _tunnel: tunnel,
        })
    }

    async fn find(&self, host: &Host) -> Result<Found, FetchError> {
        let name = match host {
            Host::Name(name) => name,
            Host::Address(address) => {
                return Ok(Found {
                    addresses: vec![*address],
                    ttl: None,
                });
            }
        };
        let failed = |reason| FetchError::Resolve {
            host: name.clone(),
            reason,
        };
        let found = self.resolver.look_up(name).await.map_err(failed)?;
        match found.addresses.is_empty() {
            true => Err(failed("it has no address".to_owned())),
            false => Ok(found),
        }
    }

    /// The addresses that the policy allows, of at least one.
    fn allowed(
        &self,
        target: &Target,
        mut addresses: Vec<IpAddr>,
        by: NamedBy,
    ) -> Result<Vec<IpAddr>, FetchError> {
        let mut first = None;
        addresses.retain(|&address| {
            let judged = self.settings.policy.check_address(address, by);
            if let Err(class) = judged {
                first.get_or_insert((address, class));
            }
            judged.is_ok()
        });
        match (addresses.is_empty(), first) {
            (true, Some((address, class))) => Err(FetchError::Address {
                host: target.host.with_port(target.port),
                address,
                class,
            }),
            _ => Ok(addresses),
        }
    }

    /// Connects to one of these addresses, if control lets it.
    async fn reach(
        &self,
        (host, port): (&Host, u16),
        addresses: Vec<IpAddr>,
        ttl: Option<Duration>,
        clock: &mut Deadline,
        sink: &mut impl Sink,
    ) -> Result<Box<dyn Stream>, FetchError> {
        let addresses = interleave(addresses, port, EGRESS_ADDRESSES);
        if self.settings.announce {
            let destination = Destination {
                host: match host {
                    Host::Name(name) => name.clone(),
                    Host::Address(address) => address.to_string(),
                },
                port,
                addresses: addresses.iter().map(SocketAddr::ip).collect(),
                ttl,
            };
            let admitted = clock.cover(Stage::Admit, sink.admit(destination)).await?;
            admitted.map_err(|reason| FetchError::Refused {
                host: host.with_port(port),
                reason,
            })?;
            clock.done(Stage::Admit);
        }
        let racing = race(host.with_port(port), addresses);
        let stream = clock.cover(Stage::Connect, racing).await??;
        clock.peer = stream.peer_addr().ok();
        Ok(Box::new(stream))
    }
}

/// Connects to the first address that takes it: the next one is tried when one fails, and beside it
/// when [`ATTEMPT_DELAY`] has passed, so that a dead route costs no more than that (RFC 8305
/// section 5).
async fn race(host: String, addresses: Vec<SocketAddr>) -> Result<TcpStream, FetchError> {
    let mut waiting = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut reasons = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(async move { (address, TcpStream::connect(address).await) });
        }
        if attempts.is_empty() {
            break;
        }
        let pause = Instant::now() + ATTEMPT_DELAY;
        let patience = async {
            match waiting.len() {
                0 => std::future::pending().await,
                _ => sleep_until(pause).await,
            }
        };
        tokio::select! {
            ended = attempts.join_next() => match ended {
                Some(Ok((_, Ok(stream)))) => return Ok(stream),
                Some(Ok((address, Err(error)))) => reasons.push(format!("{address}: {error}")),
                Some(Err(_)) | None => {}
            },
            () = patience => {}
        }
    }
    Err(FetchError::Connect {
        host,
        reason: reasons.join(", "),
    })
}

/// Has the proxy connect to the target (RFC 9110 section 9.3.6).
async fn connect_through(
    stream: Box<dyn Stream>,
    proxy: &Proxy,
    target: &Target,
    tunnel: &mut JoinSet<()>,
) -> Result<Box<dyn Stream>, FetchError> {
    let host = target.host.with_port(target.port);
    let failed = |reason: String| FetchError::Proxy {
        proxy: Host::read(&proxy.host).with_port(proxy.port),
        host: host.clone(),
        reason,
    };
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(EGRESS_HEAD_BYTES)
        .max_headers(EGRESS_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(error.to_string()))?;
    // Its errors come back through the request too.
    tunnel.spawn(async move { drop(connection.with_upgrades().await) });
    let mut request = hyper::Request::connect(&host)
        .header(header::HOST, &host)
        .header(header::USER_AGENT, USER_AGENT);
    if let Some(value) = authorization(proxy) {
        request = request.header(header::PROXY_AUTHORIZATION, value);
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(error.to_string()))?;
    let answer = sender.send_request(request).await;
    let answer = answer.map_err(|error| failed(error.to_string()))?;
    if !answer.status().is_success() {
        return Err(failed(format!("it answered {}", answer.status())));
    }
    let upgraded = hyper::upgrade::on(answer).await;
    let upgraded = upgraded.map_err(|error| failed(error.to_string()))?;
    Ok(Box::new(TokioIo::new(upgraded)))
}

/// The Proxy-Authorization header (RFC 7617), where the proxy wants to know who asks.
pub(super) fn authorization(proxy: &Proxy) -> Option<String> {
    let credentials = proxy.credentials.as_ref()?;
    Some(format!("Basic {}", STANDARD.encode(credentials.reveal())))
}

/// Before the next address is tried beside one that has not answered (RFC 8305 section 8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
