//! Which columns the queries of a task have, and those of the predictions.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use datafusion::common::DFSchema;

use super::{PredictTask, no_prediction};
use crate::Result;

/// Whether labels are told apart or measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One of a few classes.
    Classes,
    /// A number.
    Numbers,
}

/// The columns of a task's queries.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// The examples' keys, by their places.
    pub(super) target_keys: Vec<usize>,
    /// The examples' time.
    pub(super) target_time: Option<usize>,
    /// The last column of the examples.
    pub(super) label: usize,
    /// Keys of the entities, in the order of those of the examples.
    pub(super) entity_keys: Vec<usize>,
    /// Time of the entities.
    pub(super) entity_time: Option<usize>,
    /// `None` for integers, which are classes where they have few values.
    pub(super) kind: Option<Kind>,
    /// Keys and time as they are predicted for.
    given: Vec<FieldRef>,
}

impl Shape {
    /// Which of the columns are keys, times and labels.
    pub(crate) fn new(target: &DFSchema, entities: &DFSchema, task: &PredictTask) -> Result<Self> {
        let Some(label) = target.fields().len().checked_sub(1) else {
            return Err(no_prediction(
                "the target query has no columns; it takes a key and, as the last one, the label",
            ));
        };
        let (target_keys, target_time) = keys_and_time("target", &target.fields()[..label])?;
        let (entity_keys, entity_time) = keys_and_time("entities", entities.fields())?;
        if target_keys.len() != entity_keys.len() {
            return Err(no_prediction(format!(
                "the target query has {} key columns before the label and the entities have {}",
                target_keys.len(),
                entity_keys.len()
            )));
        }
        let timed = (target_time.is_some(), entity_time.is_some(), task.at.is_some());
        match timed {
            (true, false, false) => {
                return Err(no_prediction(
                    "the examples have a time and the entities have none: select one in the entities query, or say which \
                     time to predict at",
                ));
            }
            (false, true, false) => {
                return Err(no_prediction(
                    "the entities have a time and the examples have none: select one in the target query, before the label",
                ));
            }
            _ => {}
        }
        let kind = kind(target.field(label), task.classes)?;
        let given =
            entity_keys.iter().chain(&entity_time).map(|&place| Arc::clone(&entities.fields()[place])).collect();
        let shape = Self { target_keys, target_time, label, entity_keys, entity_time, kind, given };
        for kind in [Kind::Classes, Kind::Numbers] {
            let schema = shape.schema(kind);
            let mut names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
            names.sort_unstable();
            if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
                let name = twice[0];
                return Err(no_prediction(format!(
                    "the predictions would have two columns {name}; give the key an alias"
                )));
            }
        }
        Ok(shape)
    }

    /// What is predicted where that must be known before the examples are: integers are numbers.
    pub(crate) fn settle(&mut self) -> Kind {
        *self.kind.get_or_insert(Kind::Numbers)
    }

    /// Whether features know of a time.
    pub(super) fn has_cutoff(&self, task: &PredictTask) -> bool {
        self.target_time.is_some() || self.entity_time.is_some() || task.at.is_some()
    }

    /// The columns of the predictions.
    pub(crate) fn schema(&self, kind: Kind) -> SchemaRef {
        let given = self.given.iter().map(|field| Field::new(field.name(), field.data_type().clone(), true));
        let mut fields: Vec<Field> = given.collect();
        let number = |name| Field::new(name, DataType::Float64, true);
        match kind {
            Kind::Classes => fields.extend([
                Field::new("prediction", DataType::Utf8, true),
                number("probability"),
                Field::new("probabilities", probabilities(), true),
            ]),
            Kind::Numbers => fields.extend([
                number("prediction"),
                number("lower"),
                number("upper"),
                Field::new("quantiles", quantiles(), true),
            ]),
        }
        fields.extend(["examples", "features"].map(|name| Field::new(name, DataType::Int64, true)));
        Arc::new(Schema::new(fields))
    }
}

/// The type of the probabilities by class.
fn probabilities() -> DataType {
    let entry = vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Float64, true)];
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(Fields::from(entry)), false)), false)
}

/// The type of the quantiles of a number.
fn quantiles() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)))
}

/// The type of the times that features know of.
pub(super) fn microseconds() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

pub(super) fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Date32 | DataType::Date64 | DataType::Timestamp(..))
}

fn keys_and_time(query: &str, fields: &[FieldRef]) -> Result<(Vec<usize>, Option<usize>)> {
    let (times, keys): (Vec<usize>, Vec<usize>) =
        (0..fields.len()).partition(|&place| is_time(fields[place].data_type()));
    if keys.is_empty() {
        return Err(no_prediction(format!("the {query} query selects no key of an entity")));
    }
    match times[..] {
        [] => Ok((keys, None)),
        [time] => Ok((keys, Some(time))),
        [..] => Err(no_prediction(format!("the {query} query selects {} times, allowed is one", times.len()))),
    }
}

/// What the labels are, by their type; `None` where that depends on how many there are.
fn kind(label: &Field, classes: Option<bool>) -> Result<Option<Kind>> {
    let data_type = match label.data_type() {
        DataType::Dictionary(_, values) => values.as_ref(),
        other => other,
    };
    let is_text = matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let is_class = is_text || *data_type == DataType::Boolean;
    if !is_class && !data_type.is_numeric() {
        let name = label.name();
        return Err(no_prediction(format!("labels of type {data_type} ({name}) are neither classes nor numbers")));
    }
    match classes {
        Some(true) => Ok(Some(Kind::Classes)),
        Some(false) if is_text => Err(no_prediction(format!("texts ({}) are no numbers", label.name()))),
        Some(false) => Ok(Some(Kind::Numbers)),
        None if is_class => Ok(Some(Kind::Classes)),
        None if data_type.is_integer() => Ok(None),
        None => Ok(Some(Kind::Numbers)),
    }
}
