//! Metrics of estimates, in the definitions of the corpus' own `tools/score.py`.

use serde::{Deserialize, Deserializer, Serialize};

/// The factor between an estimate and the truth, both clipped at one row: `max(estimate / truth, truth / estimate)`
/// (Moerkotte, Neumann and Steidl, "Preventing bad plans by bounding the impact of cardinality estimation errors",
/// VLDB 2009). NaN counts as infinitely wrong.
pub fn q_error(estimate: f64, truth: f64) -> f64 {
    if estimate.is_nan() {
        return f64::INFINITY;
    }
    let (estimate, truth) = (estimate.max(1.0), truth.max(1.0));
    (estimate / truth).max(truth / estimate)
}

/// The `p`-th percentile, interpolated linearly between order statistics; NaN of nothing. `values` must be sorted.
pub fn percentile(values: &[f64], p: f64) -> f64 {
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    let position = last as f64 * p / 100.0;
    let index = position as usize;
    let below = values[index];
    match values.get(index + 1) {
        // The comparison keeps infinities from turning into NaN.
        Some(&above) if above > below => below + (above - below) * (position - index as f64),
        _ => below,
    }
}

/// One scored query.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Scored {
    /// The estimate, in rows.
    pub estimate: f64,
    /// The exact number of rows.
    pub truth: f64,
    /// Both ends of the estimate's interval.
    pub interval: Option<(f64, f64)>,
}

/// The estimates on one side of the truth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Their share of all estimates.
    pub share: f64,
    /// Their q-error: the 50th percentile,
    pub median: f64,
    /// the 90th,
    pub p90: f64,
    /// the 99th
    #[serde(deserialize_with = "null_is_infinite")]
    pub p99: f64,
    /// and the largest.
    #[serde(deserialize_with = "null_is_infinite")]
    pub max: f64,
}

/// What a set of estimates amounts to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Queries with an estimate.
    pub n: usize,
    /// Queries without one; they enter no other figure.
    pub missing: usize,
    /// q-error: the 50th percentile,
    pub median: f64,
    /// the 90th,
    pub p90: f64,
    /// the 95th,
    pub p95: f64,
    /// the 99th
    #[serde(deserialize_with = "null_is_infinite")]
    pub p99: f64,
    /// and the largest.
    #[serde(deserialize_with = "null_is_infinite")]
    pub max: f64,
    /// Geometric mean of the q-errors.
    pub geometric_mean: f64,
    /// Estimates below the truth; `None` where there are none.
    pub under: Option<Side>,
    /// Estimates above the truth; `None` where there are none.
    pub over: Option<Side>,
    /// Share of the truths inside their interval, among the queries that have one.
    pub coverage: Option<f64>,
    /// Median of upper over lower end, among the same.
    pub width: Option<f64>,
    /// Mean of `ln` of upper over lower end, among the same.
    #[serde(default)]
    pub log_width: Option<f64>,
}

/// Summarises estimates, `None` standing for a query without one.
pub fn summarize(estimates: &[Option<Scored>]) -> Option<Summary> {
    let scored: Vec<Scored> = estimates.iter().copied().flatten().collect();
    if scored.is_empty() {
        return None;
    }
    let n = scored.len();
    let errors = sorted(scored.iter().map(|s| q_error(s.estimate, s.truth)).collect());
    let logs: f64 = errors.iter().map(|error| error.min(1e18).ln()).sum();
    let side = |sign: f64| {
        let beside = scored.iter().filter(|s| {
            let (estimate, truth) = (s.estimate.max(1.0), s.truth.max(1.0));
            sign * (estimate - truth) > tolerance(truth)
        });
        let errors = sorted(beside.map(|s| q_error(s.estimate, s.truth)).collect());
        (!errors.is_empty()).then(|| Side {
            share: errors.len() as f64 / n as f64,
            median: percentile(&errors, 50.0),
            p90: percentile(&errors, 90.0),
            p99: percentile(&errors, 99.0),
            max: percentile(&errors, 100.0),
        })
    };
    let intervals: Vec<(f64, f64, f64)> =
        scored.iter().filter_map(|s| s.interval.map(|(lower, upper)| (lower, upper, s.truth))).collect();
    let inside = intervals
        .iter()
        .filter(|(lower, upper, truth)| lower - tolerance(*truth) <= *truth && *truth <= upper + tolerance(*truth));
    let coverage = (!intervals.is_empty()).then(|| inside.count() as f64 / intervals.len() as f64);
    let widths = sorted(intervals.iter().map(|(lower, upper, _)| upper.max(1.0) / lower.max(1.0)).collect());
    // An interval without an end is as wide as an error without one.
    let log_widths: f64 = widths.iter().map(|width| width.min(1e18).ln()).sum();
    Some(Summary {
        n,
        missing: estimates.len() - n,
        median: percentile(&errors, 50.0),
        p90: percentile(&errors, 90.0),
        p95: percentile(&errors, 95.0),
        p99: percentile(&errors, 99.0),
        max: percentile(&errors, 100.0),
        geometric_mean: (logs / n as f64).exp(),
        under: side(-1.0),
        over: side(1.0),
        coverage,
        width: (!widths.is_empty()).then(|| percentile(&widths, 50.0)),
        log_width: (!widths.is_empty()).then(|| log_widths / widths.len() as f64),
    })
}

/// Counts above 2^53 are not exact in a float.
fn tolerance(truth: f64) -> f64 {
    1e-9 * truth.abs()
}

/// JSON has no infinity; it is written as null.
fn null_is_infinite<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

/// `values` in ascending order.
pub fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-12
    }

    #[test]
    fn q_error_clips_at_one_row() {
        assert!(close(q_error(0.0, 0.0), 1.0));
        assert!(close(q_error(0.25, 1.0), 1.0));
        assert!(close(q_error(10.0, 0.0), 10.0));
        assert!(close(q_error(2.0, 50.0), 25.0));
        assert!(q_error(f64::NAN, 3.0).is_infinite());
    }

    #[test]
    fn percentiles_interpolate() {
        // statistics.quantiles(range(1, 11), n=100, method="inclusive") says 5.5 and 9.1.
        let values: Vec<f64> = (1..=10).map(f64::from).collect();
        assert!(close(percentile(&values, 50.0), 5.5));
        assert!(close(percentile(&values, 90.0), 9.1));
        assert!(close(percentile(&values, 100.0), 10.0));
        assert!(percentile(&[], 50.0).is_nan());
        assert!(percentile(&[1.0, f64::INFINITY, f64::INFINITY], 75.0).is_infinite());
    }

    #[test]
    fn summary_counts_what_is_missing_and_what_is_covered() {
        let scored = |estimate, truth, interval| Some(Scored { estimate, truth, interval });
        let summary = summarize(&[
            scored(10.0, 20.0, Some((5.0, 20.0))),
            scored(40.0, 20.0, Some((30.0, 60.0))),
            scored(0.0, 1.0, None),
            None,
        ])
        .unwrap();
        assert_eq!((summary.n, summary.missing), (3, 1));
        assert!(close(summary.median, 2.0) && close(summary.max, 2.0));
        assert!(close(summary.geometric_mean, 4.0_f64.powf(1.0 / 3.0)));
        let (under, over) = (summary.under.unwrap(), summary.over.unwrap());
        assert!(close(under.share, 1.0 / 3.0) && close(over.share, 1.0 / 3.0) && close(over.max, 2.0));
        assert_eq!(summary.coverage.map(|c| close(c, 0.5)), Some(true));
        assert_eq!(summary.width.map(|w| close(w, 3.0)), Some(true));
        assert_eq!(summary.log_width.map(|w| close(w, 8.0_f64.ln() / 2.0)), Some(true));
        assert!(summarize(&[None]).is_none());
    }
}
