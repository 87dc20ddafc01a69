//! The examples that are learned from: which ones, and what their labels are.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{cast, take};
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::error::DataFusionError;
use relata_experts::in_context::{Labels, MOST_CLASSES};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::no_prediction;
use super::shape::{Kind, Shape};
use crate::Result;

/// What the rarer ones of more than [`MOST_CLASSES`] classes are called together.
const OTHER: &str = "other";

/// Chosen examples.
#[derive(Debug, Clone)]
pub(super) struct Examples {
    /// One array for each key column. `[R]`
    pub(super) keys: Vec<ArrayRef>,
    /// Their own times. `[R]`
    pub(super) time: Option<ArrayRef>,
    /// `[R]`
    pub(super) labels: Labels,
    /// The names of the classes, the most frequent first; none for numbers.
    pub(super) classes: Vec<String>,
}

impl Examples {
    /// Chooses at most `most` of the rows of the target query: those with the least hashes, so that neither the order of the
    /// rows nor their number of partitions matters. Each class has about its share of them, and one at least.
    pub(super) fn choose(rows: &RecordBatch, shape: &Shape, most: usize, seed: u64) -> Result<Self> {
        let label = rows.column(shape.label);
        let (labels, names) = match kind_of(label, shape)? {
            Kind::Classes => classes(label)?,
            Kind::Numbers => (numbers(label)?, vec![]),
        };
        let mut labelled = by_hash(rows, seed)?;
        labelled.retain(|&row| labels.is_labelled(row));
        if labelled.is_empty() {
            return Err(no_prediction("there are no examples: no row of the target query has a label"));
        }
        let chosen = match &labels {
            RowLabels::Classes(codes) => {
                if names.len() < 2 {
                    let name = names.first().map_or("", String::as_str);
                    return Err(no_prediction(format!("all examples are of one class, {name:?}")));
                }
                stratified(&labelled, codes, names.len(), most)
            }
            RowLabels::Numbers(_) => labelled.into_iter().take(most).collect(),
        };
        let indices = UInt32Array::from_iter_values(chosen.iter().map(|row| *row as u32));
        let pick = |place: &usize| take(rows.column(*place), &indices, None).map_err(DataFusionError::from);
        let keys = shape.target_keys.iter().map(pick).collect::<Result<_, _>>()?;
        let time = shape.target_time.as_ref().map(pick).transpose()?;
        let labels = match labels {
            RowLabels::Classes(codes) => {
                let labels = chosen.iter().filter_map(|&row| codes[row]).collect();
                Labels::Classes { labels, count: names.len() }
            }
            RowLabels::Numbers(values) => Labels::Numbers(chosen.iter().filter_map(|&row| values[row]).collect()),
        };
        Ok(Self { keys, time, labels, classes: names })
    }
}

/// Labels of all rows; `None` where there is none.
enum RowLabels {
    Classes(Vec<Option<u32>>),
    Numbers(Vec<Option<f32>>),
}

impl RowLabels {
    fn is_labelled(&self, row: usize) -> bool {
        match self {
            Self::Classes(codes) => codes[row].is_some(),
            Self::Numbers(values) => values[row].is_some(),
        }
    }
}

/// Integers with few values are classes.
fn kind_of(label: &ArrayRef, shape: &Shape) -> Result<Kind> {
    if let Some(kind) = shape.kind {
        return Ok(kind);
    }
    let names = texts(label)?;
    let names = names.as_string::<i32>();
    let mut different: Vec<&str> = vec![];
    for name in names.iter().flatten() {
        if !different.contains(&name) {
            different.push(name);
        }
        if different.len() > MOST_CLASSES {
            return Ok(Kind::Numbers);
        }
    }
    Ok(Kind::Classes)
}

fn texts(label: &ArrayRef) -> Result<ArrayRef> {
    Ok(cast(label, &DataType::Utf8).map_err(DataFusionError::from)?)
}

/// The class of each row and the classes' names, the most frequent first; beyond [`MOST_CLASSES`] the rest is one class.
fn classes(label: &ArrayRef) -> Result<(RowLabels, Vec<String>)> {
    let texts = texts(label)?;
    let texts = texts.as_string::<i32>();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in texts.iter().flatten() {
        *counts.entry(name).or_default() += 1;
    }
    let mut names: Vec<&str> = counts.keys().copied().collect();
    names.sort_by_key(|name| (Reverse(counts[name]), *name));
    if names.len() > MOST_CLASSES {
        names.retain(|name| *name != OTHER);
        names.truncate(MOST_CLASSES - 1);
        names.push(OTHER);
    }
    let places: BTreeMap<&str, u32> = names.iter().copied().zip(0..).collect();
    let rest = places.get(OTHER).copied();
    let code = |name: Option<&str>| places.get(name?).copied().or(rest);
    let codes = texts.iter().map(code).collect();
    Ok((RowLabels::Classes(codes), names.into_iter().map(str::to_owned).collect()))
}

/// The number of each row; what is not finite is no label.
fn numbers(label: &ArrayRef) -> Result<RowLabels> {
    let values = cast(label, &DataType::Float64).map_err(DataFusionError::from)?;
    let values = values.as_primitive::<Float64Type>();
    let finite = |value: Option<f64>| value.map(|value| value as f32).filter(|value| value.is_finite());
    Ok(RowLabels::Numbers(values.iter().map(finite).collect()))
}

/// Rows in the order of the hashes of what they hold.
fn by_hash(rows: &RecordBatch, seed: u64) -> Result<Vec<usize>> {
    let fields = rows.columns().iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let converter = RowConverter::new(fields).map_err(DataFusionError::from)?;
    let encoded = converter.convert_columns(rows.columns()).map_err(DataFusionError::from)?;
    let hash = |row: usize| xxh3_64_with_seed(encoded.row(row).as_ref(), seed);
    let hashes: Vec<u64> = (0..rows.num_rows()).map(hash).collect();
    let mut order: Vec<usize> = (0..rows.num_rows()).collect();
    order.sort_by(|&a, &b| hashes[a].cmp(&hashes[b]).then_with(|| encoded.row(a).cmp(&encoded.row(b))));
    Ok(order)
}

/// The first rows of each class, so many that the classes keep their shares and each has one at least.
fn stratified(rows: &[usize], codes: &[Option<u32>], classes: usize, most: usize) -> Vec<usize> {
    let mut counts = vec![0usize; classes];
    let class = |row: usize| codes[row].map_or(0, |code| code as usize);
    rows.iter().for_each(|&row| counts[class(row)] += 1);
    let mut seen = vec![0usize; classes];
    let mut ranked: Vec<(f64, usize)> = vec![];
    for &row in rows {
        let class = class(row);
        // The first of every class comes before the second of any.
        ranked.push((seen[class] as f64 / counts[class] as f64, row));
        seen[class] += 1;
    }
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
    ranked.into_iter().take(most).map(|(_, row)| row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_keeps_its_share_and_one_row_at_least() {
        let codes: Vec<Option<u32>> =
            (0..1000).map(|row| Some(u32::from(row % 4 == 0) + u32::from(row == 999))).collect();
        let codes: Vec<Option<u32>> =
            codes.into_iter().enumerate().map(|(row, c)| if row == 998 { Some(2) } else { c }).collect();
        let rows: Vec<usize> = (0..1000).collect();
        let chosen = stratified(&rows, &codes, 3, 100);
        let count = |class| chosen.iter().filter(|row| codes[**row] == Some(class)).count();
        assert_eq!(chosen.len(), 100);
        assert_eq!(count(2), 1);
        assert!((24..=26).contains(&count(1)), "{}", count(1));
        assert_eq!(stratified(&rows, &codes, 3, 3).len(), 3);
    }
}
