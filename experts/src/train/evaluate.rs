//! q-errors on held-out databases, through the inference path that users run.

use std::fmt::Write;

use relata_featurize::graph::NodeKind;
use relata_featurize::trace::DatabaseTrace;

use crate::Result;
use crate::heads::{CardinalityQuantiles, JOIN_BUCKETS, calibration_bucket, join_bucket};
use crate::stack::ExpertStack;
use crate::train::data::{Target, targets};
use crate::tuned::QErrors;
use crate::weights::HeldOutErrors;

/// The estimate of one labelled node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Index of the database.
    pub database: usize,
    /// Bucket of the number of joins.
    pub bucket: usize,
    /// Bucket of the conformal offsets; `None` of a node whose rows are known.
    pub calibration: Option<usize>,
    /// `ln` of the analytical estimate.
    pub base: f32,
    /// `ln` of the truth.
    pub label: f32,
    /// What the expert says, relative to the analytical estimate.
    pub quantiles: CardinalityQuantiles,
}

impl Outcome {
    /// What `quantiles` say of a labelled node of this kind.
    pub(crate) fn new(database: usize, kind: NodeKind, target: &Target, quantiles: CardinalityQuantiles) -> Self {
        let joins = target.joins as usize;
        Self {
            database,
            bucket: join_bucket(joins),
            calibration: (!target.known).then(|| calibration_bucket(kind, joins)),
            base: target.base,
            label: target.label,
            quantiles,
        }
    }

    /// `ln` of the q-error of the analytical estimate.
    pub fn base_error(&self) -> f32 {
        (self.base.max(0.0) - self.label).abs()
    }

    /// `ln` of the q-error of the expert's median.
    pub fn expert_error(&self) -> f32 {
        ((self.base + self.quantiles.median).max(0.0) - self.label).abs()
    }

    /// Whether the truth is in the interval.
    pub fn covered(&self) -> bool {
        if self.calibration.is_none() {
            return true;
        }
        let [lower, upper] = [self.quantiles.lower, self.quantiles.upper].map(|end| (self.base + end).max(0.0));
        // A tolerance of rounding, so that an exact estimate of one row is covered.
        (lower - 1e-3..=upper + 1e-3).contains(&self.label)
    }
}

/// Estimates every labelled node of `databases`.
///
/// # Errors
///
/// Whatever [`ExpertStack::embed_table`] and [`ExpertStack::forward`] report.
pub fn outcomes(stack: &ExpertStack, databases: &[DatabaseTrace]) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for (database, trace) in databases.iter().enumerate() {
        let tables = trace.tables.iter().map(|table| stack.embed_table(table)).collect::<Result<Vec<_>>>()?;
        for graph in &trace.graphs {
            let estimates = stack.forward(&graph.graph, &tables)?;
            for target in targets(graph) {
                let Some(quantiles) = estimates.cardinalities[target.node] else { continue };
                outcomes.push(Outcome::new(database, graph.graph.nodes[target.node].kind, &target, quantiles));
            }
        }
    }
    Ok(outcomes)
}

/// The score that early stopping minimises: the mean `ln` q-error per database and join bucket, averaged over buckets, then
/// over databases, so that neither a large database nor the many filters decide alone.
pub fn score(outcomes: &[Outcome], databases: usize) -> f32 {
    let mut sums = vec![[(0.0f64, 0usize); JOIN_BUCKETS]; databases];
    for outcome in outcomes {
        let (sum, count) = &mut sums[outcome.database][outcome.bucket];
        *sum += f64::from(outcome.expert_error());
        *count += 1;
    }
    let mean = |values: Vec<f64>| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
    let per_database = sums.iter().filter_map(|buckets| {
        mean(buckets.iter().filter(|(_, count)| *count > 0).map(|(sum, count)| sum / *count as f64).collect())
    });
    mean(per_database.collect()).unwrap_or(f64::INFINITY) as f32
}

/// The table of q-errors by number of joins, with a row for all; buckets without nodes are left out.
pub fn errors(outcomes: &[Outcome]) -> Vec<HeldOutErrors> {
    let row = |joins: String, members: Vec<&Outcome>| {
        let percentiles = |error: fn(&Outcome) -> f32| {
            QErrors::of(&members.iter().map(|outcome| error(outcome)).collect::<Vec<_>>()).percentiles
        };
        HeldOutErrors {
            joins,
            nodes: members.len(),
            base: percentiles(Outcome::base_error),
            expert: percentiles(Outcome::expert_error),
            coverage: members.iter().filter(|outcome| outcome.covered()).count() as f64 / members.len() as f64,
        }
    };
    let mut rows = Vec::new();
    for bucket in 0..JOIN_BUCKETS {
        let members: Vec<_> = outcomes.iter().filter(|outcome| outcome.bucket == bucket).collect();
        if !members.is_empty() {
            let more = if bucket + 1 == JOIN_BUCKETS { "+" } else { "" };
            rows.push(row(format!("{bucket}{more}"), members));
        }
    }
    if !outcomes.is_empty() {
        rows.push(row("all".to_owned(), outcomes.iter().collect()));
    }
    rows
}

/// The table as text.
pub fn render(errors: &[HeldOutErrors]) -> String {
    let mut text = String::from(
        "joins    nodes |  analytical 50%    90%     95%      99% |      expert 50%    90%     95%      99% | coverage\n",
    );
    for HeldOutErrors { joins, nodes, base, expert, coverage } in errors {
        let numbers = |[a, b, c, d]: [f64; 4]| format!("{a:>14.2} {b:>7.2} {c:>7.1} {d:>8.1}");
        // Writing to a string does not fail.
        let _ = writeln!(text, "{joins:>5} {nodes:>8} | {} | {} | {coverage:>7.3}", numbers(*base), numbers(*expert));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(database: usize, bucket: usize, residual: f32, median: f32) -> Outcome {
        let quantiles = CardinalityQuantiles { lower: median - 0.1, median, upper: median + 0.1 };
        Outcome { database, bucket, calibration: Some(bucket), base: 5.0, label: 5.0 + residual, quantiles }
    }

    #[test]
    fn errors_are_q_errors_by_joins() {
        let outcomes = [outcome(0, 0, 1.0, 1.0), outcome(0, 0, 1.0, 0.0), outcome(0, 4, -2.0, -2.0)];
        let table = errors(&outcomes);
        assert_eq!(table.iter().map(|row| row.joins.as_str()).collect::<Vec<_>>(), ["0", "4+", "all"]);
        assert!((table[0].base[0] - 1f64.exp()).abs() < 1e-5);
        assert!((table[1].base[3] - 2f64.exp()).abs() < 1e-5 && (table[1].expert[3] - 1.0).abs() < 1e-5);
        assert!((table[0].coverage - 0.5).abs() < 1e-9);
        assert!(render(&table).lines().count() == 4);
    }

    #[test]
    fn score_weighs_databases_and_buckets_alike() {
        let mut outcomes = vec![outcome(0, 0, 0.0, 0.0); 100];
        outcomes.push(outcome(0, 1, 2.0, 0.0));
        outcomes.push(outcome(1, 0, 3.0, 0.0));
        assert!((score(&outcomes, 2) - 2.0).abs() < 1e-5);
        assert!(score(&[], 0).is_infinite());
    }

    #[test]
    fn estimates_below_one_row_count_as_one() {
        let quantiles = CardinalityQuantiles { lower: -3.0, median: -2.0, upper: -1.0 };
        let outcome = Outcome { database: 0, bucket: 0, calibration: Some(0), base: 1.0, label: 0.0, quantiles };
        assert!(outcome.expert_error() < 1e-6 && outcome.covered());
    }
}
