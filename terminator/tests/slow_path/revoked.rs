//! What becomes of a certificate that its CA has revoked, over reloads, restarts and time.

use std::fs;
use std::time::{Duration, SystemTime};

use clinch::cli::demo::authority::{Authority, Status as CertStatus};
use clinch::control::status::StapleStatus;
use clinch::observability::counters::FetchResult;

use crate::support::{Reply, eventually};
use crate::world::{World, good, signed};

#[tokio::test]
async fn a_revoked_certificate_is_withdrawn_until_the_ca_takes_a_hold_back() {
    let mut world = World::new().await;
    world.site(&world.spec("a.test"), "");
    let running = world.start(WAIT).await;
    running.handle.shutdown().await;
    let path = world.cached().expect("cached");
    // An old entry, so that the next start asks at once.
    fs::remove_file(&path).expect("removed");
    world.answers(revoked);
    let running = world.start(WAIT).await;
    let status = running.status().await;
    assert_eq!(status.certificates[0].staple, StapleStatus::Revoked);
    assert_eq!(running.counters.results.value(FetchResult::Revoked), 1);
    let error = status.certificates[0].last_error.as_deref();
    assert!(error.is_some_and(|error| error.contains("revoked")));

    // Neither a reload nor an old response that somebody plays back brings it to life again.
    world.answers(|authority, request, _| {
        signed(authority, request, |answer| {
            answer.this_update = SystemTime::now() - Duration::from_secs(7300);
        })
    });
    running.handle.reload().await.expect("reloaded");
    running
        .status_when("asked again", |_| {
            running.counters.results.value(FetchResult::Good) == 1
        })
        .await;
    let status = running.status().await;
    assert_eq!(status.certificates[0].staple, StapleStatus::Revoked);

    // A hold that the CA lifts afterwards does.
    world.answers(good);
    running.handle.reload().await.expect("reloaded");
    running
        .status_when("served again", |status| {
            status.certificates[0].staple == StapleStatus::Stapled
        })
        .await;
}

#[tokio::test]
async fn a_restart_with_the_responder_down_knows_of_a_revocation_even_past_next_update() {
    let mut world = World::new().await;
    world.site(&world.spec("a.test"), "");
    let end = SystemTime::now() + Duration::from_secs(3);
    world.answers(move |authority, request, _| {
        signed(authority, request, |answer| {
            answer.status = CertStatus::Revoked(end - Duration::from_secs(7200), None);
            answer.next_update = Some(end);
        })
    });
    let running = world.start(WAIT).await;
    let status = running.status().await;
    assert_eq!(status.certificates[0].staple, StapleStatus::Revoked);
    running.handle.shutdown().await;
    assert!(world.cached().is_some());

    world.answers(|_, _, _| Reply::Http(500, Vec::new(), Vec::new()));
    // While the response may hold, and after nextUpdate.
    for _ in 0..2 {
        let running = world.start(Duration::ZERO).await;
        let status = running.status().await;
        assert_eq!(status.certificates[0].staple, StapleStatus::Revoked);
        let error = status.certificates[0].last_error.as_deref();
        assert!(error.is_some_and(|error| error.contains("revoked")));
        running
            .status_when("a failure", |status| status.certificates[0].failures > 0)
            .await;
        let status = running.status().await;
        assert_eq!(status.certificates[0].staple, StapleStatus::Revoked);
        running.handle.shutdown().await;
        eventually("the end of the response", async || {
            (SystemTime::now() > end + Duration::from_secs(1)).then_some(())
        })
        .await;
    }

    world.answers(good);
    let running = world.start(WAIT).await;
    running
        .status_when("the hold taken back", |status| {
            status.certificates[0].staple == StapleStatus::Stapled
        })
        .await;
}

#[tokio::test]
async fn a_kept_revocation_is_believed_only_for_its_certificate_and_from_its_ca() {
    let mut world = World::new().await;
    world.site(&world.spec("a.test"), "");
    world.answers(revoked);
    let running = world.start(WAIT).await;
    running.handle.shutdown().await;
    let path = world.cached().expect("cached");
    let mut spoiled = fs::read(&path).expect("read");
    let middle = spoiled.len() / 2;
    spoiled[middle] ^= 1;
    fs::write(&path, &spoiled).expect("planted");

    world.answers(|_, _, _| Reply::Http(500, Vec::new(), Vec::new()));
    let running = world.start(Duration::ZERO).await;
    let status = running.status().await;
    assert_eq!(status.certificates[0].staple, StapleStatus::Missing);
    assert_eq!(running.counters.cache_refused.value(), 1);
}

/// *Revoked* two hours ago.
fn revoked(authority: &Authority, request: &[u8], _method: &str) -> Reply {
    let at = SystemTime::now() - Duration::from_secs(7200);
    signed(authority, request, |answer| {
        answer.status = CertStatus::Revoked(at, None);
    })
}

const WAIT: Duration = Duration::from_secs(10);
