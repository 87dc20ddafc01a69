//! The marginal statistics of one database.

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type};

use super::statistic::{Measured, Share, Statistic};
use crate::count::{KeyCodes, NULL_CODE as NULL};
use crate::database::{Database, ForeignKey, Table};

/// Columns of smaller tables are left out: shares of a handful of rows say little.
const LEAST_ROWS: usize = 50;

/// References of smaller tables are left out.
const LEAST_CHILDREN: usize = 200;

/// Fanouts and columns of fewer parents are not compared.
const LEAST_PARENTS: usize = 20;

/// Correlations look at so many rows, evenly spread over the table.
const SAMPLE: usize = 4_000;

/// Measures everything in `database`.
pub fn measure(database: &Database) -> Measured {
    let mut measured = Measured::default();
    measured.add(Statistic::Tables, database.tables.len() as f64);
    let numbers: Vec<Vec<Vec<f64>>> =
        (0..database.tables.len()).map(|index| numeric_columns(database, index)).collect();
    for (index, table) in database.tables.iter().enumerate() {
        measure_table(database, index, &mut measured);
        if table.batch.num_rows() >= LEAST_ROWS {
            for (column, array) in table.batch.columns().iter().enumerate() {
                if !is_key(database, index, column) {
                    measure_column(array, &mut measured);
                }
            }
            for (second, first) in
                (1..numbers[index].len()).flat_map(|second| (0..second).map(move |first| (second, first)))
            {
                let pairs = numbers[index][first].iter().copied().zip(numbers[index][second].iter().copied());
                correlate(pairs, Statistic::Correlation, &mut measured);
            }
        }
    }
    let mut fanouts: Vec<(usize, Vec<f64>)> = vec![];
    for key in &database.foreign_keys {
        if let Some(children) = measure_reference(database, key, &numbers, &mut measured) {
            for (_, other) in fanouts.iter().filter(|(parent, _)| *parent == key.references) {
                if let Some(correlation) = rank_correlation(children.iter().copied().zip(other.iter().copied())) {
                    measured.add(Statistic::FanoutCorrelation, correlation);
                }
            }
            fanouts.push((key.references, children));
        }
    }
    measured
}

fn is_key(database: &Database, table: usize, column: usize) -> bool {
    let refers = |key: &ForeignKey| key.table == table && key.columns.contains(&column);
    database.tables[table].primary_key.contains(&column) || database.foreign_keys.iter().any(refers)
}

fn measure_table(database: &Database, index: usize, measured: &mut Measured) {
    let table = &database.tables[index];
    let keys: Vec<&ForeignKey> = database.foreign_keys.iter().filter(|key| key.table == index).collect();
    measured.add(Statistic::Rows, table.batch.num_rows() as f64);
    measured.add(Statistic::Columns, table.batch.num_columns() as f64);
    measured.add(Statistic::References, keys.len() as f64);
    measured.count(Share::CompositeKey, table.primary_key.len() > 1);
    measured.count(Share::NoKey, table.primary_key.is_empty());
    let inside = keys.iter().filter(|key| key.columns.iter().all(|column| table.primary_key.contains(column)));
    measured.count(Share::Link, inside.count() > 1);
    measured.count(Share::Root, keys.iter().all(|key| key.references == index));
}

fn measure_column(array: &ArrayRef, measured: &mut Measured) {
    let data_type = array.data_type();
    let text = matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    measured.count(Share::Text, text);
    measured.count(Share::Integer, data_type.is_integer());
    measured.count(Share::Real, data_type.is_floating() || matches!(data_type, DataType::Decimal128(..)));
    measured.count(Share::Date, data_type.is_temporal());
    measured.count(Share::Boolean, *data_type == DataType::Boolean);
    let nulls = array.null_count();
    measured.count(Share::Nullable, nulls > 0);
    if nulls > 0 {
        measured.add(Statistic::NullShare, nulls as f64 / array.len() as f64);
    }
    let values = array.len() - nulls;
    if values == 0 {
        return;
    }
    if text && let Ok(texts) = cast(array, &DataType::Utf8) {
        let length: usize = texts.as_string::<i32>().iter().flatten().map(str::len).sum();
        measured.add(Statistic::TextLength, length as f64 / values as f64);
    }
    if let Some(counts) = value_counts(array) {
        let top = counts.iter().copied().max().unwrap_or(0);
        measured.add(Statistic::DistinctRatio, counts.len() as f64 / values as f64);
        measured.add(Statistic::TopShare, f64::from(top) / values as f64);
    }
}

/// How often each value occurs; None for types without keys.
fn value_counts(array: &ArrayRef) -> Option<Vec<u32>> {
    let mut codes = KeyCodes::default();
    let values = codes.codes(std::slice::from_ref(array))?;
    let mut counts = vec![0; codes.limit()];
    values.iter().filter(|&&code| code != NULL).for_each(|&code| counts[code as usize] += 1);
    Some(counts)
}

/// The numeric columns of a table that are no keys; NaN in place of NULL.
fn numeric_columns(database: &Database, table: usize) -> Vec<Vec<f64>> {
    let columns = database.tables[table].batch.columns().iter().enumerate();
    columns
        .filter(|(index, array)| array.data_type().is_numeric() && !is_key(database, table, *index))
        .filter_map(|(_, array)| cast(array, &DataType::Float64).ok())
        .map(|array| array.as_primitive::<Float64Type>().iter().map(|value| value.unwrap_or(f64::NAN)).collect())
        .collect()
}

/// The children of each parent row where both tables are large enough to say something.
fn measure_reference(
    database: &Database,
    key: &ForeignKey,
    numbers: &[Vec<Vec<f64>>],
    measured: &mut Measured,
) -> Option<Vec<f64>> {
    let (child, parent) = (&database.tables[key.table], &database.tables[key.references]);
    let itself = key.table == key.references;
    measured.count(Share::CompositeReference, key.columns.len() > 1);
    measured.count(Share::SelfReference, itself);
    let rows = parent_rows(child, parent, key)?;
    let missing = rows.iter().filter(|row| **row == Row::Null).count();
    measured.count(Share::OptionalReference, missing > 0);
    measured.count(Share::DanglingReference, rows.contains(&Row::Unknown));
    let mut children = vec![0.0; parent.batch.num_rows()];
    rows.iter().filter_map(Row::known).for_each(|row| children[row] += 1.0);
    let used: Vec<f64> = children.iter().copied().filter(|&count| count > 0.0).collect();
    if rows.len() < LEAST_CHILDREN || used.is_empty() {
        return None;
    }
    let total: f64 = used.iter().sum();
    let mean = total / used.len() as f64;
    measured.add(Statistic::FanoutMean, mean);
    measured.add(Statistic::Childless, 1.0 - used.len() as f64 / children.len() as f64);
    if used.len() < LEAST_PARENTS {
        return None;
    }
    let variance = used.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / used.len() as f64;
    measured.add(Statistic::FanoutVariation, variance.sqrt() / mean);
    let mut sorted = used;
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    let top = sorted.len().div_ceil(100);
    measured.add(Statistic::FanoutTop, sorted.iter().take(top).sum::<f64>() / total);
    if !itself {
        for theirs in &numbers[key.references] {
            for ours in &numbers[key.table] {
                let of_parent = |row: &Row| row.known().map_or(f64::NAN, |row| theirs[row]);
                let pairs = ours.iter().copied().zip(rows.iter().map(of_parent));
                correlate(pairs, Statistic::AcrossCorrelation, measured);
            }
        }
    }
    Some(children)
}

/// What a row refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    Known(u32),
    Unknown,
    Null,
}

impl Row {
    fn known(&self) -> Option<usize> {
        if let Self::Known(row) = self { Some(*row as usize) } else { None }
    }
}

/// The row of the parent that each row of the child refers to; None for types without keys.
fn parent_rows(child: &Table, parent: &Table, key: &ForeignKey) -> Option<Vec<Row>> {
    let arrays = |table: &Table, columns: &[usize]| -> Vec<ArrayRef> {
        columns.iter().map(|&column| ArrayRef::clone(table.batch.column(column))).collect()
    };
    let mut codes = KeyCodes::default();
    let theirs = codes.encode(&arrays(parent, &key.references_columns))?;
    let ours = codes.encode(&arrays(child, &key.columns))?;
    let mut row_of = vec![Row::Unknown; codes.limit()];
    for (row, &code) in theirs.values.iter().enumerate().filter(|(_, code)| **code != NULL) {
        row_of[code as usize] = Row::Known(row as u32);
    }
    Some(ours.values.iter().map(|&code| if code == NULL { Row::Null } else { row_of[code as usize] }).collect())
}

fn correlate(pairs: impl ExactSizeIterator<Item = (f64, f64)>, statistic: Statistic, measured: &mut Measured) {
    let every = pairs.len().div_ceil(SAMPLE).max(1);
    if let Some(correlation) = rank_correlation(pairs.step_by(every)) {
        measured.add(statistic, correlation.abs());
    }
}

/// Correlation of the ranks (Spearman) over the pairs without NaN; None for too few pairs or a constant.
fn rank_correlation(pairs: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
    let (x, y): (Vec<f64>, Vec<f64>) = pairs.filter(|(x, y)| !x.is_nan() && !y.is_nan()).unzip();
    if x.len() < LEAST_PARENTS {
        return None;
    }
    let (x, y) = (ranks(&x), ranks(&y));
    let middle = (x.len() as f64 - 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - middle) * (b - middle)).sum::<f64>();
    let deviations = (product(&x, &x) * product(&y, &y)).sqrt();
    (deviations > 0.0).then(|| product(&x, &y) / deviations)
}

/// The rank of each value; equal values share the middle of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for equal in order.chunk_by(|&a, &b| values[a].total_cmp(&values[b]).is_eq()) {
        equal.iter().for_each(|&index| ranks[index] = start as f64 + (equal.len() - 1) as f64 / 2.0);
        start += equal.len();
    }
    ranks
}
