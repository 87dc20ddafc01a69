//! `relata-bench queries`: a workload with exact answers, in the format of the corpus.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use relata_experts::prior::{PriorConfig, generate};
use serde::Serialize;

use crate::database::Database;
use crate::queries::{Generator, Kind, Query};
use crate::trace::{Labeller, Outcome};

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
    /// File to write to
    #[arg(long)]
    pub output: PathBuf,
}

/// A line of the workload.
#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    query: Query,
    /// Rows of the result; under `COUNT(*)` the rows that are counted.
    true_value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_rows: Option<f64>,
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
    let file = std::fs::File::create(&options.output).with_context(|| options.output.display().to_string())?;
    let mut file = BufWriter::new(file);
    let mut generator = Generator::new(&database, options.seed);
    let mut labeller = Labeller::new(&database, options.seed, 1)?;
    let mut written = 0;
    for &kind in &options.kinds {
        let mut left = options.queries;
        for _ in 0..10 * options.queries {
            let Some(query) = generator.query(kind).filter(|_| left > 0) else { continue };
            let Outcome::Labelled { rows, groups, .. } = labeller.label(&query.sql).await? else { continue };
            let line = Line { query, true_value: groups.unwrap_or(rows), input_rows: groups.map(|_| rows) };
            writeln!(file, "{}", serde_json::to_string(&line)?)?;
            left -= 1;
            written += 1;
        }
    }
    file.flush()?;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            output: output.clone(),
        };
        assert_eq!(run(&options).await.unwrap(), 10);
        let text = std::fs::read_to_string(&output).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.iter().all(|line| line["true_value"].is_number() && line["tables"].is_array()));
        assert_eq!((&lines[0]["kind"], &lines[9]["kind"]), (&"seed".into(), &"group".into()));
        assert!(lines[9]["input_rows"].is_number() && lines[0].get("input_rows").is_none());
    }
}
