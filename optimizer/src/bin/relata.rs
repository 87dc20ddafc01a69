//! The command `relata`: SQL, profiles, estimates and comparisons over a folder of Parquet or CSV files.
//!
//! Exit codes: 0 when everything asked for was done, 1 when something failed, 2 for wrong arguments.

use std::fmt::Display;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use relata::cli::session::{STACK_BYTES, SessionOptions, parse_bytes};
use relata::cli::terminal::Terminal;
use relata::cli::{CliError, Outcome, advise, answer, demo, estimate, explain, predict, profile, run, sql, tune};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A learned query optimizer for DataFusion.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// Only print results, warnings and errors
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Partitions a query runs in [default: one per core]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Memory that queries may hold, such as 800m or 4g [default: no limit]
    #[arg(long, global = true, value_name = "SIZE", value_parser = parse_bytes)]
    memory_limit: Option<usize>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows relata against DataFusion's defaults on a generated database (the default command)
    Demo(demo::DemoArgs),
    /// Runs SQL with relata on, or opens a shell
    Sql(sql::SqlArgs),
    /// Builds and stores the profiles of a database and lists its keys
    Profile(profile::ProfileArgs),
    /// Estimates the rows of a file of queries without running them
    Estimate(estimate::EstimateArgs),
    /// Answers a file of aggregating queries approximately, without running them
    Answer(answer::AnswerArgs),
    /// Predicts a column of a database from labelled examples, without training
    Predict(Box<predict::PredictArgs>),
    /// Shows a plan with relata's rows and intervals next to DataFusion's
    Explain(explain::ExplainArgs),
    /// Compares settings for a query, or orders of tables for a file of queries, without running any
    Advise(advise::AdviseArgs),
    /// Runs a file of queries and times them, under one optimizer or both
    Run(run::RunArgs),
    /// Adapts the model to a database by running a file of queries, or removes what was adapted
    Tune(tune::TuneArgs),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match execute(arguments) {
        Ok(Outcome::Success) => ExitCode::SUCCESS,
        Ok(Outcome::Failures) => ExitCode::FAILURE,
        Err(error) => match error.downcast_ref::<CliError>() {
            Some(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
            // Its text names the causes already.
            Some(error) => failure(error),
            None => failure(format_args!("{error:#}")),
        },
    }
}

fn failure(error: impl Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

/// Starts the workers that plan and run queries, and runs the command on a thread of its own beside them: it stays awake to
/// give up a query when all workers are inside of it.
fn execute(arguments: Arguments) -> anyhow::Result<Outcome> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().thread_stack_size(STACK_BYTES);
    if let Some(threads) = arguments.threads {
        builder.worker_threads(threads as usize);
    }
    let runtime = builder.build().context("cannot start the worker threads")?;
    let workers = runtime.handle().clone();
    let command = std::thread::Builder::new()
        .name("command".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || workers.block_on(command(arguments)))
        .context("cannot start the command's thread")?;
    let outcome = command.join();
    // Queries that were given up may still be at work; their threads end with the process.
    runtime.shutdown_background();
    match outcome {
        Ok(outcome) => Ok(outcome?),
        Err(_) => anyhow::bail!("the command panicked"),
    }
}

async fn command(arguments: Arguments) -> Result<Outcome, CliError> {
    let threads = arguments.threads.map(|threads| threads as usize);
    let options = SessionOptions::new(threads, arguments.memory_limit)?;
    let mut terminal = Terminal::standard(arguments.quiet);
    match arguments.command.unwrap_or_else(|| Command::Demo(demo::DemoArgs::default())) {
        Command::Demo(args) => demo::demo(&args, &options, &mut terminal).await,
        Command::Sql(args) => sql::sql(&args, &options, &mut terminal).await,
        Command::Profile(args) => profile::profile(&args, &options, &mut terminal).await,
        Command::Estimate(args) => estimate::estimate(&args, &options, &mut terminal).await,
        Command::Answer(args) => answer::answer(&args, &options, &mut terminal).await,
        Command::Predict(args) => predict::predict(&args, &options, &mut terminal).await,
        Command::Explain(args) => explain::explain(&args, &options, &mut terminal).await,
        Command::Advise(args) => advise::advise(&args, &options, &mut terminal).await,
        Command::Run(args) => run::run(&args, &options, &mut terminal).await,
        Command::Tune(args) => tune::tune(&args, &options, &mut terminal).await,
    }
}
