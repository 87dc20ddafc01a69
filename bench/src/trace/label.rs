//! A query -> its feature graph with exact counts.

use std::sync::Arc;

use anyhow::{Context, Result};
use datafusion::common::{DFSchema, ToDFSchema};
use datafusion::logical_expr::TableScan;
use datafusion::prelude::SessionContext;
use hashbrown::HashMap;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use relata_featurize::analytical::{JoinEstimator, Profiles};
use relata_featurize::join_graph::{JoinGraph, RelationSet};
use relata_featurize::logical::{Tables, log_rows, query_graph};
use relata_featurize::profile::{ProfileConfig, TableProfile};
use relata_featurize::relative::TableInput;
use relata_featurize::trace::{DatabaseTrace, LabelledGraph};

use crate::count::{Counter, Edge, KeyCodes, Relation, count_groups, filter_mask};
use crate::database::Database;
use crate::planned::{Planned, labelling_context};

/// Larger results are not labelled: nobody asks such queries, and those of the corpus have fewer rows as well.
const MOST_ROWS: f64 = 1e9;

/// Results above this are kept less often.
const LARGE: f64 = 3e6;

/// A group query over several relations is run to count its groups; this many joined rows at most.
const MOST_EXECUTED_ROWS: f64 = 2e6;

/// Share of the queries without a result that are kept: most would teach nothing but the value zero.
const EMPTY_KEPT: f64 = 0.05;

/// More sets than this are not listed; a query then has the labels of one join order only.
const MOST_LISTED_SETS: usize = 4096;

/// What became of a query.
#[derive(Debug)]
pub enum Outcome {
    /// Its graph and labels.
    Labelled {
        /// The feature graph with the labels of its nodes.
        graph: LabelledGraph,
        /// Rows of the join.
        rows: f64,
        /// Groups of the join, of a query with GROUP BY.
        groups: Option<f64>,
    },
    /// Nothing, and why.
    Skipped(Skip),
}

/// Why a query has no labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Skip {
    /// No rows, and the lot fell on it.
    Empty,
    /// More rows than wanted.
    TooLarge,
    /// The plan is no join of base tables, or a count is out of reach.
    Unsupported,
    /// DataFusion could not plan or evaluate it.
    Failed,
    /// The generator found no such query.
    DeadEnd,
}

impl Skip {
    /// Every reason.
    pub const ALL: [Skip; 5] = [Skip::Empty, Skip::TooLarge, Skip::Unsupported, Skip::Failed, Skip::DeadEnd];

    /// The reason in words.
    pub const fn name(self) -> &'static str {
        match self {
            Skip::Empty => "empty",
            Skip::TooLarge => "too large",
            Skip::Unsupported => "unsupported",
            Skip::Failed => "failed",
            Skip::DeadEnd => "dead ends",
        }
    }
}

/// The profiles of a database by the name of the table.
#[derive(Debug, Default)]
struct TableProfiles(HashMap<String, Arc<TableProfile>>);

impl Profiles for TableProfiles {
    fn profile(&self, scan: &TableScan) -> Option<Arc<TableProfile>> {
        self.0.get(scan.table_name.table()).cloned()
    }
}

/// Labels the queries of one database.
pub struct Labeller<'a> {
    database: &'a Database,
    context: SessionContext,
    schemas: Vec<DFSchema>,
    profiles: TableProfiles,
    keys: KeyCodes,
    tables: Tables,
    random: StdRng,
    most_sets: usize,
}

impl std::fmt::Debug for Labeller<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Labeller").field("database", &self.database.name).finish_non_exhaustive()
    }
}

impl<'a> Labeller<'a> {
    /// Profiles the tables of a database; graphs have at most `most_sets` labelled sets of relations.
    ///
    /// # Errors
    /// When a table cannot be profiled or registered.
    pub fn new(database: &'a Database, seed: u64, most_sets: usize) -> Result<Self> {
        let context = labelling_context();
        database.register(&context)?;
        let mut profiles = TableProfiles::default();
        let mut schemas = vec![];
        for table in &database.tables {
            let schema = table.batch.schema();
            let profile = TableProfile::of_batches(
                Arc::clone(&schema),
                std::slice::from_ref(&table.batch),
                &ProfileConfig::default(),
            )
            .with_context(|| format!("{}.{}", database.name, table.name))?;
            profiles.0.insert(table.name.clone(), Arc::new(profile));
            schemas.push(schema.to_dfschema()?);
        }
        Ok(Self {
            database,
            context,
            schemas,
            profiles,
            keys: KeyCodes::default(),
            tables: Tables::default(),
            random: StdRng::seed_from_u64(seed),
            most_sets,
        })
    }

    /// Plans a query, writes its feature graph and counts the sets of relations in it.
    ///
    /// # Errors
    /// When DataFusion cannot plan the query or evaluate a filter.
    pub async fn label(&mut self, sql: &str) -> Result<Outcome> {
        let Some(planned) = Planned::new(&self.context, sql).await? else {
            return Ok(Outcome::Skipped(Skip::Unsupported));
        };
        let graph = &planned.graph;
        let (Some(relations), Some(edges)) = (self.relations(graph)?, edges(graph)) else {
            return Ok(Outcome::Skipped(Skip::Unsupported));
        };
        let mut counter = Counter::new(&relations, &edges, &mut self.keys);
        let Some(rows) = counter.count(graph.all().0) else { return Ok(Outcome::Skipped(Skip::Unsupported)) };
        // Large results get rarer long before the limit, as in the corpus.
        if rows > MOST_ROWS || (rows > LARGE && !self.random.random_bool((LARGE / rows).sqrt())) {
            return Ok(Outcome::Skipped(Skip::TooLarge));
        }
        if rows < 0.5 && !self.random.random_bool(EMPTY_KEPT) {
            return Ok(Outcome::Skipped(Skip::Empty));
        }
        let groups = match &planned.groups {
            None => None,
            Some(columns) => {
                let columns: Vec<(usize, usize)> = columns.iter().map(|group| (group.relation, group.column)).collect();
                match count_groups(&mut counter, graph.all().0, &columns)? {
                    Some(groups) => Some(groups),
                    None if rows > MOST_EXECUTED_ROWS => return Ok(Outcome::Skipped(Skip::TooLarge)),
                    None => {
                        let batches = self.context.sql(sql).await?.collect().await?;
                        Some(batches.iter().map(|batch| batch.num_rows() as f64).sum())
                    }
                }
            }
        };
        let sets = choose_sets(graph, self.most_sets, &mut self.random);
        let estimator = JoinEstimator::new(graph, &self.profiles);
        let Some(written) = query_graph(&estimator, &sets, planned.groups.as_deref(), &mut self.tables) else {
            return Ok(Outcome::Skipped(Skip::Unsupported));
        };
        let mut labels = vec![None; written.graph.nodes.len()];
        for (set, node) in &written.sets {
            labels[*node as usize] = counter.count(set.0).map(log_rows);
        }
        if let (Some(node), Some(groups)) = (written.aggregate, groups) {
            labels[node as usize] = Some(log_rows(groups));
        }
        let graph = LabelledGraph { graph: written.graph, labels, relations: graph.relations.len() as u32 };
        Ok(Outcome::Labelled { graph, rows, groups })
    }

    /// The trace of everything labelled so far.
    pub fn into_trace(self, graphs: Vec<LabelledGraph>) -> DatabaseTrace {
        let tables = self.tables.profiles.iter().map(|profile| TableInput::new(profile)).collect();
        DatabaseTrace { name: self.database.name.clone(), tables, graphs }
    }

    /// The rows of each relation that pass its filters; `None` if a condition spans relations without being a key.
    fn relations(&self, graph: &JoinGraph) -> Result<Option<Vec<Relation>>> {
        if !graph.residuals.is_empty() {
            return Ok(None);
        }
        let mut relations = vec![];
        for relation in &graph.relations {
            let Some(scan) = &relation.scan else { return Ok(None) };
            let found = self.database.tables.iter().position(|table| table.name == scan.table_name.table());
            let table = found.with_context(|| format!("no table {}", scan.table_name))?;
            let batch = self.database.tables[table].batch.clone();
            let mask = filter_mask(&self.context, &batch, &self.schemas[table], &relation.table_filters)?;
            relations.push(Relation { batch, mask });
        }
        Ok(Some(relations))
    }
}

/// Every pair of equal columns; `None` if a key is no column.
fn edges(graph: &JoinGraph) -> Option<Vec<Edge>> {
    let mut edges = vec![];
    for class in &graph.classes {
        for (place, left) in class.members.iter().enumerate() {
            for right in &class.members[place + 1..] {
                // A pair within one relation follows from its pairs with the others.
                if left.relation != right.relation {
                    let keys = vec![(left.column?, right.column?)];
                    edges.push(Edge { left: left.relation, right: right.relation, keys });
                }
            }
        }
    }
    Some(edges)
}

/// All connected sets if there are few; else the whole, random others, and what their canonical decompositions need.
fn choose_sets(graph: &JoinGraph, most: usize, random: &mut StdRng) -> Vec<RelationSet> {
    let mut listed: Vec<RelationSet> =
        graph.connected_sets(MOST_LISTED_SETS).unwrap_or_default().into_iter().filter(|set| set.len() > 1).collect();
    if listed.len() <= most && !listed.is_empty() {
        return listed;
    }
    listed.shuffle(random);
    let mut chosen: Vec<RelationSet> = vec![];
    for start in std::iter::once(graph.all()).chain(listed) {
        let mut needed = vec![];
        let mut set = start;
        while set.len() > 1 && !chosen.contains(&set) {
            needed.push(set);
            set = set.minus(RelationSet::single(graph.last(set)));
        }
        if chosen.is_empty() || chosen.len() + needed.len() <= most {
            chosen.extend(needed);
        }
        if chosen.len() >= most {
            break;
        }
    }
    chosen.sort_unstable_by_key(|set| (set.len(), *set));
    chosen
}

#[cfg(test)]
mod tests {
    use relata_experts::prior::{PriorConfig, generate};
    use relata_featurize::graph::NodeKind;

    use super::*;
    use crate::queries::{Generator, Kind};

    #[tokio::test]
    async fn labels_are_what_execution_says() {
        use datafusion::arrow::array::AsArray;
        use datafusion::arrow::datatypes::Int64Type;

        let config = PriorConfig { tables: 3..=4, rows: 200..=2_000, ..PriorConfig::default() };
        let database = Database::from_synthetic(&generate(&config, 11).unwrap()).unwrap();
        let context = labelling_context();
        database.register(&context).unwrap();
        let mut generator = Generator::new(&database, 5);
        let mut labeller = Labeller::new(&database, 5, 16).unwrap();
        let mut labelled = 0;
        for turn in 0..60 {
            let kind = [Kind::Seed, Kind::Hard, Kind::Group][turn % 3];
            let Some(query) = generator.query(kind) else { continue };
            let Outcome::Labelled { graph, .. } = labeller.label(&query.sql).await.unwrap() else { continue };
            assert!(graph.graph.is_valid());
            assert_eq!(graph.relations as usize, query.tables.len());
            let top = graph.labels.last().copied().flatten().unwrap();
            if top > (1e5_f32).ln() {
                continue;
            }
            let batches = context.sql(&query.sql).await.unwrap().collect().await.unwrap();
            let rows = match kind {
                Kind::Group => batches.iter().map(|batch| batch.num_rows()).sum::<usize>() as f64,
                _ => batches[0].column(0).as_primitive::<Int64Type>().value(0) as f64,
            };
            assert!((top - log_rows(rows)).abs() < 1e-4, "{} has {rows} rows, not {}", query.sql, top.exp());
            let kinds = [NodeKind::Filter, NodeKind::Join, NodeKind::Aggregate];
            let estimated = graph.graph.nodes.iter().filter(|node| kinds.contains(&node.kind)).count();
            assert_eq!(graph.labels.iter().flatten().count(), estimated);
            labelled += 1;
        }
        assert!(labelled > 15, "{labelled}");
    }

    #[tokio::test]
    async fn sets_are_bounded_and_decompose_into_one_another() {
        let column = Arc::new(datafusion::arrow::array::Int64Array::from(vec![1]));
        let batch = datafusion::arrow::array::RecordBatch::try_from_iter([("k", column as _)]).unwrap();
        let context = labelling_context();
        context.register_batch("t", batch).unwrap();
        let from: Vec<String> = (0..9).map(|i| format!("t AS t{i}")).collect();
        let equal: Vec<String> = (1..9).map(|i| format!("t0.k = t{i}.k")).collect();
        let sql = format!("SELECT COUNT(*) FROM {} WHERE {}", from.join(", "), equal.join(" AND "));
        let graph = Planned::new(&context, &sql).await.unwrap().unwrap().graph;
        let sets = choose_sets(&graph, 40, &mut StdRng::seed_from_u64(1));
        assert!(sets.len() <= 40 && sets.len() > 30 && sets.contains(&graph.all()));
        for set in &sets {
            let rest = set.minus(RelationSet::single(graph.last(*set)));
            assert!(rest.len() == 1 || sets.contains(&rest));
        }
    }
}
