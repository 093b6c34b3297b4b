//! The parts of the appliance: PID 1 of the image (`clinch-init`) and the operator's tool
//! (`clinch-appliance`).
//!
//! PID 1 brings the machine up ([`boot`]), keeps clinch running ([`life`], [`supervise`]), and takes
//! updates and configurations ([`commands`], [`configuration`]). It terminates no TLS and judges no staple; that is clinch's work,
//! which it asks through clinch's own commands. Nothing here is unsafe: the kernel is reached through
//! rustix, netlink crates, and files below /proc and /sys.
#![forbid(unsafe_code)]

pub mod admin;
pub mod boot;
pub mod commands;
pub mod configuration;
pub mod console;
pub mod firewall;
pub mod generations;
pub mod health;
pub mod keeper;
pub mod life;
pub mod machine;
pub mod modules;
pub mod mounts;
pub mod network;
pub mod power;
pub mod randomness;
pub mod run;
pub mod screen;
pub mod sealed;
pub mod slots;
pub mod supervise;
pub mod sysctl;
pub mod tpm;
pub mod update;
pub mod volumes;
