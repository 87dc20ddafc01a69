//! Profiles are renewed, listed and forgotten.

use std::sync::Arc;
use std::time::SystemTime;

use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::prelude::SessionContext;

use crate::optimizer::{Table, full_name, tables};
use crate::profiles::{ProfileSource, ProfileStore, TableReport};
use crate::{Relata, RelataError, Result};

/// A profile that there is.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileReport {
    /// The table.
    pub table: TableReference,
    /// What is known of it once it is in memory; `None` of one that is only stored so far.
    pub loaded: Option<LoadedProfile>,
    /// Whether it is in the profile directory, for the table's data as it is.
    pub stored: bool,
    /// When the table was scanned for it, where that is known.
    pub made: Option<SystemTime>,
}

/// A profile in memory.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct LoadedProfile {
    /// Rows of the table.
    pub rows: u64,
    /// Columns of the table.
    pub columns: usize,
    /// Size of the profile in memory, in bytes.
    pub bytes: usize,
    /// Where it came from.
    pub source: ProfileSource,
}

impl Relata {
    /// Profiles a table, or every table of every schema, whether it has a profile or not, then joins the samples of the tables
    /// that are profiled. Until its new profile is made a table keeps the old one.
    ///
    /// # Errors
    /// When a catalog cannot be read, or there is no such table. A table that cannot be profiled is reported in
    /// [`TableReport::error`].
    pub async fn analyze(&self, ctx: &SessionContext, table: Option<TableReference>) -> Result<Vec<TableReport>> {
        let reports = self.profile_all(ctx, &selected(ctx, table).await?, true).await;
        self.join_samples(ctx).await?;
        Ok(reports)
    }

    /// The profiles that there are, in memory or in the profile directory, of the tables of a session.
    ///
    /// # Errors
    /// When a catalog cannot be read.
    pub async fn profiles(&self, ctx: &SessionContext) -> Result<Vec<ProfileReport>> {
        let reports = tables(ctx).await?.into_iter().map(|(name, provider)| self.profiles.report(name, &provider));
        Ok(reports.flatten().collect())
    }

    /// Forgets the profile of a table, or of every table, in memory and in the profile directory, with the synopses there that
    /// begin at it; says which there were. A query over such a table profiles it again where lazy profiling is on.
    ///
    /// # Errors
    /// When a catalog cannot be read, there is no such table, or a file cannot be removed.
    pub async fn forget(&self, ctx: &SessionContext, table: Option<TableReference>) -> Result<Vec<ProfileReport>> {
        let mut forgotten = vec![];
        for (name, provider) in selected(ctx, table).await? {
            let report = self.profiles.report(name.clone(), &provider);
            self.profiles.remove(&provider);
            for file in self.profiles.stored(&name, &provider).map(|stored| stored.all()).unwrap_or_default() {
                match std::fs::remove_file(&file) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(RelataError::Profiles(format!("{}: {error}", file.display())));
                    }
                    _ => {}
                }
            }
            forgotten.extend(report);
        }
        Ok(forgotten)
    }
}

/// A table by its full name, or all.
async fn selected(ctx: &SessionContext, table: Option<TableReference>) -> Result<Vec<Table>> {
    let Some(table) = table else { return tables(ctx).await };
    let missing = || RelataError::NoTable(table.to_string());
    let provider = ctx.table_provider(table.clone()).await.map_err(|_| missing())?;
    Ok(vec![(full_name(&ctx.state(), table), provider)])
}

impl ProfileStore {
    fn report(&self, table: TableReference, provider: &Arc<dyn TableProvider>) -> Option<ProfileReport> {
        let file = self.stored(&table, provider).filter(|stored| stored.file.exists());
        let known = self.read(provider, |entry| {
            let profile = &entry.table.profile;
            let (rows, columns, bytes) = (profile.rows as u64, profile.columns.len(), profile.bytes());
            (LoadedProfile { rows, columns, bytes, source: entry.source }, entry.made)
        });
        if known.is_none() && file.is_none() {
            return None;
        }
        let made = known.and_then(|known| known.1).or_else(|| file.as_ref()?.made());
        Some(ProfileReport { table, loaded: known.map(|known| known.0), stored: file.is_some(), made })
    }
}
