//! The metrics in the OpenMetrics text format, which Prometheus reads.
//!
//! Figures are read when they are asked for; nothing is kept here. Every metric is listed in
//! `docs/METRICS.md`, which a test holds to what is written.

mod certificates;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::{Registry, Unit};

use super::counters::{ByReason, Counter, Counters, FetchCounters, Reason};
use super::instance::{Instance, VERSION};
use super::page::{Page, reasons};
use crate::control::status::Status;
use crate::steering;
use crate::sys::resources;

/// The media type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes all metrics as they are at that instant. Without `status` (control did not answer) those
/// about certificates are left out.
pub fn render(instance: &Instance, status: Option<Status>, at: SystemTime) -> String {
    let scrape = Scrape {
        workers: instance
            .workers
            .iter()
            .map(|worker| WorkerScrape {
                counters: Arc::clone(&worker.counters),
                capacity: worker.capacity,
                alive: worker.is_alive(),
            })
            .collect(),
        fetches: Arc::clone(&instance.fetches),
        steering: instance.steering.report(),
        uptime: instance.uptime(),
        status,
        at,
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));
    let mut page = String::new();
    text::encode(&mut page, &registry).expect("a String takes every write");
    page
}

/// What one page is made from.
#[derive(Debug)]
struct Scrape {
    workers: Vec<WorkerScrape>,
    fetches: Arc<FetchCounters>,
    steering: steering::Report,
    uptime: Duration,
    status: Option<Status>,
    at: SystemTime,
}

#[derive(Debug)]
struct WorkerScrape {
    counters: Arc<Counters>,
    capacity: usize,
    alive: bool,
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.process(&mut page)?;
        self.connections(&mut page)?;
        self.handshakes(&mut page)?;
        self.relays(&mut page)?;
        self.fetches(&mut page)?;
        match &self.status {
            Some(status) => self.certificates(status, &mut page),
            None => Ok(()),
        }
    }
}

impl Scrape {
    fn process(&self, page: &mut Page<'_>) -> fmt::Result {
        page.info(
            "clinch_build",
            "Version of clinch that runs",
            &[("version", VERSION)],
        )?;
        page.single_gauge(
            "clinch_uptime",
            "Time since the process started",
            Some(Unit::Seconds),
            self.uptime.as_secs_f64(),
        )?;
        // The names that client libraries of Prometheus give them.
        page.seconds_counter(
            "process_cpu",
            "Processor time of the process, in user space and in the kernel",
            resources::processor_time().as_secs_f64(),
        )?;
        if let Ok(bytes) = resources::resident_memory() {
            page.single_gauge(
                "process_resident_memory",
                "Memory of the process that is resident",
                Some(Unit::Bytes),
                bytes as f64,
            )?;
        }
        self.steering(page)?;
        self.by_worker(
            page,
            "clinch_worker_alive",
            "1 while the worker's thread runs",
            |worker| f64::from(u8::from(worker.alive)),
        )?;
        self.by_worker(
            page,
            "clinch_worker_generation",
            "Generation of the snapshot the worker serves from",
            |worker| worker.counters.generation.value() as f64,
        )
    }

    fn steering(&self, page: &mut Page<'_>) -> fmt::Result {
        page.gauge(
            "clinch_steering_mode",
            "How connections find their worker; 1 for the mode in force",
            None,
            [([("mode", self.steering.mode.word())], 1.0)],
        )?;
        let events = self.steering.events.iter();
        page.counter(
            "clinch_steering_packets",
            "What the kernel did with packets that met no connection yet",
            None,
            events.map(|(event, n)| ([("event", event.as_str())], *n)),
        )?;
        page.counter(
            "clinch_steering_connections",
            "Connections that the kernel did not bring to their worker, and what became of them",
            None,
            [
                ([("event", "handed_over")], self.total(|c| &c.handed_over)),
                ([("event", "kept")], self.total(|c| &c.kept_misplaced)),
                ([("event", "landed")], self.total(|c| &c.landed)),
            ],
        )
    }

    fn connections(&self, page: &mut Page<'_>) -> fmt::Result {
        self.by_worker(
            page,
            "clinch_connections_active",
            "Client connections held now",
            |worker| worker.counters.active.value() as f64,
        )?;
        self.by_worker(
            page,
            "clinch_connections_capacity",
            "Client connections that the worker may hold",
            |worker| worker.capacity as f64,
        )?;
        self.by_worker(
            page,
            "clinch_handshakes_active",
            "Client connections whose handshake is not complete",
            |worker| worker.counters.handshaking.value() as f64,
        )?;
        self.sum(
            page,
            "clinch_connections_accepted",
            "Client connections accepted",
            |c| &c.accepted,
        )?;
        self.sum(
            page,
            "clinch_accept_pauses",
            "Times accepting paused because a worker held as many connections as it may",
            |c| &c.full,
        )?;
        self.sum_by_reason(
            page,
            "clinch_accept_failures",
            "Client connections not taken up",
            "reason",
            |c| &c.accept_failures,
        )
    }

    fn handshakes(&self, page: &mut Page<'_>) -> fmt::Result {
        self.sum_by_reason(
            page,
            "clinch_handshakes",
            "Handshakes completed, by TLS version and whether a ticket was used",
            "kind",
            |c| &c.completed,
        )?;
        self.sum_by_reason(
            page,
            "clinch_staplings",
            "What became of the staple in full handshakes",
            "result",
            |c| &c.stapling,
        )?;
        self.sum_by_reason(
            page,
            "clinch_handshake_failures",
            "Handshakes not completed",
            "reason",
            |c| &c.handshake_failures,
        )?;
        page.histogram(
            "clinch_handshake_duration",
            "Time from accept to the end of completed handshakes",
            self.workers.iter().map(|w| &w.counters.handshake_time),
        )?;
        self.by_worker(
            page,
            "clinch_ready_certificates",
            "Certificates ready to sign on the worker's core",
            |worker| worker.counters.ready_certificates.value() as f64,
        )
    }

    fn relays(&self, page: &mut Page<'_>) -> fmt::Result {
        self.sum_by_reason(
            page,
            "clinch_connections_ended",
            "Established connections that ended",
            "reason",
            |c| &c.relay_ends,
        )?;
        self.sum(
            page,
            "clinch_client_truncations",
            "Clients that ended their stream without a close_notify",
            |c| &c.truncated,
        )?;
        self.sum_by_reason(
            page,
            "clinch_ktls_connections",
            "Connections of listeners that ask for kTLS, by who seals their records or why not the kernel",
            "result",
            |c| &c.offloads,
        )?;
        self.sum_by_reason(
            page,
            "clinch_ktls_key_updates",
            "Key updates on connections whose records the kernel seals",
            "result",
            |c| &c.key_updates,
        )?;
        self.sum(
            page,
            "clinch_backend_connects",
            "Connections made to backends",
            |c| &c.backend_connects,
        )?;
        self.sum_by_reason(
            page,
            "clinch_backend_failures",
            "Attempts to connect to a backend that failed",
            "reason",
            |c| &c.backend_failures,
        )?;
        self.sum(
            page,
            "clinch_backend_ejections",
            "Times a backend was set aside after failures",
            |c| &c.backend_ejections,
        )?;
        page.counter(
            "clinch_relayed",
            "Plaintext bytes relayed: up is from clients to backends",
            Some(Unit::Bytes),
            [
                ([("direction", "up")], self.total(|c| &c.bytes_up)),
                ([("direction", "down")], self.total(|c| &c.bytes_down)),
            ],
        )
    }

    fn fetches(&self, page: &mut Page<'_>) -> fmt::Result {
        let fetches = &self.fetches;
        page.counter(
            "clinch_ocsp_fetches",
            "Attempts to get an OCSP response",
            None,
            reasons("result", |result| fetches.results.value(result)),
        )?;
        page.counter(
            "clinch_egress_refusals",
            "Requests that the egress policy, a proxy or TLS did not let through",
            None,
            reasons("reason", |reason| fetches.egress_refused.value(reason)),
        )?;
        page.counter(
            "clinch_crl_fetches",
            "Looks at the CRLs of certificates that have no responder",
            None,
            reasons("result", |result| fetches.crl_results.value(result)),
        )?;
        page.histogram(
            "clinch_ocsp_fetch_duration",
            "Time an attempt to get an OCSP response took",
            std::iter::once(&fetches.time),
        )?;
        let single = [
            (
                "clinch_ocsp_skipped",
                "Certificates for which there was nothing to fetch",
                &fetches.skipped,
            ),
            (
                "clinch_ocsp_cache_loads",
                "Staples taken from the cache at start",
                &fetches.from_cache,
            ),
            (
                "clinch_ocsp_cache_refusals",
                "Cache entries not taken: unreadable, or refused by the verifier",
                &fetches.cache_refused,
            ),
            (
                "clinch_ocsp_cache_writes",
                "Responses and CRLs that were written to the cache and survive a power cut",
                &fetches.cache_writes,
            ),
            (
                "clinch_ocsp_cache_write_failures",
                "Writes to the cache that failed",
                &fetches.cache_write_failures,
            ),
            (
                "clinch_egress_starts",
                "Times the egress process was started",
                &fetches.egress_starts,
            ),
        ];
        for (name, help, count) in single {
            page.single_counter(name, help, count.value())?;
        }
        page.counter(
            "clinch_reloads",
            "Reloads, by whether the new configuration took effect",
            None,
            [
                ([("result", "applied")], fetches.reloads.value()),
                ([("result", "refused")], fetches.reloads_refused.value()),
            ],
        )
    }

    fn total(&self, of: impl Fn(&Counters) -> &Counter) -> u64 {
        self.workers.iter().map(|w| of(&w.counters).value()).sum()
    }

    fn sum(
        &self,
        page: &mut Page<'_>,
        name: &str,
        help: &str,
        of: impl Fn(&Counters) -> &Counter,
    ) -> fmt::Result {
        page.single_counter(name, help, self.total(of))
    }

    fn sum_by_reason<R: Reason, const N: usize>(
        &self,
        page: &mut Page<'_>,
        name: &str,
        help: &str,
        label: &'static str,
        of: impl Fn(&Counters) -> &ByReason<R, N>,
    ) -> fmt::Result {
        let total = |reason| {
            let values = self.workers.iter().map(|w| of(&w.counters).value(reason));
            values.sum()
        };
        page.counter(name, help, None, reasons(label, total))
    }

    fn by_worker(
        &self,
        page: &mut Page<'_>,
        name: &str,
        help: &str,
        of: impl Fn(&WorkerScrape) -> f64,
    ) -> fmt::Result {
        let workers = self.workers.iter().enumerate();
        let series = workers.map(|(index, worker)| ([("worker", index as u64)], of(worker)));
        page.gauge(name, help, None, series)
    }
}

#[cfg(test)]
mod tests {
    use super::super::counters::{Completed, HandshakeFailure};
    use super::super::instance::WorkerView;
    use super::super::report::tests::{certificate, status};
    use super::*;
    use crate::control::status::StapleStatus;
    use std::collections::BTreeSet;

    fn page() -> String {
        let workers = [0, 1].map(|core| WorkerView::new(Some(core), 10, Arc::default()));
        for worker in &workers {
            worker.counters.completed.one(Completed::Tls13Full);
            worker
                .counters
                .handshake_time
                .record(Duration::from_millis(3));
        }
        workers[1].counters.active.set(4);
        workers[1]
            .counters
            .handshake_failures
            .one(HandshakeFailure::PlainHttp);
        let mut quoted = certificate(StapleStatus::Stapled);
        quoted.subject = "a \"quoted\" name".to_owned();
        let status = status(vec![
            certificate(StapleStatus::Stapled),
            certificate(StapleStatus::Missing),
            quoted,
        ]);
        let instance = Instance::new(workers.into(), Vec::new(), Arc::default());
        render(&instance, Some(status), SystemTime::now())
    }

    #[test]
    fn workers_are_merged_where_they_add_up_and_told_apart_where_not() {
        let page = page();
        for line in [
            "clinch_handshakes_total{kind=\"tls13_full\"} 2",
            "clinch_handshake_failures_total{reason=\"plain_http\"} 1",
            "clinch_handshake_duration_seconds_count 2",
            "clinch_connections_active{worker=\"0\"} 0.0",
            "clinch_connections_active{worker=\"1\"} 4.0",
            "clinch_steering_mode{mode=\"reuseport\"} 1.0",
            "clinch_certificates_by_staple{state=\"stapled\"} 2.0",
            "clinch_certificates_by_staple{state=\"missing\"} 1.0",
            "clinch_certificates 3.0",
            "# EOF",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn a_subject_with_quotes_cannot_break_the_page() {
        assert!(page().contains(r#"{subject="a \"quoted\" name","#));
    }

    #[test]
    fn a_staple_past_its_end_is_not_counted_as_valid() {
        let instance = Instance::new(Vec::new(), Vec::new(), Arc::default());
        let status = status(vec![certificate(StapleStatus::Stapled)]);
        let later = SystemTime::now() + Duration::from_secs(7200);
        let page = render(&instance, Some(status), later);
        assert!(page.contains("clinch_certificates_by_staple{state=\"stapled\"} 0.0"));
        assert!(page.contains("clinch_certificates_by_staple{state=\"expired\"} 1.0"));
        let expiry = page
            .lines()
            .find(|line| line.starts_with("clinch_staple_expiry_seconds{"))
            .expect("one series");
        assert!(expiry.contains(" -3"), "{expiry}");
    }

    #[test]
    fn the_handbook_lists_every_metric_and_no_other() {
        let written: BTreeSet<String> = page()
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .map(|line| {
                let (name, kind) = line.split_once(' ').expect("name and type");
                match kind {
                    "counter" => format!("{name}_total"),
                    "info" => format!("{name}_info"),
                    _ => name.to_owned(),
                }
            })
            .collect();
        let listed: BTreeSet<String> = include_str!("../../../docs/METRICS.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .filter_map(|rest| Some(rest.split(['`', '{']).next()?.to_owned()))
            .collect();
        assert_eq!(written, listed);
        let ours = |name: &String| name.starts_with("clinch_") || name.starts_with("process_");
        assert!(written.iter().all(ours));
    }
}
