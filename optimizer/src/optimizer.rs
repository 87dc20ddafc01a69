//! [`Relata`]: what users hold.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use datafusion::catalog::{Session, TableProvider};
use datafusion::common::TableReference;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, TableType, UNNAMED_TABLE};
use datafusion::optimizer::OptimizerRule;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::analyze::AnalyzeExec;
use datafusion::physical_plan::{ExecutionPlan, StatisticsArgs, StatisticsContext, collect};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::SessionContext;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use relata_experts::in_context::InContextPredictor;
use relata_experts::{AnswerHead, ExpertStack, PhysicalExpert};
use relata_featurize::profile::ProfileConfig;
use relata_featurize::resources::Resources;
use tokio::sync::OnceCell;

use crate::config::RelataConfig;
use crate::counters::{CounterValues, Counters, count};
use crate::estimate::{Estimator, KnownRows, PlanEstimate};
use crate::join_order::{Considered, CostModel, ExecutionTime, JoinOrder};
use crate::planner::RelataQueryPlanner;
use crate::profiles::{DataVersions, ProfileSource, ProfileStore, TableReport};
use crate::recorded::Record;
use crate::residuals::Residuals;
use crate::synopses::{ForeignKey, SynopsesReport};
use crate::{RelataError, Result, dynamic_filters, estimate, explain, join_order, sql};

/// Tables profiled at a time.
const PROFILED_AT_A_TIME: usize = 2;

/// The learned optimizer: experts, the profiles of the tables, and the settings it installs with.
///
/// Clones share the experts and the profiles.
#[derive(Debug, Clone)]
pub struct Relata {
    pub(crate) experts: Option<Arc<ExpertStack>>,
    /// The head that corrects approximate answers; `None` leaves them to the samples.
    pub(crate) answers: Option<Arc<AnswerHead>>,
    /// The expert of physical plans; `None` predicts no runtimes.
    pub(crate) physical: Option<Arc<PhysicalExpert>>,
    /// The predictor of columns, once it is loaded.
    pub(crate) predictor: Arc<OnceLock<Arc<InContextPredictor>>>,
    /// The machine, once it is measured.
    pub(crate) machine: Arc<OnceCell<Option<Resources>>>,
    pub(crate) profiles: Arc<ProfileStore>,
    pub(crate) config: RelataConfig,
    pub(crate) counters: Arc<Counters>,
    pub(crate) record: Arc<Record>,
    /// What the record says of predicted runtimes.
    pub(crate) residuals: Arc<Residuals>,
    known: Option<Arc<dyn KnownRows>>,
    pub(crate) foreign_keys: Arc<Vec<ForeignKey>>,
    pub(crate) cost_model: Arc<dyn CostModel>,
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
        let answers = Some(Arc::new(AnswerHead::pretrained()?));
        let physical = Some(Arc::new(PhysicalExpert::pretrained()?));
        Ok(Self { answers, physical, ..Self::new(Some(ExpertStack::pretrained()?)) })
    }

    /// With these experts; `None` estimates analytically.
    pub fn new(experts: Option<ExpertStack>) -> Self {
        Self {
            experts: experts.map(Arc::new),
            answers: None,
            physical: None,
            predictor: Arc::default(),
            machine: Arc::default(),
            profiles: Arc::default(),
            config: RelataConfig::default(),
            counters: Arc::default(),
            record: Arc::default(),
            residuals: Arc::default(),
            known: None,
            foreign_keys: Arc::default(),
            cost_model: Arc::new(ExecutionTime::default()),
        }
    }

    /// Leaves approximate answers to the samples and counts alone.
    #[must_use]
    pub fn without_answer_head(mut self) -> Self {
        self.answers = None;
        self
    }

    /// Leaves the estimates to profiles and formulas, and predicts no runtimes.
    #[must_use]
    pub fn without_experts(mut self) -> Self {
        (self.experts, self.physical) = (None, None);
        self
    }

    /// Whether experts correct the analytical estimates.
    pub fn has_experts(&self) -> bool {
        self.experts.is_some()
    }

    /// Orders joins by this cost from now on, instead of by [`ExecutionTime`].
    #[must_use]
    pub fn with_cost_model(mut self, model: Arc<dyn CostModel>) -> Self {
        self.cost_model = model;
        self
    }

    /// Keeps profiles in `directory`; those made so far are forgotten.
    #[must_use]
    pub fn with_profile_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        let directory = Some(directory.into());
        self.profiles = Arc::new(ProfileStore { directory, ..self.profiles.emptied() });
        self.residuals = Arc::default();
        self
    }

    /// Asks `versions` for the version of a table's data, so that the profiles of tables without local files can be kept;
    /// those made so far are forgotten.
    #[must_use]
    pub fn with_data_versions(mut self, versions: Arc<dyn DataVersions>) -> Self {
        self.profiles = Arc::new(ProfileStore { versions: Some(versions), ..self.profiles.emptied() });
        self
    }

    /// Samples and sketches tables this way; profiles made so far are forgotten.
    #[must_use]
    pub fn with_profile_config(mut self, config: ProfileConfig) -> Self {
        self.profiles = Arc::new(ProfileStore { config, ..self.profiles.emptied() });
        self
    }

    /// Installs with these settings from now on.
    #[must_use]
    pub fn with_config(mut self, config: RelataConfig) -> Self {
        self.config = config;
        self
    }

    /// Follows these foreign keys, beside those that the profiles suggest, when the samples of tables are joined.
    #[must_use]
    pub fn with_foreign_keys(mut self, keys: Vec<ForeignKey>) -> Self {
        self.foreign_keys = Arc::new(keys);
        self
    }

    /// Takes the rows of joins from `known` where it has them.
    #[must_use]
    pub fn with_known_rows(mut self, known: Arc<dyn KnownRows>) -> Self {
        self.known = Some(known);
        self
    }

    /// Makes the session plan with relata: wraps its query planner, adds the settings `relata.*` and the table functions
    /// `approx_answer('SELECT ...')` (see [`Self::answer`]), `relata_analyze()`, `relata_profiles()`, `relata_drop()` (see
    /// [`Self::analyze`], [`Self::profiles`], [`Self::forget`]), `relata_counters()` and `relata_explain('SELECT ...')`, which
    /// lists the sub-plans of a query with their estimates and the join orders that were compared with their costs; and the
    /// relation `PREDICT` (see [`Self::predict`]), whose arguments have the names of [`crate::PredictTask`]:
    ///
    /// ```sql
    /// SELECT * FROM PREDICT(target => (SELECT id, churned FROM customers WHERE churned IS NOT NULL),
    ///                       entities => (SELECT id FROM customers WHERE churned IS NULL), hide => [customers.left_on]) p
    /// ```
    #[must_use]
    pub fn install(&self, mut builder: SessionStateBuilder) -> SessionStateBuilder {
        let previous = builder.query_planner().take();
        let planner = RelataQueryPlanner::new(self.clone(), previous);
        let options = builder.config().get_or_insert_default().options_mut();
        options.extensions.insert(self.config.clone());
        let functions = builder.table_functions().get_or_insert_default();
        for function in sql::functions(self) {
            functions.insert(function.name().to_owned(), Arc::new(function));
        }
        let relations = builder.relation_planners().get_or_insert_default();
        relations.insert(0, Arc::new(sql::Predict { relata: self.clone() }));
        builder.with_query_planner(Arc::new(planner))
    }

    /// Join ordering as a logical rule, for engines that plan with a query planner of their own, as Ballista does; it orders what
    /// is profiled already. With [`Self::install`] there is no need of it, and no harm. An engine that hands filters of running
    /// joins to its scans needs [`Self::check_dynamic_filters`] as well.
    pub fn optimizer_rule(&self) -> Arc<dyn OptimizerRule + Send + Sync> {
        Arc::new(JoinOrder { relata: self.clone() })
    }

    /// Wraps DataFusion's rule for the filters of running joins, where it is among these, in one that keeps back those that went
    /// to another column of the same name (<https://github.com/apache/datafusion/issues/25244>): which do depends on the order of
    /// the joins. Sessions with [`Self::install`] have it.
    pub fn check_dynamic_filters(rules: &mut [Arc<dyn PhysicalOptimizerRule + Send + Sync>]) {
        dynamic_filters::check(rules);
    }

    /// Profiles every table of every schema that has no profile yet, then joins their samples; the reports are in the order
    /// of the tables' names.
    ///
    /// # Errors
    /// When a catalog cannot be read. A table that cannot be profiled is reported in [`TableReport::error`].
    pub async fn profile(&self, ctx: &SessionContext) -> Result<Vec<TableReport>> {
        let tables = tables(ctx).await?;
        let reports = self.profile_all(ctx, &tables, false).await;
        self.join_samples_of(self.profiling_session(ctx), tables).await;
        Ok(reports)
    }

    /// Profiles tables a few at a time, `anew` or where that is not done.
    pub(crate) async fn profile_all(&self, ctx: &SessionContext, tables: &[Table], anew: bool) -> Vec<TableReport> {
        let session = self.profiling_session(ctx);
        let mut jobs: Vec<BoxFuture<'_, TableReport>> = Vec::with_capacity(tables.len());
        for (name, provider) in tables.iter().cloned() {
            jobs.push(self.profile_provider(session.clone(), name, provider, anew).boxed());
        }
        futures::stream::iter(jobs).buffered(PROFILED_AT_A_TIME).collect().await
    }

    fn profiling_session(&self, ctx: &SessionContext) -> SessionState {
        self.profiles.session(&ctx.state()).unwrap_or_else(|| ctx.state())
    }

    /// Joins the samples of the profiled tables along their foreign keys, those that were declared and those that the
    /// profiles suggest: each table's with the matching rows of its parents, so that filters on several of them are seen
    /// together. Scans each parent table once.
    ///
    /// # Errors
    /// When a catalog cannot be read. What else goes wrong is in [`SynopsesReport::errors`].
    pub async fn join_samples(&self, ctx: &SessionContext) -> Result<SynopsesReport> {
        Ok(self.join_samples_of(self.profiling_session(ctx), tables(ctx).await?).await)
    }

    async fn join_samples_of(&self, session: SessionState, tables: Vec<Table>) -> SynopsesReport {
        let (profiles, counters) = (Arc::clone(&self.profiles), Arc::clone(&self.counters));
        let keys = Arc::clone(&self.foreign_keys);
        // A task of its own, so that a panic in a scan stays there.
        let task = tokio::spawn(async move { profiles.join_samples(&session, tables, &keys, &counters).await });
        task.await.unwrap_or_else(|e| SynopsesReport { errors: vec![e.to_string()], ..SynopsesReport::default() })
    }

    /// Profiles one table.
    ///
    /// # Errors
    /// When there is no such table. One that cannot be profiled is reported in [`TableReport::error`].
    pub async fn profile_table(&self, ctx: &SessionContext, table: TableReference) -> Result<TableReport> {
        let provider = ctx.table_provider(table.clone()).await.map_err(|_| RelataError::NoTable(table.to_string()))?;
        let session = self.profiling_session(ctx);
        let name = full_name(&session, table);
        Ok(self.profile_provider(session, name, provider, false).await)
    }

    /// Profiles on a task of its own, so that several tables use several threads and a panic in a scan stays there.
    pub(crate) async fn profile_provider(
        &self,
        session: SessionState,
        name: TableReference,
        provider: Arc<dyn TableProvider>,
        anew: bool,
    ) -> TableReport {
        let (profiles, counters) = (Arc::clone(&self.profiles), Arc::clone(&self.counters));
        let (own_name, own) = (name.clone(), Arc::clone(&provider));
        let task = tokio::spawn(async move { profiles.ensure(&session, own_name, &own, anew, &counters).await });
        let report = task.await.unwrap_or_else(|error| TableReport {
            table: name,
            rows: 0,
            columns: 0,
            bytes: 0,
            elapsed: Duration::ZERO,
            source: ProfileSource::Built,
            error: Some(error.to_string()),
        });
        if let (Some(experts), Some(table)) = (self.experts.clone(), self.profiles.get(&provider)) {
            // Nobody waits for it: a query that comes earlier makes it itself.
            tokio::task::spawn_blocking(move || table.embedding(&experts).is_some());
        }
        report
    }

    /// Profiles the tables of `plan` that have no profile, until the time budget is spent. A table that takes longer is profiled
    /// to its end, for later queries, none of which waits for longer than this one has; what is a table of this query alone, as
    /// that of a table function, is not profiled.
    pub(crate) async fn profile_tables_of(&self, plan: &LogicalPlan, session: &dyn Session, budget: Duration) {
        let mut unseen: Vec<Table> = Vec::new();
        let _ = plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && let Ok(provider) = source_as_provider(&scan.source)
                && !sql::is_action(&provider)
                && self.profiles.get(&provider).is_none()
                && !unseen.iter().any(|(_, known)| Arc::ptr_eq(known, &provider))
            {
                unseen.push((full_name(session, scan.table_name.clone()), provider));
            }
            Ok(TreeNodeRecursion::Continue)
        });
        if unseen.is_empty() {
            return;
        }
        let Some(alone) = self.profiles.session(session) else { return };
        let start = Instant::now();
        for (name, provider) in unseen {
            if !self.is_kept(session, &name, &provider).await {
                continue;
            }
            let left = budget.saturating_sub(start.elapsed());
            let profiled = match self.profiles.begin(&provider) {
                Ok(running) => {
                    let (relata, session) = (self.clone(), alone.clone());
                    tokio::spawn(async move {
                        relata.profile_provider(session, name, provider, false).await;
                        drop(running);
                    })
                    .map(drop)
                    .boxed()
                }
                Err(earlier) if earlier.since.elapsed() < budget => earlier.finished().boxed(),
                Err(_) => {
                    count(&self.counters.postponed);
                    continue;
                }
            };
            if tokio::time::timeout(left, profiled).await.is_err() {
                count(&self.counters.postponed);
                return;
            }
        }
    }

    /// Whether a later query can find the profile of a table that has this full name in a plan: the table is in the catalog under it,
    /// was read without one, or its profile is stored.
    async fn is_kept(&self, session: &dyn Session, name: &TableReference, provider: &Arc<dyn TableProvider>) -> bool {
        if name.table() == UNNAMED_TABLE || self.profiles.stored(name, provider).is_some() {
            return true;
        }
        let catalog = name.catalog().and_then(|catalog| session.catalog_list().catalog(catalog));
        let Some(schema) = catalog.zip(name.schema()).and_then(|(catalog, schema)| catalog.schema(schema)) else {
            return false;
        };
        schema.table(name.table()).await.ok().flatten().is_some_and(|found| Arc::ptr_eq(&found, provider))
    }

    pub(crate) fn estimator(&self) -> Estimator<'_> {
        let mut estimator = Estimator::new(self.experts.as_deref(), &self.profiles, &self.counters);
        estimator.known = self.known.as_deref();
        estimator
    }

    /// Estimates every node of an optimized logical plan.
    pub fn estimate(&self, plan: &LogicalPlan) -> PlanEstimate {
        estimate::tree(&self.estimator(), plan)
    }

    /// Estimates a query without running it.
    ///
    /// # Errors
    /// When the statement is no query, or cannot be parsed or planned.
    pub async fn estimate_sql(&self, ctx: &SessionContext, sql: &str) -> Result<QueryEstimate> {
        let start = Instant::now();
        let state = ctx.state();
        let plan = optimized(&state, sql).await?;
        let node = counted(&plan);
        let estimate = estimate::rows(&self.estimator(), node);
        let planning = start.elapsed();
        let default = default_rows(&state, node).await;
        Ok(QueryEstimate { estimate: estimate.rows, lower: estimate.lower, upper: estimate.upper, default, planning })
    }

    /// The plan of a query with relata's rows and intervals next to DataFusion's.
    ///
    /// # Errors
    /// When the statement is no query, or cannot be parsed or planned.
    pub async fn explain(&self, ctx: &SessionContext, sql: &str) -> Result<String> {
        let state = ctx.state();
        explain::render(&self.estimator(), &state, &self.ordered(&state, sql).await?).await
    }

    /// The same plan as a picture (SVG), with relata's rows and intervals.
    ///
    /// # Errors
    /// When the statement is no query, or cannot be parsed or planned.
    pub async fn explain_svg(&self, ctx: &SessionContext, sql: &str) -> Result<String> {
        let plan = self.ordered(&ctx.state(), sql).await?;
        Ok(explain::picture::svg(&self.estimate(&plan)))
    }

    /// Runs a query and returns its physical plan with relata's rows and intervals next to the actual rows; `ctx` is a session
    /// that relata is installed in.
    ///
    /// # Errors
    /// When the statement is no query, or cannot be parsed, planned or run.
    pub async fn explain_analyze(&self, ctx: &SessionContext, sql: &str) -> Result<String> {
        let state = ctx.state();
        let plan = LogicalPlanBuilder::from(optimized(&state, sql).await?).explain(false, true)?.build()?;
        let physical = state.query_planner().create_physical_plan(&plan, &state).await?;
        collect(Arc::clone(&physical), state.task_ctx()).await?;
        let ran = physical.downcast_ref::<AnalyzeExec>().map_or(&physical, AnalyzeExec::input);
        Ok(explain::analyzed::render(ran.as_ref()))
    }

    /// The sub-plans that were estimated and the join orders that were compared for a query, under the settings of its session.
    pub(crate) async fn considered(&self, state: &SessionState, sql: &str) -> Result<Vec<Considered>> {
        let config = RelataConfig::of(state.config_options()).unwrap_or(&self.config);
        let plan = optimized(state, sql).await?;
        if config.lazy_profiling {
            self.profile_tables_of(&plan, state, Duration::from_millis(config.profile_budget_ms)).await;
        }
        // What the query itself counts is not counted twice.
        let counters = Counters::default();
        let mut estimator = self.estimator();
        estimator.counters = &counters;
        let partitions = state.config().target_partitions();
        Ok(join_order::considered(&estimator, config, self.cost_model.as_ref(), partitions, plan)?)
    }

    /// The optimized plan of a query with its joins in relata's order.
    async fn ordered(&self, state: &SessionState, sql: &str) -> Result<LogicalPlan> {
        let config = RelataConfig::of(state.config_options()).unwrap_or(&self.config);
        let plan = optimized(state, sql).await?;
        Ok(self.order(config, state.config().target_partitions(), &plan).0)
    }

    /// What relata did so far.
    pub fn counters(&self) -> CounterValues {
        self.counters.values()
    }
}

/// The full name of a table.
pub(crate) fn full_name(session: &dyn Session, table: TableReference) -> TableReference {
    let catalog = &session.config_options().catalog;
    table.resolve(&catalog.default_catalog, &catalog.default_schema).into()
}

/// A table and its full name.
pub(crate) type Table = (TableReference, Arc<dyn TableProvider>);

/// Every table of every schema but views, which are planned as their queries, by name.
pub(crate) async fn tables(ctx: &SessionContext) -> Result<Vec<Table>> {
    let mut tables: Vec<Table> = Vec::new();
    for catalog_name in ctx.catalog_names() {
        let Some(catalog) = ctx.catalog(&catalog_name) else { continue };
        for schema_name in catalog.schema_names() {
            let Some(schema) = catalog.schema(&schema_name).filter(|_| schema_name != "information_schema") else {
                continue;
            };
            for table in schema.table_names() {
                let name = TableReference::full(catalog_name.as_str(), schema_name.as_str(), table.as_str());
                if let Some(provider) = schema.table(&table).await?.filter(|one| one.table_type() != TableType::View) {
                    tables.push((name, provider));
                }
            }
        }
    }
    tables.sort_by_key(|table| table.0.to_string());
    Ok(tables)
}

/// The optimized plan of a query.
pub(crate) async fn optimized(state: &SessionState, sql: &str) -> Result<LogicalPlan> {
    let plan = state.create_logical_plan(sql).await?;
    let plan = state.optimize(&plan)?;
    match plan {
        LogicalPlan::Ddl(_) | LogicalPlan::Dml(_) | LogicalPlan::Statement(_) | LogicalPlan::Copy(_) => {
            Err(RelataError::NoQuery(sql.to_owned()))
        }
        plan => Ok(plan),
    }
}

/// The node whose rows a user asks for: below an ungrouped aggregate at the top, its input; otherwise the root.
fn counted(plan: &LogicalPlan) -> &LogicalPlan {
    let mut node = plan;
    loop {
        match node {
            LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => return &aggregate.input,
            LogicalPlan::Projection(projection) => node = &projection.input,
            LogicalPlan::SubqueryAlias(alias) => node = &alias.input,
            _ => return plan,
        }
    }
}

/// DataFusion's own estimate of the rows of a logical plan: the statistics of the physical plan it makes without relata.
pub(crate) async fn default_rows(state: &SessionState, plan: &LogicalPlan) -> Option<f64> {
    let physical: Arc<dyn ExecutionPlan> =
        DefaultPhysicalPlanner::default().create_physical_plan(plan, state).await.ok()?;
    let statistics = StatisticsContext::new().compute(physical.as_ref(), &StatisticsArgs::new()).ok()?;
    match statistics.num_rows {
        Precision::Exact(rows) | Precision::Inexact(rows) => Some(rows as f64),
        Precision::Absent => None,
    }
}
