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
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::operator_statistics::{ExtendedStatistics, StatisticsProvider, StatisticsResult};
use datafusion::physical_plan::{ExecutionPlan, StatisticsArgs};
use hashbrown::HashMap;
use relata_featurize::join_graph::{JoinGraph, RelationSet};

use crate::counters::{Counters, count};
use crate::estimate::{Estimator, Region, rows};

/// A node, by the scans below it (bit by place from the left) and the aggregations above them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    scans: u128,
    aggregations: u32,
}

/// What relata knows of one query's nodes.
#[derive(Debug, Default)]
pub(crate) struct QueryRows {
    rows: HashMap<Place, f64>,
    /// From the left.
    scans: Vec<Scan>,
}

/// The output of one scan.
#[derive(Debug)]
struct Scan {
    columns: Vec<String>,
    rows: Option<f64>,
}

impl QueryRows {
    pub(crate) fn new(estimator: &Estimator<'_>, plan: &LogicalPlan) -> Self {
        let mut known = Self::default();
        known.visit(estimator, plan, false);
        known
    }

    /// Records the rows of every node below `plan`; within a region the caller has done so for its joins.
    fn visit(&mut self, estimator: &Estimator<'_>, plan: &LogicalPlan, in_region: bool) -> Place {
        if let LogicalPlan::TableScan(scan) = plan {
            let columns = scan.projected_schema.fields().iter().map(|f| f.name().clone()).collect();
            let own = rows(estimator, plan);
            self.scans.push(Scan { columns, rows: own.is_known().then_some(own.rows) });
            let place = Place { scans: 1u128.checked_shl(self.scans.len() as u32 - 1).unwrap_or(0), aggregations: 0 };
            self.record(place, own.is_known().then_some(own.rows));
            return place;
        }
        let transparent = JoinGraph::is_transparent(plan);
        let first = self.scans.len();
        let mut leaves = Vec::new();
        let place = if transparent && !in_region {
            let place = self.visit_inputs(estimator, plan, true, &mut leaves);
            self.region(estimator, plan, first);
            place
        } else {
            self.visit_inputs(estimator, plan, transparent, &mut leaves)
        };
        let aggregates = matches!(plan, LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_));
        let place = Place { aggregations: place.aggregations + u32::from(aggregates), ..place };
        if !transparent {
            let own = rows(estimator, plan);
            self.record(place, own.is_known().then_some(own.rows));
        }
        place
    }

    fn visit_inputs(
        &mut self,
        estimator: &Estimator<'_>,
        plan: &LogicalPlan,
        in_region: bool,
        places: &mut Vec<Place>,
    ) -> Place {
        places.extend(plan.inputs().into_iter().map(|input| self.visit(estimator, input, in_region)));
        places.iter().fold(Place { scans: 0, aggregations: 0 }, |all, one| Place {
            scans: all.scans | one.scans,
            aggregations: all.aggregations + one.aggregations,
        })
    }

    /// Records the rows of every join of a region whose scans start at `first`.
    fn region(&mut self, estimator: &Estimator<'_>, plan: &LogicalPlan, first: usize) {
        let Some(graph) = JoinGraph::from_plan(plan) else { return };
        let mut region = Region::new(estimator, &graph);
        let mut of_position = vec![0; graph.relations.len()];
        for (index, relation) in graph.relations.iter().enumerate() {
            of_position[relation.position] = index;
        }
        let mut walk = Walk { of_position, position: 0, scan: first, found: Vec::new() };
        walk.node(plan);
        for (set, place) in walk.found {
            let estimate = region.set(set);
            self.record(place, estimate.is_known().then_some(estimate.rows));
        }
    }

    fn record(&mut self, place: Place, rows: Option<f64>) {
        if let Some(rows) = rows.filter(|_| place.scans != 0) {
            self.rows.insert(place, rows);
        }
    }
}

/// Ties the nodes of a region to their places.
struct Walk {
    of_position: Vec<usize>,
    position: usize,
    scan: usize,
    found: Vec<(RelationSet, Place)>,
}

impl Walk {
    fn node(&mut self, plan: &LogicalPlan) -> (RelationSet, Place) {
        let (set, place) = if JoinGraph::is_transparent(plan) {
            let empty = (RelationSet::default(), Place { scans: 0, aggregations: 0 });
            plan.inputs().into_iter().fold(empty, |(set, place), input| {
                let (own_set, own) = self.node(input);
                let aggregations = place.aggregations + own.aggregations;
                (set.union(own_set), Place { scans: place.scans | own.scans, aggregations })
            })
        } else {
            let relation = self.of_position.get(self.position).copied().unwrap_or(0);
            self.position += 1;
            (RelationSet::single(relation), self.leaf(plan))
        };
        self.found.push((set, place));
        (set, place)
    }

    fn leaf(&mut self, plan: &LogicalPlan) -> Place {
        if matches!(plan, LogicalPlan::TableScan(_)) {
            self.scan += 1;
            return Place { scans: 1u128.checked_shl(self.scan as u32 - 1).unwrap_or(0), aggregations: 0 };
        }
        let aggregates = matches!(plan, LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_));
        plan.inputs().into_iter().fold(Place { scans: 0, aggregations: u32::from(aggregates) }, |all, input| {
            let own = self.leaf(input);
            Place { scans: all.scans | own.scans, aggregations: all.aggregations + own.aggregations }
        })
    }
}

/// Which scan each leaf of the physical plan is; the plans are kept so that no address is used twice.
type Leaves = Vec<Arc<dyn ExecutionPlan>>;

/// The physical rule that ties the leaves, and the provider that answers from there on.
pub(crate) fn hooks(
    known: QueryRows,
    counters: Arc<Counters>,
) -> (Arc<dyn PhysicalOptimizerRule + Send + Sync>, Arc<dyn StatisticsProvider>) {
    let shared = Arc::new(Shared { known, leaves: OnceLock::new(), counters });
    (Arc::new(IdentifyScans(Arc::clone(&shared))), Arc::new(RelataStatistics(shared)))
}

#[derive(Debug)]
struct Shared {
    known: QueryRows,
    leaves: OnceLock<Leaves>,
    counters: Arc<Counters>,
}

/// Runs first: ties the leaves of the initial physical plan to the scans of the logical one.
#[derive(Debug)]
struct IdentifyScans(Arc<Shared>);

impl PhysicalOptimizerRule for IdentifyScans {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        fn leaves(plan: &Arc<dyn ExecutionPlan>, found: &mut Leaves) {
            let inputs = plan.children();
            if inputs.is_empty() {
                found.push(Arc::clone(plan));
            }
            inputs.into_iter().for_each(|input| leaves(input, found));
        }
        let mut found = Vec::new();
        leaves(&plan, &mut found);
        let scans = &self.0.known.scans;
        let same = |leaf: &Arc<dyn ExecutionPlan>, scan: &Scan| {
            let schema = leaf.schema();
            let mut names = schema.fields().iter().map(|field| field.name());
            schema.fields().len() == scan.columns.len() && scan.columns.iter().all(|name| names.next() == Some(name))
        };
        let all_same = found.len() == scans.len() && found.iter().zip(scans).all(|(leaf, scan)| same(leaf, scan));
        if all_same && scans.len() <= RelationSet::CAPACITY {
            let _ = self.0.leaves.set(found);
        } else {
            count(&self.0.counters.unidentified);
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
struct RelataStatistics(Arc<Shared>);

impl StatisticsProvider for RelataStatistics {
    fn compute_statistics(&self, plan: &dyn ExecutionPlan, inputs: &[ExtendedStatistics]) -> Result<StatisticsResult> {
        let Some(leaves) = self.0.leaves.get() else { return Ok(StatisticsResult::Delegate) };
        if inputs.is_empty() {
            let address = std::ptr::from_ref(plan).cast::<()>();
            let Some(scan) = leaves.iter().position(|leaf| Arc::as_ptr(leaf).cast::<()>() == address) else {
                return Ok(StatisticsResult::Delegate);
            };
            let rows = self.0.known.scans[scan].rows;
            return Ok(rows.map_or(StatisticsResult::Delegate, |rows| {
                computed(plan, rows, Place { scans: 1 << scan, aggregations: 0 })
            }));
        }
        let places: Option<Vec<Place>> = inputs.iter().map(|input| input.get_extension::<Place>().copied()).collect();
        let known = places.and_then(|places| {
            let final_aggregate =
                plan.downcast_ref::<AggregateExec>().is_some_and(|a| *a.mode() != AggregateMode::Partial);
            let place = places.iter().fold(Place { scans: 0, aggregations: u32::from(final_aggregate) }, |all, one| {
                Place { scans: all.scans | one.scans, aggregations: all.aggregations + one.aggregations }
            });
            Some((place, *self.0.known.rows.get(&place)?))
        });
        if let Some((place, rows)) = known {
            return Ok(computed(plan, rows, place));
        }
        let inputs: Vec<Arc<Statistics>> = inputs.iter().map(|input| Arc::clone(input.base_arc())).collect();
        let statistics = plan.statistics_from_inputs(&inputs, &StatisticsArgs::new())?;
        Ok(StatisticsResult::Computed(ExtendedStatistics::new_arc(statistics)))
    }
}

/// Bytes assumed of a value of variable length.
const VARIABLE_BYTES: usize = 24;

fn computed(plan: &dyn ExecutionPlan, rows: f64, place: Place) -> StatisticsResult {
    let schema = plan.schema();
    let width: usize = schema.fields().iter().map(|f| f.data_type().primitive_width().unwrap_or(VARIABLE_BYTES)).sum();
    let rows = rows.clamp(0.0, 1e15).round() as usize;
    let mut statistics = ExtendedStatistics::new(Statistics {
        num_rows: Precision::Inexact(rows),
        total_byte_size: Precision::Inexact(rows.saturating_mul(width)),
        column_statistics: vec![ColumnStatistics::new_unknown(); schema.fields().len()],
    });
    statistics.set_extension(place);
    StatisticsResult::Computed(statistics)
}
