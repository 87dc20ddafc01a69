//! Values of any column as numbers or text, so that one histogram serves all types.

use std::cmp::Ordering;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::scalar::ScalarValue;
use serde::{Deserialize, Serialize};

/// How the values of a column are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Domain {
    /// Integers.
    Integer,
    /// Dates, times and durations, as the integer Arrow stores.
    Time,
    /// Booleans, as 0 and 1.
    Boolean,
    /// Floating point and decimal numbers.
    Float,
    /// Strings, compared by bytes.
    Text,
    /// Nested, binary and other types: only NULLs are counted.
    Opaque,
}

impl Domain {
    /// The domain of an Arrow type.
    pub fn of(data_type: &DataType) -> Self {
        match data_type {
            DataType::Boolean => Domain::Boolean,
            t if t.is_signed_integer() => Domain::Integer,
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => Domain::Integer,
            DataType::UInt64 | DataType::Decimal128(..) | DataType::Decimal256(..) => Domain::Float,
            t if t.is_floating() => Domain::Float,
            DataType::Date32
            | DataType::Date64
            | DataType::Timestamp(..)
            | DataType::Time32(_)
            | DataType::Time64(_)
            | DataType::Duration(_) => Domain::Time,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Domain::Text,
            DataType::Dictionary(_, values) => Domain::of(values),
            _ => Domain::Opaque,
        }
    }
}

/// A value, stripped of its type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// Numbers, dates (as Arrow stores them) and booleans; finite.
    Number(f64),
    /// Strings.
    Text(Box<str>),
}

impl Value {
    /// Order within a column; numbers come before text.
    pub fn order(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Number(a), Value::Number(b)) => a.total_cmp(b),
            (Value::Text(a), Value::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Value::Number(_), Value::Text(_)) => Ordering::Less,
            (Value::Text(_), Value::Number(_)) => Ordering::Greater,
        }
    }

    /// Where this value lies between `low` and `high`, in [0, 1]; one half for text.
    pub(crate) fn fraction_between(&self, low: &Value, high: &Value) -> f64 {
        match (self, low, high) {
            (Value::Number(v), Value::Number(l), Value::Number(h)) if h > l => ((v - l) / (h - l)).clamp(0.0, 1.0),
            _ => 0.5,
        }
    }
}

/// The values of an array in the form of their domain.
pub(crate) enum Slots {
    Integers(ArrayRef),
    Floats(ArrayRef),
    Texts(ArrayRef),
    Opaque(ArrayRef),
}

impl Slots {
    /// Reads `array`; a type that cannot be cast is opaque.
    pub(crate) fn new(array: &ArrayRef) -> Self {
        let read = |target: &DataType| {
            let array = match array.data_type() {
                DataType::Dictionary(_, values) => cast(array, values).ok()?,
                _ => ArrayRef::clone(array),
            };
            cast(&array, target).ok()
        };
        let opaque = || Slots::Opaque(ArrayRef::clone(array));
        match Domain::of(array.data_type()) {
            Domain::Integer | Domain::Boolean => read(&DataType::Int64).map_or_else(opaque, Slots::Integers),
            Domain::Time => {
                // 32-bit times have no direct cast to 64 bits.
                let wide = read(&DataType::Int64).or_else(|| cast(&read(&DataType::Int32)?, &DataType::Int64).ok());
                wide.map_or_else(opaque, Slots::Integers)
            }
            Domain::Float => read(&DataType::Float64).map_or_else(opaque, Slots::Floats),
            Domain::Text => read(&DataType::Utf8View).map_or_else(opaque, Slots::Texts),
            Domain::Opaque => opaque(),
        }
    }

    /// The values, `None` for NULL, NaN, infinities and what is opaque.
    pub(crate) fn values(&self) -> Vec<Option<Value>> {
        match self {
            Slots::Integers(array) => {
                let values = array.as_primitive::<Int64Type>().iter();
                values.map(|value| value.map(|value| Value::Number(value as f64))).collect()
            }
            Slots::Floats(array) => {
                let values = array.as_primitive::<Float64Type>().iter();
                values.map(|value| value.filter(|v| v.is_finite()).map(|v| Value::Number(v + 0.0))).collect()
            }
            Slots::Texts(array) => {
                let values = array.as_string_view().iter();
                values.map(|value| value.map(|value| Value::Text(value.into()))).collect()
            }
            Slots::Opaque(array) => vec![None; array.len()],
        }
    }
}

/// A literal as a value of a column of type `column`; `None` for NULL, non-finite and opaque values or where the literal
/// does not fit the type.
pub fn scalar_value(scalar: &ScalarValue, column: &DataType) -> Option<Value> {
    let scalar = if scalar.data_type() == *column { scalar.clone() } else { scalar.cast_to(column).ok()? };
    let array = scalar.to_array_of_size(1).ok()?;
    Slots::new(&array).values().pop().flatten()
}
