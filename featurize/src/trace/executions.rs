//! Executed plans as the columns of one record batch, a row per execution.

use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, BinaryArray, RecordBatch, UInt32Array, UInt64Array};
use datafusion::arrow::datatypes::{Float32Type, UInt64Type};

use super::columns::{Lists, batch, lists, numbers};
use super::{EXECUTIONS, Execution, damaged};
use crate::Result;

pub(super) fn write(executions: &[Execution]) -> Result<RecordBatch> {
    let (mut planning, mut execution) = (Lists::<Float32Type>::new(), Lists::<Float32Type>::new());
    let mut plans = Vec::with_capacity(executions.len());
    for one in executions {
        planning.push(one.planning_us.iter().copied());
        execution.push(one.execution_us.iter().copied());
        let plan = (&one.machine, &one.graph, &one.estimated, &one.observed);
        plans.push(postcard::to_stdvec(&plan).map_err(|error| damaged(Path::new(EXECUTIONS), error))?);
    }
    let queries: ArrayRef = Arc::new(UInt32Array::from_iter_values(executions.iter().map(|one| one.query)));
    let peaks: ArrayRef = Arc::new(UInt64Array::from_iter_values(executions.iter().map(|one| one.peak_bytes)));
    batch(vec![
        ("query", queries),
        ("planning_us", planning.finish()),
        ("execution_us", execution.finish()),
        ("peak_bytes", peaks),
        ("plan", Arc::new(BinaryArray::from_iter_values(plans))),
    ])
}

pub(super) fn read(batch: &RecordBatch) -> Option<Vec<Execution>> {
    if batch.num_rows() == 0 {
        return Some(vec![]);
    }
    let queries = numbers(batch, "query")?;
    let mut planning = lists::<Float32Type>(batch, "planning_us")?;
    let mut execution = lists::<Float32Type>(batch, "execution_us")?;
    let peaks = batch.column_by_name("peak_bytes")?.as_primitive_opt::<UInt64Type>()?;
    let plans = batch.column_by_name("plan")?.as_binary_opt::<i32>()?;
    (0..batch.num_rows())
        .map(|i| {
            let (machine, graph, estimated, observed) = postcard::from_bytes(plans.value(i)).ok()?;
            let one = Execution {
                query: queries[i],
                machine,
                planning_us: std::mem::take(&mut planning[i]),
                execution_us: std::mem::take(&mut execution[i]),
                peak_bytes: peaks.value(i),
                graph,
                estimated,
                observed,
            };
            let nodes = one.graph.operators.len();
            let whole = one.graph.is_valid() && one.estimated.len() == nodes && one.observed.len() == nodes;
            whole.then_some(one)
        })
        .collect()
}
