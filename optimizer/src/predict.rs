//! In-context prediction: a column of any database predicted from labelled examples, without training.
//!
//! The walk of one prediction: `shape` says which columns of the two queries are keys, times and labels; `lineage` finds the
//! columns of tables that they come from, so that the label's own are hidden; `relations` reads the tables of the session with
//! their foreign keys; `examples` chooses the examples; Deep Feature Synthesis ([`relata_featurize::synthesis`]) describes
//! examples and entities with one plan, which DataFusion runs; the in-context predictor ([`relata_experts::in_context`]) reads
//! the examples and predicts the entities; `output` writes the columns.

mod examples;
mod lineage;
mod output;
mod prepared;
mod relations;
mod shape;

use std::sync::{Arc, OnceLock};

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{Column, ScalarValue, TableReference};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use relata_experts::in_context::{InContextPredictor, MOST_CLASSES, MOST_FEATURES};

pub(crate) use prepared::Prepared;
pub(crate) use shape::Shape;

use crate::{Relata, RelataError, Result};

/// Most examples of a prediction.
pub const MOST_EXAMPLES: usize = 1024;

/// A query, as SQL or planned.
#[derive(Debug, Clone)]
pub enum PredictQuery {
    /// Its text.
    Sql(String),
    /// Its plan.
    Plan(Box<LogicalPlan>),
}

impl From<&str> for PredictQuery {
    fn from(sql: &str) -> Self {
        Self::Sql(sql.to_owned())
    }
}

impl From<String> for PredictQuery {
    fn from(sql: String) -> Self {
        Self::Sql(sql)
    }
}

impl From<LogicalPlan> for PredictQuery {
    fn from(plan: LogicalPlan) -> Self {
        Self::Plan(Box::new(plan))
    }
}

impl PredictQuery {
    async fn plan(&self, session: &SessionState) -> Result<LogicalPlan> {
        let (plan, sql) = match self {
            Self::Sql(sql) => (session.create_logical_plan(sql).await?, sql.as_str()),
            Self::Plan(plan) => (plan.as_ref().clone(), "a plan"),
        };
        match plan {
            LogicalPlan::Ddl(_)
            | LogicalPlan::Dml(_)
            | LogicalPlan::Statement(_)
            | LogicalPlan::Copy(_)
            | LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_) => Err(RelataError::NoQuery(sql.to_owned())),
            plan => Ok(plan),
        }
    }
}

/// What is to be predicted, of what, and from what.
///
/// Without a time, features are of the tables as they are. With times, each example and each entity is described by what was there
/// strictly before its own time, and the values to predict are seen of earlier rows only.
#[derive(Debug, Clone)]
pub struct PredictTask {
    /// The examples: the columns of an entity's key, a date or timestamp if each example has a time of its own, and as the last
    /// column the label. Rows without a label are no examples. An entity may occur several times.
    pub target: PredictQuery,
    /// What to predict for: the columns of the key in the same order, and a date or timestamp if each has a time of its own.
    pub entities: PredictQuery,
    /// The time of entities that have none of their own; a date, a timestamp or a text that is one. Where the target query has no
    /// times, it is that of the examples as well: their labels are taken for known then.
    pub at: Option<ScalarValue>,
    /// Steps along foreign keys that features come from, 1 to 3.
    pub depth: usize,
    /// Examples that are read at most, 10 to [`MOST_EXAMPLES`]. Of more a part is drawn, in which each class keeps its share.
    pub context: usize,
    /// Features that are read at most, 1 to 512: those that say most of the labels.
    pub features: usize,
    /// The table that the entities are rows of. Otherwise it is the one that the key columns of the target query come from or, where they
    /// are a foreign key there, the one that they refer to.
    pub entity: Option<TableReference>,
    /// Columns that would give the label away, each with its table, beside those that the label is computed from. With times they
    /// are still read of earlier rows.
    pub hide: Vec<Column>,
    /// Columns, each with its table, that say when a row came to be; otherwise it is a table's first date or timestamp.
    pub time: Vec<Column>,
    /// Tables whose dates and timestamps do not say when a row came to be.
    pub timeless: Vec<TableReference>,
    /// Whether labels are classes or numbers. By default texts, booleans and integers of at most 10 different values are classes; the
    /// SQL relation, whose columns do not depend on data, takes all integers for numbers.
    pub classes: Option<bool>,
    /// Seed of the draw of examples.
    pub seed: u64,
}

impl PredictTask {
    /// The task with two steps along foreign keys, 512 examples and 30 features.
    pub fn new(target: impl Into<PredictQuery>, entities: impl Into<PredictQuery>) -> Self {
        Self {
            target: target.into(),
            entities: entities.into(),
            at: None,
            depth: 2,
            context: 512,
            features: 30,
            entity: None,
            hide: vec![],
            time: vec![],
            timeless: vec![],
            classes: None,
            seed: 0,
        }
    }

    /// Whether its numbers are in range.
    pub(crate) fn validate(&self) -> Result<()> {
        let within = |name: &str, value: usize, least: usize, most: usize| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(no_prediction(format!("{name} is {value}, allowed are {least} to {most}")))
        };
        within("depth", self.depth, 1, 3)?;
        within("context", self.context, MOST_CLASSES, MOST_EXAMPLES)?;
        within("features", self.features, 1, MOST_FEATURES)?;
        self.cutoff().map(drop)
    }

    /// The time to predict at, in microseconds.
    fn cutoff(&self) -> Result<Option<ScalarValue>> {
        let Some(at) = &self.at else { return Ok(None) };
        let data_type = at.data_type();
        let is_text = matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        if at.is_null() || !(is_text || shape::is_time(&data_type)) {
            return Err(no_prediction(format!("the time to predict at is {at}, a {data_type}")));
        }
        Ok(Some(at.cast_to(&shape::microseconds())?))
    }
}

/// What was predicted.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Predictions {
    /// The columns of `batches`.
    pub schema: SchemaRef,
    /// A row for each entity: its key columns, its own time if there is one, and
    ///
    /// - of classes `prediction` (Utf8), `probability` of that class and `probabilities`, a map from each class to its own;
    /// - of numbers `prediction` (Float64, the mean), `lower` and `upper` (the 5% and 95% quantiles) and `quantiles`, a list of
    ///   [`relata_experts::in_context::QUANTILES`];
    ///
    /// then `examples` and `features`, how many of them were read.
    pub batches: Vec<RecordBatch>,
    /// The classes, the most frequent first; none for numbers.
    pub classes: Vec<String>,
    /// The features that were read, by name, such as `customers.orders.MEAN(amount)`.
    pub features: Vec<String>,
    /// Examples that were read.
    pub examples: usize,
}

impl Relata {
    /// Predicts a column of any database from labelled examples, without training.
    ///
    /// The tables are those of the session that are in the entities' schema; foreign keys are those of
    /// [`Self::with_foreign_keys`] or, without any, those that the profiles suggest, for which tables without a profile are profiled.
    /// Of more than 10 classes the nine most frequent are told apart, the others are the class `other`.
    ///
    /// ```
    /// use datafusion::prelude::SessionContext;
    /// use relata::{PredictTask, Relata};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), relata::RelataError> {
    /// let ctx = SessionContext::new();
    /// let customers = "CREATE TABLE customers AS SELECT value AS id, value % 7 AS visits, \
    ///                  CASE WHEN value < 40 THEN value % 7 > 3 END AS churned FROM generate_series(0, 49)";
    /// ctx.sql(customers).await?.collect().await?;
    /// let task = PredictTask::new(
    ///     "SELECT id, churned FROM customers WHERE churned IS NOT NULL",
    ///     "SELECT id FROM customers WHERE churned IS NULL",
    /// );
    /// let predictions = Relata::pretrained()?.predict(&ctx, &task).await?;
    /// assert_eq!(predictions.batches[0].num_rows(), 10);
    /// assert_eq!((predictions.examples, predictions.classes.len()), (40, 2));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RelataError::NoPrediction`] for a task that cannot be: without examples, with a single class, with numbers out of range,
    /// with keys of no table; [`RelataError::NoTable`]; and what DataFusion says of the queries.
    pub async fn predict(&self, ctx: &SessionContext, task: &PredictTask) -> Result<Predictions> {
        let session = ctx.state();
        let (target, entities) = (task.target.plan(&session).await?, task.entities.plan(&session).await?);
        let shape = Shape::new(target.schema(), entities.schema(), task)?;
        let prepared = Prepared::new(self, &session, task, target, entities, shape).await?;
        prepared.run(self, &session, None).await
    }

    /// Predicts with these weights from now on, instead of those inside the crate.
    #[must_use]
    pub fn with_predictor(mut self, predictor: InContextPredictor) -> Self {
        self.predictor = Arc::new(OnceLock::from(Arc::new(predictor)));
        self.residuals = Arc::default();
        self
    }
}

fn no_prediction(reason: impl std::fmt::Display) -> RelataError {
    RelataError::NoPrediction(reason.to_string())
}
