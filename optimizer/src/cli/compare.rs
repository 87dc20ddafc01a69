//! Queries under DataFusion's default optimizer and under relata, in turns.

use std::fmt;
use std::time::Duration;

use datafusion::prelude::SessionContext;

use super::measure::{Runs, measure};
use super::profile::duration;
use super::session::OptimizerKind;

/// A query that takes this many times as long as by default has regressed.
const REGRESSION: f64 = 1.1;
/// A query that takes this many times as long as by default has regressed badly.
const BAD_REGRESSION: f64 = 2.0;

/// One query under both optimizers.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// Under DataFusion's defaults.
    pub default: Runs,
    /// With relata.
    pub relata: Runs,
}

impl Comparison {
    /// Default time over relata's, planning included, fastest repetitions.
    pub fn speedup(&self) -> f64 {
        ratio(self.default.best_total(), self.relata.best_total())
    }

    /// Whether all repetitions under both gave the same rows.
    pub fn same(&self) -> bool {
        self.difference().is_none()
    }

    /// What is different about the results, in words. An optimizer whose own repetitions differ is named: either the query
    /// leaves its result open (a LIMIT among equals), or some of them are wrong.
    pub fn difference(&self) -> Option<&'static str> {
        match (self.default.unstable, self.relata.unstable) {
            (true, true) => Some("results change from run to run"),
            (true, false) => Some("the default's results change from run to run"),
            (false, true) => Some("relata's results change from run to run"),
            (false, false) => (self.default.digest != self.relata.digest).then_some("results differ"),
        }
    }
}

/// Runs `sql` `repeat` times under each of `contexts` (default, relata). Which goes first changes with every repetition
/// and with `index`, so that neither always finds the caches warm.
///
/// # Errors
/// In words, with the optimizer under which the query failed.
pub async fn compare(
    contexts: &[SessionContext; 2],
    sql: &str,
    repeat: u32,
    index: usize,
    timeout: Option<Duration>,
) -> Result<Comparison, String> {
    let mut runs = [Runs::default(), Runs::default()];
    for repetition in 0..repeat as usize {
        for turn in 0..2 {
            let side = (index + repetition + turn) % 2;
            let measured = measure(&contexts[side], sql, timeout).await;
            runs[side].push(measured.map_err(|error| format!("{}: {error}", OptimizerKind::ALL[side].name()))?);
        }
    }
    let [default, relata] = runs;
    Ok(Comparison { default, relata })
}

/// What many comparisons come to.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Queries that failed under one of the optimizers; not in the times.
    pub failed: usize,
    /// Queries whose results differ; in the times nevertheless.
    pub different: usize,
    times: Vec<QueryTimes>,
}

#[derive(Debug, Clone)]
struct QueryTimes {
    name: String,
    default: (Duration, Duration),
    relata: (Duration, Duration),
}

impl QueryTimes {
    fn default_total(&self) -> Duration {
        self.default.0 + self.default.1
    }

    fn relata_total(&self) -> Duration {
        self.relata.0 + self.relata.1
    }

    fn speedup(&self) -> f64 {
        ratio(self.default_total(), self.relata_total())
    }
}

impl Summary {
    /// Adds a query.
    pub fn push(&mut self, name: String, comparison: &Comparison) {
        self.different += usize::from(!comparison.same());
        let Comparison { default, relata } = comparison;
        self.times.push(QueryTimes { name, default: default.best(), relata: relata.best() });
    }

    /// Total time of the default over the total of relata.
    pub fn total_speedup(&self) -> f64 {
        let total = |of: fn(&QueryTimes) -> Duration| self.times.iter().map(of).sum();
        ratio(total(QueryTimes::default_total), total(QueryTimes::relata_total))
    }

    /// Geometric mean of the queries' speed-ups; 1 without queries.
    pub fn geometric_mean(&self) -> f64 {
        let logarithms: f64 = self.times.iter().map(|query| query.speedup().ln()).sum();
        (logarithms / self.times.len().max(1) as f64).exp()
    }

    /// Queries that take more than `factor` times as long as by default.
    pub fn regressions(&self, factor: f64) -> usize {
        self.times.iter().filter(|query| query.speedup() * factor < 1.0).count()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queries = self.times.len() + self.failed;
        writeln!(f, "queries          {queries}, {} failed, {} with different results", self.failed, self.different)?;
        let total = |of: fn(&QueryTimes) -> Duration| -> Duration { self.times.iter().map(of).sum() };
        let mut line = |label: &str, default: Duration, relata: Duration| {
            let speedup = ratio(default, relata);
            writeln!(f, "{label:16} default {}, relata {}: {speedup:.2}x", duration(default), duration(relata))
        };
        line("planning", total(|query| query.default.0), total(|query| query.relata.0))?;
        line("execution", total(|query| query.default.1), total(|query| query.relata.1))?;
        line("total", total(QueryTimes::default_total), total(QueryTimes::relata_total))?;
        writeln!(f, "geometric mean   {:.2}x", self.geometric_mean())?;
        let share = |count: usize| 100.0 * count as f64 / self.times.len().max(1) as f64;
        for factor in [REGRESSION, BAD_REGRESSION] {
            let count = self.regressions(factor);
            writeln!(f, "slower > {factor:.1}x    {count} ({:.1}%)", share(count))?;
        }
        let by_speedup = |a: &&QueryTimes, b: &&QueryTimes| a.speedup().total_cmp(&b.speedup());
        for (label, query) in
            [("worst", self.times.iter().min_by(by_speedup)), ("best", self.times.iter().max_by(by_speedup))]
        {
            let Some(query) = query else { continue };
            let (default, relata) = (duration(query.default_total()), duration(query.relata_total()));
            let end = if label == "worst" { "\n" } else { "" };
            write!(f, "{label:16} {}: default {default}, relata {relata}: {:.2}x{end}", query.name, query.speedup())?;
        }
        Ok(())
    }
}

/// `a / b` of times, 1 where neither can be measured.
fn ratio(a: Duration, b: Duration) -> f64 {
    let tick = 1e-9;
    a.as_secs_f64().max(tick) / b.as_secs_f64().max(tick)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::digest::Digest;
    use crate::cli::measure::Measurement;

    fn runs(milliseconds: &[u64]) -> Runs {
        let mut runs = Runs::default();
        for time in milliseconds {
            let execution = Duration::from_millis(*time);
            runs.push(Measurement { planning: Duration::ZERO, execution, digest: Digest::default(), first: None });
        }
        runs
    }

    #[test]
    fn ratios_are_of_the_fastest_repetitions() {
        let mut summary = Summary::default();
        for (name, default, relata) in [("a", [90, 80], [10, 20]), ("b", [10, 30], [40, 20]), ("c", [10, 10], [10, 12])]
        {
            summary.push(name.to_owned(), &Comparison { default: runs(&default), relata: runs(&relata) });
        }
        assert!((summary.total_speedup() - 100.0 / 40.0).abs() < 1e-9);
        assert!((summary.geometric_mean() - 4.0_f64.powf(1.0 / 3.0)).abs() < 1e-9);
        assert_eq!((summary.regressions(1.1), summary.regressions(2.0), summary.different), (1, 0, 0));
    }
}
