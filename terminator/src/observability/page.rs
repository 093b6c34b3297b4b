//! A page in the OpenMetrics text format, written metric by metric: name, help and unit once, then
//! the series. It knows the kinds of metrics and nothing of what they mean.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::counters::{Durations, Reason};

/// The encoder with one method per kind of metric.
pub(super) struct Page<'a>(pub(super) DescriptorEncoder<'a>);

impl Page<'_> {
    /// A counter with labels.
    pub(super) fn counter<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        series: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let kind = MetricType::Counter;
        let mut metric = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        series.into_iter().try_for_each(|(labels, value)| {
            metric
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    /// A counter without labels.
    pub(super) fn single_counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.0
            .encode_descriptor(name, help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    /// A counter without labels that counts seconds.
    pub(super) fn seconds_counter(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.0
            .encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    /// A gauge without labels.
    pub(super) fn single_gauge(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        value: f64,
    ) -> fmt::Result {
        self.0
            .encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?
            .encode_gauge(&value)
    }

    /// A gauge with labels.
    pub(super) fn gauge<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        series: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let kind = MetricType::Gauge;
        let mut metric = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        series
            .into_iter()
            .try_for_each(|(labels, value)| metric.encode_family(&labels)?.encode_gauge(&value))
    }

    /// A constant 1 whose labels are the information.
    pub(super) fn info(
        &mut self,
        name: &str,
        help: &str,
        labels: &impl EncodeLabelSet,
    ) -> fmt::Result {
        self.0
            .encode_descriptor(name, help, None, MetricType::Info)?
            .encode_info(labels)
    }

    /// The sum of several histograms of equal shape.
    pub(super) fn histogram<'d>(
        &mut self,
        name: &str,
        help: &str,
        parts: impl Iterator<Item = &'d Durations>,
    ) -> fmt::Result {
        let mut buckets: Vec<(f64, u64)> = Vec::new();
        let mut sum = 0.0;
        for part in parts {
            sum += part.sum();
            for (index, (bound, count)) in part.buckets().enumerate() {
                match buckets.get_mut(index) {
                    Some(bucket) => bucket.1 += count,
                    None => buckets.push((bound, count)),
                }
            }
        }
        let count = buckets.iter().map(|(_, count)| count).sum();
        self.0
            .encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

/// One series for each reason.
pub(super) fn reasons<R: Reason>(
    label: &'static str,
    value: impl Fn(R) -> u64,
) -> impl Iterator<Item = ([(&'static str, &'static str); 1], u64)> {
    let all = R::ALL.iter();
    all.map(move |reason| ([(label, reason.label())], value(*reason)))
}
