//! What one scan remembers of a column: whether its values repeat, and a sample of them by hash.
//!
//! A probe keeps every distinct hash below a limit that halves whenever the set is full (Gibbons, "Distinct Sampling for
//! Highly-Accurate Answers to Distinct Values Queries and Event Reports", VLDB 2001). Two probes can therefore be compared
//! on the values that both would have kept, whatever the sizes of their columns, in bounded memory.

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::arrow::error::ArrowError;
use hashbrown::HashSet;
use xxhash_rust::xxh3::xxh3_64;

/// Most hashes a probe keeps: 256 KiB of them.
const CAPACITY: usize = 1 << 15;

/// Values of which kinds can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// Whole numbers, also where they are stored as doubles.
    Number,
    Text,
}

/// Distinct sample and uniqueness of one column.
#[derive(Debug)]
pub(super) struct ColumnProbe {
    family: Family,
    hashes: HashSet<u64>,
    /// Hashes with this many leading zero bits are kept.
    level: u32,
    repeats: bool,
    nulls: bool,
    /// The column holds fractions, so it is no key of any kind.
    fractions: bool,
}

impl ColumnProbe {
    /// An empty probe; `None` for types that keys are not made of.
    pub(super) fn new(data_type: &DataType) -> Option<Self> {
        let family = match data_type {
            DataType::Dictionary(_, values) => return Self::new(values),
            DataType::Float32 | DataType::Float64 => Family::Number,
            _ if data_type.is_integer() => Family::Number,
            _ if data_type.is_string() => Family::Text,
            _ => return None,
        };
        let hashes = HashSet::new();
        Some(ColumnProbe { family, hashes, level: 0, repeats: false, nulls: false, fractions: false })
    }

    /// Adds the values of a batch.
    pub(super) fn add(&mut self, column: &ArrayRef) -> Result<(), ArrowError> {
        if self.fractions {
            return Ok(());
        }
        self.nulls |= column.logical_null_count() > 0;
        match (self.family, column.data_type().is_floating()) {
            (Family::Text, _) => {
                let text = cast(column, &DataType::Utf8View)?;
                for value in text.as_string_view().iter().flatten() {
                    self.insert(xxh3_64(value.as_bytes()));
                }
            }
            (Family::Number, false) => {
                let numbers = cast(column, &DataType::Int64)?;
                for value in numbers.as_primitive::<Int64Type>().iter().flatten() {
                    self.insert(xxh3_64(&value.to_le_bytes()));
                }
            }
            (Family::Number, true) => {
                let numbers = cast(column, &DataType::Float64)?;
                for value in numbers.as_primitive::<Float64Type>().iter().flatten() {
                    if value.fract() != 0.0 || value.abs() > 9e15 {
                        self.fractions = true;
                        self.hashes = HashSet::new();
                        return Ok(());
                    }
                    self.insert(xxh3_64(&(value as i64).to_le_bytes()));
                }
            }
        }
        Ok(())
    }

    fn insert(&mut self, hash: u64) {
        if hash.leading_zeros() < self.level {
            return;
        }
        if !self.hashes.insert(hash) {
            self.repeats = true;
        } else if self.hashes.len() > CAPACITY {
            self.level += 1;
            let level = self.level;
            self.hashes.retain(|hash| hash.leading_zeros() >= level);
        }
    }

    /// Whether no value is missing and, as far as the sample tells, none comes twice.
    pub(super) fn is_unique(&self) -> bool {
        !self.repeats && !self.nulls && !self.fractions && !self.hashes.is_empty()
    }

    /// Number of distinct values: exact up to the capacity, estimated beyond.
    pub(super) fn distinct(&self) -> u64 {
        (self.hashes.len() as u64) << self.level
    }

    pub(super) fn is_text(&self) -> bool {
        self.family == Family::Text
    }

    pub(super) fn same_family(&self, other: &ColumnProbe) -> bool {
        self.family == other.family
    }

    /// Whether all values of this column, as far as both samples tell, are values of `other`.
    pub(super) fn is_contained_in(&self, other: &ColumnProbe) -> bool {
        let level = self.level.max(other.level);
        let mut comparable = self.hashes.iter().filter(|hash| hash.leading_zeros() >= level);
        comparable.all(|hash| other.hashes.contains(hash))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Float64Array, Int64Array, StringArray};

    use super::*;

    fn probe(column: &ArrayRef) -> ColumnProbe {
        let mut probe = ColumnProbe::new(column.data_type()).unwrap();
        for start in (0..column.len()).step_by(1000) {
            probe.add(&column.slice(start, 1000.min(column.len() - start))).unwrap();
        }
        probe
    }

    #[test]
    fn samples_of_different_levels_compare() {
        let parent = probe(&(Arc::new(Int64Array::from_iter_values(0..200_000)) as ArrayRef));
        let child =
            probe(&(Arc::new(Int64Array::from_iter_values((0..90_000).map(|value| value * 2 % 9_000))) as ArrayRef));
        assert!(parent.level > child.level);
        assert!(parent.is_unique() && !child.is_unique());
        assert!(child.is_contained_in(&parent) && !parent.is_contained_in(&child));
        assert!((parent.distinct() as f64 / 200_000.0 - 1.0).abs() < 0.05, "{}", parent.distinct());
        assert_eq!(child.distinct(), 4_500);
    }

    #[test]
    fn whole_doubles_are_numbers_and_fractions_no_keys() {
        let whole = probe(&(Arc::new(Float64Array::from(vec![Some(1.0), None, Some(3.0)])) as ArrayRef));
        let parent = probe(&(Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef));
        assert!(whole.is_contained_in(&parent) && !whole.is_unique());
        let fractions = probe(&(Arc::new(Float64Array::from(vec![1.0, 2.5])) as ArrayRef));
        assert!(!fractions.is_unique() && fractions.distinct() == 0);
        let text = probe(&(Arc::new(StringArray::from(vec!["1", "2"])) as ArrayRef));
        assert!(!text.same_family(&parent) && text.is_unique());
    }
}
