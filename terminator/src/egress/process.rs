//! The process `clinch egress`: a monitor that waits, and a worker that fetches.
//!
//! The monitor becomes the user of the egress process, gives up what it could ever use against the
//! machine, and starts the worker; when the worker dies it starts another, for which it needs no
//! privilege any more. Both hold the same socket to control as standard input. Both end when control
//! ends: the kernel kills a child with its parent, and the socket's end ends the worker.

use std::os::fd::AsFd;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal};

use super::client::SELF;
use super::worker::{self, Confinement, Ended};
use super::{files, filter};
use crate::limits::{
    EGRESS_DATA_BYTES, EGRESS_FILES, EGRESS_LONGEST_PAUSE, EGRESS_LOOKUPS, EGRESS_THREADS,
};
use crate::sys::privileges::{self, Account, PrivilegeError};

/// Which of the two processes this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Becomes the user, if one is named, and watches over the worker.
    Monitor {
        /// `user` or `user:group`.
        user: Option<String>,
    },
    /// Talks to the network.
    Worker,
}

/// Why the egress process ends.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Started by hand.
    #[error(
        "standard input is not a socket to clinch: `clinch egress` is started by `clinch run`, not by hand"
    )]
    NotStartedByClinch,
    /// It could do more than it should.
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// A call to the kernel failed.
    #[error("{step} failed: {reason}")]
    System {
        /// The call.
        step: &'static str,
        /// The kernel's reason.
        reason: std::io::Error,
    },
}

/// What `clinch egress` does. Standard input is the socket to control. Returns when control is gone.
pub fn main(role: Role) -> Result<ExitCode, ProcessError> {
    let kind = rustix::net::sockopt::socket_type(std::io::stdin());
    if kind != Ok(rustix::net::SocketType::SEQPACKET) {
        return Err(ProcessError::NotStartedByClinch);
    }
    match role {
        Role::Monitor { user } => {
            die_with_parent()?;
            match user {
                Some(user) => {
                    Account::find(&user)?.assume()?;
                    // Counted for the whole user: one that is shared has threads elsewhere.
                    limit(Resource::Nproc, EGRESS_THREADS)?;
                }
                None => privileges::drop_capabilities()?,
            }
            confine()?;
            // A change of identity clears the signal (prctl(2)).
            die_with_parent()?;
            monitor()
        }
        Role::Worker => {
            die_with_parent()?;
            confine()?;
            limit(Resource::Data, EGRESS_DATA_BYTES)?;
            work(give_up())
        }
    }
}

/// Starts workers until one ends because control did.
fn monitor() -> Result<ExitCode, ProcessError> {
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        let ended = Command::new(SELF)
            .args(["egress", "--worker"])
            .env_clear()
            .current_dir("/")
            .status()
            .map_err(system("starting the worker"))?;
        if ended.success() {
            return Ok(ExitCode::SUCCESS);
        }
        if ended.code() == Some(OUTDATED.into()) {
            continue;
        }
        if started.elapsed() > STABLE {
            pause = FIRST_PAUSE;
        }
        thread::sleep(pause);
        pause = (2 * pause).min(EGRESS_LONGEST_PAUSE);
    }
}

/// Files first: the filter takes away the calls for it.
fn give_up() -> Confinement {
    let (readable, no_files) = match files::apply() {
        Ok(readable) => (readable, None),
        Err(error) => (files::Readable::default(), Some(error.to_string())),
    };
    let no_filter = filter::apply().err().map(|error| error.to_string());
    Confinement {
        unconfined: no_files.into_iter().chain(no_filter).collect(),
        readable,
    }
}

fn work(confinement: Confinement) -> Result<ExitCode, ProcessError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(EGRESS_LOOKUPS)
        .build()
        .map_err(system("building the runtime"))?;
    let socket = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(system("taking over standard input"))?;
    let ended = runtime
        .block_on(worker::serve(socket, confinement))
        .map_err(system("talking to clinch"))?;
    // A name that is still being looked up must not keep the process.
    runtime.shutdown_background();
    Ok(match ended {
        Ended::Over => ExitCode::SUCCESS,
        Ended::Outdated => ExitCode::from(OUTDATED),
    })
}

/// Nothing it executes gains privileges, it dumps no core, opens few files and makes none longer.
fn confine() -> Result<(), ProcessError> {
    privileges::forbid_new_privileges()?;
    privileges::forbid_core_dumps()?;
    limit(Resource::Nofile, EGRESS_FILES)?;
    limit(Resource::Fsize, 0)
}

/// The bound in force may be lower, and only root may raise it.
fn limit(resource: Resource, most: u64) -> Result<(), ProcessError> {
    // `None` is infinity.
    let in_force = rustix::process::getrlimit(resource).maximum;
    let most = in_force.map_or(most, |in_force| in_force.min(most));
    let bound = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    rustix::process::setrlimit(resource, bound)
        .map_err(|errno| system("limiting resources")(errno.into()))
}

/// The kernel kills this process when the thread that started it ends. Where that happened already,
/// nothing arrives any more, but the socket has ended too.
fn die_with_parent() -> Result<(), ProcessError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|errno| system("asking to die with the parent")(errno.into()))
}

fn system(step: &'static str) -> impl Fn(std::io::Error) -> ProcessError {
    move |reason| ProcessError::System { step, reason }
}

/// Before a dead worker is replaced for the first time; doubled each time after.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// A worker that lived this long did not die of starting.
const STABLE: Duration = Duration::from_secs(30);

/// How a worker ends that wants a successor: it may not read what the system's resolver needs now.
const OUTDATED: u8 = 75;
