//! Table -> seeded uniform row sample.
//!
//! Bottom-k sampling: every row draws a priority from a hash of the seed and its position, the k smallest stay. Unlike a
//! reservoir the result does not depend on batch boundaries, and two samples of disjoint inputs merge by keeping the k
//! smallest of both (Cohen and Kaplan, "Summarizing data using bottom-k sketches", PODC 2007).

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
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
    part: u64,
    seen: u64,
    /// Rows whose priority was below the threshold when they came, and that priority.
    kept: Vec<RecordBatch>,
    priorities: Vec<u64>,
    threshold: u64,
}

impl Sampler {
    /// A sampler of `capacity` rows of one part of a table.
    pub fn new(schema: SchemaRef, capacity: usize, seed: u64, part: usize) -> Self {
        let (part, kept, priorities) = (part as u64, Vec::new(), Vec::new());
        Self { schema, capacity, seed, part, seen: 0, kept, priorities, threshold: u64::MAX }
    }

    /// Goes on with the sample of another part: the rows of the smallest priorities of both.
    pub fn append(&mut self, other: Self) {
        self.seen += other.seen;
        self.kept.extend(other.kept);
        self.priorities.extend(other.priorities);
    }

    /// Offers the rows of `batch`.
    ///
    /// # Errors
    /// When Arrow cannot gather the rows.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut rows = Vec::new();
        for row in 0..batch.num_rows() {
            let priority = priority(self.seed, self.part, self.seen + row as u64);
            if priority < self.threshold {
                rows.push(row as u32);
                self.priorities.push(priority);
            }
        }
        self.seen += batch.num_rows() as u64;
        if !rows.is_empty() {
            self.kept.push(take_rows(batch, rows)?);
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
        self.kept = vec![take_rows(&all, order)?];
        Ok(())
    }
}

/// Some rows of a batch, without a hold on the bytes of the others.
pub(crate) fn take_rows(batch: &RecordBatch, rows: Vec<u32>) -> Result<RecordBatch> {
    compacted(&take_record_batch(batch, &UInt32Array::from(rows)).map_err(DataFusionError::from)?)
}

/// The same rows without a hold on bytes of others: string views share the buffers of the rows they were taken from.
pub(crate) fn compacted(rows: &RecordBatch) -> Result<RecordBatch> {
    let compact = |column: &ArrayRef| match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()) as ArrayRef,
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        _ => Arc::clone(column),
    };
    let columns = rows.columns().iter().map(compact).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(rows.schema(), columns, &options).map_err(DataFusionError::from)?)
}

/// What a row draws: a hash of its place in a part of the table.
pub(crate) fn priority(seed: u64, part: u64, row: u64) -> u64 {
    mix(seed ^ mix(row ^ part.rotate_right(16)))
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
    use datafusion::arrow::array::{Int64Array, StringViewArray};
    use datafusion::arrow::datatypes::{Field, Int64Type, Schema};

    use super::*;

    fn sample(rows: i64, batch_rows: usize, capacity: usize) -> Vec<i64> {
        let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, false)]));
        let mut sampler = Sampler::new(Arc::clone(&schema), capacity, 7, 0);
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
    fn parts_are_sampled_alike() {
        let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, false)]));
        let part = |index: usize, values: std::ops::Range<i64>| {
            let mut sampler = Sampler::new(Arc::clone(&schema), 1000, 7, index);
            for start in values.clone().step_by(500) {
                let rows = Int64Array::from_iter_values(start..values.end.min(start + 500));
                sampler.push(&RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(rows)]).unwrap()).unwrap();
            }
            sampler
        };
        let mut sampler = part(0, 0..30_000);
        sampler.append(part(1, 30_000..40_000));
        assert_eq!(sampler.seen(), 40_000);
        let rows = sampler.finish().unwrap().column(0).as_primitive::<Int64Type>().values().to_vec();
        let later = rows.iter().filter(|row| **row >= 30_000).count();
        // A quarter, give or take four standard deviations.
        assert!(rows.len() == 1000 && (195..=305).contains(&later), "{later}");
    }

    #[test]
    fn strings_of_other_rows_are_let_go() {
        let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Utf8View, false)]));
        let mut sampler = Sampler::new(Arc::clone(&schema), 100, 7, 0);
        for _ in 0..50 {
            let texts =
                StringViewArray::from_iter_values((0..1000).map(|i| format!("{i} of many strings of many bytes")));
            sampler.push(&RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(texts)]).unwrap()).unwrap();
        }
        let bytes = sampler.finish().unwrap().get_array_memory_size();
        assert!(bytes < 20_000, "{bytes} bytes for a hundred rows");
    }

    #[test]
    fn is_uniform() {
        let rows = sample(100_000, 1000, 4000);
        let mean = rows.iter().sum::<i64>() as f64 / rows.len() as f64;
        // Standard error of the mean is 100_000 / sqrt(12 * 4000) = 456.
        assert!((mean - 50_000.0).abs() < 4.0 * 456.0, "{mean}");
    }
}
