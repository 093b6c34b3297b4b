//! `clinch-load`: puts a load on a TLS server and says how it fared. Thin: arguments to a plan, an
//! outcome to files.

mod arguments;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::{Context, Result};
use clap::Parser;
use clinch_load::{Phase, Plan, Progress, Report, html, run};

use arguments::{Arguments, Command, Outputs};

/// As in clinch: a load generator allocates for every connection.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match command(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("clinch-load: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn command(arguments: Arguments) -> Result<ExitCode> {
    match arguments.command {
        Command::Run(run) => {
            let plan = run.plan()?;
            load(&plan, &run.label, &run.outputs)
        }
        Command::Report {
            files,
            html: page,
            title,
        } => {
            let mut reports = Vec::new();
            for file in files {
                let text = std::fs::read(&file).with_context(|| file.display().to_string())?;
                let report: Report = serde_json::from_slice(&text)
                    .with_context(|| format!("{}: not a report", file.display()))?;
                println!("{}", report.table());
                reports.push(report);
            }
            if let Some(page) = page {
                write(&page, &html::page(&title, &reports))?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn load(plan: &Plan, label: &str, outputs: &Outputs) -> Result<ExitCode> {
    rise()?;
    let stop = Arc::new(AtomicBool::new(false));
    end_on_ctrl_c(Arc::clone(&stop))?;
    eprintln!("clinch-load: {}", plan.describe());
    let mut shown = Shown::new(outputs.quiet);
    let outcome = run(plan, &stop, |progress| shown.show(progress))?;
    shown.end();
    let report = Report::new(label, plan, &outcome);
    print!("{}", report.table());
    if let Some(path) = &outputs.json {
        write(path, &(serde_json::to_string_pretty(&report)? + "\n"))?;
    }
    if let Some(path) = &outputs.html {
        write(path, &html::page(label, std::slice::from_ref(&report)))?;
    }
    if let Some(prefix) = &outputs.hgrm {
        for phase in Phase::ALL {
            let histogram = outcome.recorder.histogram(phase);
            if !histogram.is_empty() {
                let name = phase.name().replace(' ', "-");
                let path = format!("{}.{name}.hgrm", prefix.display());
                write(path.as_ref(), &clinch_load::hgrm(histogram))?;
            }
        }
    }
    Ok(ExitCode::from(u8::from(report.counts.failed > 0)))
}

/// Thousands of connections need as many descriptors.
fn rise() -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("cannot raise the bound on open files")
}

/// Ctrl-C ends the run; what was measured until then is reported.
fn end_on_ctrl_c(stop: Arc<AtomicBool>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
                stop.store(true, Relaxed);
            }
        })?;
    Ok(())
}

fn write(path: &std::path::Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Progress on stderr: one line drawn over on a terminal, a line each ten seconds elsewhere.
struct Shown {
    quiet: bool,
    terminal: bool,
    last: Progress,
}

impl Shown {
    fn new(quiet: bool) -> Self {
        Self {
            quiet,
            terminal: std::io::stderr().is_terminal(),
            last: Progress::default(),
        }
    }

    fn show(&mut self, now: &Progress) {
        let seconds = now.elapsed.as_secs();
        if self.quiet || (!self.terminal && !seconds.is_multiple_of(10)) {
            return;
        }
        let over = (now.elapsed - self.last.elapsed).as_secs_f64();
        let rate = (now.finished - self.last.finished) as f64 / over;
        let open = now.started - now.finished - now.failed;
        let line = format!(
            "{seconds:>4} s  finished {:>9} ({rate:.0}/s)  failed {}  open {open} (ready {})",
            now.finished,
            now.failed,
            now.ready.saturating_sub(now.finished).min(open)
        );
        if self.terminal {
            eprint!("\r\x1b[K{line}");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
        self.last = *now;
    }

    fn end(&self) {
        if self.terminal && !self.quiet {
            eprintln!();
        }
    }
}
