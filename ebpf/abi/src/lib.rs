//! What the steering programs in the kernel and user space agree on: names of programs and maps,
//! keys, values and counters. Nothing is done here.
//!
//! A change here changes the object: run `make ebpf` afterwards.

#![no_std]

/// Extensions of a ClientHello that the kernel looks at; browsers send about 18.
pub const EXTENSIONS: usize = 32;

/// Most cores a placement can name.
pub const CHOICES: usize = 6;

/// The landing listener's position in a group; worker `w` is at `w + 1`.
pub const LANDING: u32 = 0;

/// Bits of [`Group::flags`].
pub mod flags {
    /// Steer by name. Without it every new connection is spread by hash.
    pub const STEER: u32 = 1;
    /// Refuse names that are not in the table.
    pub const REFUSE_UNKNOWN: u32 = 2;
}

/// A listening address as the kernel sees it from a socket of its group.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupKey {
    /// Port in host byte order.
    pub port: u32,
    /// `AF_INET` or `AF_INET6`.
    pub family: u32,
    /// The local address, each word in network byte order; IPv4 in the first.
    pub address: [u32; 4],
}

/// The sockets of one listening address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Index of the landing listener in the array of sockets; the workers follow it.
    pub base: u32,
    /// How many workers; not 0.
    pub workers: u32,
    /// See [`flags`].
    pub flags: u32,
}

/// Where the connections of a name go.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Workers in order of preference; `count` of them are meant.
    pub workers: [u16; CHOICES],
    /// How many of `workers` are meant, 1 to [`CHOICES`].
    pub count: u16,
    /// Among how many of the first the connections are spread, 1 to `count`.
    pub share: u16,
}

/// What became of a packet. Each is a counter; those of one connection are exclusive but for
/// [`Event::Landing`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A SYN answered with a cookie, or a bare acknowledgement left to vanish.
    Landing,
    /// A ClientHello went to its name's core.
    Steered,
    /// A ClientHello went to the next choice, as its home is overloaded.
    Moved,
    /// By hash: a SYN without timestamps.
    HashNoTimestamps,
    /// By hash: the name is not in the first segment.
    HashBeyond,
    /// By hash: a ClientHello without a name.
    HashUnnamed,
    /// By hash: a name that the table does not have.
    HashUnknown,
    /// By hash: HTTP, a PROXY header, or a record of a connection that is gone.
    HashOther,
    /// By hash: steering is switched off.
    HashOff,
    /// Refused: a name that the table does not have.
    RefusedEarly,
    /// Left to be sent again: a segment that starts nothing.
    OutOfOrder,
    /// The socket was not there; the kernel chose.
    NoSocket,
}

impl Event {
    /// All of them, in order of their value.
    pub const ALL: [Self; 12] = [
        Self::Landing,
        Self::Steered,
        Self::Moved,
        Self::HashNoTimestamps,
        Self::HashBeyond,
        Self::HashUnnamed,
        Self::HashUnknown,
        Self::HashOther,
        Self::HashOff,
        Self::RefusedEarly,
        Self::OutOfOrder,
        Self::NoSocket,
    ];
}

#[cfg(feature = "user")]
mod user {
    use super::{Group, GroupKey, Placement};

    // SAFETY: `repr(C)`, integers only, no padding (24 bytes of six u32).
    unsafe impl aya::Pod for GroupKey {}
    // SAFETY: `repr(C)`, integers only, no padding (12 bytes of three u32).
    unsafe impl aya::Pod for Group {}
    // SAFETY: `repr(C)`, integers only, no padding (16 bytes of eight u16).
    unsafe impl aya::Pod for Placement {}
}
