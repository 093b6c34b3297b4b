//! Backend names become addresses, once for each load of the configuration, all within one bound.
//!
//! All addresses of a name are kept: the data plane chooses among them. A name is not looked up
//! again before the next reload. Blocks.

use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Instant;

use crate::limits::{BACKEND_ADDRESSES, BACKEND_LOOKUP_TIME, BACKEND_LOOKUPS};

/// Addresses of a `host:port`, or why there are none, in words.
pub(super) type Resolved = Result<Vec<SocketAddr>, String>;

/// Resolves each of `hosts` (`host:port`) once.
pub(super) fn resolve<'a>(hosts: impl Iterator<Item = &'a str>) -> HashMap<String, Resolved> {
    let mut found = HashMap::new();
    let mut names = VecDeque::new();
    for host in hosts {
        if found.contains_key(host) {
            continue;
        }
        let literal = host.parse::<SocketAddr>().ok();
        if literal.is_none() {
            names.push_back(host.to_owned());
        }
        let unanswered = Err(format!(
            "looking it up took longer than {BACKEND_LOOKUP_TIME:?}; check DNS on this machine"
        ));
        found.insert(
            host.to_owned(),
            literal.map_or(unanswered, |address| Ok(vec![address])),
        );
    }
    let expected = names.len();
    let answers = look_up(names);
    let deadline = Instant::now() + BACKEND_LOOKUP_TIME;
    for _ in 0..expected {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok((host, resolved)) = answers.recv_timeout(left) else {
            break;
        };
        found.insert(host, resolved);
    }
    found
}

/// The resolver of libc blocks and cannot be interrupted: it gets threads of its own, which end
/// when it does, at the latest after its own time-outs.
fn look_up(names: VecDeque<String>) -> mpsc::Receiver<(String, Resolved)> {
    let threads = names.len().min(BACKEND_LOOKUPS);
    let names = Arc::new(Mutex::new(names));
    let (sender, answers) = mpsc::channel();
    for _ in 0..threads {
        let names = Arc::clone(&names);
        let sender = sender.clone();
        thread::spawn(move || {
            let next = || {
                let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
                names.pop_front()
            };
            while let Some(host) = next() {
                let resolved = addresses(&host);
                if sender.send((host, resolved)).is_err() {
                    return;
                }
            }
        });
    }
    answers
}

fn addresses(host: &str) -> Resolved {
    let mut addresses: Vec<SocketAddr> = host
        .to_socket_addrs()
        .map_err(|error| format!("{error}; correct the name, or check DNS on this machine"))?
        .collect();
    addresses.dedup();
    addresses.truncate(BACKEND_ADDRESSES);
    if addresses.is_empty() {
        return Err("it has no address".to_owned());
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_need_no_lookup_and_names_give_all_their_addresses() {
        let hosts = ["10.0.0.5:8080", "[::1]:81", "localhost:82", "localhost:82"];
        let found = resolve(hosts.into_iter());
        assert_eq!(found.len(), 3);
        let literal = ["10.0.0.5:8080", "[::1]:81"];
        for host in literal {
            assert_eq!(found[host], Ok(vec![host.parse().expect("an address")]));
        }
        let local = found["localhost:82"].as_ref().expect("in /etc/hosts");
        assert!(local.iter().all(|a| a.ip().is_loopback() && a.port() == 82));
    }

    #[test]
    fn a_name_that_does_not_exist_is_told_apart_from_the_others() {
        let found = resolve(["no-such-name.invalid:80", "127.0.0.1:80"].into_iter());
        assert!(found["no-such-name.invalid:80"].is_err());
        assert!(found["127.0.0.1:80"].is_ok());
    }
}
