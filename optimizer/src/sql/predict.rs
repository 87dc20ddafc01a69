//! `PREDICT(target => (SELECT ...), entities => (SELECT ...), ...)` in FROM.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema, ScalarValue, TableReference, plan_err};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, Ident, Query, TableFactor, Value, ValueWithSpan,
};

use super::predicted::PredictedTable;
use crate::predict::Shape;
use crate::{PredictTask, Relata};

/// The name of the relation.
const NAME: &str = "predict";

/// Plans the relation.
#[derive(Debug)]
pub(crate) struct Predict {
    pub(crate) relata: Relata,
}

impl RelationPlanner for Predict {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let (given, alias) = match relation {
            TableFactor::Table { name, args: Some(args), alias, .. } if is_predict(&name.to_string()) => {
                (args.args, alias)
            }
            other => return Ok(RelationPlanning::Original(Box::new(other))),
        };
        let (mut target, mut entities) = (None, None);
        let mut arguments = vec![];
        for argument in given {
            let (name, value) = named(argument)?;
            match (name.as_str(), value) {
                ("target", SqlExpr::Subquery(query)) => target = Some(planned(query, context)?),
                ("entities", SqlExpr::Subquery(query)) => entities = Some(planned(query, context)?),
                ("target" | "entities", _) => return plan_err!("{name} of PREDICT is a query in parentheses"),
                (_, value) => arguments.push((name, value)),
            }
        }
        let (Some(target), Some(entities)) = (target, entities) else {
            return plan_err!("PREDICT takes target => (SELECT key, label ...) and entities => (SELECT key ...)");
        };
        let mut task = PredictTask::new(target.clone(), entities.clone());
        for (name, value) in arguments {
            set(&mut task, &name, value, context)?;
        }
        task.validate()?;
        let mut shape = Shape::new(target.schema(), entities.schema(), &task)?;
        let kind = shape.settle();
        let schema = shape.schema(kind);
        let table = PredictedTable { relata: self.relata.clone(), task, target, entities, shape, schema };
        let plan = LogicalPlanBuilder::scan(NAME, provider_as_source(Arc::new(table)), None)?.build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

fn is_predict(name: &str) -> bool {
    name.eq_ignore_ascii_case(NAME)
}

/// The name and the value of an argument.
fn named(argument: FunctionArg) -> Result<(String, SqlExpr)> {
    let (name, value) = match argument {
        FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } => (name, value),
        FunctionArg::ExprNamed { name: SqlExpr::Identifier(name), arg: FunctionArgExpr::Expr(value), .. } => {
            (name, value)
        }
        other => return plan_err!("PREDICT takes arguments by name, such as target => (SELECT ...), not {other}"),
    };
    Ok((name.value.to_ascii_lowercase(), value))
}

fn planned(query: Box<Query>, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let plan = context.plan(TableFactor::Derived { lateral: false, subquery: query, alias: None, sample: None })?;
    if plan.contains_outer_reference() {
        return plan_err!("a query of PREDICT cannot refer to the relations beside it");
    }
    Ok(plan)
}

/// Sets what an argument is about.
fn set(task: &mut PredictTask, name: &str, value: SqlExpr, context: &mut dyn RelationPlannerContext) -> Result<()> {
    match name {
        "at" => task.at = Some(constant(name, value, context)?),
        "depth" => task.depth = whole(name, value, context)?,
        "context" => task.context = whole(name, value, context)?,
        "features" => task.features = whole(name, value, context)?,
        "seed" => task.seed = whole(name, value, context)?,
        "classes" => match constant(name, value, context)? {
            ScalarValue::Boolean(Some(classes)) => task.classes = Some(classes),
            other => return plan_err!("classes of PREDICT is true or false, not {other}"),
        },
        "entity" => task.entity = Some(table(name, value, context)?),
        "hide" => {
            task.hide = listed(value).into_iter().map(|value| column(name, value, context)).collect::<Result<_>>()?
        }
        "time" => {
            task.time = listed(value).into_iter().map(|value| column(name, value, context)).collect::<Result<_>>()?
        }
        "timeless" => {
            task.timeless =
                listed(value).into_iter().map(|value| table(name, value, context)).collect::<Result<_>>()?;
        }
        _ => {
            return plan_err!(
                "PREDICT has no argument {name}: there are target, entities, at, depth, context, features, entity, hide, time, \
                 timeless, classes and seed"
            );
        }
    }
    Ok(())
}

/// The value of an expression without columns.
fn constant(name: &str, value: SqlExpr, context: &mut dyn RelationPlannerContext) -> Result<ScalarValue> {
    let schema = DFSchema::empty();
    let shown = value.to_string();
    let expr = context.sql_to_expr(value, &schema)?;
    let options = Arc::new(context.context_provider().options().clone());
    let simplify = SimplifyContext::builder().with_current_time().with_config_options(options).build();
    let simplifier = ExprSimplifier::new(simplify);
    match simplifier.simplify(simplifier.coerce(expr, &schema)?)? {
        Expr::Literal(value, _) => Ok(value),
        _ => plan_err!("{name} of PREDICT is a constant, not {shown}"),
    }
}

fn whole<T: TryFrom<i64>>(name: &str, value: SqlExpr, context: &mut dyn RelationPlannerContext) -> Result<T> {
    let value = constant(name, value, context)?;
    let number = match value.cast_to(&DataType::Int64) {
        Ok(ScalarValue::Int64(Some(number))) if value.data_type().is_integer() => T::try_from(number).ok(),
        _ => None,
    };
    match number {
        Some(number) => Ok(number),
        None => plan_err!("{name} of PREDICT is a whole number from 0, not {value}"),
    }
}

/// The elements of an array, or the one value.
fn listed(value: SqlExpr) -> Vec<SqlExpr> {
    match value {
        SqlExpr::Array(array) => array.elem,
        SqlExpr::Nested(value) => vec![*value],
        SqlExpr::Tuple(values) => values,
        value => vec![value],
    }
}

/// A name as identifiers, or as a text.
enum Name {
    Parts(Vec<String>),
    Text(String),
}

fn name_of(argument: &str, value: SqlExpr, context: &mut dyn RelationPlannerContext) -> Result<Name> {
    let parts = |idents: Vec<Ident>| idents.into_iter().map(|ident| context.normalize_ident(ident)).collect();
    match value {
        SqlExpr::Identifier(ident) => Ok(Name::Parts(parts(vec![ident]))),
        SqlExpr::CompoundIdentifier(idents) => Ok(Name::Parts(parts(idents))),
        SqlExpr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) => Ok(Name::Text(text)),
        other => plan_err!("{argument} of PREDICT takes names, not {other}"),
    }
}

fn table_of(argument: &str, parts: &[String]) -> Result<TableReference> {
    match parts {
        [table] => Ok(TableReference::bare(table.as_str())),
        [schema, table] => Ok(TableReference::partial(schema.as_str(), table.as_str())),
        [catalog, schema, table] => Ok(TableReference::full(catalog.as_str(), schema.as_str(), table.as_str())),
        _ => plan_err!("{argument} of PREDICT: {} is no table", parts.join(".")),
    }
}

fn table(argument: &str, value: SqlExpr, context: &mut dyn RelationPlannerContext) -> Result<TableReference> {
    match name_of(argument, value, context)? {
        Name::Parts(parts) => table_of(argument, &parts),
        Name::Text(text) => Ok(TableReference::parse_str(&text)),
    }
}

fn column(argument: &str, value: SqlExpr, context: &mut dyn RelationPlannerContext) -> Result<Column> {
    match name_of(argument, value, context)? {
        Name::Parts(parts) => match parts.split_last() {
            Some((name, table @ [_, ..])) => Ok(Column::new(Some(table_of(argument, table)?), name)),
            _ => plan_err!("{argument} of PREDICT takes columns with their tables, such as customers.city"),
        },
        Name::Text(text) => Ok(Column::from_qualified_name(text)),
    }
}
