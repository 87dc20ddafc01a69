//! [`Relata`]: what users hold (being written).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::SessionContext;
use datafusion::sql::TableReference;
use datafusion_expr::LogicalPlan;
use relata_experts::ExpertStack;
use relata_featurize::profile::ProfileConfig;

use crate::config::RelataConfig;
use crate::counters::{CounterValues, Counters};
use crate::estimate::PlanEstimate;
use crate::{RelataError, Result};

/// The learned optimizer.
#[derive(Debug, Clone)]
pub struct Relata {
    experts: Option<Arc<ExpertStack>>,
    config: RelataConfig,
    counters: Arc<Counters>,
}

/// What profiling one table took.
#[derive(Debug)]
pub struct TableReport {
    /// The table.
    pub table: TableReference,
    /// Its rows.
    pub rows: u64,
    /// Its columns.
    pub columns: usize,
    /// Size of the profile in memory.
    pub bytes: usize,
    /// Time it took.
    pub elapsed: Duration,
    /// Whether the profile was there already, in memory or in the profile directory.
    pub loaded: bool,
    /// Why the table could not be profiled.
    pub error: Option<String>,
}

/// The estimate of a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QueryEstimate {
    /// Rows of the result; under an ungrouped aggregate at the top, rows that enter it.
    pub estimate: f64,
    /// 5% quantile.
    pub lower: f64,
    /// 95% quantile.
    pub upper: f64,
    /// DataFusion's own estimate of the same node.
    pub default: Option<f64>,
    /// Time from SQL text to the estimate, `default` not included.
    pub planning: Duration,
}

impl Relata {
    /// With the weights inside this crate.
    ///
    /// # Errors
    /// When the weights do not load.
    pub fn pretrained() -> Result<Self> {
        Ok(Self::new(Some(ExpertStack::pretrained()?)))
    }

    /// With these experts; `None` estimates analytically.
    pub fn new(experts: Option<ExpertStack>) -> Self {
        Self { experts: experts.map(Arc::new), config: RelataConfig::default(), counters: Arc::default() }
    }

    /// Keeps profiles in `directory` from now on.
    #[must_use]
    pub fn with_profile_directory(self, directory: impl Into<PathBuf>) -> Self {
        let _ = directory.into();
        self
    }

    /// Samples and sketches tables this way from now on.
    #[must_use]
    pub fn with_profile_config(self, config: ProfileConfig) -> Self {
        let _ = config;
        self
    }

    /// Installs with these settings from now on.
    #[must_use]
    pub fn with_config(mut self, config: RelataConfig) -> Self {
        self.config = config;
        self
    }

    /// Makes the session plan with relata.
    #[must_use]
    pub fn install(&self, builder: SessionStateBuilder) -> SessionStateBuilder {
        let _ = (&self.experts, &self.config);
        builder
    }

    /// Profiles every table of every schema that has none; the reports are in the order of the tables' names.
    ///
    /// # Errors
    /// When a catalog cannot be listed. A table that cannot be profiled is reported in [`TableReport::error`].
    pub async fn profile(&self, ctx: &SessionContext) -> Result<Vec<TableReport>> {
        let _ = ctx;
        Ok(Vec::new())
    }

    /// Profiles one table.
    ///
    /// # Errors
    /// When there is no such table. One that cannot be profiled is reported in [`TableReport::error`].
    pub async fn profile_table(&self, ctx: &SessionContext, table: TableReference) -> Result<TableReport> {
        let _ = ctx;
        Err(RelataError::NoTable(table.to_string()))
    }

    /// Estimates every node of an optimized logical plan.
    pub fn estimate(&self, plan: &LogicalPlan) -> PlanEstimate {
        let _ = plan;
        unimplemented!()
    }

    /// Estimates a query without running it.
    ///
    /// # Errors
    /// When the statement is no query, or cannot be parsed or planned.
    pub async fn estimate_sql(&self, ctx: &SessionContext, sql: &str) -> Result<QueryEstimate> {
        let _ = ctx;
        Err(RelataError::NoQuery(sql.to_owned()))
    }

    /// The plan of a query with relata's rows and intervals next to DataFusion's.
    ///
    /// # Errors
    /// When the statement is no query, or cannot be parsed or planned.
    pub async fn explain(&self, ctx: &SessionContext, sql: &str) -> Result<String> {
        let _ = ctx;
        Err(RelataError::NoQuery(sql.to_owned()))
    }

    /// What relata did so far.
    pub fn counters(&self) -> CounterValues {
        self.counters.values()
    }
}
