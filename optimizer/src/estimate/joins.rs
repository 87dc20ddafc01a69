//! Joins of every type: the estimate of any set of nodes of a hypergraph.

use datafusion::logical_expr::JoinType;
use relata_featurize::join_graph::RelationSet;

use super::{Estimate, Estimator, Region, rows};
use crate::join_order::{Dependent, JoinHypergraph};

/// The part of the rows that an anti join keeps at least: keys that seem to match all may still miss some.
const LEAST_UNMATCHED: f64 = 0.05;

/// The part that may be left even so.
const MOST_UNMATCHED: f64 = 0.5;

/// The estimates of a hypergraph: those of its inner joins, times what each dependent makes of a row.
pub(crate) struct JoinRows<'r, 'a> {
    pub(crate) region: &'r mut Region<'a>,
    estimator: &'r Estimator<'r>,
    graph: &'r JoinHypergraph,
    /// Rows per row of the left side, by dependent.
    factors: Vec<Estimate>,
    /// Rows of each dependent's own plan, once asked for.
    alone: Vec<Option<Estimate>>,
}

impl<'r, 'a> JoinRows<'r, 'a> {
    /// `region` is that of the graph's inner joins.
    pub(crate) fn new(estimator: &'r Estimator<'r>, region: &'r mut Region<'a>, graph: &'r JoinHypergraph) -> Self {
        let alone = vec![None; graph.dependents.len()];
        let mut made = Self { region, estimator, graph, factors: Vec::new(), alone };
        for dependent in &graph.dependents {
            // Those that a dependent requires come before it.
            let factor = made.factor(dependent);
            made.factors.push(factor);
        }
        made
    }

    /// Whether what the dependents make of a row could be estimated.
    pub(crate) fn are_known(&self) -> bool {
        self.factors.iter().all(Estimate::is_known)
    }

    /// Rows of the joined nodes of `set` under every filter and condition among them.
    pub(crate) fn set(&mut self, set: RelationSet) -> Estimate {
        let first = self.graph.inner.relations.len();
        let relations = self.graph.relations(set);
        let dependents = set.minus(relations);
        if relations.is_empty() {
            let Some(node) = dependents.iter().next() else { return Estimate::exact(1.0) };
            let plan = &self.graph.dependents[node - first].plan;
            return *self.alone[node - first].get_or_insert_with(|| rows(self.estimator, plan));
        }
        let inner = self.region.set(relations);
        dependents.iter().fold(inner, |rows, node| rows.zip(self.factors[node - first], |rows, factor| rows * factor))
    }

    /// What a dependent makes of a row: the rows it is matched with, held against the join's type.
    fn factor(&mut self, dependent: &Dependent) -> Estimate {
        if dependent.join_type == JoinType::LeftMark {
            return Estimate::exact(1.0);
        }
        let base = self.set(dependent.base);
        let matched = self.estimator.region(&dependent.matches, |region| region.set(dependent.matches.all()));
        if !base.is_known() || !matched.is_known() {
            return Estimate::fallback("no profile");
        }
        let per_row = matched.map(|rows| rows / base.rows.max(f64::MIN_POSITIVE));
        match dependent.join_type {
            JoinType::LeftSemi => per_row.map(|matches| matches.min(1.0)),
            JoinType::LeftAnti => {
                let unmatched = |matches: f64| (1.0 - matches).max(0.0);
                let rows = unmatched(per_row.rows).max(LEAST_UNMATCHED);
                let upper = unmatched(per_row.lower).max(MOST_UNMATCHED).max(rows);
                Estimate { rows, lower: unmatched(per_row.upper).min(rows), upper, ..per_row }
            }
            _ => per_row.map(|matches| matches.max(1.0)),
        }
    }
}
