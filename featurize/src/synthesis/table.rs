//! Executed features as plain columns.

use std::collections::BTreeSet;

use datafusion::arrow::array::{Array, AsArray, Float64Array, RecordBatch, StringArray};
use datafusion::arrow::compute::{cast, concat};
use datafusion::arrow::datatypes::{DataType, Float64Type, UInt64Type};
use datafusion::error::DataFusionError;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::{FeatureKind, FeaturePlan, wrong};
use crate::Result;

/// Features of entities, column by column.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct FeatureTable {
    /// The entities' row ids, ascending. `[R]`
    pub rows: Vec<u64>,
    /// The features. `[C]`
    pub columns: Vec<FeatureColumn>,
}

/// One feature of all entities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureColumn {
    /// Where it comes from, e.g. `customers.orders.MEAN(amount)`.
    pub name: String,
    /// Its values. `[R]`
    pub values: FeatureValues,
}

/// The values of a feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FeatureValues {
    /// Numbers; NaN is missing.
    Number(Vec<f32>),
    /// Texts by their places in `levels`; `None` is missing.
    Category {
        /// For each row its place in `levels`.
        codes: Vec<Option<u32>>,
        /// All texts that occur, ascending.
        levels: Vec<String>,
    },
}

impl FeatureValues {
    /// R: number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Number(values) => values.len(),
            Self::Category { codes, .. } => codes.len(),
        }
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl FeatureTable {
    /// The rows that a plan gave, ascending by row id.
    ///
    /// # Errors
    /// [`crate::FeaturizeError::Relations`] when the batches are not of this plan or their row ids are missing or negative.
    pub fn read(plan: &FeaturePlan, batches: &[RecordBatch]) -> Result<Self> {
        if batches.iter().any(|batch| batch.num_columns() != plan.features.len() + 1) {
            return Err(wrong(format!("a batch is not of the {} features of the plan", plan.features.len())));
        }
        let mut rows: Vec<u64> = vec![];
        for batch in batches {
            let ids = cast(batch.column(0), &DataType::UInt64).map_err(DataFusionError::from)?;
            if ids.null_count() > 0 {
                return Err(wrong("a row id is NULL or negative".to_string()));
            }
            rows.extend(ids.as_primitive::<UInt64Type>().values());
        }
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|&row| rows[row]);
        let mut columns = vec![];
        for (place, feature) in plan.features.iter().enumerate() {
            let parts: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(place + 1).as_ref()).collect();
            let wanted = match feature.kind {
                FeatureKind::Number => DataType::Float64,
                FeatureKind::Category => DataType::Utf8,
            };
            let values = if parts.is_empty() {
                datafusion::arrow::array::new_empty_array(&wanted)
            } else {
                let all = concat(&parts).map_err(DataFusionError::from)?;
                cast(&all, &wanted).map_err(DataFusionError::from)?
            };
            let values = match feature.kind {
                FeatureKind::Number => numbers(values.as_primitive::<Float64Type>(), &order),
                FeatureKind::Category => categories(values.as_string::<i32>(), &order),
            };
            columns.push(FeatureColumn { name: feature.name.clone(), values });
        }
        let rows = order.iter().map(|&row| rows[row]).collect();
        Ok(Self { rows, columns })
    }
}

fn numbers(values: &Float64Array, order: &[usize]) -> FeatureValues {
    let number = |&row: &usize| {
        let value = if values.is_null(row) { f32::NAN } else { values.value(row) as f32 };
        if value.is_finite() { value } else { f32::NAN }
    };
    FeatureValues::Number(order.iter().map(number).collect())
}

fn categories(values: &StringArray, order: &[usize]) -> FeatureValues {
    let levels: BTreeSet<&str> = values.iter().flatten().collect();
    let places: HashMap<&str, u32> = levels.iter().zip(0..).map(|(level, place)| (*level, place)).collect();
    let code = |&row: &usize| values.is_valid(row).then(|| places[values.value(row)]);
    let codes = order.iter().map(code).collect();
    FeatureValues::Category { codes, levels: levels.into_iter().map(str::to_string).collect() }
}
