//! The tasks that the data expert is pre-trained on, on disk: what a table's profile looks like, and what it was made of.
//!
//! After the seed paper (section 3.2): bucket counts of histograms over one to five columns, and masked cells of rows. A
//! bucket is an interval of the relative encoding per column; truth is counted on all rows of the table, while the input
//! knows the profile only. One folder per database, one file in it, with a layout version like a trace.

use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Float64Array};
use datafusion::arrow::datatypes::{Float32Type, Float64Type, UInt32Type};

use crate::Result;
use crate::relative::{BINS, RowSample, TableInput, VALUE_BINS};
use crate::trace::columns::{Lists, batch, lists, numbers, read_tables, tables};
use crate::trace::{damaged, read_batch, write_batch};

/// Buckets per column of a histogram over one, two, ... columns; each has one more for rows without a value.
pub const BUCKETS: [usize; 5] = [10, 5, 4, 4, 4];

/// Name of the file in a database's folder.
pub const FILE: &str = "restoration.arrow";

/// The bucket, of `buckets` and one for no value, that a bin of the relative encoding lies in.
pub const fn bucket_of(bin: usize, buckets: usize) -> usize {
    if bin >= VALUE_BINS { buckets } else { bin * buckets / VALUE_BINS }
}

/// The rows of a table by buckets of some of its columns.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CountedHistogram {
    /// Its columns, one to five.
    pub columns: Vec<u32>,
    /// Codes of the buckets that have rows, ascending, and their rows.
    pub counts: Vec<(u32, u32)>,
}

impl CountedHistogram {
    /// Buckets per column besides the one for no value.
    pub fn buckets(&self) -> usize {
        BUCKETS[self.columns.len().clamp(1, BUCKETS.len()) - 1]
    }

    /// Number of codes: one bucket per column each.
    pub fn codes(&self) -> u32 {
        (self.buckets() as u32 + 1).pow(self.columns.len() as u32)
    }

    /// The bucket of each column that `code` stands for.
    pub fn split(&self, code: u32) -> impl Iterator<Item = usize> {
        let base = self.buckets() as u32 + 1;
        (0..self.columns.len() as u32).map(move |position| (code / base.pow(position) % base) as usize)
    }

    /// Counts the rows of a table: `bins[c]` are the bins of column `c`.
    pub fn count(columns: Vec<u32>, bins: &[Vec<u8>]) -> Self {
        let mut histogram = Self { columns, counts: vec![] };
        let buckets = histogram.buckets();
        let place: [u32; BINS] = std::array::from_fn(|bin| bucket_of(bin, buckets) as u32);
        let rows = histogram.columns.first().map_or(0, |&column| bins[column as usize].len());
        let mut codes = vec![0u32; rows];
        let mut weight = 1;
        for &column in &histogram.columns {
            for (code, &bin) in codes.iter_mut().zip(&bins[column as usize]) {
                *code += weight * place[usize::from(bin)];
            }
            weight *= buckets as u32 + 1;
        }
        let mut dense = vec![0u32; histogram.codes() as usize];
        codes.iter().for_each(|&code| dense[code as usize] += 1);
        let counted = dense.into_iter().enumerate().filter(|(_, rows)| *rows > 0);
        histogram.counts = counted.map(|(code, rows)| (code as u32, rows)).collect();
        histogram
    }
}

/// One table with what is to be restored of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TableTask {
    /// What the data expert reads.
    pub input: TableInput,
    /// Rows of the table.
    pub rows: f64,
    /// Some of them.
    pub sample: RowSample,
    /// Histograms counted on all of them.
    pub histograms: Vec<CountedHistogram>,
}

/// Writes the tasks of one database into its folder.
///
/// # Errors
/// When the file cannot be written.
pub fn write(folder: &Path, tasks: &[TableTask]) -> Result<()> {
    let io = |source| crate::FeaturizeError::Io { path: folder.display().to_string(), source };
    std::fs::create_dir_all(folder).map_err(io)?;
    let (mut samples, mut histograms) = (Lists::<Float32Type>::new(), Lists::<UInt32Type>::new());
    for task in tasks {
        samples.push(task.sample.values.iter().copied());
        let flat = task.histograms.iter().flat_map(|histogram| {
            let columns = [histogram.columns.len() as u32].into_iter().chain(histogram.columns.iter().copied());
            let counts = histogram.counts.iter().flat_map(|&(code, rows)| [code, rows]);
            columns.chain([histogram.counts.len() as u32]).chain(counts).collect::<Vec<u32>>()
        });
        histograms.push(flat);
    }
    let inputs: Vec<TableInput> = tasks.iter().map(|task| task.input.clone()).collect();
    let inputs = tables(&inputs)?;
    let schema = inputs.schema();
    let mut columns: Vec<(&str, ArrayRef)> =
        schema.fields().iter().map(|field| field.name().as_str()).zip(inputs.columns().iter().cloned()).collect();
    let sizes = tasks.iter().map(|task| task.sample.rows as u32);
    columns.push(("table_rows", Arc::new(Float64Array::from_iter_values(tasks.iter().map(|task| task.rows)))));
    columns.push(("sample_rows", Arc::new(datafusion::arrow::array::UInt32Array::from_iter_values(sizes))));
    columns.push(("sample", samples.finish()));
    columns.push(("histograms", histograms.finish()));
    // The file appears only when it is complete.
    let partial = folder.join("restoration.partial");
    write_batch(&partial, batch(columns)?)?;
    std::fs::rename(&partial, folder.join(FILE)).map_err(io)
}

/// Reads what [`write()`] wrote.
///
/// # Errors
/// When the file is missing, damaged or of another layout.
pub fn read(folder: &Path) -> Result<Vec<TableTask>> {
    let path = folder.join(FILE);
    let batch = read_batch(&path)?;
    let read = || -> Option<Vec<TableTask>> {
        let inputs = read_tables(&batch)?;
        let rows = batch.column_by_name("table_rows")?.as_primitive_opt::<Float64Type>()?.values().to_vec();
        let sample_rows = numbers(&batch, "sample_rows")?;
        let mut samples = lists::<Float32Type>(&batch, "sample")?;
        let histograms = lists::<UInt32Type>(&batch, "histograms")?;
        let task = |(index, input): (usize, TableInput)| {
            let values = std::mem::take(&mut samples[index]);
            let sample = RowSample { rows: sample_rows[index] as usize, columns: input.columns, values };
            let histograms = read_histograms(&histograms[index], input.columns)?;
            let fits = sample.values.len() == sample.rows * sample.columns;
            fits.then_some(TableTask { input, rows: rows[index], sample, histograms })
        };
        inputs.into_iter().enumerate().map(task).collect()
    };
    read().ok_or_else(|| damaged(&path, "unexpected columns"))
}

/// The histograms of a flat list; `None` if it is not one of a table with `columns` columns.
fn read_histograms(flat: &[u32], columns: usize) -> Option<Vec<CountedHistogram>> {
    let mut rest = flat;
    let mut take = |count: usize| {
        let (head, tail) = rest.split_at_checked(count)?;
        rest = tail;
        Some(head)
    };
    let mut histograms = vec![];
    while let Some(&[dimensions]) = take(1) {
        let own = take(dimensions as usize)?.to_vec();
        let buckets = *take(1)?.first()? as usize;
        let counts = take(2 * buckets)?.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        let histogram = CountedHistogram { columns: own, counts };
        let fits = (1..=BUCKETS.len()).contains(&histogram.columns.len())
            && histogram.columns.iter().all(|&column| (column as usize) < columns)
            && histogram.counts.iter().all(|&(code, _)| code < histogram.codes());
        histograms.push(fits.then_some(histogram)?);
    }
    Some(histograms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_in_their_buckets() {
        let bins = [vec![0, 3, 19, 20], vec![5, 4, 4, 4]];
        let one = CountedHistogram::count(vec![0], &bins);
        assert_eq!(one.counts, [(0, 1), (1, 1), (9, 1), (10, 1)]);
        let two = CountedHistogram::count(vec![0, 1], &bins);
        let split: Vec<Vec<usize>> = two.counts.iter().map(|&(code, _)| two.split(code).collect()).collect();
        assert_eq!(split, [[0, 1], [4, 1], [5, 1]]);
        assert_eq!(two.counts.iter().map(|count| count.1).sum::<u32>(), 4);
    }

    #[test]
    fn tasks_survive_a_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let input = TableInput {
            rows: 1,
            columns: 2,
            cells: vec![0.5; 2 * crate::relative::CELL_FEATURES],
            shares: vec![0.0],
            column_statistics: vec![0.25; 2 * crate::relative::COLUMN_STATISTICS],
            table_statistics: vec![1.0; crate::relative::TABLE_STATISTICS],
        };
        let sample = RowSample { rows: 2, columns: 2, values: vec![0.0, 1.0, 0.5, 0.25] };
        let histograms = vec![CountedHistogram::count(vec![1], &[vec![], vec![7, 20]])];
        let task = TableTask { input, rows: 2.0, sample, histograms };
        write(folder.path(), std::slice::from_ref(&task)).unwrap();
        assert_eq!(read(folder.path()).unwrap(), [task]);
        assert!(read(&folder.path().join("none")).is_err());
    }
}
