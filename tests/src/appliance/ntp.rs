//! A time server (RFC 5905, mode 4 answers only) on the host's loopback.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A running one. Its thread lives as long as the process.
#[derive(Debug)]
pub struct TimeServer {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl TimeServer {
    /// Starts one that leaves the first `silent` questions without an answer.
    pub fn start(silent: usize) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
        let address = socket.local_addr().expect("bound");
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut question = [0; 128];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                if count.fetch_add(1, Ordering::SeqCst) >= silent && length >= 48 {
                    let _ = socket.send_to(&answer(&question), from);
                }
            }
        });
        Self { address, asked }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn answer(question: &[u8]) -> [u8; 48] {
    let mut packet = [0; 48];
    // No leap second, version 4, server; stratum 2.
    packet[0] = 0x24;
    packet[1] = 2;
    // The client's transmit time comes back as the origin.
    packet[24..32].copy_from_slice(&question[40..48]);
    packet[32..40].copy_from_slice(&now());
    packet[40..48].copy_from_slice(&now());
    packet
}

/// The time as NTP counts it: seconds since 1900, and parts of 2^32.
fn now() -> [u8; 8] {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is after 1970");
    let seconds = (since.as_secs() + 2_208_988_800) & 0xffff_ffff;
    let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
    (seconds << 32 | fraction).to_be_bytes()
}
