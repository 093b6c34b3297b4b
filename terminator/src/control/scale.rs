//! A way in for the measurement of scale: what control holds for a number of certificates, and what
//! an hour of fetches costs it, with responses made in advance in the responder's place. Nothing in
//! clinch itself calls this.
//!
//! It measures the records, the queue, the request, the verdict and the plan. Beside it a running
//! clinch holds the certificates, keys and staples themselves, and the egress process works.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;

use super::book::{Track, dice, validity};
use super::gather;
use super::load::{Class, Subject};
use super::queue::Queue;
use super::schedule::{self, Pace};
use crate::config::{CertificateFiles, Ocsp};
use crate::ocsp::{self, Refusal, Request, VerifiedStaple};
use crate::snapshot::CertificateIndex;

/// A certificate with a response about it.
pub struct Sample {
    /// The certificate.
    pub leaf: CertificateDer<'static>,
    /// Its issuer.
    pub issuer: CertificateDer<'static>,
    /// Good at the time of the measurement.
    pub response: Vec<u8>,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Resident memory that tracking the certificates took, bytes.
    pub tracked_bytes: u64,
    /// Processor time of all fetches.
    pub fetching: Duration,
    /// Mean length of a response, bytes.
    pub response_bytes: usize,
}

/// Tracks `certificates` and has `fetches` of them asked about within a simulated hour.
///
/// # Errors
/// When the kernel tells nothing of memory and time.
///
/// # Panics
/// When a sample is not good now, or not as many certificates fall due as are to be fetched.
pub fn simulate(
    samples: &[Sample],
    settings: &Ocsp,
    certificates: usize,
    fetches: usize,
) -> io::Result<Scale> {
    let now = SystemTime::now();
    let before = resident()?;
    let mut tracked = Tracked::open(settings, certificates, fetches, now);
    let tracked_bytes = resident()?.saturating_sub(before);
    let began = processor_time()?;
    let mut done = 0;
    // Ten times a second, as answers come in.
    for tenth in 0..36_000 {
        let at = now + Duration::from_millis(100 * tenth);
        while let Some(certificate) = tracked.queue.next(at) {
            let sample = &samples[certificate as usize % samples.len()];
            tracked
                .fetch(certificate, sample, at)
                .expect("a good sample");
            done += 1;
        }
    }
    assert_eq!(done, fetches, "so many are due within the hour");
    let fetching = processor_time()? - began;
    let lengths = samples.iter().map(|sample| sample.response.len());
    Ok(Scale {
        tracked_bytes,
        fetching,
        response_bytes: lengths.sum::<usize>() / samples.len(),
    })
}

/// What control holds for each certificate.
struct Tracked {
    subjects: Vec<Subject>,
    tracks: Vec<Track>,
    queue: Queue,
    /// The slots' part: a staple is one pointer there.
    staples: Vec<Option<Arc<VerifiedStaple>>>,
}

impl Tracked {
    /// So that `fetches` fall due within the next hour, and the rest after it.
    fn open(settings: &Ocsp, certificates: usize, fetches: usize, now: SystemTime) -> Self {
        let mut queue = Queue::default();
        let mut subjects = Vec::with_capacity(certificates);
        let hour = Duration::from_secs(3600);
        for index in 0..certificates {
            let host = format!("ocsp{}.ca.example", index % RESPONDERS);
            queue.enter(Some(&host));
            let due = match index < fetches {
                true => now + hour.mul_f64(0.99 * index as f64 / fetches as f64),
                false => now + 2 * hour + Duration::from_millis(index as u64),
            };
            let position = CertificateIndex::try_from(index).expect("fewer than 2^32");
            queue.schedule(position, due);
            let file = |kind| PathBuf::from(format!("/etc/clinch/site{index:07}.example.{kind}"));
            subjects.push(Subject {
                files: CertificateFiles {
                    cert: file("pem"),
                    key: file("key"),
                },
                sites: vec![format!("site{index:07}.example")],
                class: Class::Ocsp,
                ocsp: settings.clone(),
                trust: Arc::default(),
                plan: Ok(vec![format!("http://{host}/status")]),
                crls: Vec::new(),
            });
        }
        Self {
            subjects,
            tracks: vec![Track::default(); certificates],
            queue,
            staples: vec![None; certificates],
        }
    }

    /// One fetch as control makes it, with the response at hand.
    fn fetch(
        &mut self,
        certificate: CertificateIndex,
        sample: &Sample,
        at: SystemTime,
    ) -> Result<(), Refusal> {
        let subject = &self.subjects[certificate as usize];
        let responders = subject.plan.clone().expect("has one");
        let hash = subject.ocsp.hash;
        let request = Request::with(&sample.leaf, &sample.issuer, hash, None)?;
        assert!(request.get_url(&responders[0]).is_some(), "goes by GET");
        let policy = gather::policy(subject);
        let staple = ocsp::verify(&sample.response, &sample.leaf, &sample.issuer, &policy, at)?;
        let pace = Pace::of(&subject.ocsp);
        let next = schedule::refresh_at(validity(&staple, None), at, pace, dice());
        self.tracks[certificate as usize] = Track::default();
        self.queue.finished(certificate, true, at);
        self.queue.schedule(certificate, next);
        self.staples[certificate as usize] = Some(Arc::new(staple));
        Ok(())
    }
}

/// Resident memory of this process, bytes.
fn resident() -> io::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    let pages = pages.ok_or_else(|| io::Error::other("/proc/self/statm has another form"))?;
    Ok(pages * PAGE)
}

/// Processor time of this thread.
fn processor_time() -> io::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = stat.split(' ').next().and_then(|time| time.parse().ok());
    let time = nanoseconds.map(Duration::from_nanos);
    time.ok_or_else(|| io::Error::other("/proc/thread-self/schedstat has another form"))
}

/// Of memory, on the machines that clinch runs on.
const PAGE: u64 = 4096;

/// As many as there are CAs in use.
const RESPONDERS: usize = 50;
