//! `relata-bench compare`: what got better or worse between two measurements.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::metrics::q_error;
use crate::run::summary::{speedup, summarize};
use crate::run::{DEFAULT, RunReport};
use crate::score::contender::RELATA;
use crate::score::figures::{short, table};
use crate::score::{FIGURES, ScoreReport};

/// Queries in the lists of the worst and the best.
const LISTED: usize = 10;

/// Say what got better or worse; exit code 1 if a figure got worse by more than the threshold
#[derive(Debug, Clone, Args)]
pub struct CompareOptions {
    /// What `estimate` or `run` wrote before
    pub before: PathBuf,
    /// and after a change
    pub after: PathBuf,
    /// Share by which a figure may change
    #[arg(long, default_value_t = 0.05)]
    pub threshold: f64,
}

/// A number before and after; less is better.
#[derive(Debug, Clone, PartialEq)]
struct Change {
    name: String,
    before: f64,
    after: f64,
}

impl Change {
    /// How many times as large it has become.
    fn factor(&self) -> f64 {
        if self.before.total_cmp(&self.after).is_eq() { 1.0 } else { self.after / self.before }
    }

    fn row(&self, threshold: f64) -> Vec<String> {
        let word = match self.factor() {
            factor if factor > 1.0 + threshold => "worse",
            factor if factor * (1.0 + threshold) < 1.0 => "better",
            _ => "",
        };
        vec![self.name.clone(), short(self.before), short(self.after), format!("{:.3}", self.factor()), word.to_owned()]
    }
}

/// The changes of the figures and of the single queries.
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    threshold: f64,
    figures: Vec<Change>,
    queries: Vec<Change>,
}

impl Changes {
    /// Whether no figure got worse by more than the threshold.
    pub fn acceptable(&self) -> bool {
        self.figures.iter().all(|change| change.factor() <= 1.0 + self.threshold)
    }

    /// Every figure, and the queries that changed most.
    pub fn print(&self) -> String {
        let header = ["", "before", "after", "factor", ""];
        let mut text = table(&[&header], self.figures.iter().map(|change| change.row(self.threshold)).collect());
        let mut queries = self.queries.clone();
        queries.sort_by(|left, right| right.factor().total_cmp(&left.factor()));
        let outside = |change: &&Change| !change.row(self.threshold)[4].is_empty();
        let worse = queries.iter().filter(outside).filter(|change| change.factor() > 1.0).count();
        let better = queries.iter().filter(outside).count() - worse;
        text += &format!("\n\n{} queries: {better} better, {worse} worse\n", queries.len());
        let ends =
            queries.iter().take(LISTED).chain(queries.iter().skip(LISTED.max(queries.len().saturating_sub(LISTED))));
        text += &table(&[&header], ends.filter(outside).map(|change| change.row(self.threshold)).collect());
        text + "\n"
    }
}

/// Compares two reports of `estimate` (files or folders) or two of `run`.
///
/// # Errors
/// When a file cannot be read, or they are not of one sort.
pub fn run(options: &CompareOptions) -> Result<Changes> {
    let (figures, queries) = match (read(&options.before)?, read(&options.after)?) {
        (Report::Estimates(before), Report::Estimates(after)) => estimates(&before, &after),
        (Report::Runs(before), Report::Runs(after)) => runs(&before, &after),
        _ => bail!("one of them holds estimates and the other times"),
    };
    Ok(Changes { threshold: options.threshold, figures, queries })
}

enum Report {
    Estimates(ScoreReport),
    Runs(RunReport),
}

fn read(path: &Path) -> Result<Report> {
    if path.is_dir() {
        return Ok(Report::Estimates(ScoreReport::read(path)?));
    }
    if path.file_name().is_some_and(|name| name == FIGURES) {
        let folder = path.parent().with_context(|| path.display().to_string())?;
        return Ok(Report::Estimates(ScoreReport::read(folder)?));
    }
    Ok(Report::Runs(RunReport::read(path)?))
}

/// The pairs of one name.
fn join(before: BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> Vec<Change> {
    let both = before.into_iter().filter_map(|(name, before)| {
        let after = *after.get(&name)?;
        Some(Change { name, before, after })
    });
    both.collect()
}

fn estimates(before: &ScoreReport, after: &ScoreReport) -> (Vec<Change>, Vec<Change>) {
    let figures = |report: &ScoreReport| -> BTreeMap<String, f64> {
        let mut all = BTreeMap::new();
        for figure in report.figures.iter().filter(|figure| figure.database.is_none()) {
            let part = if figure.group.subplans { "sub-joins" } else { "queries" };
            let summary = &figure.summary;
            for (name, value) in
                [("50%", summary.median), ("90%", summary.p90), ("95%", summary.p95), ("99%", summary.p99)]
            {
                all.insert(format!("{}: {part}, {}, q-error {name}", figure.contender, figure.group.name), value);
            }
        }
        for figure in &report.p_errors {
            all.insert(format!("{}: P-error, {}, 95%", figure.contender, figure.group), figure.p95);
            all.insert(format!("{}: P-error, {}, total", figure.contender, figure.group), figure.total);
        }
        all
    };
    let queries = |report: &ScoreReport| -> BTreeMap<String, f64> {
        let scored = report.estimates.iter().filter_map(|query| Some((query.id.clone(), query.scored(RELATA)?)));
        scored.map(|(id, scored)| (id, q_error(scored.estimate, scored.truth))).collect()
    };
    (join(figures(before), &figures(after)), join(queries(before), &queries(after)))
}

/// Times are compared as shares of the default's in the same run, so that the two runs may have met different loads.
fn runs(before: &RunReport, after: &RunReport) -> (Vec<Change>, Vec<Change>) {
    let figures = |report: &RunReport| -> BTreeMap<String, f64> {
        let mut all = BTreeMap::new();
        for name in &report.optimizers {
            let summary = summarize(report, None, None, name);
            all.insert(format!("{name}: total time / {DEFAULT}"), 1.0 / summary.total_speedup);
            all.insert(format!("{name}: time / {DEFAULT}, geometric mean"), 1.0 / summary.geometric_mean);
            all.insert(format!("{name}: 1 + share over 2x slower"), 1.0 + summary.slower.much_slower);
        }
        all
    };
    let queries = |report: &RunReport| -> BTreeMap<String, f64> {
        let timed = report
            .queries
            .iter()
            .filter_map(|query| Some((query.id.clone(), 1.0 / speedup(query, RELATA, report.settings.timeout)?)));
        timed.collect()
    };
    (join(figures(before), &figures(after)), join(queries(before), &queries(after)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_beyond_the_threshold_are_named() {
        let change = |name: &str, before, after| Change { name: name.to_owned(), before, after };
        let changes = Changes {
            threshold: 0.1,
            figures: vec![change("same", 2.0, 2.1), change("good", 4.0, 2.0)],
            queries: vec![change("q1", 1.0, 5.0), change("q2", 3.0, 3.0), change("q3", 9.0, 1.0)],
        };
        assert!(changes.acceptable());
        let text = changes.print();
        assert!(text.contains("3 queries: 1 better, 1 worse") && text.contains("q1") && !text.contains("q2"), "{text}");
        let worse = Changes { figures: vec![change("bad", 1.0, 1.2)], ..changes };
        assert!(!worse.acceptable() && worse.print().contains("worse"));
        assert!((change("both", f64::INFINITY, f64::INFINITY).factor() - 1.0).abs() < 1e-12);
    }
}
