//! The estimates of a logical plan's nodes, in terms that a physical plan can be asked in.
//!
//! A node is known by its [`Place`] and by what it does to the rows: the filter, the join or the aggregation there. Physical
//! nodes that do nothing to the number of rows have those of their input.

use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{LogicalPlan, TableProviderFilterPushDown, TableScan};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::DynamicFilterTracking;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec, SymmetricHashJoinExec,
};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::{InterleaveExec, UnionExec};
use hashbrown::HashMap;
use relata_featurize::join_graph::RelationSet;
use smallvec::SmallVec;

use crate::estimate::{Estimate, Estimator, Origin, PlanRows};
use crate::statistics::Place;

/// What a node does to the number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Operator {
    Filter,
    Join,
    Aggregate,
    Union,
}

impl Operator {
    fn of_logical(plan: &LogicalPlan) -> Option<Self> {
        match plan {
            LogicalPlan::Filter(_) => Some(Self::Filter),
            LogicalPlan::Join(_) => Some(Self::Join),
            LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) => Some(Self::Aggregate),
            LogicalPlan::Union(_) => Some(Self::Union),
            _ => None,
        }
    }

    /// `None` for a partial aggregation too: its rows depend on how the input is spread.
    pub(super) fn of_physical(plan: &dyn ExecutionPlan) -> Option<Self> {
        let is_join = plan.is::<HashJoinExec>()
            || plan.is::<SortMergeJoinExec>()
            || plan.is::<NestedLoopJoinExec>()
            || plan.is::<CrossJoinExec>()
            || plan.is::<SymmetricHashJoinExec>();
        match plan.downcast_ref::<AggregateExec>().map(AggregateExec::mode) {
            Some(
                AggregateMode::Final
                | AggregateMode::FinalPartitioned
                | AggregateMode::Single
                | AggregateMode::SinglePartitioned,
            ) => Some(Self::Aggregate),
            Some(_) => None,
            None if is_join => Some(Self::Join),
            None if plan.is::<FilterExec>() => Some(Self::Filter),
            None if plan.is::<UnionExec>() || plan.is::<InterleaveExec>() => Some(Self::Union),
            None => None,
        }
    }
}

/// Whether a physical node has the rows of its input but for a limit.
pub(super) fn keeps_rows(plan: &dyn ExecutionPlan) -> bool {
    matches!(plan.cardinality_effect(), CardinalityEffect::Equal)
        || plan.is::<SortExec>()
        || plan.is::<SortPreservingMergeExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<GlobalLimitExec>()
        || plan.is::<LocalLimitExec>()
}

/// An estimate below the limit of the node, which each of its partitions has for itself.
pub(super) fn limited(plan: &dyn ExecutionPlan, estimate: Estimate) -> Estimate {
    let skip = plan.downcast_ref::<GlobalLimitExec>().map_or(0, GlobalLimitExec::skip) as f64;
    let partitions = plan.properties().output_partitioning().partition_count();
    let fetch = plan.fetch().map_or(f64::INFINITY, |fetch| fetch as f64 * partitions as f64);
    if estimate.is_known() { estimate.map(|rows| (rows - skip).clamp(0.0, fetch)) } else { estimate }
}

/// The estimates of a logical plan.
#[derive(Debug, Default)]
pub(super) struct PlaceEstimates {
    /// `None` where two nodes cannot be told apart.
    nodes: HashMap<(Place, Operator), Option<Estimate>>,
    /// From the left.
    pub(super) leaves: Vec<Leaf>,
}

/// A leaf of a logical plan.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) columns: Vec<String>,
    /// Under all filters of the scan.
    filtered: Estimate,
    /// Without the filters that the table may let through.
    unfiltered: Estimate,
}

impl PlaceEstimates {
    pub(super) fn new(estimator: &Estimator<'_>, plan: &LogicalPlan) -> Self {
        let mut estimates = Self::default();
        estimates.visit(&mut PlanRows::new(estimator), estimator, plan);
        if estimates.leaves.len() > RelationSet::CAPACITY {
            // A place does not tell them apart.
            estimates.nodes.clear();
        }
        estimates
    }

    fn visit<'p>(&mut self, rows: &mut PlanRows<'p, '_>, estimator: &Estimator<'_>, plan: &'p LogicalPlan) -> Place {
        // The root of a region brings the rows of the joins within, so it is asked first.
        let own = rows.of(plan);
        let inputs = plan.inputs().into_iter();
        let places: SmallVec<[Place; 2]> = inputs.map(|input| self.visit(rows, estimator, input)).collect();
        if places.is_empty() {
            self.leaves.push(Leaf::new(estimator, plan, own));
            return Place::scan(self.leaves.len() - 1);
        }
        let operator = Operator::of_logical(plan);
        let place = Place::over(&places, operator == Some(Operator::Aggregate));
        if let Some(operator) = operator.filter(|_| place.scans != 0) {
            self.nodes
                .entry((place, operator))
                .and_modify(|known| *known = known.filter(|known| *known == own))
                .or_insert(Some(own));
        }
        place
    }

    pub(super) fn of(&self, place: Place, operator: Operator) -> Option<Estimate> {
        *self.nodes.get(&(place, operator))?
    }
}

impl Leaf {
    fn new(estimator: &Estimator<'_>, plan: &LogicalPlan, filtered: Estimate) -> Self {
        let columns = plan.schema().fields().iter().map(|field| field.name().clone()).collect();
        let unfiltered = match plan {
            LogicalPlan::TableScan(scan) if !filters_all(scan) => match estimator.profiles.of_scan(scan) {
                Some(table) => at_most(Estimate { lower: filtered.lower, ..Estimate::exact(table.profile.rows) }),
                None => filtered,
            },
            _ => filtered,
        };
        Self { columns, filtered, unfiltered }
    }

    /// The rows of the scan; `below_filter` where the plan filters them again.
    pub(super) fn rows(&self, plan: &dyn ExecutionPlan, below_filter: bool) -> Estimate {
        let own = if below_filter { self.unfiltered } else { self.filtered };
        if own.is_known() && has_dynamic_filter(plan) { at_most(Estimate { lower: 0.0, ..own }) } else { own }
    }
}

fn at_most(estimate: Estimate) -> Estimate {
    Estimate { origin: Origin::Bound, ..estimate }
}

/// Whether no row that a scan returns fails one of its filters.
fn filters_all(scan: &TableScan) -> bool {
    let filters: Vec<_> = scan.filters.iter().collect();
    filters.is_empty()
        || scan
            .source
            .supports_filters_pushdown(&filters)
            .is_ok_and(|support| support.iter().all(|support| *support == TableProviderFilterPushDown::Exact))
}

/// Whether a scan leaves out rows that joins above it turn out not to need.
fn has_dynamic_filter(plan: &dyn ExecutionPlan) -> bool {
    let mut found = false;
    let _ = plan.apply_expressions(&mut |expression: &Arc<dyn PhysicalExpr>| {
        found |= DynamicFilterTracking::classify(expression).contains_dynamic_filter();
        Ok(TreeNodeRecursion::Continue)
    });
    found
}
