//! Filters on batches in memory.

use anyhow::{Context, Result};
use datafusion::arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::compute::{and, prep_null_mask_filter};
use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use datafusion::prelude::SessionContext;

/// The rows of `batch` that pass all of `filters`, whose columns `schema` resolves; `None` without filters.
///
/// # Errors
/// When DataFusion cannot plan or evaluate a filter.
pub fn filter_mask(
    context: &SessionContext,
    batch: &RecordBatch,
    schema: &DFSchema,
    filters: &[Expr],
) -> Result<Option<BooleanArray>> {
    let mut mask: Option<BooleanArray> = None;
    for filter in filters {
        let physical = context.create_physical_expr(filter.clone(), schema)?;
        let value = physical.evaluate(batch)?.into_array(batch.num_rows())?;
        let passing = value.as_boolean_opt().with_context(|| format!("{filter} is not a predicate"))?;
        let passing = if passing.null_count() > 0 { prep_null_mask_filter(passing) } else { passing.clone() };
        mask = Some(match mask {
            Some(mask) => and(&mask, &passing)?,
            None => passing,
        });
    }
    Ok(mask)
}
