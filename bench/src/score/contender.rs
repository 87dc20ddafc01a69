//! Who estimates: one trait, and everybody behind it.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use async_trait::async_trait;
use datafusion::prelude::SessionContext;
use hashbrown::HashMap;
use relata::cli::database::Database;
use relata::cli::session::SessionOptions;
use relata::{ExpertStack, QueryEstimate, Relata};
use serde::{Deserialize, Serialize};

use crate::baseline::{Linear, LinearContender};
use crate::corpus::{CorpusQuery, Workload, read_lines};
use crate::profiles::Without;

/// The name of relata among the contenders.
pub const RELATA: &str = "relata";

/// The rows a contender expects.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Rows.
    pub rows: f64,
    /// Both ends of the 90% interval, of a contender that gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<(f64, f64)>,
    /// Time from SQL to estimate, of a contender that runs here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planning_us: Option<u64>,
}

/// An estimator of one database's queries.
#[async_trait]
pub trait Contender: Send + Sync {
    /// The name in tables and plots.
    fn name(&self) -> &str;

    /// The rows of a query; `None` where the contender has no answer.
    async fn estimate(&self, query: &CorpusQuery) -> Result<Option<Prediction>>;
}

/// A file of estimates made elsewhere or a folder of weights, as `NAME=PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPath {
    /// The contender's name.
    pub name: String,
    /// The file or folder.
    pub path: PathBuf,
}

impl FromStr for NamedPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => {
                Ok(Self { name: name.to_owned(), path: PathBuf::from(path) })
            }
            _ => Err("must be NAME=PATH".to_owned()),
        }
    }
}

/// Estimates that were made elsewhere, by query.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    name: String,
    estimates: HashMap<String, f64>,
}

#[derive(Debug, Deserialize)]
struct EstimateLine {
    id: String,
    estimate: Option<f64>,
}

impl Recorded {
    /// Estimates by the ids of their queries.
    pub fn new(name: &str, estimates: impl IntoIterator<Item = (String, f64)>) -> Self {
        Self { name: name.to_owned(), estimates: estimates.into_iter().collect() }
    }

    /// Reads JSON lines of `id` and `estimate`.
    ///
    /// # Errors
    /// When the file cannot be read or a line is damaged.
    pub fn read(file: &NamedPath) -> Result<Self> {
        let lines: Vec<EstimateLine> = read_lines(&file.path)?;
        Ok(Self::new(&file.name, lines.into_iter().filter_map(|line| Some((line.id, line.estimate?)))))
    }
}

#[async_trait]
impl Contender for Recorded {
    fn name(&self) -> &str {
        &self.name
    }

    async fn estimate(&self, query: &CorpusQuery) -> Result<Option<Prediction>> {
        let rows = self.estimates.get(&query.id);
        Ok(rows.map(|&rows| Prediction { rows, interval: None, planning_us: None }))
    }
}

/// relata over a profiled database, with its experts or without.
pub(crate) struct Session {
    name: String,
    relata: Arc<Relata>,
    context: SessionContext,
    /// The last query's estimate, which holds DataFusion's own as well.
    last: Mutex<Option<(String, QueryEstimate)>>,
}

impl Session {
    /// Profiles every table of `database`.
    ///
    /// # Errors
    /// When the session cannot be built. A table that cannot be profiled is reported, and its queries are guessed.
    pub(crate) async fn new(name: &str, database: &Database, relata: Relata) -> Result<Self> {
        let relata = relata.with_foreign_keys(database.foreign_keys());
        let context = database.context(Some(&relata))?;
        for report in relata.profile(&context).await? {
            if let Some(error) = report.error {
                eprintln!("{}: {error}", report.table);
            }
        }
        Ok(Self { name: name.to_owned(), relata: Arc::new(relata), context, last: Mutex::default() })
    }

    /// Runs as a task of its own, so that a panic is one query's error.
    async fn ask(&self, query: &CorpusQuery) -> Result<QueryEstimate> {
        let remembered = |last: &Option<(String, QueryEstimate)>| last.clone().filter(|(id, _)| *id == query.id);
        if let Some((_, known)) = remembered(&self.last.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(known);
        }
        let (relata, context, sql) = (Arc::clone(&self.relata), self.context.clone(), query.sql.clone());
        let found = tokio::spawn(async move { relata.estimate_sql(&context, &sql).await }).await??;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((query.id.clone(), found));
        Ok(found)
    }
}

#[async_trait]
impl Contender for Session {
    fn name(&self) -> &str {
        &self.name
    }

    async fn estimate(&self, query: &CorpusQuery) -> Result<Option<Prediction>> {
        let found = self.ask(query).await?;
        let interval = self.relata.has_experts().then_some((found.lower, found.upper));
        let planning_us = Some(found.planning.as_micros() as u64);
        Ok(Some(Prediction { rows: found.estimate, interval, planning_us }))
    }
}

/// DataFusion's own statistics of the physical plan it makes.
struct DataFusion(Arc<Session>);

#[async_trait]
impl Contender for DataFusion {
    fn name(&self) -> &str {
        "datafusion"
    }

    async fn estimate(&self, query: &CorpusQuery) -> Result<Option<Prediction>> {
        let rows = self.0.ask(query).await?.default;
        Ok(rows.map(|rows| Prediction { rows, interval: None, planning_us: None }))
    }
}

/// What is shared by the contenders of all databases.
#[derive(Debug, Default)]
pub struct Entrants {
    /// Estimates read from files.
    pub recorded: Vec<Recorded>,
    /// The linear baseline.
    pub linear: Option<Linear>,
    /// Experts to estimate with instead of those that ship, by name.
    pub experts: Vec<(String, ExpertStack)>,
    /// What estimates go without.
    pub without: Option<Without>,
}

/// The experts of a folder that `relata-train plans` wrote.
///
/// # Errors
/// When a file cannot be read, or the weights cannot be used by this build.
pub fn read_experts(weights: &NamedPath) -> Result<(String, ExpertStack)> {
    let read = |name: &str| {
        let path = weights.path.join(name);
        std::fs::read(&path).with_context(|| path.display().to_string())
    };
    let experts = ExpertStack::from_bytes(&read("relata.safetensors")?, &read("manifest.json")?);
    Ok((weights.name.clone(), experts.with_context(|| weights.path.display().to_string())?))
}

/// Everybody who estimates one database's queries, in the order of the tables.
pub(crate) struct Field {
    /// The contenders.
    pub(crate) contenders: Vec<Box<dyn Contender>>,
    /// Seconds in which relata profiled the database.
    pub(crate) profile_seconds: f64,
}

impl Field {
    /// Opens and profiles the database of a workload.
    ///
    /// # Errors
    /// When the database cannot be opened.
    pub(crate) async fn new(workload: &Workload, entrants: &Entrants) -> Result<Self> {
        let database = open(&workload.folder).await?;
        let start = Instant::now();
        let relata = |experts| Relata::new(experts).with_profile_config(Without::config(entrants.without));
        let analytical = Arc::new(Session::new("analytical", &database, relata(None)).await?);
        let profile_seconds = start.elapsed().as_secs_f64();
        let mut contenders: Vec<Box<dyn Contender>> =
            vec![Box::new(DataFusion(Arc::clone(&analytical))), Box::new(Shared(analytical))];
        if let Some(linear) = entrants.linear.as_ref().filter(|_| entrants.without.is_none()) {
            contenders.push(Box::new(LinearContender::new(linear.clone(), &workload.folder)?));
        }
        for (name, experts) in &entrants.experts {
            contenders.push(Box::new(Session::new(name, &database, relata(Some(experts.clone()))).await?));
        }
        let anchors = |name: &str, of: fn(&CorpusQuery) -> Option<f64>| {
            Recorded::new(name, workload.queries.iter().filter_map(|query| Some((query.id.clone(), of(query)?))))
        };
        let anchors = [anchors("postgres", |query| query.postgres), anchors("duckdb", |query| query.duckdb)];
        for recorded in anchors.into_iter().chain(entrants.recorded.iter().cloned()) {
            if !recorded.estimates.is_empty() {
                contenders.push(Box::new(recorded));
            }
        }
        Ok(Self { contenders, profile_seconds })
    }
}

/// A session that several contenders read.
struct Shared(Arc<Session>);

#[async_trait]
impl Contender for Shared {
    fn name(&self) -> &str {
        self.0.name()
    }

    async fn estimate(&self, query: &CorpusQuery) -> Result<Option<Prediction>> {
        self.0.estimate(query).await
    }
}

async fn open(folder: &Path) -> Result<Database> {
    Database::open(folder, &SessionOptions::default()).await.with_context(|| folder.display().to_string())
}
