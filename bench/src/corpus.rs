//! The corpus' workloads: queries with exact answers, and what other systems estimate for them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use hashbrown::HashMap;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A query with its exact answer.
#[derive(Debug, Clone, PartialEq)]
pub struct CorpusQuery {
    /// Unique in the corpus.
    pub id: String,
    /// `seed`, `hard` and so on; for parts of a query the number of its tables, as in `3 tables`.
    pub group: String,
    /// The query.
    pub sql: String,
    /// Rows of the result; under `COUNT(*)` the rows that are counted.
    pub truth: f64,
    /// PostgreSQL's estimate.
    pub postgres: Option<f64>,
    /// DuckDB's estimate.
    pub duckdb: Option<f64>,
}

/// The queries of one database.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// The database's name.
    pub database: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Its queries, in the order of the file.
    pub queries: Vec<CorpusQuery>,
}

#[derive(Debug, Deserialize)]
struct QueryEntry {
    id: String,
    kind: String,
    sql: String,
    true_value: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct AnchorEntry {
    id: String,
    postgres: Option<f64>,
    duckdb: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct SubplanEntry {
    id: String,
    tables: Vec<String>,
    sql: String,
    true_value: f64,
    postgres: Option<f64>,
    duckdb: Option<f64>,
}

/// Which part of the workloads is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Whole queries of these kinds.
    Queries(Vec<String>),
    /// The connected sub-joins of the hard queries.
    Subplans,
}

/// Reads the workloads of the databases called `names`, or of every database that has one, in order of name.
///
/// # Errors
/// When there is no corpus, a named database has no workload, or a file is damaged.
pub fn read_workloads(corpus: &Path, names: &[String], part: &Part) -> Result<Vec<Workload>> {
    let entries = std::fs::read_dir(corpus).with_context(|| {
        format!("no corpus at {}: give the folder that holds the databases with --corpus", corpus.display())
    })?;
    let mut databases = vec![];
    for entry in entries {
        let folder = entry?.path();
        if folder.join("workload").join("queries.jsonl").is_file() {
            databases.push(folder);
        }
    }
    databases.sort();
    ensure!(!databases.is_empty(), "{} holds no database with workload/queries.jsonl", corpus.display());
    let name = |folder: &Path| folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if let Some(missing) = names.iter().find(|wanted| databases.iter().all(|folder| name(folder) != **wanted)) {
        bail!("no workload of {missing} in {}", corpus.display());
    }
    databases
        .into_iter()
        .filter(|folder| names.is_empty() || names.contains(&name(folder)))
        .map(|folder| {
            let queries = match part {
                Part::Queries(kinds) => read_queries(&folder.join("workload"), kinds)?,
                Part::Subplans => read_subplans(&folder.join("workload"))?,
            };
            Ok(Workload { database: name(&folder), folder, queries })
        })
        .collect()
}

fn read_queries(folder: &Path, kinds: &[String]) -> Result<Vec<CorpusQuery>> {
    let anchors: Vec<AnchorEntry> = read_lines(&folder.join("anchors.jsonl"))?;
    let anchors: HashMap<String, AnchorEntry> = anchors.into_iter().map(|entry| (entry.id.clone(), entry)).collect();
    let entries: Vec<QueryEntry> = read_lines(&folder.join("queries.jsonl"))?;
    let wanted = entries.into_iter().filter(|entry| kinds.contains(&entry.kind));
    wanted
        .map(|entry| {
            let anchor = anchors.get(&entry.id);
            Ok(CorpusQuery {
                truth: entry.true_value.with_context(|| format!("{} has no answer", entry.id))?,
                postgres: anchor.and_then(|anchor| anchor.postgres),
                duckdb: anchor.and_then(|anchor| anchor.duckdb),
                id: entry.id,
                group: entry.kind,
                sql: entry.sql,
            })
        })
        .collect()
}

fn read_subplans(folder: &Path) -> Result<Vec<CorpusQuery>> {
    let entries: Vec<SubplanEntry> = read_lines(&folder.join("subplans.jsonl"))?;
    let query = |entry: SubplanEntry| CorpusQuery {
        id: entry.id,
        group: format!("{} tables", entry.tables.len()),
        sql: entry.sql,
        truth: entry.true_value,
        postgres: entry.postgres,
        duckdb: entry.duckdb,
    };
    Ok(entries.into_iter().map(query).collect())
}

fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            serde_json::from_str(line).with_context(|| format!("{}, line {}", path.display(), number + 1))
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Writes a corpus of one database, `shop`, with two queries and a sub-plan.
    pub(crate) fn write_corpus(corpus: &Path) {
        let workload = corpus.join("shop").join("workload");
        std::fs::create_dir_all(&workload).unwrap();
        let write = |name: &str, text: &str| std::fs::write(workload.join(name), text).unwrap();
        write(
            "queries.jsonl",
            "{\"id\":\"q1\",\"kind\":\"seed\",\"sql\":\"SELECT COUNT(*) FROM t AS t WHERE t.x < 10\",\"true_value\":10}\n\n\
             {\"id\":\"q2\",\"kind\":\"aqp\",\"sql\":\"SELECT AVG(t.x) FROM t AS t\",\"true_value\":-2.5}\n",
        );
        write("anchors.jsonl", "{\"id\":\"q1\",\"postgres\":12,\"duckdb\":null}\n");
        write(
            "subplans.jsonl",
            "{\"id\":\"q1.s01\",\"tables\":[\"t\",\"t\"],\"sql\":\"SELECT COUNT(*) FROM t AS t, t AS t2 WHERE t.x = t2.x\",\
             \"true_value\":100,\"postgres\":1,\"duckdb\":2}\n",
        );
    }

    #[test]
    fn reads_queries_with_anchors() {
        let corpus = tempfile::tempdir().unwrap();
        write_corpus(corpus.path());
        std::fs::create_dir(corpus.path().join("tools")).unwrap();
        let kinds = Part::Queries(vec!["seed".to_owned(), "hard".to_owned()]);
        let workloads = read_workloads(corpus.path(), &[], &kinds).unwrap();
        assert_eq!((workloads.len(), workloads[0].queries.len()), (1, 1));
        let query = &workloads[0].queries[0];
        assert_eq!((query.postgres, query.duckdb, query.group.as_str()), (Some(12.0), None, "seed"));
        let subplans = read_workloads(corpus.path(), &["shop".to_owned()], &Part::Subplans).unwrap();
        assert_eq!(subplans[0].queries[0].group, "2 tables");
        let missing = read_workloads(corpus.path(), &["shop2".to_owned()], &kinds).unwrap_err();
        assert!(missing.to_string().contains("no workload of shop2"));
    }

    #[test]
    fn says_where_there_is_no_corpus() {
        let error = read_workloads(Path::new("/nonexistent"), &[], &Part::Subplans).unwrap_err();
        assert!(error.to_string().contains("no corpus at /nonexistent"));
        let empty = tempfile::tempdir().unwrap();
        assert!(
            read_workloads(empty.path(), &[], &Part::Subplans).unwrap_err().to_string().contains("holds no database")
        );
    }
}
