//! What relata keeps of a table: a uniform row sample, samples by key and a sketch per column, built in one scan.

mod builder;
mod storage;

use std::sync::{Arc, OnceLock};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::{
    ExecutionPlan, ExecutionPlanProperties, StatisticsArgs, StatisticsContext, execute_stream_partitioned,
};
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use crate::key_sample::KeySample;
use crate::row_groups::RowGroups;
use crate::sample::{priority, take_rows};
use crate::sketch::{ColumnSketch, Domain};
use crate::synopsis::SynopsisConfig;
use crate::{FeaturizeError, Result};
use builder::ProfileBuilder;

/// How a profile is built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProfileConfig {
    /// Rows of the sample (default 4096).
    pub sample_rows: usize,
    /// Bytes that a stored profile may take as a share of those of the table in memory (default 0.01); samples are cut to it.
    pub share_of_data: f64,
    /// Bytes that a stored profile may take whatever the size of its table (default 256 KiB).
    pub least_bytes: usize,
    /// Columns whose rows are sampled by value as well (default 6): the likeliest join keys among those with too many values
    /// for the uniform sample to know.
    pub key_samples: usize,
    /// Rows of each of these samples (default 2048).
    pub key_sample_rows: usize,
    /// Distinct values that are counted exactly, over all columns of a table (default 2 Mi, 16 bytes each in every part).
    pub counted_values: usize,
    /// Parts of the table that are read at a time (default 4); the sample is the same for the same number.
    pub parts: usize,
    /// Seed of the sample (default 0).
    pub seed: u64,
    /// How the samples of several tables are joined.
    pub synopsis: SynopsisConfig,
    /// Whether estimates are told and cut off at provable bounds (default); to measure what these are worth.
    pub bounds: bool,
}

impl Default for ProfileConfig {
    fn default() -> Self {
        Self {
            sample_rows: 4096,
            share_of_data: 0.01,
            least_bytes: 256 << 10,
            key_samples: 6,
            key_sample_rows: 2048,
            counted_values: 2 << 20,
            parts: 4,
            seed: 0,
            synopsis: SynopsisConfig::default(),
            bounds: true,
        }
    }
}

/// Samples and sketches of one table.
#[derive(Debug, Clone)]
pub struct TableProfile {
    /// Number of rows.
    pub rows: f64,
    /// The sample, in random order.
    pub sample: RecordBatch,
    /// One sketch per column of the table, in the order of its schema.
    pub columns: Vec<ColumnSketch>,
    /// Mean size of a row in memory, in bytes.
    pub row_bytes: f64,
    /// Rows that were merged into it since the scan of a whole table.
    pub appended: f64,
    /// Who keeps profiles says here what files this one is of; empty where nobody did.
    pub files: Vec<u64>,
    /// The rows of the sample in groups of similar ones.
    pub groups: RowGroups,
    /// Samples by the values of a column with rows of their own, and the column.
    key_samples: Vec<(usize, KeySample)>,
    /// Those that the uniform sample amounts to, made when asked for. `[columns]`
    derived: Vec<OnceLock<Option<KeySample>>>,
}

impl PartialEq for TableProfile {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows
            && self.sample == other.sample
            && self.columns == other.columns
            && self.row_bytes == other.row_bytes
            && self.appended == other.appended
            && self.files == other.files
            && self.groups == other.groups
            && self.key_samples == other.key_samples
    }
}

impl TableProfile {
    /// Profiles a table in one scan through DataFusion, in parts that are read at the same time.
    ///
    /// # Errors
    /// When the scan fails, or would not end or take away what a query is to read, as that of a stream.
    pub async fn build(session: &dyn Session, table: &dyn TableProvider, config: &ProfileConfig) -> Result<Self> {
        let plan = scan(session, table, config.parts).await?;
        if plan.boundedness().is_unbounded() {
            return Err(FeaturizeError::Unsupported("the profile of an unbounded table".to_owned()));
        }
        let known = StatisticsContext::new().compute(plan.as_ref(), &StatisticsArgs::new()).ok();
        let ranges = builder::known_ranges(known.as_deref(), &plan.schema());
        let tasks =
            execute_stream_partitioned(plan, session.task_ctx())?.into_iter().enumerate().map(|(part, mut rows)| {
                let mut builder = ProfileBuilder::new(rows.schema(), config, part, &ranges);
                SpawnedTask::spawn(async move {
                    while let Some(batch) = rows.next().await {
                        builder.push(&batch?)?;
                    }
                    Ok::<_, FeaturizeError>(builder)
                })
            });
        // All are started before the first is waited for.
        let mut tasks = tasks.collect::<Vec<_>>().into_iter();
        let joined = |error| DataFusionError::ExecutionJoin(Box::new(error));
        let mut whole = match tasks.next() {
            Some(first) => first.join().await.map_err(joined)??,
            None => ProfileBuilder::new(table.schema(), config, 0, &ranges),
        };
        for task in tasks {
            whole.append(task.join().await.map_err(joined)??);
        }
        whole.finish(config)
    }

    /// Profiles rows in memory.
    ///
    /// # Errors
    /// When the batches do not have `schema`.
    pub fn of_batches(schema: SchemaRef, batches: &[RecordBatch], config: &ProfileConfig) -> Result<Self> {
        let mut builder = ProfileBuilder::new(schema, config, 0, &[]);
        for batch in batches {
            builder.push(batch)?;
        }
        builder.finish(config)
    }

    /// The profile of this part of a table and of the part that follows it, such as rows that were appended. What adds up is
    /// exact; the sample is one of both parts; see [`ColumnSketch`] for the rest.
    ///
    /// # Errors
    /// When the parts have different schemas.
    pub fn merge(&self, next: &Self, config: &ProfileConfig) -> Result<Self> {
        let schema = self.schema();
        if schema.fields() != next.schema().fields() {
            return Err(FeaturizeError::Parts);
        }
        let rows = self.rows + next.rows;
        let (mine, theirs) = shares(self, next, config);
        let both = [self.sample.slice(0, mine), next.sample.slice(0, theirs)];
        let sample = concat_batches(&schema, &both).map_err(DataFusionError::from)?;
        // The first rows of a sample are one, too: rows of both parts in random order.
        let mut order: Vec<u32> = (0..sample.num_rows() as u32).collect();
        order.sort_by_key(|row| priority(config.seed, 0, u64::from(*row)));
        let sample = take_rows(&sample, order)?;
        let parts = self.columns.iter().zip(&next.columns).zip(sample.columns());
        let columns: Vec<_> = parts.map(|((one, next), sample)| one.merge(next, sample)).collect();
        let row_bytes = (self.row_bytes * self.rows + next.row_bytes * next.rows) / rows.max(1.0);
        let mut key_samples = vec![];
        for (column, sketch) in columns.iter().enumerate() {
            // What the sample of a table that is complete in it says of a key is made from it when asked for.
            let complete = sample.num_rows() as f64 >= rows || sketch.common_is_complete;
            let (Some(one), Some(other), false) = (self.key_sample(column), next.key_sample(column), complete) else {
                continue;
            };
            let own = (one.own.as_ref().unwrap_or(&self.sample), other.own.as_ref().unwrap_or(&next.sample));
            key_samples.push((column, one.merge(own.0, other, own.1, config.key_sample_rows)?));
        }
        let derived = columns.iter().map(|_| OnceLock::new()).collect();
        let (appended, files) = (self.appended + next.rows, vec![]);
        let groups = RowGroups::of_sample(&columns, &sample);
        Self { rows, sample, columns, row_bytes, appended, files, groups, key_samples, derived }.cut(config)
    }

    /// The table's schema.
    pub fn schema(&self) -> SchemaRef {
        self.sample.schema()
    }

    /// The rows of the table by the values of a column; `None` where the column was not likely to be a key.
    pub fn key_sample(&self, column: usize) -> Option<&KeySample> {
        self.sample_by(column).filter(|sample| !sample.is_scaled)
    }

    /// The same, of a column that was not likely to be a key what the uniform sample says.
    pub(crate) fn sample_by(&self, column: usize) -> Option<&KeySample> {
        if let Some((_, sample)) = self.key_samples.iter().find(|(own, _)| *own == column) {
            return Some(sample);
        }
        let sketch = &self.columns[column];
        let derive = || {
            let is_key = matches!(sketch.domain, Domain::Integer | Domain::Text);
            is_key.then(|| KeySample::of_rows(self.sample.column(column), sketch, self.rows))
        };
        self.derived.get(column)?.get_or_init(derive).as_ref()
    }

    /// Whether the sample is the whole table.
    pub fn is_complete(&self) -> bool {
        self.sample.num_rows() as f64 >= self.rows
    }

    /// Size in memory, in bytes.
    pub fn bytes(&self) -> usize {
        let values: usize = self.columns.iter().map(|c| (c.common.len() + 2 * c.histogram.bounds.len()) * 24).sum();
        let keys = self.key_samples.iter().map(|(_, sample)| {
            sample.own.as_ref().map_or(0, RecordBatch::get_array_memory_size) + sample.hashes.len() * 24
        });
        self.sample.get_array_memory_size() + values + keys.sum::<usize>() + self.groups.bytes()
    }
}

/// A scan of all of a table in this many parts, or as many as its provider makes of it.
///
/// # Errors
/// When the table cannot be scanned.
pub async fn scan(session: &dyn Session, table: &dyn TableProvider, parts: usize) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = table.scan(session, None, &[], None).await?;
    if plan.output_partitioning().partition_count() >= parts {
        return Ok(plan);
    }
    Ok(plan.repartitioned(parts, session.config_options())?.unwrap_or(plan))
}

/// How many of the sampled rows of two parts make a sample of both: all where both parts are complete and fit, otherwise in
/// proportion to their rows.
fn shares(one: &TableProfile, next: &TableProfile, config: &ProfileConfig) -> (usize, usize) {
    let (have, add) = (one.sample.num_rows(), next.sample.num_rows());
    let capacity = config.sample_rows;
    if one.is_complete() && next.is_complete() && have + add <= capacity {
        return (have, add);
    }
    let share = one.rows / (one.rows + next.rows).max(1.0);
    // The largest sample that neither part is too short for.
    let total = (have as f64 / share).min(add as f64 / (1.0 - share)).min(capacity as f64);
    ((total * share).round() as usize, (total * (1.0 - share)).round() as usize)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{AsArray, Int64Array, StringArray};
    use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;
    use crate::sketch::Value;

    fn profile() -> TableProfile {
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("name", DataType::Utf8, true),
        ]));
        let ids = Int64Array::from_iter_values(0..10_000);
        let names = StringArray::from_iter((0..10_000).map(|i| (i % 7 != 0).then(|| format!("name {}", i % 100))));
        let batch =
            RecordBatch::try_new(Arc::clone(&schema) as SchemaRef, vec![Arc::new(ids), Arc::new(names)]).unwrap();
        TableProfile::of_batches(schema, &[batch], &ProfileConfig::default()).unwrap()
    }

    #[test]
    fn survives_a_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.profile");
        let profile = profile();
        profile.save(&path).unwrap();
        let loaded = TableProfile::load(&path).unwrap();
        assert_eq!(loaded, profile);
        // Ids have rows of their own; the hundred names are known from the uniform sample.
        let ids = loaded.key_sample(0).unwrap();
        assert!(ids.own.as_ref().is_some_and(|rows| rows.num_rows() == 2048) && ids.counts.iter().all(|c| *c == 1.0));
        let names = loaded.key_sample(1).unwrap();
        assert!(names.own.is_none() && names.hashes.len() == 100);
        assert_eq!(names.counts.iter().sum::<f64>(), profile.rows - profile.columns[1].nulls);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no partial file is left");
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.profile");
        profile().save(&path).unwrap();
        let good = std::fs::read(&path).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        for bad in [&good[..good.len() / 2], &flipped[..], b"", b"RELATAP1", b"something else entirely"] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(TableProfile::load(&path), Err(FeaturizeError::Stored { .. })));
        }
        assert!(matches!(TableProfile::load(&dir.path().join("none")), Err(FeaturizeError::Io { .. })));
    }

    fn part(rows: std::ops::Range<i64>, names: i64) -> TableProfile {
        let ids = Int64Array::from_iter_values(rows.clone());
        let parents =
            Int64Array::from_iter(rows.clone().map(|i| (i % 50 != 0).then_some(i % 3000 * (i % 3000) / 3000)));
        let texts = StringArray::from_iter_values(rows.map(|i| format!("n{}", i % names)));
        let columns: [(&str, datafusion::arrow::array::ArrayRef); 3] =
            [("id", Arc::new(ids)), ("parent", Arc::new(parents)), ("name", Arc::new(texts))];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).unwrap();
        TableProfile::of_batches(batch.schema(), &[batch], &ProfileConfig::default()).unwrap()
    }

    #[test]
    fn appended_rows_are_merged() {
        let (whole, config) = (part(0..60_000, 90), ProfileConfig::default());
        let merged = part(0..50_000, 90).merge(&part(50_000..60_000, 90), &config).unwrap();
        assert_eq!((merged.rows, merged.sample.num_rows()), (60_000.0, 4096));
        let later = merged.sample.column(0).as_primitive::<Int64Type>().values().iter().filter(|id| **id >= 50_000);
        assert!((582..=783).contains(&later.count()), "a sixth, give or take four standard deviations");
        // New ids lie beyond the old ones, all names are known: exact.
        assert_eq!(merged.columns[0].degrees, whole.columns[0].degrees);
        assert!(merged.columns[0].is_unique());
        assert_eq!(merged.columns[2].common, whole.columns[2].common);
        assert_eq!(merged.columns[2].degrees, whole.columns[2].degrees);
        // Parents occur in both parts.
        let (parent, exact) = (&merged.columns[1], &whole.columns[1]);
        assert_eq!((parent.nulls, &parent.min, &parent.max), (exact.nulls, &exact.min, &exact.max));
        assert!((parent.distinct() / exact.distinct() - 1.0).abs() < 0.1);
        assert!((parent.degrees.sum_of_squares / exact.degrees.sum_of_squares - 1.0).abs() < 0.2);
        assert!(parent.max_degree() >= exact.degrees.max && parent.max_degree() < 2.0 * exact.degrees.max);
        for bound in [0.0, 10.0, 700.0, 2000.0, 2999.0] {
            let share = |sketch: &ColumnSketch| sketch.below(&Value::Number(bound), true);
            assert!((share(parent) - share(exact)).abs() < 0.01);
        }
        let (keys, expected) = (merged.key_sample(1).unwrap(), whole.key_sample(1).unwrap());
        for (hash, count) in keys.hashes.iter().zip(&keys.counts) {
            let place = expected.hashes.binary_search(hash);
            assert!(place.is_ok_and(|place| expected.counts[place] == *count) || *hash > expected.threshold);
        }
        assert!(keys.own.as_ref().is_some_and(|rows| rows.num_rows() <= 2048) && keys.hashes.len() > 100);
        // Small parts stay complete; a part of another table is refused.
        let small = part(0..1000, 9).merge(&part(1000..1500, 9), &config).unwrap();
        assert!(small.is_complete() && small.sample.num_rows() == 1500);
        assert!(matches!(small.merge(&profile(), &config), Err(FeaturizeError::Parts)));
    }

    #[tokio::test]
    async fn parts_make_the_profile_of_the_whole() {
        let ctx = datafusion::prelude::SessionContext::new();
        let batches: Vec<RecordBatch> = (0..20)
            .map(|i| {
                let ids = Int64Array::from_iter_values(i * 1000..(i + 1) * 1000);
                let names = StringArray::from_iter_values((0..1000).map(|j| format!("{}", (i * j) % 700)));
                RecordBatch::try_from_iter([
                    ("id", Arc::new(ids) as datafusion::arrow::array::ArrayRef),
                    ("name", Arc::new(names)),
                ])
                .unwrap()
            })
            .collect();
        let schema = batches[0].schema();
        let parts = batches.chunks(7).map(<[RecordBatch]>::to_vec).collect();
        let table = datafusion::datasource::MemTable::try_new(Arc::clone(&schema), parts).unwrap();
        let config = ProfileConfig::default();
        let built = TableProfile::build(&ctx.state(), &table, &config).await.unwrap();
        let again = TableProfile::build(&ctx.state(), &table, &config).await.unwrap();
        assert_eq!(built, again);
        let whole = TableProfile::of_batches(schema, &batches, &config).unwrap();
        assert_eq!((built.rows, built.sample.num_rows()), (20_000.0, 4096));
        assert_eq!(built.columns[0].degrees, whole.columns[0].degrees);
        assert_eq!(built.columns[0].order, whole.columns[0].order);
        assert_eq!(built.columns[1].degrees, whole.columns[1].degrees);
        assert_eq!(built.columns[1].distinct_hashes, whole.columns[1].distinct_hashes);
    }

    #[test]
    fn a_stored_profile_keeps_to_its_budget() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("text", DataType::Utf8, false),
        ]));
        let rows = 8000;
        let ids = Int64Array::from_iter_values(0..rows);
        let text =
            |i: i64| (0..40).map(|j| format!("{:x}", crate::sample::mix((i * 40 + j) as u64))).collect::<String>();
        let texts = StringArray::from_iter_values((0..rows).map(text));
        let batch =
            RecordBatch::try_new(Arc::clone(&schema) as SchemaRef, vec![Arc::new(ids), Arc::new(texts)]).unwrap();
        let build = |config: &ProfileConfig| {
            TableProfile::of_batches(Arc::clone(&schema) as _, std::slice::from_ref(&batch), config)
        };
        let profile = build(&ProfileConfig::default()).unwrap();
        let bytes = profile.to_bytes().unwrap().len();
        assert!(bytes < 256 << 10 && bytes > 100 << 10, "{bytes}");
        assert!(profile.sample.num_rows() >= 100 && profile.key_sample(0).is_some());
        assert_eq!(profile.columns[1].degrees.distinct, rows as f64);
        let large = build(&ProfileConfig { share_of_data: 2.0, ..ProfileConfig::default() }).unwrap();
        assert_eq!(large.sample.num_rows(), 4096);
        let tiny = build(&ProfileConfig { share_of_data: 0.0, least_bytes: 0, ..ProfileConfig::default() }).unwrap();
        assert!(tiny.sample.num_rows() > 0, "a sample of some rows is always kept");
    }
}
