//! One pass over a column -> its [`ColumnSketch`].

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::DataType;
use hashbrown::{HashMap, HashSet};

use super::counter::Counter;
use super::degrees::DegreeSequence;
use super::order::{OrderTracker, number};
use super::reading::{Reading, integer_key};
use super::values::Slots;
use super::{
    COMMON_VALUES, ColumnSketch, CommonValue, Degrees, Domain, HISTOGRAM_BOUNDS, Histogram, TextStatistics, Value,
};
use crate::relative::{BINS, VALUE_BINS, bin_of};

/// Longest string kept as a common value or histogram bound, in bytes; longer ones are cut at a character.
pub(super) const MAX_TEXT: usize = 128;

/// Distinct values whose smallest hashes a sketch keeps.
pub(super) const DISTINCT_HASHES: usize = 512;

/// Characters of the prefixes whose number is kept.
const PREFIXES: [usize; 3] = [1, 2, 4];

/// Collects the sketch of one column.
#[derive(Debug)]
pub(crate) struct ColumnSketchBuilder {
    domain: Domain,
    rows: u64,
    nulls: u64,
    non_finite: u64,
    counter: Counter,
    order: OrderTracker,
    range: Option<(f64, f64)>,
    text_range: Option<(Box<str>, Box<str>)>,
    /// The strings of the keys, while they are few.
    words: HashMap<u64, Box<str>>,
    bytes: u64,
    longest: usize,
}

/// The smallest and the largest value of a column as far as its files tell.
pub(crate) type KnownRange = Option<(i64, i64)>;

impl ColumnSketchBuilder {
    /// A builder that counts at most `capacity` distinct values exactly; integers that are known to lie within a range of
    /// twice as many are counted in an array, which takes half the memory per value.
    pub(crate) fn new(data_type: &DataType, capacity: usize, known: KnownRange) -> Self {
        let domain = Domain::of(data_type);
        let is_integer = matches!(domain, Domain::Integer | Domain::Time | Domain::Boolean);
        let fits = |&(low, high): &(i64, i64)| {
            high.checked_sub(low).is_some_and(|span| span.unsigned_abs() < 2 * capacity as u64)
        };
        let counter = match known.filter(|range| is_integer && range.0 <= range.1 && fits(range)) {
            Some((low, high)) => Counter::dense(integer_key(low), integer_key(high), capacity),
            None => Counter::new(capacity),
        };
        Self {
            domain,
            rows: 0,
            nulls: 0,
            non_finite: 0,
            counter,
            order: OrderTracker::new(),
            range: None,
            text_range: None,
            words: HashMap::new(),
            bytes: 0,
            longest: 0,
        }
    }

    /// Takes the values of `array`, reading them into `reading`.
    pub(crate) fn push(&mut self, array: &ArrayRef, reading: &mut Reading) {
        reading.read(array, self.order.is_sorted());
        if self.counter.is_hashed() {
            reading.hash();
        }
        self.rows += reading.rows as u64;
        self.nulls += reading.nulls as u64;
        self.non_finite += reading.non_finite as u64;
        self.counter.add_all(reading);
        self.order.push(reading, self.domain);
        match &reading.text {
            Some(text) => {
                self.bytes += text.bytes as u64;
                self.longest = self.longest.max(text.longest);
                self.widen_text(text.range.clone());
                self.learn_words(array, reading);
            }
            None => {
                self.widen(reading.ends.map(|(low, high)| (number(low, self.domain), number(high, self.domain))));
            }
        }
    }

    /// Keeps the strings of keys that are new, while they are few.
    fn learn_words(&mut self, array: &ArrayRef, reading: &Reading) {
        let few = |count: usize| count <= COMMON_VALUES;
        let Some(distinct) = self.counter.len().filter(|count| few(*count) && *count > self.words.len()) else {
            return;
        };
        let Slots::Texts(strings) = Slots::new(array) else { return };
        let strings = strings.as_string_view();
        for (index, key) in reading.keys.iter().enumerate() {
            if self.words.len() == distinct {
                break;
            }
            self.words.entry(*key).or_insert_with(|| strings.value(reading.row(index) as usize).into());
        }
    }

    fn widen(&mut self, range: Option<(f64, f64)>) {
        self.range = match (self.range, range) {
            (Some((low, high)), Some((other_low, other_high))) => Some((low.min(other_low), high.max(other_high))),
            (one, other) => one.or(other),
        };
    }

    fn widen_text(&mut self, range: Option<(Box<str>, Box<str>)>) {
        self.text_range = match (self.text_range.take(), range) {
            (Some((low, high)), Some((other_low, other_high))) => Some((low.min(other_low), high.max(other_high))),
            (one, other) => one.or(other),
        };
    }

    /// Goes on with what another builder of the same column saw of the rows that follow.
    pub(crate) fn append(&mut self, other: Self) {
        self.rows += other.rows;
        self.nulls += other.nulls;
        self.non_finite += other.non_finite;
        self.counter.append(other.counter);
        self.order.append(other.order);
        self.widen(other.range);
        self.widen_text(other.text_range);
        self.words.extend(other.words);
        self.bytes += other.bytes;
        self.longest = self.longest.max(other.longest);
    }

    /// The sketch. `sample` is the column in a uniform sample of the table: it supplies the values of strings beyond the
    /// first few, whose counts are kept by hash.
    pub(crate) fn finish(self, sample: &ArrayRef) -> ColumnSketch {
        let counts = self.counter.sorted();
        let scale = self.counter.scale();
        let is_opaque = self.domain == Domain::Opaque;
        let sequence = match self.order.degrees() {
            Some(degrees) => DegreeSequence::new(degrees),
            None => self.counter.degrees(&counts),
        };
        let counted = self.counter.is_exact();
        let degrees = match self.order.degrees().filter(|_| !counted) {
            Some(degrees) => {
                let sum =
                    |of: fn(f64, f64) -> f64| degrees.iter().map(|&(degree, n)| of(degree as f64, n as f64)).sum();
                Degrees {
                    distinct: sum(|_, values| values),
                    max: degrees.iter().map(|pair| pair.0).max().unwrap_or(0) as f64,
                    sum_of_squares: sum(|degree, values| degree * degree * values),
                    exact: !is_opaque,
                    sequence,
                }
            }
            None => Degrees {
                distinct: counts.len() as f64 * scale,
                max: counts.iter().map(|&(_, count)| count).max().unwrap_or(0) as f64,
                sum_of_squares: counts.iter().map(|&(_, count)| (count as f64).powi(2)).sum::<f64>() * scale,
                exact: counted && !is_opaque,
                sequence,
            },
        };
        let is_text = self.domain == Domain::Text;
        let values: Vec<(Value, f64)> = match (is_text, counted) {
            (true, true) if self.words.len() == counts.len() => self.worded(),
            (false, true) => {
                let value = |&(key, count): &(u64, u64)| (Value::Number(number(key, self.domain)), count as f64);
                counts.iter().map(value).collect()
            }
            _ => self.sampled(sample),
        };
        let common = common(&values);
        let common_is_complete = counted && !is_opaque && common.len() as f64 >= degrees.distinct;
        let (min, max) = if is_text {
            let range = self.text_range.as_ref();
            (range.map(|range| Value::Text(cut(&range.0))), range.map(|range| Value::Text(cut(&range.1))))
        } else {
            (self.range.map(|r| Value::Number(r.0)), self.range.map(|r| Value::Number(r.1)))
        };
        // The histogram of counted values is exact; that of a sample uses the frequencies within the sample.
        let mut histogram =
            if (is_text || !counted) && !common_is_complete { sampled_histogram(sample) } else { histogram(&values) };
        stretch(&mut histogram, min.as_ref(), max.as_ref());
        let present = (self.rows - self.nulls).max(1) as f64;
        let text = is_text.then(|| TextStatistics {
            mean_length: self.bytes as f64 / present,
            max_length: self.longest as f64,
            prefixes: PREFIXES.map(|characters| prefixes(sample, characters)),
        });
        let mut sketch = ColumnSketch {
            domain: self.domain,
            rows: self.rows as f64,
            nulls: self.nulls as f64,
            non_finite: self.non_finite as f64,
            min,
            max,
            common,
            common_is_complete,
            common_is_exact: counted && !is_opaque,
            histogram,
            distinct_hashes: self.counter.smallest_hashes(&counts, DISTINCT_HASHES),
            degrees,
            order: self.order.order(self.range),
            text,
            bins: [0.0; BINS],
        };
        let known = common_is_complete || (counted && !is_text);
        sketch.bins = if known { bins(&sketch, &values) } else { sampled_bins(&sketch, sample) };
        sketch
    }

    /// The strings with their counts, where all are known.
    fn worded(&self) -> Vec<(Value, f64)> {
        let counted = self.words.iter().filter_map(|(key, word)| Some((word, self.counter.count(*key)?)));
        let mut values: Vec<(Value, f64)> =
            counted.map(|(word, count)| (Value::Text(word.clone()), count as f64)).collect();
        values.sort_by(|a, b| a.0.order(&b.0));
        values
    }

    /// The distinct values of the sample with their counts: exact where the counter kept them, scaled up from the sample
    /// otherwise.
    fn sampled(&self, sample: &ArrayRef) -> Vec<(Value, f64)> {
        let values = Slots::new(sample).values();
        let reading = Reading::new(sample);
        let per_sampled_row = self.rows as f64 / values.len().max(1) as f64;
        let keyed = reading.keys.iter().enumerate();
        let mut seen: Vec<(Value, u64)> =
            keyed.filter_map(|(i, key)| Some((values[reading.row(i) as usize].clone()?, *key))).collect();
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

/// Distinct prefixes of so many characters among sampled strings, per string.
fn prefixes(sample: &ArrayRef, characters: usize) -> f64 {
    let Slots::Texts(strings) = Slots::new(sample) else { return 0.0 };
    let strings = strings.as_string_view();
    let prefix = |text: &str| text.char_indices().nth(characters).map_or(text.len(), |(end, _)| end);
    let distinct: HashSet<&str> = strings.iter().flatten().map(|text| &text[..prefix(text)]).collect();
    distinct.len() as f64 / (strings.len() - strings.null_count()).max(1) as f64
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
pub(super) fn sampled_bins(sketch: &ColumnSketch, sample: &ArrayRef) -> [f64; BINS] {
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

/// A histogram of at most about as many bounds as are kept, of one that may have more.
pub(super) fn reduce(histogram: Histogram) -> Histogram {
    let step = 1.0 / HISTOGRAM_BOUNDS as f64;
    let mut out = Histogram::default();
    let mut next = 0.0;
    let count = histogram.bounds.len();
    for (i, bound) in histogram.bounds.into_iter().enumerate() {
        let (up_to, at) = (histogram.cumulative[i], histogram.at[i]);
        if i == 0 || i + 1 == count || up_to >= next || at >= step {
            out.bounds.push(bound);
            out.cumulative.push(if i + 1 == count { 1.0 } else { up_to });
            out.at.push(at);
            next = up_to + step;
        }
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

    fn sketch(array: impl Array + 'static) -> ColumnSketch {
        let array: ArrayRef = Arc::new(array);
        let mut builder = ColumnSketchBuilder::new(array.data_type(), 1 << 16, None);
        builder.push(&array, &mut Reading::default());
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
        assert_eq!((sketch.max_degree(), sketch.degree_sequence()), (2.0, None), "NaN joins NaN");
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
        assert_eq!(
            (nested.max_degree(), nested.degree_sequence()),
            (1.0, None),
            "nothing is known, which is no bound of 0"
        );
    }
}
