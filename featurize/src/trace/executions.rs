//! Executed plans as the columns of one record batch, a row per execution.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use datafusion::arrow::datatypes::{Float32Type, UInt32Type, UInt64Type};

use super::columns::{Lists, batch, lists, numbers};
use super::{ExecutedOperator, Execution};
use crate::Result;

/// The parent of the root.
const NO_PARENT: u32 = u32::MAX;

/// Rows or bytes that were not measured.
const UNKNOWN: u64 = u64::MAX;

pub(super) fn write(executions: &[Execution]) -> Result<RecordBatch> {
    let number =
        |of: fn(&Execution) -> u32| Arc::new(UInt32Array::from_iter_values(executions.iter().map(of))) as ArrayRef;
    let text =
        |of: fn(&Execution) -> String| Arc::new(StringArray::from_iter_values(executions.iter().map(of))) as ArrayRef;
    let (mut planning, mut execution, mut elapsed) =
        (Lists::<Float32Type>::new(), Lists::<Float32Type>::new(), Lists::<Float32Type>::new());
    let (mut rows, mut bytes) = (Lists::<UInt64Type>::new(), Lists::<UInt64Type>::new());
    let mut parents = Lists::<UInt32Type>::new();
    for one in executions {
        planning.push(one.planning_us.iter().copied());
        execution.push(one.execution_us.iter().copied());
        parents.push(one.operators.iter().map(|operator| operator.parent.unwrap_or(NO_PARENT)));
        rows.push(one.operators.iter().map(|operator| operator.rows.unwrap_or(UNKNOWN)));
        bytes.push(one.operators.iter().map(|operator| operator.bytes.unwrap_or(UNKNOWN)));
        elapsed.push(one.operators.iter().map(|operator| operator.elapsed_us.unwrap_or(f32::NAN)));
    }
    batch(vec![
        ("query", number(|one| one.query)),
        ("threads", number(|one| one.threads)),
        ("batch_size", number(|one| one.batch_size)),
        ("processor", text(|one| one.processor.clone())),
        ("planning_us", planning.finish()),
        ("execution_us", execution.finish()),
        ("parents", parents.finish()),
        ("operators", text(|one| one.operators.iter().map(|o| o.display.replace('\n', " ") + "\n").collect())),
        ("rows", rows.finish()),
        ("bytes", bytes.finish()),
        ("elapsed_us", elapsed.finish()),
    ])
}

pub(super) fn read(batch: &RecordBatch) -> Option<Vec<Execution>> {
    let (queries, threads, sizes) =
        (numbers(batch, "query")?, numbers(batch, "threads")?, numbers(batch, "batch_size")?);
    let text = |name: &str| batch.column_by_name(name)?.as_string_opt::<i32>();
    let (processors, operators) = (text("processor")?, text("operators")?);
    let mut planning = lists::<Float32Type>(batch, "planning_us")?;
    let mut execution = lists::<Float32Type>(batch, "execution_us")?;
    let (parents, elapsed) = (lists::<UInt32Type>(batch, "parents")?, lists::<Float32Type>(batch, "elapsed_us")?);
    let (rows, bytes) = (lists::<UInt64Type>(batch, "rows")?, lists::<UInt64Type>(batch, "bytes")?);
    let known = |number: u64| (number != UNKNOWN).then_some(number);
    (0..batch.num_rows())
        .map(|i| {
            let nodes: Vec<ExecutedOperator> = operators
                .value(i)
                .lines()
                .enumerate()
                .map(|(node, display)| {
                    Some(ExecutedOperator {
                        parent: Some(*parents[i].get(node)?).filter(|parent| *parent != NO_PARENT),
                        display: display.to_owned(),
                        rows: known(*rows[i].get(node)?),
                        bytes: known(*bytes[i].get(node)?),
                        elapsed_us: Some(*elapsed[i].get(node)?).filter(|elapsed| !elapsed.is_nan()),
                    })
                })
                .collect::<Option<_>>()?;
            (nodes.len() == parents[i].len()).then(|| Execution {
                query: queries[i],
                threads: threads[i],
                batch_size: sizes[i],
                processor: processors.value(i).to_owned(),
                planning_us: std::mem::take(&mut planning[i]),
                execution_us: std::mem::take(&mut execution[i]),
                operators: nodes,
            })
        })
        .collect()
}
