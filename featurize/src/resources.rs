//! Machine -> what the units of work that plans consist of take on it, from a short benchmark of its own.
//!
//! Cost models are calibrated by queries that differ in one operator (Du, Krishnamurthy and Shan, "Query optimization in
//! a heterogeneous DBMS", VLDB 1992; Wu et al., "Predicting query execution time", ICDE 2013). Here the difference of
//! their times is a feature of the machine. Of several repetitions the least counts: whatever else runs only adds to a
//! time (McVoy and Staelin, "lmbench", USENIX 1996).

use std::hint::black_box;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::object_store::memory::InMemory;
use datafusion::physical_plan::collect;
use datafusion::prelude::{SessionConfig, SessionContext};
use serde::{Deserialize, Serialize};

use crate::sample::mix;
use crate::trace::damaged;
use crate::{FeaturizeError, Result};

/// Rows that are worked on, enough to take many times the start-up of a plan.
const ROWS: u64 = 1 << 18;
/// Rows of a batch, as in DataFusion.
const BATCH_ROWS: u64 = 8192;
/// Distinct keys: groups of the aggregation, rows of the hash table that is probed.
const KEYS: u64 = 4096;
/// Bytes that are copied.
const COPIED: usize = 64 << 20;
/// Repetitions of which the least time counts.
const ROUNDS: usize = 5;
/// Least time of a row: below it a difference of two times is noise.
const LEAST: f64 = 0.01;

/// What is timed on one thread, the last on all as well; all but the second read from memory.
const STATEMENTS: [&str; 9] = [
    "SELECT key, value FROM facts",
    "SELECT key, value FROM file",
    "SELECT value FROM facts WHERE value < 524288",
    "SELECT facts.value FROM facts JOIN nothing ON facts.id = nothing.id",
    "SELECT nothing.value FROM keys JOIN nothing ON keys.id = nothing.key",
    "SELECT facts.value FROM keys JOIN facts ON keys.id = facts.key",
    "SELECT id, value FROM facts ORDER BY id",
    "SELECT a.key, COUNT(*) FROM nothing a JOIN nothing b USING (id) WHERE a.value < 9 GROUP BY a.key ORDER BY a.key",
    "SELECT key, COUNT(*), SUM(value) FROM facts GROUP BY key",
];

/// Times in [`Resources`], and how many of the first of them are those of a row.
const TIMES: usize = 8;
const ROW_TIMES: usize = 6;
/// The reference machine, in the order of the fields: round numbers near those of one thread of a common server.
const REFERENCE: [f64; TIMES] = [7.0, 1.5, 15.0, 7.0, 5.5, 60.0, 0.1, 90_000.0];

/// What a machine takes for the units of work that plans consist of, in nanoseconds of one thread.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Decoding a value of 8 bytes of a Parquet file in memory, compressed as DataFusion does by default.
    pub scan: f64,
    /// Comparing the value of a row with a literal, and keeping half of the rows.
    pub filter: f64,
    /// Putting a row into the hash table of a join with one integer key, with one more column.
    pub build: f64,
    /// Looking a row up in such a table that fits into a cache, where it has one partner.
    pub probe: f64,
    /// Aggregating a row, `COUNT` and `SUM`, by an integer key of some thousands of values.
    pub aggregate: f64,
    /// Sorting a row by an integer key with one more column.
    pub sort: f64,
    /// Copying a byte in memory, beyond the caches.
    pub copy: f64,
    /// Running a plan of a few operators over no rows.
    pub startup: f64,
    /// Threads that DataFusion takes by default.
    pub threads: usize,
    /// How many times faster that many threads aggregate than one, start-up included, in 1..=`threads`.
    pub speedup: f64,
}

impl Resources {
    /// Features of a machine.
    pub const FEATURES: usize = TIMES + 2;

    /// The machine of slowness 1, with so many threads that aggregate `speedup` times faster than one.
    pub fn reference(threads: usize, speedup: f64) -> Self {
        let [scan, filter, build, probe, aggregate, sort, copy, startup] = REFERENCE;
        Self { scan, filter, build, probe, aggregate, sort, copy, startup, threads, speedup }
    }

    /// Measures this machine, in less than half a second. The tasks run on the current Tokio runtime, the copies on the
    /// current thread; other work makes the machine look slower than it is.
    ///
    /// # Errors
    /// When DataFusion fails to run one of the plans.
    pub async fn measure() -> Result<Self> {
        let threads = SessionConfig::new().target_partitions();
        let (one, all) = (session(1)?, session(threads)?);
        write_file(&one).await?;
        let statements =
            STATEMENTS.into_iter().map(|sql| (&one, sql)).chain([(&all, STATEMENTS[STATEMENTS.len() - 1])]);
        // In turns, so that a disturbance does not meet all repetitions of one plan.
        let mut least = [f64::INFINITY; STATEMENTS.len() + 1];
        for _ in 0..ROUNDS {
            for ((session, sql), least) in statements.clone().zip(&mut least) {
                *least = least.min(run(session, sql).await?);
            }
        }
        let [read, file, filter, build, no_probe, probe, sort, startup, aggregate, parallel] = least;
        let of_row = |with: f64, without: f64| ((with - without) / ROWS as f64).max(LEAST);
        Ok(Self {
            scan: of_row(file, read) / 2.0,
            filter: of_row(filter, read),
            build: of_row(build, read),
            probe: of_row(probe, no_probe),
            aggregate: of_row(aggregate, read),
            sort: of_row(sort, read),
            copy: copy() / COPIED as f64,
            startup,
            threads,
            // Every thread has the rows that the one thread had.
            speedup: (threads as f64 * aggregate / parallel).clamp(1.0, threads as f64),
        })
    }

    /// How many times slower than the reference machine one thread is: the geometric mean over the times of a row.
    pub fn slowness(&self) -> f64 {
        let logs = self.times().into_iter().zip(REFERENCE).take(ROW_TIMES).map(|(time, known)| (time / known).ln());
        (logs.sum::<f64>() / ROW_TIMES as f64).exp()
    }

    /// The shape of the machine, not its speed: one that is as many times slower in everything has the same features.
    ///
    /// # Shapes
    /// `[FEATURES]`: `ln(time / (time of the reference machine * slowness))` by field, `ln(threads)`, `ln(speedup)`
    pub fn features(&self) -> [f32; Self::FEATURES] {
        let slowness = self.slowness();
        let times = self.times().into_iter().zip(REFERENCE).map(|(time, known)| time / (known * slowness));
        let mut features = [0.0; Self::FEATURES];
        for (feature, ratio) in features.iter_mut().zip(times.chain([self.threads as f64, self.speedup])) {
            *feature = ratio.ln() as f32;
        }
        features
    }

    /// A machine that takes `factor` times as long for everything.
    #[must_use]
    pub fn slowed(&self, factor: f64) -> Self {
        let [scan, filter, build, probe, aggregate, sort, copy, startup] = self.times().map(|time| factor * time);
        Self { scan, filter, build, probe, aggregate, sort, copy, startup, ..self.clone() }
    }

    /// Whether all times are positive and finite, and the speedup is one that the threads can give.
    pub fn is_valid(&self) -> bool {
        self.times().into_iter().all(|time| time.is_finite() && time > 0.0)
            && (1.0..=self.threads as f64).contains(&self.speedup)
    }

    /// Writes the times to `path` as JSON, atomically.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self).map_err(|error| damaged(path, error))?;
        let io = |source| FeaturizeError::Io { path: path.display().to_string(), source };
        let partial = path.with_extension(format!("partial-{}", std::process::id()));
        std::fs::write(&partial, json).map_err(io)?;
        std::fs::rename(&partial, path).map_err(io)
    }

    /// Reads what [`Self::save`] wrote.
    ///
    /// # Errors
    /// When the file is missing, damaged, or holds times that no machine has.
    pub fn load(path: &Path) -> Result<Self> {
        let io = |source| FeaturizeError::Io { path: path.display().to_string(), source };
        let json = std::fs::read(path).map_err(io)?;
        let read: Self = serde_json::from_slice(&json).map_err(|error| damaged(path, error))?;
        if read.is_valid() { Ok(read) } else { Err(damaged(path, "not the times of a machine")) }
    }

    fn times(&self) -> [f64; TIMES] {
        [self.scan, self.filter, self.build, self.probe, self.aggregate, self.sort, self.copy, self.startup]
    }
}

/// A session of so many threads, each of which reads the same rows of `facts`; `keys` are the first, and `nothing` none.
fn session(threads: usize) -> Result<SessionContext> {
    let mut config = SessionConfig::new().with_target_partitions(threads);
    // The left side of a join is the one to build.
    config.options_mut().optimizer.join_reordering = false;
    let session = SessionContext::new_with_config(config);
    let starts = (0..ROWS).step_by(BATCH_ROWS as usize);
    let facts = starts.map(|start| rows(start..start + BATCH_ROWS)).collect::<Result<Vec<_>>>()?;
    let facts = MemTable::try_new(rows(0..0)?.schema(), vec![facts; threads])?;
    session.register_table("facts", Arc::new(facts))?;
    session.register_batch("keys", rows(0..KEYS)?)?;
    session.register_batch("nothing", rows(0..0)?)?;
    Ok(session)
}

/// Rows by their places: a unique `id` that looks random, so that joins hash it instead of counting it off, a `key` that
/// is the id of one of the first [`KEYS`] rows, and a `value` below 2^20.
fn rows(places: Range<u64>) -> Result<RecordBatch> {
    let column = |of: fn(u64) -> u64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(places.clone().map(|place| of(place).cast_signed())))
    };
    let columns = [
        ("id", column(mix)),
        ("key", column(|place| mix(mix(place) % KEYS))),
        ("value", column(|place| mix(place) >> 44)),
    ];
    Ok(RecordBatch::try_from_iter(columns).map_err(DataFusionError::from)?)
}

/// Writes `facts` to a Parquet file in memory, which becomes `file`.
async fn write_file(session: &SessionContext) -> Result<()> {
    let store = ObjectStoreUrl::parse("memory://")?;
    session.register_object_store(store.as_ref(), Arc::new(InMemory::new()));
    session.sql("COPY facts TO 'memory:///facts.parquet'").await?.collect().await?;
    session.sql("CREATE EXTERNAL TABLE file STORED AS PARQUET LOCATION 'memory:///facts.parquet'").await?;
    Ok(())
}

/// Nanoseconds that running a statement takes once it is planned.
async fn run(session: &SessionContext, sql: &str) -> Result<f64> {
    let (plan, context) = (session.sql(sql).await?.create_physical_plan().await?, session.task_ctx());
    let started = Instant::now();
    black_box(collect(plan, context).await?);
    Ok(started.elapsed().as_nanos() as f64)
}

/// Nanoseconds that copying [`COPIED`] bytes takes.
fn copy() -> f64 {
    let (from, mut to) = (vec![1_u8; COPIED], vec![0_u8; COPIED]);
    let round = |_| {
        let started = Instant::now();
        black_box(&mut to).copy_from_slice(black_box(&from));
        started.elapsed().as_nanos() as f64
    };
    (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use datafusion::physical_plan::displayable;

    use super::*;

    /// Half as fast as the reference machine, but 64 times as long for sorting: another factor of 2, the sixth root.
    fn machine() -> Resources {
        let [scan, filter, build, probe, aggregate, sort, copy, startup] = REFERENCE.map(|time| 2.0 * time);
        Resources { scan, filter, build, probe, aggregate, sort: 64.0 * sort, copy, startup, threads: 4, speedup: 2.0 }
    }

    #[test]
    fn features_are_relative_to_the_slowness() {
        let half = -std::f32::consts::LN_2;
        let expected = [half, half, half, half, half, -5.0 * half, half, half, -2.0 * half, -half];
        for (machine, slowness) in [(machine(), 4.0), (machine().slowed(3.0), 12.0)] {
            assert!((machine.slowness() - slowness).abs() < 1e-12);
            assert!(machine.features().iter().zip(expected).all(|(feature, known)| (feature - known).abs() < 1e-6));
        }
    }

    #[test]
    fn a_machine_survives_a_round_trip_and_an_impossible_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resources.json");
        assert!(matches!(Resources::load(&path), Err(FeaturizeError::Io { .. })));
        machine().save(&path).unwrap();
        assert_eq!(Resources::load(&path).unwrap(), machine());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let many = Resources { speedup: 4.5, ..machine() };
        for impossible in [machine().slowed(0.0), machine().slowed(-1.0), machine().slowed(f64::INFINITY), many] {
            assert!(!impossible.is_valid());
            impossible.save(&path).unwrap();
            assert!(matches!(Resources::load(&path), Err(FeaturizeError::Stored { .. })));
        }
        std::fs::write(&path, "{\"scan\": 2.0").unwrap();
        assert!(matches!(Resources::load(&path), Err(FeaturizeError::Stored { .. })));
    }

    #[tokio::test]
    async fn plans_hold_the_operators_that_are_timed() {
        let session = session(1).unwrap();
        write_file(&session).await.unwrap();
        let all = "Sort Aggregate HashJoin Filter";
        let operators = ["", "", "Filter", "HashJoin", "HashJoin", "HashJoin", "Sort", all, "Aggregate"];
        for (sql, operators) in STATEMENTS.into_iter().zip(operators) {
            let plan = session.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
            let text = displayable(plan.as_ref()).indent(false).to_string();
            let names = text.lines().filter_map(|line| line.trim().split("Exec").next());
            let names: Vec<&str> = names.filter(|name| !["Projection", "DataSource"].contains(name)).collect();
            assert_eq!(names.join(" "), operators, "{text}");
        }
    }

    #[tokio::test]
    async fn this_machine_is_valid() {
        assert!(Resources::measure().await.unwrap().is_valid());
    }
}
