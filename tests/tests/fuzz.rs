//! The fuzz targets over their seeds, and over what is near: each seed cut short, with a bit turned,
//! and with a stretch doubled. `make fuzz` goes further.

use std::fs;

use clinch_tests::fuzz::TARGETS;

/// Every seed of a target as it is kept.
fn kept(target: &clinch_tests::fuzz::Target) -> Vec<(String, Vec<u8>)> {
    let folder = target.folder();
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let seeds: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("a readable folder").path();
            let bytes = fs::read(&path).expect("a readable seed");
            (path.display().to_string(), bytes)
        })
        .collect();
    assert!(seeds.len() >= 5, "{}: seeds are there", target.name);
    seeds
}

#[test]
fn every_target_holds_on_its_seeds_and_near_them() {
    std::thread::scope(|scope| {
        for target in TARGETS {
            scope.spawn(move || {
                let mut taken = 0;
                let seeds = kept(target);
                for (path, seed) in &seeds {
                    // What a panic is about.
                    println!("{path}");
                    taken += usize::from((target.run)(seed));
                    let step = 1 + seed.len() / 48;
                    for at in (0..seed.len()).step_by(step) {
                        (target.run)(&seed[..at]);
                        let mut turned = seed.clone();
                        turned[at] ^= 1 << (at % 8);
                        (target.run)(&turned);
                        let end = (at + step).min(seed.len());
                        (target.run)(&[&seed[..end], &seed[at..]].concat());
                    }
                }
                // Else the keys, or the seeds, are no longer what they were.
                assert!(taken > 0, "{}: no seed is taken", target.name);
            });
        }
    });
}

#[test]
fn what_the_targets_begin_with_is_kept() {
    for target in TARGETS {
        let kept = kept(target).len();
        let made = (target.seeds)().len();
        assert!(kept >= made, "{}: run `fuzz-seeds`", target.name);
    }
}

#[test]
fn every_target_has_its_fuzzer() {
    let fuzzers = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/targets");
    for target in TARGETS {
        let path = fuzzers.join(target.name).with_extension("rs");
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(
            text.contains(&format!("fuzz::{}", target.name)),
            "{}",
            path.display()
        );
    }
}
