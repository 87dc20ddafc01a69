//! One pass over a column -> its [`ColumnSketch`].

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::DataType;

use super::counter::Counter;
use super::values::{Slot, Slots};
use super::{COMMON_VALUES, ColumnSketch, CommonValue, Degrees, Domain, HISTOGRAM_BOUNDS, Histogram, Value};
use crate::relative::{BINS, VALUE_BINS, bin_of};

/// Longest string kept as a common value or histogram bound, in bytes; longer ones are cut at a character.
const MAX_TEXT: usize = 128;

/// Collects the sketch of one column.
#[derive(Debug)]
pub struct ColumnSketchBuilder {
    domain: Domain,
    rows: u64,
    nulls: u64,
    non_finite: u64,
    counter: Counter,
    min_text: Option<Box<str>>,
    max_text: Option<Box<str>>,
    range: Option<(f64, f64)>,
}

impl ColumnSketchBuilder {
    /// A builder that counts at most `capacity` distinct values exactly.
    pub fn new(data_type: &DataType, capacity: usize) -> Self {
        Self {
            domain: Domain::of(data_type),
            rows: 0,
            nulls: 0,
            non_finite: 0,
            counter: Counter::new(capacity),
            min_text: None,
            max_text: None,
            range: None,
        }
    }

    /// Reads the values of `array`.
    pub fn push(&mut self, array: &ArrayRef) {
        let slots = Slots::new(array);
        self.rows += slots.len() as u64;
        slots.for_each(|slot| self.add(slot));
    }

    fn add(&mut self, slot: Slot<'_>) {
        match slot {
            Slot::Null => self.nulls += 1,
            Slot::NonFinite => self.non_finite += 1,
            Slot::Opaque => {}
            Slot::Integer(v) => {
                self.widen(v as f64);
                self.counter.add(key_of_slot(slot));
            }
            Slot::Float(v) => {
                self.widen(v);
                self.counter.add(key_of_slot(slot));
            }
            Slot::Text(v) => {
                if self.min_text.as_deref().is_none_or(|min| v < min) {
                    self.min_text = Some(cut(v));
                }
                if self.max_text.as_deref().is_none_or(|max| v > max) {
                    self.max_text = Some(v.into());
                }
                self.counter.add(key_of_slot(slot));
            }
        }
    }

    fn widen(&mut self, value: f64) {
        self.range = Some(self.range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))));
    }

    /// The sketch. `sample` is the column in a uniform sample of the table: it supplies the values of strings, whose counts
    /// are kept by hash.
    pub fn finish(self, sample: &ArrayRef) -> ColumnSketch {
        let counts = self.counter.sorted();
        let scale = self.counter.scale();
        let degrees = Degrees {
            distinct: counts.len() as f64 * scale,
            max: counts.iter().map(|&(_, count)| count).max().unwrap_or(0) as f64,
            sum_of_squares: counts.iter().map(|&(_, count)| (count as f64).powi(2)).sum::<f64>() * scale,
            exact: self.counter.is_exact() && self.domain != Domain::Opaque,
        };
        let is_text = self.domain == Domain::Text;
        let values: Vec<(Value, f64)> =
            if is_text || !degrees.exact { self.sampled(sample) } else { numbers(self.domain, &counts) };
        let common = common(&values);
        let common_is_complete = degrees.exact && common.len() as f64 >= degrees.distinct;
        let (min, max) = if is_text {
            (self.min_text.map(Value::Text), self.max_text.as_deref().map(|v| Value::Text(cut(v))))
        } else {
            (self.range.map(|r| Value::Number(r.0)), self.range.map(|r| Value::Number(r.1)))
        };
        // The histogram of counted values is exact; that of a sample uses the frequencies within the sample.
        let mut histogram = if (is_text || !degrees.exact) && !common_is_complete {
            sampled_histogram(sample)
        } else {
            histogram(&values)
        };
        stretch(&mut histogram, min.as_ref(), max.as_ref());
        let mut sketch = ColumnSketch {
            domain: self.domain,
            rows: self.rows as f64,
            nulls: self.nulls as f64,
            non_finite: self.non_finite as f64,
            min,
            max,
            common,
            common_is_complete,
            histogram,
            degrees,
            bins: [0.0; BINS],
        };
        let counted = common_is_complete || (degrees.exact && !is_text);
        sketch.bins = if counted { bins(&sketch, &values) } else { sampled_bins(&sketch, sample) };
        sketch
    }

    /// The distinct values of the sample with their counts: exact where the counter kept them, scaled up from the sample
    /// otherwise.
    fn sampled(&self, sample: &ArrayRef) -> Vec<(Value, f64)> {
        let slots = Slots::new(sample);
        let per_sampled_row = self.rows as f64 / slots.len().max(1) as f64;
        let mut seen: Vec<(Value, u64)> = Vec::with_capacity(slots.len());
        slots.for_each(|slot| {
            if let Some(value) = slot.value() {
                seen.push((value, key_of_slot(slot)));
            }
        });
        seen.sort_by(|a, b| a.0.order(&b.0));
        seen.chunk_by(|a, b| a.0 == b.0)
            .filter_map(|group| {
                let (value, key) = &group[0];
                let rows = match self.counter.count(*key) {
                    Some(count) => count as f64,
                    None if group.len() > 1 => group.len() as f64 * per_sampled_row,
                    None => return None,
                };
                Some((value.clone(), rows))
            })
            .collect()
    }
}

/// Where equal values have equal keys and numbers of one domain keep their order.
fn key_of_slot(slot: Slot<'_>) -> u64 {
    match slot {
        Slot::Integer(v) => (v as u64) ^ (1 << 63),
        Slot::Float(v) => {
            let bits = (v + 0.0).to_bits();
            if bits >> 63 == 1 { !bits } else { bits | (1 << 63) }
        }
        Slot::Text(v) => xxhash_rust::xxh3::xxh3_64(v.as_bytes()),
        Slot::Null | Slot::NonFinite | Slot::Opaque => 0,
    }
}

/// Inverse of [`key_of_slot`] for numbers.
fn numbers(domain: Domain, counts: &[(u64, u64)]) -> Vec<(Value, f64)> {
    let number = |key: u64| match domain {
        Domain::Float => f64::from_bits(if key >> 63 == 1 { key & !(1 << 63) } else { !key }),
        _ => (key ^ (1 << 63)) as i64 as f64,
    };
    counts.iter().map(|&(key, count)| (Value::Number(number(key)), count as f64)).collect()
}

/// The most frequent of `values` (ascending), in ascending order; all of them if they are few.
fn common(values: &[(Value, f64)]) -> Vec<CommonValue> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].1.total_cmp(&values[a].1).then(a.cmp(&b)));
    // A value that occurs once says nothing unless all values fit.
    if values.len() > COMMON_VALUES {
        order.truncate(COMMON_VALUES);
        order.retain(|&i| values[i].1 > 1.0);
    }
    order.sort_unstable();
    order
        .into_iter()
        .filter(|&i| !matches!(&values[i].0, Value::Text(text) if text.len() > MAX_TEXT))
        .map(|i| CommonValue { value: values[i].0.clone(), rows: values[i].1 })
        .collect()
}

/// Rows per bin of the relative encoding, from all values with their rows.
fn bins(sketch: &ColumnSketch, values: &[(Value, f64)]) -> [f64; BINS] {
    let mut bins = [0.0; BINS];
    for (value, rows) in values {
        bins[bin_of(sketch.relative(value))] += rows;
    }
    bins[VALUE_BINS] = sketch.nulls + sketch.non_finite;
    bins
}

/// The same from the rows of a sample, scaled to the rows with a value.
fn sampled_bins(sketch: &ColumnSketch, sample: &ArrayRef) -> [f64; BINS] {
    let mut bins = [0.0; BINS];
    for value in sketch.relative_values(sample) {
        bins[bin_of(value)] += 1.0;
    }
    let without = sketch.nulls + sketch.non_finite;
    let present: f64 = bins[..VALUE_BINS].iter().sum();
    let scale = if present > 0.0 { (sketch.rows - without).max(0.0) / present } else { 0.0 };
    bins[..VALUE_BINS].iter_mut().for_each(|rows| *rows *= scale);
    bins[VALUE_BINS] = without;
    bins
}

fn sampled_histogram(sample: &ArrayRef) -> Histogram {
    let mut values: Vec<Value> = Slots::new(sample).values().into_iter().flatten().collect();
    values.sort_by(Value::order);
    let counted: Vec<(Value, f64)> =
        values.chunk_by(|a, b| a == b).map(|group| (group[0].clone(), group.len() as f64)).collect();
    histogram(&counted)
}

/// Equi-depth histogram of ascending distinct values with their rows.
fn histogram(values: &[(Value, f64)]) -> Histogram {
    let total: f64 = values.iter().map(|v| v.1).sum();
    let step = total / HISTOGRAM_BOUNDS as f64;
    let mut out = Histogram::default();
    let (mut so_far, mut next) = (0.0, 0.0);
    for (i, (value, rows)) in values.iter().enumerate() {
        so_far += rows;
        if so_far >= next || i + 1 == values.len() || *rows >= step {
            let bound = match value {
                Value::Text(text) if text.len() > MAX_TEXT => Value::Text(cut(text)),
                other => other.clone(),
            };
            if out.bounds.last().is_none_or(|last| last.order(&bound).is_lt()) {
                out.bounds.push(bound);
                out.cumulative.push(so_far / total);
                out.at.push(rows / total);
            }
            next = so_far + step;
        }
    }
    if let Some(last) = out.cumulative.last_mut() {
        *last = 1.0;
    }
    out
}

/// Extends a sampled histogram to the exact minimum and maximum, which hold no mass of their own.
fn stretch(histogram: &mut Histogram, min: Option<&Value>, max: Option<&Value>) {
    if let (Some(min), Some(first)) = (min, histogram.bounds.first())
        && min.order(first).is_lt()
    {
        histogram.bounds.insert(0, min.clone());
        histogram.cumulative.insert(0, 0.0);
        histogram.at.insert(0, 0.0);
    }
    if let (Some(max), Some(last)) = (max, histogram.bounds.last())
        && max.order(last).is_gt()
    {
        histogram.bounds.push(max.clone());
        histogram.cumulative.push(1.0);
        histogram.at.push(0.0);
    }
}

/// `text` cut to [`MAX_TEXT`] bytes at a character.
fn cut(text: &str) -> Box<str> {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Float64Array, Int64Array, ListArray, StringArray};
    use datafusion::arrow::datatypes::Int64Type;

    use super::*;

    fn sketch(array: impl datafusion::arrow::array::Array + 'static) -> ColumnSketch {
        let array: ArrayRef = Arc::new(array);
        let mut builder = ColumnSketchBuilder::new(array.data_type(), 1 << 16);
        builder.push(&array);
        builder.finish(&array)
    }

    #[test]
    fn numbers_are_exact() {
        let values: Vec<Option<i64>> = (0..10_000).map(|i| (i % 10 != 0).then_some(i % 1000 - 500)).collect();
        let sketch = sketch(Int64Array::from(values.clone()));
        assert_eq!(sketch.nulls, 1000.0);
        assert_eq!(sketch.degrees.distinct, 900.0);
        assert_eq!(sketch.degrees.max, 10.0);
        assert!(sketch.degrees.exact && !sketch.is_unique());
        for bound in [-501i64, -500, -250, 0, 3, 499, 600] {
            let exact = values.iter().flatten().filter(|&&v| v <= bound).count() as f64 / 10_000.0;
            let estimate = sketch.below(&Value::Number(bound as f64), true);
            assert!((exact - estimate).abs() < 0.003, "{bound}: {exact} {estimate}");
        }
        assert_eq!(sketch.equality(&Value::Number(5000.0)), 0.0);
        assert!((sketch.equality(&Value::Number(1.0)) - 0.001).abs() < 1e-9);
    }

    #[test]
    fn heavy_hitters_keep_their_counts() {
        let values: Vec<f64> = (0..20_000).map(|i| if i % 3 == 0 { 42.5 } else { f64::from(i) }).collect();
        let sketch = sketch(Float64Array::from(values));
        assert_eq!(sketch.common_value(&Value::Number(42.5)).unwrap().rows, 6667.0);
        let below = sketch.below(&Value::Number(42.5), false);
        assert!((below - 28.0 / 20_000.0).abs() < 0.01, "{below}");
    }

    #[test]
    fn nan_and_infinity_stay_out() {
        let array = Float64Array::from(vec![
            Some(f64::NAN),
            Some(1.0),
            Some(f64::INFINITY),
            None,
            Some(2.0),
            Some(-0.0),
            Some(0.0),
        ]);
        let sketch = sketch(array);
        assert_eq!((sketch.non_finite, sketch.nulls, sketch.degrees.distinct), (2.0, 1.0, 3.0));
        assert_eq!(sketch.max, Some(Value::Number(2.0)));
    }

    #[test]
    fn text_is_ranked() {
        let words: Vec<String> = (0..2600).map(|i| format!("{}{i:04}", (b'a' + (i % 26) as u8) as char)).collect();
        let sketch = sketch(StringArray::from(words));
        assert!(sketch.is_unique());
        let below = sketch.below(&Value::Text("n".into()), true);
        assert!((below - 0.5).abs() < 0.01, "{below}");
    }

    #[test]
    fn empty_null_and_nested_columns_do_not_panic() {
        let empty = sketch(Int64Array::from(Vec::<i64>::new()));
        assert_eq!((empty.equality(&Value::Number(1.0)), empty.below(&Value::Number(1.0), true)), (0.0, 0.0));
        let nulls = sketch(Int64Array::from(vec![None, None]));
        assert_eq!((nulls.null_share(), nulls.degrees.distinct), (1.0, 0.0));
        let nested: ListArray = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1)]), None]);
        let nested = sketch(nested);
        assert_eq!((nested.domain, nested.nulls, nested.degrees.exact), (Domain::Opaque, 1.0, false));
    }
}
