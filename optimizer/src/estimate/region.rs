//! One region of inner joins: the estimate of any set of its relations.

use std::cell::LazyCell;
use std::sync::{Arc, PoisonError};

use hashbrown::HashMap;
use relata_experts::ExpertStack;
use relata_experts::heads::CardinalityQuantiles;
use relata_featurize::analytical::{JoinEstimator, SetEstimate};
use relata_featurize::graph::NodeKind;
use relata_featurize::groups::{GroupColumn, estimate_groups};
use relata_featurize::join_graph::{JoinGraph, Relation, RelationSet};
use relata_featurize::logical::{Tables, aggregate_features, join_columns, join_features, log_rows, relation_graph};

use super::{Estimate, Estimator, Origin};
use crate::counters::count;
use crate::profiles::ProfiledTable;

mod answers;

pub(crate) use answers::Answer;

/// Relations beyond which a region is estimated without the experts: its sets are many, and no training query is as large.
const LARGE_REGION: usize = 20;

/// The largest correction of the analytical estimate that is believed, in ln space.
const LARGEST_CORRECTION: f64 = 14.0;

/// The experts' state of a node and what they read from it.
pub(super) type ExpertState = (Vec<f32>, CardinalityQuantiles);

/// A set's analytical estimate, the experts' state of it, and what comes out.
#[derive(Debug)]
struct SetState {
    analytical: SetEstimate,
    state: Option<ExpertState>,
    estimate: Estimate,
}

/// The sets of a region that are estimated.
type Sets = HashMap<RelationSet, Arc<SetState>>;

/// A region that was estimated before.
#[derive(Debug)]
pub(super) struct KnownRegion {
    graph: Arc<JoinGraph>,
    sets: Sets,
}

impl KnownRegion {
    /// Whether a set of `graph` has the same rows as the one of this graph. An order of its joins does not matter to a graph.
    fn is(&self, graph: &JoinGraph) -> bool {
        fn same(one: &Relation, other: &Relation) -> bool {
            match (&one.scan, &other.scan) {
                (Some(a), Some(b)) => Arc::ptr_eq(&a.source, &b.source) && one.table_filters == other.table_filters,
                (None, None) => one.plan == other.plan && one.filters == other.filters,
                _ => false,
            }
        }
        fn all<T>(one: &[T], other: &[T], same: impl Fn(&T, &T) -> bool) -> bool {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        all(&self.graph.classes, &graph.classes, |one, other| one.members == other.members)
            && all(&self.graph.residuals, &graph.residuals, |a, b| a.relations == b.relations && a.expr == b.expr)
            && all(&self.graph.relations, &graph.relations, same)
    }
}

fn is_large(graph: &JoinGraph) -> bool {
    graph.relations.len() > LARGE_REGION
}

/// The estimates of one join graph, each made once.
#[derive(Debug)]
pub(crate) struct Region<'a> {
    /// Made when the first set is estimated that is not known.
    pub(crate) estimator: LazyCell<JoinEstimator<'a>, Box<dyn FnOnce() -> JoinEstimator<'a> + 'a>>,
    owner: &'a Estimator<'a>,
    experts: Option<&'a ExpertStack>,
    tables: Vec<Option<Arc<ProfiledTable>>>,
    sets: Sets,
}

impl Estimator<'_> {
    /// Reads from the estimates of a graph; what was asked about it before is known.
    pub(crate) fn region<T>(&self, graph: &Arc<JoinGraph>, read: impl FnOnce(&mut Region<'_>) -> T) -> T {
        let regions = || self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        let known = {
            let mut regions = regions();
            regions.iter().position(|known| known.is(graph)).map(|index| regions.swap_remove(index))
        };
        let mut region = Region::new(self, graph, known.map(|known| known.sets).unwrap_or_default());
        let answer = read(&mut region);
        let sets = region.sets;
        regions().push(KnownRegion { graph: Arc::clone(graph), sets });
        answer
    }
}

impl<'a> Region<'a> {
    fn new(owner: &'a Estimator<'a>, graph: &'a JoinGraph, sets: Sets) -> Self {
        Self {
            estimator: LazyCell::new(Box::new(|| JoinEstimator::new(graph, owner))),
            owner,
            experts: owner.experts.filter(|_| !is_large(graph)),
            tables: graph.relations.iter().map(|r| owner.profiles.of_scan(r.scan.as_ref()?)).collect(),
            sets,
        }
    }

    /// Rows of the joined relations of `set` under every filter and condition among them.
    pub(crate) fn set(&mut self, set: RelationSet) -> Estimate {
        self.visit(set).estimate
    }

    /// Rows that the joined relations of `set` cannot exceed.
    #[cfg(feature = "tune")]
    pub(crate) fn bound(&mut self, set: RelationSet) -> f64 {
        self.visit(set).analytical.bound
    }

    fn visit(&mut self, set: RelationSet) -> Arc<SetState> {
        if let Some(known) = self.sets.get(&set) {
            return Arc::clone(known);
        }
        let mut made = if set.len() <= 1 { self.relation(set.iter().next().unwrap_or(0)) } else { self.join(set) };
        let known = self.owner.known.and_then(|known| known.rows(self.estimator.graph, set));
        if let Some(rows) = known.filter(|rows| rows.is_finite() && *rows >= 0.0) {
            made.estimate = Estimate::exact(rows);
        }
        let made = Arc::new(made);
        self.sets.insert(set, Arc::clone(&made));
        made
    }

    /// One relation: its profile, its filters on the sample, its graph through the experts.
    fn relation(&self, relation: usize) -> SetState {
        let analytical = self.estimator.single(relation);
        let known = &self.estimator.relations[relation];
        if known.base_rows.is_none() {
            return SetState { analytical, state: None, estimate: Estimate::fallback("no profile") };
        }
        let state = self.filtered(relation);
        let exact = known.filter.as_ref().is_some_and(|filter| filter.exact || filter.predicates.is_empty());
        let estimate = if exact {
            Estimate::exact(analytical.rows)
        } else {
            corrected(analytical.rows, analytical.bound, state.as_ref().map(|(_, quantiles)| *quantiles))
        };
        SetState { analytical, state, estimate }
    }

    /// What the experts say of a base table under its filters.
    fn filtered(&self, relation: usize) -> Option<ExpertState> {
        let experts = self.experts?;
        let filter = Arc::as_ptr(self.estimator.relations[relation].filter.as_ref()?) as usize;
        let read = || {
            let mut tables = Tables::default();
            let graph = relation_graph(&self.estimator, relation, &mut tables)?;
            let embedding = self.tables[relation].as_ref()?.embedding(experts)?.clone();
            let plan = experts.forward(&graph, &[embedding]);
            let plan = plan.map_err(|_| count(&self.owner.counters.expert_failures)).ok()?;
            let last = graph.nodes.len() - 1;
            Some((plan.states.row(last).to_vec(), plan.cardinalities[last]?))
        };
        let mut known = self.owner.filtered.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(filter).or_insert_with(read).clone()
    }

    /// The relation of a set that is joined last: the canonical one, so that a set has one estimate however it is joined. In a
    /// large region it is one whose rest is known, where there is one: with the canonical one, every set that greedy ordering
    /// looks at would bring as many new ones as it has relations.
    fn last(&self, set: RelationSet) -> usize {
        let graph = self.estimator.graph;
        let joins_known = |&relation: &usize| {
            let relation = RelationSet::single(relation);
            let rest = set.minus(relation);
            self.sets.contains_key(&rest) && !graph.neighbours(relation).intersection(rest).is_empty()
        };
        let known = if is_large(graph) { set.iter().rev().find(joins_known) } else { None };
        known.unwrap_or_else(|| graph.last(set))
    }

    /// A set by its decomposition: the rest, one more relation, and one step of message passing.
    fn join(&mut self, set: RelationSet) -> SetState {
        let relation = self.last(set);
        let rest = set.minus(RelationSet::single(relation));
        let left = self.visit(rest);
        let right = self.visit(RelationSet::single(relation));
        let (analytical, keys) = self.estimator.extend(rest, &left.analytical, relation);
        let known = left.estimate.is_known() && right.estimate.is_known();
        if !known {
            return SetState { analytical, state: None, estimate: Estimate::fallback("no profile") };
        }
        let state = left.state.as_ref().zip(right.state.as_ref()).and_then(|((left_state, _), (right_state, _))| {
            let features = join_features(&self.estimator, rest, &left.analytical, relation, &analytical, &keys);
            let columns = self.sum_of_columns(&join_columns(&self.estimator, rest, relation))?;
            self.step(NodeKind::Join, &features, &[left_state, right_state, &columns], set.len() - 1)
        });
        let quantiles = state.as_ref().map(|(_, quantiles)| *quantiles);
        let estimate = corrected(analytical.rows, analytical.bound, quantiles);
        SetState { analytical, estimate: self.at_most_without(set, estimate), state }
    }

    /// A join with a relation whose key is unique has no more rows than the set without it. Of two relations either is held
    /// against the other, of more the one joined last against its rest: the least of many estimates would be too small. The
    /// upper end of the interval is calibrated as it is.
    fn at_most_without(&mut self, set: RelationSet, mut estimate: Estimate) -> Estimate {
        let compared = if set.len() == 2 { set } else { RelationSet::single(self.last(set)) };
        for relation in compared.iter() {
            let rest = set.minus(RelationSet::single(relation));
            if self.estimator.most_matches(rest, relation) <= 1.0 {
                let without = self.visit(rest).estimate;
                if without.is_known() {
                    estimate.rows = estimate.rows.min(without.rows);
                    estimate.lower = estimate.lower.min(without.rows);
                }
            }
        }
        estimate
    }

    /// Groups among the rows of `set`.
    pub(crate) fn groups(&mut self, set: RelationSet, columns: &[GroupColumn]) -> Estimate {
        let input = self.visit(set);
        if !input.estimate.is_known() {
            return input.estimate;
        }
        let rows = input.analytical.rows;
        let groups = estimate_groups(&self.estimator, rows, columns);
        let read = input.state.as_ref().and_then(|(state, _)| {
            let pairs: Vec<(usize, usize)> = columns.iter().map(|c| (c.relation, c.column)).collect();
            let columns = self.sum_of_columns(&pairs)?;
            let features = aggregate_features(rows, &groups, pairs.len());
            self.step(NodeKind::Aggregate, &features, &[state, &columns], set.len() - 1)
        });
        corrected(groups.rows, groups.bound, read.map(|(_, quantiles)| quantiles))
    }

    fn step(&self, kind: NodeKind, features: &[f32], roles: &[&[f32]], joins: usize) -> Option<ExpertState> {
        let experts = self.experts?;
        let mut state = vec![0.0; experts.width()];
        let made = experts.step(kind, features, None, roles, &mut state);
        let read = made.and_then(|()| experts.cardinality(kind, &state, joins));
        let quantiles = read.map_err(|_| count(&self.owner.counters.expert_failures)).ok()?;
        Some((state, quantiles))
    }

    /// Sum of the states of columns, given as relation and column of its table.
    fn sum_of_columns(&self, columns: &[(usize, usize)]) -> Option<Vec<f32>> {
        let experts = self.experts?;
        let mut sum = vec![0.0; experts.width()];
        for &(relation, column) in columns {
            let state = self.tables[relation].as_ref()?.column_state(experts, column)?;
            sum.iter_mut().zip(state).for_each(|(sum, value)| *sum += value);
        }
        Some(sum)
    }
}

/// The analytical estimate with the expert's correction, never above the bound.
fn corrected(rows: f64, bound: f64, quantiles: Option<CardinalityQuantiles>) -> Estimate {
    let base = f64::from(log_rows(rows));
    let Some(quantiles) = quantiles.filter(|q| q.lower.is_finite() && q.median.is_finite() && q.upper.is_finite())
    else {
        let wide = Estimate { rows, lower: rows / 10.0, upper: rows * 10.0, origin: Origin::Analytical };
        return wide.map(|rows| rows.min(bound));
    };
    let unbounded = |residual: f32| (base + f64::from(residual).clamp(-LARGEST_CORRECTION, LARGEST_CORRECTION)).exp();
    let at = |residual: f32| unbounded(residual).min(bound);
    let median = at(quantiles.median);
    // Below one row the head knows no difference: what is nearly impossible stays so.
    let rows = if rows < 1.0 && median < 1.5 { rows.min(bound) } else { median };
    // Rows are whole, and so are the ends of the interval.
    Estimate {
        rows,
        lower: at(quantiles.lower).floor().min(rows),
        upper: at(quantiles.upper).ceil().min(bound).max(rows),
        origin: if unbounded(quantiles.median) > bound { Origin::Bound } else { Origin::Expert },
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use datafusion::logical_expr::JoinType;
    use datafusion::prelude::SessionContext;

    use super::*;
    use crate::join_order::{ExecutionTime, reorder};
    use crate::{Relata, RelataConfig};

    #[tokio::test]
    async fn ordering_a_large_star_estimates_few_sets() {
        const RELATIONS: usize = 60;
        let ctx = SessionContext::new();
        let column = |modulus: i64| Arc::new(Int64Array::from_iter_values((0..90).map(|i| i % modulus))) as ArrayRef;
        let columns = [("id", column(90)), ("number", column(7))];
        ctx.register_batch("t", RecordBatch::try_from_iter(columns).unwrap()).unwrap();
        let hub: Vec<String> = (1..RELATIONS).map(|i| format!("id + {i} AS key{i}")).collect();
        let mut data = ctx.sql(&format!("SELECT id, {} FROM t", hub.join(", "))).await.unwrap();
        for i in 1..RELATIONS {
            // The relations that greedy ordering takes first are the last ones of the canonical order.
            let right = ctx.sql(&format!("SELECT id AS id{i} FROM t WHERE id > {}", 10 + i)).await.unwrap();
            let (left_key, right_key) = (format!("key{i}"), format!("id{i}"));
            data = data.join(right, JoinType::Inner, &[&left_key], &[&right_key], None).unwrap();
        }
        let relata = Relata::pretrained().unwrap();
        relata.profile(&ctx).await.unwrap();
        let estimator = relata.estimator();
        let config = RelataConfig { minimum_gain: 0.0, minimum_cost: 0.0, ..RelataConfig::default() };
        let plan = data.into_unoptimized_plan();
        let reordered = reorder(&estimator, &config, &ExecutionTime::default(), 2, plan).unwrap();
        assert_eq!(relata.counters().reordered, 1, "{:?}", relata.counters());
        let sets = estimator.regions.lock().unwrap().iter().map(|region| region.sets.len()).max().unwrap();
        assert!(sets < RELATIONS * RELATIONS, "{sets} sets");
        assert!(crate::estimate::rows(&estimator, &reordered).is_known());
    }
}
