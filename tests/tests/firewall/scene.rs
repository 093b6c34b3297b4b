//! A network with the rules in it: two names with addresses of both families behind one wire, a
//! configuration that knows them, the keeper, and users who try to get through.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use clinch_tests::dns::{Dns, Lookup};
use clinch_tests::network::Network;
use clinch_tests::peers::Said;
use clinch_tests::process::binary;
use clinch_tests::setup::Setup;

/// The user of the egress process, who needs no entry in the account database.
pub(crate) const EGRESS: u32 = 4242;

/// Somebody else.
pub(crate) const OTHER: u32 = 4243;

/// The keeper of the rules.
const KEEPER: u32 = 4244;

pub(crate) const FORMATS: [&str; 3] = ["nftables", "iptables-nft", "iptables-legacy"];

/// Two names with addresses of both families behind one wire, and a configuration that knows them.
pub(crate) struct Scene {
    pub(crate) setup: Setup,
    pub(crate) dns: Dns,
    format: &'static str,
    pub(crate) network: Network,
}

impl Scene {
    /// `None` where the machine has no namespaces. `table` has lines of `[firewall]`.
    pub(crate) fn new(format: &'static str, table: &str) -> Option<Self> {
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

    pub(crate) fn socket(&self) -> PathBuf {
        self.setup.dir().join("gate")
    }

    /// Runs `clinch firewall` to its end, with the name server of the scene.
    pub(crate) fn firewall(&self, arguments: &[&str]) -> Said {
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
    pub(crate) fn load(&self, rules: &str) {
        let path = self.setup.dir().join("rules");
        std::fs::write(&path, rules).expect("our own directory");
        let path = path.to_str().expect("UTF-8");
        match self.format {
            "nftables" => self.network.on_server("nft", &["-f", path]),
            _ => self.network.on_server("sh", &[path]),
        };
    }

    /// All rules of all packet filters, and all sets, without counters.
    pub(crate) fn everything(&self) -> String {
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
    pub(crate) fn refused(&self) -> u64 {
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
    pub(crate) fn flush(&self) {
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
    pub(crate) fn add_foreign_rules(&self) -> String {
        let (program, rule) = match self.format {
            "nftables" => ("nft", "add table inet foreign"),
            program => (program, "-A OUTPUT -p udp -m udp --dport 9 -j DROP"),
        };
        let words: Vec<&str> = rule.split(' ').collect();
        self.network.on_server(program, &words);
        rule.trim_start_matches("add ").to_owned()
    }

    /// The operator's own rules reject whatever is not asked for from outside.
    pub(crate) fn let_nothing_out(&self) {
        if self.format == "nftables" {
            let own = format!(
                "table inet own {{\nchain output {{\ntype filter hook output priority filter\n\
                 ct state established,related accept\nmeta skuid {EGRESS} accept\nreject\n}}\n}}\n"
            );
            return self.load(&own);
        }
        for rule in [
            "-A OUTPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
            "-A OUTPUT -j REJECT",
        ] {
            let words: Vec<&str> = rule.split(' ').collect();
            self.network.on_server(self.format, &words);
        }
    }

    /// Keeps the rules, with the rights that its unit gives it.
    pub(crate) fn keep(&self) -> Kept {
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
    pub(crate) fn ask(&self, host: &str, port: u16, addresses: &[&str], ttl: u64) -> String {
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
pub(crate) struct Kept {
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

pub(crate) fn ips(texts: &[&str]) -> Vec<IpAddr> {
    let parse = |text: &&str| text.parse().expect("an address");
    texts.iter().map(parse).collect()
}

/// Whether a user can connect from here to there, over TCP, or send there, over UDP.
#[track_caller]
pub(crate) fn reaches(user: u32, protocol: &str, host: &str, port: u16) -> bool {
    survey(user, &[(protocol, host, port)])[0]
}

/// The same for several places, side by side: over IPv6 the kernel tells of a refused connection only
/// when it tries again, a second later. A silent loss would run into the time limit, and fail the test.
#[track_caller]
pub(crate) fn survey(user: u32, places: &[(&str, &str, u16)]) -> Vec<bool> {
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
