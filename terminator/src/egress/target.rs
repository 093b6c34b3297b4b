//! A URL taken apart, in the one form that a responder's URL may have: what one parser makes of an
//! odd host, another takes for a different one, so a host counts only as it is plainly written.

use std::net::{IpAddr, Ipv6Addr};

use url::Url;

use super::protocol::FetchError;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// https.
    pub(super) secure: bool,
    pub(super) host: Host,
    pub(super) port: u16,
    /// Path and query.
    pub(super) path: String,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// To be looked up.
    Name(String),
    /// Stands in the URL.
    Address(IpAddr),
}

impl Host {
    /// A name, or an address without brackets.
    pub(super) fn read(text: &str) -> Self {
        match text.parse() {
            Ok(address) => Self::Address(address),
            Err(_) => Self::Name(text.to_owned()),
        }
    }

    /// As a URL writes it: an IPv6 address in brackets.
    fn written(&self) -> String {
        match self {
            Self::Name(name) => name.clone(),
            Self::Address(IpAddr::V4(address)) => address.to_string(),
            Self::Address(IpAddr::V6(address)) => format!("[{address}]"),
        }
    }

    /// Host and port.
    pub(super) fn with_port(&self, port: u16) -> String {
        format!("{}:{port}", self.written())
    }
}

impl Target {
    pub(super) fn parse(text: &str) -> Result<Self, FetchError> {
        let unusable = |reason: &str| FetchError::Url {
            url: text.chars().take(SHOWN).collect(),
            reason: reason.to_owned(),
        };
        // The parser of the URL standard drops tabs and line ends and takes "\" for "/".
        if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic() || *c == '\\') {
            return Err(unusable(&format!("it has the character {odd:?}")));
        }
        let url = Url::parse(text).map_err(|error| unusable(&error.to_string()))?;
        let secure = match url.scheme() {
            "http" => false,
            "https" => true,
            other => {
                let scheme = other.to_owned();
                return Err(FetchError::Scheme { scheme });
            }
        };
        let written = text
            .split_once("://")
            .and_then(|(_, rest)| rest.split(['/', '?', '#']).next())
            .ok_or_else(|| unusable("it names no host"))?;
        if written.contains('@') {
            return Err(FetchError::Credentials);
        }
        let host = host(&url, written).ok_or_else(|| FetchError::Host {
            host: written.chars().take(SHOWN).collect(),
        })?;
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        Ok(Self {
            secure,
            host,
            port: url.port_or_known_default().unwrap_or(80),
            path,
        })
    }

    /// Host and port as the Host header and messages have it.
    pub(super) fn authority(&self) -> String {
        match (self.secure, self.port) {
            (false, 80) | (true, 443) => self.host.written(),
            (_, port) => self.host.with_port(port),
        }
    }

    /// The whole URL, for a proxy (RFC 9112 section 3.2.2).
    pub(super) fn absolute(&self) -> String {
        format!("http://{}{}", self.authority(), self.path)
    }
}

/// The host, where it is written as everybody reads it: a name of the usual characters that does not
/// stand for a number, a dotted IPv4 address, an IPv6 address in brackets. `2130706433`, `0x7f.1`,
/// `127.1`, `%6cocalhost` and the like are something else to one parser than to another.
fn host(url: &Url, written: &str) -> Option<Host> {
    if let Some(rest) = written.strip_prefix('[') {
        let (address, _) = rest.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        return Some(Host::Address(address.into()));
    }
    let host = written.split_once(':').map_or(written, |(host, _)| host);
    let plain = host
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    let fits = (1..=NAME_BYTES).contains(&host.len());
    let mut labels = host.strip_suffix('.').unwrap_or(host).split('.');
    if !plain || !fits || !labels.clone().all(|label| (1..=63).contains(&label.len())) {
        return None;
    }
    match url.host()? {
        url::Host::Ipv4(address) => {
            (address.to_string() == host).then_some(Host::Address(address.into()))
        }
        url::Host::Domain(name) => {
            let same = name.eq_ignore_ascii_case(host);
            let number = labels.next_back()?.bytes().all(|b| b.is_ascii_digit());
            (same && !number).then(|| Host::Name(name.to_owned()))
        }
        url::Host::Ipv6(_) => None,
    }
}

/// Of a URL or host in a message, characters.
const SHOWN: usize = 200;

/// Longest DNS name in text, its final dot included (RFC 1035 section 2.3.4).
const NAME_BYTES: usize = 254;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Target, FetchError> {
        Target::parse(text)
    }

    #[test]
    fn a_base64_path_goes_out_as_it_came_in() {
        let target = parse("http://ocsp.example/status/MFEw%2FTzBNMEsw//STAJ%2B%3D");
        let target = target.expect("usable");
        assert_eq!(target.path, "/status/MFEw%2FTzBNMEsw//STAJ%2B%3D");
        assert_eq!(target.authority(), "ocsp.example");
    }

    #[test]
    fn hosts_are_taken_as_everybody_reads_them() {
        for (url, authority) in [
            ("http://OCSP.Example.:8080", "ocsp.example.:8080"),
            ("https://10.1.2.3/", "10.1.2.3"),
            ("http://[2001:DB8::1]:81/", "[2001:db8::1]:81"),
            ("http://a_b.example", "a_b.example"),
            ("http://xn--bcher-kva.example", "xn--bcher-kva.example"),
        ] {
            assert_eq!(parse(url).expect(url).authority(), authority);
        }
    }

    #[test]
    fn hosts_that_hide_what_they_are_are_refused() {
        for host in [
            "2130706433",
            "0x7f000001",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "127.1",
            "127.0.0.1.",
            "127.0.0.01",
            "%6cocalhost",
            "127%2e0.0.1",
            "a..b",
            ".",
            "a*b",
            "[::1%25lo]",
            "[::ffff:127.0.0.1",
            "a.1",
        ] {
            let error = parse(&format!("http://{host}/")).expect_err(host);
            let typed = matches!(error, FetchError::Host { .. } | FetchError::Url { .. });
            assert!(typed, "{host}: {error:?}");
        }
        for url in [
            "http://a\t.example/",
            "http://ａ.example/",
            "http:\\\\a.example\\",
            "http://a b/",
        ] {
            assert!(matches!(parse(url), Err(FetchError::Url { .. })), "{url}");
        }
        assert!(parse("http:a.example/x").is_err());
        assert!(parse("http:///a.example/x").is_err());
    }

    #[test]
    fn a_url_with_a_user_is_refused() {
        for url in [
            "http://user@a.example/",
            "http://u:p@a.example/",
            "http://@a.example/",
        ] {
            assert_eq!(parse(url), Err(FetchError::Credentials), "{url}");
        }
        assert!(parse("http://a.example/@b").is_ok());
    }

    #[test]
    fn other_schemes_are_refused_by_name() {
        for (url, scheme) in [
            ("ldap://ca.example/cn=x", "ldap"),
            ("file:///etc/passwd", "file"),
        ] {
            let scheme = scheme.to_owned();
            assert_eq!(parse(url), Err(FetchError::Scheme { scheme }));
        }
        assert!(matches!(parse("not-a-url"), Err(FetchError::Url { .. })));
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "(http://|https://|)[\\PC]{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_taken_for_an_address_is_one_for_the_system_too(host in "[0-9a-fx.]{1,15}") {
            if let Ok(target) = parse(&format!("http://{host}/")) {
                let literal = host.parse::<IpAddr>().ok().map(Host::Address);
                prop_assert_eq!(target.host, literal.unwrap_or(Host::Name(host)));
            }
        }
    }
}
