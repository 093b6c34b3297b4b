//! Control with its real parts: what it staples at the start, from the cache, and after each kind of
//! answer.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use clinch::cli::demo::authority::{
    LeafSpec, Signer, Status as CertStatus, Unsuccessful, unsuccessful,
};
use clinch::control::load::Class;
use clinch::control::status::StapleStatus;
use clinch::observability::counters::FetchResult;
use clinch::snapshot::SlotState;

use crate::support::{Reply, egress_processes, eventually, kill, serve, status_line};
use crate::world::{World, good, ocsp, signed};

const WAIT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn the_first_fetch_staples_what_has_a_responder_and_skips_the_rest() {
    let mut world = World::new().await;
    let first = world.site(&world.spec("a.test"), "");
    world.site(&world.spec("b.test"), "ocsp = false");
    let silent = LeafSpec {
        ocsp_urls: Vec::new(),
        ..world.spec("c.test")
    };
    world.site(&silent, "");
    let mut must = world.spec("d.test");
    must.must_staple = true;
    world.site(&must, "");

    let running = world.start(WAIT).await;
    let status = running.status().await;
    let states: Vec<_> = status.certificates.iter().map(|c| c.staple).collect();
    let none = StapleStatus::NotApplicable;
    let stapled = StapleStatus::Stapled;
    assert_eq!(states, [stapled, none, none, stapled]);
    let classes: Vec<_> = status.certificates.iter().map(|c| c.class).collect();
    assert_eq!(
        classes,
        [Class::Ocsp, Class::Ocsp, Class::None, Class::Ocsp]
    );
    let required: Vec<_> = status
        .certificates
        .iter()
        .map(|c| c.staple_required)
        .collect();
    assert_eq!(required, [false, false, false, true]);
    assert_eq!(world.asked(), 2);
    assert_eq!(running.counters.results.value(FetchResult::Good), 2);
    assert_eq!(running.counters.skipped.value(), 2);

    let snapshot = running.subscribers[0].take().expect("published");
    let SlotState::Stapled(staple) = &snapshot.slots[0].state else {
        panic!("not stapled");
    };
    assert_eq!(staple.certificate(), snapshot.fingerprint(0));
    assert_eq!(
        snapshot.table.certificates[0].identity.chain[0].as_ref(),
        first.leaf.as_ref()
    );
}

#[tokio::test]
async fn a_restart_staples_from_the_cache_without_a_question() {
    let mut world = World::new().await;
    world.site(&world.spec("a.test"), "");
    let running = world.start(WAIT).await;
    running.handle.shutdown().await;
    assert!(running.handle.status().await.is_none());
    assert!(world.cached().is_some());
    let asked = world.asked();

    world.answers(|_, _, _| Reply::Hang);
    let began = Instant::now();
    let running = world.start(WAIT).await;
    assert!(began.elapsed() < WAIT, "it waited for the responder");
    let status = running.status().await;
    assert_eq!(status.certificates[0].staple, StapleStatus::Stapled);
    assert_eq!(running.counters.from_cache.value(), 1);
    assert_eq!(world.asked(), asked);
}

#[tokio::test]
async fn a_cached_response_is_believed_no_more_than_one_from_the_network() {
    let mut world = World::new().await;
    world.site(&world.spec("a.test"), "");
    let running = world.start(WAIT).await;
    running.handle.shutdown().await;
    let path = world.cached().expect("cached");

    let other = world.site(&world.spec("b.test"), "");
    let answer = clinch::cli::demo::authority::OcspAnswer::good(SystemTime::now());
    let hash = clinch::cli::demo::authority::HashAlgorithm::Sha1;
    let for_another = world
        .authority
        .respond_about(&answer, &other.serial, hash)
        .expect("signed");
    for planted in [b"garbage".to_vec(), for_another] {
        fs::write(&path, &planted).expect("planted");
        let running = world.start(WAIT).await;
        assert_eq!(running.counters.cache_refused.value(), 1);
        let status = running.status().await;
        assert_eq!(status.certificates[0].staple, StapleStatus::Stapled);
        running.handle.shutdown().await;
        assert_ne!(fs::read(&path).expect("replaced"), planted);
    }
}

#[tokio::test]
async fn a_silent_responder_delays_the_start_no_longer_than_the_wait() {
    let mut world = World::new().await;
    world.site(&world.spec("a.test"), "");
    world.answers(|_, _, _| Reply::Hang);
    let began = Instant::now();
    let running = world.start(Duration::from_millis(500)).await;
    assert!(began.elapsed() < Duration::from_secs(3));
    let status = running.status().await;
    assert_eq!(status.certificates[0].staple, StapleStatus::Missing);
}

#[tokio::test]
async fn nothing_but_a_right_answer_is_stapled_and_each_wrong_one_is_told_apart() {
    type Case = (&'static str, FetchResult, fn() -> Behaviour);
    type Behaviour =
        Box<dyn Fn(&clinch::cli::demo::authority::Authority, &[u8], &str) -> Reply + Send>;
    let hour = Duration::from_secs(3600);
    let cases: &[Case] = &[
        ("serial", FetchResult::Refused, || {
            Box::new(|a, r, _| signed(a, r, |answer| answer.serial = Some(vec![9; 8])))
        }),
        ("neither the issuer", FetchResult::Refused, || {
            Box::new(|a, r, _| signed(a, r, |answer| answer.signer = Signer::Impostor))
        }),
        ("nextUpdate", FetchResult::Refused, || {
            Box::new(|a, r, _| {
                signed(a, r, |answer| {
                    answer.next_update = Some(SystemTime::now() - Duration::from_secs(60));
                })
            })
        }),
        ("does not know", FetchResult::Refused, || {
            Box::new(|a, r, _| signed(a, r, |answer| answer.status = CertStatus::Unknown))
        }),
        ("tryLater", FetchResult::TryLater, || {
            Box::new(|_, _, _| ocsp(unsuccessful(Unsuccessful::TryLater)))
        }),
        ("unauthorized", FetchResult::Unauthorized, || {
            Box::new(|_, _, _| ocsp(unsuccessful(Unsuccessful::Unauthorized)))
        }),
        ("content type text/html", FetchResult::Http, || {
            Box::new(|_, _, _| {
                let html = vec![("content-type", "text/html".to_owned())];
                Reply::Http(200, html, b"<html>".to_vec())
            })
        }),
        ("status 503", FetchResult::Http, || {
            Box::new(|_, _, _| Reply::Http(503, Vec::new(), Vec::new()))
        }),
        ("larger than", FetchResult::Http, || {
            Box::new(|_, _, _| ocsp(vec![0; 10 << 20]))
        }),
        ("parse", FetchResult::Refused, || {
            Box::new(|_, _, _| ocsp(b"garbage".to_vec()))
        }),
    ];
    for (words, result, behaviour) in cases {
        let mut world = World::new().await;
        world.site(&world.spec("a.test"), "");
        world.answers(behaviour());
        let running = world.start(WAIT).await;
        let status = running.status().await;
        let certificate = &status.certificates[0];
        assert_eq!(certificate.staple, StapleStatus::Missing, "{words}");
        let error = certificate.last_error.as_deref().expect("a reason");
        assert!(error.contains(words), "{words} is not in: {error}");
        assert!(running.counters.results.value(*result) >= 1, "{words}");
        let next = certificate.next_fetch.expect("asked again");
        assert!(next < SystemTime::now() + hour / 2, "{words}");
    }
}

#[tokio::test]
async fn a_staple_is_replaced_before_it_runs_out() {
    let mut world = World::new().await;
    world.site(&world.spec("a.test"), "");
    world.answers(short_lived);
    let running = world.start(WAIT).await;
    let first = running.status().await.certificates[0].clone();
    let second = running
        .status_when("a second staple", |status| {
            status.certificates[0].this_update > first.this_update
        })
        .await;
    assert!(SystemTime::now() < first.staple_not_after.expect("stapled"));
    assert_eq!(second.certificates[0].staple, StapleStatus::Stapled);
}

#[tokio::test]
async fn a_staple_outlives_its_responder_until_it_runs_out_and_no_longer() {
    let mut world = World::new().await;
    world.site(&world.spec("a.test"), "");
    world.answers(short_lived);
    let running = world.start(WAIT).await;
    world.answers(|_, _, _| Reply::Http(500, Vec::new(), Vec::new()));
    let failing = running
        .status_when("a failure", |status| status.certificates[0].failures > 0)
        .await;
    assert_eq!(failing.certificates[0].staple, StapleStatus::Stapled);
    let expired = running
        .status_when("the end of the staple", |status| {
            status.certificates[0].staple == StapleStatus::Expired
        })
        .await;
    assert!(SystemTime::now() >= expired.certificates[0].staple_not_after.expect("known"));
    world.answers(good);
    running
        .status_when("a new staple", |status| {
            status.certificates[0].staple == StapleStatus::Stapled
        })
        .await;
}

#[tokio::test]
async fn the_next_responder_is_asked_when_the_first_is_down() {
    let mut world = World::new().await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port");
    let mut spec = world.spec("a.test");
    spec.ocsp_urls.insert(0, format!("http://{closed}/"));
    world.site(&spec, "");
    let running = world.start(WAIT).await;
    let status = running.status().await;
    assert_eq!(status.certificates[0].staple, StapleStatus::Stapled);
    assert_eq!(running.counters.results.value(FetchResult::Network), 1);
    assert_eq!(running.counters.results.value(FetchResult::Good), 1);
}

#[tokio::test]
async fn a_configured_responder_takes_the_place_of_the_named_one() {
    let mut world = World::new().await;
    let mut spec = world.spec("a.test");
    spec.ocsp_urls = vec!["http://192.0.2.1/".to_owned()];
    let site = format!("ocsp = {{ responder = {:?} }}", world.responder);
    world.site(&spec, &site);
    let running = world.start(WAIT).await;
    let status = running.status().await;
    assert_eq!(status.certificates[0].staple, StapleStatus::Stapled);
}

#[tokio::test]
async fn a_responder_that_takes_no_get_is_posted_to() {
    let mut world = World::new().await;
    world.site(&world.spec("a.test"), "");
    world.answers(|authority, request, method| match method {
        "POST" => good(authority, request, method),
        _ => Reply::Http(405, Vec::new(), Vec::new()),
    });
    let running = world.start(WAIT).await;
    let status = running.status().await;
    assert_eq!(status.certificates[0].staple, StapleStatus::Stapled);
    assert_eq!(world.asked(), 2);
}

#[tokio::test]
async fn one_stuck_responder_delays_only_its_own_certificates() {
    let mut world = World::new().await;
    let stuck = serve(|_| Reply::Hang).await;
    for index in 0..40 {
        let mut spec = world.spec(&format!("stuck{index}.test"));
        spec.ocsp_urls = vec![format!("http://{stuck}/")];
        world.site(&spec, "");
    }
    world.site(&world.spec("quick.test"), "");
    let running = world.start(Duration::from_secs(1)).await;
    let status = running.status().await;
    let quick = status.certificates.last().expect("the last");
    assert_eq!(quick.staple, StapleStatus::Stapled);
}

#[tokio::test]
async fn a_stuck_responder_delays_nobody_who_names_another_one() {
    let mut world = World::new().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let stuck = serve(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        Reply::Hang
    })
    .await;
    for index in 0..40 {
        let mut spec = world.spec(&format!("site{index}.test"));
        spec.ocsp_urls.insert(0, format!("http://{stuck}/"));
        world.site(&spec, "ocsp = { timeout = \"2s\" }");
    }
    // One wait for the first questions, and none for the others.
    let running = world.start(Duration::from_secs(6)).await;
    let status = running.status().await;
    let states = status.certificates.iter().map(|c| c.staple);
    let stapled = states.filter(|state| *state == StapleStatus::Stapled);
    assert_eq!(stapled.count(), 40);
    let asked = asked.load(Ordering::SeqCst);
    assert!(asked < 10, "asked in vain {asked} times");
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_is_counted_and_leaves_the_staple_in_use() {
    let mut world = World::new().await;
    world.site(&world.spec("a.test"), "");
    fs::remove_dir(world.path("cache")).expect("removed");
    fs::write(world.path("cache"), "in the way").expect("written");
    let running = world.start(WAIT).await;
    eventually("a counted failure", async || {
        (running.counters.cache_write_failures.value() > 0).then_some(())
    })
    .await;
    let status = running.status().await;
    assert_eq!(status.certificates[0].staple, StapleStatus::Stapled);
}

#[tokio::test]
async fn a_crash_of_the_egress_worker_costs_a_second() {
    let mut world = World::new().await;
    world.site(&world.spec("a.test"), "");
    world.answers(|_, _, _| Reply::Hang);
    let running = world.start(Duration::from_millis(300)).await;
    world.answers(good);
    let (_, worker) = egress_processes().await;
    kill(worker);
    let status = running
        .status_when("a staple", |status| {
            status.certificates[0].staple == StapleStatus::Stapled
        })
        .await;
    assert_eq!(status.certificates[0].failures, 0);
    assert_eq!(running.counters.results.value(FetchResult::Egress), 1);
    assert_eq!(running.counters.egress_starts.value(), 2);
}

#[tokio::test]
async fn the_egress_process_is_not_root_where_clinch_gives_up_root() {
    egress_runs_as("user = \"nobody\"", "", "65534").await;
}

#[tokio::test]
async fn the_egress_process_may_have_a_user_of_its_own() {
    egress_runs_as("user = \"nobody\"", "\nuser = \"daemon\"", "1").await;
}

async fn egress_runs_as(settings: &str, egress: &str, uid: &str) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can start a process of another user");
        return;
    }
    let mut world = World::new().await;
    world.site(&world.spec("a.test"), "");
    world.top = settings.to_owned();
    world.egress += egress;
    let running = world.start(WAIT).await;
    let (_, worker) = egress_processes().await;
    let line = status_line(worker, "Uid").expect("a line of status");
    assert!(line.split_ascii_whitespace().all(|id| id == uid), "{line}");
    let status = running.status().await;
    assert_eq!(status.certificates[0].staple, StapleStatus::Stapled);
}

/// *Good* for six seconds.
fn short_lived(
    authority: &clinch::cli::demo::authority::Authority,
    request: &[u8],
    _method: &str,
) -> Reply {
    signed(authority, request, |answer| {
        let now = SystemTime::now();
        answer.this_update = now;
        answer.produced_at = now;
        answer.next_update = Some(now + Duration::from_secs(6));
    })
}
