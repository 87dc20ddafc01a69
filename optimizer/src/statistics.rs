//! relata's rows as DataFusion statistics, for the choice of build sides and broadcasts.
//!
//! DataFusion 55 asks a [`StatisticsProvider`] about physical nodes, relata knows rows of logical ones. The scans tie them:
//! the leaves of the initial physical plan are the scans of the logical plan in the same order. Going up, a node is known
//! by the set of scans below it and the number of aggregations on the way, which stays true when joins swap their sides.

use std::sync::{Arc, OnceLock};

use datafusion::common::config::ConfigOptions;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Statistics};
use datafusion::error::Result;
use datafusion::logical_expr::{JoinType, LogicalPlan};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::operator_statistics::{ExtendedStatistics, StatisticsProvider, StatisticsResult};
use datafusion::physical_plan::{ExecutionPlan, StatisticsArgs};
use hashbrown::HashMap;
use relata_featurize::join_graph::RelationSet;
use relata_featurize::physical::row_width;
use smallvec::SmallVec;

use crate::counters::{Counters, count};
use crate::estimate::{Estimator, PlanRows};
use crate::join_order::{CostModel, JoinMethod, JoinShape, JoinSide};

/// A node, by the scans below it (bit by place from the left) and the aggregations above them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) scans: u128,
    pub(crate) aggregations: u32,
}

impl Place {
    /// The place of a node over `inputs`, which is one aggregation further up if it aggregates.
    pub(crate) fn over(inputs: &[Place], aggregates: bool) -> Self {
        inputs.iter().fold(Self { scans: 0, aggregations: u32::from(aggregates) }, |all, one| Self {
            scans: all.scans | one.scans,
            aggregations: all.aggregations + one.aggregations,
        })
    }

    pub(crate) fn scan(index: usize) -> Self {
        Self { scans: 1u128.checked_shl(index as u32).unwrap_or(0), aggregations: 0 }
    }
}

/// Rows of a node: the estimate, and the mean of what they may be, which is what a cost that is linear in the rows comes to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) median: f64,
    pub(crate) mean: f64,
}

impl Rows {
    fn at_most(self, limit: f64) -> Self {
        Self { median: self.median.min(limit), mean: self.mean.min(limit) }
    }
}

/// What relata knows of one query's nodes.
#[derive(Debug, Default)]
pub(crate) struct QueryRows {
    rows: HashMap<Place, Rows>,
    /// From the left.
    scans: Vec<Scan>,
    /// Cost of the plan in one partition; `None` where a node is not known.
    cost: Option<f64>,
    /// Bytes of the largest hash table of a join.
    largest_table: f64,
    /// Whether there is an outer, semi or anti join with a condition beside its keys.
    has_filtered_join: bool,
}

/// The output of one scan.
#[derive(Debug)]
struct Scan {
    columns: Vec<String>,
    rows: Option<Rows>,
}

impl QueryRows {
    /// The rows of every node of a plan; `None` where the plan has more scans than a [`Place`] can hold, or nothing is known.
    pub(crate) fn new(estimator: &Estimator<'_>, model: &dyn CostModel, plan: &LogicalPlan) -> Option<Self> {
        if scans(plan) > RelationSet::CAPACITY {
            return None;
        }
        let mut visit = Visit { rows: PlanRows::new(estimator), model, known: Self::default() };
        visit.known.cost = Some(0.0);
        visit.node(plan);
        let known = visit.known;
        (!known.rows.is_empty()).then_some(known)
    }

    /// Cost of the plan in one partition; `None` where a node is not known.
    pub(crate) fn cost(&self) -> Option<f64> {
        self.cost
    }

    /// Partitions that have at least `least` to do each, at most `most`.
    pub(crate) fn partitions(&self, most: usize, least: f64) -> usize {
        match self.cost {
            Some(cost) if least > 0.0 => most.min((cost / least) as usize).max(1),
            _ => most,
        }
    }

    /// Whether joins had better sort: a hash table of more than `bytes` cannot spill to disk, a sorted side can. DataFusion
    /// 55.2 fails on sort-merge joins of some types with a condition beside their keys.
    pub(crate) fn should_sort(&self, bytes: f64) -> bool {
        self.largest_table > bytes && !self.has_filtered_join
    }
}

/// Reads the rows of a plan's nodes, inputs first.
struct Visit<'p, 'e> {
    rows: PlanRows<'p, 'e>,
    model: &'e dyn CostModel,
    known: QueryRows,
}

impl<'p> Visit<'p, '_> {
    fn node(&mut self, plan: &'p LogicalPlan) -> (Place, Option<JoinSide>) {
        let own = self.rows.of(plan);
        let own = own.is_known().then(|| Rows { median: own.rows, mean: own.expected() });
        let side = own.map(|rows| JoinSide { rows: rows.mean, width: row_width(plan.schema().as_arrow()) as f64 });
        let inputs: SmallVec<[_; 2]> = plan.inputs().into_iter().map(|input| self.node(input)).collect();
        let places: SmallVec<[Place; 2]> = inputs.iter().map(|(place, _)| *place).collect();
        if let LogicalPlan::Join(join) = plan {
            self.known.has_filtered_join |= join.join_type != JoinType::Inner && join.filter.is_some();
        }
        let cost = match (plan, side, &inputs[..]) {
            (LogicalPlan::TableScan(scan), Some(output), _) => {
                let rows = self.rows.table_rows(scan);
                rows.map(|rows| self.model.scan(JoinSide { rows, ..output }, 1))
            }
            (_, Some(output), [(_, Some(left)), (_, Some(right))]) => {
                let (build, probe) = if left.rows <= right.rows { (*left, *right) } else { (*right, *left) };
                self.known.largest_table = self.known.largest_table.max(build.rows * build.width);
                Some(self.model.hash_join(&JoinShape { build, probe, output, partitions: 1 }).1)
            }
            // Groups are looked up like the rows of a build side.
            (LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_), Some(groups), [(_, Some(input))]) => {
                let shape = JoinShape { build: groups, probe: *input, output: groups, partitions: 1 };
                Some(self.model.join(JoinMethod::BroadcastHash, &shape))
            }
            (_, Some(_), _) => Some(0.0),
            (_, None, _) => None,
        };
        self.known.cost = self.known.cost.zip(cost).map(|(all, one)| all + one);
        let place = match plan {
            LogicalPlan::TableScan(scan) => {
                let columns = scan.projected_schema.fields().iter().map(|f| f.name().clone()).collect();
                self.known.scans.push(Scan { columns, rows: own });
                Place::scan(self.known.scans.len() - 1)
            }
            LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) => Place::over(&places, true),
            _ => Place::over(&places, false),
        };
        // A limit is at the place of its input, whose rows are those of every node there but for the limit.
        let limits = match plan {
            LogicalPlan::Limit(_) => true,
            LogicalPlan::Sort(sort) => sort.fetch.is_some(),
            _ => false,
        };
        if let Some(rows) = own.filter(|_| place.scans != 0 && !limits) {
            self.known.rows.insert(place, rows);
        }
        (place, side)
    }
}

impl QueryRows {
    /// The leaves of the initial physical plan, where they are the scans of the logical one.
    pub(crate) fn leaves(&self, plan: &Arc<dyn ExecutionPlan>) -> Option<Leaves> {
        fn leaves(plan: &Arc<dyn ExecutionPlan>, found: &mut Leaves) {
            let inputs = plan.children();
            if inputs.is_empty() {
                found.push(Arc::clone(plan));
            }
            inputs.into_iter().for_each(|input| leaves(input, found));
        }
        let same = |leaf: &Arc<dyn ExecutionPlan>, scan: &Scan| {
            let schema = leaf.schema();
            let mut names = schema.fields().iter().map(|field| field.name());
            schema.fields().len() == scan.columns.len() && scan.columns.iter().all(|name| names.next() == Some(name))
        };
        let mut found = Vec::new();
        leaves(plan, &mut found);
        let all_same =
            found.len() == self.scans.len() && found.iter().zip(&self.scans).all(|(leaf, scan)| same(leaf, scan));
        all_same.then_some(found)
    }
}

/// Scans in a plan.
pub(crate) fn scans(plan: &LogicalPlan) -> usize {
    let own = usize::from(matches!(plan, LogicalPlan::TableScan(_)));
    own + plan.inputs().into_iter().map(scans).sum::<usize>()
}

/// Which scan each leaf of the physical plan is; the plans are kept so that no address is used twice.
pub(crate) type Leaves = Vec<Arc<dyn ExecutionPlan>>;

/// The rows of the nodes of one physical plan, once [`IdentifyScans`] has tied its leaves.
#[derive(Debug)]
pub(crate) struct NodeRows {
    known: QueryRows,
    leaves: OnceLock<Leaves>,
    counters: Arc<Counters>,
}

/// Runs first: ties the leaves of the initial physical plan to the scans of the logical one.
#[derive(Debug)]
pub(crate) struct IdentifyScans(pub(crate) Arc<NodeRows>);

impl PhysicalOptimizerRule for IdentifyScans {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        match self.0.known.leaves(&plan) {
            Some(leaves) => drop(self.0.leaves.set(leaves)),
            None => count(&self.0.counters.unidentified),
        }
        Ok(plan)
    }

    fn name(&self) -> &str {
        "relata_identify_scans"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Answers with relata's rows where the place of a node is known, otherwise from the inputs' rows.
#[derive(Debug)]
pub(crate) struct RelataStatistics(pub(crate) Arc<NodeRows>);

/// What a node tells the one above it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    place: Place,
    /// The lowest limit among the nodes at this place.
    limit: f64,
}

impl NodeRows {
    pub(crate) fn new(known: QueryRows, counters: Arc<Counters>) -> Self {
        Self { known, leaves: OnceLock::new(), counters }
    }

    /// Whether the leaves of the physical plan are known.
    pub(crate) fn is_identified(&self) -> bool {
        self.leaves.get().is_some()
    }

    /// Rows of a leaf; `None` where relata does not know it.
    pub(crate) fn leaf(&self, plan: &dyn ExecutionPlan) -> Option<(Rows, Known)> {
        let address = std::ptr::from_ref(plan).cast::<()>();
        let leaves = self.leaves.get()?;
        let scan = leaves.iter().position(|leaf| Arc::as_ptr(leaf).cast::<()>() == address)?;
        let known = Known { place: Place::scan(scan), limit: limit(plan, f64::INFINITY) };
        Some((self.known.scans[scan].rows?.at_most(known.limit), known))
    }

    /// Rows of a node over inputs at known places; `None` where relata does not know it.
    pub(crate) fn node(&self, plan: &dyn ExecutionPlan, inputs: &[Known]) -> Option<(Rows, Known)> {
        let aggregates = plan.downcast_ref::<AggregateExec>().is_some_and(|a| *a.mode() != AggregateMode::Partial);
        let places: SmallVec<[Place; 2]> = inputs.iter().map(|input| input.place).collect();
        let place = Place::over(&places, aggregates);
        let rows = *self.known.rows.get(&place)?;
        let below = match *inputs {
            [input] if input.place == place => input.limit,
            _ => f64::INFINITY,
        };
        let limit = limit(plan, below);
        Some((rows.at_most(limit), Known { place, limit }))
    }
}

/// The most rows of a node whose input has at most `below`.
fn limit(plan: &dyn ExecutionPlan, below: f64) -> f64 {
    let skip = plan.downcast_ref::<GlobalLimitExec>().map_or(0, GlobalLimitExec::skip);
    (below - skip as f64).max(0.0).min(plan.fetch().map_or(f64::INFINITY, |fetch| fetch as f64))
}

impl StatisticsProvider for RelataStatistics {
    fn compute_statistics(&self, plan: &dyn ExecutionPlan, inputs: &[ExtendedStatistics]) -> Result<StatisticsResult> {
        if !self.0.is_identified() {
            return Ok(StatisticsResult::Delegate);
        }
        let known = if inputs.is_empty() {
            self.0.leaf(plan)
        } else {
            let places = inputs.iter().map(|input| input.get_extension::<Known>().copied());
            places.collect::<Option<SmallVec<[Known; 2]>>>().and_then(|places| self.0.node(plan, &places))
        };
        if let Some((rows, known)) = known {
            return Ok(computed(plan, rows.median, known));
        }
        if inputs.is_empty() {
            return Ok(StatisticsResult::Delegate);
        }
        let inputs: Vec<Arc<Statistics>> = inputs.iter().map(|input| Arc::clone(input.base_arc())).collect();
        let statistics = plan.statistics_from_inputs(&inputs, &StatisticsArgs::new())?;
        Ok(StatisticsResult::Computed(ExtendedStatistics::new_arc(statistics)))
    }
}

fn computed(plan: &dyn ExecutionPlan, rows: f64, known: Known) -> StatisticsResult {
    let schema = plan.schema();
    let width = row_width(&schema);
    let rows = rows.clamp(0.0, 1e15).round() as usize;
    let mut statistics = ExtendedStatistics::new(Statistics {
        num_rows: Precision::Inexact(rows),
        total_byte_size: Precision::Inexact(rows.saturating_mul(width)),
        column_statistics: vec![ColumnStatistics::new_unknown(); schema.fields().len()],
    });
    statistics.set_extension(known);
    StatisticsResult::Computed(statistics)
}

#[cfg(test)]
mod tests;
