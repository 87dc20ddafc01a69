//! The corpus' workloads: queries with exact answers, and what other systems estimate for them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use hashbrown::HashMap;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::queries::Kind;

/// The kind of the connected sub-joins of the hard queries.
pub const SUBPLAN: &str = "subplan";

/// A query with its exact answer.
#[derive(Debug, Clone, PartialEq)]
pub struct CorpusQuery {
    /// Unique in the corpus.
    pub id: String,
    /// `seed`, `hard` and so on; [`SUBPLAN`] for parts of a query.
    pub kind: String,
    /// Number of joined tables.
    pub tables: usize,
    /// The query.
    pub sql: String,
    /// Rows of the result; under `COUNT(*)` the rows that are counted. NaN where nobody has counted them.
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

/// Where queries come from.
#[derive(Debug, Clone, Args)]
pub struct Source {
    /// Folder of the corpus
    #[arg(long, default_value = "../shared/corpus")]
    pub corpus: PathBuf,
    /// Databases of the corpus [default: every one with a workload]
    #[arg(long, num_args = 1..)]
    pub database: Vec<String>,
    /// Folder of Parquet or CSV files to query instead of the corpus
    #[arg(long, requires = "queries", conflicts_with_all = ["corpus", "database"])]
    pub folder: Option<PathBuf>,
    /// File of the queries over it, as `relata-bench queries` writes them
    #[arg(long, requires = "folder")]
    pub queries: Option<PathBuf>,
    /// Folder of files DATABASE.jsonl with queries over databases of the corpus, instead of the corpus' own
    #[arg(long, value_name = "DIR", conflicts_with = "folder")]
    pub workloads: Option<PathBuf>,
}

impl Source {
    /// Reads the queries of these kinds, [`SUBPLAN`] among them; of a file, all.
    ///
    /// # Errors
    /// When there is no corpus or no query, a named database has no workload, a kind is unknown, a file is damaged, or a query has
    /// no answer.
    pub fn read(&self, kinds: &[String]) -> Result<Vec<Workload>> {
        let workloads = self.read_unanswered(kinds)?;
        let unanswered = workloads.iter().flat_map(|workload| &workload.queries).find(|query| query.truth.is_nan());
        match unanswered {
            Some(query) => bail!("{} has no answer", query.id),
            None => Ok(workloads),
        }
    }

    /// The same for who needs no answers.
    ///
    /// # Errors
    /// When there is no corpus or no query, a named database has no workload, a kind is unknown, or a file is damaged.
    pub fn read_unanswered(&self, kinds: &[String]) -> Result<Vec<Workload>> {
        let workloads = match (&self.folder, &self.queries, &self.workloads) {
            (Some(folder), Some(queries), _) => {
                let name = folder.canonicalize().with_context(|| folder.display().to_string())?;
                let name = name.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                vec![Workload { database: name, folder: folder.clone(), queries: read_file(queries)? }]
            }
            (_, _, Some(workloads)) => self.read_files(workloads)?,
            _ => read_workloads(&self.corpus, &self.database, kinds)?,
        };
        ensure!(workloads.iter().any(|workload| !workload.queries.is_empty()), "there are no queries");
        Ok(workloads)
    }

    /// Reads the files of `workloads`, one per database, in order of name.
    fn read_files(&self, workloads: &Path) -> Result<Vec<Workload>> {
        let mut found = vec![];
        for entry in std::fs::read_dir(workloads).with_context(|| workloads.display().to_string())? {
            let file = entry?.path();
            let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            let wanted = self.database.is_empty() || self.database.contains(&name);
            if wanted && file.extension().is_some_and(|ending| ending == "jsonl") {
                found.push((name, file));
            }
        }
        found.sort();
        ensure!(!found.is_empty(), "{} holds no file DATABASE.jsonl of these databases", workloads.display());
        let read = |(database, file): (String, PathBuf)| {
            let folder = self.corpus.join(&database);
            ensure!(folder.is_dir(), "{} has no database in {}", file.display(), self.corpus.display());
            Ok(Workload { database, folder, queries: read_file(&file)? })
        };
        found.into_iter().map(read).collect()
    }
}

fn read_file(path: &Path) -> Result<Vec<CorpusQuery>> {
    Ok(read_lines(path)?.into_iter().map(|entry| query(entry, None)).collect())
}

#[derive(Debug, Deserialize)]
struct QueryEntry {
    id: String,
    kind: String,
    #[serde(default)]
    tables: Vec<String>,
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

/// Reads the queries of these kinds, [`SUBPLAN`] among them, of the databases called `names`, or of every database that has
/// a workload, in order of name.
///
/// # Errors
/// When there is no corpus, a named database has no workload, a kind is unknown or has no query, or a file is damaged.
fn read_workloads(corpus: &Path, names: &[String], kinds: &[String]) -> Result<Vec<Workload>> {
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
    let mut there = BTreeSet::from([SUBPLAN.to_owned()]);
    let mut workloads = vec![];
    for folder in databases.into_iter().filter(|folder| names.is_empty() || names.contains(&name(folder))) {
        let mut queries = read_queries(&folder.join("workload"), kinds, &mut there)?;
        if kinds.iter().any(|kind| kind == SUBPLAN) {
            queries.extend(read_subplans(&folder.join("workload"))?);
        }
        workloads.push(Workload { database: name(&folder), folder, queries });
    }
    let known = |kind: &String| there.contains(kind) || Kind::from_str(kind, false).is_ok();
    let unknown: Vec<&str> = kinds.iter().filter(|kind| !known(kind)).map(String::as_str).collect();
    let there = there.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    ensure!(unknown.is_empty(), "no kind of queries is called {}: there are {there}", unknown.join(", "));
    let empty = workloads.iter().all(|workload| workload.queries.is_empty());
    ensure!(!empty, "there are no queries of kind {}, but of {there}", kinds.join(", "));
    Ok(workloads)
}

/// The queries of these kinds; adds the kinds that are there.
fn read_queries(folder: &Path, kinds: &[String], there: &mut BTreeSet<String>) -> Result<Vec<CorpusQuery>> {
    let anchors: Vec<AnchorEntry> = read_lines(&folder.join("anchors.jsonl"))?;
    let anchors: HashMap<String, AnchorEntry> = anchors.into_iter().map(|entry| (entry.id.clone(), entry)).collect();
    let entries: Vec<QueryEntry> = read_lines(&folder.join("queries.jsonl"))?;
    there.extend(entries.iter().map(|entry| entry.kind.clone()));
    let wanted = entries.into_iter().filter(|entry| kinds.contains(&entry.kind));
    let read = |entry: QueryEntry| {
        let anchor = anchors.get(&entry.id);
        query(entry, anchor)
    };
    Ok(wanted.map(read).collect())
}

fn query(entry: QueryEntry, anchor: Option<&AnchorEntry>) -> CorpusQuery {
    CorpusQuery {
        truth: entry.true_value.unwrap_or(f64::NAN),
        postgres: anchor.and_then(|anchor| anchor.postgres),
        duckdb: anchor.and_then(|anchor| anchor.duckdb),
        id: entry.id,
        kind: entry.kind,
        tables: entry.tables.len(),
        sql: entry.sql,
    }
}

fn read_subplans(folder: &Path) -> Result<Vec<CorpusQuery>> {
    let entries: Vec<SubplanEntry> = read_lines(&folder.join("subplans.jsonl"))?;
    let query = |entry: SubplanEntry| CorpusQuery {
        id: entry.id,
        kind: SUBPLAN.to_owned(),
        tables: entry.tables.len(),
        sql: entry.sql,
        truth: entry.true_value,
        postgres: entry.postgres,
        duckdb: entry.duckdb,
    };
    Ok(entries.into_iter().map(query).collect())
}

pub(crate) fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
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

    /// A corpus at `folder`.
    pub(crate) fn source(corpus: &Path) -> Source {
        Source { corpus: corpus.to_path_buf(), database: vec![], folder: None, queries: None, workloads: None }
    }

    /// Writes a corpus of one database, `shop`, of one table of a hundred rows, with two queries and a sub-plan.
    pub(crate) fn write_corpus(corpus: &Path) {
        use std::sync::Arc;

        use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};
        use datafusion::parquet::arrow::ArrowWriter;

        let workload = corpus.join("shop").join("workload");
        std::fs::create_dir_all(&workload).unwrap();
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
        let batch = RecordBatch::try_from_iter([("x", values)]).unwrap();
        let file = std::fs::File::create(corpus.join("shop").join("t.parquet")).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let write = |name: &str, text: &str| std::fs::write(workload.join(name), text).unwrap();
        write(
            "../schema.json",
            "{\"name\":\"shop\",\"role\":\"eval\",\"tables\":[{\"name\":\"t\",\"file\":\"t.parquet\"}]}",
        );
        write(
            "queries.jsonl",
            "{\"id\":\"q1\",\"kind\":\"seed\",\"tables\":[\"t\"],\"sql\":\"SELECT COUNT(*) FROM t AS t WHERE t.x < 10\",\"true_value\":10}\n\n\
             {\"id\":\"q2\",\"kind\":\"aqp\",\"tables\":[\"t\"],\"sql\":\"SELECT AVG(t.x) FROM t AS t\",\"true_value\":-2.5}\n",
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
        let kinds = ["seed", "hard"].map(str::to_owned);
        let workloads = read_workloads(corpus.path(), &[], &kinds).unwrap();
        assert_eq!((workloads.len(), workloads[0].queries.len()), (1, 1));
        let query = &workloads[0].queries[0];
        assert_eq!((query.postgres, query.duckdb, query.kind.as_str(), query.tables), (Some(12.0), None, "seed", 1));
        let subplans = read_workloads(corpus.path(), &["shop".to_owned()], &[SUBPLAN.to_owned()]).unwrap();
        assert_eq!((subplans[0].queries.len(), subplans[0].queries[0].tables), (1, 2));
        let missing = read_workloads(corpus.path(), &["shop2".to_owned()], &kinds).unwrap_err();
        assert!(missing.to_string().contains("no workload of shop2"));
        let refused = |kinds: &[&str]| {
            let kinds: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
            read_workloads(corpus.path(), &[], &kinds).unwrap_err().to_string()
        };
        assert_eq!(refused(&["seed", "sed"]), "no kind of queries is called sed: there are aqp, seed, subplan");
        assert_eq!(refused(&["hard"]), "there are no queries of kind hard, but of aqp, seed, subplan");
        let (folder, file) = (corpus.path().join("shop"), corpus.path().join("shop/workload/queries.jsonl"));
        let from_file = Source { folder: Some(folder), queries: Some(file.clone()), ..source(corpus.path()) };
        let read = from_file.read(&[]).unwrap();
        assert_eq!((read[0].database.as_str(), read[0].queries.len()), ("shop", 2));
        let unanswered = corpus.path().join("unanswered.jsonl");
        std::fs::write(&unanswered, "{\"id\":\"q\",\"kind\":\"own\",\"sql\":\"SELECT 1\"}\n").unwrap();
        let unanswered = Source { queries: Some(unanswered), ..from_file.clone() };
        assert!(unanswered.read(&[]).unwrap_err().to_string().contains("q has no answer"));
        assert_eq!(unanswered.read_unanswered(&[]).unwrap()[0].queries.len(), 1);
        let workloads = corpus.path().join("workloads");
        std::fs::create_dir(&workloads).unwrap();
        std::fs::copy(&file, workloads.join("shop.jsonl")).unwrap();
        let from_files = Source { workloads: Some(workloads.clone()), ..source(corpus.path()) };
        assert_eq!(from_files.read(&[]).unwrap(), [Workload { folder: corpus.path().join("shop"), ..read[0].clone() }]);
        std::fs::copy(&file, workloads.join("nowhere.jsonl")).unwrap();
        assert!(from_files.read(&[]).unwrap_err().to_string().contains("has no database"));
    }

    #[test]
    fn says_where_there_is_no_corpus() {
        let error = read_workloads(Path::new("/nonexistent"), &[], &[]).unwrap_err();
        assert!(error.to_string().contains("no corpus at /nonexistent"));
        let empty = tempfile::tempdir().unwrap();
        assert!(read_workloads(empty.path(), &[], &[]).unwrap_err().to_string().contains("holds no database"));
    }
}
