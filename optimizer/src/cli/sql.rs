//! `relata sql`: runs SQL with relata on, once or in a shell.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::pretty::pretty_format_batches_with_options;
use datafusion::arrow::{csv, json};
use datafusion::common::format::DEFAULT_FORMAT_OPTIONS;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;

use super::error::{Outcome, Result};
use super::open::DatabaseArgs;
use super::profile::duration;
use super::session::SessionOptions;
use super::shell::{self, Shell};
use super::terminal::Terminal;

/// Rows a person is shown of each result.
const ROWS_SHOWN: usize = 40;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ResultFormat {
    /// A drawn table.
    Table,
    /// CSV with a header.
    Csv,
    /// One JSON object a row.
    Json,
}

/// Arguments of `relata sql`.
#[derive(Debug, Clone, clap::Args)]
pub struct SqlArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// How results are written
    #[arg(long, value_enum, default_value_t = ResultFormat::Table)]
    format: ResultFormat,
    /// Most rows a table shows, 0 for all of them [default: 40 on a terminal, else all]
    #[arg(long, value_name = "N")]
    maxrows: Option<usize>,
    /// Statements to run, separated by ';' [default: an interactive shell, or statements from standard input]
    #[arg(value_name = "SQL")]
    sql: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// The database does not open, a statement given on the command line fails, or the output cannot be written.
pub async fn sql(args: &SqlArgs, options: &SessionOptions, terminal: &mut Terminal) -> Result<Outcome> {
    let profiled = args.database.open_profiled(options, terminal).await?;
    let printer = Printer::new(args.format, args.maxrows, terminal);
    match &args.sql {
        Some(text) => {
            let (mut statements, rest) = shell::split(text);
            statements.extend(rest);
            for statement in statements {
                printer.run(&profiled.ctx, &statement, terminal).await?;
            }
            Ok(Outcome::Success)
        }
        None => Shell::new(&profiled, printer).run(terminal).await,
    }
}

/// Runs statements and writes their results.
#[derive(Debug, Clone, Copy)]
pub(super) struct Printer {
    format: ResultFormat,
    shown: usize,
}

impl Printer {
    /// Of so many rows of a table at most, 0 for all of them; by default as many as a person reads on a terminal, else all.
    pub(super) fn new(format: ResultFormat, rows: Option<usize>, terminal: &Terminal) -> Self {
        let default = if terminal.interactive { ROWS_SHOWN } else { 0 };
        let shown = match rows.unwrap_or(default) {
            0 => usize::MAX,
            rows => rows,
        };
        Self { format, shown }
    }

    /// Runs one statement and writes its result.
    pub(super) async fn run(self, ctx: &SessionContext, sql: &str, terminal: &mut Terminal) -> Result<()> {
        let start = Instant::now();
        let (state, plan) = ctx.sql(sql).await?.into_parts();
        let plan = state.create_physical_plan(&plan).await?;
        let planning = start.elapsed();
        let stream = execute_stream(plan, state.task_ctx())?;
        let rows = self.write(stream, terminal).await?;
        terminal.note(summary(rows, self.shown, planning, start.elapsed()));
        Ok(())
    }

    /// Writes a result and says how many rows it has.
    pub(super) async fn write(self, stream: SendableRecordBatchStream, terminal: &mut Terminal) -> Result<usize> {
        let rows = match self.format {
            ResultFormat::Table => self.write_table(stream, terminal).await?,
            ResultFormat::Csv => write_csv(stream, terminal).await?,
            ResultFormat::Json => write_json(stream, terminal).await?,
        };
        terminal.flush()?;
        Ok(rows)
    }

    /// Keeps no more rows than are shown.
    async fn write_table(self, mut stream: SendableRecordBatchStream, terminal: &mut Terminal) -> Result<usize> {
        let mut batches = vec![RecordBatch::new_empty(stream.schema())];
        let (mut rows, mut kept) = (0, 0);
        while let Some(batch) = stream.try_next().await? {
            rows += batch.num_rows();
            let wanted = batch.num_rows().min(self.shown - kept);
            kept += wanted;
            if wanted > 0 {
                batches.push(batch.slice(0, wanted));
            }
        }
        // Statements such as CREATE VIEW answer with no columns at all.
        if batches.iter().any(|batch| batch.num_columns() > 0) {
            terminal.line(pretty_format_batches_with_options(&batches, &DEFAULT_FORMAT_OPTIONS)?)?;
        }
        Ok(rows)
    }
}

async fn write_csv(mut stream: SendableRecordBatchStream, terminal: &mut Terminal) -> Result<usize> {
    let mut rows = 0;
    let schema = stream.schema();
    let mut writer = csv::WriterBuilder::new().with_header(true).build(terminal.results());
    writer.write(&RecordBatch::new_empty(schema))?;
    while let Some(batch) = stream.try_next().await? {
        rows += batch.num_rows();
        writer.write(&batch)?;
    }
    Ok(rows)
}

async fn write_json(mut stream: SendableRecordBatchStream, terminal: &mut Terminal) -> Result<usize> {
    let mut rows = 0;
    let mut writer = json::LineDelimitedWriter::new(terminal.results());
    while let Some(batch) = stream.try_next().await? {
        rows += batch.num_rows();
        writer.write(&batch)?;
    }
    writer.finish()?;
    Ok(rows)
}

fn summary(rows: usize, shown: usize, planning: Duration, total: Duration) -> String {
    let plural = if rows == 1 { "row" } else { "rows" };
    let first = if rows > shown { format!(" (first {shown} shown)") } else { String::new() };
    format!("{rows} {plural}{first} in {}, of which planning {}", duration(total), duration(planning))
}
