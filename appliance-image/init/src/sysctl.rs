//! Kernel settings of an edge, each with its reason.

use std::fs;

use crate::say;

/// Name, value, and why.
pub const SETTINGS: &[(&str, &str, &str)] = &[
    (
        "kernel.panic",
        "5",
        "a machine nobody sits at must come back, and count a failed boot",
    ),
    (
        "kernel.panic_on_oops",
        "1",
        "a kernel that has gone wrong serves no keys",
    ),
    (
        "kernel.kptr_restrict",
        "2",
        "kernel addresses help an attacker only",
    ),
    ("kernel.dmesg_restrict", "1", "likewise"),
    (
        "kernel.yama.ptrace_scope",
        "3",
        "nothing here debugs anything: keys are not read from memory",
    ),
    (
        "kernel.unprivileged_bpf_disabled",
        "1",
        "BPF programs are clinch's, loaded while it is root",
    ),
    (
        "kernel.io_uring_disabled",
        "0",
        "the data plane lives on io_uring",
    ),
    (
        "kernel.kexec_load_disabled",
        "1",
        "only the firmware starts a kernel, with its signature checked",
    ),
    (
        "kernel.sysrq",
        "0",
        "a keyboard at the machine is no authority",
    ),
    (
        "kernel.perf_event_paranoid",
        "3",
        "no measurements by unprivileged processes",
    ),
    (
        "kernel.core_pattern",
        "|/bin/false",
        "no core dumps: they hold keys",
    ),
    ("fs.suid_dumpable", "0", "likewise"),
    (
        "fs.protected_symlinks",
        "1",
        "links in /tmp are followed by their owner only",
    ),
    ("fs.protected_hardlinks", "1", "likewise"),
    (
        "fs.file-max",
        "4194304",
        "two descriptors for each connection",
    ),
    (
        "fs.nr_open",
        "4194304",
        "clinch raises its own limit up to this",
    ),
    (
        "vm.overcommit_memory",
        "0",
        "memory is promised by the kernel's estimate, not without end",
    ),
    (
        "vm.panic_on_oom",
        "0",
        "the process that asked is ended and started again, not the machine",
    ),
    (
        "net.core.bpf_jit_enable",
        "1",
        "steering runs for every connection",
    ),
    (
        "net.core.bpf_jit_harden",
        "1",
        "constants of unprivileged programs are blinded",
    ),
    (
        "net.core.somaxconn",
        "65535",
        "bursts wait in the accept queue, not for a retransmission",
    ),
    (
        "net.core.netdev_max_backlog",
        "16384",
        "packets wait for a busy core instead of being dropped",
    ),
    (
        "net.core.default_qdisc",
        "fq",
        "pacing for BBR and fairness between connections",
    ),
    (
        "net.ipv4.tcp_max_syn_backlog",
        "65535",
        "half-open connections during a burst",
    ),
    ("net.ipv4.tcp_syncookies", "1", "a SYN flood fills no table"),
    (
        "net.ipv4.tcp_fin_timeout",
        "15",
        "orphaned connections free their memory sooner",
    ),
    (
        "net.ipv4.tcp_tw_reuse",
        "1",
        "connections to backends reuse ports",
    ),
    (
        "net.ipv4.ip_local_port_range",
        "10240 65535",
        "more connections to each backend",
    ),
    (
        "net.ipv4.tcp_slow_start_after_idle",
        "0",
        "a kept connection answers at full speed",
    ),
    (
        "net.ipv4.tcp_mtu_probing",
        "1",
        "paths that swallow ICMP do not stall",
    ),
    (
        "net.ipv4.tcp_notsent_lowat",
        "131072",
        "memory holds what the path can take, not all of a response",
    ),
    (
        "net.ipv4.tcp_fastopen",
        "0",
        "not used by clinch; data before the handshake can be replayed",
    ),
    (
        "net.ipv4.tcp_rfc1337",
        "1",
        "a reset cannot end TIME_WAIT early",
    ),
    ("net.ipv4.ip_forward", "0", "the edge is no router"),
    ("net.ipv6.conf.all.forwarding", "0", "likewise"),
    (
        "net.ipv4.conf.all.accept_redirects",
        "0",
        "routes come from the configuration and DHCP only",
    ),
    ("net.ipv4.conf.default.accept_redirects", "0", "likewise"),
    ("net.ipv6.conf.all.accept_redirects", "0", "likewise"),
    ("net.ipv6.conf.default.accept_redirects", "0", "likewise"),
    (
        "net.ipv4.conf.all.send_redirects",
        "0",
        "only routers send these",
    ),
    (
        "net.ipv4.conf.all.accept_source_route",
        "0",
        "senders do not choose the path",
    ),
    ("net.ipv6.conf.all.accept_source_route", "0", "likewise"),
    (
        "net.ipv4.conf.all.arp_ignore",
        "1",
        "an address is answered for on its own interface only",
    ),
    ("net.ipv4.conf.all.arp_announce", "2", "likewise"),
    ("net.ipv4.icmp_echo_ignore_broadcasts", "1", "no amplifier"),
];

/// Applies all settings. A kernel that lacks one is told of, and serves without.
pub fn apply() {
    for (name, value, _) in SETTINGS {
        if let Err(error) = set(name, value) {
            say!("{name} cannot be set to {value}: {error}");
        }
    }
}

/// Sets one; dots separate, as in `sysctl.conf`.
pub fn set(name: &str, value: &str) -> std::io::Result<()> {
    fs::write(format!("/proc/sys/{}", name.replace('.', "/")), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_one_value_and_a_reason() {
        let mut names: Vec<&str> = SETTINGS.iter().map(|(name, ..)| *name).collect();
        assert!(
            SETTINGS
                .iter()
                .all(|(_, value, why)| !value.is_empty() && !why.is_empty())
        );
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
