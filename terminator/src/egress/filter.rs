//! What the kernel lets the egress worker do (seccomp): sockets, memory, threads, reading files that
//! name resolution needs. No other program is executed, no process traced or made, no file written.
//!
//! A call that is not on the list fails with EPERM instead of ending the process, because what the
//! resolver of libc calls differs between distributions. The filter binds the calling thread and
//! all threads that it starts, for good; apply it before there are others.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// The kernel, or the machine, does not take the filter.
#[derive(Debug, thiserror::Error)]
#[error(
    "the system calls of the egress process are not limited ({0}): the kernel needs CONFIG_SECCOMP_FILTER, and a service manager or container that filters calls itself must let `seccomp` through"
)]
pub(super) struct FilterError(String);

/// Confines the calling thread. `no_new_privs` must be set.
pub(super) fn apply() -> Result<(), FilterError> {
    // Flags of clone3 lie in memory, where a filter cannot look: libc is told that it does not
    // exist, and uses clone. Of two filters the stricter verdict counts (seccomp(2)).
    let without_clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let absent = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    install(without_clone3, SeccompAction::Allow, absent)?;

    let denied = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    install(allowed()?, denied, SeccompAction::Allow)
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

fn install(
    rules: Rules,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> Result<(), FilterError> {
    let machine = std::env::consts::ARCH.try_into().map_err(failed)?;
    let filter = SeccompFilter::new(rules, otherwise, listed, machine).map_err(failed)?;
    let program: BpfProgram = filter.try_into().map_err(failed)?;
    seccompiler::apply_filter(&program).map_err(failed)
}

fn allowed() -> Result<Rules, FilterError> {
    let mut rules: Rules = PLAIN.iter().map(|call| (*call, Vec::new())).collect();
    let families = [
        libc::AF_INET,
        libc::AF_INET6,
        // The resolver asks local services, and the kernel for its own addresses.
        libc::AF_UNIX,
        libc::AF_NETLINK,
    ];
    let sockets = families.map(|family| argument(0, !0, family.cast_unsigned().into()));
    rules.insert(
        libc::SYS_socket,
        sockets.into_iter().collect::<Result<_, _>>()?,
    );
    let thread = libc::CLONE_THREAD.cast_unsigned().into();
    rules.insert(libc::SYS_clone, vec![argument(0, thread, thread)?]);
    let writing = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;
    let writing = writing.cast_unsigned().into();
    rules.insert(libc::SYS_openat, vec![argument(2, writing, 0)?]);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, vec![argument(1, writing, 0)?]);
    let name = libc::PR_SET_NAME.cast_unsigned().into();
    rules.insert(libc::SYS_prctl, vec![argument(0, !0, name)?]);
    Ok(rules)
}

/// The argument at a position, as far as the mask reaches, has this value.
fn argument(position: u8, mask: u64, value: u64) -> Result<SeccompRule, FilterError> {
    let compare = SeccompCmpOp::MaskedEq(mask & u64::from(u32::MAX));
    let condition = SeccompCondition::new(position, SeccompCmpArgLen::Dword, compare, value);
    SeccompRule::new(vec![condition.map_err(failed)?]).map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> FilterError {
    FilterError(error.to_string())
}

/// Calls that are let through whatever their arguments.
const PLAIN: &[c_long] = &[
    // Files that are open.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    // Sockets that are there.
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    // Threads and signals.
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Questions.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    // Older names of the above, which libc still uses on this machine.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
];

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::ErrorKind;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::process::Command;

    use super::*;

    #[test]
    fn the_network_is_there_and_nothing_is_executed_or_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("bound");
        let new = directory.path().join("new");
        let confined = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).expect("allowed");
            apply().expect("the kernel takes it");
            assert!(TcpStream::connect(address).is_ok());
            assert!(File::open("/etc/hosts").is_ok());
            let thread = std::thread::spawn(|| 7);
            assert_eq!(thread.join().expect("no panic"), 7);

            let denied = |error: std::io::Error| error.kind() == ErrorKind::PermissionDenied;
            assert!(File::create(&new).is_err_and(denied));
            assert!(Command::new("/bin/true").status().is_err_and(denied));
            let packets = rustix::net::socket(
                rustix::net::AddressFamily::PACKET,
                rustix::net::SocketType::RAW,
                None,
            );
            assert_eq!(packets.err(), Some(rustix::io::Errno::PERM));
        });
        confined.join().expect("as it should be");
    }
}
