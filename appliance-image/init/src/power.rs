//! How the machine goes down and is kept alive: the power button, signals, the hardware watchdog.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rustix::system::{RebootCommand, reboot};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::mounts;
use crate::say;

/// What the machine is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// Switch off.
    Off,
    /// Start again.
    Restart,
}

/// Something that PID 1 hears of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A child has ended.
    Child,
    /// Somebody wants the machine down.
    Down(Down),
}

/// Listens to signals (Ctrl-Alt-Del comes as SIGINT) and to power buttons.
pub fn listen(tell: &mpsc::Sender<Heard>) -> std::io::Result<()> {
    reboot(RebootCommand::CadOff)?;
    let mut signals = Signals::new([SIGCHLD, SIGINT, SIGTERM])?;
    let heard = tell.clone();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let what = match signal {
                SIGCHLD => Heard::Child,
                SIGINT => Heard::Down(Down::Restart),
                _ => Heard::Down(Down::Off),
            };
            if heard.send(what).is_err() {
                return;
            }
        }
    });
    for device in inputs() {
        let heard = tell.clone();
        std::thread::spawn(move || {
            if let Ok(file) = File::open(device) {
                watch_button(file, &heard);
            }
        });
    }
    Ok(())
}

fn inputs() -> Vec<PathBuf> {
    let entries = fs::read_dir("/dev/input").into_iter().flatten().flatten();
    let is_event = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("event"))
    };
    entries.map(|entry| entry.path()).filter(is_event).collect()
}

/// Reads `struct input_event` of a 64-bit kernel: two words of time, then type, code and value.
fn watch_button(mut from: impl Read, heard: &mpsc::Sender<Heard>) {
    let mut event = [0; 24];
    while from.read_exact(&mut event).is_ok() {
        if is_power_key(&event) && heard.send(Heard::Down(Down::Off)).is_err() {
            return;
        }
    }
}

fn is_power_key(event: &[u8; 24]) -> bool {
    const EV_KEY: u16 = 1;
    const KEY_POWER: u16 = 116;
    let half = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
    (half(16), half(18), event[20]) == (EV_KEY, KEY_POWER, 1)
}

/// The hardware watchdog: it restarts the machine unless PID 1's main loop says again and again
/// that it runs.
#[derive(Clone, Debug, Default)]
pub struct Watchdog {
    beats: Arc<AtomicU64>,
}

impl Watchdog {
    /// Starts it, where the machine has one.
    pub fn start() -> Self {
        let watchdog = Self::default();
        let Ok(mut device) = OpenOptions::new().write(true).open("/dev/watchdog") else {
            say!("no hardware watchdog");
            return watchdog;
        };
        let beats = Arc::clone(&watchdog.beats);
        std::thread::spawn(move || {
            let mut last = None;
            let mut missed = 0;
            loop {
                let now = beats.load(Ordering::Relaxed);
                missed = if Some(now) == last { missed + 1 } else { 0 };
                last = Some(now);
                // A main loop that hangs for long is not fed any more; the hardware then acts.
                if missed < MISSES_ALLOWED && device.write_all(b".").is_err() {
                    return;
                }
                std::thread::sleep(BEAT);
            }
        });
        watchdog
    }

    /// The main loop runs.
    pub fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }
}

/// Takes the machine down once nothing is to be saved any more. Does not return.
pub fn go(down: Down) -> ! {
    mounts::release(mounts::STATE);
    mounts::release(mounts::BOOT);
    rustix::fs::sync();
    let command = match down {
        Down::Off => RebootCommand::PowerOff,
        Down::Restart => RebootCommand::Restart,
    };
    if let Err(error) = reboot(command) {
        say!("the machine cannot go down: {error}");
    }
    loop {
        std::thread::park();
    }
}

const BEAT: Duration = Duration::from_secs(3);
const MISSES_ALLOWED: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: u8) -> [u8; 24] {
        let mut event = [0; 24];
        event[16..18].copy_from_slice(&kind.to_ne_bytes());
        event[18..20].copy_from_slice(&code.to_ne_bytes());
        event[20] = value;
        event
    }

    #[test]
    fn only_the_power_key_going_down_switches_off() {
        let (tell, heard) = mpsc::channel();
        let bytes = [
            event(1, 116, 0),
            event(1, 30, 1),
            event(0, 116, 1),
            event(1, 116, 1),
        ]
        .concat();
        watch_button(&bytes[..], &tell);
        drop(tell);
        assert_eq!(heard.iter().collect::<Vec<_>>(), [Heard::Down(Down::Off)]);
    }
}
