//! The clock of the machine is set while clinch runs: what clients are sent, and what the operator is
//! told. The clock is that of libfaketime, preloaded into clinch; its steady clock stays the machine's.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clinch::ocsp;
use clinch_tests::backend::Backend;
use clinch_tests::process::{Clinch, Start};
use clinch_tests::responder::{Answer, Mode};
use clinch_tests::setup::{Setup, assert_stapled};
use clinch_tests::{PROMPT, eventually, skip};

/// The clock of one clinch.
struct Clock {
    file: PathBuf,
    library: PathBuf,
}

impl Clock {
    /// Right at first; `None` where the machine has no libfaketime.
    fn new(setup: &Setup) -> Option<Self> {
        let places = std::fs::read_dir("/usr/lib").ok()?.flatten();
        let mut libraries = places.map(|place| place.path().join("faketime/libfaketime.so.1"));
        let clock = Self {
            file: setup.dir().join("clock"),
            library: libraries.find(|library| library.exists())?,
        };
        clock.set("+0");
        Some(clock)
    }

    /// Sets it to this many seconds ahead (`+`) of the machine's, or behind (`-`).
    fn set(&self, offset: &str) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, offset).expect("in our own directory");
        std::fs::rename(&new, &self.file).expect("in our own directory");
    }

    /// Starts clinch under it.
    #[track_caller]
    fn start(&self, setup: &Setup) -> Clinch {
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let environment = vec![
            variable("LD_PRELOAD", &self.library.display().to_string()),
            variable("FAKETIME_TIMESTAMP_FILE", &self.file.display().to_string()),
            variable("FAKETIME_NO_CACHE", "1"),
            variable("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            variable("DONT_FAKE_MONOTONIC", "1"),
            variable("NO_FAKE_STAT", "1"),
        ];
        setup.start_as(&Start {
            environment,
            ..Start::default()
        })
    }
}

#[test]
fn a_clock_that_is_set_back_lets_no_staple_outlive_its_end() {
    let echo = Backend::echo();
    let (setup, issued) = Setup::with_site("a.example", echo.written());
    let Some(clock) = Clock::new(&setup) else {
        skip!("libfaketime is not installed");
    };
    setup
        .responder
        .says(Answer::GoodFor(Duration::from_secs(10)));
    let clinch = clock.start(&setup);
    setup.responder.set(Mode::Refused);
    let staple = setup.connect("a.example").staple.expect("a staple");
    let now = SystemTime::now();
    let policy = ocsp::Policy::default();
    let staple = ocsp::verify(&staple, &issued.leaf, &issued.issuer, &policy, now).expect("good");

    clock.set("-3600");
    clinch.wait_for_log("clock_set_back");
    assert_stapled(&setup.connect("a.example"), &issued);
    // By the clock it has an hour to go; clinch looks once a second.
    let end = staple.not_after() + Duration::from_secs(2);
    eventually("the end of the staple", PROMPT, || {
        let sent = setup.connect("a.example").staple;
        assert!(
            sent.is_none() || SystemTime::now() < end,
            "a staple was sent after its end"
        );
        (sent.is_none() && SystemTime::now() > end).then_some(())
    });
    clinch.wait_for_log("staple_withdrawn");
}

#[test]
fn a_clock_that_is_set_forward_is_named_and_what_ended_by_it_is_not_sent() {
    let echo = Backend::echo();
    let (setup, issued) = Setup::with_site("a.example", echo.written());
    let Some(clock) = Clock::new(&setup) else {
        skip!("libfaketime is not installed");
    };
    let clinch = clock.start(&setup);
    assert_stapled(&setup.connect("a.example"), &issued);
    assert_eq!(clinch.status()["control"]["clock"], serde_json::Value::Null);

    clock.set("+864000");
    assert_eq!(setup.connect("a.example").staple, None);
    let named = eventually("the clock is named", PROMPT, || {
        let status = clinch.status();
        let certificate = &status["control"]["certificates"][0];
        let error = certificate["last_error"].as_str()?.to_owned();
        assert_eq!(certificate["staple"], "expired");
        error.contains("The likely cause").then_some(error)
    });
    assert!(
        named.contains("9days 23h") || named.contains("10days"),
        "{named}"
    );
    let admin = format!("unix:{}", clinch.admin().display());
    let explain = ["ocsp", "explain", "a.example", "--admin", &admin];
    clinch_tests::process::clinch(&explain)
        .has("NOT stapled any more")
        .has("ahead of");
    assert_eq!(clinch.count("clinch_clock_implausible", &[]), 1.0);

    // Right again: what was verified under the right clock is sent at once, without the responder.
    setup.responder.set(Mode::Refused);
    clock.set("+0");
    assert_stapled(&setup.connect("a.example"), &issued);
    clinch.wait_for_log("clock_set_back");
    assert_stapled(&setup.connect("a.example"), &issued);
    setup.responder.says(Answer::Good);
    eventually("the clock is believed", PROMPT, || {
        (clinch.count("clinch_clock_implausible", &[]) == 0.0).then_some(())
    });
    assert_stapled(&setup.connect("a.example"), &issued);
}
