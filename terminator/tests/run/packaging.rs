//! The files of `packaging/`, judged by systemd's own tools where they are installed.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

#[test]
fn systemd_finds_no_fault_with_the_units_and_little_exposure() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let drop_in = "clinch.service.d/separate-egress.conf";
    for with_drop_in in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        // It looks for the program and the manual page; neither is installed here.
        let unit = fs::read_to_string(packaging.join("clinch.service")).expect("readable");
        let unit = unit
            .replace("/usr/bin/clinch", env!("CARGO_BIN_EXE_clinch"))
            .replace("Documentation=man:clinch(1)\n", "");
        fs::write(at("clinch.service"), unit).expect("written");
        fs::copy(packaging.join("clinch.socket"), at("clinch.socket")).expect("copied");
        if with_drop_in {
            fs::create_dir(at("clinch.service.d")).expect("ours");
            fs::copy(packaging.join(drop_in), at(drop_in)).expect("copied");
        }
        let Some(verified) = analyze(&["verify"], directory.path()) else {
            eprintln!("SKIPPED systemd_finds_no_fault_with_the_units: no systemd-analyze");
            return;
        };
        assert!(verified.status.success(), "{}", text(&verified));
        assert_eq!(text(&verified), "", "not even a warning");
        let threshold = ["security", "--offline=true", "--threshold=30", "--no-pager"];
        let judged = analyze(&threshold, directory.path()).expect("it was there just now");
        assert!(judged.status.success(), "{}", text(&judged));
    }
}

fn analyze(arguments: &[&str], directory: &Path) -> Option<Output> {
    Command::new("systemd-analyze")
        .args(arguments)
        .arg(directory.join("clinch.service"))
        .output()
        .ok()
}

fn text(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    text
}
