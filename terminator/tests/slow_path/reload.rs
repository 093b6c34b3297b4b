//! Reloads, by command and because a file changed: what is kept, what is taken, what is refused.

use std::fs;
use std::time::Duration;

use clinch::control::ReloadError;
use clinch::control::status::StapleStatus;

use crate::world::{World, replace, signed};

const WAIT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_reload_keeps_staples_and_takes_new_certificates() {
    let mut world = World::new().await;
    world.site(&world.spec("a.test"), "");
    world.site(&world.spec("b.test"), "");
    let running = world.start(WAIT).await;
    let before = running.status().await;
    let asked = world.asked();

    world.issue(&world.spec("b.test"));
    world.site(&world.spec("c.test"), "");
    world.write_config();
    let report = running.handle.reload().await.expect("reloaded");
    assert_eq!((report.sites, report.certificates), (3, 3));
    assert_eq!(report.staples_kept, 1);
    let after = running
        .status_when("all stapled", |status| {
            let mut certificates = status.certificates.iter();
            certificates.all(|c| c.staple == StapleStatus::Stapled)
        })
        .await;
    assert_eq!(after.epoch, before.epoch + 1);
    let staple = |status: &clinch::control::Status, index: usize| {
        let certificate = &status.certificates[index];
        (certificate.fingerprint.clone(), certificate.this_update)
    };
    assert_eq!(staple(&after, 0), staple(&before, 0));
    assert_ne!(staple(&after, 1).0, staple(&before, 1).0);
    assert_eq!(world.asked(), asked + 2);
}

#[tokio::test]
async fn a_reload_with_stricter_settings_judges_the_staple_in_use_again() {
    let mut world = World::new().await;
    let spec = world.spec("a.test");
    world.site(&spec, "");
    world.answers(|authority, request, _| {
        signed(authority, request, |answer| answer.next_update = None)
    });
    let running = world.start(WAIT).await;
    let status = running.status().await;
    assert_eq!(status.certificates[0].staple, StapleStatus::Stapled);

    // It is an hour old.
    world.clear_sites();
    world.name_site(&spec, "ocsp = { max_age = \"10m\" }");
    world.write_config();
    let report = running.handle.reload().await.expect("reloaded");
    assert_eq!(report.staples_kept, 0);
    let status = running
        .status_when("asked again", |status| status.certificates[0].failures > 0)
        .await;
    assert_eq!(status.certificates[0].staple, StapleStatus::Missing);
    let error = status.certificates[0].last_error.as_deref();
    assert!(error.is_some_and(|error| error.contains("max_age")));
}

#[tokio::test]
async fn a_certificate_replaced_on_disk_is_taken_without_being_told() {
    let mut world = World::new().await;
    world.site(&world.spec("a.test"), "");
    let running = world.start(WAIT).await;
    let before = running.status().await.certificates[0].fingerprint.clone();
    world.issue(&world.spec("a.test"));
    running
        .status_when("the new certificate, stapled", |status| {
            let certificate = &status.certificates[0];
            certificate.fingerprint != before && certificate.staple == StapleStatus::Stapled
        })
        .await;
    assert_eq!(running.counters.reloads.value(), 1);
}

#[tokio::test]
async fn a_bad_reload_changes_nothing_and_says_why() {
    let mut world = World::new().await;
    world.site(&world.spec("a.test"), "");
    let running = world.start(WAIT).await;
    let before = running.status().await;

    let good_config = fs::read_to_string(world.path("clinch.toml")).expect("written");
    replace(&world.path("clinch.toml"), "nonsense = 1", 0o644);
    let error = running.handle.reload().await.expect_err("refused");
    assert!(matches!(error, ReloadError::Config { .. }), "{error}");
    assert!(error.to_string().contains("nonsense"), "{error}");

    replace(&world.path("clinch.toml"), &good_config, 0o644);
    let key = fs::read_to_string(world.path("a.test.key")).expect("written");
    replace(&world.path("a.test.key"), &key, 0o644);
    let error = running.handle.reload().await.expect_err("refused");
    assert!(error.to_string().contains("chmod 600"), "{error}");
    replace(&world.path("a.test.key"), &key, 0o600);

    world.address = "127.0.0.1:9443".to_owned();
    world.write_config();
    let error = running.handle.reload().await.expect_err("refused");
    assert!(matches!(error, ReloadError::Listeners { .. }), "{error}");
    assert!(error.to_string().contains("127.0.0.1:9443"), "{error}");

    let after = running.status().await;
    assert_eq!(after.epoch, before.epoch);
    assert_eq!(after.certificates[0].staple, StapleStatus::Stapled);
    assert!(after.last_reload_error.is_some_and(|e| e.contains("9443")));
    assert!(running.counters.reloads_refused.value() >= 3);
}
