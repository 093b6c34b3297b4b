//! The two programs that steer connections inside the kernel: `steer` chooses a listening socket of
//! a `SO_REUSEPORT` group for each packet that meets no connection yet, and `landing` decides what
//! the landing listener gets to see. Why, and what follows from it, is in docs/STEERING.md.
//!
//! They keep no state of their own: user space fills the maps and reads the counters. Every way out
//! that is not a deliberate refusal leads to a socket, so that a fault here costs the placement of a
//! connection and never the connection.

#![no_std]
#![no_main]

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, sk_action};
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::macros::{map, sk_reuseport, socket_filter};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, ReusePortSockArray};
use aya_ebpf::programs::{SkBuffContext, SkReuseportContext};
use clinch_hello::{Bytes, First, first, keys};
use clinch_steering_abi::{EXTENSIONS, Event, Group, GroupKey, LANDING, Placement, flags};

/// Sockets of all groups; user space sets the size.
#[map]
static SOCKETS: ReusePortSockArray = ReusePortSockArray::with_max_entries(1, 0);

/// Listening addresses.
#[map]
static GROUPS: HashMap<GroupKey, Group> = HashMap::with_max_entries(256, 0);

/// Server names by their keys; user space sets the size.
#[map]
static NAMES: HashMap<u64, Placement> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// For each worker whether it has too much to do: 1 or 0.
#[map]
static OVERLOADED: Array<u32> = Array::with_max_entries(1024, 0);

/// Counters, one for each [`Event`].
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Event::ALL.len() as u32, 0);

/// Chooses the socket for a packet.
#[sk_reuseport]
pub fn steer(context: SkReuseportContext) -> u32 {
    let packet = Packet {
        context: context.md.cast(),
        start: 0,
        len: context.len(),
    };
    let Some(group) = group(&context) else {
        count(Event::NoSocket);
        return sk_action::SK_PASS;
    };
    let hash = context.hash();
    let (event, worker) = match Segment::of(&packet) {
        Some(Segment::Syn { timestamps }) => syn(&group, timestamps),
        Some(Segment::Payload(payload)) => payload_for(&group, &payload, hash),
        Some(Segment::Bare) | None => (Event::Landing, None),
    };
    count(event);
    if matches!(event, Event::RefusedEarly) {
        return sk_action::SK_DROP;
    }
    let slot = match (event, worker) {
        (Event::Landing | Event::OutOfOrder, _) => LANDING,
        (_, Some(worker)) if u32::from(worker) < group.workers => 1 + u32::from(worker),
        _ => 1 + spread(hash, group.workers),
    };
    if SOCKETS.select_reuseport(&context, group.base + slot).is_err() {
        count(Event::NoSocket);
    }
    sk_action::SK_PASS
}

/// What the landing listener gets to see: SYNs, resets, and a ClientHello that meets a half-open
/// connection of it, which there is only where the plug was missing. Everything else vanishes.
#[socket_filter]
pub fn landing(context: SkBuffContext) -> i64 {
    let packet = Packet {
        context: context.skb.skb.cast(),
        start: 0,
        len: context.len() as usize,
    };
    match Segment::of(&packet) {
        Some(Segment::Syn { .. }) => KEEP,
        Some(Segment::Payload(payload)) => match first::<_, 0>(&payload) {
            First::Continuation | First::Stray => DROP,
            _ => KEEP,
        },
        _ if packet.byte(FLAGS).is_some_and(|flags| flags & RST != 0) => KEEP,
        _ => DROP,
    }
}

/// A TCP segment, by what it means for a listening socket.
enum Segment {
    Syn { timestamps: bool },
    Payload(Packet),
    Bare,
}

impl Segment {
    #[inline(always)]
    fn of(packet: &Packet) -> Option<Self> {
        let flags = packet.byte(FLAGS)?;
        let header = ((packet.byte(DATA_OFFSET)? >> 4) as usize) * 4;
        if flags & (SYN | ACK) == SYN {
            let timestamps = has_timestamps(packet, header);
            return Some(Self::Syn { timestamps });
        }
        if flags & RST != 0 || packet.len <= header {
            return Some(Self::Bare);
        }
        Some(Self::Payload(Packet {
            context: packet.context,
            start: header,
            len: packet.len - header,
        }))
    }
}

/// Whether the option is there (RFC 7323 section 3): only with it do window scale and SACK survive
/// a SYN cookie.
#[inline(always)]
fn has_timestamps(packet: &Packet, header: usize) -> bool {
    let mut at = 20;
    for _ in 0..OPTIONS {
        if at >= header {
            return false;
        }
        match packet.byte(at) {
            Some(OPTION_TIMESTAMPS) => return true,
            Some(OPTION_NOP) => at += 1,
            Some(OPTION_END) | None => return false,
            Some(_) => match packet.byte(at + 1) {
                Some(len @ 2..) => at += len as usize,
                _ => return false,
            },
        }
    }
    false
}

#[inline(always)]
fn group(context: &SkReuseportContext) -> Option<Group> {
    let socket = context.sk().sock;
    if socket.is_null() {
        return None;
    }
    // SAFETY: the verifier knows `sk` as a socket and checks each of these accesses.
    let key = unsafe {
        let mut key = GroupKey {
            port: (*socket).src_port,
            family: (*socket).family,
            address: [0; 4],
        };
        if key.family == AF_INET6 {
            key.address = [
                core::ptr::read_volatile(&raw const (*socket).src_ip6[0]),
                core::ptr::read_volatile(&raw const (*socket).src_ip6[1]),
                core::ptr::read_volatile(&raw const (*socket).src_ip6[2]),
                core::ptr::read_volatile(&raw const (*socket).src_ip6[3]),
            ];
        } else {
            key.address[0] = (*socket).src_ip4;
        }
        key
    };
    // SAFETY: a value that is replaced meanwhile is read old or new: its fields change one by one,
    // and any mixture of two groups' flags is one of both.
    let group = unsafe { GROUPS.get(&key) }.copied()?;
    (group.workers != 0).then_some(group)
}

#[inline(always)]
fn syn(group: &Group, timestamps: bool) -> (Event, Option<u16>) {
    if group.flags & flags::STEER == 0 {
        (Event::HashOff, None)
    } else if timestamps {
        (Event::Landing, None)
    } else {
        (Event::HashNoTimestamps, None)
    }
}

#[inline(always)]
fn payload_for(group: &Group, payload: &Packet, hash: u32) -> (Event, Option<u16>) {
    match first::<_, EXTENSIONS>(payload) {
        First::Continuation => (Event::OutOfOrder, None),
        _ if group.flags & flags::STEER == 0 => (Event::HashOff, None),
        First::Beyond => (Event::HashBeyond, None),
        First::Unnamed => (Event::HashUnnamed, None),
        First::Stray | First::Other => (Event::HashOther, None),
        First::Name(name) => {
            let keys = keys(payload, name);
            // SAFETY: a placement that is replaced meanwhile is read old, new or mixed; any worker
            // serves any name.
            let mut found = unsafe { NAMES.get(&keys.exact) };
            if found.is_none()
                && let Some(wildcard) = keys.wildcard
            {
                // SAFETY: as above.
                found = unsafe { NAMES.get(&wildcard) };
            }
            match found {
                Some(placement) => place(placement, hash),
                None if group.flags & flags::REFUSE_UNKNOWN != 0 => (Event::RefusedEarly, None),
                None => (Event::HashUnknown, None),
            }
        }
    }
}

/// The home of a name, or its next choice where that has too much to do.
#[inline(always)]
fn place(placement: &Placement, hash: u32) -> (Event, Option<u16>) {
    let home = if placement.share > 1 {
        hash % u32::from(placement.share)
    } else {
        0
    };
    for step in 0..2 {
        let mut choice = home + step;
        if choice >= u32::from(placement.count) {
            choice = 0;
        }
        let worker = worker_at(placement, choice);
        if OVERLOADED.get(u32::from(worker)).is_some_and(|&over| over == 0) {
            let event = if step == 0 { Event::Steered } else { Event::Moved };
            return (event, Some(worker));
        }
    }
    (Event::Steered, Some(worker_at(placement, home)))
}

/// One of a placement's workers. The index is masked instead of compared: the verifier of 6.1 loses
/// sight of what was compared when the compiler has moved it to another register. As user space has
/// `count` and `share` in bounds, no index leads to those two, which stand behind the workers.
#[inline(always)]
fn worker_at(placement: &Placement, choice: u32) -> u16 {
    const { assert!(size_of::<Placement>() == 16) }
    let first = (&raw const *placement).cast::<u16>();
    // SAFETY: a placement is eight u16 without padding, and the index is at most 7. Volatile, so that
    // the mask stays where it is.
    unsafe { core::ptr::read_volatile(first.add((choice & 7) as usize)) }
}

/// A number below `bound` from a hash, without a division.
#[inline(always)]
fn spread(hash: u32, bound: u32) -> u32 {
    ((u64::from(hash) * u64::from(bound)) >> 32) as u32
}

#[inline(always)]
fn count(event: Event) {
    if let Some(counter) = COUNTERS.get_ptr_mut(event as u32) {
        // SAFETY: this CPU's own copy, and packets on a CPU come one after the other.
        unsafe { *counter += 1 };
    }
}

/// Bytes of a packet from `start` on, fetched as they are asked for.
struct Packet {
    context: *mut core::ffi::c_void,
    start: usize,
    len: usize,
}

impl Packet {
    #[inline(always)]
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let mut bytes = [0u8; N];
        // SAFETY: the destination has N bytes; the helper checks the range against the packet.
        let failed = unsafe {
            bpf_skb_load_bytes(
                self.context,
                (self.start + at) as u32,
                bytes.as_mut_ptr().cast(),
                N as u32,
            )
        };
        (failed == 0).then_some(bytes)
    }
}

impl Bytes for Packet {
    #[inline(always)]
    fn byte(&self, at: usize) -> Option<u8> {
        self.load::<1>(at).map(|[byte]| byte)
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    fn u16(&self, at: usize) -> Option<u16> {
        self.load::<2>(at).map(u16::from_be_bytes)
    }
}

/// Offsets in the TCP header (RFC 9293 section 3.1), and its flags.
const DATA_OFFSET: usize = 12;
const FLAGS: usize = 13;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_TIMESTAMPS: u8 = 8;
/// As many as fit into 40 bytes if each were a NOP would be 40; real stacks send five.
const OPTIONS: usize = 12;

const AF_INET6: u32 = 10;

const KEEP: i64 = u32::MAX as i64;
const DROP: i64 = 0;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel offers some helpers to programs under the GPL only; none of those is used here.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"MIT\0";
