//! What control makes of the files that a configuration names: all that is wrong at once, what is a
//! warning only, and a key that is out of reach.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clinch::control::Loaded;
use clinch::control::load::load;

use crate::world::{World, replace};

#[tokio::test]
async fn everything_that_is_wrong_with_the_files_is_told_at_once() {
    let mut world = World::new().await;
    for name in ["exposed.test", "absent.test", "mixed.test", "fine.test"] {
        world.site(&world.spec(name), "");
    }
    let key = fs::read_to_string(world.path("exposed.test.key")).expect("written");
    replace(&world.path("exposed.test.key"), &key, 0o640);
    fs::remove_file(world.path("absent.test.pem")).expect("removed");
    replace(&world.path("mixed.test.key"), &key, 0o600);
    let error = world.prepare().await.err().expect("refused").to_string();
    for words in [
        "mode 640",
        "absent.test.pem does not exist",
        "mixed.test.pem with key",
    ] {
        assert!(error.contains(words), "{words} is not in: {error}");
    }
    assert!(!error.contains("fine.test"), "{error}");
}

#[tokio::test]
async fn a_key_that_can_no_longer_be_read_stays_in_use_while_its_certificate_does() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root has keys that another user cannot read");
        return;
    }
    let mut world = World::new().await;
    world.site(&world.spec("a.test"), "");
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(world.directory.path(), open).expect("changed");
    let text = fs::read_to_string(world.write_config()).expect("written");
    let config = clinch::config::Config::parse(&text).expect("valid");
    let now = SystemTime::now();
    let first = load(&config, 1, None, now).expect("root reads everything");

    let again = || {
        std::thread::scope(|scope| {
            let confined = scope.spawn(|| {
                let nobody = rustix::process::Uid::from_raw(65534);
                rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("root may");
                load(&config, 2, Some(&first.table), now)
            });
            confined.join().expect("no panic")
        })
    };
    let second = again().expect("the key in memory is taken");
    assert!(second.warnings[0].contains("stays in use"));
    let key = |loaded: &Loaded| {
        let identity = &loaded.table.certificates[0].identity;
        identity.key.secret_der().to_vec()
    };
    assert!(key(&second) == key(&first), "another key");

    world.issue(&world.spec("a.test"));
    let error = again()
        .err()
        .expect("a key for the new certificate is missing");
    assert!(error.to_string().contains("may not be read"), "{error}");
}

#[tokio::test]
async fn what_was_checked_is_checked_again_only_where_a_file_changed() {
    let mut world = World::new().await;
    for name in ["same.test", "renewed.test", "torn.test"] {
        world.site(&world.spec(name), "");
    }
    let text = fs::read_to_string(world.write_config()).expect("written");
    let config = clinch::config::Config::parse(&text).expect("valid");
    let now = SystemTime::now();
    let first = load(&config, 1, None, now).expect("valid");

    world.issue(&world.spec("renewed.test"));
    let second = load(&config, 2, Some(&first.table), now).expect("valid");
    let identity =
        |loaded: &Loaded, index: usize| Arc::clone(&loaded.table.certificates[index].identity);
    assert!(Arc::ptr_eq(&identity(&first, 0), &identity(&second, 0)));
    let (old, new) = (identity(&first, 1), identity(&second, 1));
    assert_ne!(old.leaf.fingerprint, new.leaf.fingerprint);

    // The certificate is the one in force, the key beside it is not.
    let other = fs::read_to_string(world.path("same.test.key")).expect("written");
    replace(&world.path("torn.test.key"), &other, 0o600);
    let error = load(&config, 3, Some(&second.table), now).err();
    let error = error.expect("refused").to_string();
    assert!(error.contains("torn.test.pem with key"), "{error}");
}

#[tokio::test]
async fn what_does_not_prevent_serving_is_a_warning() {
    let mut world = World::new().await;
    let now = SystemTime::now();
    let day = Duration::from_secs(86400);
    let mut expired = world.spec("expired.test");
    expired.validity = Some((now - 2 * day, now - day));
    world.site(&expired, "");
    let leaf_only = world.site(&world.spec("incomplete.test"), "");
    let end =
        leaf_only.chain_pem.find("-----END").expect("PEM") + "-----END CERTIFICATE-----".len();
    let alone = &leaf_only.chain_pem[..end];
    replace(&world.path("incomplete.test.pem"), alone, 0o644);
    let mut other = world.spec("named.test");
    other.names.push("elsewhere.test".to_owned());
    world.site(&other, "");
    world.write_config();
    let text = fs::read_to_string(world.path("clinch.toml")).expect("written");
    let text = text.replace(
        "names = \"named.test\"",
        "names = [\"named.test\", \"x.test\"]",
    );
    let config = clinch::config::Config::parse(&text).expect("valid");
    let loaded = load(&config, 1, None, now).expect("usable");
    let all = loaded.warnings.join("\n");
    for words in [
        "expired.test.pem expired on",
        "its issuer is missing",
        "no certificate of the site is for x.test",
    ] {
        assert!(all.contains(words), "{words} is not in: {all}");
    }
    assert_eq!(loaded.warnings.len(), 3, "{all}");
}
