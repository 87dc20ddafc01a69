//! SQL -> the join graph that estimates and counts are about.

use anyhow::Result;
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};
use datafusion::prelude::{SessionConfig, SessionContext};
use relata_featurize::groups::GroupColumn;
use relata_featurize::join_graph::{JoinGraph, Relation};

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

/// The part of a query that relata estimates.
#[derive(Debug)]
pub struct Planned {
    /// Its joins and filters.
    pub graph: JoinGraph,
    /// The columns it is grouped by; `None` without GROUP BY.
    pub groups: Option<Vec<GroupColumn>>,
}

impl Planned {
    /// Plans a query up to DataFusion's logical optimizer. `None` if it is no inner join of base tables, with at most a
    /// GROUP BY of bare columns above it.
    ///
    /// # Errors
    /// When DataFusion cannot plan the query.
    pub async fn new(context: &SessionContext, sql: &str) -> Result<Option<Self>> {
        let state = context.state();
        let plan = state.optimize(&state.create_logical_plan(sql).await?)?;
        let (aggregate, input) = input_of_aggregate(&plan);
        let Some(graph) = JoinGraph::from_plan(input) else { return Ok(None) };
        if graph.relations.iter().any(|relation| relation.scan.is_none()) {
            return Ok(None);
        }
        let groups = match aggregate {
            None => None,
            Some(aggregate) if aggregate.group_expr.is_empty() => None,
            Some(aggregate) => {
                let columns: Option<Vec<GroupColumn>> =
                    aggregate.group_expr.iter().map(|expr| group_column(expr, &graph.relations)).collect();
                match columns {
                    Some(columns) => Some(columns),
                    None => return Ok(None),
                }
            }
        };
        Ok(Some(Self { graph, groups }))
    }
}

/// The first aggregate from the top and its input; the plan itself where there is none.
fn input_of_aggregate(plan: &LogicalPlan) -> (Option<&Aggregate>, &LogicalPlan) {
    let mut node = plan;
    loop {
        node = match node {
            LogicalPlan::Aggregate(aggregate) => return (Some(aggregate), &aggregate.input),
            LogicalPlan::Projection(projection) => &projection.input,
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            LogicalPlan::Sort(sort) => &sort.input,
            _ => return (None, plan),
        };
    }
}

fn group_column(expr: &Expr, relations: &[Relation]) -> Option<GroupColumn> {
    let Expr::Column(name) = expr else { return None };
    let relation = relations.iter().position(|relation| relation.plan.schema().has_column(name))?;
    Some(GroupColumn { relation, column: relations[relation].table_column(name)? })
}
