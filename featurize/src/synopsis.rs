//! Join synopses: the uniform sample of a table with the matching rows of its parents, up the foreign keys.
//!
//! A row of a child table has at most one partner in each parent, so a uniform sample of the child joined with its parents
//! is a uniform sample of that join, and of the join with the parents' parents: one sample answers for every foreign-key
//! join above the child, with the filters of all its tables at once (Acharya, Gibbons, Poosala and Ramaswamy, "Join
//! synopses for approximate query answering", SIGMOD 1999). Theirs trusts the schema; here a partner is looked up in the
//! whole parent table and a parent whose keys turn out to repeat is left out, so that what a synopsis says holds whether or
//! not the declared keys do.
//!
//! `plan` decides what a synopsis of which table holds, `build` finds the partners in one scan per parent table, and
//! `stored` keeps the result on disk.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{prep_null_mask_filter, take_record_batch};
use datafusion::arrow::datatypes::{FieldRef, Schema};
use datafusion::arrow::record_batch::RecordBatchOptions;
use datafusion::common::{DFSchema, TableReference, internal_err};
use datafusion::error::DataFusionError;
use datafusion_expr::Expr;

use crate::profile::TableProfile;
use crate::selectivity::physical;
use crate::{FeaturizeError, Result};

pub mod build;
pub mod plan;
mod stored;
#[cfg(test)]
mod tests;

pub use build::{ParentScan, SynopsisBuilder};
pub use plan::{SynopsisConfig, SynopsisPlan};

/// The link of a sampled row without a partner.
pub const NO_PARTNER: u32 = u32::MAX;

/// Sampled rows of one table and their partners in the tables above it.
#[derive(Debug, Clone, PartialEq)]
pub struct JoinSynopsis {
    root: Arc<TableProfile>,
    rows: usize,
    parents: Vec<SynopsisParent>,
}

/// The partners of a synopsis' rows in one table.
#[derive(Debug, Clone, PartialEq)]
pub struct SynopsisParent {
    /// The table.
    pub table: Arc<TableProfile>,
    /// The parent of the synopsis whose rows refer to this table; `None` where the root's do.
    pub from: Option<usize>,
    /// The referring columns.
    pub columns: Vec<usize>,
    /// The columns they refer to, in the same order.
    pub referenced: Vec<usize>,
    /// Rows of the table; `None` where they are those of its sample, which is complete.
    own: Option<RecordBatch>,
    /// The place of each root row's partner among the rows, or [`NO_PARTNER`]. `[rows]`
    links: Vec<u32>,
}

impl SynopsisParent {
    /// The rows of the table that are somebody's partner, and perhaps others.
    pub fn rows(&self) -> &RecordBatch {
        self.own.as_ref().unwrap_or(&self.table.sample)
    }

    /// Whether the rows are the whole table, in the order of its sample.
    pub fn is_whole_table(&self) -> bool {
        self.own.is_none()
    }

    /// The place of each root row's partner among [`Self::rows`], or [`NO_PARTNER`]. `[rows]`
    pub fn links(&self) -> &[u32] {
        &self.links
    }

    /// Share of the root's sampled rows that have a partner; those with a NULL key have none.
    pub fn partner_share(&self) -> f64 {
        let found = self.links.iter().filter(|link| **link != NO_PARTNER).count();
        found as f64 / self.links.len().max(1) as f64
    }
}

impl JoinSynopsis {
    /// The profile of the table whose rows are sampled; they are the first of its sample.
    pub fn root(&self) -> &Arc<TableProfile> {
        &self.root
    }

    /// Number of sampled rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The tables above the root, each after the one that refers to it.
    pub fn parents(&self) -> &[SynopsisParent] {
        &self.parents
    }

    /// Rows of the root table for each sampled one: what counts and sums over the sampled rows are to be multiplied with.
    pub fn scale(&self) -> f64 {
        if self.rows == 0 { 0.0 } else { self.root.rows / self.rows as f64 }
    }

    /// Whether every row of the root table is there, so that counts are exact.
    pub fn is_complete(&self) -> bool {
        self.rows as f64 >= self.root.rows
    }

    /// Size in memory without the tables' samples, in bytes.
    pub fn bytes(&self) -> usize {
        let own = |parent: &SynopsisParent| parent.own.as_ref().map_or(0, RecordBatch::get_array_memory_size);
        self.parents.iter().map(|parent| own(parent) + 4 * parent.links.len()).sum()
    }

    /// The sampled rows that have a partner in each of `parents`, as rows of the inner join under the given names: first the
    /// columns of the root, then those of each parent.
    ///
    /// The result is a uniform sample of the join, of which one row stands for [`JoinedRows::scale`].
    ///
    /// # Errors
    /// When there is no such parent, or two columns have the same name.
    pub fn joined(&self, root: impl Into<TableReference>, parents: &[(usize, TableReference)]) -> Result<JoinedRows> {
        let chosen = parents.iter().map(|(place, _)| self.parents.get(*place)).collect::<Option<Vec<_>>>();
        let Some(chosen) = chosen else {
            return Err(FeaturizeError::Unsupported("a parent that the synopsis does not have".to_string()));
        };
        let complete = |row: &u32| chosen.iter().all(|parent| parent.links[*row as usize] != NO_PARTNER);
        let kept: Vec<u32> = (0..self.rows as u32).filter(complete).collect();
        let mut schema = DFSchema::try_from_qualified_schema(root, &self.root.schema())?;
        let mut columns: Vec<ArrayRef> = take(&self.root.sample, kept.clone())?.columns().to_vec();
        for (parent, (_, name)) in chosen.iter().zip(parents) {
            let places = kept.iter().map(|row| parent.links[*row as usize]).collect();
            columns.extend_from_slice(take(parent.rows(), places)?.columns());
            schema = schema.join(&DFSchema::try_from_qualified_schema(name.clone(), &parent.table.schema())?)?;
        }
        let fields: Vec<FieldRef> = schema.fields().iter().map(FieldRef::clone).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(kept.len()));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
            .map_err(DataFusionError::from)?;
        Ok(JoinedRows { schema, rows, scale: self.scale() })
    }
}

/// A uniform sample of a join of a table with tables that it refers to.
#[derive(Debug, Clone)]
pub struct JoinedRows {
    /// The columns, qualified by the names that were given.
    pub schema: DFSchema,
    /// The rows.
    pub rows: RecordBatch,
    /// Rows of the join for each sampled one.
    pub scale: f64,
}

impl JoinedRows {
    /// The values of an expression over the joined columns. `[rows]`
    ///
    /// # Errors
    /// When DataFusion cannot plan or evaluate it.
    pub fn evaluate(&self, expr: &Expr) -> Result<ArrayRef> {
        let Some(expr) = physical(expr, &self.schema) else {
            return Ok(internal_err!("{expr} cannot be planned over the joined columns")?);
        };
        Ok(expr.evaluate(&self.rows)?.into_array(self.rows.num_rows())?)
    }

    /// Which rows pass a filter over the joined columns; NULL does not pass. `[rows]`
    ///
    /// # Errors
    /// When DataFusion cannot plan or evaluate it, or it is no condition.
    pub fn passing(&self, filter: &Expr) -> Result<BooleanArray> {
        let array = self.evaluate(filter)?;
        let mask = datafusion::common::cast::as_boolean_array(&array)?;
        Ok(if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() })
    }
}

fn take(rows: &RecordBatch, places: Vec<u32>) -> Result<RecordBatch> {
    Ok(take_record_batch(rows, &UInt32Array::from(places)).map_err(DataFusionError::from)?)
}
