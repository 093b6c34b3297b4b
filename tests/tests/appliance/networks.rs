//! Networks beyond one card with DHCP, and time.

use clinch_tests::appliance::ntp::TimeServer;
use clinch_tests::appliance::vlan::Switch;
use clinch_tests::appliance::{HOST, Machine, Parts, Place, port};
use clinch_tests::peers;
use std::net::SocketAddr;

#[test]
fn a_vlan_fixed_addresses_and_both_kinds_of_ipv6_serve() {
    let place = Place::new();
    let behind = port();
    let switch = Switch::start(place.dir.path(), 100, (behind, "192.0.2.7:8443"));
    // The second site's responder is reached over IPv6, through the VLAN's router alone.
    let responder = clinch_tests::responder::Responder::start(
        SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port())),
        place.authority.clone(),
    );
    let over6 = format!("[2001:db8::1]:{}", responder.port());
    place.add_site("six.test", &over6);
    let allowed = format!("{HOST}:{}", place.responder.port());
    place.write(
        "machine.toml",
        &format!(
            "[[interface]]\nname = 'eth0'\ndhcp = true\n\
             [[interface]]\nname = 'wire'\nmac = '52:54:00:12:34:99'\nslaac = false\n\
             [[interface]]\nname = 'public'\nparent = 'wire'\nvlan = 100\naddresses = ['192.0.2.7/24', '2001:db8::7/64']\nmtu = 1400\n\
             [egress]\nallow = ['{allowed}', '{over6}']\n",
        ),
    );
    let (state, volume) = (place.state(), place.volume());
    let mut parts = place.parts(&[&state, &volume]);
    parts.more = switch.devices();
    let mut machine = Machine::start(&parts);
    switch.connect();
    machine.says("init: proved:");
    place.assert_stapled();
    // Over the VLAN, to the fixed address.
    let address = SocketAddr::from(([127, 0, 0, 1], behind));
    peers::openssl_client(address, "six.test", &place.root(), &["-status"])
        .has("OCSP Response Status: successful (0x0)")
        .has("Cert Status: good");
    assert!(responder.count() >= 1, "{}", machine.said());
    // Router advertisements gave eth0 an address, and the VLAN one besides the fixed ones.
    for part in [
        "eth0 10.0.2.15/24 (DHCP) fec0::",
        "public 192.0.2.7/24 2001:db8::5054:ff:fe12:3499/64 2001:db8::7/64",
    ] {
        machine.says(part);
    }
    machine.assert_sound();
    eprintln!("{} frames without the tag were dropped", switch.dropped());
}

#[test]
fn a_clock_that_is_wrong_is_set_before_anything_is_served() {
    let place = Place::new();
    // The first questions go unanswered: the machine asks again and does not serve meanwhile.
    let server = TimeServer::start(3);
    place.add(
        "machine.toml",
        &format!(
            "[time]\nservers = ['{HOST}:{}']\nwait = '60s'\n",
            server.port()
        ),
    );
    let (state, volume) = (place.state(), place.volume());
    let mut machine = Machine::start(&Parts {
        more: ["-rtc", "base=2009-01-01"].map(str::to_owned).to_vec(),
        ..place.parts(&[&state, &volume])
    });
    machine.says("init: proved:");
    machine.says(&format!("clock set by {HOST}:{}", server.port()));
    assert!(server.asked() > 3);
    place.assert_stapled();
}

#[test]
fn without_a_time_server_a_clock_from_before_the_build_does_not_keep_the_machine_down() {
    let place = Place::new();
    place.add(
        "machine.toml",
        &format!("[time]\nservers = ['{HOST}:9']\nwait = '3s'\n[health]\nwithin = '5s'\n"),
    );
    let (state, volume) = (place.state(), place.volume());
    let mut machine = Machine::start(&Parts {
        more: ["-rtc", "base=2009-01-01"].map(str::to_owned).to_vec(),
        ..place.parts(&[&state, &volume])
    });
    machine.says("the clock was not plausible and no time server answered");
    machine.says("clinch serves");
}
