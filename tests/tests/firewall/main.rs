//! The pinned egress process, with the packet filters of Debian in network namespaces: what its user
//! reaches and what not, what others reach, and what becomes of rules that somebody takes away; clinch
//! itself behind these rules.

mod scene;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clinch::cli::demo::authority::LeafSpec;
use clinch_tests::backend::Backend;
use clinch_tests::dns::Lookup;
use clinch_tests::process::clinch;
use clinch_tests::responder::{Answer, Mode, Responder};
use clinch_tests::setup::{Setup, assert_stapled};
use clinch_tests::{PROMPT, eventually, skip};
use scene::{EGRESS, FORMATS, OTHER, Scene, ips, reaches, survey};

/// What the egress user must reach, and what not, while these and only these are open.
#[track_caller]
fn assert_pinned(open: &[(&str, u16)]) {
    let hosts = [
        "10.77.0.2",
        "10.77.0.3",
        "10.77.0.4",
        "fd77::2",
        "fd77::3",
        "fd77::4",
    ];
    let mut places = Vec::new();
    let mut expected = Vec::new();
    for host in hosts {
        for port in [8880, 8881] {
            places.push(("tcp", host, port));
            expected.push(open.contains(&(host, port)));
        }
    }
    assert_eq!(survey(OTHER, &places), vec![true; places.len()], "others");
    // DNS; another port of that server; another server; this machine.
    places.extend([("udp", "10.77.0.53", 53), ("udp", "10.77.0.53", 123)]);
    places.extend([("udp", "10.77.0.2", 53), ("udp", "127.0.0.1", 53)]);
    expected.extend([true, false, false, false]);
    assert_eq!(survey(EGRESS, &places), expected, "egress at {places:?}");
}

/// The addresses that are there from the start.
const WRITTEN: [(&str, u16); 2] = [("10.77.0.2", 8880), ("fd77::2", 8880)];

macro_rules! scene {
    ($format:expr, $table:expr) => {
        match Scene::new($format, $table) {
            Some(scene) => scene,
            None => skip!("no network namespaces here (root and iproute2 are needed)"),
        }
    };
}

fn rendered_rules_pin_the_user(format: &'static str) {
    let scene = scene!(format, "socket = false\n");
    let before = scene.everything();
    let said = scene.firewall(&["render"]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    assert!(said.text.starts_with("# clinch "), "{}", said.text);
    scene.load(&said.text);
    let first = scene.everything();
    assert_pinned(&[&WRITTEN[..], &[("10.77.0.3", 8880), ("fd77::3", 8880)]].concat());
    assert!(scene.refused() > 0, "refusals are counted");

    scene.load(&said.text);
    assert_eq!(scene.everything(), first, "loaded again it replaces itself");
    let removed = scene.firewall(&["apply", "--remove"]);
    assert_eq!(removed.code, Some(0), "{}", removed.text);
    // The program itself makes the tables that it looks into.
    let left = scene.everything();
    assert!(!left.to_lowercase().contains("clinch"), "{left}");
    assert!(reaches(EGRESS, "tcp", "10.77.0.4", 8881), "let loose");
    if format == "nftables" {
        assert_eq!(left, before);
    }
}

#[test]
fn rules_rendered_for_nftables_pin_the_user() {
    rendered_rules_pin_the_user(FORMATS[0]);
}

#[test]
fn rules_rendered_for_iptables_nft_pin_the_user() {
    rendered_rules_pin_the_user(FORMATS[1]);
}

#[test]
fn rules_rendered_for_iptables_legacy_pin_the_user() {
    rendered_rules_pin_the_user(FORMATS[2]);
}

fn kept_rules_follow_what_is_asked(format: &'static str) {
    let mut scene = scene!(format, "hold = \"1s\"\nsocket = \"SOCKET\"\n");
    with_socket(&mut scene);
    let keeper = scene.keep();
    assert_pinned(&WRITTEN);
    let answer = scene.ask("moves.test", 8880, &["10.77.0.3", "fd77::3"], 600);
    assert_eq!(answer.trim(), r#"{"open":["10.77.0.3","fd77::3"]}"#);
    let moved = [&WRITTEN[..], &[("10.77.0.3", 8880), ("fd77::3", 8880)]].concat();
    assert_pinned(&moved);
    refuses_what_nobody_configured(&scene);

    // The answer changes, for two seconds with the hold; then the address is closed again.
    let begun = Instant::now();
    let answer = scene.ask("moves.test", 8880, &["10.77.0.4"], 1);
    assert_eq!(answer.trim(), r#"{"open":["10.77.0.4"]}"#);
    let to = ("10.77.0.4", 8880);
    assert!(reaches(EGRESS, "tcp", to.0, to.1), "open before the answer");
    eventually("it is closed when its time is over", PROMPT, || {
        (!reaches(EGRESS, "tcp", to.0, to.1)).then_some(())
    });
    assert!(begun.elapsed() > Duration::from_millis(1500), "not before");

    scene.flush();
    assert!(
        reaches(EGRESS, "tcp", "10.77.0.4", 8881),
        "the rules are gone"
    );
    eventually("the rules come back by themselves", PROMPT, || {
        (!reaches(EGRESS, "tcp", "10.77.0.4", 8881)).then_some(())
    });
    assert_pinned(&moved);
    scene.flush();
    let foreign = scene.add_foreign_rules();
    let answer = scene.ask("moves.test", 8880, &["10.77.0.4"], 600);
    assert_eq!(answer.trim(), r#"{"open":["10.77.0.4"]}"#);
    assert_pinned(&[&moved[..], &[to]].concat());
    drop(keeper);
    removes_its_own_alone(&scene, &foreign);
}

#[test]
fn rules_kept_in_nftables_follow_what_is_asked() {
    kept_rules_follow_what_is_asked(FORMATS[0]);
}

#[test]
fn rules_kept_in_iptables_nft_follow_what_is_asked() {
    kept_rules_follow_what_is_asked(FORMATS[1]);
}

#[test]
fn rules_kept_in_iptables_legacy_follow_what_is_asked() {
    kept_rules_follow_what_is_asked(FORMATS[2]);
}

fn refuses_what_nobody_configured(scene: &Scene) {
    for (host, port, address, part) in [
        ("evil.test", 8880, "10.77.0.4", "no certificate"),
        ("moves.test", 8881, "10.77.0.3", "no certificate"),
        ("moves.test", 8880, "10.78.0.1", "firewall.prefixes"),
        ("moves.test", 8880, "127.0.0.1", "firewall.prefixes"),
    ] {
        let answer = scene.ask(host, port, &[address], 600);
        assert!(
            answer.contains("refused") && answer.contains(part),
            "{answer}"
        );
    }
    for (user, heard) in [(65534, true), (EGRESS, false), (OTHER, false)] {
        let answer = std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                become_user(user);
                scene.ask("moves.test", 8880, &["10.77.0.3"], 1)
            });
            asking.join().expect("no panic")
        });
        assert_eq!(answer.contains("open"), heard, "{user}: {answer}");
    }
}

/// For the calling thread alone.
fn become_user(user: u32) {
    let user = rustix::process::Uid::from_raw(user);
    rustix::thread::set_thread_res_uid(user, user, user).expect("root may");
}

/// The rules outlive their keeper; taken out, nothing of them is left, and all that is not theirs.
fn removes_its_own_alone(scene: &Scene, foreign: &str) {
    assert!(!reaches(EGRESS, "tcp", "10.77.0.4", 8881), "still pinned");
    let said = scene.firewall(&["apply", "--remove", "--json"]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    let left = scene.everything();
    assert!(!left.to_lowercase().contains("clinch"), "{left}");
    assert!(left.contains(foreign), "{left}");
    assert!(reaches(EGRESS, "tcp", "10.77.0.4", 8881), "let loose");
    let again = scene.firewall(&["apply", "--remove"]);
    assert_eq!(
        (again.code, again.text.trim()),
        (Some(0), "nothing was there")
    );
}

#[test]
fn names_are_looked_up_where_nobody_asks() {
    let scene = scene!("nftables", "socket = false\n");
    let dry = scene.firewall(&["apply", "--dry-run", "--json"]);
    assert_eq!(dry.code, Some(0), "{}", dry.text);
    let plan: serde_json::Value = serde_json::from_str(&dry.text).expect("JSON alone");
    assert_eq!(plan["uid"], EGRESS);
    assert_eq!(plan["resolvers"][0], "10.77.0.53:53");
    assert_eq!(plan["open"].as_array().map(Vec::len), Some(4));
    assert!(
        !scene.everything().contains("clinch"),
        "nothing was changed"
    );

    let kept = scene.keep();
    assert_pinned(&[&WRITTEN[..], &[("10.77.0.3", 8880), ("fd77::3", 8880)]].concat());
    drop(kept);
    scene.dns.set("moves.test", Lookup::Failure);
    let once = scene.firewall(&["apply", "--once"]);
    assert_eq!(once.code, Some(3), "{}", once.text);
    assert!(
        once.text.contains("moves.test:8880 cannot be resolved"),
        "{}",
        once.text
    );
    assert_pinned(&WRITTEN);
}

#[test]
fn a_configuration_without_a_user_for_egress_is_refused_with_the_remedy() {
    let mut setup = Setup::new();
    setup.site("a.test", "127.0.0.1:9", "");
    let config = setup.write_config();
    let config = config.to_str().expect("UTF-8");
    for (top, egress) in [("", ""), ("user = \"4242\"\n", "user = \"4242\"\n")] {
        setup.top += top;
        setup.egress += egress;
        setup.write_config();
        let said = clinch(&["firewall", "render", "-c", config]);
        assert_eq!(said.code, Some(2), "{}", said.text);
        assert!(said.text.contains("set `egress.user`"), "{}", said.text);
    }
}

/// The socket's line of `[firewall]`.
fn with_socket(scene: &mut Scene) {
    let socket = scene.socket().display().to_string();
    scene.setup.tables = scene.setup.tables.replace("SOCKET", &socket);
    scene.setup.write_config();
}

/// A site whose responder is `ocsp.test`, which is at 10.77.0.3 and can move to 10.77.0.4.
struct Moving {
    issued: clinch::cli::demo::authority::Issued,
    first: Responder,
    second: Responder,
    _backend: Backend,
}

impl Moving {
    fn add_to(scene: &mut Scene) -> Self {
        let backend = Backend::echo();
        let spec = LeafSpec {
            ocsp_urls: vec![format!("http://ocsp.test:{OCSP}/ocsp")],
            ..scene.setup.leaf("b.test")
        };
        let issued = scene.setup.site_with(&spec, backend.written(), "");
        scene.setup.egress += "resolvers = [\"10.77.0.53\"]\nttl_min = \"0s\"\n";
        scene.setup.timeouts += "startup_wait = \"2s\"\n";
        let responder = |at: &str| {
            let at = SocketAddr::new(at.parse().expect("an address"), OCSP);
            let authority = Arc::clone(&scene.setup.authority);
            scene.network.visit(|| Responder::start(at, authority))
        };
        let (first, second) = (responder("10.77.0.3"), responder("10.77.0.4"));
        // It asks again six seconds later.
        first.set(Mode::Says(Answer::GoodFor(Duration::from_secs(8))));
        second.set(Mode::Says(Answer::GoodFor(Duration::from_secs(8))));
        scene
            .dns
            .set("ocsp.test", Lookup::Addresses(ips(&["10.77.0.3"])));
        Self {
            issued,
            first,
            second,
            _backend: backend,
        }
    }
}

/// Where the responders of [`Moving`] are.
const OCSP: u16 = 8882;

fn clinch_fetches_through_the_rules(format: &'static str) {
    let mut scene = scene!(format, "socket = \"SOCKET\"\nhold = \"2s\"\n");
    let site = Moving::add_to(&mut scene);
    with_socket(&mut scene);
    let keeper = scene.keep();
    let clinch = scene.setup.start();
    assert_stapled(&scene.setup.connect("b.test"), &site.issued);

    // It moves. Nothing is told; the next fetch finds out.
    scene
        .dns
        .set("ocsp.test", Lookup::Addresses(ips(&["10.77.0.4"])));
    site.second.wait_for(1);
    eventually("where it was is closed", PROMPT, || {
        (!reaches(EGRESS, "tcp", "10.77.0.3", OCSP)).then_some(())
    });
    assert_stapled(&scene.setup.connect("b.test"), &site.issued);

    // Somebody flushes everything; before the next connection the rules are there again.
    scene.flush();
    let asked = site.second.count();
    site.second.wait_for(asked + 1);
    assert!(!reaches(EGRESS, "tcp", "10.77.0.4", 8881), "pinned again");

    // Without a keeper nothing is opened; it comes back, and all goes on.
    drop(keeper);
    clinch.wait_for_log("cannot be asked at");
    let _keeper = scene.keep();
    let asked = site.second.count();
    site.second.wait_for(asked + 1);
    assert!(site.first.count() >= 1);
    clinch.stop();
}

#[test]
fn clinch_fetches_through_the_rules_of_nftables() {
    clinch_fetches_through_the_rules(FORMATS[0]);
}

#[test]
fn clinch_fetches_through_the_rules_of_iptables_nft() {
    clinch_fetches_through_the_rules(FORMATS[1]);
}

#[test]
fn clinch_fetches_through_the_rules_of_iptables_legacy() {
    clinch_fetches_through_the_rules(FORMATS[2]);
}

/// On a machine that lets nothing out, for iptables and, by the rule of docs/EGRESS.md, for nftables.
fn openings_are_for_egress_alone(format: &'static str) {
    let scene = scene!(format, "socket = false\n");
    let said = scene.firewall(&["render"]);
    scene.let_nothing_out();
    let open = [("tcp", "10.77.0.3", 8880), ("udp", "10.77.0.53", 53)];
    let others = [("tcp", "10.77.0.3", 8881), ("udp", "10.77.0.2", 53)];
    assert_eq!(survey(OTHER, &[open, others].concat()), [false; 4]);
    scene.load(&said.text);
    assert_eq!(survey(EGRESS, &open), [true; 2]);
    assert_eq!(survey(EGRESS, &others), [false; 2]);
    assert_eq!(survey(OTHER, &[open, others].concat()), [false; 4]);
}

#[test]
fn where_nothing_is_let_out_openings_of_nftables_are_for_egress_alone() {
    openings_are_for_egress_alone(FORMATS[0]);
}

#[test]
fn where_nothing_is_let_out_openings_of_iptables_nft_are_for_egress_alone() {
    openings_are_for_egress_alone(FORMATS[1]);
}

#[test]
fn where_nothing_is_let_out_openings_of_iptables_legacy_are_for_egress_alone() {
    openings_are_for_egress_alone(FORMATS[2]);
}

#[test]
fn with_a_proxy_the_proxy_is_all_that_is_reached() {
    let mut scene = scene!("nftables", "socket = false\n");
    scene.setup.egress += "proxy = \"http://10.77.0.4:8881\"\n";
    scene.setup.write_config();
    let said = scene.firewall(&["apply", "--once"]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    assert_pinned(&[("10.77.0.4", 8881)]);
}
