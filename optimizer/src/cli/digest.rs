//! A digest of a query's result that does not depend on the order of its rows.
//!
//! Every row is written in Arrow's row format and hashed with xxh3; the digest is the wrapping sum of the hashes, so
//! batches and partitions may come in any order while repeated rows still count. Floating-point values keep 30 bits of
//! mantissa (about nine digits), so sums taken in another order agree. String and dictionary layouts are decoded first.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::row::{RowConverter, SortField};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Bits of a double's mantissa that are dropped: 52 - 30.
const DROPPED_BITS: u32 = 22;
/// Moves the borders between rounded values off the numbers that data is made of: short decimals and dyadic fractions
/// would otherwise lie on a border, where the last bit of a sum decides the side.
const BORDER_OFFSET: u64 = 0x13_579B;
/// Magnitudes below this count as zero: what cancellation leaves of zero has no stable digits.
const ZERO_BELOW: f64 = 1e-9;

/// Order-insensitive digest of a set of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest {
    rows: u64,
    sum: u64,
}

impl Digest {
    /// Adds the rows of `batch`.
    ///
    /// # Errors
    /// Arrow has no row format for a column's type.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        self.rows += batch.num_rows() as u64;
        if batch.num_columns() == 0 || batch.num_rows() == 0 {
            return Ok(());
        }
        let columns = batch.columns().iter().map(normalized).collect::<Result<Vec<_>, _>>()?;
        let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let rows = RowConverter::new(fields)?.convert_columns(&columns)?;
        for row in &rows {
            self.sum = self.sum.wrapping_add(xxh3_64(row.as_ref()));
        }
        Ok(())
    }

    /// Digest of all of `batches`.
    ///
    /// # Errors
    /// Arrow has no row format for a column's type.
    pub fn of<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>) -> Result<Self, ArrowError> {
        let mut digest = Digest::default();
        for batch in batches {
            digest.add(batch)?;
        }
        Ok(digest)
    }

    /// Number of rows digested.
    pub fn rows(&self) -> u64 {
        self.rows
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", xxh3_64_with_seed(&self.sum.to_le_bytes(), self.rows))
    }
}

/// The column in the one layout that stands for its values: doubles rounded, strings and binaries with plain offsets,
/// dictionaries decoded. Values inside lists and structs are left as they are.
fn normalized(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match column.data_type() {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            let doubles = cast(column, &DataType::Float64)?;
            let rounded: Int64Array = doubles.as_primitive::<Float64Type>().unary(rounded);
            Ok(Arc::new(rounded))
        }
        DataType::LargeUtf8 | DataType::Utf8View => cast(column, &DataType::Utf8),
        DataType::LargeBinary | DataType::BinaryView => cast(column, &DataType::Binary),
        DataType::Dictionary(_, values) => normalized(&cast(column, values)?),
        _ => Ok(Arc::clone(column)),
    }
}

/// The double's sign, exponent and upper 30 bits of mantissa.
fn rounded(value: f64) -> i64 {
    if value.is_nan() {
        return i64::MAX;
    }
    if value.abs() < ZERO_BELOW {
        return 0;
    }
    (value.to_bits().wrapping_add(BORDER_OFFSET) >> DROPPED_BITS) as i64
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{DictionaryArray, Float64Array, StringArray, StringViewArray};
    use datafusion::arrow::datatypes::Int32Type;

    use super::*;

    fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
        let named = columns.into_iter().enumerate().map(|(index, column)| (format!("c{index}"), column, true));
        RecordBatch::try_from_iter_with_nullable(named).unwrap()
    }

    fn digest(batches: &[RecordBatch]) -> Digest {
        Digest::of(batches).unwrap()
    }

    #[test]
    fn order_and_batches_do_not_matter_but_rows_do() {
        let whole = batch(vec![
            Arc::new(Int64Array::from(vec![Some(1), Some(2), None, Some(2)])),
            Arc::new(StringArray::from(vec![Some("a"), None, Some("c"), None])),
        ]);
        let parts = [whole.slice(2, 2), whole.slice(0, 1), whole.slice(1, 1), whole.slice(0, 0)];
        assert_eq!(digest(std::slice::from_ref(&whole)), digest(&parts));
        assert_ne!(digest(std::slice::from_ref(&whole)), digest(&parts[..2]));
        // 1, 2, 2 and 1, 1, 2 hold the same values but not the same rows.
        let twice = |values: Vec<i64>| digest(&[batch(vec![Arc::new(Int64Array::from(values))])]);
        assert_ne!(twice(vec![1, 2, 2]), twice(vec![1, 1, 2]));
        assert_ne!(twice(vec![]), twice(vec![0]));
    }

    #[test]
    fn layouts_of_the_same_strings_agree() {
        let values = ["x", "longer than twelve bytes", "x"];
        let plain = batch(vec![Arc::new(StringArray::from(values.to_vec()))]);
        let view = batch(vec![Arc::new(StringViewArray::from(values.to_vec()))]);
        let dictionary: DictionaryArray<Int32Type> = values.into_iter().collect();
        assert_eq!(digest(std::slice::from_ref(&plain)), digest(&[view]));
        assert_eq!(digest(&[plain]), digest(&[batch(vec![Arc::new(dictionary)])]));
    }

    #[test]
    fn sums_in_another_order_agree() {
        for count in 1..400_u32 {
            let terms: Vec<f64> = (0..count).map(|i| f64::from(i) * 0.01 + 0.005).collect();
            let forwards: f64 = terms.iter().sum();
            let backwards: f64 = terms.iter().rev().sum();
            let of = |value: f64| digest(&[batch(vec![Arc::new(Float64Array::from(vec![value])) as ArrayRef])]);
            assert_eq!(of(forwards), of(backwards), "{forwards} {backwards}");
            assert_ne!(of(forwards), of(forwards * (1.0 + 1e-8)));
        }
    }

    #[test]
    fn special_doubles_have_one_form() {
        assert_eq!(rounded(0.0), rounded(-0.0));
        assert_eq!(rounded(f64::NAN), rounded(-f64::NAN));
        assert_ne!(rounded(f64::INFINITY), rounded(f64::NEG_INFINITY));
        assert_ne!(rounded(1.0), rounded(-1.0));
    }
}
