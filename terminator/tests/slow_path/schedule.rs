//! When control asks again, with real servers: on their HTTP headers, conditionally, out of turn, and
//! what it makes of their clocks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use clinch::cli::demo::authority::{Authority, LeafSpec, OcspAnswer};
use clinch::control::inquiry::Outcome;
use clinch::control::status::StapleStatus;
use clinch::observability::counters::FetchResult;

use crate::support::{Asked, Reply, serve};
use crate::world::{World, request_of};

const WAIT: Duration = Duration::from_secs(5);

/// A response for a week, with these headers.
fn good(authority: &Authority, asked: &Asked, headers: &[(&'static str, String)]) -> Reply {
    let answer = OcspAnswer::good(SystemTime::now());
    let body = authority
        .respond(&answer, &request_of(asked))
        .expect("signed");
    let mut all = vec![("content-type", "application/ocsp-response".to_owned())];
    all.extend(headers.iter().cloned());
    Reply::Http(200, all, body)
}

#[tokio::test]
async fn a_responder_that_names_its_response_is_asked_for_something_newer_only() {
    let mut world = World::new().await;
    let authority = Arc::clone(&world.authority);
    let conditional = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&conditional);
    let address = serve(move |asked| {
        if asked
            .headers
            .get("if-none-match")
            .is_some_and(|known| known == "\"v1\"")
        {
            counted.fetch_add(1, Ordering::SeqCst);
            return Reply::Http(304, Vec::new(), Vec::new());
        }
        good(&authority, &asked, &[("etag", "\"v1\"".to_owned())])
    })
    .await;
    world.responder = format!("http://{address}/ocsp");
    world.site(&world.spec("a.test"), "");
    let running = world.start(WAIT).await;
    let before = running.status().await;
    assert_eq!(before.certificates[0].staple, StapleStatus::Stapled);

    let fetched = running
        .handle
        .fetch("a.test".to_owned())
        .await
        .expect("there");
    assert_eq!(fetched[0].outcome, Outcome::Unchanged, "{fetched:?}");
    assert_eq!(conditional.load(Ordering::SeqCst), 1);
    assert_eq!(running.counters.results.value(FetchResult::Unchanged), 1);
    let after = running.status().await;
    assert_eq!(after.certificates[0].staple, StapleStatus::Stapled);
    assert_eq!(after.generation, before.generation, "nothing was published");
    assert!(after.certificates[0].next_fetch.expect("planned") > SystemTime::now());
}

#[tokio::test]
async fn max_age_brings_the_next_fetch_forward() {
    let mut world = World::new().await;
    let authority = Arc::clone(&world.authority);
    let address = serve(move |asked| {
        let headers = [("cache-control", "public, max-age=7200".to_owned())];
        good(&authority, &asked, &headers)
    })
    .await;
    world.responder = format!("http://{address}/ocsp");
    world.site(&world.spec("a.test"), "");
    let running = world.start(WAIT).await;
    let status = running.status().await;
    let next = status.certificates[0].next_fetch.expect("planned");
    let wait = next.duration_since(SystemTime::now()).expect("to come");
    let hour = Duration::from_secs(3600);
    assert!(wait > hour && wait < 2 * hour + hour / 4, "{wait:?}");
}

#[tokio::test]
async fn a_clock_that_servers_contradict_is_named_and_right_responses_are_stapled_all_the_same() {
    let mut world = World::new().await;
    let authority = Arc::clone(&world.authority);
    let date = Arc::new(Mutex::new(Some("Sat, 01 Jan 2028 00:00:00 GMT".to_owned())));
    let says = Arc::clone(&date);
    let address = serve(move |asked| {
        let date = says.lock().expect("no panic").clone();
        let headers: Vec<_> = date.map(|date| ("date", date)).into_iter().collect();
        good(&authority, &asked, &headers)
    })
    .await;
    world.responder = format!("http://{address}/ocsp");
    world.site(&world.spec("a.test"), "");
    let running = world.start(WAIT).await;
    let status = running.status().await;
    assert_eq!(status.certificates[0].staple, StapleStatus::Stapled);
    let clock = status.clock.expect("named");
    assert!(clock.contains("behind of the one server asked"), "{clock}");
    let explained = running
        .handle
        .explain("a.test".to_owned())
        .await
        .expect("there");
    assert!(explained.certificates[0].remedies.contains(&clock));

    // The server's own date: hyper writes the right one.
    *date.lock().expect("no panic") = None;
    running
        .handle
        .fetch("a.test".to_owned())
        .await
        .expect("there");
    assert_eq!(running.status().await.clock, None);
}

#[tokio::test]
async fn a_fetch_out_of_turn_tells_every_step_and_waits_for_no_rest() {
    let mut world = World::new().await;
    let spec = LeafSpec {
        ocsp_urls: vec!["http://127.0.0.1:9/".to_owned(), world.responder.clone()],
        ..world.spec("a.test")
    };
    world.site(&spec, "");
    let running = world.start(WAIT).await;
    for _ in 0..3 {
        let fetched = running
            .handle
            .fetch("a.test".to_owned())
            .await
            .expect("there");
        assert_eq!(fetched[0].outcome, Outcome::Stapled, "{fetched:?}");
        let steps: Vec<&str> = fetched[0].steps.iter().map(|s| s.what.as_str()).collect();
        let at = |part: &str| {
            let found = steps.iter().position(|step| step.contains(part));
            found.unwrap_or_else(|| panic!("no {part} in {steps:#?}"))
        };
        let first = at("failed: cannot connect to 127.0.0.1:9");
        assert!(
            first < at("connected ("),
            "the second responder comes after"
        );
        assert!(at("verified: good") < at("in place: snapshot generation"));
        let times: Vec<f64> = fetched[0].steps.iter().map(|step| step.at_ms).collect();
        assert!(times.is_sorted(), "{times:?}");
    }
    assert_eq!(
        running.handle.fetch("b.test".to_owned()).await,
        Some(Vec::new())
    );
}
