//! The meaning of single values: addresses, backends, users, levels. No two of them are compared
//! here.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ipnet::IpNet;
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::problem::Unusable;
use super::{AdminAddress, Backend, PortRange, Proxy, Secret, names};

/// A socket address to listen on.
pub(super) fn address(text: &str) -> Result<SocketAddr, Unusable> {
    let address: SocketAddr = text.parse().map_err(|_| Unusable::Address)?;
    if address.port() == 0 {
        return Err(Unusable::PortZero);
    }
    Ok(address)
}

/// A network, or a single address as a network of one.
pub(super) fn network(text: &str) -> Result<IpNet, Unusable> {
    IpNet::from_str(text)
        .map(|network| network.trunc())
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| Unusable::Network)
}

/// `host:port` or `unix:/path`.
pub(super) fn backend(text: &str) -> Result<Backend, Unusable> {
    if let Some(path) = text.strip_prefix("unix:") {
        return socket_path(path).map(Backend::Unix);
    }
    if text.contains("://") {
        return Err(Unusable::BackendUrl);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return match address.port() {
            0 => Err(Unusable::BackendPort),
            _ => Ok(Backend::Tcp(address.to_string())),
        };
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(Unusable::BareIpv6);
    }
    let (host, port) = text.rsplit_once(':').ok_or(Unusable::BackendPort)?;
    match port.parse::<u16>() {
        Ok(0) | Err(_) => Err(Unusable::BackendPort),
        Ok(_) if host.contains(':') => Err(Unusable::BareIpv6),
        Ok(port) => names::host_name(host)
            .map(|host| Backend::Tcp(format!("{host}:{port}")))
            .map_err(|_| Unusable::BackendHost),
    }
}

/// Where the admin interface listens.
pub(super) fn admin_address(text: &str) -> Result<AdminAddress, Unusable> {
    if let Some(path) = text.strip_prefix("unix:") {
        return socket_path(path).map(AdminAddress::Unix);
    }
    let address: SocketAddr = text.parse().map_err(|_| Unusable::AdminAddress)?;
    if !address.ip().is_loopback() {
        return Err(Unusable::AdminNotLoopback);
    }
    if address.port() == 0 {
        return Err(Unusable::PortZero);
    }
    Ok(AdminAddress::Tcp(address))
}

/// An absolute path.
pub(super) fn absolute(text: &str) -> Result<PathBuf, Unusable> {
    let path = Path::new(text);
    if !path.is_absolute() || text.contains('\0') {
        return Err(Unusable::RelativePath);
    }
    Ok(path.to_owned())
}

/// Path of a unix socket.
pub(super) fn socket_path(text: &str) -> Result<PathBuf, Unusable> {
    if text.len() > SOCKET_PATH_MAX {
        return Err(Unusable::LongSocketPath);
    }
    absolute(text)
}

/// An ALPN protocol name (RFC 7301 section 3.1).
pub(super) fn alpn(text: &str) -> Result<String, Unusable> {
    if text.is_empty() || text.len() > 255 {
        return Err(Unusable::Alpn);
    }
    Ok(text.to_owned())
}

/// The URL of an OCSP responder, or of a file with a response.
pub(super) fn responder(text: &str) -> Result<(), Unusable> {
    let url = url::Url::parse(text).map_err(|_| Unusable::ResponderUrl)?;
    let usable = match url.scheme() {
        "http" | "https" => url.has_host(),
        // A host would be another machine's file, which nobody reads from here.
        "file" => !url.has_host() && url.path().len() > 1 && !url.path().ends_with('/'),
        _ => false,
    };
    usable.then_some(()).ok_or(Unusable::ResponderUrl)
}

/// `"8080-8090"`, or a single port as text.
pub(super) fn port_range(text: &str) -> Result<PortRange, Unusable> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.trim().parse::<u16>().map_err(|_| Unusable::Ports);
    let range = PortRange {
        first: port(first)?,
        last: port(last)?,
    };
    (range.first > 0 && range.first <= range.last)
        .then_some(range)
        .ok_or(Unusable::Ports)
}

/// A DNS server, on port 53 unless another one is named.
pub(super) fn resolver(text: &str) -> Result<SocketAddr, Unusable> {
    let address = text
        .parse::<IpAddr>()
        .map(|ip| SocketAddr::new(ip, 53))
        .or_else(|_| text.parse::<SocketAddr>())
        .map_err(|_| Unusable::Resolver)?;
    (address.port() != 0)
        .then_some(address)
        .ok_or(Unusable::Resolver)
}

/// `http://[USER:PASSWORD@]HOST[:PORT]`.
pub(super) fn proxy(text: &str) -> Result<Proxy, Unusable> {
    let url = url::Url::parse(text).map_err(|_| Unusable::Proxy)?;
    let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    let host = url.host().map(|host| host.to_owned());
    let (Some(host), "http", true) = (host, url.scheme(), bare) else {
        return Err(Unusable::Proxy);
    };
    let host = match host {
        url::Host::Domain(name) => name,
        url::Host::Ipv4(address) => address.to_string(),
        url::Host::Ipv6(address) => address.to_string(),
    };
    let decoded = |text: &str| {
        percent_decoded(text)
            .filter(|text| !text.contains(char::is_control))
            .ok_or(Unusable::Proxy)
    };
    let credentials = match (url.username(), url.password()) {
        ("", None) => None,
        (user, password) => Some(Secret::new(format!(
            "{}:{}",
            decoded(user)?,
            decoded(password.unwrap_or_default())?
        ))),
    };
    Ok(Proxy {
        host,
        port: url.port().unwrap_or(80),
        credentials,
        tunnel: false,
    })
}

/// Text without its percent-encoding (RFC 3986 section 2.1); `None` where it is not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let encoded = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match (byte, encoded.map(|two| u8::from_str_radix(two, 16))) {
            (b'%', Some(Ok(decoded))) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// Levels by module, as `tracing` reads them.
pub(super) fn log_level(text: &str) -> Result<(), Unusable> {
    // `Targets` takes a lone word that is no level for a module; here it is a mistyped level.
    let levels = text
        .split(',')
        .all(|directive| match directive.rsplit_once('=') {
            Some((module, level)) => !module.is_empty() && LevelFilter::from_str(level).is_ok(),
            None => !directive.is_empty() && LevelFilter::from_str(directive).is_ok(),
        });
    (levels && text.parse::<Targets>().is_ok())
        .then_some(())
        .ok_or(Unusable::LogLevel)
}

/// `name` or `name:group`; whether they exist is for whoever becomes them to find out.
pub(super) fn user(text: &str) -> Result<(), Unusable> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.len() <= 32
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-$".contains(&b))
    };
    let (user, group) = text.split_once(':').unwrap_or((text, "-"));
    (is_name(user) && is_name(group))
        .then_some(())
        .ok_or(Unusable::User)
}

/// A listener's name, which labels metrics and log lines.
pub(super) fn listener_name(text: &str) -> Result<(), Unusable> {
    let fits = (1..=32).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    fits.then_some(()).ok_or(Unusable::ListenerName)
}

/// `sun_path` holds 108 bytes, the final zero included (unix(7)).
const SOCKET_PATH_MAX: usize = 107;
