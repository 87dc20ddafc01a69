//! True cardinalities for relata's join ordering.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use datafusion::common::{DFSchema, ToDFSchema};
use datafusion::prelude::SessionContext;
use hashbrown::HashMap;
use relata::{JoinGraph, KnownRows, RelationSet};

use crate::count::{Counter, Edge, KeyCodes, Relation, filter_mask};
use crate::database::Database;
use crate::planned::labelling_context;

/// Sets of a larger graph are not counted.
const MOST_SETS: usize = 4096;

/// Counts every connected set of a graph when the graph is first seen, and remembers them.
pub struct Oracle {
    database: Database,
    schemas: Vec<DFSchema>,
    context: SessionContext,
    counts: Mutex<HashMap<String, HashMap<RelationSet, f64>>>,
}

impl std::fmt::Debug for Oracle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oracle").field("database", &self.database.name).finish_non_exhaustive()
    }
}

impl Oracle {
    /// Counts in `database`.
    ///
    /// # Errors
    /// When two columns of a table have one name.
    pub fn new(database: Database) -> Result<Self> {
        let schemas = database.tables.iter().map(|table| table.batch.schema().to_dfschema());
        let schemas = schemas.collect::<Result<_, _>>()?;
        Ok(Self { database, schemas, context: labelling_context(), counts: Mutex::default() })
    }

    /// Rows of every connected set; `None` where a relation is no base table or a condition is no equality of columns.
    fn count(&self, graph: &JoinGraph) -> Result<Option<HashMap<RelationSet, f64>>> {
        let (Some(sets), Some(edges)) = (graph.connected_sets(MOST_SETS), edges(graph)) else { return Ok(None) };
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
        let mut keys = KeyCodes::default();
        let mut counter = Counter::new(&relations, &edges, &mut keys);
        Ok(Some(sets.into_iter().filter_map(|set| Some((set, counter.count(set.0)?))).collect()))
    }
}

impl KnownRows for Oracle {
    fn rows(&self, graph: &JoinGraph, set: RelationSet) -> Option<f64> {
        let name = fingerprint(graph);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = counts.entry(name).or_insert_with(|| match self.count(graph) {
            Ok(counts) => counts.unwrap_or_default(),
            Err(error) => {
                eprintln!("{}: {error:#}", self.database.name);
                HashMap::new()
            }
        });
        counts.get(&set).copied()
    }
}

/// Tables, filters and keys in words.
fn fingerprint(graph: &JoinGraph) -> String {
    let relations = graph.relations.iter().map(|relation| {
        let table = relation.scan.as_ref().map(|scan| scan.table_name.to_string()).unwrap_or_default();
        let filters: Vec<String> = relation.table_filters.iter().map(ToString::to_string).collect();
        format!("{table} {}", filters.join(" AND "))
    });
    let classes = graph.classes.iter().map(|class| {
        let members = class.members.iter().map(|member| format!("{} {:?}", member.relation, member.column));
        members.collect::<Vec<_>>().join(" = ")
    });
    relations.chain(classes).collect::<Vec<_>>().join("; ")
}

/// Every pair of equal columns; `None` if a key is no column.
fn edges(graph: &JoinGraph) -> Option<Vec<Edge>> {
    let mut edges = vec![];
    for class in &graph.classes {
        for (place, left) in class.members.iter().enumerate() {
            for right in class.members[place + 1..].iter().filter(|right| right.relation != left.relation) {
                let keys = vec![(left.column?, right.column?)];
                edges.push(Edge { left: left.relation, right: right.relation, keys });
            }
        }
    }
    Some(edges)
}
