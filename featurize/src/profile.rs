//! What relata keeps of a table: a uniform row sample and a sketch per column, built in one scan.
//!
//! A profile is stored as one file: a checksum, the sketches as CBOR and the sample as an Arrow IPC stream. A damaged file is reported and never trusted.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::OnceLock;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::DataFusionError;
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use crate::key_sample::{KeySample, KeySampler};
use crate::row_groups::RowGroups;
use crate::sample::Sampler;
use crate::sketch::{ColumnSketch, ColumnSketchBuilder, Domain};
use crate::{FeaturizeError, Result};

/// Version of the stored form.
const STORED_VERSION: u32 = 3;
const MAGIC: &[u8; 8] = b"RELATAP1";

/// A sample by key takes at most one part of so many of the bytes of the uniform sample.
const SHARE_OF_KEY_SAMPLE: usize = 4;

/// How a profile is built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProfileConfig {
    /// Rows of the sample (default 4096).
    pub sample_rows: usize,
    /// Bytes the sample may take in memory (default 4 MiB); wide rows make it shorter.
    pub sample_bytes: usize,
    /// Columns whose rows are sampled by value as well (default 6): the likeliest join keys among those with too many values
    /// for the uniform sample to know.
    pub key_samples: usize,
    /// Rows of each of these samples (default 2048).
    pub key_sample_rows: usize,
    /// Distinct values that are counted exactly, over all columns of a table (default 4 Mi, 16 bytes each).
    pub counted_values: usize,
    /// Seed of the sample (default 0).
    pub seed: u64,
}

impl Default for ProfileConfig {
    fn default() -> Self {
        Self {
            sample_rows: 4096,
            sample_bytes: 4 << 20,
            key_samples: 6,
            key_sample_rows: 2048,
            counted_values: 4 << 20,
            seed: 0,
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
            && self.groups == other.groups
            && self.key_samples == other.key_samples
    }
}

impl TableProfile {
    /// Profiles a table in one scan through DataFusion.
    ///
    /// The result is deterministic when the scan returns its rows in a fixed order, as it does for a session with one
    /// target partition.
    ///
    /// # Errors
    /// When the scan fails.
    pub async fn build(session: &dyn Session, table: &dyn TableProvider, config: &ProfileConfig) -> Result<Self> {
        let plan = table.scan(session, None, &[], None).await?;
        let mut stream = execute_stream(plan, session.task_ctx())?;
        let mut builder = ProfileBuilder::new(stream.schema(), config);
        while let Some(batch) = stream.next().await {
            builder.push(&batch?)?;
        }
        builder.finish()
    }

    /// Profiles rows in memory.
    ///
    /// # Errors
    /// When the batches do not have `schema`.
    pub fn of_batches(schema: SchemaRef, batches: &[RecordBatch], config: &ProfileConfig) -> Result<Self> {
        let mut builder = ProfileBuilder::new(schema, config);
        for batch in batches {
            builder.push(batch)?;
        }
        builder.finish()
    }

    /// The table's schema.
    pub fn schema(&self) -> SchemaRef {
        self.sample.schema()
    }

    /// The rows of the table by the values of a column; `None` where the column was not likely to be a key.
    pub fn key_sample(&self, column: usize) -> Option<&KeySample> {
        if let Some((_, sample)) = self.key_samples.iter().find(|(own, _)| *own == column) {
            return Some(sample);
        }
        let derive = || {
            let keys = matches!(self.columns[column].domain, Domain::Integer | Domain::Text);
            let derived = || KeySample::of_rows(self.sample.column(column), &self.columns[column], self.is_complete());
            keys.then(derived).flatten()
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

    /// Writes the profile to `path`, atomically.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut sketches = Vec::new();
        let stored = (STORED_VERSION, self.rows, self.row_bytes, &self.columns, &self.key_samples, &self.groups);
        ciborium::into_writer(&stored, &mut sketches).map_err(|e| damaged(path, e))?;
        let mut body = (sketches.len() as u64).to_le_bytes().to_vec();
        body.append(&mut sketches);
        let mut writer = StreamWriter::try_new(&mut body, &self.sample.schema()).map_err(DataFusionError::from)?;
        let own = self.key_samples.iter().filter_map(|(_, sample)| sample.own.as_ref());
        for batch in std::iter::once(&self.sample).chain(own) {
            writer.write(batch).map_err(DataFusionError::from)?;
        }
        writer.finish().map_err(DataFusionError::from)?;
        drop(writer);

        let io = |source| FeaturizeError::Io { path: path.display().to_string(), source };
        let partial = path.with_extension(format!("partial-{}", std::process::id()));
        let mut file = BufWriter::new(File::create(&partial).map_err(io)?);
        file.write_all(MAGIC).map_err(io)?;
        file.write_all(&xxhash_rust::xxh3::xxh3_64(&body).to_le_bytes()).map_err(io)?;
        file.write_all(&body).map_err(io)?;
        file.into_inner().map_err(|e| io(e.into_error()))?.sync_all().map_err(io)?;
        std::fs::rename(&partial, path).map_err(io)
    }

    /// Reads a profile that [`Self::save`] wrote.
    ///
    /// # Errors
    /// When the file is missing, damaged or of another version.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes =
            std::fs::read(path).map_err(|source| FeaturizeError::Io { path: path.display().to_string(), source })?;
        Self::from_bytes(&bytes, path)
    }

    /// Reads the bytes of a stored profile; `path` names them in errors.
    ///
    /// # Errors
    /// When they are damaged or of another version.
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self> {
        let body = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged(path, "not a profile, or of another version"))?;
        let (sum, body) = body.split_first_chunk::<8>().ok_or_else(|| damaged(path, "truncated"))?;
        if xxhash_rust::xxh3::xxh3_64(body) != u64::from_le_bytes(*sum) {
            return Err(damaged(path, "checksum differs"));
        }
        Self::from_body(body, path)
    }

    fn from_body(body: &[u8], path: &Path) -> Result<Self> {
        let truncated = || damaged(path, "truncated");
        let (length, body) = body.split_first_chunk::<8>().ok_or_else(truncated)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|e| damaged(path, e))?;
        let (sketches, sample) = body.split_at_checked(length).ok_or_else(truncated)?;
        let stored: Stored = ciborium::from_reader(sketches).map_err(|e| damaged(path, e))?;
        let (version, rows, row_bytes, columns, mut key_samples, groups) = stored;
        let reader = StreamReader::try_new(sample, None).map_err(|e| damaged(path, e))?;
        let schema = reader.schema();
        if version != STORED_VERSION || columns.len() != schema.fields().len() || !groups.is_valid(columns.len()) {
            return Err(damaged(path, "of another version"));
        }
        let mut batches = reader.collect::<Result<Vec<_>, _>>().map_err(|e| damaged(path, e))?.into_iter();
        let sample = batches.next().ok_or_else(truncated)?;
        for (column, sample) in &mut key_samples {
            let own = batches.next().ok_or_else(truncated)?;
            if *column >= columns.len() || !sample.is_valid(own.num_rows()) {
                return Err(damaged(path, "a sample by key does not fit its rows"));
            }
            sample.own = Some(own);
        }
        let derived = columns.iter().map(|_| OnceLock::new()).collect();
        Ok(Self { rows, sample, columns, row_bytes, groups, key_samples, derived })
    }
}

/// What precedes the samples in a stored profile: version, rows, bytes of a row, sketches, samples by key, groups of rows.
type Stored = (u32, f64, f64, Vec<ColumnSketch>, Vec<(usize, KeySample)>, RowGroups);

fn damaged(path: &Path, reason: impl std::fmt::Display) -> FeaturizeError {
    FeaturizeError::Stored { path: path.display().to_string(), reason: reason.to_string() }
}

/// Builds a profile batch by batch.
#[derive(Debug)]
struct ProfileBuilder {
    schema: SchemaRef,
    sampler: Sampler,
    columns: Vec<ColumnSketchBuilder>,
    key_samplers: Vec<KeySampler>,
    key_samples: usize,
    bytes: usize,
    sample_bytes: usize,
}

impl ProfileBuilder {
    fn new(schema: SchemaRef, config: &ProfileConfig) -> Self {
        let capacity = config.counted_values / schema.fields().len().max(1);
        let columns = schema.fields().iter().map(|f| ColumnSketchBuilder::new(f.data_type(), capacity)).collect();
        let sampler = Sampler::new(SchemaRef::clone(&schema), config.sample_rows, config.seed);
        let is_key =
            |column: &usize| matches!(Domain::of(schema.field(*column).data_type()), Domain::Integer | Domain::Text);
        let keys = (0..schema.fields().len()).filter(is_key).filter(|_| config.key_samples > 0);
        let key_samplers = keys.map(|column| KeySampler::new(column, config.key_sample_rows, config.seed)).collect();
        let (key_samples, sample_bytes) = (config.key_samples, config.sample_bytes);
        Self { schema, sampler, columns, key_samplers, key_samples, bytes: 0, sample_bytes }
    }

    fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        for (builder, array) in self.columns.iter_mut().zip(batch.columns()) {
            builder.push(array);
        }
        for sampler in &mut self.key_samplers {
            sampler.push(batch)?;
        }
        self.bytes += batch.columns().iter().map(data_bytes).sum::<usize>();
        self.sampler.push(batch)
    }

    fn finish(self) -> Result<TableProfile> {
        let rows = self.sampler.seen() as f64;
        let mut sample = self.sampler.finish()?;
        let bytes: usize = sample.columns().iter().map(data_bytes).sum();
        if bytes > self.sample_bytes {
            let keep = sample.num_rows() * self.sample_bytes / bytes;
            sample = concat_batches(&self.schema, [&sample.slice(0, keep.max(1))]).map_err(DataFusionError::from)?;
        }
        let columns: Vec<ColumnSketch> =
            self.columns.into_iter().zip(sample.columns()).map(|(b, array)| b.finish(array)).collect();
        let row_bytes = if rows > 0.0 { self.bytes as f64 / rows } else { 0.0 };
        let derived = columns.iter().map(|_| OnceLock::new()).collect();
        let groups = RowGroups::of_sample(&columns, &sample);
        let mut profile = TableProfile { rows, columns, row_bytes, sample, groups, key_samples: vec![], derived };
        if !profile.is_complete() {
            let mut keys: Vec<KeySampler> = self.key_samplers;
            keys.retain(|key| !profile.columns[key.column()].common_is_complete);
            keys.sort_by(|a, b| likelier_key(&profile.columns[a.column()], &profile.columns[b.column()]));
            keys.truncate(self.key_samples);
            for key in keys {
                let bytes = self.sample_bytes / SHARE_OF_KEY_SAMPLE;
                profile.key_samples.push((key.column(), key.finish(&self.schema, row_bytes, bytes)?));
            }
        }
        Ok(profile)
    }
}

/// Which of two columns is likelier to be a join key: unique ones first, then numbers, then those of more values.
fn likelier_key(a: &ColumnSketch, b: &ColumnSketch) -> std::cmp::Ordering {
    let rank = |sketch: &ColumnSketch| (sketch.is_unique(), sketch.domain == Domain::Integer);
    rank(b).cmp(&rank(a)).then(b.distinct().total_cmp(&a.distinct()))
}

/// Bytes of the values of `array`, without spare capacity or shared buffers.
fn data_bytes(array: &ArrayRef) -> usize {
    match array.data_type() {
        DataType::Utf8View | DataType::BinaryView => {
            let lengths = datafusion::arrow::compute::kernels::length::length(array).ok();
            let total = lengths.and_then(|lengths| {
                use datafusion::arrow::array::AsArray;
                use datafusion::arrow::datatypes::Int32Type;
                datafusion::arrow::compute::sum(lengths.as_primitive_opt::<Int32Type>()?)
            });
            16 * array.len() + total.unwrap_or(0).max(0) as usize
        }
        _ => array.to_data().get_slice_memory_size().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Int64Array, StringArray};
    use datafusion::arrow::datatypes::{Field, Schema};

    use super::*;

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

    #[test]
    fn wide_rows_shorten_the_sample() {
        let schema = Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8, false)]));
        let texts = StringArray::from_iter_values((0..2000).map(|i| format!("{i}{}", "x".repeat(10_000))));
        let batch = RecordBatch::try_new(Arc::clone(&schema) as SchemaRef, vec![Arc::new(texts)]).unwrap();
        let profile = TableProfile::of_batches(schema, &[batch], &ProfileConfig::default()).unwrap();
        assert!(profile.sample.num_rows() < 500 && !profile.is_complete());
        assert_eq!(profile.columns[0].degrees.distinct, 2000.0);
    }
}
