//! The values of one array as 64-bit keys: read once, used by every part of a profile.

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::{max_string_view, min_string_view};
use datafusion::arrow::datatypes::{Float64Type, Int64Type};

use super::values::Slots;

/// The values of an array that are neither NULL nor NaN nor infinite, as keys.
///
/// Equal values have equal keys; the keys of numbers keep their order, those of text are hashes.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// Rows of the array.
    pub(crate) rows: usize,
    /// NULLs.
    pub(crate) nulls: usize,
    /// NaNs and infinities.
    pub(crate) non_finite: usize,
    /// The keys of the values, in order.
    pub(crate) keys: Vec<u64>,
    /// Row of each key; `None` where every row has one.
    positions: Option<Vec<u32>>,
    /// The smallest and the largest key, of numbers.
    pub(crate) ends: Option<(u64, u64)>,
    /// Neighbours that are in ascending order; of text, where that was asked for.
    pub(crate) ascending: usize,
    /// The strings, of text.
    pub(crate) text: Option<TextReading>,
}

/// What the strings of an array say beyond their hashes.
#[derive(Debug, Default)]
pub(crate) struct TextReading {
    /// Smallest and largest string.
    pub(crate) range: Option<(Box<str>, Box<str>)>,
    /// First and last string.
    pub(crate) ends: Option<(Box<str>, Box<str>)>,
    /// Sum of the lengths, in bytes.
    pub(crate) bytes: usize,
    /// Length of the longest, in bytes.
    pub(crate) longest: usize,
}

impl Reading {
    /// Reads an array.
    pub(crate) fn new(array: &ArrayRef) -> Self {
        Self::with_order(array, true)
    }

    /// Reads an array; comparing the strings of text with each other is left out unless `ordered`.
    pub(crate) fn with_order(array: &ArrayRef, ordered: bool) -> Self {
        let mut reading = Self { rows: array.len(), nulls: array.logical_null_count(), ..Self::default() };
        match Slots::new(array) {
            Slots::Integers(array) => {
                let values = array.as_primitive::<Int64Type>();
                if values.null_count() == 0 {
                    reading.keys = values.values().iter().map(|&value| integer_key(value)).collect();
                } else {
                    reading.present(values.iter().map(|value| value.map(integer_key)));
                }
            }
            Slots::Floats(array) => {
                let finite = |value: f64| value.is_finite().then(|| float_key(value));
                reading.present(array.as_primitive::<Float64Type>().iter().map(|value| value.and_then(finite)));
                reading.non_finite = reading.rows - reading.nulls - reading.keys.len();
            }
            Slots::Texts(array) => {
                let values = array.as_string_view();
                let mut text = TextReading::default();
                let mut previous: Option<&str> = None;
                let mut key = |value: &str| {
                    text.bytes += value.len();
                    text.longest = text.longest.max(value.len());
                    text_key(value)
                };
                reading.present(values.iter().map(|value| value.map(&mut key)));
                for value in values.iter().flatten().filter(|_| ordered) {
                    reading.ascending += usize::from(previous.is_some_and(|previous| previous <= value));
                    previous = Some(value);
                }
                let own = |pair: (&str, &str)| (pair.0.into(), pair.1.into());
                text.range = min_string_view(values).zip(max_string_view(values)).map(own);
                let first = values.iter().flatten().next();
                text.ends = first.zip(values.iter().flatten().next_back()).map(own);
                reading.text = Some(text);
            }
            Slots::Opaque(_) => {}
        }
        if reading.text.is_none() && !reading.keys.is_empty() {
            let ends = |(low, high): (u64, u64), &key: &u64| (low.min(key), high.max(key));
            reading.ends = Some(reading.keys.iter().fold((u64::MAX, 0), ends));
            reading.ascending = reading.keys.windows(2).filter(|pair| pair[0] <= pair[1]).count();
        }
        reading
    }

    /// Takes the keys of the rows that have one.
    fn present(&mut self, keys: impl Iterator<Item = Option<u64>>) {
        let mut positions = Vec::with_capacity(self.rows);
        self.keys.reserve(self.rows);
        for (row, key) in keys.enumerate() {
            if let Some(key) = key {
                self.keys.push(key);
                positions.push(row as u32);
            }
        }
        self.positions = (positions.len() < self.rows).then_some(positions);
    }

    /// The row that the key at `index` is of.
    pub(crate) fn row(&self, index: usize) -> u32 {
        self.positions.as_ref().map_or(index as u32, |positions| positions[index])
    }
}

/// The key of an integer.
pub(crate) fn integer_key(value: i64) -> u64 {
    (value as u64) ^ (1 << 63)
}

/// The key of a string: its hash.
pub(crate) fn text_key(value: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(value.as_bytes())
}

/// The integer of a key.
pub(crate) fn integer_of(key: u64) -> i64 {
    (key ^ (1 << 63)) as i64
}

/// The key of a finite number; that of -0 is that of 0.
pub(crate) fn float_key(value: f64) -> u64 {
    let bits = (value + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | (1 << 63) }
}

/// The number of a key.
pub(crate) fn float_of(key: u64) -> f64 {
    f64::from_bits(if key >> 63 == 1 { key & !(1 << 63) } else { !key })
}
