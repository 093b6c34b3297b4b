//! The only unsafe code: io_uring operations, sockets, affinity, privileges.
