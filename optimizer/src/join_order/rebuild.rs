//! A join tree -> logical plan.

use std::sync::Arc;

use datafusion::common::DFSchemaRef;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan, LogicalPlanBuilder, Projection};
use relata_featurize::join_graph::{JoinGraph, RelationSet};

use super::enumerate::JoinTree;

/// The plan of a tree with the columns of `schema`, in its order.
pub(super) fn plan(graph: &JoinGraph, tree: &JoinTree, schema: &DFSchemaRef) -> Result<LogicalPlan> {
    let joined = node(graph, tree)?;
    if joined.schema() == schema {
        return Ok(joined);
    }
    Ok(LogicalPlan::Projection(Projection::new_from_schema(Arc::new(joined), Arc::clone(schema))))
}

fn node(graph: &JoinGraph, tree: &JoinTree) -> Result<LogicalPlan> {
    let Some(sides) = &tree.sides else { return relation(graph, tree.set) };
    let (build, probe) = (&sides.0, &sides.1);
    let keys = graph.keys_between(build.set, probe.set);
    let (left, right): (Vec<Expr>, Vec<Expr>) = keys.iter().map(|(l, r)| (l.expr.clone(), r.expr.clone())).unzip();
    // A condition over several relations stands at the first join that has them all.
    let complete = |set: RelationSet| move |relations: RelationSet| relations.is_subset(set);
    let residual = graph.residuals.iter().filter(|r| {
        complete(tree.set)(r.relations) && !complete(build.set)(r.relations) && !complete(probe.set)(r.relations)
    });
    let filter = conjunction(residual.map(|r| r.expr.clone()));
    LogicalPlanBuilder::from(node(graph, build)?)
        .join_with_expr_keys(node(graph, probe)?, JoinType::Inner, (left, right), filter)?
        .build()
}

/// A relation under the filters that stood above it; two members of one key class within it are equal.
fn relation(graph: &JoinGraph, set: RelationSet) -> Result<LogicalPlan> {
    let index = set.iter().next().ok_or_else(|| DataFusionError::Internal("a tree without relations".into()))?;
    let relation = &graph.relations[index];
    let mut filters = relation.filters.clone();
    for class in &graph.classes {
        let own: Vec<&Expr> = class.members.iter().filter(|m| m.relation == index).map(|m| &m.expr).collect();
        filters.extend(own.windows(2).map(|pair| pair[0].clone().eq(pair[1].clone())));
    }
    match conjunction(filters) {
        Some(filter) => LogicalPlanBuilder::from(relation.plan.clone()).filter(filter)?.build(),
        None => Ok(relation.plan.clone()),
    }
}
