//! The service manager's side of the process (sd_notify(3)): readiness, reloads, a status line and
//! the watchdog. Without one, every call does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// Tells the service manager.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manager;

impl Manager {
    /// Clients are served, or the reload is over.
    pub(super) fn ready(self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// A reload begins; `ready` ends it. The clock lets the manager tell this one from an earlier.
    pub(super) fn reloading(self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "the monotonic clock cannot be read"),
        }
    }

    /// The end begins.
    pub(super) fn stopping(self) {
        self.tell(&[
            NotifyState::Stopping,
            NotifyState::Status("finishing connections"),
        ]);
    }

    /// A line for `systemctl status`.
    pub(super) fn status(self, status: &str) {
        self.tell(&[NotifyState::Status(status)]);
    }

    /// Still working.
    pub(super) fn alive(self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    /// How often [`Manager::alive`] must be called at least, if at all.
    pub(super) fn watchdog(self) -> Option<Duration> {
        sd_notify::watchdog_enabled()
    }

    fn tell(self, state: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(state) {
            tracing::warn!(%error, "the service manager cannot be told ({state:?})");
        }
    }
}
