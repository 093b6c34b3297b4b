//! What an operator's commands do ([`crate::admin`] takes them in).

use std::fs;
use std::io::BufRead;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, mpsc};

use crate::admin::{self, Command};
use crate::configuration::{self, Texts};
use crate::life::{FLOOR, Machinery, lock};
use crate::power::{Down, Heard};
use crate::slots::{self, Slot, Version};
use crate::{machine, say, screen, update};

/// Listens on the admin interface, where `machine.toml` has one.
pub fn listen(machinery: &Arc<Mutex<Machinery>>, tell: &mpsc::Sender<Heard>) {
    let Some(settings) = lock(machinery).machine.admin.clone() else {
        return;
    };
    let listener = match TcpListener::bind(settings.listen) {
        Ok(listener) => listener,
        Err(error) => {
            say!(
                "the admin interface cannot listen on {}: {error}",
                settings.listen
            );
            return;
        }
    };
    let (machinery, tell) = (Arc::clone(machinery), tell.clone());
    std::thread::spawn(move || {
        admin::serve(&listener, &settings.keys, |command, body| {
            lock(&machinery).act(command, body, &tell)
        });
    });
}

impl Machinery {
    fn act(
        &mut self,
        command: Command,
        body: &mut dyn BufRead,
        tell: &mpsc::Sender<Heard>,
    ) -> Result<String, String> {
        let restart = || {
            let _ = tell.send(Heard::Down(Down::Restart));
        };
        match command {
            Command::Status => {
                let status = screen::status(&self.children, &self.clinch);
                Ok(format!(
                    "version {} slot {} clinch {} started {} steering {} kTLS {}",
                    self.version,
                    self.slot.as_ref().map_or("none".to_owned(), Slot::name),
                    if self.clinch.is_ready() {
                        "serves"
                    } else {
                        "does not serve"
                    },
                    self.clinch.starts(),
                    screen::steering(&status),
                    screen::ktls(&status),
                ))
            }
            Command::Metrics => screen::metrics(&self.children, &self.clinch),
            Command::Update => {
                let slot = self.update(body)?;
                restart();
                Ok(format!("{} is booted next", slot.name()))
            }
            Command::Apply => {
                let number = self.apply(body)?;
                restart();
                Ok(format!(
                    "configuration {number} is tried; it is kept once a stapled handshake succeeds"
                ))
            }
            Command::Confirm => {
                self.settle();
                Ok("what runs is kept".to_owned())
            }
            Command::Reboot => {
                restart();
                Ok("the machine starts again".to_owned())
            }
            Command::PowerOff => {
                let _ = tell.send(Heard::Down(Down::Off));
                Ok("the machine switches off".to_owned())
            }
        }
    }

    fn update(&self, mut body: &mut dyn BufRead) -> Result<Slot, String> {
        let running = self
            .slot
            .as_ref()
            .ok_or("this machine was not started from a slot, so it has none to update")?;
        let key = fs::read_to_string("/etc/update.pub")
            .ok()
            .and_then(|text| machine::key(&text));
        let key = key.ok_or("this image trusts no key for updates")?;
        let floor = fs::read_to_string(FLOOR)
            .ok()
            .and_then(|text| Version::parse(text.trim()));
        let floor = floor.unwrap_or_else(|| running.version.clone());
        say!("an update arrives");
        slots::on_boot_partition(|slots| {
            update::receive(&mut body, &key, &floor, running, slots)
                .map_err(|error| error.to_string())
        })
    }

    /// Takes `machine.toml` and `clinch.toml` as JSON; certificates and keys stay those in force.
    fn apply(&self, body: &mut dyn BufRead) -> Result<u64, String> {
        let texts: Texts = serde_json::from_reader(body).map_err(|error| error.to_string())?;
        if let Some(name) = texts
            .keys()
            .find(|name| !["machine.toml", "clinch.toml"].contains(&name.as_str()))
        {
            return Err(format!(
                "{name:?} cannot be sent; only machine.toml and clinch.toml can"
            ));
        }
        let number = configuration::change(&self.generations, &self.children, &texts)?;
        configuration::try_at_next_start(number)?;
        Ok(number)
    }
}
