//! The values of one array as 64-bit keys: read once, used by every part of a profile.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringViewArray};
use datafusion::arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};

use super::Domain;
use super::values::Slots;
use crate::sample::mix;

/// The values of an array that are neither NULL nor NaN nor infinite, as keys.
///
/// Equal values have equal keys; the keys of numbers keep their order, those of text are hashes. Made to be used again for the
/// next array: fresh memory costs more than reading.
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
    /// A hash of each key, the same for all columns; empty until [`Self::hash`].
    pub(crate) hashes: Vec<u64>,
    /// Row of each key; empty where every row has one.
    pub(super) positions: Vec<u32>,
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
        let mut reading = Self::default();
        reading.read(array, true);
        reading
    }

    /// Reads the next array; comparing the strings of text with each other is left out unless `ordered`.
    pub(crate) fn read(&mut self, array: &ArrayRef, ordered: bool) {
        let (mut keys, mut hashes, mut positions) =
            (std::mem::take(&mut self.keys), std::mem::take(&mut self.hashes), std::mem::take(&mut self.positions));
        keys.clear();
        hashes.clear();
        positions.clear();
        *self =
            Self { rows: array.len(), nulls: array.logical_null_count(), keys, hashes, positions, ..Self::default() };
        if !self.read_numbers(array) {
            match Slots::new(array) {
                Slots::Integers(array) => {
                    self.numbers(&array, array.as_primitive::<Int64Type>().values(), |value| Some(integer_key(*value)));
                }
                Slots::Floats(array) => self.numbers(&array, array.as_primitive::<Float64Type>().values(), finite_key),
                Slots::Texts(array) => self.read_text(array.as_string_view(), ordered),
                Slots::Opaque(_) => {}
            }
        }
        if self.text.is_none() && !self.keys.is_empty() {
            let ends = |(low, high): (u64, u64), &key: &u64| (low.min(key), high.max(key));
            self.ends = Some(self.keys.iter().fold((u64::MAX, 0), ends));
            self.ascending = self.keys.windows(2).filter(|pair| pair[0] <= pair[1]).count();
        }
    }

    /// Reads the usual numbers as they are stored; `false` for other types.
    fn read_numbers(&mut self, array: &ArrayRef) -> bool {
        let data = array.to_data();
        macro_rules! integers {
            ($type:ty) => {
                self.numbers(array, data.buffer::<$type>(0), |value| Some(integer_key(i64::from(*value))))
            };
        }
        match (Domain::of(array.data_type()), array.data_type()) {
            (Domain::Integer, DataType::Int8) => integers!(i8),
            (Domain::Integer, DataType::Int16) => integers!(i16),
            (Domain::Integer, DataType::Int32) => integers!(i32),
            (Domain::Integer, DataType::UInt8) => integers!(u8),
            (Domain::Integer, DataType::UInt16) => integers!(u16),
            (Domain::Integer, DataType::UInt32) => integers!(u32),
            (Domain::Integer, DataType::Int64) => integers!(i64),
            (Domain::Time, time) if time.primitive_width() == Some(4) => integers!(i32),
            (Domain::Time, time) if time.primitive_width() == Some(8) => integers!(i64),
            (Domain::Float, DataType::Float64) => self.numbers(array, data.buffer::<f64>(0), finite_key),
            (Domain::Float, DataType::Decimal128(_, scale)) => {
                let unit = 10f64.powi(i32::from(*scale));
                // Few decimals need more than 64 bits, which are converted much faster.
                let number = |value: &i128| i64::try_from(*value).map_or(*value as f64, |value| value as f64);
                let values = array.as_primitive::<Decimal128Type>().values();
                self.numbers(array, values, |value| Some(float_key(number(value) / unit)));
            }
            _ => return false,
        }
        true
    }

    /// Takes the keys of the values that have one.
    fn numbers<T>(&mut self, array: &ArrayRef, values: &[T], key: impl Fn(&T) -> Option<u64>) {
        // What follows the array in its buffer is not its own.
        let values = &values[..array.len().min(values.len())];
        match array.nulls() {
            None => {
                self.keys.extend(values.iter().filter_map(&key));
                if self.keys.len() < self.rows {
                    let present = values.iter().enumerate().filter(|(_, value)| key(value).is_some());
                    self.positions.extend(present.map(|(row, _)| row as u32));
                }
            }
            Some(nulls) => {
                for row in nulls.valid_indices() {
                    if let Some(key) = key(&values[row]) {
                        self.keys.push(key);
                        self.positions.push(row as u32);
                    }
                }
            }
        }
        self.non_finite = self.rows - self.nulls - self.keys.len();
    }

    fn read_text(&mut self, strings: &StringViewArray, ordered: bool) {
        let mut text = TextReading::default();
        let (mut low, mut high): (Option<&str>, Option<&str>) = (None, None);
        let (mut first, mut last): (Option<&str>, Option<&str>) = (None, None);
        for (row, string) in strings.iter().enumerate() {
            let Some(string) = string else { continue };
            text.bytes += string.len();
            text.longest = text.longest.max(string.len());
            self.keys.push(text_key(string));
            self.positions.push(row as u32);
            if low.is_none_or(|low| string < low) {
                low = Some(string);
            }
            if high.is_none_or(|high| string > high) {
                high = Some(string);
            }
            if ordered {
                self.ascending += usize::from(last.is_some_and(|last| last <= string));
            }
            first = first.or(Some(string));
            last = Some(string);
        }
        if self.positions.len() == self.rows {
            self.positions.clear();
        }
        let own = |pair: (&str, &str)| (pair.0.into(), pair.1.into());
        text.range = low.zip(high).map(own);
        text.ends = first.zip(last).map(own);
        self.text = Some(text);
    }

    /// Hashes the keys, unless that is done.
    pub(crate) fn hash(&mut self) {
        if self.hashes.is_empty() {
            self.hashes.extend(self.keys.iter().map(|key| key_hash(*key)));
        }
    }

    /// The row that the key at `index` is of.
    pub(crate) fn row(&self, index: usize) -> u32 {
        if self.positions.is_empty() { index as u32 } else { self.positions[index] }
    }
}

/// The hash of a key.
pub(crate) fn key_hash(key: u64) -> u64 {
    mix(mix(key))
}

fn finite_key(value: &f64) -> Option<u64> {
    value.is_finite().then(|| float_key(*value))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array, Int64Array, StringArray,
        Time32SecondArray, TimestampMillisecondArray, UInt64Array,
    };

    use super::*;
    use crate::sketch::Value;

    /// The values that the keys stand for, by the same reading of a sliced array and of its list of values.
    #[test]
    fn keys_are_those_of_the_values() {
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(Int16Array::from(vec![Some(3), None, Some(-2), Some(3), Some(7)])),
            Arc::new(Int64Array::from(vec![i64::MIN, -1, 0, 1, 1 << 60])),
            Arc::new(UInt64Array::from(vec![Some(5), Some(1), None, Some(9), Some(5)])),
            Arc::new(Date32Array::from(vec![Some(100), Some(-5), None, Some(3), Some(3)])),
            Arc::new(Time32SecondArray::from(vec![5, 6, 7, 8, 9])),
            Arc::new(TimestampMillisecondArray::from(vec![Some(5), None, Some(7), Some(-8), Some(9)])),
            Arc::new(Float64Array::from(vec![Some(-0.0), Some(f64::NAN), None, Some(1.5), Some(-2.5)])),
            Arc::new(Float32Array::from(vec![0.1, f32::INFINITY, 3.0, -1.0, 0.1])),
            Arc::new(
                Decimal128Array::from(vec![Some(12345), Some(-1), None, Some(i128::from(i64::MAX) * 100), Some(7)])
                    .with_precision_and_scale(38, 2)
                    .unwrap(),
            ),
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), Some(true), None])),
            Arc::new(StringArray::from(vec![Some("b"), None, Some(""), Some("a"), Some("b")])),
        ];
        for array in arrays {
            for array in [array.slice(0, 5), array.slice(1, 3)] {
                let domain = Domain::of(array.data_type());
                let mut reading = Reading::new(&array);
                let values: Vec<(u32, Value)> = Slots::new(&array)
                    .values()
                    .into_iter()
                    .enumerate()
                    .filter_map(|(row, value)| Some((row as u32, value?)))
                    .collect();
                let keys: Vec<u64> = values
                    .iter()
                    .map(|(_, value)| match value {
                        Value::Text(text) => text_key(text),
                        Value::Number(number) if domain == Domain::Float => float_key(*number),
                        Value::Number(number) => integer_key(*number as i64),
                    })
                    .collect();
                assert_eq!(reading.keys, keys, "{array:?}");
                let rows: Vec<u32> = (0..keys.len()).map(|index| reading.row(index)).collect();
                assert_eq!(rows, values.iter().map(|(row, _)| *row).collect::<Vec<_>>(), "{array:?}");
                assert_eq!((reading.rows, reading.nulls), (array.len(), array.null_count()));
                assert_eq!(reading.nulls + reading.non_finite + keys.len(), array.len());
                let ordered = values.windows(2).filter(|pair| pair[0].1.order(&pair[1].1).is_le()).count();
                assert_eq!(reading.ascending, ordered, "{array:?}");
                reading.hash();
                assert_eq!(reading.hashes, keys.iter().map(|key| key_hash(*key)).collect::<Vec<_>>());
                // Nothing is left of it for the next array.
                reading.read(&array, true);
                assert_eq!((reading.keys.len(), reading.hashes.len()), (keys.len(), 0));
            }
        }
    }
}
