//! The tables of a small shop with NULL keys, from every kind of source.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use datafusion::arrow::array::{Date32Array, Int32Array, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::exec_err;
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{CsvReadOptions, ParquetReadOptions};
use tokio::sync::Semaphore;

use crate::{Sessions, batch};

/// 4 regions, 12 towns, 60 customers, 15 items, 300 orders; some keys are NULL or dangling.
pub(crate) fn shop() -> [(&'static str, RecordBatch); 5] {
    let region = batch([
        ("id", Arc::new(Int64Array::from_iter_values(0..4))),
        ("label", Arc::new(StringArray::from(vec![Some("north"), Some("east"), None, Some("south")]))),
    ]);
    let town = batch([
        ("id", Arc::new(Int64Array::from_iter_values(0..12))),
        ("region", Arc::new(Int64Array::from_iter((0..12).map(|i| (i % 5 != 4).then_some(i % 6))))),
        ("name", Arc::new(StringArray::from_iter_values((0..12).map(|i| format!("town {i:02}"))))),
    ]);
    let customer = batch([
        ("id", Arc::new(Int64Array::from_iter_values(0..60))),
        ("town", Arc::new(Int64Array::from_iter((0..60).map(|i| (i % 7 != 0).then_some(i * i % 13))))),
        ("age", Arc::new(Int32Array::from_iter((0..60).map(|i| (i % 11 != 3).then_some(18 + i * 7 % 50))))),
        ("name", Arc::new(StringArray::from_iter_values((0..60).map(|i| format!("customer {}", i % 40))))),
    ]);
    let item = batch([
        ("id", Arc::new(Int32Array::from_iter_values(0..15))),
        ("kind", Arc::new(StringArray::from_iter_values((0..15).map(|i| ["book", "toy", "tool"][i % 3])))),
        ("price", Arc::new(Int64Array::from_iter_values((0..15).map(|i| 5 + i * 3)))),
    ]);
    let orders = batch([
        ("id", Arc::new(Int64Array::from_iter_values(0..300))),
        ("customer", Arc::new(Int64Array::from_iter((0..300).map(|i| (i % 17 != 0).then_some(i * i % 64))))),
        ("item", Arc::new(Int64Array::from_iter((0..300).map(|i| (i % 19 != 5).then_some(i * 7 % 18))))),
        ("amount", Arc::new(Int64Array::from_iter_values((0..300).map(|i| i * 13 % 40)))),
        ("day", Arc::new(Date32Array::from_iter_values((0..300).map(|i| 19_000 + i % 90)))),
    ]);
    [("region", region), ("town", town), ("customer", customer), ("item", item), ("orders", orders)]
}

/// Registers the shop as tables in memory.
pub(crate) fn memory(sessions: &Sessions) {
    for (name, rows) in shop() {
        sessions.register(name, &rows);
    }
}

/// Registers the shop as custom tables.
pub(crate) fn custom(sessions: &Sessions) {
    for (name, rows) in shop() {
        for ctx in sessions.both() {
            ctx.register_table(name, Arc::new(CustomTable::new(rows.clone()))).unwrap();
        }
    }
}

/// Writes the shop as Parquet files and registers those.
pub(crate) async fn parquet(sessions: &Sessions, directory: &Path) {
    for (name, rows) in shop() {
        let file = write_parquet(sessions, directory, name, &rows).await;
        for ctx in sessions.both() {
            ctx.register_parquet(name, &file, ParquetReadOptions::default()).await.unwrap();
        }
    }
}

/// Writes one Parquet file and returns its path.
pub(crate) async fn write_parquet(sessions: &Sessions, directory: &Path, name: &str, rows: &RecordBatch) -> String {
    let file = directory.join(format!("{name}.parquet")).display().to_string();
    let data = sessions.default.read_batch(rows.clone()).unwrap();
    data.write_parquet(&file, DataFrameWriteOptions::new().with_single_file_output(true), None).await.unwrap();
    file
}

/// Writes the shop as CSV files and registers those.
pub(crate) async fn csv(sessions: &Sessions, directory: &Path) {
    for (name, rows) in shop() {
        let file = directory.join(format!("{name}.csv")).display().to_string();
        let data = sessions.default.read_batch(rows.clone()).unwrap();
        data.write_csv(&file, DataFrameWriteOptions::new().with_single_file_output(true), None).await.unwrap();
        for ctx in sessions.both() {
            ctx.register_csv(name, &file, CsvReadOptions::new().schema(&rows.schema())).await.unwrap();
        }
    }
}

/// A table that knows nothing but how to be scanned, and not even that while it is broken.
#[derive(Debug)]
pub(crate) struct CustomTable {
    rows: RecordBatch,
    pub(crate) broken: AtomicBool,
}

impl CustomTable {
    pub(crate) fn new(rows: RecordBatch) -> Self {
        Self { rows, broken: AtomicBool::new(false) }
    }
}

#[async_trait]
impl TableProvider for CustomTable {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if self.broken.load(Ordering::Relaxed) {
            return exec_err!("the table is broken");
        }
        Ok(MemorySourceConfig::try_new_exec(&[vec![self.rows.clone()]], self.schema(), projection.cloned())?)
    }
}

/// A table whose scan to profile it does not begin before it is told to.
#[derive(Debug)]
pub(crate) struct SlowTable {
    table: CustomTable,
    profiled: AtomicUsize,
    gate: Semaphore,
}

impl SlowTable {
    pub(crate) fn new(rows: RecordBatch) -> Self {
        Self { table: CustomTable::new(rows), profiled: AtomicUsize::new(0), gate: Semaphore::new(0) }
    }

    /// How often it was begun to be profiled.
    pub(crate) fn profiled(&self) -> usize {
        self.profiled.load(Ordering::Relaxed)
    }

    pub(crate) fn go_on(&self) {
        self.gate.close();
    }
}

#[async_trait]
impl TableProvider for SlowTable {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if !session.config_options().execution.enable_file_stream_work_stealing {
            self.profiled.fetch_add(1, Ordering::Relaxed);
            assert!(self.gate.acquire().await.is_err(), "it is closed, not opened");
        }
        self.table.scan(session, projection, filters, limit).await
    }
}
