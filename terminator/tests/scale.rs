//! What tracking certificates costs: memory and processor time, printed and held to the promise.
//!
//! The quick form tracks 20,000 certificates; `make bench-schedule` a million (`CLINCH_SCALE=full`).

use std::time::SystemTime;

use clinch::cli::demo::authority::{Authority, HashAlgorithm, LeafSpec, OcspAnswer};
use clinch::config::Config;
use clinch::control::scale::{Sample, simulate};

/// Of a core, for 10,000 fetches an hour.
const SHARE: f64 = 0.02;

/// Memory for a certificate: a million take a gigabyte.
const BYTES: u64 = 1000;

#[test]
fn a_million_certificates_are_tracked_in_a_gigabyte_and_fetched_for_a_fiftieth_of_a_core() {
    let full = std::env::var("CLINCH_SCALE").is_ok_and(|scale| scale == "full");
    let (certificates, fetches) = if full {
        (1_000_000, 10_000)
    } else {
        (20_000, 200)
    };
    let now = SystemTime::now();
    let authority = Authority::new(now).expect("keys can be made");
    let samples: Vec<Sample> = (0..16)
        .map(|n| {
            let spec = LeafSpec {
                names: vec![format!("site{n}.example")],
                ocsp_urls: vec!["http://ocsp.ca.example/status".to_owned()],
                ..LeafSpec::default()
            };
            let issued = authority.issue(&spec).expect("issued");
            let answer = OcspAnswer::good(now);
            let response = authority.respond_about(&answer, &issued.serial, HashAlgorithm::Sha1);
            Sample {
                leaf: issued.leaf,
                issuer: issued.issuer,
                response: response.expect("signed"),
            }
        })
        .collect();
    let config = "[listen.public]\naddress = \"127.0.0.1:1\"\n[[site]]\nnames = \"a.example\"\ncert = \"/c\"\nkey = \"/k\"\nbackend = \"127.0.0.1:2\"\n";
    let config = Config::parse(config).expect("a configuration");
    let scale = simulate(&samples, &config.sites[0].ocsp, certificates, fetches).expect("measured");

    let each = scale.tracked_bytes / certificates as u64;
    let of_core = scale.fetching.as_secs_f64() / fetches as f64 * 10_000.0 / 3600.0;
    println!(
        "{certificates} certificates tracked in {:.0} MB ({each} bytes each; their staples, at {} bytes, would add {:.0} MB)",
        scale.tracked_bytes as f64 / 1e6,
        scale.response_bytes,
        (scale.response_bytes * certificates) as f64 / 1e6
    );
    println!(
        "{fetches} fetches took {:.2?} of processor time; 10,000 an hour are {:.2} % of a core",
        scale.fetching,
        of_core * 100.0
    );
    assert!(each <= BYTES, "{each} bytes for each certificate");
    assert!(of_core < SHARE, "{of_core} of a core");
}
