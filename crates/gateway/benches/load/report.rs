//! What rounds came to, as text.

use std::{fs, path::Path};

use super::Round;

/// Rounds of the same.
#[derive(Default)]
pub(crate) struct Rounds(pub(crate) Vec<Round>);

impl Rounds {
    /// Requests a second.
    pub(crate) fn rate(&self) -> f64 {
        self.median(|round| round.rate)
    }

    /// The median of the rounds.
    pub(crate) fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        median(self.0.iter().map(of).collect())
    }

    /// Requests a second: median, least and most.
    pub(crate) fn rates(&self) -> String {
        let rates = || self.0.iter().map(|round| round.rate);
        let (least, most) = (rates().fold(f64::MAX, f64::min), rates().fold(0.0, f64::max));
        format!("{:.0} ({least:.0} to {most:.0})", self.rate())
    }

    /// The latency that a share of the requests does not exceed, in milliseconds.
    pub(crate) fn latency(&self, share: f64) -> f64 {
        self.median(|round| {
            let place = ((round.latencies.len() - 1) as f64 * share) as usize;
            round.latencies[place].as_secs_f64() * 1e3
        })
    }

    /// Latencies at the median, 99 % and 99.9 %, as columns.
    pub(crate) fn latencies(&self) -> String {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| self.latency(share));
        format!("{p50:.2} | {p99:.2} | {p999:.2}")
    }

    /// Microseconds of processor time of what was asked and of the load, as columns.
    pub(crate) fn processor_times(&self) -> String {
        let own = self.0.iter().map(|round| round.own_cpu).collect::<Option<Vec<_>>>();
        let columns =
            [self.cpu(), own.map(median)].map(|time| time.map_or_else(String::new, |time| format!("{time:.0}")));
        columns.join(" | ")
    }

    /// Microseconds of processor time of all that was asked, for a request, where that is known.
    pub(crate) fn cpu(&self) -> Option<f64> {
        let is_known = self.0.iter().all(|round| !round.cpus.is_empty());
        is_known.then(|| self.median(|round| round.cpus.iter().sum()))
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Puts a text into BENCHMARKS.md, between the marks of this name. What people have written stands around them.
pub(crate) fn write_between(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../BENCHMARKS.md");
    let [begin, end] = ["begin", "end"].map(|side| format!("<!-- made by the benchmark {name}: {side} -->\n"));
    let before = fs::read_to_string(&path).unwrap();
    let (head, rest) = before.split_once(&*begin).expect("the mark of its beginning");
    let (_, foot) = rest.split_once(&*end).expect("the mark of its end");
    fs::write(&path, format!("{head}{begin}\n{text}{end}{foot}")).unwrap();
}
