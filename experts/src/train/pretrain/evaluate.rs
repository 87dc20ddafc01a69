//! How well a data expert restores held-out tables, through the inference path.

use relata_featurize::relative::RowSample;

use crate::Result;
use crate::data::DataExpert;
use crate::data::cells::{TARGET_BINS, TOLERANCE};
use crate::data::context::RowContext;
use crate::train::pretrain::tasks::PreparedTable;
use crate::weights::RestorationErrors;

/// Histograms of a table that are restored.
const HISTOGRAMS: usize = 12;

/// Rows of a table whose cells are masked.
const MASKED: usize = 40;

/// A column of which another tells at least this share is to be restored.
const PREDICTABLE: f32 = 0.75;

/// Restores histograms and cells of `tables`.
///
/// # Errors
///
/// Whatever the data expert reports.
pub fn evaluate(expert: &DataExpert, tables: &[PreparedTable]) -> Result<RestorationErrors> {
    let untrained = DataExpert::from_parameters(expert.config(), &vec![0.0; expert.config().parameter_count()])?;
    let (mut buckets, mut buckets_untrained, mut cells) = (Mean::default(), Mean::default(), Mean::default());
    for table in tables {
        bucket_errors(expert, table, &mut buckets)?;
        bucket_errors(&untrained, table, &mut buckets_untrained)?;
        restored_cells(expert, table, &mut cells)?;
    }
    Ok(RestorationErrors {
        buckets: buckets.value(),
        buckets_untrained: buckets_untrained.value(),
        cells: cells.value(),
    })
}

/// What a run minimises: the error of buckets and the share of cells that are not restored.
pub fn score(errors: &RestorationErrors) -> f32 {
    (errors.buckets + 1.0 - errors.cells) as f32
}

#[derive(Default)]
struct Mean {
    sum: f64,
    count: usize,
}

impl Mean {
    fn push(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    fn value(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }
}

/// `|ln(1 + restored) - ln(1 + rows)|` of buckets that have rows or are restored as having some.
fn bucket_errors(expert: &DataExpert, table: &PreparedTable, mean: &mut Mean) -> Result<()> {
    let embedding = expert.embed(&table.task.input)?;
    let factors = expert.factors(&embedding);
    for histogram in table.task.histograms.iter().filter(|histogram| histogram.columns.len() > 1).take(HISTOGRAMS) {
        let restored = expert.restore(&embedding, &factors, &histogram.columns)?;
        let mut counted = histogram.counts.iter().peekable();
        for (code, restored) in restored.iter().enumerate() {
            let rows = counted.next_if(|count| count.0 as usize == code).map_or(0, |count| count.1);
            if rows > 0 || *restored >= 0.5 {
                mean.push(f64::from((restored.ln_1p() - (rows as f32).ln_1p()).abs()));
            }
        }
    }
    Ok(())
}

/// Masks the cells of the first rows of predictable columns, among the other rows.
fn restored_cells(expert: &DataExpert, table: &PreparedTable, mean: &mut Mean) -> Result<()> {
    let sample = &table.task.sample;
    let masked = MASKED.min(sample.rows / 5);
    let take = |from: usize, to: usize| RowSample {
        rows: to - from,
        columns: sample.columns,
        values: (0..sample.columns).flat_map(|column| sample.column(column)[from..to].to_vec()).collect(),
    };
    if masked == 0 || sample.columns < 2 {
        return Ok(());
    }
    let context = RowContext::new(take(masked, sample.rows));
    for column in (0..sample.columns).filter(|&column| table.predictable[column] > PREDICTABLE).take(4) {
        let relevance = expert.relevance(&context, column);
        for query in 0..masked {
            let row: Vec<f32> = (0..sample.columns).map(|column| sample.column(column)[query]).collect();
            let restored = expert.restore_cell(&expert.embed_row(&context, &relevance, &row)?);
            mean.push(f64::from(u8::from(is_right(restored.value, row[column]))));
        }
    }
    Ok(())
}

/// Whether a restored cell is within [`TOLERANCE`] of the actual one, or is NULL as it is.
pub fn is_right(restored: Option<f32>, actual: f32) -> bool {
    // Half an interval more would be generous; rounding is all that is forgiven.
    restored.map_or(actual.is_nan(), |value| (value - actual).abs() <= TOLERANCE + 1e-3 / TARGET_BINS as f32)
}
