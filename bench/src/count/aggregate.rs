//! Exact aggregates over a join without enumerating it.

use anyhow::{Context, Result};
use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type};
use relata_featurize::answer::AggregateFunction;

use super::Counter;
use crate::planned::Aggregation;

/// The aggregate of a column of numbers over the join of `subset`, a connected set, and how many values it is of. `None`
/// where no value is there or the join cannot be counted.
///
/// # Errors
/// When the column has no numbers.
pub fn aggregate(counter: &mut Counter<'_>, subset: u128, aggregation: &Aggregation) -> Result<Option<(f64, f64)>> {
    let column = aggregation.column;
    let Some((rows, weights)) = counter.occurrences(subset, column.relation) else { return Ok(None) };
    let values = cast(counter.relations[column.relation].batch.column(column.column), &DataType::Float64)?;
    let values = values.as_primitive_opt::<Float64Type>().context("no numbers")?;
    let (mut count, mut sum, mut least, mut most) = (0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY);
    for (&row, &weight) in rows.iter().zip(weights.iter()) {
        let row = row as usize;
        if weight > 0.0 && values.is_valid(row) {
            let value = values.value(row);
            count += weight;
            sum += weight * value;
            least = value.min(least);
            most = value.max(most);
        }
    }
    let answer = match aggregation.function {
        AggregateFunction::Avg => sum / count,
        AggregateFunction::Sum => sum,
        AggregateFunction::Min => least,
        AggregateFunction::Max => most,
    };
    Ok((count > 0.0).then_some((answer, count)))
}
