//! Approximate answers: an aggregating query answered from profiles, without reading the tables.
//!
//! The plan is split at its aggregate. What is below it is a region of inner joins of base tables; each aggregate of each group
//! is asked of that region under one more filter. What is above it (HAVING, ORDER BY, LIMIT, expressions over aggregates) runs in
//! DataFusion, over a table of the approximate values; a bare aggregate gets two more columns, its interval.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{ArrayRef, RecordBatch, new_empty_array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::MemTable;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr::AggregateFunction as AggregateCall;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, Projection, ident};
use datafusion::prelude::SessionContext;
use relata_featurize::analytical::ValueExpr;
use relata_featurize::answer::AggregateFunction;
use relata_featurize::groups::GroupColumn;
use relata_featurize::join_graph::JoinGraph;

use crate::estimate::{Answer, Estimate, Origin, rows};
use crate::{Relata, RelataError, Result};

/// Groups that are answered at most, those with most rows first.
const MOST_GROUPS: usize = 1000;

/// A query split at its aggregate.
pub(crate) struct Split {
    /// The whole, with the two columns of each interval; the aggregate is a scan of [`VALUES`].
    above: LogicalPlan,
    /// The columns of the values: the aggregate's own, then the ends of the intervals.
    schema: SchemaRef,
    aggregate: Aggregate,
    graph: Option<Arc<JoinGraph>>,
}

/// The values of a group, and the join of its rows.
type Group = (Vec<ScalarValue>, Option<Arc<JoinGraph>>);

/// The name under which the approximate values are scanned.
const VALUES: &str = "approximate_values";

impl Relata {
    /// Answers an aggregating query approximately, without running it: one row per group, and for each aggregate `a` that is an
    /// output column two more, `a_lower` and `a_upper`, the ends of its 90% interval. Tables without a profile are profiled
    /// first.
    ///
    /// AVG, SUM, MIN and MAX of numbers and times, COUNT and COUNT(DISTINCT columns), with GROUP BY, over inner joins of base
    /// tables; COUNT(*) over whatever can be estimated. Groups are those that the samples have, the 1,000 with most rows at most:
    /// HAVING, ORDER BY and LIMIT see no others.
    ///
    /// # Errors
    /// [`RelataError::NoAnswer`] for a query of another form, and when DataFusion cannot parse or plan it.
    pub async fn answer(&self, ctx: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>> {
        let state = ctx.state();
        let plan = state.create_logical_plan(sql).await?;
        let split = Split::new(&state, &plan)?;
        self.answer_split(&state, &split).await
    }

    /// The answer of a query that was split.
    pub(crate) async fn answer_split(&self, state: &SessionState, split: &Split) -> Result<Vec<RecordBatch>> {
        self.profile_tables_of(&split.aggregate.input, state, Duration::MAX).await;
        let values = split.values(self)?;
        let table = Arc::new(MemTable::try_new(Arc::clone(&split.schema), vec![vec![values]])?);
        let plan = split.above.clone().transform_up(|node| {
            Ok(match node {
                LogicalPlan::TableScan(mut scan) if scan.table_name.table() == VALUES => {
                    scan.source = provider_as_source(Arc::clone(&table) as _);
                    Transformed::yes(LogicalPlan::TableScan(scan))
                }
                node => Transformed::no(node),
            })
        })?;
        let physical = state.create_physical_plan(&plan.data).await?;
        Ok(datafusion::physical_plan::collect(physical, state.task_ctx()).await?)
    }
}

fn unsupported(reason: impl std::fmt::Display) -> RelataError {
    RelataError::NoAnswer(reason.to_string())
}

impl Split {
    /// Splits a plan as SQL gives it.
    pub(crate) fn new(state: &SessionState, plan: &LogicalPlan) -> Result<Self> {
        if !plan.get_parameter_names()?.is_empty() {
            return Err(unsupported("parameters have no values"));
        }
        let options = state.config_options();
        let plan = state.analyzer().execute_and_check(plan.clone(), options, |_, _| {})?;
        let aggregate = aggregate_of(&plan)?;
        let input = state.optimize(&aggregate.input)?;
        // A condition on a column that nobody selects does not keep it; the names are what they were.
        let Aggregate { group_expr, aggr_expr, schema, .. } = aggregate;
        let aggregate = Aggregate::try_new_with_schema(Arc::new(input), group_expr, aggr_expr, schema)?;
        let mut fields: Vec<Field> = vec![];
        for (index, (_, field)) in aggregate.schema.iter().enumerate() {
            fields.push(field.as_ref().clone().with_name(format!("v{index}")).with_nullable(true));
        }
        let groups = aggregate.group_expr.len();
        for end in ["lower", "upper"] {
            for (index, field) in aggregate.schema.fields().iter().enumerate().skip(groups) {
                fields.push(Field::new(format!("v{index}_{end}"), field.data_type().clone(), true));
            }
        }
        let schema = Arc::new(Schema::new(fields));
        let above = above(&plan, &aggregate, &schema)?;
        let graph = JoinGraph::from_plan(&aggregate.input).map(Arc::new);
        Ok(Self { above, schema, aggregate, graph })
    }

    /// The schema of the answer.
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::new(self.above.schema().as_arrow().clone())
    }

    /// The approximate values: a row per group.
    fn values(&self, relata: &Relata) -> Result<RecordBatch> {
        let groups = self.aggregate.group_expr.len();
        let fields = self.schema.fields();
        let mut columns: Vec<Vec<ScalarValue>> = vec![vec![]; fields.len()];
        for (keys, graph) in self.groups(relata)? {
            let answers: Vec<Answer> = self
                .aggregate
                .aggr_expr
                .iter()
                .map(|expr| self.answer(relata, graph.as_ref(), expr))
                .collect::<Result<_>>()?;
            for (column, key) in keys.into_iter().enumerate() {
                columns[column].push(key);
            }
            let count = answers.len();
            for (index, answer) in answers.into_iter().enumerate() {
                let data_type = fields[groups + index].data_type();
                let (lower, upper) = ends(&answer, data_type);
                columns[groups + index].push(scalar(answer.value, data_type)?);
                columns[groups + count + index].push(scalar(lower, data_type)?);
                columns[groups + 2 * count + index].push(scalar(upper, data_type)?);
            }
        }
        let arrays = columns.into_iter().zip(fields).map(|(values, field)| {
            if values.is_empty() {
                return Ok(new_empty_array(field.data_type()));
            }
            let array = ScalarValue::iter_to_array(values)?;
            Ok(datafusion::arrow::compute::cast(&array, field.data_type())?)
        });
        let arrays = arrays.collect::<Result<Vec<ArrayRef>, DataFusionError>>()?;
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), arrays).map_err(DataFusionError::from)?)
    }

    /// The groups, each with its values and the join of its rows.
    fn groups(&self, relata: &Relata) -> Result<Vec<Group>> {
        let exprs = &self.aggregate.group_expr;
        if exprs.is_empty() {
            return Ok(vec![(vec![], self.graph.clone())]);
        }
        let graph = self.joined()?;
        let values: Option<Vec<ValueExpr>> =
            exprs.iter().map(|expr| ValueExpr::new(graph, expr.clone().unalias_nested().data)).collect();
        let values = values.ok_or_else(|| unsupported("GROUP BY of other things than columns of tables"))?;
        let estimator = relata.estimator();
        let sampled = estimator
            .region(graph, |region| region.estimator.sampled_groups(graph.all(), &values, MOST_GROUPS))
            .ok_or_else(|| unsupported("no sample has the columns of GROUP BY together"))?;
        let mut groups = vec![];
        for row in 0..sampled.first().map_or(0, |array| array.len()) {
            let mut of_group = graph.as_ref().clone();
            let mut keys = vec![];
            for (value, array) in values.iter().zip(&sampled) {
                let key = ScalarValue::try_from_array(array, row)?;
                let filter = match key.is_null() {
                    true => value.expr.clone().is_null(),
                    false => value.expr.clone().eq(Expr::Literal(key.clone(), None)),
                };
                of_group = of_group
                    .filtered(filter)
                    .ok_or_else(|| unsupported("GROUP BY of an expression over several tables"))?;
                keys.push(key);
            }
            groups.push((keys, Some(Arc::new(of_group))));
        }
        Ok(groups)
    }

    fn joined(&self) -> Result<&Arc<JoinGraph>> {
        let graph = self.graph.as_ref().ok_or_else(|| unsupported("too many relations"))?;
        if graph.relations.iter().any(|relation| relation.scan.is_none()) {
            return Err(unsupported("more than inner joins of tables below the aggregate"));
        }
        Ok(graph)
    }

    /// One aggregate over the rows of one group.
    fn answer(&self, relata: &Relata, group: Option<&Arc<JoinGraph>>, expr: &Expr) -> Result<Answer> {
        let Expr::AggregateFunction(AggregateCall { func, params }) = expr.clone().unalias_nested().data else {
            return Err(unsupported(expr));
        };
        if !params.order_by.is_empty() || params.null_treatment.is_some() {
            return Err(unsupported(expr));
        }
        let name = func.name();
        let everything = params.args.iter().all(|arg| matches!(arg, Expr::Literal(value, _) if !value.is_null()));
        if name == "count" && everything && !params.distinct && params.filter.is_none() {
            let joined = self.joined().ok().and(group);
            let estimator = relata.estimator();
            let estimate = match joined {
                Some(graph) => estimator.region(graph, |region| region.set(graph.all())),
                None => rows(&estimator, &self.aggregate.input),
            };
            return known(estimate);
        }
        self.joined()?;
        let mut graph = Arc::clone(group.ok_or_else(|| unsupported("too many relations"))?);
        let filtered = |graph: &JoinGraph, filter: Expr| {
            let filtered = graph.filtered(filter).map(Arc::new);
            filtered.ok_or_else(|| unsupported(format_args!("{expr}: a condition over several tables")))
        };
        if let Some(filter) = &params.filter {
            graph = filtered(&graph, filter.as_ref().clone())?;
        }
        let estimator = relata.estimator();
        let function = match name {
            "count" if params.distinct => {
                let columns = params.args.iter().map(|arg| {
                    let (relation, column) = ValueExpr::new(&graph, arg.clone())?.column()?;
                    Some(GroupColumn { relation, column })
                });
                let columns: Option<Vec<GroupColumn>> = columns.collect();
                let columns = columns.ok_or_else(|| unsupported(expr))?;
                for arg in &params.args {
                    graph = filtered(&graph, arg.clone().is_not_null())?;
                }
                return known(estimator.region(&graph, |region| region.groups(graph.all(), &columns)));
            }
            "count" => {
                for arg in params.args.iter().filter(|arg| !matches!(arg, Expr::Literal(..))) {
                    graph = filtered(&graph, arg.clone().is_not_null())?;
                }
                return known(estimator.region(&graph, |region| region.set(graph.all())));
            }
            "avg" if !params.distinct => AggregateFunction::Avg,
            "sum" if !params.distinct => AggregateFunction::Sum,
            "min" => AggregateFunction::Min,
            "max" => AggregateFunction::Max,
            _ => return Err(unsupported(expr)),
        };
        let [argument] = params.args.as_slice() else { return Err(unsupported(expr)) };
        let value = ValueExpr::new(&graph, argument.clone()).ok_or_else(|| unsupported(expr))?;
        let head = relata.answers.as_deref();
        let answer = estimator.region(&graph, |region| region.answer(graph.all(), function, &value, head));
        answer.ok_or_else(|| unsupported(format_args!("{expr}: no sample has numbers for it")))
    }
}

/// A number of rows that is an estimate, not a guess.
fn known(rows: Estimate) -> Result<Answer> {
    match rows.origin {
        Origin::Fallback(reason) => Err(unsupported(reason)),
        _ => Ok(Answer::of_rows(rows)),
    }
}

/// Numbers from here on stand for several integers.
const MOST_EXACT: f64 = (1u64 << f64::MANTISSA_DIGITS) as f64;

/// The ends of the interval, so that what a float cannot tell from the answer is within it.
fn ends(answer: &Answer, data_type: &DataType) -> (Option<f64>, Option<f64>) {
    if answer.value.is_none() {
        return (None, None);
    }
    let is_rounded = |end: f64| !data_type.is_floating() && (data_type.is_decimal() || end.abs() >= MOST_EXACT);
    // On its way it is scaled, and so rounded, more than once.
    let slack = |end: f64| if is_rounded(end) { 4.0 * f64::EPSILON * end.abs() } else { 0.0 };
    (Some(answer.lower - slack(answer.lower)), Some(answer.upper + slack(answer.upper)))
}

/// A number as a value of this type, the nearest there is.
fn scalar(value: Option<f64>, data_type: &DataType) -> Result<ScalarValue> {
    let Some(value) = value.filter(|value| !value.is_nan()) else { return Ok(ScalarValue::try_from(data_type)?) };
    let number = ScalarValue::Float64(Some(value));
    let whole = match data_type {
        DataType::UInt64 => ScalarValue::UInt64(Some(value.round() as u64)),
        _ => ScalarValue::Int64(Some(value.round() as i64)),
    };
    Ok(match data_type {
        DataType::Date32 | DataType::Time32(_) => whole.cast_to(&DataType::Int32)?.cast_to(data_type)?,
        DataType::Date64 | DataType::Time64(_) | DataType::Timestamp(..) | DataType::Duration(_) => {
            whole.cast_to(data_type)?
        }
        integer if integer.is_integer() => whole.cast_to(integer)?,
        other => number.cast_to(other)?,
    })
}

/// The one aggregate of a plan, below nothing but projections, filters, sorts, limits and aliases.
fn aggregate_of(plan: &LogicalPlan) -> Result<Aggregate> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => Ok(aggregate.clone()),
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::SubqueryAlias(_) => match plan.inputs()[..] {
            [input] => aggregate_of(input),
            _ => Err(unsupported("no aggregate")),
        },
        _ => Err(unsupported("only queries with an aggregate have an approximate answer")),
    }
}

/// The plan over a scan of the values in place of its aggregate, with the ends of the intervals of bare aggregates.
fn above(plan: &LogicalPlan, aggregate: &Aggregate, schema: &SchemaRef) -> Result<LogicalPlan> {
    let empty = Arc::new(MemTable::try_new(Arc::clone(schema), vec![vec![]])?);
    let scan = LogicalPlanBuilder::scan(VALUES, provider_as_source(empty), None)?;
    let groups = aggregate.group_expr.len();
    // Each aggregate's output column, and the columns of its interval.
    let mut ends: HashMap<Column, [Column; 2]> = HashMap::new();
    let mut exprs = vec![];
    for (index, (qualifier, field)) in aggregate.schema.iter().enumerate() {
        exprs.push(ident(format!("v{index}")).alias_qualified(qualifier.cloned(), field.name()));
        if index >= groups {
            let of = ["lower", "upper"].map(|end| Column::new_unqualified(format!("v{index}_{end}")));
            exprs.extend(of.iter().cloned().map(Expr::Column));
            ends.insert(Column::new(qualifier.cloned(), field.name()), of);
        }
    }
    let values = scan.project(exprs)?.build()?;
    let node = replaced(plan, &values, &mut ends)?;
    // Without a projection of its own, the intervals still need their names.
    if ends.values().flatten().any(|column| column.name.starts_with('v') && column.name.contains('_')) {
        let mut exprs = vec![];
        for column in node.schema().columns() {
            let owner = ends.iter().find_map(|(owner, of)| {
                of.iter()
                    .position(|end| *end == column)
                    .map(|place| format!("{}_{}", owner.name, ["lower", "upper"][place]))
            });
            exprs.push(match owner {
                Some(name) => Expr::Column(column).alias(name),
                None => Expr::Column(column),
            });
        }
        return Ok(LogicalPlanBuilder::from(node).project(exprs)?.build()?);
    }
    Ok(node)
}

fn replaced(plan: &LogicalPlan, values: &LogicalPlan, ends: &mut HashMap<Column, [Column; 2]>) -> Result<LogicalPlan> {
    if let LogicalPlan::Aggregate(_) = plan {
        return Ok(values.clone());
    }
    let [input] = plan.inputs()[..] else { return Err(unsupported("no aggregate")) };
    let input = replaced(input, values, ends)?;
    match plan {
        LogicalPlan::Projection(projection) => {
            let mut exprs = projection.expr.clone();
            let mut renamed = HashMap::new();
            let schema: &DFSchema = &projection.schema;
            for (expr, (qualifier, field)) in projection.expr.iter().zip(schema.iter()) {
                if let Some(of) = column_under(expr).and_then(|column| ends.get(column)) {
                    let names = ["lower", "upper"].map(|end| format!("{}_{end}", field.name()));
                    for (column, name) in of.iter().zip(&names) {
                        exprs.push(Expr::Column(column.clone()).alias(name));
                    }
                    let key = Column::new(qualifier.cloned(), field.name());
                    renamed.insert(key, names.map(Column::new_unqualified));
                }
            }
            *ends = renamed;
            Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let qualified = |column: &Column| Column::new(Some(alias.alias.clone()), &column.name);
            *ends = ends.drain().map(|(owner, of)| (qualified(&owner), of.each_ref().map(qualified))).collect();
            Ok(LogicalPlanBuilder::from(input).alias(alias.alias.clone())?.build()?)
        }
        other => Ok(other.with_new_exprs(other.expressions(), vec![input])?),
    }
}

/// The column that an output is, under aliases.
fn column_under(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Alias(alias) => column_under(&alias.expr),
        _ => None,
    }
}
