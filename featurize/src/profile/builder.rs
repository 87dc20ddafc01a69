//! Builds a profile batch by batch, in parts that are put together.

use std::sync::OnceLock;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::Statistics;
use datafusion::error::DataFusionError;

use super::{ProfileConfig, TableProfile};
use crate::Result;
use crate::key_sample::KeySampler;
use crate::sample::Sampler;
use crate::sketch::{ColumnSketch, ColumnSketchBuilder, Domain, KnownRange, Reading, Value, scalar_value};

/// A sample by key takes at most one part of so many of the bytes of the uniform sample.
const SHARE_OF_KEY_SAMPLE: usize = 4;

/// What the files of a table say of the ranges of its columns. `[columns]`
pub(super) fn known_ranges(statistics: Option<&Statistics>, schema: &SchemaRef) -> Vec<KnownRange> {
    let Some(statistics) = statistics else { return vec![] };
    let columns = statistics.column_statistics.iter().zip(schema.fields());
    let ranges = columns.map(|(column, field)| {
        let end = |value: &datafusion::common::stats::Precision<datafusion::scalar::ScalarValue>| {
            match scalar_value(value.get_value()?, field.data_type())? {
                Value::Number(number) if number.abs() < 2f64.powi(53) => Some(number as i64),
                _ => None,
            }
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
    key_samples: usize,
    bytes: usize,
    sample_bytes: usize,
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
        let (key_samples, sample_bytes) = (config.key_samples, config.sample_bytes);
        Self { schema, sampler, columns, key_samplers, key_samples, bytes: 0, sample_bytes }
    }

    /// Takes the rows of `batch`.
    pub(super) fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut key_samplers = self.key_samplers.iter_mut().peekable();
        for (column, (builder, array)) in self.columns.iter_mut().zip(batch.columns()).enumerate() {
            let reading = Reading::new(array);
            builder.push(array, &reading);
            if let Some(sampler) = key_samplers.next_if(|sampler| sampler.column() == column) {
                sampler.push(batch, &reading)?;
            }
        }
        self.bytes += batch.columns().iter().map(data_bytes).sum::<usize>();
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
    pub(super) fn finish(self) -> Result<TableProfile> {
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
        let mut profile = TableProfile { rows, columns, row_bytes, sample, key_samples: vec![], derived };
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
