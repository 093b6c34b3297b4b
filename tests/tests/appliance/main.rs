//! The appliance, booted. `make image-test` runs these one after the other; they need the image.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clinch::cli::demo::authority::{Authority, LeafSpec};
use clinch_tests::appliance::{self, Firmware, HOST, Machine, Parts, Refused};
use clinch_tests::peers::{self, Said};
use clinch_tests::responder::{Mode, Responder};

/// Servers on the host, and a configuration for the machine.
struct Place {
    authority: Arc<Authority>,
    responder: Responder,
    /// A responder that the packet filter does not name.
    forbidden: Responder,
    port: u16,
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let authority = Arc::new(Authority::new(SystemTime::now()).expect("keys can be made"));
        let (allowed, forbidden) = (appliance::place(), appliance::place());
        let place = Self {
            responder: Responder::start(allowed, Arc::clone(&authority)),
            forbidden: Responder::start(forbidden, Arc::clone(&authority)),
            port: appliance::port(),
            dir: tempfile::tempdir().expect("a temporary directory"),
            authority,
        };
        fs::create_dir(place.config()).expect("in our own directory");
        fs::write(place.root(), place.authority.root_pem()).expect("in our own directory");
        place.write_config(allowed, forbidden);
        place
    }

    fn write_config(&self, allowed: SocketAddr, forbidden: SocketAddr) {
        let mut text = format!(
            "user = 'clinch'\n[egress]\nuser = 'clinch-egress'\nallow = ['{HOST}']\nports = ['1-65535']\n\
             [listen.public]\naddress = ['0.0.0.0:8443']\n",
        );
        for (name, responder) in [("edge", allowed), ("cut-off", forbidden)] {
            let issued = self.authority.issue(&LeafSpec {
                names: vec![format!("{name}.test")],
                ocsp_urls: vec![format!("http://{HOST}:{}/ocsp", responder.port())],
                ..LeafSpec::default()
            });
            let issued = issued.expect("a sound specification");
            self.write(&format!("{name}.pem"), &issued.chain_pem);
            self.write(&format!("{name}.key"), &issued.key_pem);
            text += &format!(
                "[[site]]\nnames = ['{name}.test']\ncert = '/config/{name}.pem'\nkey = '/config/{name}.key'\nbackend = '{HOST}:9'\n"
            );
        }
        self.write("clinch.toml", &text);
        self.write(
            "machine.toml",
            &format!(
                "hostname = 'edge-1'\n[egress]\nallow = ['{HOST}:{}']\n",
                allowed.port()
            ),
        );
    }

    /// Opens the admin interface to the host, for whoever has this key.
    fn allow_operator(&self, key: &Path) {
        let said = appliance::tool(&["key", &key.display().to_string()]);
        let public = said.text.trim();
        let path = self.config().join("machine.toml");
        let mut text = fs::read_to_string(&path).expect("written before");
        text += &format!(
            "[admin]\nlisten = '0.0.0.0:9443'\nfrom = ['10.0.2.0/24']\nkeys = ['{public}']\n"
        );
        fs::write(path, text).expect("in our own directory");
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.config().join(name), text).expect("in our own directory");
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root.pem")
    }

    fn volume(&self) -> PathBuf {
        appliance::volume(&self.config(), &self.dir.path().join("volume.img"))
    }

    fn parts(&self, disks: &[&Path]) -> Parts {
        Parts {
            disks: disks.iter().map(|disk| disk.to_path_buf()).collect(),
            forwards: vec![(self.port, 8443)],
            ..Parts::default()
        }
    }

    /// What `openssl s_client -status` says to the machine.
    fn handshake(&self) -> Said {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        peers::openssl_client(address, "edge.test", &self.root(), &["-status"])
    }

    #[track_caller]
    fn assert_stapled(&self) {
        self.handshake()
            .has("OCSP Response Status: successful (0x0)")
            .has("Cert Status: good");
    }
}

#[test]
fn a_fresh_machine_serves_a_stapled_handshake_and_reaches_its_responder_alone() {
    let place = Place::new();
    let state = appliance::state(&place.dir.path().join("state.img"));
    let volume = place.volume();
    let mut machine = Machine::start(&place.parts(&[&state, &volume]));
    let proved = machine.says("init: proved:");
    place.assert_stapled();
    record("direct", proved);
    for part in [
        "modules locked",
        "network eth0 10.0.2.15/24",
        "clinch serves",
        "site edge.test staple stapled",
    ] {
        machine.says(part);
    }
    // The other responder is as near, and says good; only the packet filter is in the way.
    machine.says("site cut-off.test staple missing");
    machine.says("ocsp_failed");
    assert_eq!(
        place.forbidden.count(),
        0,
        "egress reached what it must not:\n{}",
        machine.said()
    );
    assert!(place.responder.count() >= 1);

    // With the responder gone and the volume taken away, the state partition has it all.
    machine.press_power();
    machine_said_nothing_bad(&machine);
    place.responder.set(Mode::Refused);
    let asked = place.responder.count();
    let mut machine = Machine::start(&place.parts(&[&state]));
    machine.says("init: proved:");
    place.assert_stapled();
    assert_eq!(place.responder.count(), asked);
}

#[test]
fn bios_boots_and_serves_on_an_e1000e() {
    let place = Place::new();
    let disk = appliance::copy("clinch-bios.img", place.dir.path());
    let volume = place.volume();
    let mut machine = Machine::start(&Parts {
        firmware: Firmware::Bios,
        card: "e1000e",
        ..place.parts(&[&disk, &volume])
    });
    record("BIOS", machine.says("init: proved:"));
    place.assert_stapled();
}

#[test]
fn secure_boot_takes_the_signed_system_and_no_other() {
    let place = Place::new();
    let disk = appliance::copy("clinch-uefi.img", place.dir.path());
    let volume = place.volume();
    let variables = appliance::variables(place.dir.path());
    appliance::enrol_keys_at_boot(&disk);
    let parts = Parts {
        firmware: Firmware::SecureUefi(variables),
        ..place.parts(&[&disk, &volume])
    };
    let mut machine = Machine::start(&parts);
    machine.says("init: proved:");
    place.assert_stapled();
    machine.says("secure boot on, lockdown integrity, modules locked");
    machine.press_power();
    // Again, without the enrolling: this is the time of a boot.
    let mut machine = Machine::start(&parts);
    record("UEFI, Secure Boot", machine.says("init: proved:"));
    machine.press_power();

    for bad in [Refused::Unsigned, Refused::Tampered] {
        appliance::put_system(&disk, &appliance::bad_system(bad, place.dir.path()));
        let mut machine = Machine::start(&parts);
        machine.says("Access Denied");
        assert!(!machine.said().contains("init:"), "{}", machine.said());
    }
}

#[test]
fn a_broken_update_falls_back_and_a_good_one_is_kept() {
    let place = Place::new();
    let admin = appliance::port();
    let key = appliance::operator_key(place.dir.path());
    place.allow_operator(&key);
    let disk = appliance::copy("clinch-uefi.img", place.dir.path());
    let volume = place.volume();
    let mut parts = Parts {
        firmware: Firmware::Uefi(appliance::variables(place.dir.path())),
        ..place.parts(&[&disk, &volume])
    };
    parts.forwards.push((admin, 9443));
    let mut machine = Machine::start(&parts);
    record("UEFI", machine.says("init: proved:"));
    let said = appliance::command(admin, &key, &["update", "/etc/hostname"]);
    said.has("refused this is no update");

    // Its init cannot be executed, so the kernel panics, three times.
    let broken = appliance::update(place.dir.path(), "9.0.0", appliance::Init::Broken);
    appliance::command(admin, &key, &["update", &broken]).has("ok clinch-b_9.0.0+3.efi");
    machine.says_times("init: proved:", 2);
    let said = appliance::command(admin, &key, &["status"]);
    said.has("slot clinch-a_").lacks("+");
    assert_eq!(
        machine.said().matches("Kernel panic").count(),
        3,
        "{}",
        machine.said()
    );

    let good = appliance::update(place.dir.path(), "9.0.1", appliance::Init::Good);
    appliance::command(admin, &key, &["update", &good]).has("ok clinch-b_9.0.1+3.efi");
    machine.says("init: blessed: clinch-b_9.0.1.efi");
    place.assert_stapled();
    appliance::command(admin, &key, &["update", &broken]).has("not newer");

    // The plug is pulled while an update is being written: what ran before runs again.
    let next = appliance::update(place.dir.path(), "9.0.2", appliance::Init::Good);
    let sender = std::thread::spawn(move || {
        let _ = appliance::command(admin, &key, &["update", &next]);
    });
    machine.says("init: an update arrives");
    machine.cut_power();
    sender.join().expect("a sender that was cut off");
    let mut machine = Machine::start(&parts);
    machine.says("init: proved:");
    machine.says("slot clinch-b_9.0.1.efi");
    place.assert_stapled();
}

#[track_caller]
fn machine_said_nothing_bad(machine: &Machine) {
    for bad in ["Kernel panic", "panicked at", "BUG:", "Oops"] {
        assert!(!machine.said().contains(bad), "{}", machine.said());
    }
}

/// Adds a boot time to the file that `make image-test` shows.
fn record(how: &str, took: Duration) {
    use std::io::Write;
    let path = appliance::image().join("boot-times.txt");
    let file = fs::OpenOptions::new().create(true).append(true).open(path);
    let line = format!(
        "{how} {:.1} s to the first stapled handshake, emulated\n",
        took.as_secs_f64()
    );
    eprint!("{line}");
    let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
}
