//! The pinned egress process, with the packet filters of Debian in network namespaces: what its user
//! reaches and what not, what others reach, and what becomes of rules that somebody takes away.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clinch_tests::dns::{Dns, Lookup};
use clinch_tests::network::Network;
use clinch_tests::peers::Said;
use clinch_tests::process::{binary, clinch};
use clinch_tests::setup::Setup;
use clinch_tests::{PROMPT, eventually, skip};

/// The user of the egress process, who needs no entry in the account database.
const EGRESS: u32 = 4242;

/// Somebody else.
const OTHER: u32 = 4243;

/// The keeper of the rules.
const KEEPER: u32 = 4244;

const FORMATS: [&str; 3] = ["nftables", "iptables-nft", "iptables-legacy"];

/// Two names with addresses of both families behind one wire, and a configuration that knows them.
struct Scene {
    setup: Setup,
    dns: Dns,
    format: &'static str,
    network: Network,
}

impl Scene {
    /// `None` where the machine has no namespaces. `table` has lines of `[firewall]`.
    fn new(format: &'static str, table: &str) -> Option<Self> {
        let network = Network::enter()?;
        for address in ["10.77.0.3/16", "10.77.0.4/16", "10.77.0.53/16"] {
            network.on_client("ip", &["addr", "add", address, "dev", "veth0"]);
        }
        for address in ["fd77::3/64", "fd77::4/64"] {
            let address = ["addr", "add", address, "dev", "veth0", "nodad"];
            network.on_client("ip", &address);
        }
        network.name_server("10.77.0.53");
        let dns = network.visit(|| {
            for at in ["0.0.0.0:8880", "[::]:8880", "0.0.0.0:8881", "[::]:8881"] {
                serve(at);
            }
            Dns::start(([10, 77, 0, 53], 53).into()).expect("root may listen")
        });
        dns.set(
            "moves.test",
            Lookup::Addresses(ips(&["10.77.0.3", "fd77::3"])),
        );
        let mut setup = Setup::new();
        let specification = clinch::cli::demo::authority::LeafSpec {
            ocsp_urls: vec![
                "http://moves.test:8880/ocsp".to_owned(),
                "http://10.77.0.2:8880/ocsp".to_owned(),
                "http://[fd77::2]:8880/".to_owned(),
            ],
            ..setup.leaf("a.test")
        };
        setup.site_with(&specification, "127.0.0.1:9", "");
        setup.top += "user = \"nobody\"\n";
        setup.egress += &format!("user = \"{EGRESS}\"\n");
        setup.tables = format!(
            "[firewall]\nformat = {format:?}\nprefixes = [\"10.77.0.0/16\", \"fd77::/64\"]\n{table}"
        );
        // The keeper is neither root nor the owner.
        std::fs::set_permissions(setup.dir(), PermissionsExt::from_mode(0o777)).expect("ours");
        setup.write_config();
        Some(Self {
            setup,
            dns,
            format,
            network,
        })
    }

    fn config(&self) -> String {
        let path = self.setup.dir().join("clinch.toml");
        path.to_str().expect("UTF-8").to_owned()
    }

    fn socket(&self) -> PathBuf {
        self.setup.dir().join("gate")
    }

    /// Runs `clinch firewall` to its end, with the name server of the scene.
    fn firewall(&self, arguments: &[&str]) -> Said {
        let config = self.config();
        let output = self
            .network
            .command(binary().to_str().expect("UTF-8"))
            .arg("firewall")
            .args(arguments)
            .args(["-c", &config])
            .output()
            .expect("ip is there");
        Said {
            code: output.status.code(),
            text: String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr),
        }
    }

    /// Loads rules as their header says.
    fn load(&self, rules: &str) {
        let path = self.setup.dir().join("rules");
        std::fs::write(&path, rules).expect("our own directory");
        let path = path.to_str().expect("UTF-8");
        match self.format {
            "nftables" => self.network.on_server("nft", &["-f", path]),
            _ => self.network.on_server("sh", &[path]),
        };
    }

    /// All rules of all packet filters, and all sets, without counters.
    fn everything(&self) -> String {
        let mut all = String::new();
        match self.format {
            "nftables" => all += &self.network.on_server("nft", &["-s", "list", "ruleset"]),
            program => {
                for program in [program.to_owned(), program.replacen("ip", "ip6", 1)] {
                    all += &self.network.on_server(&program, &["-S"]);
                }
                all += &self.network.on_server("ipset", &["save"]);
            }
        }
        all
    }

    /// How many packets were refused.
    fn refused(&self) -> u64 {
        let (program, arguments): (_, &[&str]) = match self.format {
            "nftables" => ("nft", &["list", "chain", "inet", "clinch_egress", "egress"]),
            program => (program, &["-nvxL", "CLINCH-EGRESS"]),
        };
        let listed = self.network.on_server(program, arguments);
        let line = listed
            .lines()
            .find(|line| line.contains("reject with") || line.contains("REJECT"));
        let words: Vec<&str> = line.expect("a rule").split_ascii_whitespace().collect();
        let count = match words.iter().position(|word| *word == "packets") {
            Some(at) => words[at + 1],
            None => words[0],
        };
        count.parse().expect("a number")
    }

    /// Somebody takes all rules of this packet filter away.
    fn flush(&self) {
        match self.format {
            "nftables" => {
                self.network.on_server("nft", &["flush", "ruleset"]);
            }
            program => {
                self.network.on_server(program, &["-F"]);
                self.network.on_server(program, &["-X"]);
            }
        }
    }

    /// Somebody else's rules, and what they are recognised by.
    fn add_foreign_rules(&self) -> String {
        let (program, rule) = match self.format {
            "nftables" => ("nft", "add table inet foreign"),
            program => (program, "-A OUTPUT -p udp -m udp --dport 9 -j DROP"),
        };
        let words: Vec<&str> = rule.split(' ').collect();
        self.network.on_server(program, &words);
        rule.trim_start_matches("add ").to_owned()
    }

    /// Keeps the rules, with the rights that its unit gives it.
    fn keep(&self) -> Kept {
        let rights = match self.format {
            "nftables" => vec![
                format!("--reuid={KEEPER}"),
                format!("--regid={KEEPER}"),
                "--clear-groups".to_owned(),
                "--inh-caps=-all,+net_admin".to_owned(),
                "--ambient-caps=-all,+net_admin".to_owned(),
                "--bounding-set=-all,+net_admin".to_owned(),
            ],
            _ => vec!["--bounding-set=-all,+net_admin,+net_raw".to_owned()],
        };
        let child = self
            .network
            .command("setpriv")
            .args(rights)
            .arg(binary())
            .args(["firewall", "apply", "-c", &self.config()])
            .stderr(Stdio::piped())
            .spawn()
            .expect("ip is there");
        Kept::ready(child)
    }

    /// What control would ask. The answer, as it stands on the wire.
    fn ask(&self, host: &str, port: u16, addresses: &[&str], ttl: u64) -> String {
        let mut stream = UnixStream::connect(self.socket()).expect("the keeper listens");
        let question = serde_json::json!({
            "host": host, "port": port, "addresses": addresses, "ttl": ttl,
        });
        // A stranger is not even read.
        let _ = writeln!(stream, "{question}");
        let mut answer = String::new();
        let _ = BufReader::new(stream).read_line(&mut answer);
        answer
    }
}

/// A running `clinch firewall apply`.
struct Kept {
    child: Child,
}

impl Kept {
    #[track_caller]
    fn ready(mut child: Child) -> Self {
        let log = BufReader::new(child.stderr.take().expect("piped"));
        let mut heard = String::new();
        let mut lines = log.lines().map_while(Result::ok);
        while !heard.contains("firewall_ready") {
            let line = lines.next();
            heard += &line.unwrap_or_else(|| panic!("the keeper ended: {heard}"));
            heard.push('\n');
        }
        std::thread::spawn(move || lines.for_each(|line| eprintln!("keeper: {line}")));
        Self { child }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes connections for as long as the process lives.
fn serve(at: &str) {
    let address: SocketAddr = at.parse().expect("an address");
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).expect("a socket");
    if address.is_ipv6() {
        socket.set_only_v6(true).expect("a new socket");
    }
    socket.bind(&address.into()).expect("a free port");
    socket.listen(64).expect("bound");
    let listener = TcpListener::from(socket);
    std::thread::spawn(move || listener.incoming().for_each(drop));
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    let parse = |text: &&str| text.parse().expect("an address");
    texts.iter().map(parse).collect()
}

/// Whether a user can connect from here to there, over TCP, or send there, over UDP.
#[track_caller]
fn reaches(user: u32, protocol: &str, host: &str, port: u16) -> bool {
    survey(user, &[(protocol, host, port)])[0]
}

/// The same for several places, side by side: over IPv6 the kernel tells of a refused connection only
/// when it tries again, a second later. A silent loss would run into the time limit, and fail the test.
#[track_caller]
fn survey(user: u32, places: &[(&str, &str, u16)]) -> Vec<bool> {
    let mut script = String::new();
    for (index, (protocol, host, port)) in places.iter().enumerate() {
        script += &format!(
            "{{ (echo > /dev/{protocol}/{host}/{port}) 2>&- && echo {index} yes || echo {index} no; }} &\n"
        );
    }
    let output = Command::new("setpriv")
        .arg(format!("--reuid={user}"))
        .args(["--clear-groups", "timeout", "20", "bash", "-c"])
        .arg(script + "wait")
        .output()
        .expect("setpriv is there");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let of = |index: usize, word: &str| said.lines().any(|line| line == format!("{index} {word}"));
    let places = places.iter().enumerate();
    places
        .map(|(index, place)| {
            let reached = of(index, "yes");
            assert!(reached || of(index, "no"), "{place:?} is silent");
            reached
        })
        .collect()
}

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
    let socket = scene.socket().display().to_string();
    scene.setup.tables = scene.setup.tables.replace("SOCKET", &socket);
    scene.setup.write_config();
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
