//! Steering: connections reach the core that owns their server name before user space wakes, and a
//! half-open client costs nothing. How, and why so, is in docs/STEERING.md.
//!
//! [`Steering::prepare`] loads the programs while there are privileges; [`Steering::open`] makes a
//! listening address steerable; [`Steering::start`] follows the snapshots, keeps the plugs in and
//! reads the counters on a thread of its own. It accepts nothing: what the landing listener gets all the
//! same is for a worker to take ([`Opened::landing`]). A failure costs the placement of connections,
//! never a connection: the caller goes on with what the kernel does by itself.

mod kernel;
mod placement;
mod thread;
mod view;

use std::io;
use std::net::{SocketAddr, TcpListener};

use clinch_steering_abi::{Group, flags};
use socket2::Socket;

use crate::limits::STEERED_NAMES_MAX;
use crate::sys::landing;
use kernel::Kernel;

pub use placement::{owner, place};
pub use thread::{Observed, Running};
pub use view::{Mode, Report, Row, View};

/// Why the kernel does not steer.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// The kernel did not take the programs.
    #[error(
        "the kernel did not take the steering programs: {0}; they need Linux 6.1 or newer, and CAP_BPF and CAP_NET_ADMIN (or root) at the start"
    )]
    Load(String),
    /// The kernel refused a step after that.
    #[error("{step} was refused by the kernel: {reason}")]
    Kernel {
        /// What was tried.
        step: &'static str,
        /// The system's reason.
        reason: String,
    },
    /// A part of the object is missing: the build is broken.
    #[error("the steering object has no usable part {0}; it was not built with this version")]
    Object(&'static str),
    /// A socket could not be made.
    #[error("{address}: {step} failed: {source}")]
    Socket {
        /// The listening address.
        address: SocketAddr,
        /// What was tried.
        step: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

impl SteeringError {
    fn load(error: &dyn std::error::Error) -> Self {
        // Whoever looks into a verifier's refusal needs all of its log.
        tracing::debug!(%error, "the kernel did not take a steering program");
        Self::Load(with_causes(error))
    }

    fn kernel(step: &'static str, error: &dyn std::error::Error) -> Self {
        let reason = with_causes(error);
        Self::Kernel { step, reason }
    }
}

/// The causes of an error in one line. Of a verifier's log, which may have thousands of lines, the
/// last one before the statistics says why.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let brief = |error: &dyn std::error::Error| {
        let text = error.to_string();
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let last = lines
            .take_while(|line| !line.starts_with("processed "))
            .last();
        match last {
            None => first.to_owned(),
            Some(last) => format!("{first} … {last}"),
        }
    };
    let mut words: Vec<String> = causes.map(brief).collect();
    words.dedup();
    words.join(": ")
}

/// The programs in the kernel and the addresses they steer.
pub struct Steering {
    kernel: Kernel,
    workers: usize,
    capacity: u32,
    addresses: Vec<Steered>,
}

/// A listening address with its group.
struct Steered {
    address: SocketAddr,
    listener: usize,
    group: Group,
}

/// A landing listener that is bound and does not listen yet.
#[derive(Debug)]
pub struct Landing(Socket);

impl Landing {
    /// Binds one beside the workers' sockets, while low ports may be bound.
    pub fn bind(address: SocketAddr) -> Result<Self, SteeringError> {
        landing::bind(address)
            .map(Self)
            .map_err(|source| SteeringError::Socket {
                address,
                step: "binding the landing listener",
                source,
            })
    }
}

impl Steering {
    /// Loads the programs, for so many listening addresses and workers, and with room for twice the
    /// names that there are.
    pub fn prepare(addresses: usize, workers: usize, names: usize) -> Result<Self, SteeringError> {
        let sockets = u32::try_from(addresses * (workers + 1)).unwrap_or(u32::MAX);
        let capacity = (names * 2).clamp(STEERED_NAMES_MIN, STEERED_NAMES_MAX) as u32;
        Ok(Self {
            kernel: Kernel::load(sockets.max(1), capacity)?,
            workers,
            capacity,
            addresses: Vec::with_capacity(addresses),
        })
    }

    /// Makes an address steerable whose workers listen already, in the order of `members`. Returns
    /// the landing listener, which a worker must accept from. Steering begins with
    /// [`Steering::start`].
    pub fn open(
        &mut self,
        address: SocketAddr,
        listener: usize,
        members: &[TcpListener],
        landing: Landing,
    ) -> Result<TcpListener, SteeringError> {
        let group = Group {
            base: (self.addresses.len() * (self.workers + 1)) as u32,
            workers: members.len() as u32,
            flags: 0,
        };
        for (worker, member) in members.iter().enumerate() {
            self.kernel.enter(&group, Some(worker), member)?;
        }
        self.kernel.set_group(address, group)?;
        let Some(first) = members.first() else {
            return Err(SteeringError::Object("workers"));
        };
        // From here on the kernel would choose the landing listener by hash if no program did.
        self.kernel.attach(first)?;
        self.kernel.filter(&landing.0)?;
        let landing = landing::listen(landing.0).map_err(|source| SteeringError::Socket {
            address,
            step: "opening the landing listener",
            source,
        })?;
        self.kernel.enter(&group, None, &landing)?;
        self.addresses.push(Steered {
            address,
            listener,
            group,
        });
        Ok(landing)
    }

    /// Switches steering of an address on or off, with or without refusing unknown names.
    fn switch(
        &mut self,
        at: usize,
        steer: bool,
        refuse_unknown: bool,
    ) -> Result<(), SteeringError> {
        let steered = &mut self.addresses[at];
        let bit = |on: bool, flag: u32| if on { flag } else { 0 };
        let wanted = bit(steer, flags::STEER) | bit(refuse_unknown, flags::REFUSE_UNKNOWN);
        if steered.group.flags != wanted {
            let group = Group {
                flags: wanted,
                ..steered.group
            };
            self.kernel.set_group(steered.address, group)?;
            steered.group = group;
        }
        Ok(())
    }
}

/// Room in the kernel's table at least.
const STEERED_NAMES_MIN: usize = 65_536;
