//! `relata-bench`: labelled queries to train on, and figures to judge by.
#![expect(clippy::print_stdout, reason = "results go to standard output")]

use anyhow::Result;
use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;
use relata_bench::ablations::{self, AblationsOptions};
use relata_bench::answers::{self, AnswerOptions};
use relata_bench::baseline::fit::{self, BaselineOptions};
use relata_bench::calibrate::{self, CalibrateOptions};
use relata_bench::compare::{self, CompareOptions};
use relata_bench::layout::{self, LayoutOptions};
use relata_bench::marginals::{self, MarginalsOptions};
use relata_bench::predict::{self, PredictOptions};
use relata_bench::prior::{self, PriorOptions};
use relata_bench::profiling::{self, ProfilingOptions};
use relata_bench::reconstruct::{self, ReconstructOptions};
use relata_bench::report::{self, ReportOptions};
use relata_bench::run::{self, RunOptions};
use relata_bench::runtimes::{self, RuntimeOptions};
use relata_bench::score::{self, ScoreOptions};
use relata_bench::tables::{self, TablesOptions};
use relata_bench::tasks::synthetic::{self, TasksOptions};
use relata_bench::trace::{self, Skip, TraceOptions};
use relata_bench::tune::{self, TuneOptions};
use relata_bench::workload::{self, WorkloadOptions};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Databases, labelled queries and the yardstick of relata
#[derive(Debug, Parser)]
#[command(name = "relata-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write tables for the pre-training of the data expert
    Tables(TablesOptions),
    /// Restore histograms and masked cells of the corpus' databases of role "eval"
    Reconstruct(ReconstructOptions),
    /// Write prediction tasks over databases of the relational prior
    Tasks(TasksOptions),
    /// Label queries over synthetic databases and databases in folders
    Trace(TraceOptions),
    /// Write queries with their exact answers as JSON lines
    Queries(WorkloadOptions),
    /// Score the estimates of the corpus' queries
    Estimate(ScoreOptions),
    /// Score approximate answers of the corpus' aggregates
    Answer(AnswerOptions),
    /// Score predictions with few examples
    Predict(PredictOptions),
    /// Write databases of the relational prior as folders of Parquet files
    Prior(PriorOptions),
    /// Compare the relational prior with the corpus' databases of role "train"
    Marginals(MarginalsOptions),
    /// Time the building of profiles beside reading the tables
    Profile(ProfilingOptions),
    /// Time queries under DataFusion's default and under relata, in turns
    Run(RunOptions),
    /// Compare the advised orders of tables with measured times
    Layout(LayoutOptions),
    /// Score predicted runtimes of the corpus' queries
    Runtimes(RuntimeOptions),
    /// Measure what tuning on a database's own queries gains
    Tune(TuneOptions),
    /// Measure joins and fit the constants of the cost model
    Calibrate(CalibrateOptions),
    /// Fit the linear baseline to traces
    Baseline(BaselineOptions),
    /// Write tables and pictures of measurements
    Report(ReportOptions),
    /// Write the page of ablations that `bench/ablations` measures
    Ablations(AblationsOptions),
    /// Say what got better or worse; exit code 1 if a figure got worse by more than the threshold
    Compare(CompareOptions),
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Trace(options) => {
            let report = tokio::task::spawn_blocking(move || trace::run(&options)).await??;
            let rate = report.queries as f64 / report.seconds.max(1e-9);
            println!(
                "{} databases traced, {} were complete; {} queries with {} labels in {:.1} s, {rate:.0} queries/s",
                report.databases, report.complete, report.queries, report.labels, report.seconds
            );
            if report.executions > 0 {
                println!("{} executions measured", report.executions);
            }
            let skipped: Vec<String> = Skip::ALL
                .iter()
                .filter_map(|skip| report.skipped.get(skip).map(|count| format!("{count} {}", skip.name())))
                .collect();
            println!("without labels: {}", skipped.join(", "));
        }
        Command::Tables(options) => {
            let report = tokio::task::spawn_blocking(move || tables::run(&options)).await??;
            println!(
                "{} databases written, {} were complete; {} tables with {} histograms in {:.1} s",
                report.databases, report.complete, report.tables, report.histograms, report.seconds
            );
        }
        Command::Tasks(options) => {
            let report = tokio::task::spawn_blocking(move || synthetic::run(&options)).await??;
            println!(
                "{} tasks written in {:.1} s, {} databases were complete",
                report.tasks, report.seconds, report.complete
            );
        }
        Command::Reconstruct(options) => {
            let report = tokio::task::spawn_blocking(move || reconstruct::run(&options)).await??;
            print!("{}", reconstruct::markdown(&report));
        }
        Command::Queries(options) => {
            println!("{} queries", workload::run(&options).await?);
        }
        Command::Prior(options) => {
            let report = tokio::task::spawn_blocking(move || prior::run(&options)).await??;
            let rate = report.rows as f64 / report.seconds.max(1e-9);
            println!(
                "{} databases written, {} were complete; {} tables with {} rows in {:.1} s, {rate:.0} rows/s",
                report.databases, report.complete, report.tables, report.rows, report.seconds
            );
        }
        Command::Marginals(options) => {
            let report = tokio::task::spawn_blocking(move || marginals::run(&options)).await??;
            println!("{}", marginals::markdown(&report));
        }
        Command::Predict(options) => {
            println!("{}", tokio::task::spawn_blocking(move || predict::run(&options)).await??);
        }
        Command::Layout(options) => println!("{}", layout::run(&options).await?),
        Command::Runtimes(options) => {
            println!("{}", tokio::task::spawn_blocking(move || runtimes::run(&options)).await??);
        }
        Command::Answer(options) => print!("{}", answers::print(&answers::run(&options).await?)),
        Command::Profile(options) => print!("{}", profiling::print(&profiling::run(&options).await?)),
        Command::Run(options) => print!("{}", run::table::print(&run::run(&options).await?, options.above)),
        Command::Tune(options) => print!("{}", tune::print(&tune::run(&options).await?)),
        Command::Calibrate(options) => println!("{}", calibrate::calibrate(&options).await?),
        Command::Baseline(options) => {
            let linear = fit::run(&options)?;
            for (kind, regression) in ["filter", "join", "aggregate"].iter().zip(&linear.regressions) {
                let Some(regression) = regression else { continue };
                let (before, after) = regression.deviation;
                println!("{kind}: {} nodes, residual {before:.3} -> {after:.3}", regression.nodes);
            }
        }
        Command::Report(options) => report::run(&options)?,
        Command::Ablations(options) => ablations::run(&options)?,
        Command::Compare(options) => {
            let changes = compare::run(&options)?;
            print!("{}", changes.print());
            if !changes.acceptable() {
                std::process::exit(1);
            }
        }
        Command::Estimate(options) => {
            let report = score::run(&options).await?;
            print!("{}{}", score::print(&report.figures), score::p_error::print(&report.p_errors));
            let failed = report.estimates.iter().flat_map(|query| query.errors.iter().map(|error| (&query.id, error)));
            for (id, (contender, error)) in failed.take(5) {
                eprintln!("{id}, {contender}: {error}");
            }
            println!("median time from SQL to estimate: {:.0} us", report.median_planning_us);
        }
    }
    Ok(())
}
