//! The only unsafe code: io_uring operations, sockets, kTLS, affinity, privileges.
#![expect(unsafe_code, reason = "this module is where the kernel is spoken to")]

pub mod affinity;
pub mod holder;
pub mod ktls;
pub mod landing;
pub mod listening;
pub mod pipe;
pub mod privileges;
pub mod resources;
pub mod sockets;
pub mod uring;
