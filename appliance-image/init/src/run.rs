//! Children of PID 1. Whoever starts one waits for it; orphans that the kernel hands to PID 1 are
//! waited for by [`Children::reap_orphans`], which leaves the others alone.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, WaitOptions, waitpid};

/// The processes that somebody here waits for.
#[derive(Clone, Debug, Default)]
pub struct Children {
    waited_for: Arc<Mutex<HashSet<u32>>>,
}

impl Children {
    /// Starts a process. The caller waits for it and then calls [`Children::ended`].
    pub fn start(&self, command: &mut Command) -> io::Result<Child> {
        // Held over the start: the process cannot end and be taken for an orphan in between.
        let mut waited_for = self.lock();
        let child = command.spawn()?;
        waited_for.insert(child.id());
        Ok(child)
    }

    /// A process was waited for.
    pub fn ended(&self, process: u32) {
        self.lock().remove(&process);
    }

    /// Runs a program to its end and returns what it wrote.
    pub fn output(&self, command: &mut Command) -> io::Result<Output> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = self.start(command)?;
        let process = child.id();
        let output = child.wait_with_output();
        self.ended(process);
        output
    }

    /// Runs a program that is to succeed; its own words are the error where it does not.
    pub fn succeed(&self, command: &mut Command) -> Result<String, String> {
        let output = self
            .output(command)
            .map_err(|error| format!("{command:?}: {error}"))?;
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        if output.status.success() {
            Ok(text)
        } else {
            Err(text.trim().to_owned())
        }
    }

    /// Waits for processes that ended and whose parents are gone.
    pub fn reap_orphans(&self) {
        let waited_for = self.lock();
        for process in zombies_of_init() {
            if !waited_for.contains(&process)
                && let Ok(raw) = i32::try_from(process)
            {
                let _ = waitpid(Pid::from_raw(raw), WaitOptions::NOHANG);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<u32>> {
        self.waited_for
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn zombies_of_init() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    processes
        .filter(|process| {
            fs::read_to_string(format!("/proc/{process}/stat"))
                .is_ok_and(|stat| is_zombie_of_init(&stat))
        })
        .collect()
}

/// `PID (name) STATE PARENT …`, where the name may hold anything.
fn is_zombie_of_init(stat: &str) -> bool {
    let mut fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    fields.next() == Some("Z") && fields.next() == Some("1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zombie_is_known_whatever_its_name() {
        assert!(is_zombie_of_init("7 (a) Z 9) x) Z 1 7 7"));
        assert!(!is_zombie_of_init("7 (Z) S 1 7 7"));
        assert!(!is_zombie_of_init("7 (a) Z 12 7 7"));
        assert!(!is_zombie_of_init(""));
    }

    #[test]
    fn a_program_that_fails_is_quoted() {
        let children = Children::default();
        assert_eq!(
            children.succeed(Command::new("echo").arg("yes")),
            Ok("yes\n".to_owned())
        );
        let failed = children.succeed(Command::new("ls").arg("/no/such/folder"));
        assert!(failed.unwrap_err().contains("/no/such/folder"));
        assert!(children.lock().is_empty());
    }
}
