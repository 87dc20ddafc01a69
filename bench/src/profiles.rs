//! The profiles and join synopses of a database in memory, as relata would make them.

use std::sync::Arc;

use anyhow::{Context, Result};
use datafusion::arrow::array::RecordBatch;
use datafusion::logical_expr::TableScan;
use hashbrown::HashMap;
use relata_featurize::analytical::Profiles;
use relata_featurize::foreign_key::{ForeignKey, foreign_keys};
use relata_featurize::profile::{ProfileConfig, TableProfile};
use relata_featurize::synopsis::{JoinSynopsis, SynopsisBuilder, SynopsisPlan};

use crate::database::Database;

/// What is known of each table, by its name.
#[derive(Debug, Default)]
pub struct DatabaseProfiles(HashMap<String, (Arc<TableProfile>, Option<Arc<JoinSynopsis>>)>);

impl DatabaseProfiles {
    /// Profiles the tables of `database` and joins their samples.
    ///
    /// # Errors
    /// When a table cannot be profiled.
    pub fn new(database: &Database) -> Result<Self> {
        let config = ProfileConfig::default();
        let batches: Vec<&[RecordBatch]> =
            database.tables.iter().map(|table| std::slice::from_ref(&table.batch)).collect();
        let mut tables = Vec::with_capacity(batches.len());
        for (table, batches) in database.tables.iter().zip(&batches) {
            let profile = TableProfile::of_batches(table.batch.schema(), batches, &config);
            tables.push(Arc::new(profile.with_context(|| format!("{}.{}", database.name, table.name))?));
        }
        let declared = database.foreign_keys.iter().map(|key| ForeignKey {
            table: key.table,
            columns: key.columns.clone(),
            references: key.references,
            referenced: key.references_columns.clone(),
        });
        let keys = foreign_keys(&tables, &declared.collect::<Vec<_>>());
        let plans = SynopsisPlan::of_tables(&tables, &keys, &config.synopsis);
        let builder = SynopsisBuilder::new(tables.clone(), plans.into_iter().flatten());
        let synopses: Vec<Arc<JoinSynopsis>> = builder.of_batches(&batches)?.into_iter().map(Arc::new).collect();
        let known = database.tables.iter().zip(tables).map(|(table, profile)| {
            let synopsis = synopses.iter().find(|synopsis| Arc::ptr_eq(synopsis.root(), &profile)).cloned();
            (table.name.clone(), (profile, synopsis))
        });
        Ok(Self(known.collect()))
    }
}

impl Profiles for DatabaseProfiles {
    fn profile(&self, scan: &TableScan) -> Option<Arc<TableProfile>> {
        Some(Arc::clone(&self.0.get(scan.table_name.table())?.0))
    }

    fn synopsis(&self, scan: &TableScan) -> Option<Arc<JoinSynopsis>> {
        self.0.get(scan.table_name.table())?.1.clone()
    }
}
