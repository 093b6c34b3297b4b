//! Server names as clients send them: made comparable, or found to be no DNS name.

use core::net::IpAddr;
use core::str;

/// Longest DNS name in text form, without the final dot (RFC 1035 section 2.3.4: 255 octets on the
/// wire, which the first length and the root take two of).
pub const NAME_MAX: usize = 253;

/// The DNS name in lower case and without a final dot, written into `out`; `None` for bytes that
/// are no DNS name: not ASCII, empty or too long, an empty label or one over 63 bytes, characters
/// other than letters, digits, hyphen and underscore, and IP address literals.
///
/// RFC 6066 section 3 allows no address literals in `server_name`. A caller that wants to treat a
/// client which sends one as a client which sends no name asks [`is_address`].
pub fn normalise_name<'o>(raw: &[u8], out: &'o mut [u8; 255]) -> Option<&'o str> {
    let raw = raw.strip_suffix(b".").unwrap_or(raw);
    if raw.is_empty() || raw.len() > NAME_MAX {
        return None;
    }
    let mut last_is_number = false;
    for label in raw.split(|&byte| byte == b'.') {
        if !is_label(label) {
            return None;
        }
        last_is_number = label.iter().all(u8::is_ascii_digit);
    }
    // No top-level domain is a number; what ends in one is an address or a mistyped one.
    if last_is_number {
        return None;
    }
    let out = out.get_mut(..raw.len())?;
    out.copy_from_slice(raw);
    out.make_ascii_lowercase();
    str::from_utf8(out).ok()
}

/// Whether the bytes are an IPv4 or IPv6 address literal, with or without brackets.
pub fn is_address(raw: &[u8]) -> bool {
    let bare = raw
        .strip_prefix(b"[")
        .and_then(|rest| rest.strip_suffix(b"]"))
        .unwrap_or(raw);
    str::from_utf8(bare).is_ok_and(|text| text.parse::<IpAddr>().is_ok())
}

fn is_label(label: &[u8]) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|&byte| byte != b'-');
    label.len() <= 63
        && edge(label.first())
        && edge(label.last())
        && label
            .iter()
            .all(|&byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::String;

    fn normal(raw: &[u8]) -> Option<String> {
        normalise_name(raw, &mut [0; 255]).map(String::from)
    }

    #[test]
    fn names_compare_without_case_and_final_dot() {
        assert_eq!(
            normal(b"WWW.Example.COM").as_deref(),
            Some("www.example.com")
        );
        assert_eq!(normal(b"example.com.").as_deref(), Some("example.com"));
        assert_eq!(
            normal(b"xn--bcher-kva.example").as_deref(),
            Some("xn--bcher-kva.example")
        );
        assert_eq!(normal(b"_acme.x-y.a1").as_deref(), Some("_acme.x-y.a1"));
    }

    #[test]
    fn what_is_no_dns_name_is_refused() {
        let long_label = [b'a'; 64];
        let mut long = [b'a'; 254];
        long.iter_mut().skip(50).step_by(50).for_each(|b| *b = b'.');
        let refused: [&[u8]; 14] = [
            b"",
            b".",
            b"..",
            b"a..b",
            b".a",
            b"a b",
            b"b\xc3\xbccher.de",
            b"-a.de",
            b"a-.de",
            b"10.0.0.1",
            b"1.2.3",
            b"a\0b",
            &long_label,
            &long,
        ];
        for raw in refused {
            assert_eq!(normal(raw), None, "{raw:?}");
        }
        assert!(normal(&long[1..]).is_some(), "253 bytes are a name");
    }

    #[test]
    fn addresses_are_told_from_names() {
        for raw in ["10.0.0.1", "::1", "[2001:db8::1]", "2001:db8::10.0.0.1"] {
            assert!(is_address(raw.as_bytes()), "{raw}");
        }
        for raw in ["example.com", "1.2.3", "", "[", "10.0.0.256", "cafe"] {
            assert!(!is_address(raw.as_bytes()), "{raw}");
        }
    }
}
