//! DNS names as operators write them, made into what clients send: lower case A-labels.

use super::problem::Unusable;

/// A name or wildcard in the form in which it is compared with a client's `server_name`.
pub(super) fn site_name(text: &str) -> Result<String, Unusable> {
    let Some(parent) = text.strip_prefix("*.") else {
        return host_name(text);
    };
    Ok(format!("*.{}", host_name(parent)?))
}

/// A DNS name without wildcard, converted to A-labels (RFC 5891 section 4.4) and checked.
pub(super) fn host_name(text: &str) -> Result<String, Unusable> {
    if text.contains('*') {
        return Err(Unusable::Wildcard);
    }
    if clinch_hello::is_address(text.as_bytes()) {
        return Err(Unusable::AddressAsName);
    }
    let ascii = idna::domain_to_ascii(text).map_err(|_| Unusable::DnsName)?;
    let mut buffer = [0; 255];
    clinch_hello::normalise_name(ascii.as_bytes(), &mut buffer)
        .map(str::to_owned)
        .ok_or(Unusable::DnsName)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_lower_case_a_labels() {
        for (written, meant) in [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("Bücher.example", "xn--bcher-kva.example"),
            ("*.BÜCHER.example", "*.xn--bcher-kva.example"),
            ("faß.example", "xn--fa-hia.example"),
            ("_srv.example", "_srv.example"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(site_name(written).as_deref(), Ok(meant), "{written}");
        }
    }

    #[test]
    fn what_no_client_can_ask_for_is_refused() {
        for (written, why) in [
            ("", Unusable::DnsName),
            ("a..b", Unusable::DnsName),
            ("a b", Unusable::DnsName),
            ("exa/mple", Unusable::DnsName),
            ("10.0.0.1", Unusable::AddressAsName),
            ("[::1]", Unusable::AddressAsName),
            ("*", Unusable::Wildcard),
            ("*.*.example.com", Unusable::Wildcard),
            ("w*.example.com", Unusable::Wildcard),
            ("www.*.com", Unusable::Wildcard),
            ("*.", Unusable::DnsName),
        ] {
            assert_eq!(site_name(written), Err(why), "{written}");
        }
        assert_eq!(site_name(&"a".repeat(64)), Err(Unusable::DnsName));
    }
}
