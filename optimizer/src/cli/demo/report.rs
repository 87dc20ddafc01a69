//! The demo's table: rows, estimates and times, query by query.

use std::fmt;
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::DemoQuery;
use crate::QueryEstimate;
use crate::cli::compare::{Comparison, Summary};
use crate::cli::profile::duration;

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

    /// Geometric means of both q-errors, of the queries that have an estimate.
    fn q_errors(&self) -> (f64, f64) {
        let mean = |q_errors: &mut dyn Iterator<Item = f64>| {
            let logarithms: Vec<f64> = q_errors.map(f64::ln).collect();
            (logarithms.iter().sum::<f64>() / logarithms.len().max(1) as f64).exp()
        };
        let default = &mut self.rows.iter().filter_map(|row| Some(q_error(row.estimate.default?, row.actual)));
        (mean(default), mean(&mut self.rows.iter().map(|row| q_error(row.estimate.estimate, row.actual))))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header([
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
        ]);
        let mut summary = Summary::default();
        let (mut default_total, mut relata_total) =
            ((Duration::ZERO, Duration::ZERO), (Duration::ZERO, Duration::ZERO));
        for row in &self.rows {
            let ReportRow { query, actual, estimate, comparison } = row;
            let (default, relata) = (comparison.default.best(), comparison.relata.best());
            default_total = (default_total.0 + default.0, default_total.1 + default.1);
            relata_total = (relata_total.0 + relata.0, relata_total.1 + relata.1);
            summary.push(query.question.to_owned(), comparison);
            let mark = if comparison.same() { "" } else { " (RESULTS DIFFER)" };
            table.add_row([
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
            ]);
        }
        let (default, relata) = self.q_errors();
        table.add_row([
            format!("total of {} queries, q-errors: geometric mean", self.rows.len()),
            String::new(),
            String::new(),
            String::new(),
            factor(default),
            factor(relata),
            duration(default_total.0),
            duration(relata_total.0),
            duration(default_total.1),
            duration(relata_total.1),
            format!("{:.2}x", summary.total_speedup()),
        ]);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        write!(f, "{table}")?;
        write!(
            f,
            "\ntotal time {:.2}x, geometric mean of the queries {:.2}x; planning is included in both",
            summary.total_speedup(),
            summary.geometric_mean()
        )
    }
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
