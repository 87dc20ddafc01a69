//! `relata-bench runtimes`: predicted runtimes of the corpus' queries against measured ones.
//!
//! Every query runs as relata or DataFusion plans it; what was measured is kept as a trace, so that it is scored again without
//! being run again. The same predictions are made from estimated rows and from counted ones. The noise floor is the q-error of one
//! repetition as a prediction of another.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use hashbrown::HashMap;
use indicatif::{ProgressBar, ProgressStyle};
use relata::cli::session::parse_bytes;
use relata_experts::PhysicalExpert;
use relata_experts::physical::Runtime;
use relata_experts::train::physical::tune::{PhysicalTuneConfig, tune};
use relata_experts::train::physical::{elapsed_us, rows};
use relata_featurize::graph::LAYOUT_VERSION;
use relata_featurize::trace::{DatabaseTrace, Execution, TracedQuery, read_all};
use serde::{Deserialize, Serialize};

use self::trees::Trees;
use crate::arguments::{at_least_one, seconds};
use crate::corpus::{CorpusQuery, Source, Workload};
use crate::database::Database;
use crate::manifest;
use crate::metrics::{percentile, q_error, sorted};
use crate::queries::{Generator, Kind};
use crate::score::figures::table;
use crate::trace::{ExecuteOptions, Executor, Planners};

mod recorded;
mod trees;

/// Bytes below which all memory counts as the same.
const LEAST_BYTES: f64 = 65_536.0;

/// File beside the executions that says how they were made.
const MANIFEST: &str = "runtimes.json";

/// Seed of the queries to tune on, and the folder of their executions.
const TUNING_SEED: u64 = 7_000;
const TUNING: &str = "tuning";

/// DataFusion's default rows of a batch.
const DEFAULT_BATCH: u32 = 8192;

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
    #[arg(long, value_parser = at_least_one)]
    pub limit: Option<usize>,
    /// Numbers of threads to execute with
    #[arg(long, value_delimiter = ',', default_values_t = [2], value_parser = at_least_one)]
    pub threads: Vec<usize>,
    /// Rows of a batch to execute with; with several settings the fastest is predicted, and relata plans all
    #[arg(long, value_delimiter = ',', default_values_t = [8192], value_parser = at_least_one)]
    pub batch_sizes: Vec<usize>,
    /// Memory that the operators of a query may hold, as in 64m, and spill beyond it
    #[arg(long, value_parser = parse_bytes)]
    pub memory_limit: Option<usize>,
    /// Execute the plans of relata and of DataFusion, instead of one of them by turns, and predict the faster
    #[arg(long)]
    pub both: bool,
    /// Repetitions of an execution
    #[arg(long, default_value_t = 3, value_parser = at_least_one)]
    pub repeat: usize,
    /// Seconds after which an execution is given up
    #[arg(long, default_value_t = 20.0, value_parser = seconds)]
    pub timeout: f64,
    /// Folder that the executions are kept in, one folder per database
    #[arg(long, default_value = ".relata/runtimes")]
    pub output: PathBuf,
    /// Folder with other weights: physical.safetensors and physical.json
    #[arg(long)]
    pub weights: Option<PathBuf>,
    /// Queries of other seeds to execute per database as relata plans them, and tune on before its queries are predicted again;
    /// half of them of each kind, without those that are predicted to take longer than the timeout
    #[arg(long, value_name = "QUERIES", default_value_t = 0)]
    pub tune: usize,
    /// Numbers of queries of a workload to take as recorded, for what they say of the times of its others
    #[arg(long, value_name = "QUERIES", value_delimiter = ',')]
    pub recorded: Vec<usize>,
    /// Folders of traces with executed plans, to train boosted trees on as a baseline
    #[arg(long, value_name = "FOLDER", num_args = 1..)]
    pub trees: Vec<PathBuf>,
    /// Milliseconds that a query takes at least to be scored
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1.0)]
    pub above: f64,
}

/// What decides the executions in a folder beside the databases.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Manifest {
    layout: u32,
    kinds: Vec<String>,
    limit: Option<usize>,
    threads: Vec<usize>,
    batch_sizes: Vec<usize>,
    memory_limit: Option<usize>,
    both: bool,
    repeat: usize,
    timeout: f64,
    /// Queries to tune on; `None` of those that are predicted.
    tune: Option<usize>,
}

impl Manifest {
    fn new(options: &RuntimeOptions, tune: Option<usize>) -> Self {
        Self {
            layout: LAYOUT_VERSION,
            kinds: options.kinds.clone(),
            limit: options.limit,
            threads: options.threads.clone(),
            batch_sizes: options.batch_sizes.clone(),
            memory_limit: options.memory_limit,
            both: options.both,
            repeat: options.repeat,
            timeout: options.timeout,
            tune,
        }
    }

    /// Writes how executions are made, or makes sure that those which are there were made in the same way.
    fn check(&self, output: &Path) -> Result<()> {
        if output.is_dir() && !output.join(MANIFEST).exists() {
            let traces = read_all(output).with_context(|| output.display().to_string())?;
            ensure!(
                traces.iter().all(|trace| trace.executions.is_empty()),
                "{} holds executions, but no {MANIFEST} that says by which options: name another folder with --output",
                output.display()
            );
        }
        manifest::check(output, MANIFEST, self, PartialEq::eq)
    }
}

/// The q-errors of one execution.
#[derive(Debug, Clone)]
struct Scored {
    kind: String,
    /// Of one repetition from the next, where there are two.
    noise: Option<f64>,
    cost: f64,
    trees: Option<f64>,
    estimated: f64,
    /// Predicted over measured time.
    ratio: f64,
    tuned: f64,
    counted: f64,
    covered: bool,
    memory: f64,
    operators: Vec<f64>,
}

/// Executes what has not been executed, and scores all.
///
/// # Errors
/// When the queries or a database cannot be read, when the output holds executions of other options or queries, when no query of a
/// database could be executed, or when the executions cannot be kept.
pub fn run(options: &RuntimeOptions) -> Result<String> {
    let expert = match &options.weights {
        Some(folder) => {
            let read = |name| std::fs::read(folder.join(name)).with_context(|| folder.join(name).display().to_string());
            PhysicalExpert::from_bytes(&read("physical.safetensors")?, &read("physical.json")?)?
        }
        None => PhysicalExpert::pretrained()?,
    };
    let trees = if options.trees.is_empty() { None } else { Some(Trees::train(&options.trees)?) };
    Manifest::new(options, None).check(&options.output)?;
    if options.tune > 0 {
        Manifest::new(options, Some(options.tune)).check(&options.output.join(TUNING))?;
    }
    let (mut scored, mut advised, mut traces) = (vec![], vec![], vec![]);
    for workload in options.source.read_unanswered(&options.kinds)? {
        let queries = of_each_kind(&workload, options.limit);
        let trace = executed(options, &workload, &options.output, &queries, None)?;
        let tuned = tuned(options, &workload, &expert)?;
        for execution in &trace.executions {
            if f64::from(elapsed_us(execution)) < 1000.0 * options.above {
                continue;
            }
            let kind = trace.queries[execution.query as usize].kind.clone();
            let experts = [&expert, tuned.as_ref().unwrap_or(&expert)];
            let trees = trees.as_ref().map(|trees| trees.predict(execution));
            scored.push(score(experts, trees, execution, kind)?);
        }
        for executions in trace.executions.chunk_by(|a, b| a.query == b.query) {
            advised.extend(advise(&expert, executions, options.above)?);
        }
        traces.push(trace.executions);
    }
    Ok(print(&scored) + &print_advice(&advised) + &recorded::measure(&expert, &traces, options)?)
}

/// A query in several ways: its time in the one that the expert predicts to be the fastest, in that of the cost model, and as
/// relata plans it by default, against that in the fastest.
#[derive(Debug, Clone)]
struct Advised {
    expert: f64,
    cost: f64,
    default: f64,
}

/// What the predictions choose among the settings and plans that a query was executed with; `None` for one alone, or a query that
/// takes less than `above` milliseconds.
fn advise(expert: &PhysicalExpert, executions: &[Execution], above: f64) -> Result<Option<Advised>> {
    let times: Vec<f64> = executions.iter().map(|execution| f64::from(elapsed_us(execution))).collect();
    let widest = executions.iter().map(|execution| execution.graph.threads).max();
    let is_default = |one: &Execution| Some(one.graph.threads) == widest && one.graph.batch_size == DEFAULT_BATCH;
    // Relata's plan comes first.
    let Some(default) = executions.iter().position(is_default) else { return Ok(None) };
    if times.len() < 2 || times[default] < 1000.0 * above {
        return Ok(None);
    }
    let predict = |one: &Execution| expert.runtime(&one.graph, &rows(one, false), &one.machine);
    let predicted = executions.iter().map(predict).collect::<Result<Vec<Runtime>, _>>()?;
    let fastest = times.iter().copied().fold(f64::INFINITY, f64::min);
    let regret = |value: fn(&Runtime) -> f64| {
        let chosen = (0..times.len()).min_by(|&a, &b| value(&predicted[a]).total_cmp(&value(&predicted[b])));
        times[chosen.unwrap_or(default)] / fastest
    };
    let (expert, cost) = (regret(|one| one.elapsed_us[1]), regret(|one| one.cost_us));
    Ok(Some(Advised { expert, cost, default: times[default] / fastest }))
}

fn print_advice(advised: &[Advised]) -> String {
    if advised.is_empty() {
        return String::new();
    }
    let row = |name: &str, value: fn(&Advised) -> f64| {
        let values = sorted(advised.iter().map(value).collect());
        let mean = (values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp();
        let at = |share: f64| format!("{:.2}", percentile(&values, share));
        vec![name.to_owned(), advised.len().to_string(), format!("{mean:.3}"), at(50.0), at(90.0), at(95.0)]
    };
    let rows =
        vec![row("expert", |one| one.expert), row("cost model", |one| one.cost), row("default", |one| one.default)];
    let header = ["chosen by", "n", "geo-mean", "50%", "90%", "95%"];
    format!("\n\ntimes against those in the fastest way of each query\n{}", table(&[&header], rows))
}

/// The first `limit` queries of each kind.
fn of_each_kind(workload: &Workload, limit: Option<usize>) -> Vec<TracedQuery> {
    let mut taken: HashMap<String, usize> = HashMap::new();
    let within = |query: &&CorpusQuery| {
        let of_kind = taken.entry(query.kind.clone()).or_default();
        *of_kind += 1;
        limit.is_none_or(|limit| *of_kind <= limit)
    };
    workload.queries.iter().filter(within).map(|query| traced(&query.kind, &query.sql, query.truth)).collect()
}

fn traced(kind: &str, sql: &str, rows: f64) -> TracedQuery {
    TracedQuery { kind: kind.to_owned(), sql: sql.to_owned(), joined: rows, rows, answer: None }
}

/// The expert tuned on queries that the corpus has not, where tuning is asked for and helps.
fn tuned(options: &RuntimeOptions, workload: &Workload, expert: &PhysicalExpert) -> Result<Option<PhysicalExpert>> {
    if options.tune == 0 {
        return Ok(None);
    }
    let database = Database::from_folder(&workload.folder)?;
    let mut generator = Generator::new(&database, TUNING_SEED);
    let mut queries: Vec<TracedQuery> = vec![];
    for kind in [Kind::Seed, Kind::Hard] {
        let found = (0..10 * options.tune).filter_map(|_| generator.query(kind));
        let unseen = found.filter(|query| workload.queries.iter().all(|other| other.sql != query.sql));
        queries.extend(unseen.take(options.tune / 2).map(|query| traced(&kind.to_string(), &query.sql, 0.0)));
    }
    let longest = Some(Duration::try_from_secs_f64(options.timeout)?);
    let trace = executed(options, workload, &options.output.join(TUNING), &queries, longest)?;
    let tuned = tune(expert, &trace.executions, &PhysicalTuneConfig::default(), |_, _| ())?;
    Ok(tuned.accepted().then_some(tuned.expert))
}

/// The executions of queries over a workload's database, from the folder or by executing them; those that are predicted to take
/// more than `longest` are left out.
fn executed(
    options: &RuntimeOptions,
    workload: &Workload,
    output: &Path,
    queries: &[TracedQuery],
    longest: Option<Duration>,
) -> Result<DatabaseTrace> {
    let folder = output.join(&workload.database);
    if folder.is_dir() {
        let trace = DatabaseTrace::read(&folder)?;
        let is_asked = |found: &TracedQuery| queries.iter().any(|query| query.sql == found.sql);
        ensure!(
            trace.queries.iter().all(is_asked),
            "{} holds executions of other queries: name another folder with --output",
            folder.display()
        );
        if !trace.executions.is_empty() {
            return Ok(trace);
        }
    }
    let how = ExecuteOptions {
        threads: options.threads.clone(),
        batch_sizes: options.batch_sizes.clone(),
        memory_limit: options.memory_limit,
        repeat: options.repeat,
        timeout: Duration::try_from_secs_f64(options.timeout)?,
        planners: match options.threads.len() * options.batch_sizes.len() {
            _ if longest.is_some() => Planners::Relata,
            _ if options.both => Planners::Both,
            1 => Planners::Turns,
            _ => Planners::Relata,
        },
    };
    let executor = Executor::over(&workload.folder, None, &how)?;
    let mut trace = DatabaseTrace { name: workload.database.clone(), ..DatabaseTrace::default() };
    let bar = ProgressBar::new(queries.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} queries  {elapsed}  {msg}")?);
    bar.set_message(workload.database.clone());
    for query in queries {
        bar.inc(1);
        if longest.is_some_and(|longest| executor.predicted(&query.sql).is_none_or(|time| time > longest)) {
            continue;
        }
        match executor.execute(trace.queries.len() as u32, &query.sql) {
            Ok(executions) => {
                trace.executions.extend(executions);
                trace.queries.push(query.clone());
            }
            Err(error) => bar.println(format!("{}: {error:#}", query.sql)),
        }
    }
    bar.finish_and_clear();
    if !queries.is_empty() {
        ensure!(
            !trace.executions.is_empty(),
            "none of the {} queries over {} could be executed",
            queries.len(),
            trace.name
        );
        trace.write(&folder)?;
    }
    Ok(trace)
}

/// Scores what the experts, the second of which is tuned, and trees say of an execution.
fn score(
    [expert, tuned]: [&PhysicalExpert; 2],
    trees: Option<f64>,
    execution: &Execution,
    kind: String,
) -> Result<Scored> {
    let predict = |expert: &PhysicalExpert, counted: bool| -> Result<Runtime> {
        Ok(expert.runtime(&execution.graph, &rows(execution, counted), &execution.machine)?)
    };
    let (estimated, counted) = (predict(expert, false)?, predict(expert, true)?);
    let tuned = predict(tuned, false)?.elapsed_us[1];
    let truth = f64::from(elapsed_us(execution));
    let noise = match execution.execution_us[..] {
        [first, second, ..] => Some(q_error(f64::from(first), f64::from(second))),
        _ => None,
    };
    let bytes = (execution.peak_bytes as f64).max(LEAST_BYTES);
    let operators = execution.graph.operators.iter().zip(&execution.observed).zip(&counted.operators_us);
    let operators = operators.filter_map(|((operator, observed), predicted)| {
        let parallel = f64::from(operator.facts.partitions).min(f64::from(execution.graph.threads)).max(1.0);
        let measured = f64::from(observed.elapsed_us?) / parallel;
        (measured > LEAST_OPERATOR_US).then(|| q_error(*predicted, measured))
    });
    Ok(Scored {
        kind,
        noise,
        cost: q_error(estimated.cost_us, truth),
        trees: trees.map(|trees| q_error(trees, truth)),
        estimated: q_error(estimated.elapsed_us[1], truth),
        ratio: estimated.elapsed_us[1] / truth,
        tuned: q_error(tuned, truth),
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
        "boosted trees",
        "expert",
        "predicted / measured",
        "tuned",
        "expert, counted rows",
        "coverage",
        "memory",
        "operators",
    ];
    let row = |kind: Option<&str>| {
        let members: Vec<&Scored> = scored.iter().filter(|one| kind.is_none_or(|kind| one.kind == kind)).collect();
        let errors = |values: Vec<f64>| {
            if values.is_empty() {
                return "-".to_owned();
            }
            let values = sorted(values);
            let at = |share: f64| percentile(&values, share);
            format!("{:.2} / {:.2} / {:.2}", at(50.0), at(90.0), at(95.0))
        };
        let of = |value: &dyn Fn(&Scored) -> f64| errors(members.iter().map(|one| value(one)).collect());
        let covered = members.iter().filter(|one| one.covered).count();
        vec![
            kind.unwrap_or("all").to_owned(),
            members.len().to_string(),
            errors(members.iter().filter_map(|one| one.noise).collect()),
            of(&|one| one.cost),
            errors(members.iter().filter_map(|one| one.trees).collect()),
            of(&|one| one.estimated),
            format!(
                "{:.2}",
                (members.iter().map(|one| one.ratio.ln()).sum::<f64>() / members.len().max(1) as f64).exp()
            ),
            of(&|one| one.tuned),
            of(&|one| one.counted),
            format!("{:.0}%", 100.0 * covered as f64 / members.len().max(1) as f64),
            of(&|one| one.memory),
            errors(members.iter().flat_map(|one| one.operators.iter().copied()).collect()),
        ]
    };
    let rows = kinds.iter().map(|kind| row(Some(kind))).chain([row(None)]).collect();
    format!("q-errors of runtimes at the 50th / 90th / 95th percentile\n{}", table(&[&columns], rows))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::corpus::tests::write_corpus;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: RuntimeOptions,
    }

    fn parse(folder: &Path, more: &[&str]) -> Result<RuntimeOptions, clap::Error> {
        let [corpus, output] = ["corpus", "output"].map(|name| folder.join(name).display().to_string());
        let fixed = ["runtimes", "--kinds", "seed", "--corpus", &corpus, "--output", &output];
        Ok(Command::try_parse_from([&fixed, more].concat())?.options)
    }

    #[test]
    fn executions_are_of_the_same_options() {
        let folder = tempfile::tempdir().unwrap();
        write_corpus(&folder.path().join("corpus"));
        let run = |more: &[&str]| run(&parse(folder.path(), more).unwrap());
        let kept = folder.path().join("output/shop");
        run(&[]).unwrap();
        assert_eq!(DatabaseTrace::read(&kept).unwrap().executions.len(), 1);
        assert!(run(&["--above", "0"]).unwrap().contains("seed"));
        for other in [["--timeout", "9"], ["--batch-sizes", "1024"], ["--limit", "1"]] {
            assert!(run(&other).unwrap_err().to_string().contains("other options"), "{other:?}");
        }
        let queries = folder.path().join("corpus/shop/workload/queries.jsonl");
        let text = std::fs::read_to_string(&queries).unwrap();
        std::fs::write(&queries, text.replace("x < 10", "x < 11")).unwrap();
        assert!(run(&[]).unwrap_err().to_string().contains("other queries"));
        std::fs::remove_file(folder.path().join("output").join(MANIFEST)).unwrap();
        assert!(run(&[]).unwrap_err().to_string().contains("--output"));
        std::fs::remove_dir_all(&kept).unwrap();
        std::fs::write(&queries, text.replace("t.x <", "t.y <")).unwrap();
        assert!(run(&[]).unwrap_err().to_string().contains("none of the 1 queries over shop"));
        assert!(!kept.exists());
    }

    #[test]
    fn nothing_is_no_option() {
        let folder = Path::new("nowhere");
        assert!(parse(folder, &["--memory-limit", "64m"]).is_ok());
        for name in ["--threads", "--batch-sizes", "--repeat", "--timeout"] {
            assert!(parse(folder, &[name, "0"]).is_err(), "{name}");
        }
    }
}
