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
#[serde(untagged)]
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

/// The values of an array, `None` for NULL; NaN and infinities come as [`Slot::NonFinite`].
pub(crate) enum Slots {
    Integers(ArrayRef),
    Floats(ArrayRef),
    Texts(ArrayRef),
    Opaque(ArrayRef),
}

/// One value of an array.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Slot<'a> {
    Null,
    NonFinite,
    Integer(i64),
    Float(f64),
    Text(&'a str),
    Opaque,
}

impl Slot<'_> {
    /// The value, where it has one.
    pub(crate) fn value(self) -> Option<Value> {
        match self {
            Slot::Integer(v) => Some(Value::Number(v as f64)),
            Slot::Float(v) => Some(Value::Number(v)),
            Slot::Text(v) => Some(Value::Text(v.into())),
            Slot::Null | Slot::NonFinite | Slot::Opaque => None,
        }
    }
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

    pub(crate) fn len(&self) -> usize {
        match self {
            Slots::Integers(a) | Slots::Floats(a) | Slots::Texts(a) | Slots::Opaque(a) => a.len(),
        }
    }

    /// Calls `visit` with each value in order.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(Slot<'_>)) {
        match self {
            Slots::Integers(array) => {
                for value in array.as_primitive::<Int64Type>() {
                    visit(value.map_or(Slot::Null, Slot::Integer));
                }
            }
            Slots::Floats(array) => {
                for value in array.as_primitive::<Float64Type>() {
                    visit(match value {
                        None => Slot::Null,
                        Some(v) if v.is_finite() => Slot::Float(v + 0.0),
                        Some(_) => Slot::NonFinite,
                    });
                }
            }
            Slots::Texts(array) => {
                for value in array.as_string_view() {
                    visit(value.map_or(Slot::Null, Slot::Text));
                }
            }
            Slots::Opaque(array) => {
                for row in 0..array.len() {
                    visit(if array.is_null(row) { Slot::Null } else { Slot::Opaque });
                }
            }
        }
    }

    /// The values as a list.
    pub(crate) fn values(&self) -> Vec<Option<Value>> {
        let mut out = Vec::with_capacity(self.len());
        self.for_each(|slot| out.push(slot.value()));
        out
    }
}

/// A literal as a value of a column of type `column`; `None` for NULL, non-finite and opaque values or where the literal
/// does not fit the type.
pub fn scalar_value(scalar: &ScalarValue, column: &DataType) -> Option<Value> {
    let scalar = if scalar.data_type() == *column { scalar.clone() } else { scalar.cast_to(column).ok()? };
    let array = scalar.to_array_of_size(1).ok()?;
    Slots::new(&array).values().pop().flatten()
}
