//! A machine within the machine: a real systemd as process 1, in namespaces of its own over a copy (overlay)
//! of this root, so that units are tried as an operator installs them, and nothing of it stays.
//!
//! The network is that of the calling thread. Needs root, systemd and overlayfs. Ends when the value
//! is dropped, with all that runs in it.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::peers::Said;
use crate::process::binary;
use crate::{PROMPT, eventually};

/// A running one.
pub struct Machine {
    unshare: Child,
    /// Its process 1, as we see it.
    init: u32,
    directory: tempfile::TempDir,
}

impl Machine {
    /// Boots it, with `clinch` in /usr/bin and the files of `packaging/` in /opt/packaging; `None`
    /// where this machine does not let us.
    pub fn boot() -> Option<Self> {
        if !Path::new(SYSTEMD).exists() {
            return None;
        }
        let directory = tempfile::tempdir().ok()?;
        let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../terminator/packaging");
        let unshare = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--uts", "--ipc"])
            .args(["--kill-child", "bash", "-ec", BOOT, SYSTEMD])
            .args([directory.path(), &packaging, binary()])
            .stdin(Stdio::null())
            .spawn()
            .ok()?;
        let mut machine = Self {
            unshare,
            init: 0,
            directory,
        };
        // What fails in the script, for want of a right, ends it.
        let running = eventually("systemd has started", PROMPT, || {
            if machine.unshare.try_wait().ok()?.is_some() {
                return Some(false);
            }
            machine.init = machine.child()?;
            let state = machine.run("systemctl is-system-running");
            (state.text.trim() == "running").then_some(true)
        });
        running.then_some(machine)
    }

    /// Runs a shell script in it, to its end.
    pub fn run(&self, script: &str) -> Said {
        let output = Command::new("nsenter")
            .arg(format!("--target={}", self.init))
            .args(["--mount", "--pid", "--uts", "--ipc", "--cgroup"])
            .args(["bash", "-ec", script])
            .stdin(Stdio::null())
            .output()
            .expect("nsenter is there");
        Said {
            code: output.status.code(),
            text: String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr),
        }
    }

    /// The same for a script that must succeed.
    #[track_caller]
    pub fn must(&self, script: &str) -> String {
        let said = self.run(script);
        assert_eq!(said.code, Some(0), "{script}: {}", said.text);
        said.text
    }

    /// Puts a file there.
    pub fn put(&self, from: &Path, to: &str) {
        let to = format!("/proc/{}/root{to}", self.init);
        std::fs::copy(from, to).expect("root may");
    }

    fn child(&self) -> Option<u32> {
        let of = self.unshare.id();
        let children = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children"));
        children.ok()?.split_ascii_whitespace().next()?.parse().ok()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its process 1 dies with it, and with that every other.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        let sweep = Command::new("unshare")
            .args(["--mount", "bash", "-ec", SWEEP, "sweep"])
            .arg(self.directory.path())
            .status();
        if !sweep.is_ok_and(|status| status.success()) {
            eprintln!("an empty cgroup stays behind");
        }
    }
}

const SYSTEMD: &str = "/lib/systemd/systemd";

/// Arguments: systemd, a directory, that of the packaging, clinch. The cgroup is one of its own, so
/// that this machine's are not touched.
const BOOT: &str = r#"
at=$1
mount --make-rprivate /
mount -t tmpfs tmpfs "$at"
mkdir "$at"/{cgroup,changes,work,root}
mount -t cgroup2 cgroup2 "$at/cgroup"
mkdir "$at/cgroup/${at##*/}"
echo 0 > "$at/cgroup/${at##*/}/cgroup.procs"
exec unshare --cgroup bash -ec '
at=$1
root=$at/root
umount "$at/cgroup"
mount -t overlay overlay -o "lowerdir=/,upperdir=$at/changes,workdir=$at/work" "$root"
mkdir -p "$root/opt/packaging"
cp -r "$2/." "$root/opt/packaging"
cp "$3" "$root/usr/bin/clinch"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/dev"
mkdir "$root"/dev/{pts,shm,mqueue,hugepages}
mount -t devpts devpts "$root/dev/pts" -o newinstance,ptmxmode=0666
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for node in null zero full random urandom tty; do
    touch "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
touch "$root/dev/console"
mount --bind /dev/null "$root/dev/console"
rm -rf "$root/etc/systemd/system"
mkdir -p "$root/etc/systemd/system" "$root/before"
printf "[Unit]\nRequires=basic.target\n" > "$root/etc/systemd/system/default.target"
cd "$root"
pivot_root . before
umount -l before
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin "$0" --log-target=null --show-status=0
' "$0" "$@"
"#;

/// Takes the cgroups away, once all that was in them has ended. Argument: the directory.
const SWEEP: &str = r#"
mount --make-rprivate /
mount -t cgroup2 cgroup2 "$1"
cd "$1"
for _ in {1..100}; do
    [ -d "${1##*/}" ] || exit 0
    find "${1##*/}" -depth -type d -exec rmdir {} + 2>&- || sleep 0.05
done
exit 1
"#;
