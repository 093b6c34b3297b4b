//! What changes while connections come: tables, switches, processes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use clinch_tests::{PROMPT, eventually};

use crate::scene::{NAMES, PORT, rounds, scene};

#[test]
fn no_connection_is_lost_while_names_move() {
    let mut scene = scene!("mode = \"kernel\"");
    scene.wait_for_mode("kernel");
    let addresses = scene.network.addresses(PORT);
    let (reloads, least) = (rounds(12, 100), rounds(400, 10_000));
    let (client, network) = (scene.client.clone(), scene.network.name_of_client());
    let (done, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    let stop = Stop(&done);
    let before = scene.netstat("SyncookiesRecv");
    std::thread::scope(|scope| {
        for lane in 0..2 {
            let (client, network, done, made) = (&client, &network, &done, &made);
            scope.spawn(move || {
                clinch_tests::network::go_to(network);
                for n in lane.. {
                    if done.load(Ordering::Relaxed) && made.load(Ordering::Relaxed) >= least {
                        return;
                    }
                    client
                        .connect(addresses[n % 2], NAMES[n / 2 % 4])
                        .unwrap_or_else(|error| panic!("connection {n}: {error}"));
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..reloads {
            scene.rewrite_sites(&format!("cores = [{}]", round % 2));
            scene.reload();
        }
        drop(stop);
    });
    let made = made.into_inner();
    println!("{made} connections during {reloads} reloads, none lost");
    let last = (reloads - 1) % 2;
    eventually("moved", PROMPT, || {
        scene
            .homes()
            .values()
            .all(|&home| home == last)
            .then_some(())
    });
    assert!(scene.netstat("SyncookiesRecv") - before >= made as u64);
    assert_eq!(scene.netstat("SyncookiesFailed"), 0);
    scene.reach_their_core(addresses[0], 5);
}

/// Lets the others end, also when this thread panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn follows_the_cookie_switch_and_the_configuration_at_run_time() {
    let mut scene = scene!("mode = \"kernel\"");
    scene.wait_for_mode("kernel");
    let addresses = scene.network.addresses(PORT);
    for (cookies, mode) in [(2, "kernel"), (0, "hand_over"), (1, "kernel")] {
        scene.network.set(true, "net.ipv4.tcp_syncookies", cookies);
        scene.wait_for_mode(mode);
        for address in addresses {
            scene.reach_their_core(address, 10);
        }
    }
    let on = scene.setup.tables.clone();
    let off = on.replace("\"kernel\"", "\"off\"");
    for (tables, mode) in [(off, "reuseport"), (on, "kernel")] {
        scene.setup.tables = tables;
        scene.reload();
        for address in addresses {
            scene.handshakes(address, &NAMES, 5);
        }
        scene.wait_for_mode(mode);
        for address in addresses {
            scene.handshakes(address, &NAMES, 5);
        }
    }
    scene.reach_their_core(addresses[0], 10);
}

/// A program lives as long as its group of sockets, which a second instance may not join (it is told
/// that the address is taken). So what a crash leaves goes with the last socket, and the next instance
/// attaches its own.
#[test]
fn nothing_of_a_crashed_instance_steers_after_the_restart() {
    let mut scene = scene!("mode = \"kernel\"");
    for round in 0..4 {
        scene.wait_for_mode("kernel");
        scene.reach_their_core(scene.network.addresses(PORT)[round % 2], 5);
        scene.clinch.signal(rustix::process::Signal::KILL);
        eventually("it is gone", PROMPT, || {
            scene.clinch.has_ended().then_some(())
        });
        // The kernel takes the sockets of its rings down a little later.
        eventually("its sockets are gone", PROMPT, || {
            let listed = scene
                .network
                .on_server("ss", &["-tlnH", "sport", "=", ":8443"]);
            listed.is_empty().then_some(())
        });
        // Other homes than before, so that it shows whose program decides.
        scene.rewrite_sites(&format!("cores = [{}]", round % 2));
        scene.clinch = scene.setup.start();
    }
    assert_eq!(scene.of_workers("landed"), [0, 0]);
}
