//! The demo's table: rows, estimates and times, query by query.

use std::fmt;
use std::time::Duration;

use super::DemoQuery;
use crate::QueryEstimate;
use crate::cli::compare::{Comparison, Summary};
use crate::cli::profile::duration;
use crate::cli::terminal::table;

/// One query of the demo.
#[derive(Debug)]
pub(super) struct ReportRow {
    pub(super) query: &'static DemoQuery,
    /// The rows that the estimates are about.
    pub(super) actual: f64,
    pub(super) estimate: QueryEstimate,
    pub(super) comparison: Comparison,
}

/// All queries of the demo.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: Vec<ReportRow>,
    /// Queries that failed.
    pub(super) failed: usize,
}

impl Report {
    pub(super) fn push(&mut self, row: ReportRow) {
        self.rows.push(row);
    }

    /// Queries whose results differ.
    pub(super) fn different(&self) -> usize {
        self.rows.iter().filter(|row| !row.comparison.same()).count()
    }

    /// Geometric means of both q-errors, each of the queries that have the estimate; `None` where none has.
    fn q_errors(&self) -> (Option<f64>, Option<f64>) {
        let default = self.rows.iter().filter_map(|row| Some(q_error(row.estimate.default?, row.actual)));
        let relata = self.rows.iter().map(|row| q_error(row.estimate.estimate, row.actual));
        (geometric_mean(default), geometric_mean(relata))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = [
            "query",
            "actual\nrows",
            "default\nestimate",
            "relata\nestimate",
            "q-error\ndefault",
            "q-error\nrelata",
            "planning\ndefault",
            "planning\nrelata",
            "execution\ndefault",
            "execution\nrelata",
            "total\nspeed-up",
        ];
        let mut summary = Summary::default();
        for row in &self.rows {
            summary.push(row.query.question.to_owned(), &row.comparison);
        }
        let rows: Vec<Vec<String>> = self.rows.iter().map(ReportRow::cells).collect();
        let time = |of: fn(&Comparison) -> Duration| duration(self.rows.iter().map(|row| of(&row.comparison)).sum());
        let (default, relata) = self.q_errors();
        let or_blank = |q_error: Option<f64>| q_error.map_or_else(String::new, factor);
        let total = vec![
            format!("total of {} queries (q-error: mean)", self.rows.len()),
            String::new(),
            String::new(),
            String::new(),
            or_blank(default),
            or_blank(relata),
            time(|comparison| comparison.default.best().0),
            time(|comparison| comparison.relata.best().0),
            time(|comparison| comparison.default.best().1),
            time(|comparison| comparison.relata.best().1),
            format!("{:.2}x", summary.total_speedup()),
        ];
        writeln!(f, "{}", table(&header, &rows, total, header.len() - 1))?;
        let (total, mean) = (summary.total_speedup(), summary.geometric_mean());
        write!(f, "\nspeed-up with planning: {total:.2}x in total, {mean:.2}x in the geometric mean of the queries")
    }
}

impl ReportRow {
    fn cells(&self) -> Vec<String> {
        let ReportRow { query, actual, estimate, comparison } = self;
        let (default, relata) = (comparison.default.best(), comparison.relata.best());
        let mark = if comparison.same() { "" } else { " (RESULTS DIFFER)" };
        vec![
            format!("{}{mark}", query.question),
            count(*actual),
            estimate.default.map_or_else(|| "none".to_owned(), count),
            count(estimate.estimate),
            estimate.default.map_or_else(String::new, |default| factor(q_error(default, *actual))),
            factor(q_error(estimate.estimate, *actual)),
            duration(default.0),
            duration(relata.0),
            duration(default.1),
            duration(relata.1),
            format!("{:.2}x", comparison.speedup()),
        ]
    }
}

fn geometric_mean(factors: impl Iterator<Item = f64>) -> Option<f64> {
    let logarithms: Vec<f64> = factors.map(f64::ln).collect();
    (!logarithms.is_empty()).then(|| (logarithms.iter().sum::<f64>() / logarithms.len() as f64).exp())
}

/// `max(estimate / actual, actual / estimate)`, both taken as at least one row.
fn q_error(estimate: f64, actual: f64) -> f64 {
    let (estimate, actual) = (estimate.max(1.0), actual.max(1.0));
    (estimate / actual).max(actual / estimate)
}

/// A number of rows with thousands set apart, or as a power of ten where it is huge.
fn count(rows: f64) -> String {
    if !rows.is_finite() || rows >= 1e13 {
        return format!("{rows:.1e}");
    }
    let digits = format!("{:.0}", rows.max(0.0));
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A factor with as many digits as are of use.
fn factor(factor: f64) -> String {
    match factor {
        ..100.0 => format!("{factor:.2}"),
        ..100_000.0 => format!("{factor:.0}"),
        _ => format!("{factor:.0e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            (count(1_234_567.4), count(12.0), count(0.4), count(1e20)),
            ("1,234,567".into(), "12".into(), "0".into(), "1.0e20".into())
        );
        assert_eq!((factor(1.0), factor(12_345.6), factor(3.2e7)), ("1.00".into(), "12346".into(), "3e7".into()));
        assert!((q_error(0.0, 10.0) - 10.0).abs() < 1e-12 && (q_error(50.0, 10.0) - 5.0).abs() < 1e-12);
    }
}
