//! `relata-bench answer`: approximate answers of the corpus' aggregates against the exact ones.
//!
//! Who answers: the naive sample of the corpus (1000 rows per table), relata's samples alone, and relata with the answer head.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use datafusion::arrow::array::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::prelude::SessionContext;
use hashbrown::HashMap;
use indicatif::{ProgressBar, ProgressStyle};
use relata::Relata;
use relata::cli::database::Database;
use relata::cli::session::SessionOptions;
use serde::{Deserialize, Serialize};

use crate::corpus::{CorpusQuery, Source, Workload, read_lines};
use crate::machine::Provenance;
use crate::metrics::{percentile, sorted};

/// File of the figures in the output folder.
pub const FIGURES: &str = "answer.json";

/// Score approximate answers of the corpus' aggregates
#[derive(Debug, Clone, Args)]
pub struct AnswerOptions {
    /// Where the queries come from.
    #[command(flatten)]
    pub source: Source,
    /// Folder for the figures (JSON)
    #[arg(long)]
    pub output: Option<PathBuf>,
}

/// An answer with its 90% interval.
#[derive(Debug, Clone, Copy)]
struct Answered {
    value: f64,
    interval: Option<(f64, f64)>,
}

/// One aggregate with its answers by contender.
#[derive(Debug)]
struct Scored {
    function: String,
    truth: f64,
    answers: BTreeMap<&'static str, Option<Answered>>,
}

/// The answers of one contender for one function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnswerFigure {
    /// The aggregate function, or `all`.
    pub function: String,
    /// Who answers.
    pub contender: String,
    /// Queries with an answer.
    pub n: usize,
    /// Queries without one; they enter no other figure.
    pub missing: usize,
    /// Relative error: 50th, 90th, 95th and 99th percentile.
    pub relative: [f64; 4],
    /// q-error of the absolute values, infinite where the signs differ (`null` in JSON): the same percentiles.
    pub q_error: [Option<f64>; 4],
    /// Share of the exact answers inside their interval.
    pub coverage: Option<f64>,
    /// Median width of the intervals in units of the exact answer.
    pub width: Option<f64>,
}

/// What was measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct AnswerReport {
    /// Where and from what.
    pub provenance: Provenance,
    /// By function and contender.
    pub figures: Vec<AnswerFigure>,
    /// Median time from SQL to relata's answer, in microseconds.
    pub median_us: f64,
}

const SAMPLE: &str = "sample1000";
const SAMPLES: &str = "relata, samples alone";
const RELATA: &str = "relata";

/// Answers every aggregate of the corpus.
///
/// # Errors
/// When the corpus cannot be read, a database cannot be opened, or the figures cannot be written.
pub async fn run(options: &AnswerOptions) -> Result<AnswerReport> {
    let workloads = options.source.read(&["aqp".to_owned()])?;
    let queries: usize = workloads.iter().map(|workload| workload.queries.len()).sum();
    ensure!(queries > 0, "no aggregates");
    let bar = ProgressBar::new(queries as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} aggregates  {per_sec}  {elapsed}  {msg}")?);
    let (mut scored, mut times) = (vec![], vec![]);
    for workload in &workloads {
        bar.set_message(workload.database.clone());
        score(workload, &bar, &mut scored, &mut times).await.with_context(|| workload.database.clone())?;
    }
    bar.finish_and_clear();
    let report = AnswerReport {
        provenance: Provenance::collect(crate::score::weights()),
        figures: figures(&scored),
        median_us: percentile(&sorted(times), 50.0),
    };
    if let Some(folder) = &options.output {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let path = folder.join(FIGURES);
        std::fs::write(&path, serde_json::to_string(&report)? + "\n").with_context(|| path.display().to_string())?;
    }
    Ok(report)
}

#[derive(Debug, Deserialize)]
struct Anchor {
    id: String,
    sample1000: Option<f64>,
}

async fn score(workload: &Workload, bar: &ProgressBar, scored: &mut Vec<Scored>, times: &mut Vec<f64>) -> Result<()> {
    let anchors = workload.folder.join("workload").join("anchors.jsonl");
    let anchors: Vec<Anchor> = if anchors.is_file() { read_lines(&anchors)? } else { vec![] };
    let naive: HashMap<String, f64> =
        anchors.into_iter().filter_map(|anchor| Some((anchor.id, anchor.sample1000?))).collect();
    let database = Database::open(&workload.folder, &SessionOptions::default()).await?;
    let pretrained = Relata::pretrained()?.with_foreign_keys(database.foreign_keys());
    let context = database.context(Some(&pretrained))?;
    pretrained.profile(&context).await?;
    let samples = pretrained.clone().without_answer_head();
    for query in &workload.queries {
        let mut answers = BTreeMap::new();
        answers.insert(SAMPLE, naive.get(&query.id).map(|&value| Answered { value, interval: None }));
        answers.insert(SAMPLES, answer(&samples, &context, query, &mut vec![]).await);
        answers.insert(RELATA, answer(&pretrained, &context, query, times).await);
        let function = query.sql.trim_start_matches("SELECT ").split('(').next().unwrap_or("other").to_owned();
        scored.push(Scored { function, truth: query.truth, answers });
        bar.inc(1);
    }
    Ok(())
}

/// The answer of one query; a failure counts as none.
async fn answer(
    relata: &Relata,
    context: &SessionContext,
    query: &CorpusQuery,
    times: &mut Vec<f64>,
) -> Option<Answered> {
    let start = Instant::now();
    let batches = relata.answer(context, &query.sql).await;
    times.push(start.elapsed().as_secs_f64() * 1e6);
    let batches = batches.map_err(|error| eprintln!("{}: {error}", query.id)).ok()?;
    let number = |column: usize| number(batches.first()?, column);
    Some(Answered { value: number(0)?, interval: number(1).zip(number(2)) })
}

fn number(batch: &RecordBatch, column: usize) -> Option<f64> {
    let value = ScalarValue::try_from_array(batch.columns().get(column)?, 0).ok()?;
    let number = value.cast_to(&datafusion::arrow::datatypes::DataType::Float64).ok()?;
    match number {
        ScalarValue::Float64(number) => number,
        _ => None,
    }
}

fn figures(scored: &[Scored]) -> Vec<AnswerFigure> {
    let mut figures = vec![];
    for function in ["COUNT", "AVG", "SUM", "MIN", "MAX", "all"] {
        let members: Vec<&Scored> =
            scored.iter().filter(|one| function == "all" || one.function.eq_ignore_ascii_case(function)).collect();
        for contender in [SAMPLE, SAMPLES, RELATA] {
            let answered: Vec<(f64, Answered)> =
                members.iter().filter_map(|one| Some((one.truth, (*one.answers.get(contender)?)?))).collect();
            if answered.is_empty() {
                continue;
            }
            let counts = |one: &(f64, Answered)| one.1.interval.map(|ends| (one.0, ends));
            let intervals: Vec<(f64, (f64, f64))> = answered.iter().filter_map(counts).collect();
            let slack = |truth: f64| 1e-9 * truth.abs().max(1e-9);
            let inside = intervals
                .iter()
                .filter(|(truth, (lower, upper))| (lower - slack(*truth)..=upper + slack(*truth)).contains(truth));
            let share = inside.count() as f64 / intervals.len().max(1) as f64;
            let widths = intervals.iter().map(|(truth, (lower, upper))| (upper - lower) / truth.abs().max(1e-12));
            let widths = sorted(widths.collect());
            let relative = answered.iter().map(|(truth, one)| (one.value - truth).abs() / truth.abs().max(1e-12));
            let relative = sorted(relative.collect());
            let q_errors = sorted(answered.iter().map(|(truth, one)| q_error(function, one.value, *truth)).collect());
            let shares = [50.0, 90.0, 95.0, 99.0];
            figures.push(AnswerFigure {
                function: function.to_owned(),
                contender: contender.to_owned(),
                n: answered.len(),
                missing: members.len() - answered.len(),
                relative: shares.map(|share| percentile(&relative, share)),
                q_error: shares.map(|share| Some(percentile(&q_errors, share)).filter(|error| error.is_finite())),
                coverage: (!intervals.is_empty()).then_some(share),
                width: (!intervals.is_empty()).then(|| percentile(&widths, 50.0)),
            });
        }
    }
    figures
}

/// As the corpus' `tools/score.py` has it: counts are at least one row, of other aggregates the absolute values are compared.
fn q_error(function: &str, estimate: f64, truth: f64) -> f64 {
    if function == "COUNT" {
        return crate::metrics::q_error(estimate, truth);
    }
    if (estimate - truth).abs() <= 1e-12 * truth.abs() {
        return 1.0;
    }
    if estimate * truth <= 0.0 {
        return f64::INFINITY;
    }
    (estimate / truth).max(truth / estimate)
}

/// The report as a table.
pub fn print(report: &AnswerReport) -> String {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "function",
        "who",
        "n",
        "missing",
        "q 50%",
        "90%",
        "95%",
        "99%",
        "relative 50%",
        "95%",
        "coverage",
        "width",
    ]);
    for figure in &report.figures {
        let q = |place: usize| figure.q_error[place].map_or("inf".to_owned(), |error| format!("{error:.3}"));
        let optional = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.2}"));
        table.add_row([
            figure.function.clone(),
            figure.contender.clone(),
            figure.n.to_string(),
            figure.missing.to_string(),
            q(0),
            q(1),
            q(2),
            q(3),
            format!("{:.3}", figure.relative[0]),
            format!("{:.2}", figure.relative[2]),
            optional(figure.coverage),
            optional(figure.width),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\nmedian time from SQL to answer: {:.0} us\n", report.median_us)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::tests::{source, write_corpus};

    #[tokio::test(flavor = "multi_thread")]
    async fn answers_are_scored() {
        let corpus = tempfile::tempdir().unwrap();
        write_corpus(corpus.path());
        let output = corpus.path().join("out");
        let options = AnswerOptions { source: source(corpus.path()), output: Some(output.clone()) };
        let report = run(&options).await.unwrap();
        let figure = report.figures.iter().find(|figure| figure.contender == RELATA && figure.function == "AVG");
        let figure = figure.unwrap();
        // The mean of 0..100 is 49.5, known exactly; the corpus says -2.5.
        assert_eq!((figure.n, figure.missing, figure.q_error[0]), (1, 0, None));
        assert!((figure.relative[0] - 52.0 / 2.5).abs() < 1e-9, "{figure:?}");
        assert_eq!((figure.coverage, figure.width), (Some(0.0), Some(0.0)));
        assert!(print(&report).contains("| AVG"));
        let read: AnswerReport = serde_json::from_str(&std::fs::read_to_string(output.join(FIGURES)).unwrap()).unwrap();
        assert_eq!(read.figures, report.figures);
    }

    #[test]
    fn q_errors_of_answers_compare_sizes() {
        let is = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
        is(q_error("AVG", -4.0, -2.0), 2.0);
        is(q_error("AVG", 0.0, 0.0), 1.0);
        assert!(q_error("SUM", -1.0, 2.0).is_infinite() && q_error("MIN", 0.0, 2.0).is_infinite());
        is(q_error("COUNT", 0.0, 2.0), 2.0);
    }
}
