//! `clinch check`: reads everything that `clinch run` would read before it binds an address, and
//! lists all that is wrong with it, each with cause and remedy. Starts nothing and asks no
//! responder; that addresses are free and backends answer is not part of it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use crate::clock;
use crate::config::Config;
use crate::control::{LoadError, Loaded, load};
use crate::sys::privileges::Account;

/// Check a configuration, its certificates and its keys.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
        clinch check -c /etc/clinch/clinch.toml\n  \
        clinch check --json | jq -r '.problems[].message'\n\n\
        Exit codes:\n  \
        0  it can be run; warnings may have been printed\n  \
        1  it cannot be run, for the problems that were printed\n  \
        2  wrong usage")]
pub(super) struct Args {
    /// Configuration file
    #[arg(short, long, value_name = "FILE", default_value = super::CONFIG_PATH)]
    config: PathBuf,

    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// Checks and prints.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let findings = Findings::of(&args.config);
    let text = if args.json {
        format!("{:#}\n", serde_json::to_value(&findings)?)
    } else {
        findings.text(&args.config)
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(if findings.problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What is printed.
#[derive(Debug, Default, Serialize)]
struct Findings {
    /// What keeps it from being run.
    problems: Vec<Problem>,
    /// What should be known and prevents nothing, each a sentence.
    warnings: Vec<String>,
    /// What would be served. Empty where there are problems.
    certificates: Vec<Certificate>,
}

#[derive(Debug, Serialize)]
struct Problem {
    /// Line of the configuration file, where it is there.
    line: Option<usize>,
    /// Path of the key in the configuration, where it is there.
    key: Option<String>,
    /// A sentence with cause and remedy.
    message: String,
}

#[derive(Debug, Serialize)]
struct Certificate {
    subject: String,
    file: PathBuf,
    sites: Vec<String>,
    not_after: String,
    must_staple: bool,
    /// Where it will be asked about, in order.
    responders: Vec<String>,
    /// Why it will not be stapled, where that is so.
    not_stapled: Option<String>,
}

impl Findings {
    fn of(path: &Path) -> Self {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let hint = "name the configuration file with -c";
                return Self::failing([format!("cannot be read: {error}; {hint}")]);
            }
        };
        let config = match Config::parse(&text) {
            Ok(config) => config,
            Err(error) => {
                let problems = error.problems().iter().map(Problem::in_file);
                return Self {
                    problems: problems.collect(),
                    ..Self::default()
                };
            }
        };
        let mut findings = match load::load(&config, 1, None, clock::now()) {
            Ok(loaded) => Self::good(loaded),
            Err(LoadError { problems }) => Self::failing(problems),
        };
        let users = [("user", &config.user), ("egress.user", &config.egress.user)];
        for (key, user) in users {
            if let Some(Err(error)) = user.as_deref().map(Account::find) {
                findings.problems.push(Problem {
                    line: None,
                    key: Some(key.to_owned()),
                    message: format!("{key}: {error}"),
                });
            }
        }
        findings
    }

    fn failing(messages: impl IntoIterator<Item = String>) -> Self {
        let problem = |message| Problem {
            line: None,
            key: None,
            message,
        };
        Self {
            problems: messages.into_iter().map(problem).collect(),
            ..Self::default()
        }
    }

    fn good(loaded: Loaded) -> Self {
        let pairs = loaded.table.certificates.iter().zip(loaded.subjects);
        let certificates = pairs.map(|(certificate, subject)| {
            let leaf = &certificate.identity.leaf;
            Certificate {
                subject: leaf.subject.clone(),
                file: subject.files.cert,
                sites: subject.sites,
                not_after: clock::rfc3339(leaf.not_after),
                must_staple: leaf.must_staple,
                not_stapled: subject.plan.as_ref().err().map(ToString::to_string),
                responders: subject.plan.unwrap_or_default(),
            }
        });
        Self {
            certificates: certificates.collect(),
            warnings: loaded.warnings,
            ..Self::default()
        }
    }

    fn text(&self, path: &Path) -> String {
        let mut page = String::new();
        let file = path.display();
        for problem in &self.problems {
            let _ = match problem.line {
                Some(_) => writeln!(page, "{file}: {}", problem.message),
                None => writeln!(page, "{file}: problem: {}", problem.message),
            };
        }
        for warning in &self.warnings {
            let _ = writeln!(page, "{file}: warning: {warning}");
        }
        for certificate in &self.certificates {
            let _ = writeln!(page, "{}", certificate.text());
        }
        let _ = match self.problems.len() {
            0 => writeln!(page, "{file} can be run"),
            1 => writeln!(page, "{file} cannot be run: 1 problem"),
            n => writeln!(page, "{file} cannot be run: {n} problems"),
        };
        page
    }
}

impl Problem {
    fn in_file(problem: &crate::config::Problem) -> Self {
        Self {
            line: Some(problem.line),
            key: Some(problem.key.clone()).filter(|key| !key.is_empty()),
            message: problem.to_string(),
        }
    }
}

impl Certificate {
    fn text(&self) -> String {
        let staple = match &self.not_stapled {
            Some(reason) => format!("not stapled: {reason}"),
            None => format!("stapled from {}", self.responders.join(", ")),
        };
        let must = if self.must_staple {
            ", Must-Staple"
        } else {
            ""
        };
        format!(
            "{} for {}: valid to {}{must}, {staple}",
            self.subject,
            self.sites.join(", "),
            self.not_after
        )
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::cli::demo::authority::{Authority, LeafSpec};

    /// Writes a certificate, its key with this mode, and a configuration that ends in `more`.
    fn findings(mode: u32, more: &str) -> (Findings, String) {
        let place = tempfile::tempdir().expect("a directory");
        let authority = Authority::new(clock::now()).expect("an authority");
        let spec = LeafSpec {
            names: vec!["check.test".to_owned()],
            ocsp_urls: vec!["http://ocsp.test/".to_owned()],
            must_staple: true,
            ..LeafSpec::default()
        };
        let issued = authority.issue(&spec).expect("a leaf");
        let at = |name: &str| place.path().join(name);
        let (cert, key, config) = (at("c.pem"), at("c.key"), at("clinch.toml"));
        fs::write(&cert, issued.chain_pem).expect("written");
        fs::write(&key, issued.key_pem).expect("written");
        fs::set_permissions(&key, Permissions::from_mode(mode)).expect("set");
        let text = format!(
            "[listen.l]\naddress = \"127.0.0.1:443\"\n[[site]]\nnames = \"check.test\"\n\
             cert = {cert:?}\nkey = {key:?}\nbackend = \"127.0.0.1:1\"\n{more}"
        );
        fs::write(&config, text).expect("written");
        let findings = Findings::of(&config);
        let text = findings.text(&config);
        (findings, text)
    }

    #[test]
    fn a_sound_configuration_is_told_with_what_it_will_staple() {
        let (findings, text) = findings(0o600, "");
        assert!(findings.problems.is_empty(), "{text}");
        let staple = "check.test for check.test: valid to ";
        assert!(text.contains(staple), "{text}");
        assert!(
            text.contains("Must-Staple, stapled from http://ocsp.test/"),
            "{text}"
        );
        assert!(text.ends_with("can be run\n"), "{text}");
    }

    #[test]
    fn a_key_that_others_can_read_is_a_problem() {
        let (findings, text) = findings(0o644, "");
        assert_eq!(findings.problems.len(), 1, "{text}");
        assert!(text.contains("c.key"), "{text}");
        assert!(text.ends_with("cannot be run: 1 problem\n"), "{text}");
    }

    #[test]
    fn mistakes_in_the_file_have_their_lines() {
        let (findings, text) = findings(0o600, "colour = 1\n[timeouts]\nidle = \"0s\"\n");
        let lines: Vec<_> = findings.problems.iter().map(|p| p.line).collect();
        assert_eq!(lines, [Some(8), Some(10)], "{text}");
        assert_eq!(findings.problems[1].key.as_deref(), Some("timeouts.idle"));
    }

    #[test]
    fn a_user_that_does_not_exist_is_a_problem() {
        let (findings, text) = findings(0o600, "[egress]\nuser = \"nobody-has-this-name\"\n");
        assert_eq!(findings.problems.len(), 1, "{text}");
        assert!(text.contains("egress.user: "), "{text}");
    }

    #[test]
    fn a_missing_file_is_told_with_the_way_to_name_it() {
        let missing = Path::new("/nonexistent/clinch.toml");
        let text = Findings::of(missing).text(missing);
        assert!(
            text.contains("name the configuration file with -c"),
            "{text}"
        );
    }
}
