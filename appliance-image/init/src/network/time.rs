//! The clock: staples are judged by it, so serving waits, within bounds, until it is plausible.
//!
//! An SNTP client (RFC 5905 section 14). The clock is set, not slewed: differences below
//! [`TOLERATED`] are left, and nothing here depends on a clock that never jumps.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_settime};

use crate::machine::Machine;
use crate::say;

use super::Network;

/// Whether the clock may be believed: not before the image was built, not decades after.
pub fn plausible(now: SystemTime, built: SystemTime) -> bool {
    now >= built && now < built + LIFETIME
}

/// Asks time servers, at most for `machine.time_wait`, sets the clock, and goes on asking in the
/// background. Returns what to tell the operator. `waits` is called again and again meanwhile: the wait
/// may be longer than the hardware watchdog's patience.
pub fn synchronise(
    machine: &Machine,
    network: &Network,
    built: SystemTime,
    waits: impl Fn(),
) -> String {
    let servers = servers(machine, network);
    let mut said = None;
    let deadline = Instant::now() + machine.time_wait;
    while !servers.is_empty() && Instant::now() < deadline {
        waits();
        match ask_any(&servers) {
            Ok((server, offset)) => {
                said = Some(format!("set by {server}, {}", set_by(offset)));
                break;
            }
            Err(_) => std::thread::sleep(BETWEEN_TRIES),
        }
    }
    if !plausible(SystemTime::now(), built) {
        // Certificates and staples of today are at least not from the future then.
        set(built);
        say!(
            "the clock was not plausible and no time server answered: it is set to when the image was built"
        );
    }
    if !servers.is_empty() {
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(BETWEEN_LOOKS);
                if let Ok((_, offset)) = ask_any(&servers) {
                    set_by(offset);
                }
            }
        });
    }
    said.unwrap_or_else(|| "not synchronised".to_owned())
}

fn servers(machine: &Machine, network: &Network) -> Vec<String> {
    if machine.time_servers.is_empty() {
        let leased = network.leased_time_servers();
        leased.iter().map(IpAddr::to_string).collect()
    } else {
        machine.time_servers.clone()
    }
}

fn ask_any(servers: &[String]) -> io::Result<(String, Offset)> {
    let mut last = io::Error::other("no time server");
    for server in servers {
        match addresses(server).and_then(|found| ask(&found)) {
            Ok(offset) => return Ok((server.clone(), offset)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn addresses(server: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = server.parse::<SocketAddr>() {
        return Ok(vec![address]);
    }
    Ok((server, NTP).to_socket_addrs()?.collect())
}

fn ask(addresses: &[SocketAddr]) -> io::Result<Offset> {
    let first = addresses.first().ok_or(io::ErrorKind::NotFound)?;
    let any: SocketAddr = if first.is_ipv4() {
        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(first)?;
    socket.set_read_timeout(Some(ANSWER_WITHIN))?;
    let mut nonce = [0; 8];
    rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())?;
    let sent = SystemTime::now();
    socket.send(&question(nonce))?;
    let mut answer = [0; 128];
    let length = socket.recv(&mut answer)?;
    let received = SystemTime::now();
    offset(&answer[..length], nonce, sent, received)
        .ok_or_else(|| io::Error::other("an answer that no time server gives"))
}

/// How far the server's clock is ahead, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Offset(i128);

/// Mode 3, version 4. The transmit time is a random number: it must come back, and tells a listener
/// nothing (as in draft-ietf-ntp-data-minimization).
fn question(nonce: [u8; 8]) -> [u8; 48] {
    let mut packet = [0; 48];
    packet[0] = 0x23;
    packet[40..].copy_from_slice(&nonce);
    packet
}

fn offset(answer: &[u8], nonce: [u8; 8], sent: SystemTime, received: SystemTime) -> Option<Offset> {
    if answer.len() < 48 {
        return None;
    }
    let (leap, mode, stratum) = (answer[0] >> 6, answer[0] & 7, answer[1]);
    // Not synchronised, not a server's, a kiss of death, or an answer to somebody else.
    if leap == 3 || mode != 4 || !(1..=15).contains(&stratum) || answer[24..32] != nonce {
        return None;
    }
    let arrived = ntp_nanos(&answer[32..40])?;
    let left = ntp_nanos(&answer[40..48])?;
    let (sent, received) = (unix_nanos(sent), unix_nanos(received));
    Some(Offset((arrived - sent + left - received) / 2))
}

/// An NTP timestamp as nanoseconds since 1970. Seconds below 2^31 are those of the era that begins
/// in 2036.
fn ntp_nanos(bytes: &[u8]) -> Option<i128> {
    const ERA: i128 = 1 << 32;
    const UNIX: i128 = 2_208_988_800;
    let seconds = i128::from(u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?));
    let fraction = i128::from(u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?));
    let seconds = if seconds < ERA / 2 {
        seconds + ERA
    } else {
        seconds
    } - UNIX;
    Some(seconds * 1_000_000_000 + fraction * 1_000_000_000 / ERA)
}

fn unix_nanos(at: SystemTime) -> i128 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}

fn set_by(Offset(nanos): Offset) -> String {
    let tolerated = i128::try_from(TOLERATED.as_nanos()).unwrap_or(i128::MAX);
    if nanos.abs() > tolerated {
        let now = unix_nanos(SystemTime::now()) + nanos;
        if let Ok(now) = u64::try_from(now) {
            set(UNIX_EPOCH + Duration::from_nanos(now));
        }
    }
    format!("it was {} ms off", nanos / 1_000_000)
}

fn set(to: SystemTime) {
    let since = to.duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = Timespec {
        tv_sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: since.subsec_nanos().into(),
    };
    if let Err(error) = clock_settime(ClockId::Realtime, time) {
        say!("the clock cannot be set: {error}");
    }
}

const NTP: u16 = 123;
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
const BETWEEN_TRIES: Duration = Duration::from_millis(500);
const BETWEEN_LOOKS: Duration = Duration::from_secs(1024);
/// Smaller differences are those of the way.
const TOLERATED: Duration = Duration::from_millis(50);
/// An image older than this is not to be run anyway.
const LIFETIME: Duration = Duration::from_secs(20 * 365 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(nonce: [u8; 8], seconds: u64) -> Vec<u8> {
        let mut packet = vec![0; 48];
        packet[0] = 0x24;
        packet[1] = 2;
        packet[24..32].copy_from_slice(&nonce);
        let stamp = u32::try_from(seconds + 2_208_988_800)
            .unwrap()
            .to_be_bytes();
        packet[32..36].copy_from_slice(&stamp);
        packet[40..44].copy_from_slice(&stamp);
        packet
    }

    #[test]
    fn the_offset_is_half_of_both_differences() {
        let at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let found = offset(&answer([7; 8], 1_700_000_100), [7; 8], at, at).unwrap();
        assert_eq!(found, Offset(100_000_000_000));
    }

    #[test]
    fn answers_of_others_and_of_servers_without_time_are_refused() {
        let at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let good = answer([7; 8], 1_700_000_100);
        assert_eq!(offset(&good, [8; 8], at, at), None);
        assert_eq!(offset(&good[..47], [7; 8], at, at), None);
        for (byte, value) in [(0, 0xe4), (0, 0x23), (1, 0), (1, 16)] {
            let mut bad = good.clone();
            bad[byte] = value;
            assert_eq!(offset(&bad, [7; 8], at, at), None);
        }
    }

    #[test]
    fn the_era_after_2036_is_understood() {
        assert_eq!(
            ntp_nanos(&[0, 0, 0, 0, 0, 0, 0, 0]),
            Some(2_085_978_496 * 1_000_000_000)
        );
    }

    #[test]
    fn a_clock_before_the_build_is_not_plausible() {
        let built = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert!(plausible(built, built));
        assert!(!plausible(UNIX_EPOCH, built));
    }
}
