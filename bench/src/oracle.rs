//! True cardinalities for relata's join ordering.

use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use hashbrown::HashMap;
use relata::{JoinGraph, KnownRows, RelationSet};

use crate::count::{Counter, GraphReader, KeyCodes};
use crate::database::Database;

/// Sets of a larger graph are not counted.
const MOST_SETS: usize = 4096;

/// Counts every connected set of a graph when the graph is first seen, and remembers them.
pub struct Oracle {
    database: Database,
    reader: GraphReader,
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
        Ok(Self { reader: GraphReader::new(&database)?, database, counts: Mutex::default() })
    }

    /// Rows of every connected set; `None` where a relation is no base table or a condition is no equality of columns.
    fn count(&self, graph: &JoinGraph) -> Result<Option<HashMap<RelationSet, f64>>> {
        let Some(sets) = graph.connected_sets(MOST_SETS) else { return Ok(None) };
        let Some((relations, edges)) = self.reader.read(&self.database, graph)? else { return Ok(None) };
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
