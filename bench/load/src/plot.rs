//! Plots as SVG: distributions by percentile on logarithmic axes, and values over time. No script,
//! no font, no file beside them: they stand in a page or by themselves.

use std::fmt::Write as _;

use crate::Curve;

/// A named line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Name in the legend.
    pub label: String,
    /// Points in order of x.
    pub points: Vec<(f64, f64)>,
}

/// Distributions: x is the percentile, spread so that each further nine takes the same room.
pub fn percentiles(title: &str, curves: &[(String, &Curve)]) -> String {
    let spread = |q: f64| -(1.0 - q.min(MOST_QUANTILE)).log10();
    let lines: Vec<Line> = curves
        .iter()
        .map(|(label, curve)| Line {
            label: label.clone(),
            points: curve
                .iter()
                .map(|(q, ms)| (spread(*q), ms.max(LEAST_MS)))
                .collect(),
        })
        .collect();
    let most = lines.iter().flat_map(|line| line.points.last());
    let most = most.map(|(x, _)| *x).fold(2.0, f64::max);
    let ticks = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999].into_iter();
    let ticks = ticks
        .map(|q| (spread(q), percent(q)))
        .filter(|(x, _)| *x <= most + 1e-9);
    Axes {
        title,
        x_title: "percentile of connections",
        y_title: "milliseconds (logarithmic)",
        x: (0.0, most),
        x_ticks: ticks.collect(),
        logarithmic: true,
    }
    .draw(&lines)
}

/// Values over x, from 0 up.
pub fn over(title: &str, x_title: &str, y_title: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let least = points().map(|p| p.0).fold(f64::INFINITY, f64::min);
    let most = points().map(|p| p.0).fold(least + 1.0, f64::max);
    let ticks = steps(least.min(most), most);
    Axes {
        title,
        x_title,
        y_title,
        x: (least.min(most), most),
        x_ticks: ticks.into_iter().map(|x| (x, number(x))).collect(),
        logarithmic: false,
    }
    .draw(lines)
}

/// Values over a logarithmic x (powers of ten), from 0 up.
pub fn over_powers(title: &str, x_title: &str, y_title: &str, lines: &[Line]) -> String {
    let log = |x: f64| x.max(1.0).log10();
    let lines: Vec<Line> = lines
        .iter()
        .map(|line| Line {
            label: line.label.clone(),
            points: line.points.iter().map(|(x, y)| (log(*x), *y)).collect(),
        })
        .collect();
    let most = lines.iter().flat_map(|line| &line.points);
    let most = most.map(|p| p.0).fold(1.0, f64::max);
    let ticks =
        (0..=most.ceil() as i32).map(|power| (f64::from(power), grouped(10_u64.pow(power as u32))));
    Axes {
        title,
        x_title,
        y_title,
        x: (0.0, most),
        x_ticks: ticks.filter(|(x, _)| *x <= most + 1e-9).collect(),
        logarithmic: false,
    }
    .draw(&lines)
}

/// Horizontal bars with their values, for comparing contenders.
pub fn bars(title: &str, unit: &str, values: &[(String, f64)]) -> String {
    let most = values
        .iter()
        .map(|(_, v)| *v)
        .fold(f64::MIN_POSITIVE, f64::max);
    let height = 60 + values.len() * 26;
    let mut svg = open(height, title);
    for (index, (label, value)) in values.iter().enumerate() {
        let y = 44 + index * 26;
        let length = value / most * 420.0;
        let colour = if label.starts_with("clinch") {
            COLOURS[0]
        } else {
            OTHERS
        };
        let _ = write!(
            svg,
            "<text x=\"208\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect x=\"216\" y=\"{y}\" width=\"{length:.1}\" height=\"18\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{} {unit}</text>",
            y + 14,
            escape(label),
            222.0 + length,
            y + 14,
            short(*value)
        );
    }
    svg + "</svg>\n"
}

struct Axes<'a> {
    title: &'a str,
    x_title: &'a str,
    y_title: &'a str,
    x: (f64, f64),
    x_ticks: Vec<(f64, String)>,
    logarithmic: bool,
}

impl Axes<'_> {
    fn draw(&self, lines: &[Line]) -> String {
        let values = || {
            lines
                .iter()
                .flat_map(|line| line.points.iter().map(|p| p.1))
        };
        let most = values().fold(0.0, f64::max);
        let (low, high, ticks) = if self.logarithmic {
            decades(values().fold(f64::INFINITY, f64::min), most)
        } else {
            let ticks = steps(0.0, most.max(1e-9));
            (0.0, *ticks.last().unwrap_or(&1.0), ticks)
        };
        let scale = |y: f64| if self.logarithmic { y.log10() } else { y };
        let x_at = |x: f64| LEFT + (x - self.x.0) / (self.x.1 - self.x.0).max(1e-9) * WIDE;
        let y_at = |y: f64| {
            TOP + HIGH - (scale(y) - scale(low)) / (scale(high) - scale(low)).max(1e-9) * HIGH
        };
        let mut svg = open(HEIGHT + 20 * lines.len().div_ceil(2), self.title);
        for y in ticks {
            let at = y_at(y);
            let _ = write!(
                svg,
                "<path d=\"M{LEFT} {at:.1}h{WIDE}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                number(y)
            );
        }
        for (x, name) in &self.x_ticks {
            let at = x_at(*x);
            let _ = write!(
                svg,
                "<path d=\"M{at:.1} {TOP}v{HIGH}\" stroke=\"#ddd\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
                TOP + HIGH + 16.0
            );
        }
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            LEFT + WIDE / 2.0,
            TOP + HIGH + 36.0,
            escape(self.x_title),
            TOP + HIGH / 2.0,
            escape(self.y_title)
        );
        for (index, line) in lines.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let dashes = DASHES[index / COLOURS.len() % DASHES.len()];
            let path: Vec<String> = line
                .points
                .iter()
                .map(|(x, y)| format!("{:.1} {:.1}", x_at(*x), y_at(*y)))
                .collect();
            let (x, y) = (
                LEFT + (index % 2) as f64 * 320.0,
                TOP + HIGH + 58.0 + (index / 2) as f64 * 20.0,
            );
            let _ = write!(
                svg,
                "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" {dashes}/>\
                 <path d=\"M{x:.0} {y:.0}h24\" stroke=\"{colour}\" stroke-width=\"3\" {dashes}/>\
                 <text x=\"{:.0}\" y=\"{:.0}\">{}</text>",
                path.join("L"),
                x + 30.0,
                y + 4.0,
                escape(&line.label)
            );
        }
        svg + "</svg>\n"
    }
}

fn open(height: usize, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\" font-weight=\"bold\">{}</text>",
        escape(title)
    )
}

/// Ends and ticks of a logarithmic axis: 1, 2 and 5 of each power of ten.
fn decades(least: f64, most: f64) -> (f64, f64, Vec<f64>) {
    let all: Vec<f64> = (-4..7)
        .flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)))
        .collect();
    let low = all.iter().rev().find(|tick| **tick <= least);
    let high = all.iter().find(|tick| **tick >= most);
    let (low, high) = (
        *low.unwrap_or(&all[0]),
        *high.unwrap_or(&all[all.len() - 1]),
    );
    let ticks = all.into_iter().filter(|tick| *tick >= low && *tick <= high);
    (low, high, ticks.collect())
}

/// About five round steps that reach `most`.
fn steps(least: f64, most: f64) -> Vec<f64> {
    let rough = ((most - least) / 5.0).max(1e-12);
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power);
    let step = step
        .into_iter()
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(power);
    let first = (least / step).floor();
    let count = ((most / step).ceil() - first) as usize;
    (0..=count).map(|n| (first + n as f64) * step).collect()
}

fn percent(q: f64) -> String {
    format!("{}%", number(q * 100.0))
}

fn number(value: f64) -> String {
    let text = match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.3}"),
        v => format!("{v:.4}"),
    };
    if text.contains('.') {
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    grouped(value as u64)
}

/// Three digits: what a bar's end can be read to.
fn short(value: f64) -> String {
    let digits = match value {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    number(format!("{value:.digits$}").parse().unwrap_or(value))
}

fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .filter_map(|group| std::str::from_utf8(group).ok())
        .collect();
    groups.join(",")
}

/// Text that is safe in XML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

const WIDTH: usize = 740;
const HEIGHT: usize = 400;
const LEFT: f64 = 64.0;
const TOP: f64 = 36.0;
const WIDE: f64 = 636.0;
const HIGH: f64 = 300.0;

/// Told apart by most people with colour-blindness, and in print.
const COLOURS: [&str; 6] = [
    "#0b6e4f", "#d1495b", "#00798c", "#edae49", "#6a4c93", "#555555",
];
/// Bars of all but clinch.
const OTHERS: &str = "#8d99ae";
const DASHES: [&str; 2] = ["", "stroke-dasharray=\"6 4\""];

/// The last nine that a plot shows.
const MOST_QUANTILE: f64 = 0.999_99;
/// What a logarithmic axis begins with, ms.
const LEAST_MS: f64 = 0.001;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_ticks_that_enclose_the_values() {
        assert_eq!(steps(0.0, 9.3), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        let (low, high, ticks) = decades(0.3, 41.0);
        assert_eq!((low, high), (0.2, 50.0));
        assert!(ticks.contains(&10.0));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(number(0.5), "0.5");
        assert_eq!(number(99.999), "99.999");
        assert_eq!(number(1_234_567.0), "1,234,567");
        assert_eq!(percent(0.999), "99.9%");
        assert_eq!(
            (short(2.0109), short(43.35)),
            ("2.01".to_owned(), "43.4".to_owned())
        );
    }

    #[test]
    fn labels_cannot_leave_the_picture() {
        let svg = bars("<b>", "ms", &[("a & \"b\"".to_owned(), 1.0)]);
        assert!(svg.contains("&lt;b&gt;") && svg.contains("a &amp; &quot;b&quot;"));
    }
}
