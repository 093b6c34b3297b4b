//! Randomness that survives a restart, in addition to the hardware's.

use std::fs;

/// Hands the kernel what the last run left. It is used once.
pub fn seed() {
    if let Ok(seed) = fs::read(SEED) {
        let _ = fs::write("/dev/urandom", seed);
        let _ = fs::remove_file(SEED);
    }
}

/// Leaves some for the next run.
pub fn save() {
    let mut seed = [0; 64];
    if rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty()).is_ok() {
        let _ = fs::write(SEED, seed);
    }
}

const SEED: &str = "/state/random-seed";
