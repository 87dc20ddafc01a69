//! A join graph over tables in memory -> relations and edges to count.

use anyhow::{Context, Result};
use datafusion::common::{DFSchema, ToDFSchema};
use datafusion::prelude::SessionContext;
use relata_featurize::join_graph::JoinGraph;

use super::{Edge, Relation, filter_mask};
use crate::database::Database;
use crate::planned::labelling_context;

/// Reads join graphs over one database.
pub struct GraphReader {
    context: SessionContext,
    /// `[tables]`
    schemas: Vec<DFSchema>,
}

impl std::fmt::Debug for GraphReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GraphReader").field("schemas", &self.schemas).finish_non_exhaustive()
    }
}

impl GraphReader {
    /// A reader of graphs over `database`.
    ///
    /// # Errors
    /// When two columns of a table have one name.
    pub fn new(database: &Database) -> Result<Self> {
        let schemas = database.tables.iter().map(|table| table.batch.schema().to_dfschema());
        Ok(Self { context: labelling_context(), schemas: schemas.collect::<Result<_, _>>()? })
    }

    /// The rows of each relation that pass its filters, and every pair of equal columns. `None` where a relation is no base
    /// table, a key no column, or a condition over several relations no key.
    ///
    /// # Errors
    /// When a table is missing, or DataFusion cannot evaluate a filter.
    pub fn read(&self, database: &Database, graph: &JoinGraph) -> Result<Option<(Vec<Relation>, Vec<Edge>)>> {
        let Some(edges) = edges(graph).filter(|_| graph.residuals.is_empty()) else { return Ok(None) };
        let mut relations = vec![];
        for relation in &graph.relations {
            let Some(scan) = &relation.scan else { return Ok(None) };
            let found = database.tables.iter().position(|table| table.name == scan.table_name.table());
            let table = found.with_context(|| format!("no table {}", scan.table_name))?;
            let batch = database.tables[table].batch.clone();
            let mask = filter_mask(&self.context, &batch, &self.schemas[table], &relation.table_filters)?;
            relations.push(Relation { batch, mask });
        }
        Ok(Some((relations, edges)))
    }
}

/// Every pair of equal columns; `None` if a key is no column.
fn edges(graph: &JoinGraph) -> Option<Vec<Edge>> {
    let mut edges = vec![];
    for class in &graph.classes {
        for (place, left) in class.members.iter().enumerate() {
            // A pair within one relation follows from its pairs with the others.
            for right in class.members[place + 1..].iter().filter(|right| right.relation != left.relation) {
                let keys = vec![(left.column?, right.column?)];
                edges.push(Edge { left: left.relation, right: right.relation, keys });
            }
        }
    }
    Some(edges)
}
