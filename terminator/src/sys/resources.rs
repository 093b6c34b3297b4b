//! What the machine grants the process, file descriptors and the size of its pages, and what it uses.
//!
//! It raises the descriptor limit as far as the kernel lets it and says how many connections that
//! carries; the caller refuses to start, or derives its bound, from the figure.

use std::time::Duration;
use std::{fs, io};

use rustix::process::{Resource, Rlimit};
use rustix::time::{ClockId, clock_gettime};

/// Raises the limit of open files to the hard limit, or to `wanted` if that is higher and the
/// process may (CAP_SYS_RESOURCE, up to `fs.nr_open`). Returns the limit now in force.
pub fn raise_descriptor_limit(wanted: u64) -> io::Result<u64> {
    let present = rustix::process::getrlimit(Resource::Nofile);
    let hard = present.maximum.unwrap_or(u64::MAX);
    if hard < wanted {
        let higher = Rlimit {
            current: Some(wanted),
            maximum: Some(wanted),
        };
        if rustix::process::setrlimit(Resource::Nofile, higher).is_ok() {
            return Ok(wanted);
        }
    }
    if present.current != present.maximum {
        let highest = Rlimit {
            current: present.maximum,
            maximum: present.maximum,
        };
        rustix::process::setrlimit(Resource::Nofile, highest)?;
    }
    Ok(hard)
}

/// Has the kernel give this process and its children pages of the ordinary size only.
///
/// The allocator asks for huge ones where the system leaves that to programs (`madvise`), and memory
/// that connections leave between others stays resident two megabytes at a time then: 17 MiB at
/// start and 3 KiB for each idle connection, seen on 6.18.
pub fn decline_huge_pages() -> io::Result<()> {
    // SAFETY: PR_SET_THP_DISABLE takes plain integers and touches no memory of ours (prctl(2)).
    let result = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Processor time that the process has used, threads that have ended included.
pub fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("no process has used less than nothing")
}

/// Memory of the process that is resident, bytes (proc_pid_statm(5)).
pub fn resident_memory() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages = text
        .split(' ')
        .nth(1)
        .and_then(|field| field.parse::<u64>().ok());
    let pages = pages.ok_or_else(|| io::Error::other("/proc/self/statm has no second field"))?;
    Ok(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_used_memory_and_time() {
        let memory = resident_memory().expect("procfs is mounted");
        assert!(memory > 1 << 20, "{memory} bytes");
        let before = processor_time();
        assert!(before > Duration::ZERO);
        while processor_time() == before {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn the_descriptor_limit_in_force_is_what_was_reported() {
        let reported = raise_descriptor_limit(0).expect("raising to the hard limit is allowed");
        let present = rustix::process::getrlimit(Resource::Nofile);
        assert_eq!(present.current.unwrap_or(u64::MAX), reported);
    }
}
