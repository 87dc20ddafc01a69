//! Samples of a table by the values of a join key, so that the samples of two tables meet.
//!
//! A uniform sample of one table rarely holds the partners of the rows in that of another. Here a value of the key is kept
//! when its hash is small, the same values in every table: correlated sampling (Vengerov, Menck, Zait and Chakkappen, "Join
//! size estimation subject to filter conditions", VLDB 2015). Of a value with many rows some are kept and all are counted:
//! the second level of two-level sampling (Chen and Yi, "Two-level sampling for join size estimation", SIGMOD 2017).
//! Filters run on the rows that were kept; what the join of two such samples finds says how the filters of both tables and
//! the fanouts of the key go together.

use std::collections::{BTreeMap, BinaryHeap};

use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::sample::{priority, take_rows};
use crate::sketch::{ColumnSketch, Reading, Value, integer_key, key_hash, text_key};

/// Rows kept of one value.
const ROWS_PER_KEY: usize = 16;

/// The values of a key with small hashes, and rows that have them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeySample {
    /// Every value of the table whose hash is at most this is in the sample.
    pub threshold: u64,
    /// The hashes of the values, ascending. `[keys]`
    pub hashes: Vec<u64>,
    /// The rows of the table with each value. `[keys]`
    pub counts: Vec<f64>,
    /// Where the rows of each value begin in `rows`. `[keys + 1]`
    starts: Vec<u32>,
    /// Rows of the batch that the sample is of.
    rows: Vec<u32>,
    /// The sampled rows; `None` where they are rows of the table's uniform sample.
    #[serde(skip)]
    pub own: Option<RecordBatch>,
    /// Whether the values and counts are those of a uniform sample of the rows, scaled up: every value may miss.
    #[serde(skip)]
    pub(crate) is_scaled: bool,
}

impl KeySample {
    /// The sample that a uniform row sample amounts to, of a table of `rows` rows. Exact where every value of the key and the
    /// number of its rows is known: the table is complete in the sample, or the values are few.
    pub(crate) fn of_rows(array: &ArrayRef, sketch: &ColumnSketch, rows: f64) -> Self {
        let scale = rows / array.len().max(1) as f64;
        let counts_rows = scale <= 1.0 || !sketch.common_is_complete;
        let mut rows_of: BTreeMap<u64, (f64, Vec<u32>)> = BTreeMap::new();
        if !counts_rows {
            for common in &sketch.common {
                rows_of.insert(hash_of_value(&common.value), (common.rows, vec![]));
            }
        }
        let reading = Reading::new(array);
        for (index, key) in reading.keys.iter().enumerate() {
            let (count, rows) = rows_of.entry(key_hash(*key)).or_default();
            *count += if counts_rows { scale.max(1.0) } else { 0.0 };
            rows.push(reading.row(index));
        }
        let is_scaled = counts_rows && scale > 1.0;
        Self { is_scaled, ..Self::from_map(u64::MAX, rows_of, None) }
    }

    fn from_map(threshold: u64, map: BTreeMap<u64, (f64, Vec<u32>)>, own: Option<RecordBatch>) -> Self {
        let mut sample =
            Self { threshold, hashes: vec![], counts: vec![], starts: vec![0], rows: vec![], own, is_scaled: false };
        for (hash, (count, rows)) in map {
            sample.hashes.push(hash);
            sample.counts.push(count);
            sample.rows.extend(rows);
            sample.starts.push(sample.rows.len() as u32);
        }
        sample
    }

    /// The sample of this part of a table and of the part that follows it, of about `capacity` rows. `own` and `next_own` are
    /// the batches that their rows are of.
    pub(crate) fn merge(
        &self,
        own: &RecordBatch,
        next: &Self,
        next_own: &RecordBatch,
        capacity: usize,
    ) -> Result<Self> {
        let mut threshold = self.threshold.min(next.threshold);
        let mut map: BTreeMap<u64, (f64, Vec<u32>)> = BTreeMap::new();
        for (sample, offset) in [(self, 0), (next, own.num_rows() as u32)] {
            for ((hash, count), range) in sample.hashes.iter().zip(&sample.counts).zip(sample.starts.windows(2)) {
                if *hash > threshold {
                    break;
                }
                let (rows, places) = map.entry(*hash).or_default();
                let theirs = &sample.rows[range[0] as usize..range[1] as usize];
                *rows += count;
                // Of a value with more rows than are kept, as many of each part as its share; they stand in random order.
                let share = ((ROWS_PER_KEY as f64 * count / *rows).round() as usize).max(1);
                let (mine, theirs) = if (places.len() + theirs.len()) as f64 >= *rows && *rows <= ROWS_PER_KEY as f64 {
                    (places.len(), theirs)
                } else {
                    (ROWS_PER_KEY - share.min(ROWS_PER_KEY), &theirs[..share.min(theirs.len())])
                };
                places.truncate(mine);
                places.extend(theirs.iter().map(|row| row + offset));
            }
        }
        let (mut rows, mut last) = (0, None);
        for (hash, (_, places)) in &map {
            rows += places.len();
            if let Some(last) = last.filter(|_| rows > capacity) {
                threshold = last;
                break;
            }
            last = Some(*hash);
        }
        map.retain(|hash, _| *hash <= threshold);
        let mut order: Vec<u32> = vec![];
        for place in map.values_mut().flat_map(|(_, places)| places) {
            order.push(*place);
            *place = order.len() as u32 - 1;
        }
        let all = concat_batches(&own.schema(), [own, next_own]).map_err(DataFusionError::from)?;
        Ok(Self::from_map(threshold, map, Some(take_rows(&all, order)?)))
    }

    /// Rows of the table with each value that pass a filter, by the share of the sampled ones that do; `mask` is over the
    /// sampled rows, or over the table's uniform sample where they are of it. `[keys]`
    pub fn passing(&self, mask: &BooleanArray) -> Vec<f64> {
        let passes = |row: &&u32| (**row as usize) < mask.len() && mask.value(**row as usize);
        let keys = self.counts.iter().zip(self.starts.windows(2));
        keys.map(|(count, range)| {
            let rows = &self.rows[range[0] as usize..range[1] as usize];
            if rows.is_empty() { 0.0 } else { count * rows.iter().filter(passes).count() as f64 / rows.len() as f64 }
        })
        .collect()
    }

    /// Leaves out the values of the largest hashes, until `capacity` of the rows of its own are left.
    pub(crate) fn shorten(&mut self, capacity: usize) -> Result<()> {
        let Some(own) = self.own.as_ref().filter(|own| own.num_rows() > capacity) else { return Ok(()) };
        let keys = self.starts.partition_point(|start| *start as usize <= capacity).saturating_sub(1).max(1);
        let order: Vec<u32> = self.rows[..self.starts[keys] as usize].to_vec();
        self.own = Some(take_rows(own, order)?);
        self.threshold = self.hashes[keys - 1];
        self.hashes.truncate(keys);
        self.counts.truncate(keys);
        self.starts.truncate(keys + 1);
        self.rows = (0..self.starts[keys]).collect();
        Ok(())
    }

    /// Whether lists of one sample belong together; what was stored may not.
    pub(crate) fn is_valid(&self, rows: usize) -> bool {
        let keys = self.hashes.len();
        keys == self.counts.len()
            && keys + 1 == self.starts.len()
            && self.starts.windows(2).all(|pair| pair[0] <= pair[1])
            && self.starts.last().is_some_and(|last| *last as usize == self.rows.len())
            && self.rows.iter().all(|row| (*row as usize) < rows)
            && self.hashes.windows(2).all(|pair| pair[0] < pair[1])
    }
}

fn hash_of_value(value: &Value) -> u64 {
    key_hash(match value {
        Value::Number(number) => integer_key(*number as i64),
        Value::Text(text) => text_key(text),
    })
}

/// Collects the sample of one column.
#[derive(Debug)]
pub(crate) struct KeySampler {
    column: usize,
    capacity: usize,
    seed: u64,
    part: u64,
    seen: u64,
    threshold: u64,
    keys: HashMap<u64, KeyRows>,
    kept: Vec<RecordBatch>,
    kept_rows: usize,
}

#[derive(Debug, Default)]
struct KeyRows {
    count: u64,
    /// Priority and place among the kept rows; once there are as many as are kept of a value, as a heap.
    rows: BinaryHeap<(u64, u32)>,
}

impl KeyRows {
    /// Keeps the row if it is among the first; whether it did.
    fn offer(&mut self, row: (u64, u32)) -> bool {
        if self.rows.len() < ROWS_PER_KEY {
            self.rows.push(row);
            return true;
        }
        match self.rows.peek_mut() {
            Some(mut last) if row < *last => {
                *last = row;
                true
            }
            _ => false,
        }
    }
}

impl KeySampler {
    /// A sampler of about `capacity` rows of one part of a table.
    pub(crate) fn new(column: usize, capacity: usize, seed: u64, part: usize) -> Self {
        Self {
            column,
            capacity: capacity.max(ROWS_PER_KEY),
            seed,
            part: part as u64,
            seen: 0,
            threshold: u64::MAX,
            keys: HashMap::new(),
            kept: vec![],
            kept_rows: 0,
        }
    }

    /// The column it samples by.
    pub(crate) fn column(&self) -> usize {
        self.column
    }

    /// Offers the rows of `batch`, whose column `reading` has read and hashed.
    pub(crate) fn push(&mut self, batch: &RecordBatch, reading: &Reading) -> Result<()> {
        let (threshold, mut chosen) = (self.threshold, Vec::<u32>::new());
        for (index, &hash) in reading.hashes.iter().enumerate().filter(|(_, hash)| **hash <= threshold) {
            let key = self.keys.entry(hash).or_default();
            key.count += 1;
            let row = reading.row(index);
            let priority = priority(self.seed, self.part, self.seen + u64::from(row));
            if key.offer((priority, (self.kept_rows + chosen.len()) as u32)) {
                chosen.push(row);
            }
        }
        self.seen += reading.rows as u64;
        self.kept_rows += chosen.len();
        if !chosen.is_empty() {
            self.kept.push(take_rows(batch, chosen)?);
        }
        if self.kept_rows > 4 * self.capacity {
            self.prune(2 * self.capacity, &batch.schema())?;
        }
        Ok(())
    }

    /// Goes on with the sample of another part of the table.
    pub(crate) fn append(&mut self, other: Self) {
        let kept = self.kept_rows as u32;
        self.seen += other.seen;
        self.kept_rows += other.kept_rows;
        self.kept.extend(other.kept);
        self.threshold = self.threshold.min(other.threshold);
        other.keys.into_iter().for_each(|(hash, theirs)| {
            let key = self.keys.entry(hash).or_default();
            key.count += theirs.count;
            for (priority, place) in theirs.rows {
                key.offer((priority, kept + place));
            }
        });
        let threshold = self.threshold;
        self.keys.retain(|hash, _| *hash <= threshold);
    }

    /// Keeps the values of the smallest hashes, with at most `capacity` rows in all.
    fn prune(&mut self, capacity: usize, schema: &SchemaRef) -> Result<()> {
        let mut hashes: Vec<u64> = self.keys.keys().copied().collect();
        hashes.sort_unstable();
        let mut rows = 0;
        for (place, hash) in hashes.iter().enumerate() {
            rows += self.keys.get(hash).map_or(0, |key| key.rows.len());
            if rows > capacity && place > 0 {
                self.threshold = hashes[place - 1];
                hashes.truncate(place);
                break;
            }
        }
        let threshold = self.threshold;
        self.keys.retain(|hash, _| *hash <= threshold);
        let mut order: Vec<u32> = vec![];
        for hash in hashes {
            let Some(key) = self.keys.get_mut(&hash) else { continue };
            let mut rows = std::mem::take(&mut key.rows).into_sorted_vec();
            for (_, place) in &mut rows {
                order.push(*place);
                *place = order.len() as u32 - 1;
            }
            key.rows = rows.into();
        }
        let all = concat_batches(schema, &self.kept).map_err(DataFusionError::from)?;
        self.kept_rows = order.len();
        self.kept = vec![take_rows(&all, order)?];
        Ok(())
    }

    /// The sample; rows of one value stand together.
    pub(crate) fn finish(mut self, schema: &SchemaRef) -> Result<KeySample> {
        self.prune(self.capacity, schema)?;
        let own = self.kept.pop().unwrap_or_else(|| RecordBatch::new_empty(SchemaRef::clone(schema)));
        let mut map = BTreeMap::new();
        self.keys.into_iter().for_each(|(hash, key)| {
            let rows = key.rows.into_sorted_vec().into_iter().map(|(_, place)| place);
            map.insert(hash, (key.count as f64, rows.collect()));
        });
        Ok(KeySample::from_map(self.threshold, map, Some(own)))
    }
}

/// How the key values of some relations go together, from their samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KeyCorrelation {
    /// Factor between the pairs that the samples' join finds and those that independence would have it find.
    pub factor: f64,
    /// Matching values that were found, in units of a mean value's pairs.
    pub matched: f64,
    /// Matching values to be expected under independence, in the same units.
    pub expected: f64,
}

impl KeyCorrelation {
    /// From the matches that were found and those that were expected.
    pub(crate) fn new(matched: f64, expected: f64) -> Self {
        // Matches that were found speak for themselves the louder the more there are.
        let shape = INDEPENDENCE_SHAPE / (1.0 + matched);
        let factor = (matched + shape) / (expected + shape);
        Self { factor, matched, expected }
    }

    /// How much it rests on: the larger of the two numbers of matches.
    pub fn strength(&self) -> f64 {
        self.matched.max(self.expected)
    }
}

/// One side of a join in terms of its sampled keys.
#[derive(Debug, Clone, Copy)]
pub struct SampledSide<'a> {
    /// The sample.
    pub sample: &'a KeySample,
    /// Rows of each key among which the filters are supposed to be independent of those of the other side. `[keys]`
    pub counts: &'a [f64],
    /// Rows of each key that pass the filters. `[keys]`
    pub passing: &'a [f64],
}

/// Weight of independence, in matching values: the shape of the Gamma prior of the factor.
const INDEPENDENCE_SHAPE: f64 = 0.5;

/// How `relation` goes together with `set`, relations that are joined on the same key already; the independence that the
/// factor is over is that between `relation` and the first of them. `None` where the samples share no values.
pub fn key_correlation(set: &[SampledSide<'_>], relation: SampledSide<'_>) -> Option<KeyCorrelation> {
    let first = set.first()?;
    let threshold = set.iter().map(|side| side.sample.threshold).min()?.min(relation.sample.threshold);
    let within = |hashes: &[u64]| hashes.partition_point(|hash| *hash <= threshold);
    // The set: how often each key occurs in it, and without filters in its first relation.
    let keys = within(&first.sample.hashes);
    let mut weights = first.passing[..keys].to_vec();
    for side in &set[1..] {
        // Both are ascending: one walk along both.
        let mut others = side.sample.hashes.iter().zip(side.passing).peekable();
        for (weight, hash) in weights.iter_mut().zip(&first.sample.hashes) {
            while others.next_if(|(other, _)| *other < hash).is_some() {}
            *weight *= others.next_if(|(other, _)| *other == hash).map_or(0.0, |(_, passing)| *passing);
        }
    }
    let own_keys = within(&relation.sample.hashes);
    let (mut found, mut pairs) = (0.0, 0.0);
    let mut place = 0;
    for (key, hash) in relation.sample.hashes[..own_keys].iter().enumerate() {
        while place < keys && first.sample.hashes[place] < *hash {
            place += 1;
        }
        if place < keys && first.sample.hashes[place] == *hash {
            found += weights[place] * relation.passing[key];
            pairs += first.counts[place] * relation.counts[key];
        }
    }
    let (rows, occurring) = sum_and_count(&weights);
    let (own_rows, own_occurring) = sum_and_count(&relation.passing[..own_keys]);
    if pairs <= 0.0 || rows <= 0.0 || own_rows <= 0.0 {
        return None;
    }
    // Pairs of a value that occurs on both sides; in this unit sampling noise is that of a count.
    let unit = (rows / occurring) * (own_rows / own_occurring);
    let all_rows: f64 = first.counts[..keys].iter().sum();
    let all_own_rows: f64 = relation.counts[..own_keys].iter().sum();
    let independent = rows * own_rows * pairs / (all_rows * all_own_rows);
    Some(KeyCorrelation::new(found / unit, independent / unit))
}

/// The sum of the numbers, and how many are above 0.
fn sum_and_count(numbers: &[f64]) -> (f64, f64) {
    (numbers.iter().sum(), numbers.iter().filter(|number| **number > 0.0).count() as f64)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Array, AsArray, Int64Array};
    use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Int64, true)]))
    }

    fn rows(pairs: impl Iterator<Item = (Option<i64>, i64)>) -> RecordBatch {
        let (keys, values): (Vec<_>, Vec<_>) = pairs.unzip();
        let columns: [ArrayRef; 2] = [Arc::new(Int64Array::from(keys)), Arc::new(Int64Array::from(values))];
        RecordBatch::try_new(schema(), columns.into()).unwrap()
    }

    fn sample(batch: &RecordBatch, capacity: usize) -> KeySample {
        let mut parts = [0, 1].map(|part| KeySampler::new(0, capacity, 7, part));
        for start in (0..batch.num_rows()).step_by(1000) {
            let rows = batch.slice(start, 1000.min(batch.num_rows() - start));
            let part = usize::from(start > batch.num_rows() / 3);
            let mut reading = Reading::new(rows.column(0));
            reading.hash();
            parts[part].push(&rows, &reading).unwrap();
        }
        let [mut sampler, other] = parts;
        sampler.append(other);
        sampler.finish(&schema()).unwrap()
    }

    fn passing(sample: &KeySample, keep: impl Fn(i64) -> bool) -> Vec<f64> {
        let own = sample.own.as_ref().unwrap();
        let values = own.column(1).as_primitive::<Int64Type>();
        sample.passing(&values.iter().map(|value| value.map(&keep)).collect())
    }

    #[test]
    fn counts_are_exact_and_tables_share_their_values() {
        let parents = rows((0..20_000).map(|i| (Some(i), i % 10)));
        // Parent i has i % 40 children; some have no parent at all.
        let children = rows((0..20_000).flat_map(|i| (0..i % 40).map(move |j| ((j > 0).then_some(i), j))));
        let (one, many) = (sample(&parents, 2000), sample(&children, 2000));
        assert!(one.is_valid(2000) && many.is_valid(2000));
        assert!(one.hashes.len() == 2000 && many.hashes.len() > 125 && many.hashes.len() < 1000);
        let own = many.own.as_ref().unwrap().column(0).as_primitive::<Int64Type>();
        for (key, range) in many.starts.windows(2).enumerate() {
            let kept = &many.rows[range[0] as usize..range[1] as usize];
            let value = own.value(kept[0] as usize);
            assert!(kept.iter().all(|row| own.value(*row as usize) == value) && own.null_count() == 0);
            assert_eq!((many.counts[key], kept.len()), ((value % 40 - 1) as f64, 16.min(value as usize % 40 - 1)));
            assert!(many.threshold > one.threshold || one.hashes.binary_search(&many.hashes[key]).is_ok());
        }
        assert_eq!(sample(&children, 2000), many);
    }

    #[test]
    fn a_shorter_sample_is_one_of_fewer_values() {
        let children = rows((0..20_000).flat_map(|i| (0..i % 40).map(move |j| (Some(i), j))));
        let mut short = sample(&children, 2000);
        short.shorten(700).unwrap();
        assert!(short.is_valid(700) && short.own.as_ref().unwrap().num_rows() > 600);
        let fewer = sample(&children, short.own.as_ref().unwrap().num_rows());
        assert_eq!((short.threshold, &short.hashes, &short.counts), (fewer.threshold, &fewer.hashes, &fewer.counts));
        assert_eq!(passing(&short, |v| v < 3), passing(&fewer, |v| v < 3));
    }

    #[test]
    fn correlation_of_filters_across_a_join_is_found() {
        let parents = rows((0..20_000).map(|i| (Some(i), i % 10)));
        let children = rows((0..80_000).map(|i| (Some(i % 20_000), i % 10)));
        let (one, many) = (sample(&parents, 2000), sample(&children, 2000));
        let correlation = |parent: &dyn Fn(i64) -> bool, child: &dyn Fn(i64) -> bool| {
            let (left, right) = (passing(&one, parent), passing(&many, child));
            let left = SampledSide { sample: &one, counts: &one.counts, passing: &left };
            key_correlation(&[left], SampledSide { sample: &many, counts: &many.counts, passing: &right }).unwrap()
        };
        // The digit of a child is that of its parent.
        let same = correlation(&|v| v == 3, &|v| v == 3);
        assert!((same.factor / 10.0 - 1.0).abs() < 0.4, "{same:?}");
        let other = correlation(&|v| v == 3, &|v| v == 4);
        assert!(other.factor < 0.2 && other.matched == 0.0, "{other:?}");
        let all = correlation(&|_| true, &|_| true);
        assert!((all.factor - 1.0).abs() < 0.01, "{all:?}");
        assert!(
            key_correlation(
                &[SampledSide { sample: &one, counts: &one.counts, passing: &passing(&one, |_| false) }],
                SampledSide { sample: &many, counts: &many.counts, passing: &passing(&many, |_| true) }
            )
            .is_none()
        );
    }

    #[test]
    fn few_values_are_known_from_the_uniform_sample() {
        let batch = rows((0..5000).map(|i| ((i % 9 > 0).then_some(i % 9), i)));
        let sketch = {
            let mut builder = crate::sketch::ColumnSketchBuilder::new(&DataType::Int64, 1 << 20, None);
            builder.push(batch.column(0), &mut Reading::default());
            builder.finish(batch.column(0))
        };
        let sampled = batch.slice(0, 90);
        let derived = KeySample::of_rows(sampled.column(0), &sketch, 5000.0);
        assert_eq!((derived.hashes.len(), derived.threshold), (8, u64::MAX));
        assert!(derived.counts.iter().all(|count| (555.0..=556.0).contains(count)));
        let none = derived.passing(&BooleanArray::from(vec![false; 90]));
        let all = derived.passing(&BooleanArray::from(vec![true; 90]));
        assert!(none.iter().all(|rows| *rows == 0.0) && all == derived.counts);
        let complete = KeySample::of_rows(sampled.column(0), &sketch, 90.0);
        assert!(complete.counts.iter().all(|count| *count == 10.0));
    }
}
