//! The exact number of groups of a join.

use anyhow::{Result, bail};
use datafusion::arrow::array::{Array, UInt32Array};
use datafusion::arrow::compute::take;
use datafusion::arrow::row::{RowConverter, SortField};
use hashbrown::HashSet;

use super::Counter;

/// The number of distinct values of `columns` (pairs of relation and column) in the join of `subset`, a connected set;
/// NULLs form a group of their own. `None` if the columns belong to several relations or the join cannot be counted:
/// then the query has to be run.
///
/// # Errors
/// When Arrow cannot compare the columns.
pub fn count_groups(counter: &mut Counter<'_>, subset: u128, columns: &[(usize, usize)]) -> Result<Option<f64>> {
    let Some(&(relation, _)) = columns.first() else { bail!("no group columns") };
    if columns.iter().any(|&(other, _)| other != relation) {
        return Ok(None);
    }
    let Some((rows, weights)) = counter.occurrences(subset, relation) else { return Ok(None) };
    let present: UInt32Array =
        rows.iter().zip(weights.iter()).filter(|(_, weight)| **weight > 0.0).map(|(row, _)| Some(*row)).collect();
    let batch = &counter.relations[relation].batch;
    let arrays =
        columns.iter().map(|&(_, column)| take(batch.column(column), &present, None)).collect::<Result<Vec<_>, _>>()?;
    let fields = arrays.iter().map(|array| SortField::new(array.data_type().clone())).collect();
    let rows = RowConverter::new(fields)?.convert_columns(&arrays)?;
    let distinct: HashSet<&[u8]> = rows.iter().map(|row| row.data()).collect();
    Ok(Some(distinct.len() as f64))
}
