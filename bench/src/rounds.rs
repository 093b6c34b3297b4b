//! Contenders take turns; conclusions are drawn from ratios within a round.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Serialize;

/// One who takes part in every round.
pub struct Contender<'a> {
    /// Name in tables.
    pub name: String,
    /// Measures once.
    pub measure: Box<dyn FnMut() -> Result<Sample> + 'a>,
}

impl<'a> Contender<'a> {
    /// A contender.
    pub fn new(name: impl Into<String>, measure: impl FnMut() -> Result<Sample> + 'a) -> Self {
        Self {
            name: name.into(),
            measure: Box::new(measure),
        }
    }
}

/// One measurement.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sample {
    /// The figure that the series is about.
    pub value: f64,
    /// Anything else that was seen, by name, for the record.
    pub detail: BTreeMap<String, f64>,
}

impl From<f64> for Sample {
    fn from(value: f64) -> Self {
        let detail = BTreeMap::new();
        Self { value, detail }
    }
}

/// All measurements of one contender, in order of the rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// The contender.
    pub name: String,
    /// Unit of the values.
    pub unit: &'static str,
    /// Summary of the values.
    pub summary: Summary,
    /// One sample per round.
    pub samples: Vec<Sample>,
}

/// Middle and extremes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Summary {
    /// The middle value, or the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Summary {
    /// Summary of at least one value.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (below, above) = ((sorted.len() - 1) / 2, sorted.len() / 2);
        Self {
            median: (sorted[below] + sorted[above]) / 2.0,
            least: sorted[0],
            most: sorted[sorted.len() - 1],
        }
    }
}

/// One series over another, round by round.
#[derive(Clone, Debug, Serialize)]
pub struct Ratio {
    /// What is divided, and by what.
    pub name: String,
    /// Summary of the ratios.
    pub summary: Summary,
    /// One ratio per round.
    pub values: Vec<f64>,
}

impl Ratio {
    /// `numerator` ÷ `denominator`, paired by round.
    pub fn new(name: impl Into<String>, numerator: &[f64], denominator: &[f64]) -> Self {
        let pairs = numerator.iter().zip(denominator);
        let values: Vec<f64> = pairs.map(|(n, d)| n / d).collect();
        Self {
            name: name.into(),
            summary: Summary::of(values.iter().copied()),
            values,
        }
    }
}

/// Where the median lies with a confidence of 95 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// The interval of the median between two order statistics: it supposes nothing about the
    /// distribution, so that a round in which the machine stuttered does no harm. `None` for fewer
    /// than six values, whose extremes do not enclose the median with 95 %.
    pub fn of_median(values: &[f64]) -> Option<Self> {
        if values.len() < 6 {
            return None;
        }
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        // Ranks n/2 ∓ 1.96 √n / 2, the normal approximation of the binomial distribution, rounded
        // outwards.
        let n = sorted.len() as f64;
        let rank = ((n - 1.96 * n.sqrt()) / 2.0).floor().max(1.0) as usize;
        Some(Self {
            low: sorted[rank - 1],
            high: sorted[sorted.len() - rank],
        })
    }
}

impl Ratio {
    /// The 95 % interval of its median.
    pub fn interval(&self) -> Option<Interval> {
        Interval::of_median(&self.values)
    }
}

impl Series {
    /// The values alone.
    pub fn values(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.value).collect()
    }

    /// This series ÷ `other`, paired by round.
    pub fn over(&self, other: &Self) -> Ratio {
        let name = format!("{} ÷ {}", self.name, other.name);
        Ratio::new(name, &self.values(), &other.values())
    }
}

/// Lets every contender measure once per round, in turns that change direction (A B C, C B A, …), so
/// that a machine that grows slower or faster favours nobody.
pub fn interleave(
    rounds: u32,
    unit: &'static str,
    contenders: &mut [Contender<'_>],
) -> Result<Vec<Series>> {
    let mut samples: Vec<Vec<Sample>> = contenders.iter().map(|_| Vec::new()).collect();
    for round in 1..=rounds {
        let mut turns: Vec<_> = contenders.iter_mut().zip(&mut samples).collect();
        if round % 2 == 0 {
            turns.reverse();
        }
        for (contender, samples) in turns {
            let sample = (contender.measure)().with_context(|| contender.name.clone())?;
            eprintln!(
                "  round {round}/{rounds}  {:<34} {:>9.3} {unit}",
                contender.name, sample.value
            );
            samples.push(sample);
        }
    }
    let series = contenders.iter().zip(samples);
    Ok(series
        .map(|(contender, samples)| Series {
            name: contender.name.clone(),
            unit,
            summary: Summary::of(samples.iter().map(|sample| sample.value)),
            samples,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_pair_values_of_the_same_round() {
        let ratio = Ratio::new("a ÷ b", &[2.0, 9.0, 4.0], &[1.0, 3.0, 1.0]);
        assert_eq!(ratio.values, [2.0, 3.0, 4.0]);
        assert_eq!(ratio.summary.median, 3.0);
        assert_eq!((ratio.summary.least, ratio.summary.most), (2.0, 4.0));
    }

    #[test]
    fn the_median_of_an_even_number_of_values_lies_between_the_middle_two() {
        assert_eq!(Summary::of([4.0, 1.0, 2.0, 3.0]).median, 2.5);
    }

    #[test]
    fn the_interval_of_the_median_leaves_out_the_tails() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        let interval = Interval::of_median(&values).expect("enough values");
        assert_eq!((interval.low, interval.high), (40.0, 61.0));
        assert_eq!(Interval::of_median(&[1.0; 5]), None);
        let six = Interval::of_median(&[6.0, 1.0, 2.0, 3.0, 4.0, 5.0]).expect("six");
        assert_eq!((six.low, six.high), (1.0, 6.0));
    }

    #[test]
    fn contenders_take_turns_in_both_directions() {
        let order = std::cell::RefCell::new(String::new());
        let mut contenders: Vec<_> = ["a", "b"]
            .into_iter()
            .map(|name| {
                Contender::new(name, || {
                    order.borrow_mut().push_str(name);
                    Ok(1.0.into())
                })
            })
            .collect();
        let series = interleave(2, "", &mut contenders).expect("nothing fails here");
        drop(contenders);
        assert_eq!(order.into_inner(), "abba");
        assert_eq!(series[1].samples.len(), 2);
    }
}
