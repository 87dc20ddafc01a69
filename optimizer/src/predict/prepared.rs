//! A task whose tables, keys and features are known, ready to run.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};
use datafusion::arrow::compute::{CastOptions, cast_with_options, concat, concat_batches};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::MemTable;
use datafusion::common::TableReference;
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::collect;
use relata_experts::in_context::{Column, InContextPredictor, Labels, Prediction};
use relata_featurize::synthesis::{Entities, FeaturePlan, FeatureTable, Relations, SynthesisConfig, Task, synthesize};

use super::examples::Examples;
use super::lineage::{BaseColumn, Lineage, Walk};
use super::relations::Database;
use super::shape::{Kind, Shape, microseconds};
use super::{PredictTask, Predictions, no_prediction, output};
use crate::config::RelataConfig;
use crate::{Relata, Result};

/// The columns of the rows that are described: examples first, then entities.
const ROW: &str = "row";
const AT: &str = "at";

/// The name under which these rows are scanned.
const ROWS: &str = "predicted_rows";

/// Features that are computed, of which those that say most of the labels are kept: so many for each that is kept, and as many as
/// synthesis gives by default at least.
const COMPUTED_PER_KEPT: usize = 4;

/// Rows that are predicted at a time.
const PREDICTED_AT_A_TIME: usize = 4096;

/// A task, checked against the tables of a session.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    task: PredictTask,
    target: LogicalPlan,
    entities: LogicalPlan,
    shape: Shape,
    relations: Relations,
    synthesis: Task,
    /// The rows to describe, of which there are none yet.
    schema: SchemaRef,
    /// The features that are computed, by name.
    features: Vec<String>,
}

impl Prepared {
    /// Finds the entities' table, what the label comes from, and the keys of the tables.
    pub(crate) async fn new(
        relata: &Relata,
        session: &SessionState,
        task: &PredictTask,
        target: LogicalPlan,
        entities: LogicalPlan,
        shape: Shape,
    ) -> Result<Self> {
        task.validate()?;
        let walk = Walk { session };
        let keys: Vec<Lineage> =
            shape.target_keys.iter().map(|&key| walk.output(&target, key)).collect::<Result<_, _>>()?;
        let label = walk.output(&target, shape.label)?;
        let given: Vec<String> =
            shape.target_keys.iter().map(|&key| target.schema().field(key).name().clone()).collect();
        let mut database = Database::open(relata, session, task, &keys).await?;
        let entity = database.entity(task, &keys, &given)?;
        if task.at.is_some() && shape.target_time.is_none() && database.is_event(entity.table) {
            let name = &database.relations.tables[entity.table].reference;
            return Err(no_prediction(format!(
                "the rows of {name} are events: to predict at a time, select the time of each example in the target query"
            )));
        }
        let selecting = |base: &BaseColumn| database.place(&base.table) != Some(entity.table);
        let columns = label.columns.into_iter().chain(label.selecting.into_iter().filter(selecting));
        let mut hidden = database.places(columns);
        let catalog = &session.config_options().catalog;
        let resolved = |name: TableReference| name.resolve(&catalog.default_catalog, &catalog.default_schema);
        for column in &task.hide {
            hidden.insert(database.named(column, resolved)?);
        }
        // The key is known of every entity.
        hidden.retain(|(table, column)| *table != entity.table || !entity.key.contains(column));
        let source = database.relations.tables[entity.table].source.schema();
        let mut fields = vec![Field::new(ROW, DataType::Int64, false)];
        for (place, column) in entity.key.iter().enumerate() {
            let data_type = source.field_with_name(column).map_err(DataFusionError::from)?.data_type().clone();
            fields.push(Field::new(format!("key{place}"), data_type, true));
        }
        fields.extend(shape.has_cutoff(task).then(|| Field::new(AT, microseconds(), true)));
        let synthesis = Task { entity: entity.table, entity_key: entity.key, hidden: hidden.into_iter().collect() };
        let (task, relations, schema) = (task.clone(), database.relations, Arc::new(Schema::new(fields)));
        let mut prepared = Self { task, target, entities, shape, relations, synthesis, schema, features: vec![] };
        // What does not fit shows before anything runs.
        let plan = prepared.plan(RecordBatch::new_empty(Arc::clone(&prepared.schema)))?;
        prepared.features.extend(plan.features.into_iter().map(|feature| feature.name));
        Ok(prepared)
    }

    /// The features that are computed, by name.
    pub(crate) fn features(&self) -> &[String] {
        &self.features
    }

    /// What a plan says of the task: its table, what is hidden, and its limits.
    pub(crate) fn summary(&self) -> [String; 5] {
        let table = |place: usize| self.relations.tables[place].reference.table();
        let hidden: Vec<String> =
            self.synthesis.hidden.iter().map(|(place, column)| format!("{}.{column}", table(*place))).collect();
        let key = self.synthesis.entity_key.join(", ");
        let PredictTask { depth, context, features, .. } = &self.task;
        [
            format!("entities={}({key})", table(self.synthesis.entity)),
            format!("hidden=[{}]", hidden.join(", ")),
            format!("depth={depth}"),
            format!("context={context}"),
            format!("features={features}"),
        ]
    }

    /// Runs the queries and predicts, for `limit` entities at most.
    pub(crate) async fn run(
        &self,
        relata: &Relata,
        session: &SessionState,
        limit: Option<usize>,
    ) -> Result<Predictions> {
        let rows = collected(session, &self.target).await?;
        let examples = Examples::choose(&rows, &self.shape, self.task.context, self.task.seed)?;
        drop(rows);
        let entities = match limit {
            Some(limit) => LogicalPlanBuilder::from(self.entities.clone()).limit(0, Some(limit))?.build()?,
            None => self.entities.clone(),
        };
        let entities = collected(session, &entities).await?;
        let kind = if examples.classes.is_empty() { Kind::Numbers } else { Kind::Classes };
        let schema = self.shape.schema(kind);
        let labels = examples.labels.clone();
        let mut predictions = Predictions {
            schema: Arc::clone(&schema),
            batches: vec![RecordBatch::new_empty(Arc::clone(&schema))],
            classes: examples.classes.clone(),
            features: vec![],
            examples: labels.len(),
        };
        if entities.num_rows() == 0 {
            return Ok(predictions);
        }
        let mut table = self.described(session, self.rows(&examples, &entities)?).await?;
        labels.select(&mut table, 0..labels.len(), self.task.features);
        predictions.features = table.columns.iter().map(|column| column.name.clone()).collect();
        let predictor = relata.predictor()?;
        let work = move || predict(&predictor, &table, &labels);
        let predicted = tokio::task::spawn_blocking(work).await;
        let predicted = predicted.map_err(|error| no_prediction(format!("the predictor stopped: {error}")))??;
        let given = self.shape.entity_keys.iter().chain(&self.shape.entity_time);
        let given = given.map(|&place| Arc::clone(entities.column(place))).collect();
        let used = [predictions.examples, predictions.features.len()];
        predictions.batches = vec![output::table(&schema, given, &predicted, &predictions.classes, used)?];
        Ok(predictions)
    }

    /// Examples and entities as rows to describe.
    fn rows(&self, examples: &Examples, entities: &RecordBatch) -> Result<RecordBatch> {
        let count = examples.labels.len() + entities.num_rows();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(0..count as i64))];
        for (place, (example, &entity)) in examples.keys.iter().zip(&self.shape.entity_keys).enumerate() {
            let data_type = self.schema.field(place + 1).data_type();
            let parts = [example, entities.column(entity)].map(|keys| converted(keys, data_type));
            let [example, entity] = parts;
            columns.push(concat(&[&example?, &entity?]).map_err(DataFusionError::from)?);
        }
        if self.schema.index_of(AT).is_ok() {
            let at = self.task.cutoff()?;
            let given = |rows: usize| match &at {
                Some(at) => Ok(at.to_array_of_size(rows)?),
                None => Err(no_prediction("there is no time to predict at")),
            };
            let example = match &examples.time {
                Some(time) => converted(time, &microseconds())?,
                None => given(examples.labels.len())?,
            };
            let entity = match self.shape.entity_time {
                Some(time) => converted(entities.column(time), &microseconds())?,
                None => given(entities.num_rows())?,
            };
            columns.push(concat(&[&example, &entity]).map_err(DataFusionError::from)?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(DataFusionError::from)?)
    }

    /// The features of rows.
    async fn described(&self, session: &SessionState, rows: RecordBatch) -> Result<FeatureTable> {
        let count = rows.num_rows();
        let mut table = run_plan(session, &self.plan(rows.clone())?).await?;
        if table.rows.len() != count {
            // A key that was trusted to be unique is not.
            let mut distrusting = self.clone();
            distrusting.relations.tables.iter_mut().for_each(|relation| relation.key.clear());
            table = run_plan(session, &distrusting.plan(rows)?).await?;
        }
        if table.rows.len() == count {
            Ok(table)
        } else {
            Err(no_prediction(format!("{} rows have features, expected are {count}", table.rows.len())))
        }
    }

    /// The plan of the features of rows.
    fn plan(&self, rows: RecordBatch) -> Result<FeaturePlan> {
        let keys = (0..self.synthesis.entity_key.len()).map(|place| format!("key{place}")).collect();
        let at = self.schema.index_of(AT).is_ok().then(|| AT.to_owned());
        let source = provider_as_source(Arc::new(MemTable::try_new(Arc::clone(&self.schema), vec![vec![rows]])?));
        let plan = LogicalPlanBuilder::scan(ROWS, source, None)?.build()?;
        let entities = Entities { plan, row: ROW.to_owned(), keys, at };
        let most = SynthesisConfig::default().max_features.max(COMPUTED_PER_KEPT * self.task.features);
        let config = SynthesisConfig { depth: self.task.depth, max_features: most };
        Ok(synthesize(&self.relations, &self.synthesis, &entities, &config)?)
    }
}

impl Relata {
    /// The predictor, loaded at the first call.
    pub(crate) fn predictor(&self) -> Result<Arc<InContextPredictor>> {
        if let Some(predictor) = self.predictor.get() {
            return Ok(Arc::clone(predictor));
        }
        let predictor = Arc::new(InContextPredictor::pretrained()?);
        Ok(Arc::clone(self.predictor.get_or_init(|| predictor)))
    }
}

/// Values of another type; those that do not fit are an error.
fn converted(values: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let cast = cast_with_options(values, data_type, &options);
    cast.map_err(|error| no_prediction(format!("a key or time does not fit: {error}")))
}

/// The rows of a query.
async fn collected(session: &SessionState, plan: &LogicalPlan) -> Result<RecordBatch> {
    let physical = session.create_physical_plan(plan).await?;
    let schema = physical.schema();
    let batches = collect(physical, session.task_ctx()).await?;
    Ok(concat_batches(&schema, &batches).map_err(DataFusionError::from)?)
}

async fn run_plan(session: &SessionState, plan: &FeaturePlan) -> Result<FeatureTable> {
    let mut session = session.clone();
    // The rows in memory are no table to profile.
    if let Some(config) = session.config_mut().options_mut().extensions.get_mut::<RelataConfig>() {
        config.lazy_profiling = false;
    }
    let physical = session.create_physical_plan(&plan.plan).await?;
    let batches = collect(physical, session.task_ctx()).await?;
    Ok(FeatureTable::read(plan, &batches)?)
}

/// Reads the first rows as examples and predicts the others.
fn predict(predictor: &InContextPredictor, table: &FeatureTable, labels: &Labels) -> Result<Vec<Prediction>> {
    let prefilled = predictor.prefill(&columns(table, 0..labels.len()), labels)?;
    let mut predictions = vec![];
    for from in (labels.len()..table.rows.len()).step_by(PREDICTED_AT_A_TIME) {
        let rows = from..(from + PREDICTED_AT_A_TIME).min(table.rows.len());
        predictions.extend(prefilled.predict(&columns(table, rows))?);
    }
    Ok(predictions)
}

/// Some rows of the features; without any feature, one that says nothing.
fn columns(table: &FeatureTable, rows: std::ops::Range<usize>) -> Vec<Column> {
    if table.columns.is_empty() {
        return vec![Column::Number(vec![0.0; rows.len()])];
    }
    table.columns.iter().map(|column| Column::of(&column.values, rows.clone())).collect()
}
