//! Table -> seeded uniform row sample.
//!
//! Bottom-k sampling: every row draws a priority from a hash of the seed and its position, the k smallest stay. Unlike a
//! reservoir the result does not depend on batch boundaries, and two samples of disjoint inputs merge by keeping the k
//! smallest of both (Cohen and Kaplan, "Summarizing data using bottom-k sketches", PODC 2007).

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::error::DataFusionError;

use crate::Result;

/// Collects a uniform sample of at most `capacity` rows.
#[derive(Debug)]
pub struct Sampler {
    schema: SchemaRef,
    capacity: usize,
    seed: u64,
    seen: u64,
    /// Rows whose priority was below the threshold when they came, and that priority.
    kept: Vec<RecordBatch>,
    priorities: Vec<u64>,
    threshold: u64,
}

impl Sampler {
    /// A sampler of `capacity` rows.
    pub fn new(schema: SchemaRef, capacity: usize, seed: u64) -> Self {
        Self { schema, capacity, seed, seen: 0, kept: Vec::new(), priorities: Vec::new(), threshold: u64::MAX }
    }

    /// Offers the rows of `batch`.
    ///
    /// # Errors
    /// When Arrow cannot gather the rows.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut rows = Vec::new();
        for row in 0..batch.num_rows() {
            let priority = mix(self.seed ^ mix(self.seen + row as u64));
            if priority < self.threshold {
                rows.push(row as u32);
                self.priorities.push(priority);
            }
        }
        self.seen += batch.num_rows() as u64;
        if !rows.is_empty() {
            let rows = take_record_batch(batch, &UInt32Array::from(rows));
            self.kept.push(compacted(&rows.map_err(DataFusionError::from)?)?);
        }
        if self.priorities.len() >= 2 * self.capacity.max(64) {
            self.prune()?;
        }
        Ok(())
    }

    /// Number of rows offered so far.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The sample, in random order: its first n rows are a uniform sample of n rows.
    ///
    /// # Errors
    /// When Arrow cannot gather the rows.
    pub fn finish(mut self) -> Result<RecordBatch> {
        self.prune()?;
        Ok(self.kept.pop().unwrap_or_else(|| RecordBatch::new_empty(self.schema)))
    }

    /// Keeps the `capacity` rows of smallest priority, ordered by priority.
    fn prune(&mut self) -> Result<()> {
        let all = concat_batches(&self.schema, &self.kept).map_err(DataFusionError::from)?;
        let mut order: Vec<u32> = (0..self.priorities.len() as u32).collect();
        order.sort_unstable_by_key(|&row| self.priorities[row as usize]);
        order.truncate(self.capacity);
        self.priorities = order.iter().map(|&row| self.priorities[row as usize]).collect();
        if self.priorities.len() == self.capacity {
            self.threshold = self.priorities.last().copied().unwrap_or(0);
        }
        let kept = take_record_batch(&all, &UInt32Array::from(order)).map_err(DataFusionError::from)?;
        self.kept = vec![compacted(&kept)?];
        Ok(())
    }
}

/// The rows without the buffers of those that they were taken from: views of text keep them all.
pub(crate) fn compacted(rows: &RecordBatch) -> Result<RecordBatch> {
    let is_view = |column: &ArrayRef| matches!(column.data_type(), DataType::Utf8View | DataType::BinaryView);
    if !rows.columns().iter().any(is_view) {
        return Ok(rows.clone());
    }
    let columns = rows.columns().iter().map(|column| match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()) as ArrayRef,
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()) as ArrayRef,
        _ => ArrayRef::clone(column),
    });
    Ok(RecordBatch::try_new(rows.schema(), columns.collect()).map_err(DataFusionError::from)?)
}

/// The finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014): a bijection whose output looks random.
pub(crate) fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::Int64Array;
    use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    fn sample(rows: i64, batch_rows: usize, capacity: usize) -> Vec<i64> {
        let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, false)]));
        let mut sampler = Sampler::new(Arc::clone(&schema), capacity, 7);
        let all: Vec<i64> = (0..rows).collect();
        for chunk in all.chunks(batch_rows) {
            sampler
                .push(
                    &RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int64Array::from(chunk.to_vec()))])
                        .unwrap(),
                )
                .unwrap();
        }
        assert_eq!(sampler.seen(), rows as u64);
        sampler.finish().unwrap().column(0).as_primitive::<Int64Type>().values().to_vec()
    }

    #[test]
    fn does_not_depend_on_batches() {
        assert_eq!(sample(10_000, 17, 100), sample(10_000, 4096, 100));
        assert_eq!(sample(10_000, 17, 100).len(), 100);
        assert_eq!(sample(50, 7, 100).len(), 50);
        assert!(sample(0, 7, 100).is_empty());
    }

    #[test]
    fn is_uniform() {
        let rows = sample(100_000, 1000, 4000);
        let mean = rows.iter().sum::<i64>() as f64 / rows.len() as f64;
        // Standard error of the mean is 100_000 / sqrt(12 * 4000) = 456.
        assert!((mean - 50_000.0).abs() < 4.0 * 456.0, "{mean}");
    }
}
