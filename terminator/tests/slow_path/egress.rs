//! The egress process as a real child: what it brings back from servers of every kind, that none
//! delays another, and that it comes back when it dies and goes when it is no longer needed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{
    Reply, egress_processes, eventually, is_gone, kill, program, serve, serve_raw,
};
use clinch::config::Config;
use clinch::egress::policy::Class;
use clinch::egress::protocol::Stage;
use clinch::egress::{
    Client, FetchError, Launch, Method, NamedBy, Request, Settings, State, Validators,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn launch() -> Client {
    launch_with(
        "allow = [\"127.0.0.0/8\", \"::1\"]\nports = [\"1-65535\"]",
        None,
    )
}

/// With these lines of `[egress]`.
fn launch_with(lines: &str, user: Option<&str>) -> Client {
    let text = format!("{REST}[egress]\n{lines}\n");
    let config = match Config::parse(&text) {
        Ok(config) => config,
        Err(error) => panic!("{error}"),
    };
    let launched = Client::launch(Launch {
        program: program(),
        user,
        settings: Settings::read(&config.egress).expect("readable"),
        counters: Arc::default(),
    });
    launched.expect("egress starts")
}

/// What a configuration needs beside.
const REST: &str = "[[site]]\nnames = \"a.test\"\ncert = \"/c\"\nkey = \"/k\"\nbackend = \"b:1\"\n\
                    [listen.public]\naddress = \"127.0.0.1:8443\"\n";

fn get(url: String) -> Request {
    Request {
        url,
        named_by: NamedBy::Certificate,
        method: Method::Get,
        accept: "application/ocsp-response".to_owned(),
        deadline: Duration::from_secs(5),
        limit: 64 * 1024,
        known: Validators::default(),
    }
}

#[tokio::test]
async fn an_answer_comes_whole_with_its_headers() {
    let body: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
    let sent = body.clone();
    let address = serve(move |asked| {
        assert_eq!(asked.method, "GET");
        assert_eq!(asked.path, "/a%2Fb//c?d=e");
        assert_eq!(asked.headers["accept"], "application/ocsp-response");
        let headers = vec![
            ("content-type", "application/ocsp-response".to_owned()),
            ("cache-control", "max-age=60, public".to_owned()),
            ("etag", "\"x\"".to_owned()),
        ];
        Reply::Http(200, headers, sent.clone())
    })
    .await;
    let mut request = get(format!("http://{address}/a%2Fb//c?d=e"));
    request.limit = body.len();
    let response = launch().fetch(request).await.expect("answered");
    assert_eq!(response.head.status, 200);
    assert_eq!(
        response.head.content_type.as_deref(),
        Some("application/ocsp-response")
    );
    assert_eq!(
        response.head.cache_control.as_deref(),
        Some("max-age=60, public")
    );
    assert_eq!(response.head.validators.etag.as_deref(), Some("\"x\""));
    assert_eq!(response.head.address, Some(address));
    let stages: Vec<Stage> = response
        .head
        .stages
        .iter()
        .map(|(stage, _)| *stage)
        .collect();
    assert_eq!(stages, [Stage::Resolve, Stage::Connect, Stage::Answer]);
    assert!(response.body == body, "the body differs");
}

#[tokio::test]
async fn a_server_is_told_what_is_there_already() {
    let address = serve(|asked| {
        assert_eq!(asked.headers["if-none-match"], "\"x\"");
        assert_eq!(
            asked.headers["if-modified-since"],
            "Sat, 21 Nov 2026 07:00:00 GMT"
        );
        Reply::Http(304, Vec::new(), Vec::new())
    })
    .await;
    let mut request = get(format!("http://{address}/"));
    request.known = Validators {
        etag: Some("\"x\"".to_owned()),
        last_modified: Some("Sat, 21 Nov 2026 07:00:00 GMT".to_owned()),
    };
    let response = launch().fetch(request).await.expect("answered");
    assert_eq!((response.head.status, response.body.len()), (304, 0));
}

#[tokio::test]
async fn a_host_is_found_by_name() {
    let address = serve(|asked| {
        let host = asked.headers["host"].to_str().expect("text").to_owned();
        Reply::Http(200, Vec::new(), host.into_bytes())
    })
    .await;
    let host = format!("localhost:{}", address.port());
    let response = launch().fetch(get(format!("http://{host}/"))).await;
    assert_eq!(response.expect("answered").body, host.into_bytes());
}

#[tokio::test]
async fn a_post_carries_its_body_and_type() {
    let address = serve(|asked| {
        assert_eq!(asked.method, "POST");
        assert_eq!(asked.headers["content-type"], "application/ocsp-request");
        Reply::Http(200, Vec::new(), asked.body)
    })
    .await;
    let mut request = get(format!("http://{address}/"));
    request.method = Method::Post {
        content_type: "application/ocsp-request".to_owned(),
        body: vec![7; 600],
    };
    let response = launch().fetch(request).await.expect("answered");
    assert_eq!(response.body, [7; 600]);
}

#[tokio::test]
async fn stuck_responders_delay_no_other() {
    let stuck = serve(|_| Reply::Hang).await;
    let quick = serve(|_| Reply::Http(200, Vec::new(), b"quick".to_vec())).await;
    let client = launch();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let client = client.clone();
        let mut request = get(format!("http://{stuck}/"));
        request.deadline = Duration::from_secs(2);
        waiting.spawn(async move { client.fetch(request).await });
    }
    tokio::task::yield_now().await;
    let began = Instant::now();
    let response = client.fetch(get(format!("http://{quick}/"))).await;
    assert_eq!(response.expect("answered").body, b"quick");
    assert!(began.elapsed() < Duration::from_millis(1500));
    while let Some(result) = waiting.join_next().await {
        assert_eq!(
            result.expect("no panic"),
            Err(FetchError::TimedOut {
                after: Duration::from_secs(2),
                stage: Stage::Answer,
            })
        );
    }
}

#[tokio::test]
async fn one_deadline_covers_an_answer_that_drips() {
    let address = serve_raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            .await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let mut request = get(format!("http://{address}/"));
    request.deadline = Duration::from_millis(500);
    let error = launch().fetch(request).await.expect_err("too slow");
    let expected = FetchError::TimedOut {
        after: Duration::from_millis(500),
        stage: Stage::Body,
    };
    assert_eq!(error, expected);
}

#[tokio::test]
async fn a_body_over_the_bound_is_not_taken() {
    let announced = serve(|_| Reply::Http(200, Vec::new(), vec![0; 10 << 20])).await;
    let unannounced = serve_raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").await;
        while stream.write_all(&[0; 4096]).await.is_ok() {}
    })
    .await;
    let client = launch();
    for address in [announced, unannounced] {
        let error = client.fetch(get(format!("http://{address}/"))).await;
        assert_eq!(error, Err(FetchError::TooLarge { limit: 64 * 1024 }));
    }
}

#[tokio::test]
async fn a_redirect_is_reported_and_not_followed() {
    let address = serve(|_| {
        let elsewhere = vec![("location", "http://127.0.0.1:1/".to_owned())];
        Reply::Http(302, elsewhere, Vec::new())
    })
    .await;
    let response = launch().fetch(get(format!("http://{address}/"))).await;
    assert_eq!(response.expect("answered").head.status, 302);
}

#[tokio::test]
async fn each_failure_has_its_name() {
    let client = launch();
    let garbage = serve_raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream
            .write_all(b"\x16\x03\x01 not http at all\r\n\r\n")
            .await;
    })
    .await;
    let cut_off = serve_raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
            .await;
    })
    .await;
    for address in [garbage, cut_off] {
        let error = client.fetch(get(format!("http://{address}/"))).await;
        assert!(matches!(error, Err(FetchError::Http { .. })), "{error:?}");
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port");
    let error = client.fetch(get(format!("http://{closed}/"))).await;
    assert!(
        matches!(error, Err(FetchError::Connect { .. })),
        "{error:?}"
    );
    let error = client
        .fetch(get("http://no-such-name.invalid/".to_owned()))
        .await;
    assert!(
        matches!(error, Err(FetchError::Resolve { .. })),
        "{error:?}"
    );
    let error = client.fetch(get("ldap://127.0.0.1/".to_owned())).await;
    assert!(matches!(error, Err(FetchError::Scheme { .. })), "{error:?}");
    let error = client
        .fetch(get("http://h/".to_owned() + &"x".repeat(70_000)))
        .await;
    assert!(
        matches!(error, Err(FetchError::RequestTooLarge { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_killed_worker_fails_its_requests_at_once_and_is_replaced() {
    let stuck = serve(|_| Reply::Hang).await;
    let quick = serve(|_| Reply::Http(200, Vec::new(), b"quick".to_vec())).await;
    let client = launch();
    let mut workers = client.workers();
    workers.wait_for(|&n| n == 1).await.expect("a worker");
    assert_eq!(client.state(), State::Ready);
    let (_, worker) = egress_processes().await;

    let asking = client.clone();
    let began = Instant::now();
    let lost = tokio::spawn(async move { asking.fetch(get(format!("http://{stuck}/"))).await });
    tokio::task::yield_now().await;
    kill(worker);
    assert_eq!(lost.await.expect("no panic"), Err(FetchError::Gone));
    assert!(began.elapsed() < Duration::from_secs(4), "not at once");
    workers.wait_for(|&n| n == 2).await.expect("a new worker");
    let response = client.fetch(get(format!("http://{quick}/"))).await;
    assert_eq!(response.expect("answered").body, b"quick");
}

#[tokio::test]
async fn a_killed_monitor_takes_the_worker_along_and_both_come_back() {
    let quick = serve(|_| Reply::Http(200, Vec::new(), b"quick".to_vec())).await;
    let client = launch();
    let mut workers = client.workers();
    workers.wait_for(|&n| n == 1).await.expect("a worker");
    let (monitor, worker) = egress_processes().await;
    kill(monitor);
    eventually("the worker ended", async || is_gone(worker).then_some(())).await;
    workers.wait_for(|&n| n == 2).await.expect("a new worker");
    let response = client.fetch(get(format!("http://{quick}/"))).await;
    assert_eq!(response.expect("answered").body, b"quick");
}

#[tokio::test]
async fn the_process_ends_with_the_last_client() {
    let client = launch();
    let (monitor, worker) = egress_processes().await;
    client
        .workers()
        .wait_for(|&n| n == 1)
        .await
        .expect("a worker");
    let other = client.clone();
    drop(client);
    assert!(!is_gone(worker));
    drop(other);
    eventually("both ended", async || {
        (is_gone(worker) && is_gone(monitor)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn it_becomes_its_user_without_a_way_back() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can start a process of another user");
        return;
    }
    let client = launch_with("", Some("nobody"));
    client
        .workers()
        .wait_for(|&n| n == 1)
        .await
        .expect("a worker");
    let (monitor, worker) = egress_processes().await;
    assert_eq!(
        crate::support::status_line(worker, "Seccomp").as_deref(),
        Some("2"),
        "the worker's calls are filtered"
    );
    let limits = std::fs::read_to_string(format!("/proc/{worker}/limits")).expect("running");
    for bound in [
        "core file size",
        "file size",
        "processes",
        "data size",
        "open files",
    ] {
        let line = limits
            .lines()
            .find(|line| line.starts_with(&format!("Max {bound}")));
        let hard = line.and_then(|line| line[26..].split_ascii_whitespace().nth(1));
        assert!(hard.is_some_and(|hard| hard != "unlimited"), "{limits}");
    }
    for pid in [monitor, worker] {
        let line = |name| crate::support::status_line(pid, name).expect("a line of status");
        let uids = line("Uid");
        assert!(
            uids.split_ascii_whitespace().all(|uid| uid == "65534"),
            "{uids}"
        );
        assert_eq!(line("NoNewPrivs"), "1");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(line(set), "0000000000000000", "{set} of {pid}");
        }
    }
}

#[tokio::test]
async fn what_a_certificate_may_not_name_is_refused_and_counted() {
    let address = serve(|_| Reply::Http(200, Vec::new(), Vec::new())).await;
    let client = launch_with("", None);
    let ask = async |url: String| client.fetch(get(url)).await.expect_err("refused");
    let port = address.port();
    let error = ask(format!("http://{address}/")).await;
    assert_eq!(error, FetchError::Port { port });
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "169.254.169.254",
        "[::ffff:127.0.0.1]",
    ] {
        let error = ask(format!("http://{host}/")).await;
        assert!(matches!(error, FetchError::Address { .. }), "{error}");
        assert!(error.to_string().contains("`egress.allow`"), "{error}");
    }
    for host in ["2130706433", "0x7f.1", "0177.0.0.1", "127.1"] {
        let error = ask(format!("http://{host}/")).await;
        assert!(matches!(error, FetchError::Host { .. }), "{error}");
    }
    let error = ask("http://user@ocsp.example/".to_owned()).await;
    assert_eq!(error, FetchError::Credentials);
}

#[tokio::test]
async fn a_responder_of_the_operator_may_be_on_this_machine() {
    let address = serve(|_| Reply::Http(200, Vec::new(), b"here".to_vec())).await;
    let client = launch_with("", None);
    let mut request = get(format!("http://{address}/"));
    request.named_by = NamedBy::Operator;
    assert_eq!(client.fetch(request).await.expect("allowed").body, b"here");
    let mut request = get("http://169.254.169.254/latest/meta-data/".to_owned());
    request.named_by = NamedBy::Operator;
    let error = client.fetch(request).await.expect_err("refused");
    assert!(
        matches!(
            error,
            FetchError::Address {
                class: Class::Metadata,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn new_settings_count_from_the_next_request_on_and_after_a_crash() {
    let address = serve(|_| Reply::Http(200, Vec::new(), Vec::new())).await;
    let url = format!("http://{address}/");
    let client = launch();
    assert!(client.fetch(get(url.clone())).await.is_ok());
    let config = Config::parse(REST).unwrap_or_else(|error| panic!("{error}"));
    client
        .set(Settings::read(&config.egress).expect("readable"))
        .await;
    assert!(client.fetch(get(url.clone())).await.is_err());
    let mut workers = client.workers();
    kill(egress_processes().await.1);
    workers.wait_for(|&n| n == 2).await.expect("a new worker");
    let error = client.fetch(get(url)).await.expect_err("refused");
    assert!(matches!(error, FetchError::Port { .. }), "{error}");
}

#[tokio::test]
async fn connections_wait_until_they_are_let_through() {
    let address = serve(|_| Reply::Http(200, Vec::new(), b"through".to_vec())).await;
    let client = launch();
    let mut gate = client.gate().await;
    let url = format!("http://localhost:{}/", address.port());
    let asking = tokio::spawn({
        let (client, url) = (client.clone(), url.clone());
        async move { client.fetch(get(url)).await }
    });
    let pending = gate.recv().await.expect("it asks");
    assert_eq!(pending.destination.host, "localhost");
    assert_eq!(pending.destination.port, address.port());
    assert!(pending.destination.addresses.contains(&address.ip()));
    assert!(!asking.is_finished());
    pending.admit();
    let response = asking.await.expect("no panic").expect("let through");
    assert_eq!(response.body, b"through");

    let asking = tokio::spawn({
        let (client, url) = (client.clone(), url.clone());
        async move { client.fetch(get(url)).await }
    });
    gate.recv()
        .await
        .expect("it asks")
        .refuse("not today".to_owned());
    let error = asking.await.expect("no panic").expect_err("refused");
    assert!(error.to_string().contains("not today"), "{error}");
    drop(gate);
    assert!(matches!(
        client.fetch(get(url)).await,
        Err(FetchError::Refused { .. })
    ));
}
