//! Join keys as dense integers, so that counting never hashes a value twice.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type};
use hashbrown::HashMap;

/// The code of a key with a NULL in it, which equals nothing.
pub(crate) const NULL: u32 = u32::MAX;

/// Which keys can be equal at all: codes are comparable within a domain only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Domain {
    /// Integers of any width.
    Integer,
    /// Floating-point numbers of any width.
    Float,
    /// Strings of any representation.
    Text,
    /// Dates, timestamps and booleans compare with their own type only.
    Exact(DataType),
    /// A tuple of columns.
    Tuple(Vec<Domain>),
}

/// One code per row of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Codes {
    pub(crate) domain: Domain,
    pub(crate) values: Arc<[u32]>,
}

/// Assigns the same code to equal keys and keeps the codes of columns it has seen, so that a database pays once for all
/// its queries.
#[derive(Debug, Default)]
pub struct KeyCodes {
    integers: HashMap<i64, u32>,
    floats: HashMap<u64, u32>,
    texts: HashMap<String, u32>,
    pairs: HashMap<(u32, u32), u32>,
    /// By the addresses of the columns; the columns are kept so that no address is used again.
    cache: HashMap<Vec<usize>, (Vec<ArrayRef>, Option<Codes>)>,
}

impl KeyCodes {
    /// The codes of a tuple of columns, `None` if a type is not supported as a key.
    pub(crate) fn encode(&mut self, columns: &[ArrayRef]) -> Option<Codes> {
        let addresses: Vec<usize> = columns.iter().map(|column| Arc::as_ptr(column).cast::<()>() as usize).collect();
        if let Some((_, codes)) = self.cache.get(&addresses) {
            return codes.clone();
        }
        let codes = match columns {
            [column] => self.encode_column(column),
            _ => self.encode_tuple(columns),
        };
        self.cache.insert(addresses, (columns.to_vec(), codes.clone()));
        codes
    }

    /// The same without the domain, for columns that are known to be comparable.
    pub(crate) fn codes(&mut self, columns: &[ArrayRef]) -> Option<Arc<[u32]>> {
        self.encode(columns).map(|codes| codes.values)
    }

    /// Number of codes handed out, over all domains: an upper bound of every code.
    pub(crate) fn limit(&self) -> usize {
        self.integers.len().max(self.floats.len()).max(self.texts.len()).max(self.pairs.len())
    }

    fn encode_column(&mut self, column: &ArrayRef) -> Option<Codes> {
        let data_type = match column.data_type() {
            DataType::Dictionary(_, values) => values.as_ref().clone(),
            other => other.clone(),
        };
        let domain = match &data_type {
            DataType::UInt64 => return None,
            integer if integer.is_integer() => Domain::Integer,
            float if float.is_floating() => Domain::Float,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Domain::Text,
            DataType::Boolean | DataType::Date32 | DataType::Date64 | DataType::Timestamp(_, _) => {
                Domain::Exact(data_type)
            }
            _ => return None,
        };
        let values = match domain {
            Domain::Float => {
                let column = cast(column, &DataType::Float64).ok()?;
                // Adding zero turns -0.0 into 0.0; every NaN counts as the same value.
                let bits = column.as_primitive::<Float64Type>().iter().map(|value| {
                    value.map(|value| if value.is_nan() { f64::NAN.to_bits() } else { (value + 0.0).to_bits() })
                });
                intern(&mut self.floats, bits)
            }
            Domain::Text => {
                let column = cast(column, &DataType::Utf8).ok()?;
                let texts = &mut self.texts;
                let codes = column.as_string::<i32>().iter().map(|value| {
                    let value = value?;
                    let next = texts.len() as u32;
                    Some(*texts.entry_ref(value).or_insert(next))
                });
                codes.map(|code| code.unwrap_or(NULL)).collect()
            }
            _ => {
                let column = cast(column, &DataType::Int64).ok()?;
                intern(&mut self.integers, column.as_primitive::<Int64Type>().iter())
            }
        };
        Some(Codes { domain, values })
    }

    fn encode_tuple(&mut self, columns: &[ArrayRef]) -> Option<Codes> {
        let (last, front) = columns.split_last()?;
        let (front, last) = (self.encode(front)?, self.encode(std::slice::from_ref(last))?);
        let pairs = front.values.iter().zip(last.values.iter());
        let values = intern(
            &mut self.pairs,
            pairs.map(|(&front, &last)| (front != NULL && last != NULL).then_some((front, last))),
        );
        let mut domains = match front.domain {
            Domain::Tuple(domains) => domains,
            single => vec![single],
        };
        domains.push(last.domain);
        Some(Codes { domain: Domain::Tuple(domains), values })
    }
}

/// The code of each value, `NULL` where there is none.
fn intern<K: std::hash::Hash + Eq>(codes: &mut HashMap<K, u32>, values: impl Iterator<Item = Option<K>>) -> Arc<[u32]> {
    values
        .map(|value| match value {
            Some(value) => {
                let next = codes.len() as u32;
                *codes.entry(value).or_insert(next)
            }
            None => NULL,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Date32Array, Int32Array, Int64Array, StringArray, StringViewArray};

    use super::*;

    #[test]
    fn equal_keys_share_a_code_across_representations() {
        let mut codes = KeyCodes::default();
        let wide: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None, Some(9)]));
        let narrow: ArrayRef = Arc::new(Int32Array::from(vec![9, 7]));
        let (wide_codes, narrow_codes) =
            (codes.encode(&[Arc::clone(&wide)]).unwrap(), codes.encode(&[narrow]).unwrap());
        assert_eq!(&*wide_codes.values, &[0, NULL, 1]);
        assert_eq!(&*narrow_codes.values, &[1, 0]);
        assert_eq!(wide_codes.domain, narrow_codes.domain);

        let plain: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "b"]));
        let view: ArrayRef = Arc::new(StringViewArray::from(vec!["b", "a"]));
        let left = codes.encode(&[wide, plain]).unwrap();
        assert_eq!(left.values[1], NULL);
        assert_eq!(codes.encode(&[view]).unwrap().values[1], 0);
        let date: ArrayRef = Arc::new(Date32Array::from(vec![7]));
        assert_ne!(codes.encode(&[date]).unwrap().domain, Domain::Integer);
    }
}
