//! Labelled aggregates as the columns of one record batch, a row per aggregate.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Float32Array, RecordBatch, UInt8Array, UInt32Array};
use datafusion::arrow::datatypes::{Float32Type, UInt8Type, UInt32Type};

use super::LabelledAnswer;
use super::columns::{Lists, batch, lists, numbers};
use crate::Result;
use crate::answer::{ANSWER_FEATURES, AnswerForm};

pub(super) fn write(answers: &[LabelledAnswer]) -> Result<RecordBatch> {
    let number =
        |of: fn(&LabelledAnswer) -> u32| Arc::new(UInt32Array::from_iter_values(answers.iter().map(of))) as ArrayRef;
    let (mut tables, mut columns, mut features) =
        (Lists::<UInt32Type>::new(), Lists::<UInt32Type>::new(), Lists::<Float32Type>::new());
    for answer in answers {
        tables.push(answer.columns.iter().map(|(table, _)| *table));
        columns.push(answer.columns.iter().map(|(_, column)| *column));
        features.push(answer.features.iter().copied());
    }
    batch(vec![
        ("query", number(|answer| answer.query)),
        ("node", number(|answer| answer.node)),
        ("form", Arc::new(UInt8Array::from_iter_values(answers.iter().map(|answer| answer.form as u8)))),
        ("tables", tables.finish()),
        ("columns", columns.finish()),
        ("features", features.finish()),
        ("residual", Arc::new(Float32Array::from_iter_values(answers.iter().map(|answer| answer.residual)))),
    ])
}

pub(super) fn read(batch: &RecordBatch) -> Option<Vec<LabelledAnswer>> {
    let (queries, nodes) = (numbers(batch, "query")?, numbers(batch, "node")?);
    let forms = batch.column_by_name("form")?.as_primitive_opt::<UInt8Type>()?;
    let residuals = batch.column_by_name("residual")?.as_primitive_opt::<Float32Type>()?;
    let (tables, columns) = (lists::<UInt32Type>(batch, "tables")?, lists::<UInt32Type>(batch, "columns")?);
    let mut features = lists::<Float32Type>(batch, "features")?;
    let answer = |i: usize| {
        let fits = tables[i].len() == columns[i].len() && features[i].len() == ANSWER_FEATURES;
        fits.then_some(LabelledAnswer {
            query: queries[i],
            node: nodes[i],
            form: AnswerForm::from_u8(forms.value(i))?,
            columns: tables[i].iter().copied().zip(columns[i].iter().copied()).collect(),
            features: std::mem::take(&mut features[i]),
            residual: residuals.value(i),
        })
    };
    (0..batch.num_rows()).map(answer).collect()
}
