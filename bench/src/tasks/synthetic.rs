//! `relata-bench tasks`: prediction tasks over databases of the relational prior.
//!
//! Of each database some labels are drawn: a column of a table, hidden everywhere, or what is to come of a row after a time of its
//! own: how many rows will refer to it, whether any will, or the mean of one of their columns. One file per database; one that
//! is there is left as it is.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::compute::{cast, max, min};
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, UInt64Type};
use datafusion::catalog::MemTable;
use datafusion::prelude::SessionContext;
use hashbrown::HashMap;
use indicatif::{ProgressBar, ProgressStyle};
use rand::rngs::StdRng;
use rand::seq::index;
use rand::{Rng, SeedableRng};
use relata_experts::prior::{PriorConfig, generate};
use relata_featurize::synthesis::{FeatureValues, LabelledTable, Relations, SynthesisConfig};
use serde::{Deserialize, Serialize};

use super::{Rows, entities, features, relations, take_rows, times, values};
use crate::database::{Database, Table, quote};
use crate::manifest;

/// File beside the tasks that says how they were made.
const MANIFEST: &str = "tasks.json";

/// Rows that a table has at least, to be predicted.
const LEAST_ROWS: usize = 120;

/// Features of a task at most.
const MOST_FEATURES: usize = 60;

/// Draws for each task that is wanted of a database, most of which give none.
const ATTEMPTS: usize = 2;

/// Write prediction tasks over databases of the relational prior
#[derive(Debug, Clone, Args)]
pub struct TasksOptions {
    /// Folder of the tasks, one file per database
    #[arg(long)]
    pub output: PathBuf,
    /// Number of databases
    #[arg(long, default_value_t = 1000)]
    pub synthetic: u64,
    /// Seed of the first of them
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Tasks of a database at most
    #[arg(long, default_value_t = 6)]
    pub tasks: usize,
    /// Rows of a task at most; the largest tables have up to 20/3 times as many
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(120..=100_000))]
    pub rows: u32,
    /// Databases to work on at a time
    #[arg(long, default_value_t = 2)]
    pub jobs: usize,
}

/// What decides the content of a folder beside its seeds.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Manifest {
    tasks: usize,
    rows: u32,
}

/// What a run did.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct TasksReport {
    /// Databases that were there already.
    pub complete: usize,
    /// Tasks written.
    pub tasks: usize,
    /// Time taken.
    pub seconds: f64,
}

/// Writes the tasks of every database that is not there yet.
///
/// # Errors
/// When the output holds tasks of other options, or the tasks of a database cannot be made or written.
pub fn run(options: &TasksOptions) -> Result<TasksReport> {
    ensure!(options.jobs > 0, "--jobs must be at least 1");
    let manifest = Manifest { tasks: options.tasks, rows: options.rows };
    manifest::check(&options.output, MANIFEST, &manifest, PartialEq::eq)?;
    let start = Instant::now();
    let bar = ProgressBar::new(options.synthetic);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} databases  {elapsed} (+{eta})")?);
    bar.enable_steady_tick(Duration::from_millis(500));
    let next = AtomicU64::new(0);
    let work = || -> Result<TasksReport> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut report = TasksReport::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= options.synthetic {
                return Ok(report);
            }
            let seed = options.seed + seed;
            let file = options.output.join(format!("prior_{seed:06}.tasks"));
            if file.is_file() {
                report.complete += 1;
            } else {
                let tasks = runtime.block_on(of_database(options, seed)).with_context(|| format!("seed {seed}"))?;
                report.tasks += tasks.len();
                LabelledTable::write_all(&tasks, &file)?;
            }
            bar.inc(1);
        }
    };
    let mut total = TasksReport::default();
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..options.jobs).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            let report = thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            total.complete += report.complete;
            total.tasks += report.tasks;
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    Ok(TasksReport { seconds: start.elapsed().as_secs_f64(), ..total })
}

/// The tasks of the database that belongs to `seed`.
async fn of_database(options: &TasksOptions, seed: u64) -> Result<Vec<LabelledTable>> {
    let (most, most_rows) = (options.tasks, options.rows as usize);
    let mut random = StdRng::seed_from_u64(seed);
    let rows = random.random_range(400..20 * most_rows / 3);
    let config = PriorConfig { tables: 2..=8, rows: 300..=rows, max_columns: 12, ..PriorConfig::default() };
    let database = Database::from_synthetic(&generate(&config, seed)?)?;
    let relations = relations(&database)?;
    let context = SessionContext::new_with_config(super::config());
    let mut drawer = Drawer { database: &database, relations: &relations, context: &context, most_rows, random };
    let mut tasks: Vec<LabelledTable> = vec![];
    for _ in 0..ATTEMPTS * most {
        if tasks.len() == most {
            break;
        }
        if let Some(task) = drawer.draw().await?
            && tasks.iter().all(|other| other.name != task.name)
        {
            tasks.push(task);
        }
    }
    Ok(tasks)
}

struct Drawer<'a> {
    database: &'a Database,
    relations: &'a Relations,
    context: &'a SessionContext,
    most_rows: usize,
    random: StdRng,
}

impl Drawer<'_> {
    /// A task, where the draw gives one whose labels differ.
    async fn draw(&mut self) -> Result<Option<LabelledTable>> {
        let depth = if self.random.random_bool(0.25) { 1 } else { 2 };
        let config = SynthesisConfig { depth, max_features: MOST_FEATURES };
        let drawn = if self.random.random_bool(0.4) { self.future().await? } else { None };
        let drawn = match drawn {
            Some(drawn) => Some(drawn),
            None => self.column()?,
        };
        let Some((name, rows, label)) = drawn else { return Ok(None) };
        if !varies(&label) {
            return Ok(None);
        }
        let features = features(self.context, self.database, self.relations, &rows, &config).await?;
        Ok((!features.columns.is_empty()).then_some(LabelledTable { name, features, label }))
    }

    /// Some rows of a table.
    fn sample(&mut self, table: usize) -> Vec<u32> {
        let all = self.database.tables[table].batch.num_rows();
        let rows = index::sample(&mut self.random, all, all.min(self.most_rows));
        rows.into_iter().map(|row| row as u32).collect()
    }

    /// A column of a table, without time or, where its table has one, known from the row's time on.
    fn column(&mut self) -> Result<Option<(String, Rows, FeatureValues)>> {
        let tables = &self.database.tables;
        let table = self.random.random_range(0..tables.len());
        let Table { batch, primary_key, .. } = &tables[table];
        let column = self.random.random_range(0..batch.num_columns());
        let is_key = |column: usize| {
            let own = self.database.foreign_keys.iter().any(|key| key.table == table && key.columns.contains(&column));
            own || primary_key.contains(&column)
        };
        if batch.num_rows() < LEAST_ROWS || primary_key.is_empty() || is_key(column) {
            return Ok(None);
        }
        let rows = self.sample(table);
        let Some(label) = values(&take_rows(batch.column(column), &rows)?, false)? else { return Ok(None) };
        let time = self.relations.tables[table].time.as_ref().map(|time| batch.schema().index_of(time)).transpose()?;
        let at = match time.filter(|_| self.random.random_bool(0.5)) {
            Some(time) => times(&take_rows(batch.column(time), &rows)?)?,
            None => None,
        };
        let name = format!("{}.{}", tables[table].name, batch.schema().field(column).name());
        let rows = Rows { table, key: primary_key.clone(), hidden: vec![(table, column)], rows, at };
        Ok(Some((name, rows, label)))
    }

    /// What rows will refer to a row within some time.
    async fn future(&mut self) -> Result<Option<(String, Rows, FeatureValues)>> {
        let keys = &self.database.foreign_keys;
        if keys.is_empty() {
            return Ok(None);
        }
        let key = &keys[self.random.random_range(0..keys.len())];
        let (child, parent) = (&self.database.tables[key.table], &self.database.tables[key.references]);
        let Some(time) = &self.relations.tables[key.table].time else { return Ok(None) };
        let parents = parent.batch.num_rows();
        if parents < LEAST_ROWS || key.table == key.references || parent.primary_key != key.references_columns {
            return Ok(None);
        }
        let schema = child.batch.schema();
        let micros =
            cast(child.batch.column(schema.index_of(time)?), &DataType::Timestamp(TimeUnit::Microsecond, None))?;
        let micros = cast(&micros, &DataType::Int64)?;
        let micros = micros.as_primitive::<Int64Type>();
        let (Some(first), Some(last)) = (min(micros), max(micros)) else { return Ok(None) };
        let span = (last - first) as f64;
        if span <= 0.0 {
            return Ok(None);
        }
        let rows = self.sample(key.references);
        let window = (span * self.random.random_range(0.05..0.4)) as i64;
        let mut at = || first + (span * self.random.random_range(0.3..0.8)) as i64;
        let at: Vec<i64> = rows.iter().map(|_| at()).collect();
        let rows =
            Rows { table: key.references, key: key.references_columns.clone(), hidden: vec![], rows, at: Some(at) };
        let numeric: Vec<usize> =
            (0..schema.fields().len()).filter(|column| schema.field(*column).data_type().is_numeric()).collect();
        let (what, aggregate) = match self.random.random_range(0..3) {
            0 => ("any", "COUNT(c.\"at_time\") > 0".to_owned()),
            1 => ("count", "COUNT(c.\"at_time\")".to_owned()),
            _ if numeric.is_empty() => return Ok(None),
            _ => {
                let column = schema.field(numeric[self.random.random_range(0..numeric.len())]).name().clone();
                ("mean", format!("AVG(CAST(c.{} AS DOUBLE))", quote(&column)))
            }
        };
        let name = format!("{}.{}.{what}", parent.name, child.name);
        let label = self.count(&rows, key, time, window, &aggregate).await?;
        Ok(Some((name, rows, label)))
    }

    /// An aggregate over the rows that refer to each row within `window` microseconds.
    async fn count(
        &self,
        rows: &Rows,
        key: &crate::database::ForeignKey,
        time: &str,
        window: i64,
        aggregate: &str,
    ) -> Result<FeatureValues> {
        let context = SessionContext::new_with_config(super::config());
        let child = &self.database.tables[key.table].batch;
        let entities = entities(self.database, rows)?;
        for (name, batch) in [("rows_at", entities), ("child", child.clone())] {
            context.register_table(name, Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?))?;
        }
        let on: Vec<String> = key
            .columns
            .iter()
            .enumerate()
            .map(|(place, column)| format!("c.{} = r.key_{place}", quote(child.schema().field(*column).name())))
            .collect();
        let sql = format!(
            "SELECT r.row, {aggregate} AS label FROM rows_at r LEFT JOIN \
             (SELECT *, CAST(CAST({} AS TIMESTAMP) AS BIGINT) / 1000 AS at_time FROM child) c \
             ON {} AND c.at_time >= CAST(r.at AS BIGINT) AND c.at_time < CAST(r.at AS BIGINT) + {window} \
             GROUP BY r.row ORDER BY r.row",
            quote(time),
            on.join(" AND ")
        );
        let batches = context.sql(&sql).await?.collect().await?;
        let mut label = vec![f32::NAN; rows.rows.len()];
        for batch in &batches {
            let places = cast(batch.column(0), &DataType::UInt64)?;
            let values = cast(batch.column(1), &DataType::Float64)?;
            let values = values.as_primitive::<Float64Type>();
            for (row, place) in places.as_primitive::<UInt64Type>().values().iter().enumerate() {
                if values.is_valid(row) {
                    label[*place as usize] = values.value(row) as f32;
                }
            }
        }
        if aggregate.ends_with("> 0") {
            let code = |value: &f32| value.is_finite().then_some(*value as u32);
            let levels = ["false", "true"].map(str::to_owned).to_vec();
            return Ok(FeatureValues::Category { codes: label.iter().map(code).collect(), levels });
        }
        Ok(FeatureValues::Number(label))
    }
}

/// Whether there are two different labels, and enough of them.
fn varies(label: &FeatureValues) -> bool {
    match label {
        FeatureValues::Number(values) => {
            let known: Vec<f32> = values.iter().copied().filter(|value| value.is_finite()).collect();
            known.len() >= LEAST_ROWS && known.iter().any(|value| (value - known[0]).abs() > 1e-6)
        }
        FeatureValues::Category { codes, .. } => {
            let mut counts: HashMap<u32, usize> = HashMap::new();
            codes.iter().flatten().for_each(|code| *counts.entry(*code).or_default() += 1);
            let mut counts: Vec<usize> = counts.into_values().collect();
            counts.sort_unstable_by(|a, b| b.cmp(a));
            counts.iter().sum::<usize>() >= LEAST_ROWS && counts.get(1).is_some_and(|second| *second >= 8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_deterministic_and_resumed() {
        let folder = tempfile::tempdir().unwrap();
        let options =
            TasksOptions { output: folder.path().to_owned(), synthetic: 6, seed: 5, tasks: 2, rows: 600, jobs: 2 };
        let report = run(&options).unwrap();
        assert!(report.tasks >= 2 && report.complete == 0);
        let file = folder.path().join("prior_000005.tasks");
        let tasks = LabelledTable::read_all(&file).unwrap();
        assert!(tasks.iter().all(|task| varies(&task.label) && !task.features.columns.is_empty()));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(run(&options).unwrap().complete, 5);
        assert_eq!(format!("{:?}", LabelledTable::read_all(&file).unwrap()), format!("{tasks:?}"));
        let other = run(&TasksOptions { rows: 601, ..options });
        assert!(other.unwrap_err().to_string().contains("other options"));
    }
}
