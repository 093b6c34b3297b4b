//! The way to the responder as the configuration has it: through a real proxy (tinyproxy), over https
//! (nginx), by DNS servers of one's own, around a dead IPv6 route; and the ways that are closed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clinch::cli::demo::authority::{Issued, LeafSpec};
use clinch_tests::backend::Backend;
use clinch_tests::dns::{Dns, Lookup};
use clinch_tests::network::Network;
use clinch_tests::peers::{Said, present};
use clinch_tests::process::clinch;
use clinch_tests::setup::{Setup, assert_stapled};
use clinch_tests::{PROMPT, eventually, place, skip};

const REFUSALS: &str = "clinch_egress_refusals_total";
const SITE: &str = "a.example";

/// A program that serves until it is dropped.
struct Server(Child);

impl Server {
    /// Starts it, and waits until it listens.
    fn start(command: &mut Command, address: SocketAddr) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let server = Self(child.expect("it is installed"));
        eventually("the server listens", PROMPT, || {
            TcpStream::connect(address).ok()
        });
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A site whose certificate names the responder so.
fn site_of(setup: &mut Setup, backend: &Backend, responder: &str) -> Issued {
    let spec = LeafSpec {
        ocsp_urls: vec![responder.to_owned()],
        ..setup.leaf(SITE)
    };
    setup.site_with(&spec, backend.written(), "")
}

/// tinyproxy at a fresh address, with further lines of its configuration.
fn tinyproxy(directory: &Path, lines: &str) -> (Server, SocketAddr) {
    let address = place::fresh();
    let file = directory.join("tinyproxy.conf");
    let (ip, port) = (address.ip(), address.port());
    let text = format!(
        "Port {port}\nListen {ip}\nTimeout 20\nMaxClients 20\nAllow 127.0.0.0/8\nLogLevel Error\n{lines}\n"
    );
    std::fs::write(&file, text).expect("in our own directory");
    let mut command = Command::new("tinyproxy");
    command.arg("-d").arg("-c").arg(&file);
    (Server::start(&mut command, address), address)
}

/// nginx that speaks TLS as `ocsp.test` and passes everything on to the responder.
fn https(setup: &mut Setup) -> (Server, SocketAddr) {
    let address = place::fresh();
    let spec = LeafSpec {
        names: vec!["ocsp.test".to_owned()],
        ..LeafSpec::default()
    };
    let issued = setup.authority.issue(&spec).expect("a sound specification");
    let files = setup.write(&issued);
    let dir = setup.dir().join("nginx");
    std::fs::create_dir(&dir).expect("in our own directory");
    let (at, cert, key) = (dir.display(), files.cert.display(), files.key.display());
    let behind = setup.url.trim_end_matches("/ocsp");
    let text = format!(
        "daemon off; master_process off; pid {at}/pid; error_log stderr; events {{}}\n\
         http {{ access_log off; client_body_temp_path {at}/a; proxy_temp_path {at}/b;\n\
         fastcgi_temp_path {at}/c; uwsgi_temp_path {at}/d; scgi_temp_path {at}/e;\n\
         server {{ listen {address} ssl; ssl_certificate {cert}; ssl_certificate_key {key};\n\
         location / {{ proxy_pass {behind}; }} }} }}\n"
    );
    let file = dir.join("nginx.conf");
    std::fs::write(&file, text).expect("in our own directory");
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-c").arg(&file).stderr(Stdio::null());
    (Server::start(&mut command, address), address)
}

/// A DNS server that knows these names, and the line of `[egress]` that has it asked.
fn dns(names: &[(&str, &[&str])]) -> String {
    let names: Vec<(&str, Lookup)> = names
        .iter()
        .map(|(name, addresses)| {
            let addresses = addresses.iter().map(|text| text.parse::<IpAddr>());
            let addresses = addresses.map(|address| address.expect("an address"));
            (*name, Lookup::Addresses(addresses.collect()))
        })
        .collect();
    let (address, _) = server(&names);
    format!("resolvers = [\"{address}\"]\n")
}

/// A DNS server that answers so.
fn server(names: &[(&str, Lookup)]) -> (SocketAddr, Dns) {
    let address = place::fresh();
    let dns = Dns::start(address).expect("a fresh address");
    for (name, lookup) in names {
        dns.set(name, lookup.clone());
    }
    (address, dns)
}

/// A site whose responder has the name `ocsp.test`, and its address.
fn site_by_name(setup: &mut Setup, backend: &Backend) -> (Issued, IpAddr) {
    let at = setup.url.trim_start_matches("http://");
    let at: SocketAddr = at.trim_end_matches("/ocsp").parse().expect("an address");
    let url = format!("http://ocsp.test:{}/ocsp", at.port());
    (site_of(setup, backend, &url), at.ip())
}

fn via(setup: &Setup) -> bool {
    let requests = setup.responder.requests();
    let headers = &requests.first().expect("a request").headers;
    headers.iter().any(|(name, _)| name == "via")
}

#[test]
fn a_proxy_is_asked_for_the_whole_url() {
    if !present("tinyproxy") {
        skip!("tinyproxy is not installed");
    }
    let (echo, mut setup) = (Backend::echo(), Setup::new());
    let (_proxy, address) = tinyproxy(setup.dir(), "BasicAuth user password");
    setup.egress += &format!("proxy = \"http://us%65r:password@{address}\"\n");
    let url = setup.url.clone();
    let issued = site_of(&mut setup, &echo, &url);
    let clinch = setup.start();
    assert_stapled(&setup.connect(SITE), &issued);
    assert!(via(&setup), "the proxy says that it was there");
    assert!(!clinch.log().contains("password"), "{}", clinch.log());
    clinch.stop();
}

#[test]
fn a_proxy_connects_through_where_it_is_told_to_and_may() {
    if !present("tinyproxy") {
        skip!("tinyproxy is not installed");
    }
    let echo = Backend::echo();
    for allowed in [true, false] {
        let mut setup = Setup::new();
        let url = setup.url.clone();
        let (_, port) = url
            .trim_end_matches("/ocsp")
            .rsplit_once(':')
            .expect("it has one");
        let port = if allowed { port } else { "443" };
        let (_proxy, address) = tinyproxy(setup.dir(), &format!("ConnectPort {port}"));
        setup.egress += &format!("proxy = \"http://{address}\"\nproxy_tunnel = true\n");
        let issued = site_of(&mut setup, &echo, &url);
        let clinch = setup.start();
        if allowed {
            assert_stapled(&setup.connect(SITE), &issued);
            assert!(!via(&setup), "the proxy saw nothing of the request");
        } else {
            clinch.wait_for_count(REFUSALS, &["reason=\"proxy\""], 1.0);
            clinch.wait_for_log("it answered 403");
            assert_eq!(setup.responder.count(), 0);
        }
        clinch.stop();
    }
}

#[test]
fn an_https_responder_is_verified_against_the_trust_file() {
    if !Path::new("/usr/sbin/nginx").exists() {
        skip!("nginx is not installed");
    }
    let echo = Backend::echo();
    let mut setup = Setup::new();
    let (_nginx, address) = https(&mut setup);
    let ip = address.ip().to_string();
    setup.egress += &dns(&[("ocsp.test", &[&ip]), ("other.test", &[&ip])]);
    let trusting = format!("trust = {:?}\n", setup.root_path());
    let plain = setup.egress.clone();
    let url = format!("https://ocsp.test:{}/ocsp", address.port());
    let issued = site_of(&mut setup, &echo, &url);

    setup.egress = format!("{plain}{trusting}");
    let clinch = setup.start();
    assert_stapled(&setup.connect(SITE), &issued);
    clinch.stop();

    // Its CA is not among Mozilla's; it is another host than the one asked for.
    std::fs::remove_dir_all(setup.cache()).expect("ours");
    std::fs::create_dir(setup.cache()).expect("ours");
    let other = format!("https://other.test:{}/ocsp", address.port());
    for (egress, url) in [
        (plain.clone(), &url),
        (format!("{plain}{trusting}"), &other),
    ] {
        setup.egress = egress;
        setup.clear_sites();
        site_of(&mut setup, &echo, url);
        let clinch = setup.start();
        clinch.wait_for_count(REFUSALS, &["reason=\"tls\""], 1.0);
        clinch.wait_for_log("invalid peer certificate");
        assert!(setup.connect(SITE).staple.is_none());
        clinch.stop();
    }
}

#[test]
fn of_a_names_addresses_only_those_that_are_allowed_are_connected_to() {
    let (echo, mut setup) = (Backend::echo(), Setup::new());
    let at: SocketAddr = setup
        .url
        .trim_start_matches("http://")
        .trim_end_matches("/ocsp")
        .parse()
        .expect("an address");
    let good = at.ip().to_string();
    setup.egress += &dns(&[
        (
            "mixed.test",
            &["169.254.169.254", "192.168.0.1", &good, "::ffff:127.0.0.1"],
        ),
        ("near.test", &["192.168.0.1", "169.254.169.254"]),
    ]);
    let issued = site_of(
        &mut setup,
        &echo,
        &format!("http://mixed.test:{}/ocsp", at.port()),
    );
    let spec = LeafSpec {
        ocsp_urls: vec![format!("http://near.test:{}/ocsp", at.port())],
        ..setup.leaf("b.example")
    };
    setup.site_with(&spec, echo.written(), "");
    let clinch = setup.start();
    assert_stapled(&setup.connect(SITE), &issued);
    clinch.wait_for_count(REFUSALS, &["reason=\"address\""], 1.0);
    clinch.wait_for_log("has the address 192.168.0.1, a private address");
    clinch.stop();
}

#[test]
fn dns_servers_that_are_silent_or_fail_are_passed_over() {
    let (echo, mut setup) = (Backend::echo(), Setup::new());
    let (issued, ip) = site_by_name(&mut setup, &echo);
    let good = Lookup::Addresses(vec![ip]);
    let faults = [Lookup::Silent, Lookup::Failure, Lookup::Silent, good];
    let servers = faults.map(|lookup| server(&[("ocsp.test", lookup)]));
    let addresses = servers.each_ref().map(|(address, _)| address.to_string());
    setup.egress +=
        &format!("resolvers = {addresses:?}\nresolver_timeout = \"300ms\"\nttl_min = \"0s\"\n");
    let started = setup.start();
    assert_stapled(&setup.connect(SITE), &issued);
    let asked = servers.each_ref().map(|(_, dns)| dns.queries());
    assert!(asked.iter().all(|asked| *asked > 0), "{asked:?}");

    // Whichever answered is asked first, and alone.
    let said = fetch(&setup);
    assert_eq!(said.code, Some(0), "{}", said.text);
    let again = servers.each_ref().map(|(_, dns)| dns.queries());
    assert_eq!(again[..3], asked[..3]);
    started.stop();
}

/// Has the responder asked now.
fn fetch(setup: &Setup) -> Said {
    let admin = format!("unix:{}", setup.admin_path().display());
    clinch(&["ocsp", "fetch", SITE, "--admin", &admin])
}

#[test]
fn an_answer_that_does_not_fit_is_asked_for_over_tcp() {
    let (echo, mut setup) = (Backend::echo(), Setup::new());
    let (issued, ip) = site_by_name(&mut setup, &echo);
    let (address, _) = server(&[("ocsp.test", Lookup::Truncated(vec![ip]))]);
    setup.egress += &format!("resolvers = [\"{address}\"]\n");
    let clinch = setup.start();
    assert_stapled(&setup.connect(SITE), &issued);
    clinch.stop();
}

#[test]
fn a_name_is_looked_up_again_within_the_bounds_of_the_configuration() {
    for (bounds, again) in [("ttl_min = \"1h\"", false), ("ttl_min = \"0s\"", true)] {
        let (echo, mut setup) = (Backend::echo(), Setup::new());
        let (issued, ip) = site_by_name(&mut setup, &echo);
        // One of each family, because that there is none would be asked again.
        let both = vec![Ipv6Addr::LOCALHOST.into(), ip];
        let (address, dns) = server(&[("ocsp.test", Lookup::Addresses(both))]);
        setup.egress += &format!("resolvers = [\"{address}\"]\n{bounds}\n");
        let started = setup.start();
        assert_stapled(&setup.connect(SITE), &issued);
        let asked = dns.queries();
        // The answer holds for a second.
        std::thread::sleep(Duration::from_millis(1100));
        let said = fetch(&setup);
        assert_eq!(said.code, Some(0), "{}", said.text);
        assert_eq!(dns.queries() > asked, again, "{bounds}");
        started.stop();
    }
}

#[test]
fn nothing_near_is_asked_for_a_certificate_unless_it_is_allowed() {
    let (echo, mut setup) = (Backend::echo(), Setup::new());
    setup.egress = "ports = [\"1-65535\"]\n".to_owned();
    let url = setup.url.clone();
    site_of(&mut setup, &echo, &url);
    let clinch = setup.start();
    clinch.wait_for_count(REFUSALS, &["reason=\"address\""], 1.0);
    clinch.wait_for_log("a loopback address, where no responder is asked");
    assert_eq!(setup.responder.count(), 0);
    clinch.wait_for_log("will not be asked");
    clinch.stop();

    // The operator may name the same one.
    setup.egress = String::new();
    setup.clear_sites();
    let more = format!("ocsp = {{ responder = {url:?} }}");
    let issued = setup.site(SITE, echo.written(), &more);
    let clinch = setup.start();
    assert_stapled(&setup.connect(SITE), &issued);
    clinch.stop();
}

#[test]
fn a_dead_ipv6_route_costs_a_quarter_of_a_second() {
    let Some(network) = Network::enter() else {
        skip!("network namespaces need root and ip");
    };
    // Packets arrive there and are never answered.
    let drop = ["-A", "INPUT", "-p", "tcp", "-j", "DROP"];
    network.on_client("ip6tables", &drop);
    let (echo, mut setup) = (Backend::echo(), Setup::new());
    let url = setup.url.trim_start_matches("http://").to_owned();
    let at: SocketAddr = url.trim_end_matches("/ocsp").parse().expect("an address");
    assert_ne!(at.ip(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    setup.egress += &dns(&[("ocsp.test", &["fd77::2", &at.ip().to_string()])]);
    let issued = site_of(
        &mut setup,
        &echo,
        &format!("http://ocsp.test:{}/ocsp", at.port()),
    );
    let clinch = setup.start();
    assert_stapled(&setup.connect(SITE), &issued);
    let took = clinch.count("clinch_ocsp_fetch_duration_seconds_sum", &[]);
    assert!((0.25..3.0).contains(&took), "{took} s");
    clinch.stop();
}
