//! Dynamic filters that reach the columns they were made for.
//!
//! A hash join, a TopK or an aggregate hands what it learns while it runs to the scans below it. DataFusion's physical filter
//! pushdown finds the column such a filter is about by name, and takes the first of that name
//! (<https://github.com/apache/datafusion/issues/25244>): above a join of two tables with an `id` each, a filter about the one
//! may be applied to the other, and rows are lost. Which plans are hit depends on the order of the joins, so an order of
//! relata's could answer otherwise than the query's own. This rule lets the pushdown run, follows every filter by position to
//! the column that it lands on, and keeps back those that went astray.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::catalog::memory::DataSourceExec;
use datafusion::common::JoinSide;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::error::Result;
use datafusion::logical_expr::JoinType;
use datafusion::physical_expr::expressions::{Column, DynamicFilterPhysicalExpr, lit};
use datafusion::physical_optimizer::{PhysicalOptimizerContext, PhysicalOptimizerRule};
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::utils::build_join_schema;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::union::{InterleaveExec, UnionExec};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr, replace_children_if_necessary};
use smallvec::{SmallVec, smallvec};

/// The name of the rule that this one runs and checks.
const CHECKED: &str = "FilterPushdown(Post)";

/// Checks what the rule among these pushes down.
pub(crate) fn check(rules: &mut [Arc<dyn PhysicalOptimizerRule + Send + Sync>]) {
    for rule in rules.iter_mut().filter(|rule| rule.name() == CHECKED) {
        *rule = Arc::new(CheckedPushdown(Arc::clone(rule)));
    }
}

/// The rule.
#[derive(Debug)]
pub(crate) struct CheckedPushdown(pub(crate) Arc<dyn PhysicalOptimizerRule + Send + Sync>);

impl PhysicalOptimizerRule for CheckedPushdown {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let pushed = self.0.optimize(Arc::clone(&plan), config)?;
        let astray = astray(&pushed);
        if astray.is_empty() {
            return Ok(pushed);
        }
        // A join that has a filter is given no other, and one that no scan reads costs nothing.
        let pushed = self.0.optimize(without_filters(&plan, &astray, &mut 0)?, config)?;
        if self::astray(&pushed).is_empty() {
            return Ok(pushed);
        }
        let mut config = config.clone();
        config.set("datafusion.optimizer.enable_dynamic_filter_pushdown", "false")?;
        self.0.optimize(plan, &config)
    }

    fn optimize_with_context(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: &dyn PhysicalOptimizerContext,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.optimize(plan, context.config_options())
    }

    fn name(&self) -> &str {
        CHECKED
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// A column of a leaf of the plan: the leaf's number and the column's name, which no other column of a leaf has.
type Source = (usize, Arc<str>);
/// Where the values of a column of a node may come from: one column, one of each input of a union, the two equal keys of a
/// semi-join; none where the node computes them.
type Sources = SmallVec<[Source; 1]>;

/// The hash joins, counted inputs first, with a filter on a column that it was not made for; `None` for another operator, or
/// where the plan cannot be followed.
fn astray(plan: &Arc<dyn ExecutionPlan>) -> Vec<Option<usize>> {
    let mut followed = Followed::default();
    followed.node(plan).map_or_else(|_| vec![None], |_| followed.astray)
}

/// A plan followed from its leaves to its root.
#[derive(Default)]
struct Followed {
    leaves: usize,
    joins: usize,
    /// The columns that each use of a filter lands on, by the filter's id.
    landings: HashMap<u64, Vec<Vec<Sources>>>,
    astray: Vec<Option<usize>>,
}

impl Followed {
    /// Sources of the node's columns; its filters are noted on the way.
    fn node(&mut self, plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<Sources>> {
        let inputs = plan.children().into_iter().map(|child| self.node(child)).collect::<Result<Vec<_>>>()?;
        let join = plan.is::<HashJoinExec>().then_some(self.joins);
        self.joins += usize::from(join.is_some());
        let produced = plan.dynamic_expressions_produced();
        for filter in &produced {
            let (Some(id), Some(input)) = (filter.expression_id(), inputs.last()) else { continue };
            let made_for = columns(filter, &|column| input.get(column.index()).cloned().unwrap_or_default());
            let arrived = |landing: &Vec<Sources>| {
                landing.len() == made_for.len()
                    && landing
                        .iter()
                        .zip(&made_for)
                        .all(|(at, of)| !at.is_empty() && at.iter().all(|at| of.contains(at)))
            };
            if !self.landings.remove(&id).is_none_or(|landings| landings.iter().all(arrived)) {
                self.astray.push(join);
            }
        }
        let leaf = self.leaves;
        self.leaves += usize::from(inputs.is_empty());
        plan.apply_expressions(&mut |expression| {
            let mut left = vec![Arc::clone(expression)];
            while let Some(expression) = left.pop() {
                let id = expression.expression_id().filter(|_| expression.is::<DynamicFilterPhysicalExpr>());
                let own = produced.iter().any(|produced| produced.expression_id() == id);
                if let (Some(id), false) = (id, own) {
                    // A leaf's filters are in the columns of its table, of which it gives some in any order.
                    let landing = columns(&expression, &|column| match inputs.first() {
                        Some(input) => input.get(column.index()).cloned().unwrap_or_default(),
                        None => smallvec![(leaf, Arc::from(column.name()))],
                    });
                    self.landings.entry(id).or_default().push(landing);
                }
                left.extend(expression.children().into_iter().cloned());
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(if inputs.is_empty() { named(plan.as_ref(), leaf) } else { sources(plan.as_ref(), inputs) })
    }
}

/// The sources of the columns in a filter's arguments, in order.
fn columns(filter: &Arc<dyn PhysicalExpr>, source: &dyn Fn(&Column) -> Sources) -> Vec<Sources> {
    let mut found = Vec::new();
    let mut left: Vec<&Arc<dyn PhysicalExpr>> = filter.children();
    left.reverse();
    while let Some(expression) = left.pop() {
        found.extend(expression.downcast_ref::<Column>().map(source));
        left.extend(expression.children().into_iter().rev());
    }
    found
}

/// The columns of a leaf, which a scan of files may rename.
fn named(plan: &dyn ExecutionPlan, leaf: usize) -> Vec<Sources> {
    let source = |name: &str| -> Sources { smallvec![(leaf, Arc::from(name))] };
    let scan =
        plan.downcast_ref::<DataSourceExec>().and_then(|scan| scan.data_source().downcast_ref::<FileScanConfig>());
    match scan.and_then(|scan| scan.file_source().projection()) {
        Some(projection) => projection
            .iter()
            .map(|projected| {
                projected.expr.downcast_ref::<Column>().map(|column| source(column.name())).unwrap_or_default()
            })
            .collect(),
        None => plan.schema().fields().iter().map(|field| source(field.name())).collect(),
    }
}

/// The sources of an operator's columns, from those of its inputs; none for what it computes or what is not known here.
fn sources(plan: &dyn ExecutionPlan, mut inputs: Vec<Vec<Sources>>) -> Vec<Sources> {
    let of = |expression: &Arc<dyn PhysicalExpr>, input: &[Sources]| {
        let column = expression.downcast_ref::<Column>();
        column.and_then(|column| input.get(column.index()).cloned()).unwrap_or_default()
    };
    let projected = |columns: Vec<Sources>, projection: Option<&[usize]>| match projection {
        Some(projection) => projection.iter().map(|&at| columns.get(at).cloned().unwrap_or_default()).collect(),
        None => columns,
    };
    let mut own = if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        projection.expr().iter().map(|projected| of(&projected.expr, &inputs[0])).collect()
    } else if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        aggregate.group_expr().expr().iter().map(|(group, _)| of(group, &inputs[0])).collect()
    } else if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        projected(inputs.swap_remove(0), filter.projection().as_deref())
    } else if plan.is::<UnionExec>() || plan.is::<InterleaveExec>() {
        let mut inputs = inputs.into_iter();
        let mut all = inputs.next().unwrap_or_default();
        for input in inputs {
            all.iter_mut().zip(input).for_each(|(all, more)| all.extend(more));
        }
        all
    } else if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        projected(joined(plan, inputs, *join.join_type(), join.on()), join.projection.as_deref())
    } else if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
        projected(joined(plan, inputs, *join.join_type(), &[]), join.projection().as_deref())
    } else if let Some(join) = plan.downcast_ref::<SortMergeJoinExec>() {
        joined(plan, inputs, join.join_type(), join.on())
    } else if plan.is::<CrossJoinExec>() {
        joined(plan, inputs, JoinType::Inner, &[])
    } else if inputs.len() == 1 {
        // Sorts, repartitionings, limits keep the columns; windows add theirs after them.
        let (from, to) = (plan.children()[0].schema(), plan.schema());
        let kept = from.fields().iter().zip(to.fields()).take_while(|(from, to)| from.name() == to.name()).count();
        let mut columns = inputs.swap_remove(0);
        columns.truncate(if kept == from.fields().len() { kept } else { 0 });
        columns
    } else {
        Vec::new()
    };
    own.resize_with(plan.schema().fields().len(), Sources::default);
    own
}

type JoinKeys<'a> = &'a [(Arc<dyn PhysicalExpr>, Arc<dyn PhysicalExpr>)];

/// The sources of the columns of a join before its projection. The two keys of a semi-join are equal, and DataFusion hands
/// filters on the one to the other.
fn joined(
    plan: &dyn ExecutionPlan,
    mut inputs: Vec<Vec<Sources>>,
    join_type: JoinType,
    on: JoinKeys<'_>,
) -> Vec<Sources> {
    let children = plan.children();
    let (_, indices) = build_join_schema(&children[0].schema(), &children[1].schema(), &join_type);
    if matches!(join_type, JoinType::LeftSemi | JoinType::RightSemi) {
        for (left, right) in on {
            let column = |key: &Arc<dyn PhysicalExpr>| key.downcast_ref::<Column>().map(Column::index);
            if let (Some(left), Some(right)) = (column(left), column(right)) {
                let (of_left, of_right) = (inputs[0][left].clone(), inputs[1][right].clone());
                inputs[0][left].extend(of_right);
                inputs[1][right].extend(of_left);
            }
        }
    }
    let source = |side: JoinSide, at: usize| match side {
        JoinSide::Left => inputs[0].get(at).cloned().unwrap_or_default(),
        JoinSide::Right => inputs[1].get(at).cloned().unwrap_or_default(),
        JoinSide::None => Sources::default(),
    };
    indices.into_iter().map(|column| source(column.side, column.index)).collect()
}

/// The plan whose hash joins of these numbers hold a filter that nothing reads.
fn without_filters(
    plan: &Arc<dyn ExecutionPlan>,
    astray: &[Option<usize>],
    joins: &mut usize,
) -> Result<Arc<dyn ExecutionPlan>> {
    let children = plan.children().into_iter().map(|child| without_filters(child, astray, joins));
    let plan = replace_children_if_necessary(Arc::clone(plan), children.collect::<Result<Vec<_>>>()?)?;
    let Some(join) = plan.downcast_ref::<HashJoinExec>() else { return Ok(plan) };
    *joins += 1;
    if !astray.contains(&Some(*joins - 1)) {
        return Ok(plan);
    }
    let keys = join.on().iter().map(|(_, probe)| Arc::clone(probe)).collect();
    let unread = Arc::new(DynamicFilterPhysicalExpr::new(keys, lit(true)));
    Ok(Arc::new(join.builder().build()?.with_dynamic_filter_expr(unread)?))
}

#[cfg(test)]
mod tests;
