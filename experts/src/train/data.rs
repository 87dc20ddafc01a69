//! Traces -> databases to train on and databases held out, and the batches of an epoch.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use relata_featurize::logical::is_known;
use relata_featurize::trace::{self, DatabaseTrace, LabelledGraph};

use crate::Result;
use crate::data::{DataExpert, TableEmbedding, check};
use crate::error::ExpertsError;
use crate::heads::{JOIN_BUCKETS, join_bucket};
use crate::message_passing::joins;

/// The labelled databases of a training run.
#[derive(Debug, Clone, Default)]
pub struct Corpus {
    /// Databases that are trained on.
    pub training: Vec<DatabaseTrace>,
    /// Databases that are held out: they stop the run.
    pub held_out: Vec<DatabaseTrace>,
    /// Number of graphs left out because they, or a table of theirs, are malformed, or because they have no label.
    pub dropped: usize,
}

/// The embeddings of the tables of databases, which training leaves as they are.
///
/// # Errors
///
/// Whatever [`DataExpert::embed`] reports.
pub fn embed(expert: &DataExpert, databases: &[DatabaseTrace]) -> Result<Vec<Vec<TableEmbedding>>> {
    databases.iter().map(|trace| trace.tables.iter().map(|table| expert.embed(table)).collect()).collect()
}

/// A labelled node that the cardinality head answers for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// Index of the node in its graph.
    pub node: usize,
    /// Number of joins at and below the node.
    pub joins: u32,
    /// `ln(max(1, rows))` of the analytical estimate.
    pub base: f32,
    /// `ln(max(1, rows))` of the truth.
    pub label: f32,
    /// Whether the estimate is known to be the truth.
    pub known: bool,
}

/// The labelled nodes of a graph.
pub fn targets(graph: &LabelledGraph) -> Vec<Target> {
    let joins = joins(&graph.graph);
    let nodes = graph.graph.nodes.iter().zip(&graph.labels).enumerate();
    nodes
        .filter(|(_, (node, _))| node.kind.estimated())
        .filter_map(|(index, (node, label))| {
            let (base, label) = (node.base?, (*label)?);
            let target = Target { node: index, joins: joins[index], base, label, known: is_known(node) };
            (base.is_finite() && label.is_finite()).then_some(target)
        })
        .collect()
}

impl Corpus {
    /// Reads every database below `folders`, drops what cannot be trained on, and holds out a `share` of the databases,
    /// those named in `names` for certain.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Featurize`] if a trace cannot be read, [`ExpertsError::Training`] if no database is left.
    pub fn read(folders: &[PathBuf], share: f64, names: &[String], seed: u64) -> Result<Self> {
        let mut databases = Vec::new();
        for folder in folders {
            databases.extend(read_folder(folder)?);
        }
        Self::split(databases, share, names, seed)
    }

    /// Splits databases; see [`Self::read`].
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Training`] if no usable database is left to train on, or a name is not found.
    pub fn split(databases: Vec<DatabaseTrace>, share: f64, names: &[String], seed: u64) -> Result<Self> {
        let graphs =
            |databases: &[DatabaseTrace]| databases.iter().map(|database| database.graphs.len()).sum::<usize>();
        let read = graphs(&databases);
        let mut databases: Vec<DatabaseTrace> = databases.into_iter().filter_map(usable).collect();
        let dropped = read - graphs(&databases);
        databases.sort_by(|left, right| left.name.cmp(&right.name));
        check_names(names, databases.iter().map(|database| database.name.as_str()))?;
        // A database may have several traces.
        let mut drawn: Vec<&str> = databases.iter().map(|database| database.name.as_str()).collect();
        drawn.dedup();
        drawn.shuffle(&mut StdRng::seed_from_u64(seed));
        let count = ((drawn.len() as f64 * share).ceil() as usize).min(drawn.len().saturating_sub(1));
        let mut drawn: Vec<String> = drawn.into_iter().map(str::to_owned).collect();
        let last = drawn.split_off(drawn.len() - count);
        let named = if names.is_empty() { &last[..] } else { names };
        let (held_out, mut training): (Vec<_>, Vec<_>) =
            databases.into_iter().partition(|database| named.contains(&database.name));
        if names.is_empty() {
            training.sort_by_key(|database| drawn.iter().position(|name| *name == database.name));
        }
        if training.is_empty() {
            return Err(ExpertsError::Training("no labelled database is left to train on".to_owned()));
        }
        Ok(Self { training, held_out, dropped })
    }

    /// Holds out the databases called `names` and no others.
    ///
    /// # Errors
    ///
    /// See [`Self::split`].
    pub fn hold_out(self, names: &[String]) -> Result<Self> {
        let Self { mut training, held_out, dropped } = self;
        training.extend(held_out);
        Ok(Self { dropped, ..Self::split(training, 0.0, names, 0)? })
    }

    /// Keeps `most` of the databases to train on, drawn by `seed`; fewer are a part of more.
    pub fn keep(&mut self, most: usize, seed: u64) {
        self.training.shuffle(&mut StdRng::seed_from_u64(seed));
        self.training.truncate(most);
        self.training.sort_by(|left, right| left.name.cmp(&right.name));
    }

    /// The weight of a node of each join bucket: one over the square root of their number, scaled to a mean of 1 over all
    /// nodes, so that filters, which every query has many of, do not drown the joins.
    pub fn bucket_weights(&self) -> [f32; JOIN_BUCKETS] {
        let mut counts = [0usize; JOIN_BUCKETS];
        for target in self.training.iter().flat_map(|database| &database.graphs).flat_map(targets) {
            counts[join_bucket(target.joins as usize)] += 1;
        }
        let roots = counts.map(|count| (count.max(1) as f32).sqrt());
        let scale = counts.iter().sum::<usize>() as f32
            / counts.iter().zip(roots).map(|(&n, root)| n as f32 / root).sum::<f32>();
        roots.map(|root| scale / root)
    }
}

/// Fails where one of `names` is not among those of the databases.
///
/// # Errors
///
/// [`ExpertsError::Training`] with the name.
pub(crate) fn check_names<'a>(names: &[String], databases: impl Iterator<Item = &'a str>) -> Result<()> {
    let databases: BTreeSet<&str> = databases.collect();
    match names.iter().find(|name| !databases.contains(name.as_str())) {
        Some(name) => Err(ExpertsError::Training(format!("no database is called {name}"))),
        None => Ok(()),
    }
}

/// Reads every database below `folder`, or the folder itself if it is one.
fn read_folder(folder: &Path) -> Result<Vec<DatabaseTrace>> {
    if folder.join("graphs.arrow").is_file() {
        return Ok(vec![DatabaseTrace::read(folder)?]);
    }
    Ok(trace::read_all(folder)?)
}

/// A database without its unusable graphs; `None` if a table is malformed or nothing is left.
fn usable(mut database: DatabaseTrace) -> Option<DatabaseTrace> {
    if database.tables.iter().any(|table| check(table).is_err()) {
        return None;
    }
    database.graphs.retain(|graph| {
        graph.graph.is_valid() && graph.labels.len() == graph.graph.nodes.len() && !targets(graph).is_empty()
    });
    (!database.graphs.is_empty()).then_some(database)
}

/// A chunk of a batch: graphs of one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Index of the database.
    pub database: usize,
    /// Indices of its graphs.
    pub graphs: Vec<usize>,
}

/// The batches of epoch `epoch`: every graph once, `graphs` of one database together, `databases` chunks to a batch. The
/// same seed and epoch give the same batches.
pub fn epoch(corpus: &[DatabaseTrace], graphs: usize, databases: usize, seed: u64, epoch: u64) -> Vec<Vec<Chunk>> {
    let mut random = StdRng::seed_from_u64(seed ^ epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut chunks = Vec::new();
    for (database, trace) in corpus.iter().enumerate() {
        let mut order: Vec<usize> = (0..trace.graphs.len()).collect();
        order.shuffle(&mut random);
        chunks.extend(order.chunks(graphs.max(1)).map(|chunk| Chunk { database, graphs: chunk.to_vec() }));
    }
    chunks.shuffle(&mut random);
    chunks.chunks(databases.max(1)).map(<[Chunk]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::tests::database;

    #[test]
    fn an_epoch_visits_every_graph_once() {
        let corpus = [database(5, 1), database(9, 2)];
        let batches = epoch(&corpus, 2, 3, 7, 0);
        let mut seen: Vec<(usize, usize)> = batches
            .iter()
            .flatten()
            .flat_map(|chunk| chunk.graphs.iter().map(|&graph| (chunk.database, graph)))
            .collect();
        seen.sort_unstable();
        let all: Vec<_> = (0..5).map(|graph| (0, graph)).chain((0..9).map(|graph| (1, graph))).collect();
        assert_eq!(seen, all);
        assert_eq!(batches, epoch(&corpus, 2, 3, 7, 0));
        assert_ne!(batches, epoch(&corpus, 2, 3, 7, 1));
    }

    #[test]
    fn databases_are_held_out_whole() {
        let databases: Vec<_> = (0..10).map(|seed| database(3, seed)).collect();
        let corpus = Corpus::split(databases.clone(), 0.2, &[], 1).unwrap();
        assert_eq!((corpus.training.len(), corpus.held_out.len()), (8, 2));
        let named = Corpus::split(databases.clone(), 0.2, &["database-3".to_owned()], 1).unwrap();
        assert_eq!(named.held_out.iter().map(|database| database.name.as_str()).collect::<Vec<_>>(), ["database-3"]);
        let other = named.clone().hold_out(&["database-7".to_owned(), "database-5".to_owned()]).unwrap();
        assert_eq!((other.training.len(), other.held_out.len(), other.training[3].name.as_str()), (8, 2, "database-3"));
        let kept = |most| {
            let mut corpus = named.clone();
            corpus.keep(most, 3);
            corpus.training.into_iter().map(|database| database.name).collect::<Vec<_>>()
        };
        assert!(kept(2).len() == 2 && kept(2).iter().all(|name| kept(5).contains(name)));
        assert_eq!(kept(100).len(), 9);
        assert!(Corpus::split(databases.clone(), 0.2, &["nowhere".to_owned()], 1).is_err());
        // A database with two traces is held out with both or neither.
        let twice = Corpus::split([databases.clone(), databases].concat(), 0.2, &[], 1).unwrap();
        assert_eq!((twice.training.len(), twice.held_out.len()), (16, 4));
        let held_out = |name: &str| twice.held_out.iter().any(|trace| trace.name == name);
        assert!(twice.training.iter().all(|trace| !held_out(&trace.name)));
        assert!(Corpus::split(Vec::new(), 0.2, &[], 1).is_err());
    }

    #[test]
    fn malformed_and_unlabelled_graphs_are_left_out() {
        let mut databases = vec![database(3, 1), database(4, 2), database(5, 3)];
        databases[0].graphs[1].labels.iter_mut().for_each(|label| *label = None);
        databases[1].tables[0].cells[0] = f32::NAN;
        let corpus = Corpus::split(databases, 0.0, &[], 1).unwrap();
        assert_eq!((corpus.training.len(), corpus.dropped), (2, 1 + 4));
    }

    #[test]
    fn rare_buckets_weigh_more() {
        let corpus = Corpus { training: vec![database(20, 1)], ..Corpus::default() };
        let weights = corpus.bucket_weights();
        assert!(weights[0] < weights[2], "{weights:?}");
        let all: Vec<f32> = corpus.training[0]
            .graphs
            .iter()
            .flat_map(targets)
            .map(|target| weights[join_bucket(target.joins as usize)])
            .collect();
        assert!((all.iter().sum::<f32>() / all.len() as f32 - 1.0).abs() < 1e-3);
    }
}
