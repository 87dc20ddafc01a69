//! What the generator knows of a column: its values in order, and how to write them as SQL literals.

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Date32Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::arrow::temporal_conversions::{date32_to_datetime, timestamp_us_to_datetime};
use rand::Rng;
use rand::rngs::StdRng;

use crate::database::Table;

/// Rows of a table that the generator looks at to know the order of values.
const SAMPLE_ROWS: usize = 1024;

/// Longer strings make no literals.
const LONGEST_TEXT: usize = 80;

/// A value that is not NULL; values of one column are of one kind.
#[derive(Debug, Clone, PartialEq, PartialOrd)]
pub(crate) enum Value {
    Integer(i64),
    Float(f64),
    Text(String),
    /// Days since 1970.
    Date(i32),
    /// Microseconds since 1970.
    Timestamp(i64),
    Boolean(bool),
}

impl Value {
    /// The value as a literal of DataFusion, DuckDB and PostgreSQL alike; `None` if there is no such literal.
    pub(crate) fn literal(&self) -> Option<String> {
        match self {
            Value::Integer(value) => Some(value.to_string()),
            Value::Float(value) => value.is_finite().then(|| format!("{value:?}")),
            Value::Text(text) => {
                let fits = text.len() <= LONGEST_TEXT && !text.chars().any(char::is_control);
                fits.then(|| format!("'{}'", text.replace('\'', "''")))
            }
            Value::Date(days) => Some(format!("DATE '{}'", common_era(date32_to_datetime(*days)?.date().to_string())?)),
            Value::Timestamp(micros) => {
                Some(format!("TIMESTAMP '{}'", common_era(timestamp_us_to_datetime(*micros)?.to_string())?))
            }
            Value::Boolean(value) => Some(if *value { "TRUE" } else { "FALSE" }.to_owned()),
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        if let Value::Text(text) = self { Some(text) } else { None }
    }
}

/// A date that every engine can read: four digits of a year, without a sign.
fn common_era(date: String) -> Option<String> {
    let year = date.split('-').next()?;
    (year.len() == 4 && year != "0000").then_some(date)
}

/// A column that can be filtered.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// All rows, in the type that belongs to the kind of [`Value`].
    values: ArrayRef,
    /// The values of the sample other than NULL, ascending.
    pub(crate) ordered: Vec<Value>,
    /// Where in `ordered` each distinct value begins.
    distinct: Vec<usize>,
    /// Share of NULLs in the sample.
    pub(crate) nulls: f64,
    /// Part of a primary or foreign key.
    pub(crate) key: bool,
    /// The bin of each sampled row, see [`super::correlation`].
    pub(crate) bins: Vec<u8>,
}

impl Column {
    /// The value of a row, `None` for NULL and NaN.
    pub(crate) fn value(&self, row: usize) -> Option<Value> {
        if self.values.is_null(row) {
            return None;
        }
        Some(match self.values.data_type() {
            DataType::Int64 => Value::Integer(self.values.as_primitive::<Int64Type>().value(row)),
            DataType::Float64 => {
                let value = self.values.as_primitive::<Float64Type>().value(row);
                Value::Float((!value.is_nan()).then_some(value)?)
            }
            DataType::Utf8 => Value::Text(self.values.as_string::<i32>().value(row).to_owned()),
            DataType::Date32 => Value::Date(self.values.as_primitive::<Date32Type>().value(row)),
            DataType::Boolean => Value::Boolean(self.values.as_boolean().value(row)),
            _ => Value::Timestamp(self.values.as_primitive::<TimestampMicrosecondType>().value(row)),
        })
    }

    pub(crate) fn is_text(&self) -> bool {
        self.values.data_type() == &DataType::Utf8
    }

    pub(crate) fn is_boolean(&self) -> bool {
        self.values.data_type() == &DataType::Boolean
    }

    pub(crate) fn is_temporal(&self) -> bool {
        self.values.data_type().is_temporal()
    }

    pub(crate) fn is_float(&self) -> bool {
        self.values.data_type().is_floating()
    }

    pub(crate) fn is_number(&self) -> bool {
        self.values.data_type().is_numeric()
    }

    /// Distinct values per value of the sample.
    pub(crate) fn distinct_share(&self) -> f64 {
        self.distinct.len() as f64 / self.ordered.len().max(1) as f64
    }

    /// Number of distinct values of the sample.
    pub(crate) fn distinct_count(&self) -> usize {
        self.distinct.len()
    }

    /// The value of a random row, frequent values more often; `None` if there is none.
    pub(crate) fn frequent(&self, random: &mut StdRng) -> Option<Value> {
        let row = random.random_range(0..self.values.len().max(1));
        let value = if row < self.values.len() { self.value(row) } else { None };
        value.or_else(|| self.ordered.get(random.random_range(0..self.ordered.len().max(1))).cloned())
    }

    /// A random one of the distinct values, rare as often as frequent.
    pub(crate) fn any(&self, random: &mut StdRng) -> Option<Value> {
        let place = *self.distinct.get(random.random_range(0..self.distinct.len().max(1)))?;
        self.ordered.get(place).cloned()
    }
}

/// A table as the generator sees it.
#[derive(Debug)]
pub(crate) struct TableColumns {
    /// The columns that can be filtered.
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: usize,
    /// Pairs of `columns` that tell much about one another.
    pub(crate) correlated: Vec<(usize, usize)>,
}

impl TableColumns {
    /// Looks at a table; `keys` are columns of foreign keys.
    pub(crate) fn new(table: &Table, keys: &[usize], random: &mut StdRng) -> Self {
        let rows = table.batch.num_rows();
        let sample: Vec<usize> = if rows <= SAMPLE_ROWS {
            (0..rows).collect()
        } else {
            (0..SAMPLE_ROWS).map(|_| random.random_range(0..rows)).collect()
        };
        let mut columns = vec![];
        for (index, field) in table.batch.schema().fields().iter().enumerate() {
            let Some(target) = value_type(field.data_type()) else { continue };
            let Ok(values) = cast(table.batch.column(index), &target) else { continue };
            let key = keys.contains(&index) || table.primary_key.contains(&index);
            let name = field.name().clone();
            let mut column = Column { name, values, ordered: vec![], distinct: vec![], nulls: 0.0, key, bins: vec![] };
            let sampled: Vec<Option<Value>> = sample.iter().map(|&row| column.value(row)).collect();
            column.ordered = sampled.iter().flatten().cloned().collect();
            column.ordered.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
            column.distinct =
                (0..column.ordered.len()).filter(|&i| i == 0 || column.ordered[i] != column.ordered[i - 1]).collect();
            column.nulls = 1.0 - column.ordered.len() as f64 / sampled.len().max(1) as f64;
            column.bins = super::correlation::bins(&sampled, &column.ordered);
            columns.push(column);
        }
        let correlated = super::correlation::correlated_pairs(&columns);
        Self { columns, rows, correlated }
    }
}

/// The type that values of a column are read in, `None` if it makes no literals.
fn value_type(data_type: &DataType) -> Option<DataType> {
    match data_type {
        DataType::Dictionary(_, values) => value_type(values),
        DataType::UInt64 => None,
        integer if integer.is_integer() => Some(DataType::Int64),
        float if float.is_floating() => Some(DataType::Float64),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(DataType::Utf8),
        DataType::Date32 | DataType::Boolean => Some(data_type.clone()),
        DataType::Timestamp(_, None) => Some(DataType::Timestamp(TimeUnit::Microsecond, None)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_read_alike_everywhere() {
        let literal = |value: Value| value.literal().unwrap();
        assert_eq!(literal(Value::Text("Aunt 'Liza".to_owned())), "'Aunt ''Liza'");
        assert_eq!(literal(Value::Date(16726)), "DATE '2015-10-18'");
        assert_eq!(literal(Value::Timestamp(1_505_059_200_000_000)), "TIMESTAMP '2017-09-10 16:00:00'");
        assert_eq!(literal(Value::Float(3.0)), "3.0");
        assert_eq!(literal(Value::Boolean(true)), "TRUE");
        assert!(Value::Date(i32::MAX).literal().is_none());
        assert!(Value::Float(f64::INFINITY).literal().is_none());
        assert!(Value::Text("a\nb".to_owned()).literal().is_none());
    }
}
