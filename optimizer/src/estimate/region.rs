//! One region of inner joins: the estimate of any set of its relations.

use super::{
    Arc, Counters, Estimate, Estimator, ExpertStack, GroupColumn, HashMap, JoinEstimator, JoinGraph, NodeKind, Origin,
    RelationSet, SetEstimate, Tables, aggregate_features, count, estimate_groups, join_columns, join_features,
    log_rows, relation_graph,
};
use crate::profiles::ProfiledTable;
use relata_experts::heads::CardinalityQuantiles;

/// A set's analytical estimate, the expert's state of it, and what comes out.
#[derive(Debug, Clone)]
struct SetState {
    analytical: SetEstimate,
    state: Option<Vec<f32>>,
    estimate: Estimate,
}

/// The estimates of one join graph, each made once.
#[derive(Debug)]
pub(crate) struct Region<'a> {
    pub(crate) estimator: JoinEstimator<'a>,
    experts: Option<&'a ExpertStack>,
    counters: &'a Counters,
    tables: Vec<Option<Arc<ProfiledTable>>>,
    sets: HashMap<RelationSet, SetState>,
    columns: HashMap<(usize, usize), Vec<f32>>,
}

/// The largest correction of the analytical estimate that is believed, in ln space.
const LARGEST_CORRECTION: f64 = 14.0;

impl<'a> Region<'a> {
    pub(crate) fn new(estimator: &Estimator<'a>, graph: &'a JoinGraph) -> Self {
        let tables = graph.relations.iter().map(|r| estimator.profiles.of_scan(r.scan.as_ref()?)).collect();
        Self {
            estimator: JoinEstimator::new(graph, estimator),
            experts: estimator.experts,
            counters: estimator.counters,
            tables,
            sets: HashMap::new(),
            columns: HashMap::new(),
        }
    }

    /// Rows of the joined relations of `set` under every filter and condition among them.
    pub(crate) fn set(&mut self, set: RelationSet) -> Estimate {
        self.visit(set).estimate
    }

    fn visit(&mut self, set: RelationSet) -> SetState {
        if let Some(known) = self.sets.get(&set) {
            return known.clone();
        }
        let made = if set.len() <= 1 { self.relation(set.iter().next().unwrap_or(0)) } else { self.join(set) };
        self.sets.insert(set, made.clone());
        made
    }

    /// One relation: its profile, its filters on the sample, its graph through the experts.
    fn relation(&self, relation: usize) -> SetState {
        let analytical = self.estimator.single(relation);
        let known = &self.estimator.relations[relation];
        if known.base_rows.is_none() {
            return SetState { analytical, state: None, estimate: Estimate::fallback("no profile") };
        }
        let read = || {
            let mut tables = Tables::default();
            let graph = relation_graph(&self.estimator, relation, &mut tables)?;
            let embedding = self.tables[relation].as_ref()?.embedding(self.experts?)?.clone();
            let plan = self.experts?.forward(&graph, &[embedding]);
            let plan = plan.map_err(|_| count(&self.counters.expert_failures)).ok()?;
            let last = graph.nodes.len() - 1;
            Some((plan.states.row(last).to_vec(), plan.cardinalities[last]?))
        };
        let read = self.experts.and_then(|_| read());
        let exact = known.filter.as_ref().is_some_and(|filter| filter.exact);
        let estimate = if exact {
            Estimate::exact(analytical.rows)
        } else {
            corrected(analytical.rows, analytical.bound, read.as_ref().map(|r| r.1))
        };
        SetState { analytical, state: read.map(|r| r.0), estimate }
    }

    /// A set by its canonical decomposition: the rest, one more relation, and one step of message passing.
    fn join(&mut self, set: RelationSet) -> SetState {
        let relation = self.estimator.graph.last(set);
        let rest = set.minus(RelationSet::single(relation));
        let left = self.visit(rest);
        let right = self.visit(RelationSet::single(relation));
        let (analytical, keys) = self.estimator.extend(rest, &left.analytical, relation);
        let known = left.estimate.is_known() && right.estimate.is_known();
        if !known {
            return SetState { analytical, state: None, estimate: Estimate::fallback("no profile") };
        }
        let features = join_features(&self.estimator, rest, &left.analytical, relation, &analytical, &keys);
        let read = left.state.as_deref().zip(right.state.as_deref()).and_then(|(left, right)| {
            let columns = self.sum_of_columns(&join_columns(&self.estimator, rest, relation))?;
            self.step(NodeKind::Join, &features, &[left, right, &columns], set.len() - 1)
        });
        let estimate = corrected(analytical.rows, analytical.bound, read.as_ref().map(|r| r.1));
        SetState { analytical, state: read.map(|r| r.0), estimate }
    }

    /// Groups among the rows of `set`.
    pub(crate) fn groups(&mut self, set: RelationSet, columns: &[GroupColumn]) -> Estimate {
        let input = self.visit(set);
        if !input.estimate.is_known() {
            return input.estimate;
        }
        let rows = input.analytical.rows;
        let groups = estimate_groups(&self.estimator, rows, columns);
        let read = input.state.as_deref().and_then(|state| {
            let pairs: Vec<(usize, usize)> = columns.iter().map(|c| (c.relation, c.column)).collect();
            let columns = self.sum_of_columns(&pairs)?;
            let features = aggregate_features(rows, &groups, pairs.len());
            self.step(NodeKind::Aggregate, &features, &[state, &columns], set.len() - 1)
        });
        corrected(groups.rows, groups.bound, read.map(|r| r.1))
    }

    fn step(
        &self,
        kind: NodeKind,
        features: &[f32],
        roles: &[&[f32]],
        joins: usize,
    ) -> Option<(Vec<f32>, CardinalityQuantiles)> {
        let experts = self.experts?;
        let mut state = vec![0.0; experts.width()];
        let made = experts.step(kind, features, None, roles, &mut state);
        let read = made.and_then(|()| experts.cardinality(&state, joins));
        let quantiles = read.map_err(|_| count(&self.counters.expert_failures)).ok()?;
        Some((state, quantiles))
    }

    /// Sum of the states of columns, given as relation and column of its table.
    fn sum_of_columns(&mut self, columns: &[(usize, usize)]) -> Option<Vec<f32>> {
        let experts = self.experts?;
        let mut sum = vec![0.0; experts.width()];
        for &key in columns {
            if !self.columns.contains_key(&key) {
                let table = self.tables[key.0].as_ref()?;
                let features = relata_featurize::logical::column_features(&table.profile, key.1);
                let mut state = vec![0.0; experts.width()];
                let embedding = table.embedding(experts)?.column(key.1)?;
                experts.step(NodeKind::Column, &features, Some(embedding), &[], &mut state).ok()?;
                self.columns.insert(key, state);
            }
            let state = self.columns.get(&key)?;
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
    let at =
        |residual: f32| (base + f64::from(residual).clamp(-LARGEST_CORRECTION, LARGEST_CORRECTION)).exp().min(bound);
    let median = at(quantiles.median);
    // Below one row the head knows no difference: what is nearly impossible stays so.
    let rows = if rows < 1.0 && median < 1.5 { rows.min(bound) } else { median };
    Estimate {
        rows,
        lower: at(quantiles.lower).min(rows),
        upper: at(quantiles.upper).max(rows),
        origin: Origin::Expert,
    }
}
