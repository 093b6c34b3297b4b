//! Two network namespaces joined by a cable (veth), without a way out: a server side, in which the
//! calling thread and what it starts live from then on, and a client side to visit.
//!
//! Needs root and `ip`. The namespaces are removed when the value is dropped.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The two sides.
pub struct Network {
    server: String,
    client: String,
}

impl Network {
    /// Makes the network and moves the calling thread to the server side; `None` where the machine
    /// does not let us.
    pub fn enter() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!(
            "{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let network = Self {
            server: format!("cls-{id}"),
            client: format!("clc-{id}"),
        };
        let (server, client) = (&network.server, &network.client);
        let made = [
            format!("netns add {server}"),
            format!("netns add {client}"),
            format!("link add veth0 netns {server} type veth peer name veth0 netns {client}"),
            format!("-n {server} addr add 10.77.0.1/16 dev veth0"),
            format!("-n {client} addr add 10.77.0.2/16 dev veth0"),
            format!("-n {server} addr add fd77::1/64 dev veth0 nodad"),
            format!("-n {client} addr add fd77::2/64 dev veth0 nodad"),
            // Each segment by itself, as on a real cable.
            format!("-n {client} link set veth0 gso_max_segs 1"),
            format!("-n {server} link set lo up"),
            format!("-n {client} link set lo up"),
            format!("-n {server} link set veth0 up"),
            format!("-n {client} link set veth0 up"),
        ]
        .iter()
        .all(|arguments| run("ip", &arguments.split(' ').collect::<Vec<_>>()).is_some());
        if !made {
            return None;
        }
        go_to(server);
        Some(network)
    }

    /// Where a server on `port` is reached over IPv4 and over IPv6.
    pub fn addresses(&self, port: u16) -> [SocketAddr; 2] {
        let v6 = std::net::Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
        [([10, 77, 0, 1], port).into(), (v6, port).into()]
    }

    /// Does something on the client side, on a thread of its own.
    pub fn visit<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let visit = scope.spawn(|| {
                go_to(&self.client);
                what()
            });
            visit
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The name of the client side, for threads that stay there.
    pub fn name_of_client(&self) -> String {
        self.client.clone()
    }

    /// Runs a program on the server side and returns what it writes.
    pub fn on_server(&self, program: &str, arguments: &[&str]) -> String {
        self.on(&self.server, program, arguments)
    }

    /// Runs a program on the client side and returns what it writes.
    pub fn on_client(&self, program: &str, arguments: &[&str]) -> String {
        self.on(&self.client, program, arguments)
    }

    /// Names the server that programs run by [`Network::on_server`] ask for addresses.
    pub fn name_server(&self, address: &str) {
        // ip-netns(8) puts what lies here over /etc.
        let folder = self.folder();
        std::fs::create_dir_all(&folder).expect("root may");
        let text = format!("nameserver {address}\n");
        std::fs::write(folder.join("resolv.conf"), text).expect("root may");
    }

    /// A program that will run on the server side, with the name server named for it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.server, program]);
        command
    }

    fn folder(&self) -> std::path::PathBuf {
        std::path::Path::new("/etc/netns").join(&self.server)
    }

    /// Sets a switch of the kernel for one side.
    pub fn set(&self, on_server: bool, switch: &str, value: u32) {
        let side = if on_server {
            &self.server
        } else {
            &self.client
        };
        self.on(side, "sysctl", &["-qw", &format!("{switch}={value}")]);
    }

    fn on(&self, side: &str, program: &str, arguments: &[&str]) -> String {
        let all = [&["netns", "exec", side, program], arguments].concat();
        run("ip", &all).unwrap_or_else(|| panic!("{program} {arguments:?} failed in {side}"))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for side in [&self.server, &self.client] {
            run("ip", &["netns", "del", side]);
        }
        // There only if a name server was named.
        let _ = std::fs::remove_dir_all(self.folder());
    }
}

/// Moves the calling thread to a side, by its name.
pub fn go_to(side: &str) {
    let file = File::open(format!("/run/netns/{side}")).expect("made by ip netns add");
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("root may enter a namespace");
}

fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    if !output.status.success() {
        eprintln!(
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        return None;
    }
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}
