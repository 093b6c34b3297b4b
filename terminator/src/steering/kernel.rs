//! The programs and maps in the kernel: loaded with privileges, filled and read without.
//!
//! Nothing is decided here. Loading needs CAP_BPF and CAP_NET_ADMIN; everything after it works
//! through descriptors that are open already (seen on 6.18 with `unprivileged_bpf_disabled` = 2).

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use aya::maps::{Array, HashMap, MapData, PerCpuArray, ReusePortSockArray};
use aya::programs::{SkReuseport, SocketFilter};
use aya::{Ebpf, EbpfLoader};
use clinch_steering_abi::{Event, Group, GroupKey, LANDING, Placement};

use super::SteeringError;

/// The loaded programs with their maps.
pub(super) struct Kernel {
    /// Keeps the programs; attached ones would live on without it.
    programs: Ebpf,
    sockets: ReusePortSockArray<MapData>,
    groups: HashMap<MapData, GroupKey, Group>,
    names: HashMap<MapData, u64, Placement>,
    overloaded: Array<MapData, u32>,
    counters: PerCpuArray<MapData, u64>,
}

impl Kernel {
    /// Loads both programs, with room for so many sockets and names.
    pub(super) fn load(sockets: u32, names: u32) -> Result<Self, SteeringError> {
        let mut programs = EbpfLoader::new()
            .map_max_entries("SOCKETS", sockets)
            .map_max_entries("NAMES", names)
            .load(OBJECT)
            .map_err(|error| SteeringError::load(&error))?;
        let steer: &mut SkReuseport = part(programs.program_mut("steer"), "steer")?;
        steer.load().map_err(|error| SteeringError::load(&error))?;
        let landing: &mut SocketFilter = part(programs.program_mut("landing"), "landing")?;
        landing
            .load()
            .map_err(|error| SteeringError::load(&error))?;
        Ok(Self {
            sockets: part(programs.take_map("SOCKETS"), "SOCKETS")?,
            groups: part(programs.take_map("GROUPS"), "GROUPS")?,
            names: part(programs.take_map("NAMES"), "NAMES")?,
            overloaded: part(programs.take_map("OVERLOADED"), "OVERLOADED")?,
            counters: part(programs.take_map("COUNTERS"), "COUNTERS")?,
            programs,
        })
    }

    /// Lets the program choose among the group of a listening socket, in place of any before it.
    pub(super) fn attach(&mut self, member: impl AsFd) -> Result<(), SteeringError> {
        let steer: &mut SkReuseport = part(self.programs.program_mut("steer"), "steer")?;
        steer
            .attach(member)
            .map_err(|error| SteeringError::kernel("attaching the program", &error))
    }

    /// Filters what a landing listener gets to see.
    pub(super) fn filter(&mut self, landing: impl AsFd) -> Result<(), SteeringError> {
        let filter: &mut SocketFilter = part(self.programs.program_mut("landing"), "landing")?;
        filter
            .attach(landing)
            .map_err(|error| SteeringError::kernel("attaching the landing filter", &error))
    }

    /// Enters a socket of a group: the landing listener or that of a worker.
    pub(super) fn enter(
        &mut self,
        group: &Group,
        worker: Option<usize>,
        socket: &impl AsRawFd,
    ) -> Result<(), SteeringError> {
        let slot = worker.map_or(LANDING, |worker| worker as u32 + 1);
        self.sockets
            .set(group.base + slot, socket, 0)
            .map_err(|error| SteeringError::kernel("entering a socket", &error))
    }

    /// Sets what is known of a listening address.
    pub(super) fn set_group(
        &mut self,
        address: SocketAddr,
        group: Group,
    ) -> Result<(), SteeringError> {
        self.groups
            .insert(key(address), group, 0)
            .map_err(|error| SteeringError::kernel("entering an address", &error))
    }

    /// Enters or replaces a name; `false`: there is no room.
    pub(super) fn set_name(&mut self, name: u64, placement: Placement) -> bool {
        self.names.insert(name, placement, 0).is_ok()
    }

    /// Takes a name out.
    pub(super) fn remove_name(&mut self, name: u64) {
        // A name that found no room is not there.
        let _ = self.names.remove(&name);
    }

    /// Says whether a worker has too much to do.
    pub(super) fn set_overloaded(&mut self, worker: usize, over: bool) {
        // Beyond the array's end nothing is ever overloaded.
        let _ = self.overloaded.set(worker as u32, u32::from(over), 0);
    }

    /// The counters, summed over the CPUs.
    pub(super) fn counts(&self) -> impl Iterator<Item = (Event, u64)> + '_ {
        Event::ALL.into_iter().map(|event| {
            let values = self.counters.get(&(event as u32), 0);
            (event, values.map_or(0, |values| values.iter().sum()))
        })
    }
}

/// A part of the object, which is built together with this code.
fn part<P, T: TryFrom<P>>(found: Option<P>, name: &'static str) -> Result<T, SteeringError> {
    found
        .and_then(|found| T::try_from(found).ok())
        .ok_or(SteeringError::Object(name))
}

fn key(address: SocketAddr) -> GroupKey {
    let mut key = GroupKey {
        port: u32::from(address.port()),
        ..GroupKey::default()
    };
    match address {
        SocketAddr::V4(v4) => {
            key.family = libc::AF_INET as u32;
            key.address[0] = u32::from_ne_bytes(v4.ip().octets());
        }
        SocketAddr::V6(v6) => {
            key.family = libc::AF_INET6 as u32;
            let octets = v6.ip().octets();
            for (slot, word) in key.address.iter_mut().zip(octets.as_chunks().0) {
                *slot = u32::from_ne_bytes(*word);
            }
        }
    }
    key
}

/// The programs as `make ebpf` built them.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../ebpf/object/steering.o");
