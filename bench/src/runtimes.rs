//! `relata-bench runtimes`: predicted runtimes of the corpus' queries against measured ones.
//!
//! Every query runs as relata or DataFusion plans it; what was measured is kept as a trace, so that it is scored again without
//! being run again. The same predictions are made from estimated rows and from counted ones. The noise floor is the q-error of one
//! repetition as a prediction of another.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use hashbrown::HashMap;
use indicatif::{ProgressBar, ProgressStyle};
use relata_experts::PhysicalExpert;
use relata_experts::physical::Runtime;
use relata_experts::train::physical::{elapsed_us, rows};
use relata_featurize::trace::{DatabaseTrace, Execution, TracedQuery};

use crate::corpus::{Source, Workload};
use crate::metrics::{percentile, q_error, sorted};
use crate::score::figures::table;
use crate::trace::{ExecuteOptions, Executor};

/// Bytes below which all memory counts as the same.
const LEAST_BYTES: f64 = 65_536.0;

/// Microseconds that an operator takes at least to be scored.
const LEAST_OPERATOR_US: f64 = 100.0;

/// Score predicted runtimes of the corpus' queries
#[derive(Debug, Clone, Args)]
pub struct RuntimeOptions {
    /// Where the queries come from.
    #[command(flatten)]
    pub source: Source,
    /// Kinds of queries
    #[arg(long, value_delimiter = ',', default_values = ["seed", "hard"])]
    pub kinds: Vec<String>,
    /// Queries of each kind and database, from the first
    #[arg(long)]
    pub limit: Option<usize>,
    /// Numbers of threads to execute with
    #[arg(long, value_delimiter = ',', default_values_t = [2])]
    pub threads: Vec<usize>,
    /// Repetitions of an execution
    #[arg(long, default_value_t = 3)]
    pub repeat: usize,
    /// Seconds after which an execution is given up
    #[arg(long, default_value_t = 20.0)]
    pub timeout: f64,
    /// Folder that the executions are kept in, one folder per database
    #[arg(long, default_value = ".relata/runtimes")]
    pub output: PathBuf,
    /// Milliseconds that a query takes at least to be scored
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1.0)]
    pub above: f64,
}

/// The q-errors of one execution.
#[derive(Debug, Clone)]
struct Scored {
    kind: String,
    noise: f64,
    cost: f64,
    estimated: f64,
    counted: f64,
    covered: bool,
    memory: f64,
    operators: Vec<f64>,
}

/// Executes what has not been executed, and scores all.
///
/// # Errors
/// When the queries or a database cannot be read, or the executions cannot be kept.
pub fn run(options: &RuntimeOptions) -> Result<String> {
    let expert = PhysicalExpert::pretrained()?;
    let mut scored = vec![];
    for workload in options.source.read(&options.kinds)? {
        let trace = executed(options, &workload)?;
        for execution in &trace.executions {
            if f64::from(elapsed_us(execution)) < 1000.0 * options.above {
                continue;
            }
            let kind = trace.queries[execution.query as usize].kind.clone();
            scored.push(score(&expert, execution, kind)?);
        }
    }
    Ok(print(&scored))
}

/// The executions of a workload, from the folder or by executing it.
fn executed(options: &RuntimeOptions, workload: &Workload) -> Result<DatabaseTrace> {
    let folder = options.output.join(&workload.database);
    if folder.is_dir() {
        return Ok(DatabaseTrace::read(&folder)?);
    }
    let how = ExecuteOptions {
        threads: options.threads.clone(),
        batch_sizes: vec![8192],
        repeat: options.repeat,
        timeout: Duration::try_from_secs_f64(options.timeout)?,
    };
    let executor = Executor::over(&workload.folder, None, &how)?;
    let mut trace = DatabaseTrace { name: workload.database.clone(), ..DatabaseTrace::default() };
    let mut taken: HashMap<&str, usize> = HashMap::new();
    let bar = ProgressBar::new(workload.queries.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} queries  {elapsed}  {msg}")?);
    bar.set_message(workload.database.clone());
    for query in &workload.queries {
        bar.inc(1);
        let of_kind = taken.entry(&query.kind).or_default();
        *of_kind += 1;
        if options.limit.is_some_and(|limit| *of_kind > limit) {
            continue;
        }
        match executor.execute(trace.queries.len() as u32, &query.sql) {
            Ok(executions) => {
                trace.executions.extend(executions);
                let (kind, sql, rows) = (query.kind.clone(), query.sql.clone(), query.truth);
                trace.queries.push(TracedQuery { kind, sql, joined: rows, rows, answer: None });
            }
            Err(error) => bar.println(format!("{}: {error:#}", query.id)),
        }
    }
    bar.finish_and_clear();
    std::fs::create_dir_all(&options.output)?;
    trace.write(&folder)?;
    Ok(trace)
}

fn score(expert: &PhysicalExpert, execution: &Execution, kind: String) -> Result<Scored> {
    let predict = |counted: bool| -> Result<Runtime> {
        Ok(expert.runtime(&execution.graph, &rows(execution, counted), &execution.machine)?)
    };
    let (estimated, counted) = (predict(false)?, predict(true)?);
    let truth = f64::from(elapsed_us(execution));
    let [first, second] = [0, 1].map(|place| f64::from(*execution.execution_us.get(place).unwrap_or(&1.0)));
    let bytes = (execution.peak_bytes as f64).max(LEAST_BYTES);
    let operators = execution.graph.operators.iter().zip(&execution.observed).zip(&counted.operators_us);
    let operators = operators.filter_map(|((operator, observed), predicted)| {
        let parallel = f64::from(operator.facts.partitions).min(f64::from(execution.graph.threads)).max(1.0);
        let measured = f64::from(observed.elapsed_us?) / parallel;
        (measured > LEAST_OPERATOR_US).then(|| q_error(*predicted, measured))
    });
    Ok(Scored {
        kind,
        noise: q_error(first, second),
        cost: q_error(estimated.cost_us, truth),
        estimated: q_error(estimated.elapsed_us[1], truth),
        counted: q_error(counted.elapsed_us[1], truth),
        covered: (estimated.elapsed_us[0]..=estimated.elapsed_us[2]).contains(&truth),
        memory: q_error(estimated.peak_bytes[1].max(LEAST_BYTES), bytes),
        operators: operators.collect(),
    })
}

fn print(scored: &[Scored]) -> String {
    let mut kinds: Vec<&str> = scored.iter().map(|one| one.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let columns = [
        "queries",
        "n",
        "noise floor",
        "cost model",
        "expert",
        "expert, counted rows",
        "coverage",
        "memory",
        "operators",
    ];
    let row = |kind: Option<&str>| {
        let members: Vec<&Scored> = scored.iter().filter(|one| kind.is_none_or(|kind| one.kind == kind)).collect();
        let errors = |values: Vec<f64>| {
            let values = sorted(values);
            let at = |share: f64| percentile(&values, share);
            format!("{:.2} / {:.2} / {:.2}", at(50.0), at(90.0), at(95.0))
        };
        let of = |value: &dyn Fn(&Scored) -> f64| errors(members.iter().map(|one| value(one)).collect());
        let covered = members.iter().filter(|one| one.covered).count();
        vec![
            kind.unwrap_or("all").to_owned(),
            members.len().to_string(),
            of(&|one| one.noise),
            of(&|one| one.cost),
            of(&|one| one.estimated),
            of(&|one| one.counted),
            format!("{:.0}%", 100.0 * covered as f64 / members.len().max(1) as f64),
            of(&|one| one.memory),
            errors(members.iter().flat_map(|one| one.operators.iter().copied()).collect()),
        ]
    };
    let rows = kinds.iter().map(|kind| row(Some(kind))).chain([row(None)]).collect();
    format!("q-errors of runtimes at the 50th / 90th / 95th percentile\n{}", table(&[&columns], rows))
}
