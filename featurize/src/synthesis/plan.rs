//! The logical plan of chosen features.
//!
//! A *chain* is the narrow plan of the rows at one place: the entity's row id, its key and cutoff, and the columns of the
//! relation. A backward step begins with the different values of a chain that children refer to, joins the children, and
//! aggregates by row id and those values, so that no two copies of a row count twice. What was aggregated is joined back to
//! the rows on the same columns. Where nothing on the way depends on the entity, entities with the same cutoff share what is
//! said of a value: chains then begin with the different values and carry the cutoff alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::functions::core::expr_fn::greatest;
use datafusion::functions::unicode::expr_fn::character_length;
use datafusion::functions_aggregate::expr_fn::{count, max};
use datafusion_expr::expr::GroupingSet;
use datafusion_expr::{Expr, JoinType, LogicalPlan, LogicalPlanBuilder, cast, ident, lit, try_cast, when};

use super::aggregate::{Function, counted, finite};
use super::paths::{Description, Form, Paths, Place, Reading, Source, Step};
use super::time::{MOST_HOPS, calendar, days, microseconds, timed_references};
use super::{Entities, Feature, FeatureKind, FeaturePlan, Relations, Task};
use crate::Result;

/// The entity's row id and cutoff within plans.
const ROW: &str = "row";
const AT: &str = "at";
/// How often a value occurs.
const TIMES: &str = "times";

/// Builds plans; relations are told apart by instance: places first, then those that only times are read from.
pub(super) struct Planner<'a> {
    relations: &'a Relations,
    task: &'a Task,
    entities: &'a Entities,
    paths: &'a Paths,
    instances: usize,
}

/// Aggregates of one backward step, with the column that each becomes.
#[derive(Default)]
struct Aggregates {
    /// Over rows.
    rows: Vec<(String, OfRows)>,
    /// Over counts of values.
    values: Vec<(String, Function, usize)>,
}

/// An aggregate over rows.
#[derive(Clone, Copy)]
enum OfRows {
    Count,
    LatestTime,
    Feature(Function, usize),
}

impl<'a> Planner<'a> {
    pub(super) fn new(relations: &'a Relations, task: &'a Task, entities: &'a Entities, paths: &'a Paths) -> Self {
        Self { relations, task, entities, paths, instances: paths.places.len() }
    }

    /// The features of the entities, the nearest ones first.
    pub(super) fn plan(mut self, most: usize) -> Result<FeaturePlan> {
        let mut calendar = if self.has_cutoff() { calendar(&ident(AT)) } else { vec![] };
        calendar.truncate(most);
        let chosen = self.paths.nearest(most - calendar.len());
        let rows = self.entity_rows(true)?;
        let (plan, values) = self.describe(rows, 0, &chosen)?;
        let root = self.relations.tables[self.task.entity].reference.table();
        let mut named = vec![];
        for (feature, value) in chosen.iter().zip(values) {
            let Description { name, form, origin, .. } = &self.paths.places[0].features[*feature];
            let (kind, value) = match form {
                Form::Number => (FeatureKind::Number, value),
                Form::Category => (FeatureKind::Category, value),
                Form::Time => (FeatureKind::Number, days(value, self.has_cutoff().then(|| ident(AT)))),
            };
            named.push((*origin == 0, format!("{root}.{name}"), kind, value));
        }
        let own = named.iter().take_while(|(own, ..)| *own).count();
        let at = self.entities.at.as_deref().unwrap_or_default();
        let parts =
            calendar.into_iter().map(|(part, value)| (true, format!("{part}({at})"), FeatureKind::Number, value));
        named.splice(own..own, parts);
        let names = (0..).map(|place| format!("f{place}")).filter(|name| *name != self.entities.row);
        let (mut columns, mut features) = (vec![ident(ROW).alias(&self.entities.row)], vec![]);
        for (column, (_, name, kind, value)) in names.zip(named) {
            columns.push(value.alias(&column));
            features.push(Feature { column, name, kind });
        }
        let plan = LogicalPlanBuilder::new(plan).project(columns)?.build()?;
        Ok(FeaturePlan { plan, features })
    }

    fn has_cutoff(&self) -> bool {
        self.entities.at.is_some()
    }

    /// The columns that the chain of a place carries along.
    fn carried(&self, place: usize) -> Vec<Expr> {
        let at = self.has_cutoff().then(|| ident(AT));
        if self.paths.places[place].shared {
            return at.into_iter().collect();
        }
        let keys = (0..self.task.entity_key.len()).map(key);
        std::iter::once(ident(ROW)).chain(keys).chain(at).collect()
    }

    /// The entities, with all columns of their relation or with those of the key alone.
    fn entity_rows(&mut self, all: bool) -> Result<LogicalPlan> {
        let Entities { plan, row, keys, at } = self.entities;
        let find = |name: &String| {
            let (qualifier, field) = plan.schema().iter().find(|(_, field)| field.name() == name)?;
            Some(Expr::Column(Column::from((qualifier, field))))
        };
        // Validation has seen the columns.
        let given = |name: &String| find(name).unwrap_or_else(|| ident(name));
        let mut columns = vec![given(row).alias(ROW)];
        columns.extend(keys.iter().enumerate().map(|(index, name)| given(name).alias(key_name(index))));
        columns.extend(at.iter().map(|name| microseconds(given(name)).alias(AT)));
        let mut rows = LogicalPlanBuilder::new(plan.clone()).project(columns)?;
        let entity = self.task.entity;
        let key_columns: Vec<String> =
            self.task.entity_key.iter().map(|name| column_name(0, self.relations.index(entity, name))).collect();
        if all {
            let right = self.scan(0, entity, &self.task.entity_key)?;
            let on = key_columns.iter().enumerate().map(|(index, name)| key(index).eq(ident(name)));
            rows = rows.join_on(right, JoinType::Left, on.collect::<Vec<_>>())?;
        }
        // The key is known even of an entity that its relation does not have (yet).
        let mut columns = self.carried(0);
        columns.extend(key_columns.iter().enumerate().map(|(index, name)| key(index).alias(name)));
        let carried = columns.len() - key_columns.len();
        let others = rows.schema().fields().iter().map(|field| field.name().clone()).skip(carried);
        columns.extend(others.filter(|name| !key_columns.contains(name)).map(ident).collect::<Vec<_>>());
        Ok(rows.project(columns)?.build()?)
    }

    /// The rows of a relation as an instance, one for each value of `unique` unless that is empty.
    fn scan(&self, instance: usize, table: usize, unique: &[String]) -> Result<LogicalPlan> {
        let relation = &self.relations.tables[table];
        let schema = relation.source.schema();
        let builder = LogicalPlanBuilder::scan(relation.reference.clone(), Arc::clone(&relation.source), None)?;
        let given = |name: &str| Expr::Column(Column::new(Some(relation.reference.clone()), name));
        let named = schema.fields().iter().enumerate();
        let mut columns: Vec<Expr> =
            named.map(|(index, field)| given(field.name()).alias(column_name(instance, index))).collect();
        columns.extend(relation.time.iter().map(|name| microseconds(given(name)).alias(time_name(instance))));
        if unique.is_empty() || self.relations.is_key(table, unique) {
            return Ok(builder.project(columns)?.build()?);
        }
        // The earliest row: what comes later can not change what was known of the key.
        let others =
            schema.fields().iter().map(|field| field.name()).filter(|name| Some(*name) != relation.time.as_ref());
        let shown =
            relation.time.iter().chain(others).filter(|name| !unique.contains(name) && !self.task.hides(table, name));
        let sortable = shown.filter(|name| schema.field_with_name(name).is_ok_and(|f| !f.data_type().is_nested()));
        let order = unique.iter().chain(sortable).map(|name| given(name).sort(true, false)).collect();
        let on = unique.iter().map(|name| given(name)).collect();
        Ok(builder.distinct_on(on, columns, Some(order))?.build()?)
    }

    /// The rows at a place, for each entity.
    fn chain(&mut self, at: usize) -> Result<LogicalPlan> {
        let paths = self.paths;
        let place = &paths.places[at];
        let before = match place.step {
            Step::Entity => self.entity_rows(true)?,
            Step::Forward(_) => self.chain(place.before)?,
            Step::Backward(index) => {
                let reference = &self.relations.references[index];
                let of_key = reference.referenced.iter().all(|column| self.task.entity_key.contains(column));
                let before =
                    if place.before == 0 && of_key { self.entity_rows(false)? } else { self.chain(place.before)? };
                let mut columns = self.carried(at);
                columns.extend(self.columns(place.before, &reference.referenced));
                let before = LogicalPlanBuilder::new(before).project(columns)?;
                let different = paths.places[place.before].single && !place.shared;
                if different { before.build()? } else { before.distinct()?.build()? }
            }
        };
        if at == 0 { Ok(before) } else { self.step(before, at, JoinType::Inner) }
    }

    /// A plan with the rows at the place before, joined with the visible ones at this place.
    fn step(&mut self, before: LogicalPlan, at: usize, join: JoinType) -> Result<LogicalPlan> {
        let paths = self.paths;
        let Place { table, step, before: from, timed, .. } = paths.places[at];
        let (mut on, unique) = match step {
            Step::Entity => return Ok(before),
            Step::Forward(index) => {
                let reference = &self.relations.references[index];
                let there = self.columns(at, &reference.referenced);
                (equal(self.columns(from, &reference.columns), there), reference.referenced.clone())
            }
            Step::Backward(index) => {
                let reference = &self.relations.references[index];
                let there = self.columns(at, &reference.columns);
                let mut on = equal(self.columns(from, &reference.referenced), there);
                if table == self.task.entity {
                    // What is asked of an entity must not come from its own row.
                    let keys = self.columns(at, &self.task.entity_key).into_iter().enumerate();
                    let own = keys.map(|(index, own)| own.eq(key(index))).reduce(Expr::and);
                    on.extend(own.map(Expr::is_not_true));
                }
                (on, vec![])
            }
        };
        let right = self.scan(at, table, &unique)?;
        let visible = (self.has_cutoff() && timed).then(|| ident(time_name(at)).lt(ident(AT)));
        let own_time = self.relations.tables[table].time.is_some();
        if own_time {
            on.extend(visible.clone());
        }
        let columns: Vec<String> = before.schema().fields().iter().map(|field| field.name().clone()).collect();
        let theirs: Vec<String> = right.schema().fields().iter().map(|field| field.name().clone()).collect();
        let joined = LogicalPlanBuilder::new(before).join_on(right, join, on)?.build()?;
        let (false, Some(visible)) = (own_time, visible) else { return Ok(joined) };
        let (joined, time) = self.effective_time(joined, at, table, MOST_HOPS, &[])?;
        let Some(time) = time else { return Ok(joined) };
        let mut projection: Vec<Expr> = columns.iter().map(ident).collect();
        projection.extend(theirs.iter().map(ident));
        projection.push(time.alias(time_name(at)));
        let joined = LogicalPlanBuilder::new(joined).project(projection)?;
        if join == JoinType::Inner {
            return Ok(joined.filter(visible)?.build()?);
        }
        let mut projection: Vec<Expr> = columns.iter().map(ident).collect();
        for name in &theirs {
            projection.push(when(visible.clone(), ident(name)).end()?.alias(name));
        }
        Ok(joined.project(projection)?.build()?)
    }

    /// A plan that knows the time of an instance's rows: the latest of the rows they refer to. It is NULL when one of them
    /// has none or is not there, lest a row be seen earlier for what is missing.
    fn effective_time(
        &mut self,
        mut plan: LogicalPlan,
        instance: usize,
        table: usize,
        hops: usize,
        on_the_way: &[usize],
    ) -> Result<(LogicalPlan, Option<Expr>)> {
        if self.relations.tables[table].time.is_some() {
            return Ok((plan, Some(ident(time_name(instance)))));
        }
        let way = [on_the_way, &[table]].concat();
        let (mut times, mut complete) = (vec![], vec![]);
        for index in timed_references(self.relations, table, hops, on_the_way) {
            let reference = &self.relations.references[index];
            let referred = self.instances;
            self.instances += 1;
            let right = self.scan(referred, reference.references, &reference.referenced)?;
            let own = self.relation_columns(instance, table, &reference.columns);
            let there = self.relation_columns(referred, reference.references, &reference.referenced);
            plan = LogicalPlanBuilder::new(plan).join_on(right, JoinType::Left, equal(own.clone(), there))?.build()?;
            let time;
            (plan, time) = self.effective_time(plan, referred, reference.references, hops - 1, &way)?;
            if let Some(time) = time {
                let refers_nowhere = own.into_iter().map(Expr::is_null).reduce(Expr::or).unwrap_or_else(|| lit(true));
                complete.push(refers_nowhere.or(time.clone().is_not_null()));
                times.push(time);
            }
        }
        let time = match times.len() {
            0 | 1 => times.pop(),
            _ => {
                let complete = complete.into_iter().reduce(Expr::and).unwrap_or_else(|| lit(true));
                Some(when(complete, greatest(times)).end()?)
            }
        };
        Ok((plan, time))
    }

    /// A plan with the rows at a place, extended by what features of these rows need, and the features' values over it.
    fn describe(&mut self, mut plan: LogicalPlan, at: usize, wanted: &[usize]) -> Result<(LogicalPlan, Vec<Expr>)> {
        let paths = self.paths;
        let mut values: Vec<Option<Expr>> = vec![None; wanted.len()];
        let mut parents: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
        let mut children: BTreeMap<usize, Aggregates> = BTreeMap::new();
        for (index, &feature) in wanted.iter().enumerate() {
            // Numbered over the whole place, not over what is wanted now: a name is that of one feature.
            let name = |child: usize| format!("a{child}_{feature}");
            values[index] = match paths.places[at].features[feature].source {
                Source::Own { column, reading } => Some(self.own(at, column, reading)?),
                Source::Parent { place, feature } => {
                    parents.entry(place).or_default().push((index, feature));
                    None
                }
                Source::Count { place } => {
                    children.entry(place).or_default().rows.push((name(place), OfRows::Count));
                    Some(self.counted(at, place, &name(place))?)
                }
                Source::LatestTime { place } => {
                    children.entry(place).or_default().rows.push((name(place), OfRows::LatestTime));
                    Some(ident(name(place)))
                }
                Source::Aggregate { place, feature, function } => {
                    let child = children.entry(place).or_default();
                    if function.counts_values() {
                        child.values.push((name(place), function, feature));
                    } else {
                        child.rows.push((name(place), OfRows::Feature(function, feature)));
                    }
                    let distinct = function == Function::Distinct;
                    Some(if distinct { self.counted(at, place, &name(place))? } else { ident(name(place)) })
                }
            };
        }
        for (place, features) in parents {
            plan = self.step(plan, place, JoinType::Left)?;
            let passed: Vec<usize> = features.iter().map(|(_, feature)| *feature).collect();
            let described;
            (plan, described) = self.describe(plan, place, &passed)?;
            features.iter().zip(described).for_each(|((index, _), value)| values[*index] = Some(value));
        }
        for (place, aggregates) in children {
            if !aggregates.rows.is_empty() {
                let right = self.aggregate_rows(place, &aggregates.rows)?;
                plan = self.join_back(plan, place, right, "k")?;
            }
            if !aggregates.values.is_empty() {
                let right = self.aggregate_values(place, &aggregates.values)?;
                plan = self.join_back(plan, place, right, "l")?;
            }
        }
        Ok((plan, values.into_iter().flatten().collect()))
    }

    /// A count from the child's side, for a row at this place.
    fn counted(&self, at: usize, child: usize, name: &str) -> Result<Expr> {
        let Step::Backward(index) = self.paths.places[child].step else { return Ok(ident(name)) };
        counted(ident(name), self.columns(at, &self.relations.references[index].referenced))
    }

    /// A column of a row at a place.
    fn own(&self, at: usize, column: usize, reading: Reading) -> Result<Expr> {
        let value = ident(column_name(at, column));
        let field = self.relations.tables[self.paths.places[at].table].source.schema().field(column).clone();
        let text = |value: Expr| cast(value, DataType::Utf8);
        Ok(match reading {
            Reading::Number => {
                let number = try_cast(value, DataType::Float64);
                if field.data_type().is_integer() { number } else { finite(number)? }
            }
            Reading::Category => text(value),
            Reading::Length => cast(character_length(text(value)), DataType::Float64),
            Reading::Time => microseconds(value),
        })
    }

    /// The columns of the place before a child that its rows are aggregated by.
    fn group(&self, child: usize) -> Vec<Expr> {
        let place = &self.paths.places[child];
        let mut group = if place.shared { self.carried(child) } else { vec![ident(ROW)] };
        if let Step::Backward(index) = place.step
            && (place.shared || !self.paths.places[place.before].single)
        {
            group.extend(self.columns(place.before, &self.relations.references[index].referenced));
        }
        group
    }

    /// Aggregates of a child's rows by [`Self::group`].
    fn aggregate_rows(&mut self, child: usize, aggregates: &[(String, OfRows)]) -> Result<LogicalPlan> {
        let features = aggregates.iter().filter_map(|(_, aggregate)| match aggregate {
            OfRows::Feature(_, feature) => Some(*feature),
            OfRows::Count | OfRows::LatestTime => None,
        });
        let (plan, inputs) = self.inputs(child, features)?;
        let group = self.group(child);
        let time = ident(time_name(child));
        let mut projection = group.clone();
        projection.extend(inputs.values().cloned());
        if self.paths.places[child].timed {
            projection.push(time.clone());
        }
        let (mut calls, mut outputs) = (vec![], group.clone());
        for (name, aggregate) in aggregates {
            let (call, exact) = match aggregate {
                OfRows::Count => (count(lit(1)), true),
                OfRows::LatestTime => (max(time.clone()), true),
                OfRows::Feature(function, feature) => {
                    let number = self.paths.places[child].features[*feature].form == Form::Number;
                    (function.call(ident(input_name(child, *feature)), time.clone(), lit(1))?, !number)
                }
            };
            calls.push(call.alias(name));
            // Sums and squares of large numbers leave the range of floats.
            outputs.push(if exact { ident(name) } else { finite(ident(name))?.alias(name) });
        }
        let plan = LogicalPlanBuilder::new(plan).project(projection)?.aggregate(group, calls)?;
        Ok(plan.project(outputs)?.build()?)
    }

    /// Aggregates of the counts of a child's values by [`Self::group`]: the values of all features are counted in one pass,
    /// each in a grouping set of its own, in which those of the others are NULL.
    fn aggregate_values(&mut self, child: usize, aggregates: &[(String, Function, usize)]) -> Result<LogicalPlan> {
        let (plan, inputs) = self.inputs(child, aggregates.iter().map(|(_, _, feature)| *feature))?;
        let group = self.group(child);
        let mut projection = group.clone();
        projection.extend(inputs.values().cloned());
        let with = |feature: &usize| [group.clone(), vec![ident(input_name(child, *feature))]].concat();
        let mut sets: Vec<Vec<Expr>> = inputs.keys().map(with).collect();
        let sets = match sets.len() {
            1 => sets.remove(0),
            _ => vec![Expr::GroupingSet(GroupingSet::GroupingSets(sets))],
        };
        let times = count(lit(1)).alias(TIMES);
        let call = |(name, function, feature): &(String, Function, usize)| {
            Ok(function.call(ident(input_name(child, *feature)), lit(1), ident(TIMES))?.alias(name))
        };
        let calls: Vec<Expr> = aggregates.iter().map(call).collect::<Result<_>>()?;
        let plan = LogicalPlanBuilder::new(plan).project(projection)?.aggregate(sets, vec![times])?;
        Ok(plan.aggregate(group, calls)?.build()?)
    }

    /// A child's rows with features of theirs, each under the name of the input.
    fn inputs(
        &mut self,
        child: usize,
        features: impl Iterator<Item = usize>,
    ) -> Result<(LogicalPlan, BTreeMap<usize, Expr>)> {
        let mut features: Vec<usize> = features.collect();
        features.sort_unstable();
        features.dedup();
        let rows = self.chain(child)?;
        let (plan, values) = self.describe(rows, child, &features)?;
        let named = |(feature, value): (usize, Expr)| (feature, value.alias(input_name(child, feature)));
        Ok((plan, features.into_iter().zip(values).map(named).collect()))
    }

    /// A plan with the rows before a child, joined with aggregates of the child's rows.
    fn join_back(&self, plan: LogicalPlan, child: usize, right: LogicalPlan, prefix: &str) -> Result<LogicalPlan> {
        let group = self.group(child);
        let renamed: Vec<String> = (0..group.len()).map(|index| format!("{prefix}{child}_{index}")).collect();
        let mut columns: Vec<Expr> = group.iter().zip(&renamed).map(|(own, name)| own.clone().alias(name)).collect();
        columns.extend(right.schema().fields().iter().skip(group.len()).map(|field| ident(field.name())));
        let right = LogicalPlanBuilder::new(right).project(columns)?.build()?;
        let on = equal(group, renamed.into_iter().map(ident).collect());
        Ok(LogicalPlanBuilder::new(plan).join_on(right, JoinType::Left, on)?.build()?)
    }

    /// Columns of the relation at a place.
    fn columns(&self, at: usize, names: &[String]) -> Vec<Expr> {
        self.relation_columns(at, self.paths.places[at].table, names)
    }

    fn relation_columns(&self, instance: usize, table: usize, names: &[String]) -> Vec<Expr> {
        names.iter().map(|name| ident(column_name(instance, self.relations.index(table, name)))).collect()
    }
}

fn equal(a: Vec<Expr>, b: Vec<Expr>) -> Vec<Expr> {
    a.into_iter().zip(b).map(|(a, b)| a.eq(b)).collect()
}

/// The entity's key.
fn key(index: usize) -> Expr {
    ident(key_name(index))
}

fn key_name(index: usize) -> String {
    format!("e{index}")
}

fn column_name(instance: usize, column: usize) -> String {
    format!("t{instance}_{column}")
}

/// The effective time of an instance's rows.
fn time_name(instance: usize) -> String {
    format!("t{instance}_time")
}

fn input_name(child: usize, feature: usize) -> String {
    format!("v{child}_{feature}")
}
