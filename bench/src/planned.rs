//! SQL -> the join graph that estimates and counts are about.

use anyhow::Result;
use datafusion::common::JoinType;
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::{Aggregate, Expr, FetchType, Join, LogicalPlan};
use datafusion::prelude::{SessionConfig, SessionContext};
use relata_featurize::analytical::ValueExpr;
use relata_featurize::answer::AggregateFunction;
use relata_featurize::groups::GroupColumn;
use relata_featurize::join_graph::{JoinGraph, Relation, RelationSet, column_of};

/// A session that plans and counts on one thread.
///
/// Dynamic filters stay off: with them DataFusion 55.2 returns wrong counts now and then.
pub fn labelling_context() -> SessionContext {
    let config = SessionConfig::new()
        .with_target_partitions(1)
        .with_information_schema(false)
        .set_bool("datafusion.optimizer.enable_dynamic_filter_pushdown", false);
    SessionContext::new_with_state(SessionStateBuilder::new().with_default_features().with_config(config).build())
}

/// The part of a query that is estimated and counted.
#[derive(Debug)]
pub struct Planned {
    /// Its joins and filters; an outer, semi or anti join at the top counts as an inner one here.
    pub graph: JoinGraph,
    /// That join.
    pub outer: Option<OuterJoin>,
    /// The columns it is grouped by; `None` without GROUP BY.
    pub groups: Option<Vec<GroupColumn>>,
    /// Whether the groups have to meet a condition.
    pub having: bool,
    /// The one aggregate over all rows, COUNT(*) aside.
    pub aggregate: Option<Aggregation>,
    /// Rows of the result at most.
    pub limit: Option<usize>,
}

/// An outer, semi or anti join of two inner joins.
#[derive(Debug, Clone, Copy)]
pub struct OuterJoin {
    /// Its type.
    pub join_type: JoinType,
    /// The relations of its left side.
    pub left: RelationSet,
    /// The relations of its right side.
    pub right: RelationSet,
    /// The relation on the left that holds its keys.
    pub left_key: usize,
    /// The relation on the right that does.
    pub right_key: usize,
}

/// An aggregate of a column.
#[derive(Debug, Clone)]
pub struct Aggregation {
    /// What it computes.
    pub function: AggregateFunction,
    /// Of which column,
    pub column: GroupColumn,
    /// as the query names it.
    pub value: ValueExpr,
}

impl Planned {
    /// Plans a query up to DataFusion's logical optimizer. `None` if it is no join of base tables, all inner but the
    /// topmost, under at most one aggregation of bare columns, a condition on its groups, and a LIMIT.
    ///
    /// # Errors
    /// When DataFusion cannot plan the query.
    pub async fn new(context: &SessionContext, sql: &str) -> Result<Option<Self>> {
        let state = context.state();
        let plan = state.optimize(&state.create_logical_plan(sql).await?)?;
        let top = Top::of(&plan);
        let Some((graph, outer)) = join_graph(top.input) else { return Ok(None) };
        if graph.relations.iter().any(|relation| relation.scan.is_none()) {
            return Ok(None);
        }
        let (mut groups, mut aggregate) = (None, None);
        match top.aggregate {
            Some(node) if !node.group_expr.is_empty() => {
                let columns: Option<Vec<GroupColumn>> =
                    node.group_expr.iter().map(|expr| base_column(expr, &graph.relations)).collect();
                if columns.is_none() {
                    return Ok(None);
                }
                groups = columns;
            }
            Some(node) => {
                let Some(found) = aggregation(node, &graph) else { return Ok(None) };
                aggregate = found;
            }
            // A filter below no aggregate belongs to the join.
            None if top.having => return Ok(None),
            None => {}
        }
        Ok(Some(Self { graph, outer, groups, having: top.having, aggregate, limit: top.limit }))
    }
}

/// What stands above the join.
struct Top<'a> {
    aggregate: Option<&'a Aggregate>,
    having: bool,
    limit: Option<usize>,
    input: &'a LogicalPlan,
}

impl<'a> Top<'a> {
    fn of(plan: &'a LogicalPlan) -> Self {
        let mut top = Self { aggregate: None, having: false, limit: None, input: plan };
        let mut node = plan;
        loop {
            node = match node {
                LogicalPlan::Aggregate(aggregate) => {
                    top.aggregate = Some(aggregate);
                    top.input = &aggregate.input;
                    return top;
                }
                LogicalPlan::Sort(sort) => {
                    top.limit = top.limit.or(sort.fetch);
                    top.input = &sort.input;
                    &sort.input
                }
                LogicalPlan::Limit(limit) => {
                    if let Ok(FetchType::Literal(fetch)) = limit.get_fetch_type() {
                        top.limit = fetch;
                    }
                    top.input = &limit.input;
                    &limit.input
                }
                LogicalPlan::Projection(projection) => &projection.input,
                LogicalPlan::SubqueryAlias(alias) => &alias.input,
                LogicalPlan::Filter(filter) if has_aggregate(&filter.input) => {
                    top.having = true;
                    &filter.input
                }
                _ => return top,
            }
        }
    }
}

/// Whether a plan is an aggregate under projections.
fn has_aggregate(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(_) => true,
        LogicalPlan::Projection(projection) => has_aggregate(&projection.input),
        _ => false,
    }
}

/// The graph of a join; that of an outer, semi or anti join at the top is the one of the inner join.
fn join_graph(plan: &LogicalPlan) -> Option<(JoinGraph, Option<OuterJoin>)> {
    let mut node = plan;
    while let LogicalPlan::Projection(projection) = node
        && projection.expr.iter().all(|expr| matches!(expr, Expr::Column(_)))
    {
        node = &projection.input;
    }
    match node {
        // A condition beside the keys holds for the pairs of an outer join only.
        LogicalPlan::Join(join) if join.join_type != JoinType::Inner && join.filter.is_none() => {
            let sides =
                (JoinGraph::from_plan(&join.left)?.relations.len(), JoinGraph::from_plan(&join.right)?.relations.len());
            let inner = LogicalPlan::Join(Join { join_type: JoinType::Inner, ..join.clone() });
            let graph = JoinGraph::from_plan(&inner)?;
            if !JoinGraph::is_transparent(&inner) || graph.relations.len() != sides.0 + sides.1 {
                return None;
            }
            let side = |left: bool| {
                let members = (0..graph.relations.len()).filter(|&r| (graph.relations[r].position < sides.0) == left);
                members.fold(RelationSet::default(), |set, member| set.union(RelationSet::single(member)))
            };
            let left_key = key_relation(&graph, join.on.iter().map(|(left, _)| left))?;
            let right_key = key_relation(&graph, join.on.iter().map(|(_, right)| right))?;
            let outer =
                OuterJoin { join_type: join.join_type, left: side(true), right: side(false), left_key, right_key };
            Some((graph, Some(outer)))
        }
        _ => Some((JoinGraph::from_plan(plan)?, None)),
    }
}

/// The one relation whose columns the keys are.
fn key_relation<'e>(graph: &JoinGraph, keys: impl Iterator<Item = &'e Expr>) -> Option<usize> {
    let owner = |key: &Expr| {
        let column = column_of(key)?;
        graph.relations.iter().position(|relation| relation.plan.schema().has_column(column))
    };
    let owners: Vec<Option<usize>> = keys.map(owner).collect();
    let first = *owners.first()?;
    owners.iter().all(|owner| *owner == first).then_some(first)?
}

/// The only aggregate of a node without groups: `Some(None)` for COUNT(*), `None` for what is not counted here.
fn aggregation(node: &Aggregate, graph: &JoinGraph) -> Option<Option<Aggregation>> {
    let [expr] = node.aggr_expr.as_slice() else { return None };
    let mut expr = expr;
    while let Expr::Alias(alias) = expr {
        expr = &alias.expr;
    }
    let Expr::AggregateFunction(call) = expr else { return None };
    if call.params.distinct || call.params.filter.is_some() {
        return None;
    }
    let function = match call.func.name() {
        "count" if matches!(call.params.args[..], [Expr::Literal(..)]) => return Some(None),
        "avg" => AggregateFunction::Avg,
        "sum" => AggregateFunction::Sum,
        "min" => AggregateFunction::Min,
        "max" => AggregateFunction::Max,
        _ => return None,
    };
    let [argument] = call.params.args.as_slice() else { return None };
    let name = Expr::Column(column_of(argument)?.clone());
    let column = base_column(&name, &graph.relations)?;
    Some(Some(Aggregation { function, column, value: ValueExpr::new(graph, name)? }))
}

fn base_column(expr: &Expr, relations: &[Relation]) -> Option<GroupColumn> {
    let Expr::Column(name) = expr else { return None };
    let relation = relations.iter().position(|relation| relation.plan.schema().has_column(name))?;
    Some(GroupColumn { relation, column: relations[relation].table_column(name)? })
}
