//! `clinch demo`: a certificate authority, an OCSP responder, a web server and, as a child process,
//! `clinch run` in front of it, all on loopback with nothing to configure.
//!
//! Everything is real except the authority's standing: its root is trusted by nobody else. Files go
//! to a temporary directory that is removed in the end. The end is Ctrl-C, SIGTERM, SIGHUP or, with
//! `--once`, the last handshake.

pub mod authority;
mod backend;
mod child;
mod figures;
pub mod responder;
mod scene;
mod visit;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use authority::Authority;
use child::Child;
use responder::Responder;
use scene::{Purpose, Scene};

/// Try clinch: own authority, responder and web server, nothing to configure.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
        clinch demo           # then try the printed commands; Ctrl-C ends it\n  \
        clinch demo --once    # perform the handshakes here, print what was stapled\n  \
        clinch demo --target  # something for load generators to aim at, see docs/LOAD_TESTING.md\n\n\
        Exit codes:\n  \
        0  ended by a signal; with --once: every name was served with a verified staple\n  \
        1  something failed; with --once: a name was not served or not stapled\n  \
        2  wrong usage")]
pub(super) struct Args {
    /// Perform a handshake for every name, print what was stapled, and end
    #[arg(long)]
    once: bool,

    /// Be a target for load generators: --port exactly, metrics over HTTP on the port after it, a
    /// site without a staple, no output while it runs, and a log of warnings only
    #[arg(long, conflicts_with = "once")]
    target: bool,

    /// First port to try; the next free one is taken, but not with --target
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    port: u16,
}

/// Runs the demo until it ends.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // The responder and the backend are tasks of this thread.
    tokio::task::LocalSet::new().block_on(&runtime, demo(args))
}

async fn demo(args: &Args) -> anyhow::Result<ExitCode> {
    let end = ended_by_signal()?;
    let authority = Arc::new(Authority::new(SystemTime::now())?);
    let responder = Responder::start(Arc::clone(&authority)).await?;
    let backend = backend::start().await?;
    let purpose = if args.target {
        Purpose::Target
    } else {
        Purpose::Show
    };
    let scene = Scene::make(&authority, &responder, backend, args.port, purpose)?;
    let mut child = Child::start(&scene)?;

    let outcome = tokio::select! {
        outcome = play(args, &scene, &responder, &mut child) => outcome,
        () = end => Ok(ExitCode::SUCCESS),
    };
    let stopped = child.stop().await;
    let code = outcome?;
    stopped?;
    Ok(code)
}

async fn play(
    args: &Args,
    scene: &Scene,
    responder: &Responder,
    child: &mut Child<'_>,
) -> anyhow::Result<ExitCode> {
    child.wait_until_ready().await?;
    if args.once {
        return once(scene).await;
    }
    print!("{}", scene.guide());
    if args.target {
        // The guide has to be there before a load comes, also where stdout is a pipe.
        std::io::stdout().flush()?;
        return Err(child.ended().await?);
    }
    watch(scene, responder, child).await
}

/// A handshake and a page for every name in both versions of TLS.
async fn once(scene: &Scene) -> anyhow::Result<ExitCode> {
    let mut failed = 0;
    for visit in scene.visits() {
        let line = visit.to_string();
        let (report, ok) = match tokio::task::spawn_blocking(move || visit.make()).await? {
            Ok(visited) => (visited.to_string(), visited.is_right()),
            Err(error) => (format!("failed: {error:#}"), false),
        };
        failed += u32::from(!ok);
        println!("{} {line}  {report}", if ok { "ok  " } else { "FAIL" });
    }
    if failed == 0 {
        println!("every handshake was served with a verified staple");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{failed} handshakes were not served with a verified staple");
    Ok(ExitCode::FAILURE)
}

/// Shows figures until the process in front ends, which it should not.
async fn watch(
    scene: &Scene,
    responder: &Responder,
    child: &mut Child<'_>,
) -> anyhow::Result<ExitCode> {
    let live = std::io::stdout().is_terminal();
    let mut shown = figures::Shown::default();
    let mut tick = tokio::time::interval(if live { LIVE } else { PLAIN });
    loop {
        tokio::select! {
            _ = tick.tick() => {
                let report = scene.report().await?;
                let text = shown.next(&report, responder.asked(), live);
                print!("{text}");
                std::io::stdout().flush().context("nobody reads the figures any more")?;
            }
            ended = child.ended() => {
                return Err(ended?);
            }
        }
    }
}

/// Completes with the first signal that means the end.
fn ended_by_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
            _ = hangup.recv() => (),
        }
    })
}

/// How often the figures change on a terminal.
const LIVE: Duration = Duration::from_secs(1);

/// How often a line is written elsewhere.
const PLAIN: Duration = Duration::from_secs(10);
