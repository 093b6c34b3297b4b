//! Addresses that no other test uses.
//!
//! All of 127.0.0.0/8 is local, so each test process takes an address of its own, named after its
//! process id, and counts ports on it. Nothing is probed and nothing can be taken in between.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};

/// A fresh IPv4 loopback address and port. Nobody listens there until the caller does.
pub fn fresh() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    // Process ids have at most 22 bits; 127.0.x.y is left to others.
    let pid = std::process::id();
    let host = Ipv4Addr::from((127 << 24) | (1 << 22) | (pid & 0x3f_ffff));
    let port = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(port < 60_000, "a test process asked for 40,000 addresses");
    SocketAddr::from((host, port))
}

/// A free port on `::1`, found by asking the kernel: it stays free unless another process takes it
/// in the meantime, so callers use it where IPv6 itself is what they test.
pub fn fresh_v6() -> std::io::Result<SocketAddr> {
    std::net::TcpListener::bind("[::1]:0")?.local_addr()
}
