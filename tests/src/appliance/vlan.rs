//! A switch port for a machine: frames of one VLAN (IEEE 802.1Q) go on without their tag to a network
//! of QEMU's own, which has a router, IPv6 advertisements and a forwarded port; all others are dropped.
//!
//! The host's kernel needs no VLANs and no bridge for it: frames pass between two of QEMU's socket
//! backends, each behind its length in four bytes.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::path;
use crate::{PROMPT, eventually};

/// The network behind the switch; it ends when this is dropped.
#[derive(Debug)]
pub struct Switch {
    router: Child,
    port: PathBuf,
    behind: PathBuf,
    vlan: u16,
    untagged: Arc<AtomicUsize>,
}

impl Switch {
    /// Starts the network: 192.0.2.0/24 and 2001:db8::/64 with a router at `.1` and `::1`, and a port
    /// of the host's loopback forwarded to an address in it.
    pub fn start(dir: &Path, vlan: u16, forward: (u16, &str)) -> Self {
        let (port, behind) = (dir.join("switch-port"), dir.join("behind-switch"));
        let (host, to) = forward;
        let network = format!(
            "user,id=u,net=192.0.2.0/24,host=192.0.2.1,dns=192.0.2.3,ipv6-prefix=2001:db8::,ipv6-prefixlen=64,\
             ipv6-host=2001:db8::1,ipv6-dns=2001:db8::3,hostfwd=tcp:127.0.0.1:{host}-{to}"
        );
        let router = Command::new("qemu-system-x86_64")
            .args(["-machine", "none", "-nodefaults", "-display", "none"])
            .args(["-netdev", &network])
            .args(["-netdev", "hubport,id=h1,hubid=0,netdev=u"])
            .args(["-netdev", &listening("s", &behind)])
            .args(["-netdev", "hubport,id=h2,hubid=0,netdev=s"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("qemu-system-x86_64: {error}"));
        Self {
            router,
            port,
            behind,
            vlan,
            untagged: Arc::default(),
        }
    }

    /// QEMU's arguments for a card on the switch.
    pub fn devices(&self) -> Vec<String> {
        [
            "-netdev",
            &listening("net1", &self.port),
            "-device",
            "virtio-net-pci,netdev=net1,romfile=,mac=52:54:00:12:34:99",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// Connects the machine, which must have been started.
    pub fn connect(&self) {
        let machine = connect(&self.port);
        let network = connect(&self.behind);
        let (vlan, untagged) = (self.vlan, Arc::clone(&self.untagged));
        let (from, to) = (clone(&machine), clone(&network));
        std::thread::spawn(move || {
            pass(from, to, |frame| {
                let stripped = strip(frame, vlan);
                untagged.fetch_add(usize::from(stripped.is_none()), Ordering::SeqCst);
                stripped
            });
        });
        std::thread::spawn(move || pass(network, machine, |frame| tag(frame, vlan)));
    }

    /// Frames of the machine that were not of the VLAN.
    pub fn dropped(&self) -> usize {
        self.untagged.load(Ordering::SeqCst)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.router.kill();
        let _ = self.router.wait();
    }
}

fn listening(id: &str, socket: &Path) -> String {
    format!(
        "stream,id={id},server=on,addr.type=unix,addr.path={}",
        path(socket)
    )
}

fn connect(socket: &Path) -> UnixStream {
    eventually("QEMU listens", PROMPT, || UnixStream::connect(socket).ok())
}

fn clone(stream: &UnixStream) -> UnixStream {
    stream.try_clone().expect("a descriptor more")
}

/// Passes frames on until one side is gone.
fn pass(mut from: UnixStream, mut to: UnixStream, change: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let mut size = [0; 4];
    while from.read_exact(&mut size).is_ok() {
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        if from.read_exact(&mut frame).is_err() {
            return;
        }
        if let Some(frame) = change(&frame) {
            let size = u32::try_from(frame.len()).expect("a frame is short");
            let sent = to.write_all(&size.to_be_bytes());
            if sent.and_then(|()| to.write_all(&frame)).is_err() {
                return;
            }
        }
    }
}

/// A frame without its tag, if that is of the VLAN.
fn strip(frame: &[u8], vlan: u16) -> Option<Vec<u8>> {
    let (addresses, rest) = frame.split_at_checked(12)?;
    let (tag, rest) = rest.split_at_checked(4)?;
    let number = u16::from_be_bytes([tag[2], tag[3]]) & 0xfff;
    (tag[..2] == TPID && number == vlan).then(|| [addresses, rest].concat())
}

/// A frame with a tag.
fn tag(frame: &[u8], vlan: u16) -> Option<Vec<u8>> {
    let (addresses, rest) = frame.split_at_checked(12)?;
    Some([addresses, &TPID, &vlan.to_be_bytes(), rest].concat())
}

const TPID: [u8; 2] = [0x81, 0x00];
