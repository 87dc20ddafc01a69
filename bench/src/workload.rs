//! `relata-bench queries`: a workload with exact answers, in the format of the corpus.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use relata_experts::prior::{PriorConfig, generate};
use relata_featurize::profile::ProfileConfig;
use serde::Serialize;

use crate::database::Database;
use crate::queries::{Generator, Kind, Query};
use crate::trace::{LabelledQuery, Labeller, Outcome, parse_range};

/// Write queries with their exact answers as JSON lines
#[derive(Debug, Clone, Args)]
pub struct WorkloadOptions {
    /// Folder of Parquet files with a schema.json
    #[arg(long, conflicts_with = "synthetic", required_unless_present = "synthetic")]
    pub database: Option<PathBuf>,
    /// Seed of a database of the relational prior
    #[arg(long)]
    pub synthetic: Option<u64>,
    /// Seed of the queries
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Queries of each kind
    #[arg(long, default_value_t = 100)]
    pub queries: usize,
    /// Kinds of queries
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["seed", "hard", "group"])]
    pub kinds: Vec<Kind>,
    /// Joins of each query, such as 5..11, instead of those of its kind
    #[arg(long, value_name = "LEAST..MOST", value_parser = parse_range)]
    pub joins: Option<(usize, usize)>,
    /// File to write to
    #[arg(long)]
    pub output: PathBuf,
    /// File for the connected sub-joins of the queries
    #[arg(long)]
    pub subplans: Option<PathBuf>,
}

/// Most sub-joins of a query.
const MOST_SUB_PLANS: usize = 128;

/// A line of the workload.
#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    query: Query,
    /// The aggregate of an `aqp` query, else the rows of the result, or under `COUNT(*)` the rows that are counted.
    true_value: f64,
    /// Rows of the result, or under an aggregate of everything the rows that are aggregated.
    true_rows: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_rows: Option<f64>,
}

/// A sub-join of a query.
#[derive(Debug, Serialize)]
struct SubPlanLine {
    id: String,
    tables: Vec<String>,
    sql: String,
    true_value: f64,
}

/// Writes a workload and says how many queries it has.
///
/// # Errors
/// When the database cannot be read, or the file cannot be written.
pub async fn run(options: &WorkloadOptions) -> Result<usize> {
    let database = match (&options.database, options.synthetic) {
        (Some(folder), _) => Database::from_folder(folder)?,
        (None, Some(seed)) => Database::from_synthetic(&generate(&PriorConfig::default(), seed)?)?,
        (None, None) => anyhow::bail!("no database: give --database DIR or --synthetic SEED"),
    };
    ensure!(!options.kinds.is_empty(), "no kinds");
    let mut file = create(&options.output)?;
    let mut sub_plans = options.subplans.as_deref().map(create).transpose()?;
    let mut generator = Generator::new(&database, options.seed);
    generator.joins = options.joins;
    let mut labeller = Labeller::new(&database, options.seed, MOST_SUB_PLANS, &ProfileConfig::default())?;
    let mut written = 0;
    for &kind in &options.kinds {
        let mut left = options.queries;
        for _ in 0..10 * options.queries {
            let Some(query) = generator.query(kind).filter(|_| left > 0) else { continue };
            let Outcome::Labelled(labelled) = labeller.label(&query).await? else { continue };
            let LabelledQuery { joined, rows, answer, mut sub_joins, .. } = *labelled;
            if let Some(file) = &mut sub_plans {
                sub_joins.retain(|(names, _)| names.len() > 1);
                for (number, (names, true_value)) in sub_joins.into_iter().enumerate() {
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    let Some(sql) = query.statement.sub_join(&names) else { continue };
                    let tables = names.iter().filter_map(|name| query.statement.table(name)).collect();
                    let line = SubPlanLine { id: format!("{}.s{number:02}", query.id), tables, sql, true_value };
                    writeln!(file, "{}", serde_json::to_string(&line)?)?;
                }
            }
            let input_rows = matches!(kind, Kind::Group | Kind::Distinct | Kind::Having).then_some(joined);
            let line = Line { query, true_value: answer.unwrap_or(rows), true_rows: rows, input_rows };
            writeln!(file, "{}", serde_json::to_string(&line)?)?;
            left -= 1;
            written += 1;
        }
    }
    file.flush()?;
    sub_plans.map_or(Ok(()), |mut file| file.flush())?;
    Ok(written)
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    Ok(BufWriter::new(File::create(path).with_context(|| path.display().to_string())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn queries_can_have_many_joins() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("queries.jsonl");
        let options = WorkloadOptions {
            database: None,
            synthetic: Some(4),
            seed: 1,
            queries: 4,
            kinds: vec![Kind::Hard],
            joins: Some((5, 11)),
            output: output.clone(),
            subplans: None,
        };
        assert_eq!(run(&options).await.unwrap(), 4);
        let lines: Vec<serde_json::Value> = crate::corpus::read_lines(&output).unwrap();
        for line in &lines {
            let tables = line["tables"].as_array().unwrap().len();
            assert!((6..=12).contains(&tables) && line["true_value"].as_f64().is_some_and(f64::is_finite), "{line}");
        }
    }

    #[tokio::test]
    async fn lines_have_the_keys_of_the_corpus() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("queries.jsonl");
        let options = WorkloadOptions {
            database: None,
            synthetic: Some(4),
            seed: 1,
            queries: 5,
            kinds: vec![Kind::Seed, Kind::Group],
            joins: None,
            output: output.clone(),
            subplans: Some(folder.path().join("subplans.jsonl")),
        };
        assert_eq!(run(&options).await.unwrap(), 10);
        let text = std::fs::read_to_string(&output).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.iter().all(|line| line["true_value"].is_number() && line["tables"].is_array()));
        assert_eq!((&lines[0]["kind"], &lines[9]["kind"]), (&"seed".into(), &"group".into()));
        assert!(lines[9]["input_rows"].is_number() && lines[0].get("input_rows").is_none());
        let text = std::fs::read_to_string(folder.path().join("subplans.jsonl")).unwrap();
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let (id, _) = line["id"].as_str().unwrap().rsplit_once(".s").unwrap();
            assert!(lines.iter().any(|query| query["id"] == id));
            assert!(
                line["sql"].as_str().unwrap().starts_with("SELECT COUNT(*) FROM ") && line["true_value"].is_number()
            );
        }
    }
}
