//! Which core a connection reaches.

use std::time::Duration;

use clinch_tests::backend::Backend;
use clinch_tests::hello::{self, Answer};
use clinch_tests::network::Network;
use clinch_tests::process::{self, Clinch};
use clinch_tests::setup::Setup;
use clinch_tests::{PROMPT, eventually, skip};

use crate::scene::{NAMES, PORT, rounds, scene};

#[test]
fn each_name_reaches_its_core_with_its_tcp_options() {
    let scene = scene!("mode = \"kernel\"");
    scene.wait_for_mode("kernel");
    for address in scene.network.addresses(PORT) {
        scene.reach_their_core(address, 100);
        let options = scene.options(address);
        for option in ["ts", "sack", "wscale:"] {
            assert!(
                options.contains(option),
                "{address}: no {option} in {options}"
            );
        }
    }
    assert_eq!(scene.of_workers("handed_over"), [0, 0]);
    assert_eq!(scene.of_workers("landed"), [0, 0], "the plugs were in");
    // Two families, four names, and the two connections that were looked at.
    scene.wait_for_event("steered", 802);
    assert_eq!(scene.netstat("SyncookiesFailed"), 0);
    assert!(scene.netstat("SyncookiesRecv") >= 802);
}

#[test]
fn wildcards_lead_to_the_core_of_their_site() {
    let scene = scene!("mode = \"kernel\"");
    scene.wait_for_mode("kernel");
    let names = ["x.wild.test", "y.wild.test", "Z.WILD.TEST"];
    for address in scene.network.addresses(PORT) {
        scene.all_on_home("*.wild.test", 30, || {
            scene.handshakes(address, &names, 10);
        });
    }
    scene.wait_for_event("steered", 60);
    // One label more is not the wildcard's.
    let [v4, _] = scene.network.addresses(PORT);
    let client = scene.client.clone();
    let refused = scene
        .network
        .visit(|| client.connect(v4, "x.y.wild.test").map(drop));
    refused.expect_err("unrecognized_name");
    scene.wait_for_event("hash_unknown_name", 1);
}

#[test]
fn clients_without_timestamps_reach_their_core_through_user_space() {
    let scene = scene!("mode = \"kernel\"");
    scene.wait_for_mode("kernel");
    scene.network.set(false, "net.ipv4.tcp_timestamps", 0);
    for address in scene.network.addresses(PORT) {
        scene.reach_their_core(address, 100);
        let options = scene.options(address);
        for option in ["sack", "wscale:"] {
            assert!(
                options.contains(option),
                "{address}: no {option} in {options}"
            );
        }
    }
    assert!(scene.of_workers("handed_over").iter().sum::<u64>() > 0);
    assert_eq!(scene.netstat("SyncookiesRecv"), 0);
}

#[test]
fn an_overloaded_home_passes_new_connections_to_the_next_choice() {
    let scene = scene!("mode = \"kernel\"");
    scene.wait_for_mode("kernel");
    let [v4, _] = scene.network.addresses(PORT);
    let home = scene.homes()["a.test"];
    let client = scene.client.clone();
    let connect = || client.connect(v4, "a.test").expect("a handshake");
    // More than 256, and all on one of two workers: more than 1.25 times the mean.
    let held: Vec<_> = scene
        .network
        .visit(|| (0..300).map(|_| connect()).collect());
    eventually("all are held by the home", PROMPT, || {
        let active = scene.of_workers("active");
        (active[home] > 256).then_some(())
    });
    eventually("one goes to the next choice", PROMPT, || {
        scene.handshakes(v4, &["a.test"], 1);
        (scene.event("moved") > 0).then_some(())
    });
    // A connection that was moved stays there: the worker that got it does not hand it back.
    let moved = scene.of_workers("accepted")[1 - home];
    scene.handshakes(v4, &["a.test"], 20);
    let after = eventually("all are accepted", PROMPT, || {
        let after = scene.of_workers("accepted")[1 - home];
        (after >= moved + 20).then_some(after)
    });
    assert_eq!(after, moved + 20);
    drop(held);
    eventually("the home is itself again", PROMPT, || {
        let moved = scene.event("moved");
        scene.handshakes(v4, &["a.test"], 1);
        std::thread::sleep(Duration::from_millis(300));
        (scene.event("moved") == moved).then_some(())
    });
}

#[test]
fn a_confined_site_stays_on_its_core_and_a_shared_one_uses_two() {
    let mut scene = scene!("mode = \"kernel\"");
    scene.wait_for_mode("kernel");
    let [v4, _] = scene.network.addresses(PORT);
    for core in [0, 1] {
        scene.rewrite_sites(&format!("cores = [{core}]"));
        scene.reload();
        eventually("all are confined", PROMPT, || {
            scene
                .homes()
                .values()
                .all(|&home| home == core)
                .then_some(())
        });
        scene.reach_their_core(v4, 20);
    }
    scene.rewrite_sites("core_share = 2");
    scene.reload();
    eventually("spread", PROMPT, || {
        (scene.steering()["table"][0]["share"] == 2).then_some(())
    });
    let before = scene.of_workers("handshakes");
    scene.handshakes(v4, &["a.test"], 60);
    eventually("both have some", PROMPT, || {
        let after = scene.of_workers("handshakes");
        after
            .iter()
            .zip(&before)
            .all(|(after, before)| after - before > 5)
            .then_some(())
    });
}

#[test]
fn plain_http_gets_its_refusal_and_an_unknown_name_a_reset() {
    let scene = scene!("mode = \"kernel\"\nunknown_sni = \"refuse-early\"");
    scene.wait_for_mode("kernel");
    let client = scene.client.clone();
    for (at, address) in scene.network.addresses(PORT).into_iter().enumerate() {
        let (http, strange) = scene.network.visit(|| {
            let http = hello::send(address, b"GET / HTTP/1.1\r\n\r\n");
            (http, client.connect(address, "nobody.test").map(drop))
        });
        let Ok(Answer::Bytes(http)) = http else {
            panic!("{http:?}")
        };
        assert!(http.starts_with(b"HTTP/1.1 400"), "{http:?}");
        let error = strange.expect_err("refused");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        scene.wait_for_event("refused_early", at as u64 + 1);
    }
    // No process woke for them: the two accepted ones are those that spoke HTTP.
    assert_eq!(scene.of_workers("accepted").iter().sum::<u64>(), 2);
}

#[test]
fn steering_show_prints_mode_table_workers_and_counters() {
    let scene = scene!("mode = \"kernel\"");
    scene.wait_for_mode("kernel");
    scene.handshakes(scene.network.addresses(PORT)[0], &NAMES, 2);
    scene.wait_for_event("steered", 8);
    let admin = scene.clinch.admin().display().to_string();
    let page = process::clinch(&["steering", "show", "--admin", &admin]);
    assert_eq!(page.code, Some(0), "{}", page.text);
    page.has("mode kernel\n")
        .has("5 names in the kernel, 0 left out; 8 plugs put in")
        .has("worker 0: ")
        .has("worker 1: ")
        .has(" handed over, ")
        .has("steered 8")
        .has("landing ")
        .has("hash_no_timestamps 0")
        .has("refused_early 0");
    for name in NAMES {
        let home = scene.homes()[name];
        let next = 1 - home;
        page.has(&format!("{name} -> [{home}, {next}], spread among 1"));
    }
    let json = process::clinch(&["steering", "show", "--json", "--admin", &admin]);
    let json: serde_json::Value = serde_json::from_str(&json.text).expect("JSON");
    assert_eq!(json["steering"]["mode"], "kernel");
    assert_eq!(json["workers"].as_array().map(Vec::len), Some(2));
}

/// What a name costs the kernel at most, with the room that is kept for as many again. The figure
/// stands in docs/STEERING.md.
const BYTES_PER_NAME: u64 = 160;

#[test]
fn very_many_names_take_a_stated_amount_of_kernel_memory() {
    let Some(network) = Network::enter() else {
        skip!("network namespaces need root and iproute2");
    };
    let names = rounds(40_000, 1_000_000);
    let (setup, _backend) = with_names(names);
    let mut clinch = Clinch::start(
        &setup.write_config(),
        &setup.admin_path(),
        &process::Start {
            impatient: true,
            ..process::Start::default()
        },
    );
    // A million names of text take a debug build a while to read.
    eventually("ready", Duration::from_secs(300), || {
        assert!(!clinch.has_ended(), "clinch ended");
        clinch_tests::metrics::ask(clinch.admin(), "/readyz")
            .ok()
            .and_then(|answer| (answer.status == 200).then_some(()))
    });
    eventually("all names are in the kernel", PROMPT, || {
        let steering = &clinch.status()["steering"];
        (steering["names"] == names && steering["mode"] == "kernel").then_some(())
    });
    let held = map_bytes(clinch.pid());
    println!(
        "{names} names: {held} bytes in the kernel, {} each",
        held / names as u64
    );
    assert!(held > 0, "the kernel says what its maps take");
    // The least room is for 65,536 names, whose index is there from the start.
    assert!(held < (names as u64) * BYTES_PER_NAME + (2 << 20), "{held}");
    let address = network.addresses(PORT)[0];
    let client = setup.client();
    network.visit(|| {
        for n in [0, names / 2, names - 1] {
            let name = format!("n{n}.s{}.test", n % SITES);
            client
                .connect(address, &name)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    });
}

/// Sites that share the names.
const SITES: usize = 10;

fn with_names(names: usize) -> (Setup, Backend) {
    let mut setup = Setup::new();
    setup.address = ([0, 0, 0, 0], PORT).into();
    setup.tables = "[steering]\nmode = \"kernel\"\n".to_owned();
    let backend = Backend::echo();
    for site in 0..SITES {
        let issued = setup
            .authority
            .issue(&setup.leaf(&format!("*.s{site}.test")));
        let files = setup.write(&issued.expect("a sound specification"));
        let of_site: Vec<String> = (site..names)
            .step_by(SITES)
            .map(|n| format!("n{n}.s{site}.test"))
            .collect();
        let of_site: Vec<&str> = of_site.iter().map(String::as_str).collect();
        setup.site_of(&of_site, &files, &[backend.written()], "ocsp = false");
    }
    (setup, backend)
}

/// What the hash maps of a process take of the kernel's memory.
fn map_bytes(pid: u32) -> u64 {
    let folder = format!("/proc/{pid}/fdinfo");
    let files = std::fs::read_dir(folder).expect("it runs").flatten();
    let value = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().parse::<u64>().ok()
    };
    let of_map = |text: String| {
        // BPF_MAP_TYPE_HASH
        (value(&text, "map_type:") == Some(1))
            .then(|| value(&text, "memlock:"))
            .flatten()
    };
    files
        .filter_map(|file| std::fs::read_to_string(file.path()).ok())
        .filter_map(of_map)
        .sum()
}
