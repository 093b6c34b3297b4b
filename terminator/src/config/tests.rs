//! What `Config::parse` takes, what it refuses, and in which words.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SMALL: &str = r#"[listen.public]
address = ["0.0.0.0:443", "[::]:443"]

[[site]]
names = "example.com"
cert = "/c.pem"
key = "/c.key"
backend = "10.0.0.5:8080"
"#;

fn parse(text: &str) -> Config {
    match Config::parse(text) {
        Ok(config) => config,
        Err(error) => panic!("{error}"),
    }
}

/// The refusal of a configuration, in words.
fn refusal(text: &str) -> String {
    match Config::parse(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(error) => error.to_string(),
    }
}

/// The refusal of the small configuration with a part of it replaced.
fn refusal_with(line: &str, instead: &str) -> String {
    assert!(SMALL.contains(line), "{line} is in the small configuration");
    refusal(&SMALL.replacen(line, instead, 1))
}

#[test]
fn rules_for_an_egress_process_without_a_user_of_its_own_are_refused() {
    let with = |tables: &str| format!("{tables}\n{SMALL}");
    for tables in [
        "[firewall]",
        "user = \"clinch\"\n[egress]\nuser = \"clinch\"\n[firewall]",
    ] {
        let refusal = refusal(&with(tables));
        assert!(refusal.contains("set `egress.user`"), "{refusal}");
    }
    let config = parse(&with("[egress]\nuser = \"clinch-egress\"\n[firewall]"));
    let socket = Path::new("/run/clinch-firewall/socket");
    assert_eq!(config.firewall_socket(), Some(socket));
    assert_eq!(parse(SMALL).firewall_socket(), None);
}

#[test]
fn the_smallest_configuration_gets_safe_defaults() {
    let config = parse(SMALL);
    assert_eq!(config.cache, Some(PathBuf::from("/var/cache/clinch")));
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.timeouts, Timeouts::default());
    let listener = &config.listeners[0];
    assert_eq!(listener.name, "public");
    assert_eq!(listener.addresses.len(), 2);
    assert_eq!(listener.min_version, TlsVersion::Tls12);
    assert_eq!(listener.ciphers[0], Cipher::TLS13_AES_128_GCM_SHA256);
    assert_eq!(listener.groups, Group::ALL);
    assert_eq!((listener.tickets, listener.backlog), (2, 4096));
    assert_eq!(listener.default_site, None);
    assert!(!listener.ktls, "session keys stay where they are");
    let site = &config.sites[0];
    assert_eq!(
        (site.name.as_str(), site.listeners.as_slice()),
        ("example.com", &[0][..])
    );
    assert_eq!(site.backends, [Backend::Tcp("10.0.0.5:8080".to_owned())]);
    assert!(site.alpn.is_empty() && site.proxy_protocol.is_none());
    let admin = AdminAddress::Unix("/run/clinch/admin.sock".into());
    assert_eq!(config.admin.listen, Some(admin));
    assert_eq!(
        (config.log.json, config.log.level.as_str()),
        (false, "info")
    );
}

#[test]
fn defaults_of_stapling_are_those_that_the_schema_names() {
    let ocsp = &parse(SMALL).sites[0].ocsp;
    let named = &schema()["properties"]["ocsp"]["properties"];
    let duration = |key: &str| {
        let text = named[key]["default"].as_str().expect("a default");
        humantime::parse_duration(text).expect("a duration")
    };
    assert_eq!(named["enabled"]["default"], ocsp.enabled);
    assert_eq!(duration("skew"), ocsp.skew);
    assert_eq!(duration("max_age"), ocsp.max_age);
    assert_eq!(named["allow_sha1"]["default"], ocsp.allow_sha1);
    assert_eq!(named["margin"]["default"], ocsp.margin);
    assert_eq!(duration("jitter"), ocsp.jitter);
    assert_eq!(duration("timeout"), ocsp.timeout);
    assert_eq!(
        named["on_revoked"]["default"],
        serde_json::json!(ocsp.on_revoked)
    );
    assert_eq!(named["hash"]["default"], serde_json::json!(ocsp.hash));
    assert_eq!(named["method"]["default"], serde_json::json!(ocsp.method));
    assert_eq!(named["nonce"]["default"], serde_json::json!(ocsp.nonce));
    assert_eq!((ocsp.hard, ocsp.interval, &ocsp.trust), (None, None, &None));
}

#[test]
fn every_key_can_be_set() {
    let config = parse(
        r#"
user = "clinch:clinch"
workers = 2
cache_dir = false
[limits]
connections_per_worker = 1000
connections_per_client = 10
handshake_bytes = 32768
read_buffer = 65536
ready_certificates_per_core = 16
[timeouts]
handshake = "3s"
connect = "500ms"
idle = "1h"
drain = "0s"
linger = "1s"
startup_wait = "250ms"
[listen.inside]
address = "127.0.0.1:8443"
min_version = "1.3"
ciphers = ["TLS13_CHACHA20_POLY1305_SHA256"]
groups = ["X25519MLKEM768", "P-256"]
tickets = 0
proxy_protocol_from = ["10.1.2.3/8", "::1"]
default_site = "B.example"
backlog = 128
[listen.a_later_one]
address = "[::1]:8443"
[[site]]
names = ["Bücher.example", "*.b.example"]
certificates = [{ cert = "/e.pem", key = "/e.key" }, { cert = "/r.pem", key = "/r.key" }]
backend = ["App.internal:80", "unix:/run/app.sock", "[::1]:80"]
proxy_protocol = "v2"
alpn = ["h2", "http/1.1"]
listen = ["inside"]
ocsp = { policy = "hard", responder = "http://ocsp.b.example/x", skew = "1s", on_revoked = "fallback", nonce = "require", timeout = "3s" }
[[site]]
names = "b.example"
cert = "/b.pem"
key = "/b.key"
backend = "b:1"
ocsp = false
[ocsp]
max_age = "1day"
skew = "2s"
allow_sha1 = true
margin = 0.5
on_revoked = "serve-unstapled"
hash = "sha256"
method = "post"
trust = "/etc/clinch/trust.pem"
interval = "1h"
jitter = "0s"
[admin]
listen = "127.0.0.1:9443"
[log]
format = "json"
level = "info,clinch::data=debug"
[egress]
user = "clinch-egress"
concurrency = 1
burst = 1
pace = "1s"
"#,
    );
    let names: Vec<&str> = config.listeners.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(names, ["inside", "a_later_one"], "file order");
    assert_eq!(config.listeners[0].default_site, Some(1));
    assert_eq!(
        config.listeners[0].groups,
        [Group::X25519Mlkem768, Group::P256]
    );
    let networks: Vec<String> = config.listeners[0]
        .proxy_from
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(networks, ["10.0.0.0/8", "::1/128"]);
    let site = &config.sites[0];
    assert_eq!(site.names, ["xn--bcher-kva.example", "*.b.example"]);
    assert_eq!(site.listeners, [0]);
    assert_eq!(site.certificates.len(), 2);
    assert_eq!(
        site.backends,
        [
            Backend::Tcp("app.internal:80".to_owned()),
            Backend::Unix("/run/app.sock".into()),
            Backend::Tcp("[::1]:80".to_owned()),
        ]
    );
    assert_eq!(site.proxy_protocol, Some(ProxyVersion::V2));
    let wanted = Ocsp {
        enabled: true,
        responder: Some("http://ocsp.b.example/x".to_owned()),
        hard: Some(true),
        on_revoked: OnRevoked::Fallback,
        hash: CertIdHash::Sha256,
        method: RequestMethod::Post,
        nonce: NonceUse::Require,
        skew: Duration::from_secs(1),
        max_age: Duration::from_secs(86_400),
        allow_sha1: true,
        trust: Some("/etc/clinch/trust.pem".into()),
        margin: 0.5,
        interval: Some(Duration::from_secs(3600)),
        jitter: Duration::ZERO,
        timeout: Duration::from_secs(3),
    };
    assert_eq!(
        site.ocsp, wanted,
        "the site's own keys before those of [ocsp]"
    );
    assert!(!config.sites[1].ocsp.enabled);
    assert_eq!(config.cache, None);
    assert_eq!(config.timeouts.connect, Duration::from_millis(500));
    assert_eq!(config.limits.connections_per_worker, Some(1000));
    assert!(config.log.json);
    assert_eq!(config.egress.user.as_deref(), Some("clinch-egress"));
    let turns = config.egress.turns;
    assert_eq!((turns.concurrency, turns.burst), (1, 1));
    assert_eq!(turns.pace, Duration::from_secs(1));
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    assert_eq!(
        refusal_with("address =", "adress ="),
        "line 1: [listen.public] lacks `address`\n\
         line 2: unknown key `adress` in [listen.public]; did you mean `address`?"
    );
    assert_eq!(
        refusal_with("key =", "certs = 1\nkey ="),
        "line 7: unknown key `certs` in [[site]]; did you mean `cert`?"
    );
    let far = refusal_with("[listen.public]", "zzz = 1\n[listen.public]");
    assert!(far.starts_with("line 1: unknown key `zzz` in the file's top level; known are admin,"));
    let nested = refusal(&format!("{SMALL}ocsp = {{ responser = \"http://x\" }}\n"));
    assert_eq!(
        nested,
        "line 9: unknown key `responser` in [site.ocsp]; did you mean `responder`?"
    );
}

#[test]
fn all_mistakes_are_told_at_once_in_file_order() {
    let told = refusal(
        "workers = 0\n[listen.p]\naddress = 5\nmin_version = \"1.1\"\n[timeouts]\nidle = \"soon\"\nconnect = \"1h\"\n",
    );
    assert_eq!(
        told,
        "line 1: workers: 0 is out of range; write a number from 1 to 1024\n\
         line 3: listen.p.address: is a number, but must be a string or a list such as [\"…\"]\n\
         line 4: listen.p.min_version: `1.1` is not accepted; write one of 1.2, 1.3\n\
         line 6: timeouts.idle: `soon` is not a duration; write a number with a unit, e.g. \"5s\", \"300ms\" or \"2h 30m\"\n\
         line 7: timeouts.connect: \"1h\" is out of range; write a duration from \"10ms\" to \"10m\""
    );
    let meaning = refusal(
        "[listen.p]\naddress = \"443\"\n[[site]]\nnames = [\"*x.de\"]\ncert = \"c.pem\"\nkey = \"/k\"\nbackend = \"app\"\nlisten = [\"q\"]\n",
    );
    let lines: Vec<&str> = meaning
        .lines()
        .map(|line| line.split(": ").next().unwrap_or(""))
        .collect();
    assert_eq!(
        lines,
        ["line 2", "line 4", "line 5", "line 7", "line 8"],
        "{meaning}"
    );
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    let told = refusal("[listen.public]\naddress = [\n\"x\n");
    assert!(told.starts_with("line 3: this is not TOML: "), "{told}");
    let twice = refusal_with("key =", "cert =");
    assert!(
        twice.starts_with("line 7: this is not TOML: duplicate key"),
        "{twice}"
    );
}

#[test]
fn an_empty_file_says_what_is_missing() {
    assert_eq!(
        refusal(""),
        "line 1: nothing to serve; add a [[site]] table with names, cert, key and backend\n\
         line 1: nothing to listen on; add a table such as [listen.public] with address = [\"0.0.0.0:443\", \"[::]:443\"]"
    );
}

#[test]
fn a_name_leads_to_one_site_on_a_listener() {
    let second = |listen: &str| {
        format!(
            "{SMALL}listen = [\"public\"]\n[listen.other]\naddress = \"[::1]:1\"\n[[site]]\nnames = [\"a.de\", \"EXAMPLE.com\"]\ncert = \"/d\"\nkey = \"/d\"\nbackend = \"b:1\"\nlisten = [{listen}]\n"
        )
    };
    parse(&second("\"other\""));
    assert_eq!(
        refusal(&second("\"other\", \"public\"")),
        "line 13: site[1].names[1]: name `example.com` is there already, in line 5; \
         one listener serves a name from one site, so remove one of them"
    );
}

#[test]
fn values_that_mean_nothing_are_refused_with_a_remedy() {
    for (line, instead, words) in [
        (
            "\"0.0.0.0:443\"",
            "\"0.0.0.0\"",
            "is not an address with a port",
        ),
        ("\"0.0.0.0:443\"", "\"0.0.0.0:0\"", "has port 0"),
        (
            "\"0.0.0.0:443\"",
            "\"[::]:443\"",
            "address `[::]:443` is there already",
        ),
        ("\"10.0.0.5:8080\"", "\"app\"", "has no port"),
        ("\"10.0.0.5:8080\"", "\"app:0\"", "has no port"),
        ("\"10.0.0.5:8080\"", "\"app:http\"", "has no port"),
        ("\"10.0.0.5:8080\"", "\"http://app:80\"", "is a URL"),
        ("\"10.0.0.5:8080\"", "\"::1:80\"", "without brackets"),
        ("\"10.0.0.5:8080\"", "\"10.0.0.256:80\"", "no valid host"),
        (
            "\"10.0.0.5:8080\"",
            "\"unix:app.sock\"",
            "not an absolute path",
        ),
        ("\"10.0.0.5:8080\"", "[]", "at least one entry"),
        (
            "\"10.0.0.5:8080\"",
            "[\"a:1\", \"A:1\"]",
            "backend `A:1` is there already",
        ),
        (
            "\"example.com\"",
            "\"10.0.0.1\"",
            "cannot ask for addresses",
        ),
        (
            "\"example.com\"",
            "\"a.*.com\"",
            "not the whole first label",
        ),
        (
            "cert = \"/c.pem\"\n",
            "",
            "`key` is there but `cert` is not",
        ),
        ("key = \"/c.key\"\n", "", "`cert` is there but `key` is not"),
        (
            "cert = \"/c.pem\"\nkey = \"/c.key\"\n",
            "",
            "has no certificate",
        ),
        (
            "cert = ",
            "certificates = [{ cert = \"/x\", key = \"/y\" }]\ncert = ",
            "exclude each other",
        ),
        (
            "names",
            "alpn = [\"\"]\nnames",
            "is not an ALPN protocol name",
        ),
        (
            "names",
            "listen = [\"pubic\"]\nnames",
            "no listener `pubic`; did you mean `public`?",
        ),
        (
            "names",
            "ocsp = { responder = \"ftp://x\" }\nnames",
            "is not the URL of a responder",
        ),
        (
            "names",
            "ocsp = { margin = 0.99 }\nnames",
            "write a number from 0.05 to 0.95",
        ),
        (
            "names",
            "ocsp = { policy = \"hart\" }\nnames",
            "write one of soft, hard",
        ),
        (
            "names",
            "ocsp = 1\nnames",
            "must be true or false or a table",
        ),
        (
            "[[site]]",
            "default_site = \"exampel.com\"\n[[site]]",
            "no site `exampel.com`; did you mean",
        ),
        (
            "[[site]]",
            "proxy_protocol_from = [\"10.0.0.0/33\"]\n[[site]]",
            "is not a network",
        ),
        (
            "[[site]]",
            "ciphers = [\"TLS13_AES_128_GCM_SHA265\"]\n[[site]]",
            "did you mean `TLS13_AES_128_GCM_SHA256`?",
        ),
        (
            "[[site]]",
            "groups = [\"X25519\", \"X25519\"]\n[[site]]",
            "group `X25519` is there already",
        ),
        (
            "[[site]]",
            "groups = [\"X25519MLKEM768\"]\n[[site]]",
            "can be used by TLS 1.2",
        ),
        (
            "[[site]]",
            "min_version = \"1.3\"\nciphers = [\"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\"]\n[[site]]",
            "belongs to TLS 1.3",
        ),
        (
            "[[site]]",
            "tickets = 9\n[[site]]",
            "write a number from 0 to 8",
        ),
        (
            "[[site]]",
            "[admin]\nlisten = \"0.0.0.0:9443\"\n[[site]]",
            "is not a loopback address",
        ),
        (
            "[[site]]",
            "[admin]\nlisten = true\n[[site]]",
            "must be a string or false",
        ),
        (
            "[[site]]",
            "[log]\nlevel = \"inof\"\n[[site]]",
            "is not a log level",
        ),
        (
            "[[site]]",
            "[egress]\nuser = \"a b\"\n[[site]]",
            "is not a user",
        ),
        (
            "[listen.public]",
            "cache_dir = \"cache\"\n[listen.public]",
            "not an absolute path",
        ),
        (
            "[listen.public]",
            "[listen.\"a b\"]",
            "cannot name a listener",
        ),
    ] {
        let told = refusal_with(line, instead);
        assert!(
            told.contains(words),
            "{instead}\n  told: {told}\n  not:  {words}"
        );
        assert!(told.starts_with("line "), "{told}");
    }
}

#[test]
fn the_schema_describes_every_key() {
    fn check(path: &str, table: &serde_json::Value) {
        for (key, value) in table["properties"].as_object().into_iter().flatten() {
            let text = value["description"].as_str().unwrap_or_default();
            assert!(text.len() > 10, "{path}{key} is not described");
            check(&format!("{path}{key}."), value);
            check(&format!("{path}{key}."), &value["items"]);
            check(&format!("{path}{key}."), &value["additionalProperties"]);
        }
    }
    let schema = schema();
    check("", &schema);
    assert!(!schema.to_string().contains("null"), "TOML has no null");
    assert!(
        !schema.to_string().contains("$ref"),
        "the checker follows no references"
    );
}

#[test]
fn the_cost_of_a_site_does_not_grow_with_their_number() {
    let file = |sites: usize| {
        let site = |i| {
            format!(
                "[[site]]\nnames = [\"a{i}.de\", \"*.a{i}.de\"]\ncert = \"/{i}\"\nkey = \"/{i}\"\nbackend = \"b:1\"\n"
            )
        };
        let sites: String = (0..sites).map(site).collect();
        format!("[listen.public]\naddress = \"[::]:443\"\n{sites}")
    };
    let cost = |sites: usize| {
        let text = file(sites);
        let started = std::time::Instant::now();
        assert_eq!(parse(&text).sites.len(), sites);
        started.elapsed() / u32::try_from(sites).expect("small")
    };
    // The best of several, so that a busy machine does not decide. A quadratic part makes it 16.
    let best = |sites: usize| (0..3).map(|_| cost(sites)).min().expect("three");
    let (few, many) = (best(500), best(8000));
    assert!(many < few * 6, "{few:?} a site of few, {many:?} of many");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = Config::parse(&text).map_err(|error| error.to_string());
    }

    #[test]
    fn no_damage_makes_it_panic(cut in any::<prop::sample::Index>(), with in "[\\[\\]=\"'{}#a-z0-9:.,*\n -]{0,12}", len in 0usize..20) {
        let text = format!("{SMALL}alpn = [\"h2\"]\nocsp = {{ skew = \"5s\" }}\n[limits]\nread_buffer = 0x10000\n");
        let at = cut.index(text.len());
        let damaged = [&text[..at], &with, text.get(at + len..).unwrap_or("")].concat();
        if let Err(error) = Config::parse(&damaged) {
            let unreadable = |p: &Problem| matches!(p.fault, Fault::Unreadable(_));
            prop_assert!(!error.problems().iter().any(unreadable), "{}", error);
        }
    }

    #[test]
    fn no_value_makes_it_panic(key in "(workers|user|cache_dir|limits|timeouts|site|listen|ocsp|admin|log|egress)(\\.(listen|idle|x|margin|skew|level))?", value in "(-?[0-9]{1,25}|[0-9]\\.[0-9]e[0-9]{1,3}|nan|inf|true|false|\"[^\"\\\\\n]{0,9}\"|\\[\\]|\\[\\[1\\]\\]|\\{\\}|1979-05-27)") {
        if let Err(error) = Config::parse(&format!("{key} = {value}\n{SMALL}")) {
            let unreadable = |p: &Problem| matches!(p.fault, Fault::Unreadable(_));
            prop_assert!(!error.problems().iter().any(unreadable), "{}", error);
        }
    }
}
