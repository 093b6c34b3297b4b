//! What makes the image and writes it: the bound on its size, and `flash`.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clinch_tests::appliance::{Firmware, Machine, Parts, Place, disks, image, scripts};
use clinch_tests::peers::Said;

#[test]
fn a_system_that_is_too_large_ends_the_build() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let size = |length: u64| {
        let path = dir.path().join("system");
        File::create(&path)
            .and_then(|file| file.set_len(length))
            .expect("in our own directory");
        let gate = scripts().join("build/size.sh");
        Command::new(gate)
            .arg(&path)
            .status()
            .expect("a shell is there")
            .success()
    };
    assert!(size(24_000_000));
    assert!(!size(24_000_001));
    let system = image().join("clinch.efi").metadata();
    let system = system.expect("make image was run").len();
    eprintln!("clinch.efi has {system} bytes");
    assert!(size(system));
}

#[test]
fn flash_asks_twice_refuses_what_is_in_use_and_what_it_wrote_boots() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let source = image().join("clinch-uefi.img");
    let small = Loop::new(&dir.path().join("small.img"), 1 << 20);
    flash(&source, &small.device, "yes\n").has("too small");
    let disk = Loop::new(&dir.path().join("disk.img"), 512 << 20);
    for (answers, words) in [
        ("no\n", "nothing was written"),
        ("yes\n/dev/other\n", "nothing was written"),
    ] {
        flash(&source, &disk.device, answers).has(words);
    }
    flash(&source, Path::new("/dev/null"), "").has("is no disk");
    let answers = format!("yes\n{}\n", disk.device.display());
    flash(&source, &disk.device, &answers).has("verified:");
    // The table reaches to the end of the larger disk, under identifiers of its own.
    let table = sfdisk(&disk.device);
    assert!(table.contains("last-lba: 1048542"), "{table}");
    let identifiers = |table: &str| {
        let lines = table
            .lines()
            .filter(|line| line.contains("uuid=") || line.starts_with("label-id"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let (new, old) = (identifiers(&table), identifiers(&sfdisk(&source)));
    assert_eq!((new.len(), old.len()), (3, 3), "{table}");
    assert!(new.iter().all(|line| !old.contains(line)), "{table}");

    let place = Place::new();
    let volume = place.volume();
    let path = disk.file.clone();
    drop(disk);
    let mut machine = Machine::start(&Parts {
        firmware: Firmware::Uefi(disks::variables(place.dir.path())),
        ..place.parts(&[&path, &volume])
    });
    machine.says("init: proved:");
    place.assert_stapled();
}

/// A loop device over a file; it goes when this is dropped.
struct Loop {
    device: PathBuf,
    file: PathBuf,
}

impl Loop {
    fn new(file: &Path, size: u64) -> Self {
        File::create(file)
            .and_then(|file| file.set_len(size))
            .expect("in our own directory");
        let said = Command::new("losetup")
            .args(["-f", "--show"])
            .arg(file)
            .output()
            .expect("losetup is there");
        assert!(said.status.success(), "loop devices need root");
        Self {
            device: String::from_utf8_lossy(&said.stdout).trim().into(),
            file: file.to_owned(),
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.device).status();
    }
}

fn flash(image: &Path, disk: &Path, answers: &str) -> Said {
    let mut child = Command::new(scripts().join("flash"))
        .args([image, disk])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a shell is there");
    // It may have refused before it asks.
    let _ = child
        .stdin
        .take()
        .expect("piped")
        .write_all(answers.as_bytes());
    let said = child.wait_with_output().expect("our own child");
    Said {
        code: said.status.code(),
        text: String::from_utf8_lossy(&said.stdout).into_owned()
            + &String::from_utf8_lossy(&said.stderr),
    }
}

fn sfdisk(disk: &Path) -> String {
    let said = Command::new("sfdisk").arg("-d").arg(disk).output();
    String::from_utf8_lossy(&said.expect("sfdisk is there").stdout).into_owned()
}
