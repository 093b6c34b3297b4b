//! The terminator of the demo: `clinch run` as a child process, with its log in a file.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::scene::Scene;

/// A running child; killed when dropped, if it was not stopped.
pub(super) struct Child<'a> {
    process: tokio::process::Child,
    scene: &'a Scene,
    log: PathBuf,
}

impl<'a> Child<'a> {
    /// Starts this very program as `clinch run`. It has a process group of its own, so that Ctrl-C
    /// reaches the demo alone, which then ends the child.
    pub(super) fn start(scene: &'a Scene) -> anyhow::Result<Self> {
        let log = scene.log();
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        let program = std::env::current_exe().context("the path of this program")?;
        let process = Command::new(&program)
            .args(["run", "--with-parent", "-c"])
            .arg(scene.config())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} run", program.display()))?;
        Ok(Self {
            process,
            scene,
            log,
        })
    }

    /// Waits until it serves.
    pub(super) async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            if self.process.try_wait()?.is_some() {
                return Err(self.ended().await?);
            }
            if let Ok(answer) = self.scene.ask("/readyz").await
                && answer.status.is_success()
            {
                return Ok(());
            }
            sleep(Duration::from_millis(10)).await;
        }
        bail!(
            "clinch run was not ready within {START:?}; its log:\n{}",
            self.read_log()
        )
    }

    /// Waits until it ends by itself, which is an error that carries its log.
    pub(super) async fn ended(&mut self) -> anyhow::Result<anyhow::Error> {
        let status = self.process.wait().await?;
        Ok(anyhow!(
            "clinch run ended with {status}; its log:\n{}",
            self.read_log()
        ))
    }

    /// Ends it with SIGTERM and waits.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self
            .process
            .id()
            .and_then(|pid| Pid::from_raw(pid.cast_signed()))
        {
            kill_process(pid, Signal::TERM)?;
        }
        match timeout(STOP, self.process.wait()).await {
            Ok(status) => {
                let status = status?;
                if !status.success() {
                    bail!(
                        "clinch run ended with {status}; its log:\n{}",
                        self.read_log()
                    );
                }
                Ok(())
            }
            Err(_) => {
                self.process.kill().await?;
                bail!(
                    "clinch run did not end within {STOP:?}; its log:\n{}",
                    self.read_log()
                )
            }
        }
    }

    fn read_log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// For the child to serve; it waits for staples for five seconds.
const START: Duration = Duration::from_secs(20);

/// For the child to end.
const STOP: Duration = Duration::from_secs(10);
