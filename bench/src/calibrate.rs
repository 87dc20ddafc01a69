//! `relata-bench calibrate`: the constants of relata's cost model, from measured joins.
//!
//! Joins of many shapes run by every method that DataFusion has; the constants of [`ExecutionTime`] are those whose predicted
//! times fit the measured ones with the least squared relative error, none of them negative.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::{JoinType, NullEquality, ScalarValue};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::Operator;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_expr::{LexOrdering, PhysicalExprRef, PhysicalSortExpr};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, PartitionMode, SortMergeJoinExec};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, Partitioning, collect, execute_stream_partitioned};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use futures::TryStreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use relata::join_order::{CostModel, ExecutionTime, JoinMethod, JoinShape, JoinSide};

use crate::score::figures::table;

/// Rows of a batch.
const BATCH: usize = 8192;

/// Sweeps over the constants; far more than they need to settle.
const SWEEPS: usize = 2000;

/// Measure joins and fit the constants of the cost model
#[derive(Debug, Clone, Args)]
pub struct CalibrateOptions {
    /// Partitions to join in [default: one per core]
    #[arg(long)]
    partitions: Option<usize>,
    /// Repetitions of each join, of which the fastest counts
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Rows of the largest probe side
    #[arg(long, default_value_t = 2_000_000)]
    rows: usize,
}

/// A measured join.
#[derive(Debug, Clone, Copy)]
struct Measured {
    method: JoinMethod,
    shape: JoinShape,
    nanoseconds: f64,
}

/// Measures and fits; returns the table of constants and of predicted beside measured times.
///
/// # Errors
/// When a join fails.
pub async fn calibrate(options: &CalibrateOptions) -> Result<String> {
    ensure!(options.repeat > 0 && options.rows >= 1000, "--repeat must be at least 1 and --rows at least 1000");
    let partitions = match options.partitions {
        Some(partitions) => partitions.max(1),
        None => std::thread::available_parallelism()?.get(),
    };
    let shapes = shapes(options.rows);
    let bar = ProgressBar::new(shapes.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} joins  {elapsed}")?);
    let mut measured = Vec::new();
    for shape in shapes {
        measured.push(shape.measure(partitions, options.repeat).await?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut fitted = fit(&measured);
    (fitted.scan_row, fitted.scan_byte) = scan(options.rows, partitions, options.repeat).await?;
    let rows = measured.iter().map(|join| {
        let predicted = fitted.join(join.method, &join.shape);
        let (build, probe, output) = (join.shape.build, join.shape.probe, join.shape.output);
        vec![
            format!("{:?}", join.method),
            format!("{:.0} x {:.0} B", build.rows, build.width),
            format!("{:.0} x {:.0} B", probe.rows, probe.width),
            format!("{:.0}", output.rows),
            format!("{:.2}", join.nanoseconds / 1e6),
            format!("{:.2}", predicted / 1e6),
            format!("{:.2}", predicted / join.nanoseconds),
        ]
    });
    let text = table(&[&["method", "build", "probe", "output", "measured ms", "fitted ms", "ratio"]], rows.collect());
    Ok(format!("{text}\n{fitted:#?}"))
}

/// A join to measure.
#[derive(Debug, Clone, Copy)]
struct Trial {
    method: JoinMethod,
    build: usize,
    probe: usize,
    /// Matches of a row of the probe side; below one, the share of rows that have one.
    matches: f64,
    /// Columns beside the key, of either side.
    columns: usize,
}

fn shapes(most: usize) -> Vec<Trial> {
    let mut trials = Vec::new();
    for method in [JoinMethod::BroadcastHash, JoinMethod::PartitionedHash, JoinMethod::SortMerge] {
        for build in [most / 1000, most / 100, most / 10, most / 2] {
            for (probe, matches) in [(most, 0.01), (most, 1.0), (most / 4, 4.0), (most / 20, 1.0)] {
                for columns in [0, 4] {
                    trials.push(Trial { method, build, probe, matches, columns });
                }
            }
        }
    }
    for (build, probe) in [(10, most / 10), (100, most / 100), (1000, most / 100), (1000, most / 1000)] {
        trials.push(Trial { method: JoinMethod::NestedLoop, build, probe, matches: 0.0, columns: 2 });
    }
    trials
}

impl Trial {
    async fn measure(&self, partitions: usize, repeat: usize) -> Result<Measured> {
        // Every key of the build side has as many rows as a probing row is to match.
        let copies = self.matches.max(1.0) as usize;
        let keys = (self.build / copies).max(1);
        let range = if self.matches < 1.0 { (keys as f64 / self.matches.max(1e-3)) as usize } else { keys };
        let build = side(self.build, self.columns, partitions, |row| scattered(row % keys, keys))?;
        let probe = side(self.probe, self.columns, partitions, |row| scattered(row, range))?;
        let context = Arc::new(TaskContext::default());
        let (mut fastest, mut rows) = (f64::INFINITY, 0);
        for _ in 0..repeat {
            let plan = self.plan(Arc::clone(&build), Arc::clone(&probe), partitions)?;
            let start = Instant::now();
            rows = count_rows(plan, Arc::clone(&context)).await?;
            fastest = fastest.min(start.elapsed().as_nanos() as f64);
        }
        let width = 8.0 * (1 + self.columns) as f64;
        let shape = JoinShape {
            build: JoinSide { rows: self.build as f64, width },
            probe: JoinSide { rows: self.probe as f64, width },
            output: JoinSide { rows: rows as f64, width: 2.0 * width },
            partitions,
        };
        Ok(Measured { method: self.method, shape, nanoseconds: fastest })
    }

    fn plan(
        &self,
        build: Arc<dyn ExecutionPlan>,
        probe: Arc<dyn ExecutionPlan>,
        partitions: usize,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let key = |plan: &Arc<dyn ExecutionPlan>| -> Result<PhysicalExprRef> {
            Ok(Arc::new(Column::new_with_schema("key", &plan.schema())?))
        };
        let on = vec![(key(&build)?, key(&probe)?)];
        let exchanged = |plan: Arc<dyn ExecutionPlan>| -> Result<Arc<dyn ExecutionPlan>> {
            let by_key = Partitioning::Hash(vec![key(&plan)?], partitions);
            Ok(Arc::new(RepartitionExec::try_new(plan, by_key)?))
        };
        let sorted = |plan: Arc<dyn ExecutionPlan>| -> Result<Arc<dyn ExecutionPlan>> {
            let order = LexOrdering::from([PhysicalSortExpr::new_default(key(&plan)?)]);
            Ok(Arc::new(SortExec::new(order, exchanged(plan)?).with_preserve_partitioning(true)))
        };
        let hash = |build, probe, mode| {
            let nulls = NullEquality::NullEqualsNothing;
            HashJoinExec::try_new(build, probe, on.clone(), None, &JoinType::Inner, None, mode, nulls, false)
        };
        Ok(match self.method {
            JoinMethod::BroadcastHash => {
                Arc::new(hash(Arc::new(CoalescePartitionsExec::new(build)), probe, PartitionMode::CollectLeft)?)
            }
            JoinMethod::PartitionedHash => {
                Arc::new(hash(exchanged(build)?, exchanged(probe)?, PartitionMode::Partitioned)?)
            }
            JoinMethod::SortMerge => Arc::new(SortMergeJoinExec::try_new(
                sorted(build)?,
                sorted(probe)?,
                on,
                None,
                JoinType::Inner,
                vec![SortOptions::default()],
                NullEquality::NullEqualsNothing,
            )?),
            JoinMethod::NestedLoop => {
                let filter = nothing_equal(&build.schema())?;
                let build = Arc::new(CoalescePartitionsExec::new(build));
                Arc::new(NestedLoopJoinExec::try_new(build, probe, Some(filter), &JoinType::Inner, None)?)
            }
        })
    }
}

/// Nanoseconds of one core to read a row of a Parquet file, and a byte of it, from files with few and with many columns.
async fn scan(rows: usize, partitions: usize, repeat: usize) -> Result<(f64, f64)> {
    let folder = tempfile::tempdir()?;
    let config = SessionConfig::new().with_target_partitions(partitions);
    let mut times = Vec::new();
    for columns in [1, 8] {
        let table = side(rows, columns, 1, |row| scattered(row, rows))?;
        let path = folder.path().join(format!("{columns}.parquet"));
        let context = SessionContext::new_with_config(config.clone());
        let mut writer = ArrowWriter::try_new(std::fs::File::create(&path)?, table.schema(), None)?;
        for batch in collect(table, context.task_ctx()).await? {
            writer.write(&batch)?;
        }
        writer.close()?;
        let path = path.to_str().context("the folder of temporary files has a name in UTF-8")?;
        context.register_parquet("t", path, ParquetReadOptions::default()).await?;
        let mut fastest = f64::INFINITY;
        for _ in 0..repeat {
            let plan = context.table("t").await?.create_physical_plan().await?;
            let start = Instant::now();
            count_rows(plan, context.task_ctx()).await?;
            fastest = fastest.min(start.elapsed().as_nanos() as f64 * partitions as f64 / rows as f64);
        }
        times.push((8.0 * (1 + columns) as f64, fastest));
    }
    let [(few, short), (many, long)] = times[..] else { return Ok((0.0, 0.0)) };
    let byte = ((long - short) / (many - few)).max(0.0);
    Ok(((short - byte * few).max(0.0), byte))
}

/// Runs a plan and counts what it returns.
async fn count_rows(plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> Result<usize> {
    let streams = execute_stream_partitioned(plan, context)?.into_iter();
    let tasks = streams.map(|stream| tokio::spawn(stream.try_fold(0, async |rows, batch| Ok(rows + batch.num_rows()))));
    let tasks: Vec<_> = tasks.collect();
    let mut rows = 0;
    for task in tasks {
        rows += task.await.context("a partition panicked")??;
    }
    Ok(rows)
}

/// A key below `8 * keys` for each of so many numbers, far from the order of the numbers. So few of the range's values are keys
/// that DataFusion hashes them instead of indexing an array.
fn scattered(number: usize, keys: usize) -> i64 {
    (8 * (number.wrapping_mul(2_654_435_761) % keys.max(1))) as i64
}

/// A table of so many rows with a key and other columns, in memory.
fn side(rows: usize, columns: usize, partitions: usize, key: impl Fn(usize) -> i64) -> Result<Arc<dyn ExecutionPlan>> {
    let mut parts = vec![Vec::new(); partitions];
    let mut schema: Option<SchemaRef> = None;
    for (index, start) in (0..rows.max(1)).step_by(BATCH).enumerate() {
        let range = start..(start + BATCH).min(rows);
        let mut arrays: Vec<(String, ArrayRef)> =
            vec![("key".into(), Arc::new(Int64Array::from_iter_values(range.clone().map(&key))))];
        for column in 0..columns {
            let values = Int64Array::from_iter_values(range.clone().map(|row| (row ^ column) as i64));
            arrays.push((format!("column{column}"), Arc::new(values)));
        }
        let batch = RecordBatch::try_from_iter(arrays)?;
        schema.get_or_insert_with(|| batch.schema());
        parts[index % partitions].push(batch);
    }
    let schema = schema.context("a table has a batch")?;
    Ok(MemorySourceConfig::try_new_exec(&parts, schema, None)?)
}

/// A condition that no pair of rows meets.
fn nothing_equal(schema: &SchemaRef) -> Result<JoinFilter> {
    let key = schema.index_of("key")?;
    let field = schema.field(key).clone();
    let (left, right) = (field.clone().with_name("left"), field.with_name("right"));
    let column = |name: &str, index: usize| Arc::new(Column::new(name, index)) as PhysicalExprRef;
    let sum = Arc::new(BinaryExpr::new(column("left", 0), Operator::Plus, column("right", 1)));
    let expression = Arc::new(BinaryExpr::new(sum, Operator::Lt, Arc::new(Literal::new(ScalarValue::Int64(Some(0))))));
    let indices = JoinFilter::build_column_indices(vec![key], vec![key]);
    Ok(JoinFilter::new(expression, indices, Arc::new(Schema::new(vec![left, right]))))
}

/// One constant of the model.
type Constant = fn(&mut ExecutionTime) -> &mut f64;

/// Every constant that a join has a part of.
const CONSTANTS: [Constant; 11] = [
    |time| &mut time.build_row,
    |time| &mut time.build_byte,
    |time| &mut time.probe_row,
    |time| &mut time.miss,
    |time| &mut time.output_row,
    |time| &mut time.output_byte,
    |time| &mut time.exchange_row,
    |time| &mut time.exchange_byte,
    |time| &mut time.pair,
    |time| &mut time.compare_row,
    |time| &mut time.sort_byte,
];

/// The constants with the least squared relative error, none negative: coordinate descent, for the predicted time is linear in
/// each of them.
fn fit(measured: &[Measured]) -> ExecutionTime {
    let mut nothing = ExecutionTime::default();
    CONSTANTS.iter().for_each(|constant| *constant(&mut nothing) = 0.0);
    // Predicted over measured time for one nanosecond of each constant.
    let rows: Vec<Vec<f64>> = measured
        .iter()
        .map(|join| {
            let part = |constant: &Constant| {
                let mut unit = nothing;
                *constant(&mut unit) = 1.0;
                unit.join(join.method, &join.shape) / join.nanoseconds
            };
            CONSTANTS.iter().map(part).collect()
        })
        .collect();
    let mut values = [0.0; CONSTANTS.len()];
    for _ in 0..SWEEPS {
        for constant in 0..CONSTANTS.len() {
            let (mut along, mut square) = (0.0, 0.0);
            for row in &rows {
                let others: f64 = (0..CONSTANTS.len()).filter(|c| *c != constant).map(|c| row[c] * values[c]).sum();
                along += row[constant] * (1.0 - others);
                square += row[constant] * row[constant];
            }
            values[constant] = if square > 0.0 { (along / square).max(0.0) } else { 0.0 };
        }
    }
    let mut fitted = nothing;
    CONSTANTS.iter().zip(values).for_each(|(constant, value)| *constant(&mut fitted) = value);
    fitted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fit_finds_the_constants_that_made_the_times() {
        let truth = ExecutionTime::default();
        let side = |rows: f64, width| JoinSide { rows, width };
        let mut measured = Vec::new();
        for trial in shapes(1_000_000) {
            let width = 8.0 * (1 + trial.columns) as f64;
            let (build, probe) = (side(trial.build as f64, width), side(trial.probe as f64, width));
            let output = side(trial.probe as f64 * trial.matches, 2.0 * width);
            let shape = JoinShape { build, probe, output, partitions: 4 };
            measured.push(Measured { method: trial.method, shape, nanoseconds: truth.join(trial.method, &shape) });
        }
        let fitted = fit(&measured);
        for join in &measured {
            let ratio = fitted.join(join.method, &join.shape) / join.nanoseconds;
            assert!((0.98..1.02).contains(&ratio), "{join:?}: {ratio}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_method_joins_what_it_should() {
        for method in
            [JoinMethod::BroadcastHash, JoinMethod::PartitionedHash, JoinMethod::SortMerge, JoinMethod::NestedLoop]
        {
            let trial = Trial { method, build: 2000, probe: 3000, matches: 2.0, columns: 1 };
            let measured = trial.measure(2, 1).await.unwrap();
            let expected = if method == JoinMethod::NestedLoop { 0.0 } else { 6000.0 };
            assert!((measured.shape.output.rows - expected).abs() < 1.0, "{measured:?}");
            assert!(measured.nanoseconds > 0.0);
        }
    }
}
