//! The egress pin as `clinch firewall apply` keeps it: nobody lists addresses.

use std::net::{Ipv6Addr, SocketAddr};

use clinch_tests::appliance::{HOST, HOST6, Machine, Place, port};
use clinch_tests::responder::Responder;

#[test]
fn the_keeper_opens_the_responders_of_certificates_and_nothing_outside_its_prefixes() {
    let place = Place::new();
    // The same host, by an address that the keeper may not open.
    let outside = Responder::start(
        SocketAddr::from((Ipv6Addr::LOCALHOST, port())),
        place.authority.clone(),
    );
    place.add_site("outside.test", &format!("[{HOST6}]:{}", outside.port()));
    place.add(
        "clinch.toml",
        &format!("[firewall]\nprefixes = ['{HOST}/32']\n"),
    );
    place.write("machine.toml", "hostname = 'edge-1'\n");
    let (state, volume) = (place.state(), place.volume());
    let mut machine = Machine::start(&place.parts(&[&state, &volume]));
    machine.says("init: proved:");
    place.assert_stapled();
    // What is in the place by default is opened, too: its certificate names it.
    machine.says("site cut-off.test staple stapled");
    machine.says("site outside.test staple missing");
    machine.says("ocsp_failed");
    assert_eq!(outside.count(), 0, "{}", machine.said());
    assert!(
        !machine.said().contains("the keeper of the egress pin"),
        "{}",
        machine.said()
    );
    machine.assert_sound();
}
