//! A Must-Staple site goes without a staple in no handshake, whatever happens to the process, the
//! responder, the egress process and the cache: a refused handshake or one without a staple fails
//! the test.
//!
//! Each test has a quick form, which runs here, and a full one (`make reliability`, which sets
//! CLINCH_RELIABILITY=full).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clinch::cli::demo::authority::Issued;
use clinch_tests::backend::Backend;
use clinch_tests::peers::{self, present};
use clinch_tests::process::{Clinch, Start};
use clinch_tests::responder::{Answer, Mode};
use clinch_tests::setup::{Setup, assert_stapled};
use clinch_tests::{PROMPT, eventually, skip};
use rustix::process::{Pid, Signal, kill_process};

const SITE: &str = "must.example";

/// How often something is done: in the quick form and in the full one.
fn rounds(quick: usize, full: usize) -> usize {
    match std::env::var("CLINCH_RELIABILITY") {
        Ok(form) if form == "full" => full,
        _ => quick,
    }
}

/// A Must-Staple site.
fn must_staple(ocsp: &str) -> (Setup, Issued, Backend) {
    let echo = Backend::echo();
    let mut setup = Setup::new();
    let mut spec = setup.leaf(SITE);
    spec.must_staple = true;
    let issued = setup.site_with(&spec, echo.written(), ocsp);
    (setup, issued, echo)
}

/// Starts clinch and makes the first handshake that it takes, which must be stapled.
#[track_caller]
fn start_and_visit(setup: &Setup, issued: &Issued) -> Clinch {
    let clinch = setup.start_as(&Start {
        impatient: true,
        ..Start::default()
    });
    let first = eventually("clinch listens", PROMPT, || {
        match setup.client().connect(setup.address, SITE) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => None,
            outcome => Some(outcome),
        }
    });
    let session =
        first.unwrap_or_else(|error| panic!("the first handshake: {error}\n{}", clinch.log()));
    assert_stapled(&session, issued);
    clinch
}

/// Ends it as a crash would, and waits until the kernel has taken its sockets down: its rings still
/// hold them for a moment, and then reset who came in between.
#[track_caller]
fn crash(setup: &Setup, clinch: Clinch) {
    clinch.crash();
    eventually("nobody listens", PROMPT, || {
        let refused = std::net::TcpStream::connect(setup.address).err()?;
        (refused.kind() == std::io::ErrorKind::ConnectionRefused).then_some(())
    });
}

/// Visits all the time while `work` goes on; every handshake must be stapled. Returns how many.
fn visiting(setup: &Setup, issued: &Issued, work: impl FnOnce()) -> usize {
    let over = AtomicBool::new(false);
    let visits = AtomicUsize::new(0);
    /// Ends the visits also where `work` panics.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                assert_stapled(&setup.connect(SITE), issued);
                visits.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let _end = End(&over);
        work();
    });
    visits.into_inner()
}

#[test]
fn no_handshake_goes_without_over_restarts_while_the_responder_is_down() {
    let (setup, issued, _echo) = must_staple("");
    setup.start().stop();
    setup.responder.set(Mode::Refused);
    for round in 0..rounds(4, 50) {
        let clinch = start_and_visit(&setup, &issued);
        assert_stapled(&setup.connect(SITE), &issued);
        // Orderly ends and crashes take turns.
        if round % 2 == 0 {
            clinch.stop();
        } else {
            crash(&setup, clinch);
        }
    }
}

#[test]
fn no_handshake_goes_without_when_the_responder_is_back_a_second_before_the_end() {
    back_before_the_end(Mode::Refused);
}

#[test]
fn no_handshake_goes_without_when_a_stuck_responder_answers_again_a_second_before_the_end() {
    back_before_the_end(Mode::Stuck);
}

fn back_before_the_end(until_then: Mode) {
    let validity = Duration::from_secs(rounds(12, 60) as u64);
    let (setup, issued, _echo) = must_staple("");
    setup.responder.says(Answer::GoodFor(validity));
    let clinch = setup.start();
    setup.responder.set(until_then);
    let asked = setup.responder.count();
    let end = end_of_staple(&setup, &issued);
    let visits = visiting(&setup, &issued, || {
        while std::time::SystemTime::now() + Duration::from_secs(1) < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        setup.responder.says(Answer::GoodFor(validity));
        eventually("the end is over", PROMPT, || {
            (std::time::SystemTime::now() > end + Duration::from_secs(2)).then_some(())
        });
    });
    assert!(visits > 50, "only {visits} handshakes");
    assert!(setup.responder.count() > asked, "it was asked");
    clinch.stop();
}

/// nextUpdate of what is stapled now.
fn end_of_staple(setup: &Setup, issued: &Issued) -> std::time::SystemTime {
    let staple = setup.connect(SITE).staple.expect("a staple");
    let policy = clinch::ocsp::Policy::default();
    let now = std::time::SystemTime::now();
    clinch::ocsp::verify(&staple, &issued.leaf, &issued.issuer, &policy, now)
        .expect("right")
        .next_update()
        .expect("it has one")
}

#[test]
fn no_handshake_goes_without_while_the_egress_processes_are_killed_every_second() {
    let (setup, issued, _echo) = must_staple("");
    let validity = Duration::from_secs(12);
    setup.responder.says(Answer::GoodFor(validity));
    let clinch = setup.start();
    let mut killed = 0;
    let asked = setup.responder.count();
    visiting(&setup, &issued, || {
        let begun = Instant::now();
        for second in 1..=rounds(12, 60) {
            let due = Duration::from_secs(second as u64);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            // The worker, and every third time the monitor that would replace it.
            let family = descendants(clinch.pid());
            let victim = if second % 3 == 0 {
                family.first()
            } else {
                family.last()
            };
            if let Some(&pid) = victim {
                let pid = Pid::from_raw(pid as i32).expect("a process id");
                killed += usize::from(kill_process(pid, Signal::KILL).is_ok());
            }
        }
    });
    assert!(
        killed >= rounds(8, 40),
        "only {killed} were there to be killed"
    );
    assert!(
        setup.responder.count() > asked,
        "nothing was refreshed meanwhile"
    );
    clinch.stop();
}

/// Children and their children, parents first.
fn descendants(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = std::fs::read_to_string(path).unwrap_or_default();
    let children: Vec<u32> = children
        .split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect();
    let below = children.iter().flat_map(|child| descendants(*child));
    [children.clone(), below.collect()].concat()
}

#[test]
fn no_handshake_goes_without_while_the_cache_is_full_or_read_only() {
    for options in ["size=4k,nr_inodes=1", "size=64k,ro"] {
        let (setup, issued, _echo) = must_staple("");
        let Some(_mount) = Mount::tmpfs(&setup.cache(), options) else {
            skip!("a tmpfs cannot be mounted here, which this disk is made of");
        };
        setup
            .responder
            .says(Answer::GoodFor(Duration::from_secs(8)));
        let clinch = start_and_visit(&setup, &issued);
        let refreshes = rounds(1, 5);
        visiting(&setup, &issued, || {
            (1..=refreshes).for_each(|done| setup.responder.wait_for(1 + done));
        });
        let failures = "clinch_ocsp_cache_write_failures_total";
        clinch.wait_for_count(failures, &[], (1 + refreshes) as f64);
        clinch.stop();
    }
}

#[test]
fn no_handshake_goes_without_whatever_byte_of_the_cache_is_spoiled() {
    let (setup, issued, _echo) = must_staple("");
    // Signed by the issuer: without certificates, every byte counts.
    setup.responder.says(Answer::GoodByIssuer);
    setup.start().stop();
    let entry = entry(&setup.cache());
    let whole = std::fs::read(&entry).expect("readable");
    let spoilt = rounds(12, whole.len());
    for round in 0..spoilt {
        let at = round * whole.len() / spoilt;
        let mut bytes = whole.clone();
        // Turned, and the next time cut off, as after a power loss.
        if round % 2 == 0 {
            bytes[at] ^= 1 << (round / 2 % 8);
        } else {
            bytes.truncate(at);
        }
        std::fs::write(&entry, &bytes).expect("our own file");
        let asked = setup.responder.count();
        let clinch = start_and_visit(&setup, &issued);
        let refused = clinch.count("clinch_ocsp_cache_refusals_total", &[]);
        assert_eq!(refused, 1.0, "byte {at} was not missed");
        assert_eq!(
            setup.responder.count(),
            asked + 1,
            "byte {at}: it asked again"
        );
        clinch.stop();
    }
}

#[test]
fn no_handshake_goes_without_after_a_crash_in_the_middle_of_a_write() {
    // Refreshed after a twentieth of the validity.
    let (setup, issued, _echo) = must_staple("ocsp = { margin = 0.95 }");
    let validity = Duration::from_secs(40);
    setup.responder.says(Answer::GoodFor(validity));
    setup.start().stop();
    let mut in_the_middle = 0;
    let rounds = rounds(2, 20);
    for round in 0..rounds {
        setup.responder.says(Answer::GoodFor(validity));
        let clinch = start_and_visit(&setup, &issued);
        // Between the beginning of the write and the new name is when it is killed.
        let deadline = Instant::now() + PROMPT;
        while !unfinished(&setup.cache()) && Instant::now() < deadline {
            std::hint::spin_loop();
        }
        crash(&setup, clinch);
        in_the_middle += usize::from(unfinished(&setup.cache()));
        setup.responder.set(Mode::Refused);
        let clinch = start_and_visit(&setup, &issued);
        clinch.stop();
        // A part of a file, as a power loss leaves it.
        let part = entry(&setup.cache()).with_extension("part");
        std::fs::write(&part, vec![0x30; round * 50]).expect("our own directory");
        start_and_visit(&setup, &issued).stop();
        assert!(!part.exists(), "what was not finished is removed");
    }
    println!("killed in the middle of a write {in_the_middle} times of {rounds}");
}

fn unfinished(cache: &Path) -> bool {
    let entries = std::fs::read_dir(cache).expect("readable");
    let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.any(|path| {
        path.extension()
            .is_some_and(|extension| extension == "part")
    })
}

fn entry(cache: &Path) -> PathBuf {
    let entries = std::fs::read_dir(cache).expect("readable");
    let mut paths = entries.map(|entry| entry.expect("readable").path());
    let kept = paths.find(|path| {
        path.extension()
            .is_some_and(|extension| extension == "ocsp")
    });
    kept.expect("something was cached")
}

/// A mounted tmpfs, unmounted in the end.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(at: &Path, options: &str) -> Option<Self> {
        let path = at.display().to_string();
        let said = present("mount")
            .then(|| peers::run("mount", &["-t", "tmpfs", "-o", options, "tmpfs", &path]))?;
        (said.code == Some(0)).then(|| Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        peers::run("umount", &["-l", &self.0.display().to_string()]);
    }
}
