//! How the values of a column lie along its file, and exact degrees where they lie in order.

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::Domain;
use super::reading::{Reading, float_of, integer_of};

/// How the values of a column lie along its file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ValueOrder {
    /// Share of neighbouring values in ascending order, in [0, 1]; 1 for a sorted column. Of text that is not sorted, the share
    /// up to where that shows.
    pub ascending: f64,
    /// One minus the mean range of a batch of rows over the range of the column, in [0, 1]: what minimum and maximum of a
    /// row group can skip. 0 for text that is not sorted.
    pub clustering: f64,
}

/// Follows a column through its file.
#[derive(Debug)]
pub(crate) struct OrderTracker {
    pairs: usize,
    ascending: usize,
    /// Rows times range, over the batches.
    covered: f64,
    covered_rows: f64,
    first: Option<Place>,
    last: Option<Place>,
    /// Lengths of the runs of equal values between the first and the last, while the column is sorted.
    runs: Option<Runs>,
}

/// A value of a column: the key, and the string where it is of text.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    key: u64,
    text: Option<Box<str>>,
}

impl Place {
    fn up_to(&self, other: &Place) -> bool {
        match (&self.text, &other.text) {
            (Some(text), Some(other)) => text <= other,
            _ => self.key <= other.key,
        }
    }
}

#[derive(Debug, Default)]
struct Runs {
    /// Runs by length, but for the first and the last.
    lengths: HashMap<u64, u64>,
    first: u64,
    last: u64,
    /// Whether the first run is the last.
    one: bool,
}

impl OrderTracker {
    pub(crate) fn new() -> Self {
        let runs = Some(Runs { one: true, ..Runs::default() });
        Self { pairs: 0, ascending: 0, covered: 0.0, covered_rows: 0.0, first: None, last: None, runs }
    }

    /// Whether the column was sorted so far.
    pub(crate) fn is_sorted(&self) -> bool {
        self.runs.is_some()
    }

    /// Takes the values that `reading` has read; the order of text while the column is sorted.
    pub(crate) fn push(&mut self, reading: &Reading, domain: Domain) {
        let (Some(&first), Some(&last)) = (reading.keys.first(), reading.keys.last()) else { return };
        let ends = reading.text.as_ref().and_then(|text| text.ends.clone()).unzip();
        let (first, last) = (Place { key: first, text: ends.0 }, Place { key: last, text: ends.1 });
        self.pairs += reading.keys.len() - 1;
        if let Some((low, high)) = reading.ends {
            self.covered += (number(high, domain) - number(low, domain)) * reading.keys.len() as f64;
            self.covered_rows += reading.keys.len() as f64;
        }
        let inside = reading.ascending;
        self.ascending += inside;
        let mut sorted = inside + 1 == reading.keys.len();
        if let Some(previous) = &self.last {
            self.pairs += 1;
            self.ascending += usize::from(previous.up_to(&first));
            sorted &= previous.up_to(&first);
        }
        match self.runs.as_mut().filter(|_| sorted) {
            Some(runs) => {
                let mut previous = self.last.as_ref().map(|place| place.key);
                for &key in &reading.keys {
                    runs.push(previous.is_none_or(|previous| previous == key));
                    previous = Some(key);
                }
            }
            None => self.runs = None,
        }
        self.first.get_or_insert(first);
        self.last = Some(last);
    }

    /// Goes on with what another tracker saw of the rows that follow.
    pub(crate) fn append(&mut self, other: Self) {
        let (Some(first), Some(last)) = (other.first, other.last) else { return };
        let follows = self.last.as_ref().is_none_or(|place| place.up_to(&first));
        let continues = self.last.as_ref().is_some_and(|place| place.key == first.key);
        self.pairs += other.pairs + usize::from(self.last.is_some());
        self.ascending += other.ascending + usize::from(self.last.is_some() && follows);
        self.covered += other.covered;
        self.covered_rows += other.covered_rows;
        self.runs = match (self.runs.take(), other.runs) {
            (Some(mine), Some(theirs)) if follows => {
                Some(if self.last.is_none() { theirs } else { mine.append(theirs, continues) })
            }
            _ => None,
        };
        self.first.get_or_insert(first);
        self.last = Some(last);
    }

    /// The number of values by degree, of a sorted column.
    pub(crate) fn degrees(&self) -> Option<Vec<(u64, u64)>> {
        let runs = self.runs.as_ref().filter(|_| self.first.is_some())?;
        let mut degrees = runs.lengths.clone();
        let ends = if runs.one { [Some(runs.first), None] } else { [Some(runs.first), Some(runs.last)] };
        ends.into_iter().flatten().for_each(|length| *degrees.entry(length).or_default() += 1);
        Some(degrees.into_iter().collect())
    }

    /// The order of a column of this range.
    pub(crate) fn order(&self, range: Option<(f64, f64)>) -> ValueOrder {
        let ascending = if self.pairs > 0 { self.ascending as f64 / self.pairs as f64 } else { 1.0 };
        let spread = range.map_or(0.0, |(low, high)| high - low);
        let clustering = if self.runs.is_some() {
            1.0
        } else if spread > 0.0 && self.covered_rows > 0.0 {
            (1.0 - self.covered / self.covered_rows / spread).clamp(0.0, 1.0)
        } else {
            0.0
        };
        ValueOrder { ascending, clustering }
    }
}

impl Runs {
    fn push(&mut self, same: bool) {
        let open = if self.one { &mut self.first } else { &mut self.last };
        if same {
            *open += 1;
            return;
        }
        if !self.one {
            *self.lengths.entry(self.last).or_default() += 1;
        }
        self.one = false;
        self.last = 1;
    }

    fn append(mut self, other: Self, continues: bool) -> Self {
        let mut close = |length: u64| *self.lengths.entry(length).or_default() += 1;
        // The last run here and the first there meet.
        let (first, last, one) = match (self.one, other.one, continues) {
            (true, true, true) => (self.first + other.first, 0, true),
            (true, true, false) => (self.first, other.first, false),
            (true, false, true) => (self.first + other.first, other.last, false),
            (true, false, false) => {
                close(other.first);
                (self.first, other.last, false)
            }
            (false, true, true) => (self.first, self.last + other.first, false),
            (false, true, false) => {
                close(self.last);
                (self.first, other.first, false)
            }
            (false, false, true) => {
                close(self.last + other.first);
                (self.first, other.last, false)
            }
            (false, false, false) => {
                close(self.last);
                close(other.first);
                (self.first, other.last, false)
            }
        };
        other.lengths.into_iter().for_each(|(length, count)| *self.lengths.entry(length).or_default() += count);
        Self { lengths: self.lengths, first, last, one }
    }
}

/// The number of a key.
pub(crate) fn number(key: u64, domain: Domain) -> f64 {
    if domain == Domain::Float { float_of(key) } else { integer_of(key) as f64 }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, Int64Array, StringArray};
    use proptest::prelude::*;

    use super::*;

    fn tracker(values: &[i64], batch: usize) -> OrderTracker {
        let mut tracker = OrderTracker::new();
        for values in values.chunks(batch) {
            let array: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
            tracker.push(&Reading::new(&array), Domain::Integer);
        }
        tracker
    }

    fn degrees(tracker: &OrderTracker) -> Option<Vec<(u64, u64)>> {
        let mut degrees = tracker.degrees()?;
        degrees.sort_unstable();
        Some(degrees)
    }

    proptest! {
        #[test]
        fn degrees_of_sorted_columns_are_exact(lengths in prop::collection::vec(1usize..7, 1..40), batch in 1usize..9, cut in any::<prop::sample::Index>()) {
            let values: Vec<i64> = lengths.iter().enumerate().flat_map(|(v, n)| vec![v as i64; *n]).collect();
            let mut expected: HashMap<u64, u64> = HashMap::new();
            lengths.iter().for_each(|n| *expected.entry(*n as u64).or_default() += 1);
            let mut expected: Vec<_> = expected.into_iter().collect();
            expected.sort_unstable();
            prop_assert_eq!(degrees(&tracker(&values, batch)), Some(expected.clone()));
            // The same in two parts, and with the parts exchanged.
            let (head, tail) = values.split_at(cut.index(values.len()));
            let mut both = tracker(head, batch);
            both.append(tracker(tail, batch));
            prop_assert_eq!(degrees(&both), Some(expected));
            prop_assert_eq!(both.order(Some((0.0, 40.0))).ascending, 1.0);
            let mut exchanged = tracker(tail, batch);
            exchanged.append(tracker(head, batch));
            prop_assert_eq!(exchanged.degrees().is_some(), head.is_empty() || tail.is_empty() || tail.last() <= head.first());
        }
    }

    #[test]
    fn clustering_is_what_batches_skip() {
        let values: Vec<i64> = (0..10_000).map(|i| i / 100 * 100 + i * 7919 % 100).collect();
        let order = tracker(&values, 100).order(Some((0.0, 10_000.0)));
        assert!((order.clustering - 0.99).abs() < 0.01 && order.ascending < 0.99, "{order:?}");
        let shuffled: Vec<i64> = (0..10_000).map(|i| i * 7919 % 10_000).collect();
        let order = tracker(&shuffled, 1000).order(Some((0.0, 10_000.0)));
        assert!(order.clustering < 0.01 && (order.ascending - 0.21).abs() < 0.01, "{order:?}");
    }

    #[test]
    fn text_is_ordered_by_its_bytes() {
        let mut tracker = OrderTracker::new();
        for words in [vec!["a", "b", "b"], vec!["b", "c"]] {
            let array: ArrayRef = Arc::new(StringArray::from(words));
            tracker.push(&Reading::new(&array), Domain::Text);
        }
        assert_eq!(degrees(&tracker), Some(vec![(1, 2), (3, 1)]));
        let array: ArrayRef = Arc::new(StringArray::from(vec!["abc"]));
        tracker.push(&Reading::new(&array), Domain::Text);
        assert_eq!((tracker.degrees(), tracker.order(None).ascending), (None, 0.8));
    }
}
