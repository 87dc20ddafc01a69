//! Builds a profile batch by batch, in parts that are put together.

use std::sync::OnceLock;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::Statistics;

use super::storage::stored_bytes;
use super::{ProfileConfig, TableProfile};
use crate::Result;
use crate::key_sample::{KeySample, KeySampler};
use crate::row_groups::RowGroups;
use crate::sample::{Sampler, take_rows};
use crate::sketch::{ColumnSketch, ColumnSketchBuilder, Domain, KnownRange, Reading, Value, scalar_value};

/// What the files of a table say of the ranges of its columns. `[columns]`
pub(super) fn known_ranges(statistics: Option<&Statistics>, schema: &SchemaRef) -> Vec<KnownRange> {
    let Some(statistics) = statistics else { return vec![] };
    let columns = statistics.column_statistics.iter().zip(schema.fields());
    let ranges = columns.map(|(column, field)| {
        let end = |value: &datafusion::common::stats::Precision<datafusion::scalar::ScalarValue>| match scalar_value(
            value.get_value()?,
            field.data_type(),
        )? {
            Value::Number(number) if number.abs() < 2f64.powi(53) => Some(number as i64),
            _ => None,
        };
        end(&column.min_value).zip(end(&column.max_value))
    });
    ranges.collect()
}

/// Builds the profile of one part of a table.
#[derive(Debug)]
pub(super) struct ProfileBuilder {
    schema: SchemaRef,
    sampler: Sampler,
    columns: Vec<ColumnSketchBuilder>,
    key_samplers: Vec<KeySampler>,
    bytes: usize,
    /// Of the array that is looked at.
    reading: Reading,
}

impl ProfileBuilder {
    /// A builder for part `part` of a table whose columns have these ranges, as far as they are known.
    pub(super) fn new(schema: SchemaRef, config: &ProfileConfig, part: usize, ranges: &[KnownRange]) -> Self {
        let width = schema.fields().len();
        let capacity = config.counted_values / width.max(1);
        let column = |(index, field): (usize, &datafusion::arrow::datatypes::FieldRef)| {
            ColumnSketchBuilder::new(field.data_type(), capacity, ranges.get(index).copied().flatten())
        };
        let columns = schema.fields().iter().enumerate().map(column).collect();
        let sampler = Sampler::new(SchemaRef::clone(&schema), config.sample_rows, config.seed, part);
        let is_key =
            |column: &usize| matches!(Domain::of(schema.field(*column).data_type()), Domain::Integer | Domain::Text);
        let keys = (0..width).filter(is_key).filter(|_| config.key_samples > 0);
        let key_samplers =
            keys.map(|column| KeySampler::new(column, config.key_sample_rows, config.seed, part)).collect();
        Self { schema, sampler, columns, key_samplers, bytes: 0, reading: Reading::default() }
    }

    /// Takes the rows of `batch`.
    pub(super) fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut key_samplers = self.key_samplers.iter_mut().peekable();
        for (column, (builder, array)) in self.columns.iter_mut().zip(batch.columns()).enumerate() {
            builder.push(array, &mut self.reading);
            self.bytes += data_bytes(array, &self.reading);
            if let Some(sampler) = key_samplers.next_if(|sampler| sampler.column() == column) {
                self.reading.hash();
                sampler.push(batch, &self.reading)?;
            }
        }
        self.sampler.push(batch)
    }

    /// Goes on with the rows of the part that follows.
    pub(super) fn append(&mut self, other: Self) {
        self.sampler.append(other.sampler);
        self.columns.iter_mut().zip(other.columns).for_each(|(one, next)| one.append(next));
        self.key_samplers.iter_mut().zip(other.key_samplers).for_each(|(one, next)| one.append(next));
        self.bytes += other.bytes;
    }

    /// The profile.
    pub(super) fn finish(self, config: &ProfileConfig) -> Result<TableProfile> {
        let rows = self.sampler.seen() as f64;
        let sample = self.sampler.finish()?;
        let columns: Vec<ColumnSketch> =
            self.columns.into_iter().zip(sample.columns()).map(|(b, array)| b.finish(array)).collect();
        let row_bytes = if rows > 0.0 { self.bytes as f64 / rows } else { 0.0 };
        let derived = columns.iter().map(|_| OnceLock::new()).collect();
        let groups = RowGroups::of_sample(&columns, &sample);
        let mut profile = TableProfile {
            rows,
            columns,
            row_bytes,
            sample,
            appended: 0.0,
            files: vec![],
            groups,
            key_samples: vec![],
            derived,
        };
        if !profile.is_complete() {
            let mut keys: Vec<KeySampler> = self.key_samplers;
            keys.retain(|key| !profile.columns[key.column()].common_is_complete);
            keys.sort_by(|a, b| likelier_key(&profile.columns[a.column()], &profile.columns[b.column()]));
            keys.truncate(config.key_samples);
            for key in keys {
                profile.key_samples.push((key.column(), key.finish(&self.schema)?));
            }
        }
        profile.cut(config)
    }
}

/// Fewest rows of a sample that is cut.
const FEWEST_ROWS: usize = 64;

/// Bytes that the sketch of a column takes, common values and histogram of long strings aside.
const LARGEST_SKETCH: usize = 24 << 10;

/// Rows that are stored to see how well they compress.
const MEASURED_ROWS: usize = 512;

/// Stored bytes of a value of a sample by key besides its rows: its hash, its count and where its rows begin.
const BYTES_OF_KEY: usize = 14;

impl TableProfile {
    /// Cuts the samples to what the profile may take when it is stored, by how well some of its rows compress: the sketches
    /// stay, the uniform sample has half of what they leave, the samples by key the rest; those of the least likely keys are
    /// given up before all become too short.
    pub(super) fn cut(mut self, config: &ProfileConfig) -> Result<Self> {
        let budget = (config.share_of_data * self.rows * self.row_bytes).max(config.least_bytes as f64);
        let rows = |sample: &KeySample| sample.own.as_ref().map_or(0, RecordBatch::num_rows);
        let key_rows: usize = self.key_samples.iter().map(|(_, sample)| rows(sample)).sum();
        let sample_rows = self.sample.num_rows();
        let raw = (sample_rows + key_rows) as f64 * self.row_bytes;
        if raw + (LARGEST_SKETCH * self.columns.len()) as f64 <= budget {
            return Ok(self);
        }
        let few = self.sample.slice(0, sample_rows.min(MEASURED_ROWS));
        let row = stored_bytes(&few)? as f64 / few.num_rows().max(1) as f64;
        let keys: usize = self.key_samples.iter().map(|(_, sample)| sample.hashes.len()).sum();
        let (sample, keys) = (sample_rows as f64 * row, key_rows as f64 * row + (BYTES_OF_KEY * keys) as f64);
        let left = (budget - self.sketch_bytes()? as f64).max(0.0);
        if sample + keys <= left {
            return Ok(self);
        }
        let for_sample = (left - keys).max(0.5 * left).min(sample);
        let kept = ((for_sample / row.max(1.0)) as usize).max(FEWEST_ROWS).min(sample_rows);
        self.sample = take_rows(&self.sample, (0..kept as u32).collect())?;
        let for_keys = left - for_sample;
        while for_keys < keys && !self.key_samples.is_empty() {
            let each = (key_rows as f64 * for_keys / keys) as usize / self.key_samples.len();
            if each >= FEWEST_ROWS {
                self.key_samples.iter_mut().try_for_each(|(_, sample)| sample.shorten(each))?;
                break;
            }
            self.key_samples.pop();
        }
        Ok(self)
    }
}

/// Which of two columns is likelier to be a join key: unique ones first, then numbers, then those of more values.
fn likelier_key(a: &ColumnSketch, b: &ColumnSketch) -> std::cmp::Ordering {
    let rank = |sketch: &ColumnSketch| (sketch.is_unique(), sketch.domain == Domain::Integer);
    rank(b).cmp(&rank(a)).then(b.distinct().total_cmp(&a.distinct()))
}

/// Bytes of the values of `array`, without spare capacity or shared buffers.
fn data_bytes(array: &ArrayRef, reading: &Reading) -> usize {
    match (array.data_type(), &reading.text) {
        (DataType::Utf8View, Some(text)) => 16 * array.len() + text.bytes,
        (DataType::BinaryView, _) => 16 * array.len(),
        _ => array.to_data().get_slice_memory_size().unwrap_or(0),
    }
}
