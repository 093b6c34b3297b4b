//! A clinch to be ill-treated: one site, and the means to see that it is unharmed afterwards.

use std::net::TcpStream;

use clinch::cli::demo::authority::Issued;

use crate::backend::Backend;
use crate::hello::{self, Answer};
use crate::process::Clinch;
use crate::setup::{Setup, assert_stapled};
use crate::{PROMPT, eventually};

/// A running clinch with one site, and the means to see that it is unharmed.
pub struct Target {
    /// The process.
    pub clinch: Clinch,
    /// What it stands on.
    pub setup: Setup,
    /// The certificate of its site, `a.example`.
    pub issued: Issued,
    _echo: Backend,
}

impl Target {
    /// Starts it with the defaults.
    pub fn start() -> Self {
        Self::start_as(|_| ())
    }

    /// Starts it with further timeouts.
    pub fn with_timeouts(lines: &str) -> Self {
        Self::start_as(|setup| setup.timeouts.push_str(lines))
    }

    /// Starts it with a changed setup.
    pub fn start_as(change: impl FnOnce(&mut Setup)) -> Self {
        let echo = Backend::echo();
        let (mut setup, issued) = Setup::with_site("a.example", echo.written());
        change(&mut setup);
        let clinch = setup.start();
        Self {
            clinch,
            setup,
            issued,
            _echo: echo,
        }
    }

    /// Sends bytes on a fresh connection and reads what comes back first.
    pub fn send(&self, bytes: &[u8]) -> Answer {
        hello::send(self.setup.address, bytes).expect("an answer or an end")
    }

    /// A fresh connection.
    pub fn connect(&self) -> TcpStream {
        hello::connect(self.setup.address).expect("a connection")
    }

    /// Asserts that the failure was counted this often, nothing hangs, and both workers serve.
    #[track_caller]
    pub fn counted(self, reason: &str, times: f64) {
        let label = format!("reason=\"{reason}\"");
        self.clinch.wait_for_count(FAILURES, &[&label], times);
        self.unharmed();
    }

    /// Asserts that both workers serve with a staple and nothing is left over.
    #[track_caller]
    pub fn unharmed(self) {
        for _ in 0..8 {
            let mut session = self.setup.connect("a.example");
            assert_stapled(&session, &self.issued);
            session.echo(b"still serving");
        }
        eventually("no handshake is left over", PROMPT, || {
            (self.clinch.count("clinch_handshakes_active", &[]) == 0.0).then_some(())
        });
        let internal = self.clinch.count(FAILURES, &["reason=\"internal\""]);
        assert_eq!(internal, 0.0, "a failure that nobody could name");
        self.clinch.stop();
    }
}

const FAILURES: &str = "clinch_handshake_failures_total";
