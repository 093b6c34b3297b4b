//! The fuzz targets: one function for each parser of outside bytes, that takes any bytes and panics
//! where clinch is wrong about them. Not panicking is half of it; the other half is what a target
//! asserts of what was accepted.
//!
//! `make fuzz` drives them with libFuzzer (`tests/fuzz/`), the test `fuzz` with the seeds that are
//! kept in `tests/fuzz/seeds/`. `cargo run -p clinch-tests --bin fuzz-seeds` writes those that are
//! missing. To add a target: a function, a row in [`TARGETS`], a file in `tests/fuzz/targets/`.

mod authority;
mod certificates;
mod connections;
mod egress;
mod responses;

use std::path::PathBuf;

pub use certificates::{certificate, crl};
pub use connections::{hello, proxy};
pub use egress::{frame, http};
pub use responses::ocsp;

/// A parser under fuzz.
pub struct Target {
    /// Name of the target, of its file and of its folder of seeds.
    pub name: &'static str,
    /// Panics where clinch is wrong about these bytes; true where it takes them, in whatever form.
    pub run: fn(&[u8]) -> bool,
    /// What to begin with.
    pub seeds: fn() -> Vec<Seed>,
}

/// Bytes to begin with, and the name of their file.
pub type Seed = (String, Vec<u8>);

/// Every target.
pub const TARGETS: &[Target] = &[
    Target {
        name: "ocsp",
        run: ocsp,
        seeds: responses::seeds,
    },
    Target {
        name: "crl",
        run: crl,
        seeds: certificates::crl_seeds,
    },
    Target {
        name: "certificate",
        run: certificate,
        seeds: certificates::certificate_seeds,
    },
    Target {
        name: "http",
        run: http,
        seeds: egress::http_seeds,
    },
    Target {
        name: "frame",
        run: frame,
        seeds: egress::frame_seeds,
    },
    Target {
        name: "hello",
        run: hello,
        seeds: connections::hello_seeds,
    },
    Target {
        name: "proxy",
        run: proxy,
        seeds: connections::proxy_seeds,
    },
];

impl Target {
    /// Where the target's seeds are.
    pub fn folder(&self) -> PathBuf {
        [env!("CARGO_MANIFEST_DIR"), "fuzz", "seeds", self.name]
            .iter()
            .collect()
    }
}

/// Names seeds.
fn named<const N: usize>(seeds: [(&str, Vec<u8>); N]) -> Vec<Seed> {
    seeds.map(|(name, bytes)| (name.to_owned(), bytes)).into()
}
