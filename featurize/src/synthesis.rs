//! Deep Feature Synthesis: rows of one relation are described by what the others say of them along foreign keys.
//!
//! Kanter and Veeramachaneni, "Deep Feature Synthesis: Towards Automating Data Science Endeavors", DSAA 2015. From an entity
//! a row's own columns are read, the rows it refers to are read *forward*, and the rows that refer to it are aggregated
//! *backward*; both steps repeat up to a depth. Differences from the paper: the features of all entities come from one
//! logical plan, every entity may have a cutoff of its own (only rows from strictly before it are visible), and the values
//! to predict can be hidden everywhere but in the history before the cutoff.
//!
//! The walk of one synthesis:
//!
//! 1. [`Relations`] name tables, keys and references; [`Task`] says which relation the entities are rows of.
//! 2. `paths` walks the references breadth first and lists what can be said at each place; the nearest features stay.
//! 3. `plan` joins and aggregates for these features alone; `time` decides which rows an entity may see.
//! 4. [`FeatureTable`] reads the executed plan, and [`FeatureTable::select`] keeps the columns that say most of a label.
//!
//! What is deliberately absent: statistics of the tables (a plan costs what its joins cost), and a row's neighbours that no
//! declared reference leads to.

mod aggregate;
mod labelled;
mod paths;
mod plan;
mod selection;
mod table;
mod time;

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::TableReference;
use datafusion_expr::{LogicalPlan, TableSource};

use crate::{FeaturizeError, Result};

pub use labelled::LabelledTable;
pub use selection::Labels;
pub use table::{FeatureColumn, FeatureTable, FeatureValues};

/// A table that entities can be described by.
#[derive(Clone)]
pub struct Relation {
    /// The name that it is scanned under.
    pub reference: TableReference,
    /// Where its rows come from.
    pub source: Arc<dyn TableSource>,
    /// Columns of the primary key; their values are trusted to be unique. May be empty.
    pub key: Vec<String>,
    /// The column of dates or timestamps that says when a row came to be.
    pub time: Option<String>,
}

impl fmt::Debug for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reference, source: _, key, time } = self;
        f.debug_struct("Relation").field("reference", reference).field("key", key).field("time", time).finish()
    }
}

/// A foreign key between two relations, by their places in a list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// The relation that refers.
    pub table: usize,
    /// Its columns.
    pub columns: Vec<String>,
    /// The relation that is referred to.
    pub references: usize,
    /// Its columns, one for each of `columns`. Where they are not its primary key and a value occurs in several rows, the
    /// earliest one is referred to.
    pub referenced: Vec<String>,
}

/// Relations and the foreign keys between them.
#[derive(Debug, Clone, Default)]
pub struct Relations {
    /// The relations.
    pub tables: Vec<Relation>,
    /// The foreign keys. The same two relations may be tied by several, and a relation may refer to itself.
    pub references: Vec<Reference>,
}

/// How far to walk and how much to bring back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SynthesisConfig {
    /// Steps along references, 1 to 3.
    pub depth: usize,
    /// Columns of features at most.
    pub max_features: usize,
}

impl Default for SynthesisConfig {
    fn default() -> Self {
        Self { depth: 2, max_features: 120 }
    }
}

/// The rows to describe.
///
/// Their plan is read once for each path along the references, so that it should be cheap and give the same rows each time:
/// rows in memory rather than a query.
#[derive(Debug, Clone)]
pub struct Entities {
    /// The rows.
    pub plan: LogicalPlan,
    /// An integer column that tells the rows apart.
    pub row: String,
    /// The columns that hold the entity's key, in the order of [`Task::entity_key`].
    pub keys: Vec<String>,
    /// A column of dates or timestamps: what the features may know is from strictly before it.
    pub at: Option<String>,
}

/// What the features are for.
#[derive(Debug, Clone, Default)]
pub struct Task {
    /// The relation that the entities are rows of.
    pub entity: usize,
    /// The columns that tell its rows apart.
    pub entity_key: Vec<String>,
    /// Columns, by relation and name, whose values are to be predicted. They are read as history only: backward, and from
    /// strictly before a cutoff.
    pub hidden: Vec<(usize, String)>,
}

/// What a feature's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FeatureKind {
    /// Float64; NULL is missing. Times are days before the cutoff, or since 1970-01-01 without one.
    Number,
    /// Utf8; NULL is missing.
    Category,
}

/// A column of features.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// Its name in the plan.
    pub column: String,
    /// Where it comes from, e.g. `customers.orders.MEAN(amount)`.
    pub name: String,
    /// What its values are.
    pub kind: FeatureKind,
}

/// A plan that describes entities.
#[derive(Debug, Clone)]
pub struct FeaturePlan {
    /// One row for each entity: its row id, then one column for each feature.
    pub plan: LogicalPlan,
    /// The columns after the row id, the nearest first.
    pub features: Vec<Feature>,
}

/// The first column of dates or timestamps.
pub fn infer_time(schema: &Schema) -> Option<String> {
    schema.fields().iter().find(|field| is_time(field.data_type())).map(|field| field.name().clone())
}

/// The plan of the features of entities.
///
/// # Errors
/// [`FeaturizeError::Relations`] when columns are not there, and what DataFusion says of the plan.
pub fn synthesize(
    relations: &Relations,
    task: &Task,
    entities: &Entities,
    config: &SynthesisConfig,
) -> Result<FeaturePlan> {
    relations.validate()?;
    task.validate(relations)?;
    entities.validate(task)?;
    if !(1..=3).contains(&config.depth) {
        return Err(wrong(format!("a depth of {} is not in 1..=3", config.depth)));
    }
    let paths = paths::Paths::walk(relations, task, entities.at.is_some(), config);
    plan::Planner::new(relations, task, entities, &paths).plan(config.max_features)
}

impl Relations {
    /// Whether all named columns are there and references pair as many columns on both sides.
    ///
    /// # Errors
    /// [`FeaturizeError::Relations`] with the first thing that does not fit.
    pub fn validate(&self) -> Result<()> {
        for (table, relation) in self.tables.iter().enumerate() {
            for column in relation.key.iter().chain(&relation.time) {
                self.field_type(table, column)?;
            }
            if let Some(time) = &relation.time
                && !is_time(&self.field_type(table, time)?)
            {
                return Err(wrong(format!("{}.{time} holds no dates or timestamps", relation.reference)));
            }
        }
        for reference in &self.references {
            let Reference { table, columns, references, referenced } = reference;
            if columns.is_empty() || columns.len() != referenced.len() {
                return Err(wrong(format!("{} columns refer to {}", columns.len(), referenced.len())));
            }
            columns.iter().try_for_each(|column| self.field_type(*table, column).map(drop))?;
            referenced.iter().try_for_each(|column| self.field_type(*references, column).map(drop))?;
        }
        Ok(())
    }

    /// The type of a column.
    fn field_type(&self, table: usize, column: &str) -> Result<DataType> {
        let Some(relation) = self.tables.get(table) else {
            return Err(wrong(format!("there is no relation {table} of {}", self.tables.len())));
        };
        match relation.source.schema().field_with_name(column) {
            Ok(field) => Ok(field.data_type().clone()),
            Err(_) => Err(wrong(format!("{} has no column {column}", relation.reference))),
        }
    }

    /// Whether a relation's primary key is exactly these columns.
    fn is_key(&self, table: usize, columns: &[String]) -> bool {
        let key = &self.tables[table].key;
        !key.is_empty() && key.len() == columns.len() && key.iter().all(|column| columns.contains(column))
    }

    /// Place of a column that validation has seen.
    fn index(&self, table: usize, column: &str) -> usize {
        self.tables[table].source.schema().index_of(column).unwrap_or_default()
    }
}

impl Task {
    fn validate(&self, relations: &Relations) -> Result<()> {
        if self.entity_key.is_empty() {
            return Err(wrong("the entities have no key".to_string()));
        }
        let key = self.entity_key.iter().map(|column| (self.entity, column));
        let hidden = self.hidden.iter().map(|(table, column)| (*table, column));
        key.chain(hidden).try_for_each(|(table, column)| relations.field_type(table, column).map(drop))
    }

    fn hides(&self, table: usize, column: &str) -> bool {
        self.hidden.iter().any(|(of, hidden)| *of == table && hidden == column)
    }
}

impl Entities {
    fn validate(&self, task: &Task) -> Result<()> {
        if self.keys.len() != task.entity_key.len() {
            return Err(wrong(format!("{} columns for a key of {}", self.keys.len(), task.entity_key.len())));
        }
        self.keys.iter().try_for_each(|column| self.field_type(column).map(drop))?;
        if !self.field_type(&self.row)?.is_integer() {
            return Err(wrong(format!("the row id {} is no integer", self.row)));
        }
        match &self.at {
            Some(at) if !is_time(&self.field_type(at)?) => Err(wrong(format!("the cutoff {at} is no time"))),
            _ => Ok(()),
        }
    }

    fn field_type(&self, column: &str) -> Result<DataType> {
        let field = self.plan.schema().fields().iter().find(|field| field.name() == column);
        let field = field.ok_or_else(|| wrong(format!("the entities have no column {column}")))?;
        Ok(field.data_type().clone())
    }
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Date32 | DataType::Date64 | DataType::Timestamp(..))
}

fn wrong(reason: String) -> FeaturizeError {
    FeaturizeError::Relations(reason)
}

#[cfg(test)]
mod tests;
