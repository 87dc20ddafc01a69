//! Who takes part in a run: sessions over the same tables that differ in their optimizer only.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use clap::ValueEnum;
use datafusion::datasource::MemTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::physical_plan::operator_statistics::StatisticsRegistry;
use datafusion::prelude::SessionContext;
use relata::cli::database::Database;
use relata::cli::session::SessionOptions;
use relata::{RandomRows, Relata};

use super::{DEFAULT, RELATA};
use crate::oracle::Oracle;

/// Optimizers that can take part beside DataFusion's default and relata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Contender {
    /// DataFusion with its own statistics providers.
    Registry,
    /// relata without its experts: profiles and formulas.
    Analytical,
    /// relata with true cardinalities in place of its estimates.
    Oracle,
    /// relata with random numbers in place of its estimates: slow, but with the same answers.
    Random,
}

impl Contender {
    /// The name on the command line and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Contender::Registry => "registry",
            Contender::Analytical => "analytical",
            Contender::Oracle => "oracle",
            Contender::Random => "random",
        }
    }
}

/// A session per optimizer over the tables of `folder`, the default first and relata second.
pub(super) async fn sessions(
    folder: &Path,
    options: &SessionOptions,
    in_memory: bool,
    contenders: &[Contender],
) -> Result<Vec<(&'static str, SessionContext)>> {
    let mut database = Database::open(folder, options).await?;
    if in_memory {
        load(&mut database).await?;
    }
    let relata = Relata::pretrained()?.with_foreign_keys(database.foreign_keys());
    let context = database.context(Some(&relata))?;
    for report in relata.profile(&context).await? {
        if let Some(error) = report.error {
            eprintln!("{}: {error}", report.table);
        }
    }
    let mut sessions = vec![(DEFAULT, database.context(None)?), (RELATA, context)];
    for contender in contenders {
        let context = match contender {
            Contender::Registry => with_own_registry(&database.context(None)?),
            Contender::Analytical => database.context(Some(&relata.clone().without_experts()))?,
            Contender::Oracle => {
                let truth = Oracle::new(crate::database::Database::from_folder(folder)?)?;
                database.context(Some(&relata.clone().with_known_rows(Arc::new(truth))))?
            }
            Contender::Random => {
                database.context(Some(&relata.clone().with_known_rows(Arc::new(RandomRows::new(1)))))?
            }
        };
        sessions.push((contender.name(), context));
    }
    Ok(sessions)
}

/// Reads every table into memory.
async fn load(database: &mut Database) -> Result<()> {
    let context = database.context(None)?;
    for table in &mut database.tables {
        let partitions = context.table(table.reference()).await?.collect_partitioned().await?;
        table.provider = Arc::new(MemTable::try_new(table.schema(), partitions)?);
    }
    Ok(())
}

/// The same tables under DataFusion's statistics registry, which is off by default, with the providers that come with it.
fn with_own_registry(context: &SessionContext) -> SessionContext {
    // A new default catalog would be without the tables.
    let mut config = context.copied_config().with_create_default_catalog_and_schema(false);
    config.options_mut().optimizer.use_statistics_registry = true;
    let builder = SessionStateBuilder::new_from_existing(context.state()).with_config(config);
    let registry = StatisticsRegistry::default_with_builtin_providers();
    SessionContext::new_with_state(builder.with_statistics_registry(registry).build())
}
