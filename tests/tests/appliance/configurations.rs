//! Configurations over the admin interface: tried, kept once they serve, undone where they do not.

use clinch_tests::appliance::{Machine, Place, operator, port};

#[test]
fn a_configuration_that_does_not_serve_is_undone_and_one_that_does_is_kept() {
    let place = Place::new();
    let admin = port();
    place.add("machine.toml", "[health]\nwithin = '20s'\n");
    let key = place.allow_operator();
    let (state, volume) = (place.state(), place.volume());
    let mut parts = place.parts(&[&state, &volume]);
    parts.forwards.push((admin, 9443));
    let mut machine = Machine::start(&parts);
    machine.says("init: proved:");
    machine.says("configuration 1 is in force");
    let folder = place.config().display().to_string();
    let apply = || operator::command(admin, &key, &["apply", &folder]);
    let good = (place.read("machine.toml"), place.read("clinch.toml"));

    // What cannot be is refused on the spot.
    place.write("clinch.toml", &(good.1.clone() + "no_such_key = 1\n"));
    apply().has("refused").has("no_such_key");
    // What can be, but staples nothing, has one boot: the packet filter does not lead to the responder,
    // and the new certificate is one for which the cache has nothing.
    let first = good.1.find("[[site]]").expect("a site");
    let second = good.1.rfind("[[site]]").expect("another");
    place.write(
        "clinch.toml",
        &format!("{}{}", &good.1[..first], &good.1[second..]),
    );
    apply().has("ok configuration 2 is tried");
    machine.says("init: no handshake with a valid staple within 20s");
    machine.says("init: the new configuration is undone");
    machine.says_times("init: proved:", 2);
    place.assert_stapled();

    // And one that serves stays over a restart, without the volume.
    place.write("clinch.toml", &good.1);
    place.write(
        "machine.toml",
        &good.0.replace("hostname = 'edge-1'", "hostname = 'edge-2'"),
    );
    apply().has("ok configuration 2 is tried");
    machine.says("configuration 2 is in force");
    machine.says_times("init: proved:", 3);
    place.assert_stapled();
    operator::command(admin, &key, &["reboot"]).has("ok");
    machine.says_times("init: proved:", 4);
    assert!(
        machine
            .said()
            .matches("configuration 2 is in force")
            .count()
            == 1,
        "{}",
        machine.said()
    );
}
