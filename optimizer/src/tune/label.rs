//! An executed query -> feature graphs with the rows that were counted.

use std::sync::Arc;
use std::time::Duration;

use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Aggregate, LogicalPlan};
use datafusion::physical_plan::execute_stream;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use futures::StreamExt;
use hashbrown::HashMap;
use relata_experts::train::tune::Answer;
use relata_featurize::groups::GroupColumn;
use relata_featurize::join_graph::{JoinGraph, RelationSet, column_of};
use relata_featurize::logical::{Tables, log_rows, query_graph};
use relata_featurize::trace::LabelledGraph;
use tokio::task::JoinSet;

use super::counted::CountRows;
use crate::estimate::{Estimator, Origin, Region, group_column, is_region};
use crate::join_order;
use crate::planner::PlanningSession;
use crate::statistics::{Place, QueryRows, scans};
use crate::{Relata, RelataError, Result};

/// A region of a query with the rows that were counted; the query's own estimate, where the region gives it.
pub(super) type Labelled = (LabelledGraph, Option<Answer>);

/// The plan of a query whose rows are counted, and what they were.
pub(super) struct Counted {
    plan: LogicalPlan,
    rows: HashMap<Place, f64>,
}

/// Executes a query in relata's order and counts the rows of its nodes; its result is dropped as it comes.
pub(super) async fn execute(relata: &Relata, state: &SessionState, sql: &str, timeout: Duration) -> Result<Counted> {
    let plan = crate::optimizer::optimized(state, sql).await?;
    let (plan, known) = {
        let estimator = relata.estimator();
        let partitions = state.config().target_partitions();
        let model = relata.cost_model.as_ref();
        let plan = join_order::reorder(&estimator, &relata.config, model, partitions, plan)?;
        let known = || QueryRows::new(&estimator, model, &plan);
        let (Some(for_planning), Some(for_counting)) = (known(), known()) else {
            return Err(RelataError::Tuning("nothing is known about the query".to_owned()));
        };
        (plan, (for_planning, for_counting))
    };
    let count = Arc::new(CountRows::new(known.1));
    let mut rules = vec![Arc::clone(&count) as _];
    rules.extend(state.physical_optimizers().iter().map(Arc::clone));
    let state = SessionStateBuilder::new_from_existing(state.clone()).with_physical_optimizer_rules(rules).build();
    let session = PlanningSession::new(&state, Some(known.0), &relata.config, relata);
    let physical = DefaultPhysicalPlanner::default().create_physical_plan(&plan, &session).await?;
    let mut stream = execute_stream(physical, state.task_ctx())?;
    // A task of its own, which is left behind where it never yields.
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some(batch) = stream.next().await {
            batch?;
        }
        Ok::<(), DataFusionError>(())
    });
    let failed = |reason: String| RelataError::Tuning(reason);
    match tokio::time::timeout(timeout, tasks.join_next()).await {
        Ok(Some(drained)) => drained.map_err(|panic| failed(panic.to_string()))??,
        Ok(None) | Err(_) => return Err(failed(format!("a query took more than {} s", timeout.as_secs_f64()))),
    }
    Ok(Counted { plan, rows: count.rows() })
}

/// A session to count in: without dynamic filters, which leave out rows of the nodes that are counted.
pub(super) fn counting_session(state: &SessionState) -> SessionState {
    let mut state = state.clone();
    state.config_mut().options_mut().optimizer.enable_dynamic_filter_pushdown = false;
    state
}

impl Counted {
    /// The graphs of the query's regions of inner joins; `tables` are those that they refer to.
    pub(super) fn label(&self, estimator: &Estimator<'_>, tables: &mut Tables) -> Vec<Labelled> {
        let mut labels = Labels { counted: &self.rows, estimator, tables, next_scan: 0, found: vec![] };
        labels.visit(&self.plan, None, true);
        labels.found
    }
}

/// The labels of a plan's regions.
struct Labels<'a> {
    counted: &'a HashMap<Place, f64>,
    estimator: &'a Estimator<'a>,
    tables: &'a mut Tables,
    next_scan: usize,
    found: Vec<Labelled>,
}

impl Labels<'_> {
    /// `above` is the aggregate that reads the plan; `answers` whether the query's estimate is the region's.
    fn visit(&mut self, plan: &LogicalPlan, above: Option<&Aggregate>, answers: bool) {
        if !is_region(plan) {
            let above = match plan {
                LogicalPlan::Aggregate(aggregate) if !aggregate.group_expr.is_empty() => Some(aggregate),
                LogicalPlan::Projection(_) => above,
                _ => None,
            };
            let inputs = plan.inputs();
            let answers = answers && inputs.len() == 1;
            inputs.into_iter().for_each(|input| self.visit(input, above, answers));
            return;
        }
        let first = self.next_scan;
        if let Some(graph) = JoinGraph::from_plan(plan).map(Arc::new) {
            let places = places(&graph, first);
            let labelled = self.estimator.region(&graph, |region| self.region(region, &places, above));
            self.found.extend(labelled.map(|(graph, answer)| (graph, answer.filter(|_| answers))));
        }
        self.next_scan = first + scans(plan);
    }

    fn region(&mut self, region: &mut Region<'_>, places: &[Place], above: Option<&Aggregate>) -> Option<Labelled> {
        let graph = region.estimator.graph;
        let all = graph.all();
        let place = |set: RelationSet| Place::over(&set.iter().map(|r| places[r]).collect::<Vec<_>>(), false);
        let rows = |set: RelationSet| self.counted.get(&place(set)).copied().filter(|_| is_counted(graph, set));
        let columns = above.and_then(|aggregate| {
            let columns = aggregate.group_expr.iter().map(|expr| group_column(graph, column_of(expr)));
            columns.collect::<Option<Vec<GroupColumn>>>()
        });
        let sets = decomposed(graph, &rows);
        let written = query_graph(&region.estimator, &sets, columns.as_deref(), self.tables)?;
        let mut labels = vec![None; written.graph.nodes.len()];
        for &(set, node) in &written.sets {
            let exact = region.set(set).origin == Origin::Exact;
            labels[node as usize] = rows(set).filter(|_| !exact).map(log_rows);
        }
        let root = written.sets.iter().find(|(set, _)| *set == all).map(|(_, node)| *node)?;
        let groups = written.aggregate.map(|node| (node, self.counted.get(&Place { aggregations: 1, ..place(all) })));
        let (node, label) = match groups {
            Some((node, rows)) => {
                labels[node as usize] = rows.copied().map(log_rows);
                (node, rows.copied())
            }
            None => (root, rows(all)),
        };
        let exact = written.aggregate.is_none() && region.set(all).origin == Origin::Exact;
        let bound = log_rows(region.bound(all));
        let answer = label.map(|rows| Answer { node: node as usize, bound, label: log_rows(rows), exact });
        Some((LabelledGraph { graph: written.graph, labels, relations: graph.relations.len() as u32 }, answer))
    }
}

/// The place of each relation of a region whose first scan is `first`.
fn places(graph: &JoinGraph, first: usize) -> Vec<Place> {
    let mut in_order: Vec<usize> = (0..graph.relations.len()).collect();
    in_order.sort_by_key(|&relation| graph.relations[relation].position);
    let mut places = vec![Place::over(&[], false); graph.relations.len()];
    let mut next = first;
    for relation in in_order {
        let below = scans(&graph.relations[relation].plan);
        let scans: Vec<Place> = (next..next + below).map(Place::scan).collect();
        // A relation with aggregates in it has no profile, and its region no graph.
        places[relation] = Place::over(&scans, false);
        next += below;
    }
    places
}

/// Whether the rows at the place of `set` have passed all conditions among its relations, and no others: the whole region
/// has; below, a condition may be stated further up, or follow from others.
fn is_counted(graph: &JoinGraph, set: RelationSet) -> bool {
    if set == graph.all() {
        return true;
    }
    let filtered = graph.relations.iter().all(|relation| relation.filters.is_empty());
    let conditions = graph.residuals.iter().any(|residual| residual.relations.is_subset(set));
    let between = graph.classes.iter().filter(|class| {
        class.members.iter().map(|member| RelationSet::single(member.relation)).filter(|one| one.is_subset(set)).count()
            > 1
    });
    let between: Vec<usize> = between.map(|class| class.members.len()).collect();
    let stated = between.iter().all(|members| *members == 2) || (set.len() == 2 && between.len() == 1);
    filtered && !conditions && stated
}

/// The sets whose rows are known, the whole, and the rest of each set's canonical decomposition, smaller ones first.
fn decomposed(graph: &JoinGraph, rows: &impl Fn(RelationSet) -> Option<f64>) -> Vec<RelationSet> {
    /// Larger regions have more sets than are worth looking at; the experts leave those alone as well.
    const MOST_SETS: usize = 4096;
    let connected = graph.connected_sets(MOST_SETS).unwrap_or_default();
    let known = connected.into_iter().filter(|set| set.len() > 1 && rows(*set).is_some());
    let mut sets: Vec<RelationSet> = vec![];
    for mut set in known.chain([graph.all()]) {
        while set.len() > 1 && !sets.contains(&set) {
            sets.push(set);
            set = set.minus(RelationSet::single(graph.last(set)));
        }
    }
    sets.sort_unstable_by_key(|set| (set.len(), *set));
    sets
}
