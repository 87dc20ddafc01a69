//! The profiles and join synopses of a database in memory, as relata would make them.

use std::sync::Arc;

use anyhow::{Context, Result};
use clap::ValueEnum;
use datafusion::arrow::array::RecordBatch;
use datafusion::logical_expr::{Expr, TableScan};
use hashbrown::HashMap;
use relata_featurize::analytical::Profiles;
use relata_featurize::foreign_key::{ForeignKey, foreign_keys};
use relata_featurize::profile::{ProfileConfig, TableProfile};
use relata_featurize::selectivity::{FilterEstimate, estimate_filters};
use relata_featurize::synopsis::{JoinSynopsis, SynopsisBuilder, SynopsisConfig, SynopsisPlan};
use serde::{Deserialize, Serialize};

use crate::database::Database;

/// What estimates go without, to measure what it is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Without {
    /// Join synopses and samples by key: samples that are joined
    Synopses,
    /// Provable upper bounds, as features and as limits
    Bounds,
}

impl Without {
    /// How profiles are made without it; as they always are where nothing is left out.
    pub fn config(without: Option<Self>) -> ProfileConfig {
        let all = ProfileConfig::default();
        match without {
            None => all,
            Some(Self::Synopses) => {
                ProfileConfig { key_samples: 0, synopsis: SynopsisConfig { depth: 0, ..all.synopsis.clone() }, ..all }
            }
            Some(Self::Bounds) => ProfileConfig { bounds: false, ..all },
        }
    }
}

/// What is known of each table, by its name.
#[derive(Debug)]
pub struct DatabaseProfiles {
    tables: HashMap<String, (Arc<TableProfile>, Option<Arc<JoinSynopsis>>)>,
    bounds: bool,
}

impl DatabaseProfiles {
    /// Profiles the tables of `database` and joins their samples, as `config` says.
    ///
    /// # Errors
    /// When a table cannot be profiled.
    pub fn new(database: &Database, config: &ProfileConfig) -> Result<Self> {
        let batches: Vec<&[RecordBatch]> =
            database.tables.iter().map(|table| std::slice::from_ref(&table.batch)).collect();
        let mut tables = Vec::with_capacity(batches.len());
        for (table, batches) in database.tables.iter().zip(&batches) {
            let profile = TableProfile::of_batches(table.batch.schema(), batches, config);
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
        Ok(Self { tables: known.collect(), bounds: config.bounds })
    }
}

impl Profiles for DatabaseProfiles {
    fn profile(&self, scan: &TableScan) -> Option<Arc<TableProfile>> {
        Some(Arc::clone(&self.tables.get(scan.table_name.table())?.0))
    }

    fn synopsis(&self, scan: &TableScan) -> Option<Arc<JoinSynopsis>> {
        self.tables.get(scan.table_name.table())?.1.clone()
    }

    fn filters(&self, profile: &Arc<TableProfile>, filters: &[Expr]) -> Arc<FilterEstimate> {
        let estimate = estimate_filters(profile, filters);
        Arc::new(if self.bounds { estimate } else { estimate.unbounded() })
    }

    fn bounded(&self) -> bool {
        self.bounds
    }
}
