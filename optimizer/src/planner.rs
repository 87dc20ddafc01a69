//! The query planner that drives relata from inside DataFusion.
//!
//! It wraps the planner the session had. Per query with a join: profile the tables that have no profile, order the
//! joins, then let the wrapped planner plan with a session whose statistics registry knows relata's rows. Queries without a
//! join go to the wrapped planner at once. EXPLAIN plans the query as it would run and shows the estimates.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProviderList, Session};
use datafusion::common::DFSchema;
use datafusion::common::config::{ConfigOptions, TableOptions};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::registry::ExtensionTypeRegistryRef;
use datafusion::logical_expr::{AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, WindowUDF};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::operator_statistics::StatisticsRegistry;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::SessionConfig;

use crate::config::RelataConfig;
use crate::counters::{Counters, count};
use crate::dynamic_filters;
use crate::estimate::Estimator;
use crate::join_methods::{self, JoinMethods};
use crate::optimizer::Relata;
use crate::runtime::{EstimatedPlan, memory_limit};
use crate::statistics::{IdentifyScans, NodeRows, QueryRows, RelataStatistics};
use crate::{explain, join_order};

/// Plans with relata, or as the wrapped planner would.
pub(crate) struct RelataQueryPlanner {
    relata: Relata,
    inner: Option<Arc<dyn QueryPlanner + Send + Sync>>,
}

impl fmt::Debug for RelataQueryPlanner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelataQueryPlanner").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl RelataQueryPlanner {
    pub(crate) fn new(relata: Relata, inner: Option<Arc<dyn QueryPlanner + Send + Sync>>) -> Self {
        Self { relata, inner }
    }

    async fn plan_inside(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        match &self.inner {
            Some(inner) => inner.create_physical_plan(plan, session).await,
            None => DefaultPhysicalPlanner::default().create_physical_plan(plan, session).await,
        }
    }

    /// Plans a query that could not be planned with relata, or not at all.
    async fn plan_without(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let planned = self.plan_inside(plan, session).await?;
        count(&self.relata.counters.failures);
        Ok(planned)
    }
}

impl Relata {
    /// The plan with its joins reordered, as it was where anything goes wrong, a panic included; and the rows of its nodes.
    pub(crate) fn order(
        &self,
        config: &RelataConfig,
        partitions: usize,
        plan: &LogicalPlan,
    ) -> (LogicalPlan, Option<QueryRows>) {
        let order = AssertUnwindSafe(|| self.order_in_steps(config, partitions, plan));
        catch_unwind(order).unwrap_or_else(|_| {
            count(&self.counters.failures);
            (plan.clone(), None)
        })
    }

    /// The experts are asked where the best plan without them takes long enough to be worth their time, and keep that plan unless
    /// another is predicted to be clearly better.
    fn order_in_steps(
        &self,
        config: &RelataConfig,
        partitions: usize,
        plan: &LogicalPlan,
    ) -> (LogicalPlan, Option<QueryRows>) {
        let mut estimator = self.estimator();
        if config.expert_cost <= 0.0 || !config.statistics || estimator.experts.is_none() {
            return self.order_by(&estimator, config, partitions, plan);
        }
        let (experts, counters) = (estimator.experts.take(), estimator.counters);
        let (first, second) = (Counters::default(), Counters::default());
        estimator.counters = &first;
        let (mut ordered, mut known) = self.order_by(&estimator, config, partitions, plan);
        let cost = known.as_ref().and_then(QueryRows::cost);
        if known.is_some() && cost.is_none_or(|cost| cost >= config.expert_cost) {
            estimator.counters = &second;
            estimator.ask(experts);
            (ordered, known) = self.order_by(&estimator, config, partitions, &ordered);
        }
        counters.add(first.values().refined(second.values()));
        (ordered, known)
    }

    fn order_by(
        &self,
        estimator: &Estimator<'_>,
        config: &RelataConfig,
        partitions: usize,
        plan: &LogicalPlan,
    ) -> (LogicalPlan, Option<QueryRows>) {
        let model = self.cost_model.as_ref();
        let ordered = if config.join_reordering {
            join_order::reorder(estimator, config, model, partitions, plan.clone()).unwrap_or_else(|_| {
                count(&estimator.counters.failures);
                plan.clone()
            })
        } else {
            plan.clone()
        };
        // EXPLAIN is planned as what it explains.
        let query = explain::explained(&ordered).map_or(&ordered, |explained| explained.as_ref());
        let known = if config.statistics { QueryRows::new(estimator, model, query) } else { None };
        (ordered, known)
    }
}

#[async_trait]
impl QueryPlanner for RelataQueryPlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let config = RelataConfig::of(session.config_options()).unwrap_or(&self.relata.config);
        let explained = explain::explained(plan);
        let explains = config.explain && explained.is_some();
        let records = config.record > 0 && explained.is_none();
        if let LogicalPlan::Dml(dml) = plan
            && let Ok(provider) = source_as_provider(&dml.target)
        {
            // What it changes is another table.
            self.relata.profiles.remove(&provider);
        }
        if !config.enabled || !(explains || records || has_join(plan)) {
            return self.plan_inside(plan, session).await;
        }
        let (ordered, known) = if has_join(plan) {
            count(&self.relata.counters.planned);
            if config.lazy_profiling {
                let budget = Duration::from_millis(config.profile_budget_ms);
                self.relata.profile_tables_of(plan, session, budget).await;
            }
            self.relata.order(config, session.config().target_partitions(), plan)
        } else {
            (plan.clone(), None)
        };
        let mut planning = PlanningSession::new(session, known, config, &self.relata);
        if !(explains || records) {
            return match self.plan_inside(&ordered, &planning).await {
                Ok(planned) => Ok(planned),
                Err(_) => self.plan_without(plan, session).await,
            };
        }
        let clock = if explains { self.relata.clock().await } else { None };
        let query = explain::explained(&ordered).map_or(&ordered, |explained| explained.as_ref());
        let memory_limit = memory_limit(session.runtime_env());
        planning.rules = explain::rules(&self.relata.estimator(), query, clock, memory_limit, planning.rules);
        let Ok(planned) = self.plan_inside(&ordered, &planning).await else {
            return self.plan_without(plan, session).await;
        };
        if explains {
            return Ok(explain::answered(&self.relata.estimator(), &ordered, planned));
        }
        let estimated = EstimatedPlan::new(Arc::clone(&planned), session.config_options(), memory_limit);
        Ok(self.relata.recording(plan, estimated, config.record).await.unwrap_or(planned))
    }
}

fn has_join(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let _ = plan.apply_with_subqueries(|node| {
        found |= matches!(node, LogicalPlan::Join(_));
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found
}

/// The share of a limited memory beyond which a hash table is not risked.
const TABLE_SHARE: f64 = 0.5;

/// The given session with relata's rows of one query in its statistics registry.
pub(crate) struct PlanningSession<'a> {
    inner: &'a dyn Session,
    config: SessionConfig,
    registry: Option<StatisticsRegistry>,
    rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>>,
    table_options: TableOptions,
}

impl<'a> PlanningSession<'a> {
    /// Without rows it only checks what dynamic filters land on.
    pub(crate) fn new(
        inner: &'a dyn Session,
        known: Option<QueryRows>,
        settings: &RelataConfig,
        relata: &Relata,
    ) -> Self {
        let mut session = Self {
            inner,
            config: inner.config().clone(),
            registry: inner.statistics_registry().cloned(),
            rules: inner.physical_optimizers().to_vec(),
            table_options: inner.table_options().clone(),
        };
        dynamic_filters::check(&mut session.rules);
        let Some(known) = known else { return session };
        let options = session.config.options_mut();
        options.optimizer.use_statistics_registry = true;
        let memory = memory_limit(inner.runtime_env());
        if memory.is_some_and(|bytes| known.should_sort(TABLE_SHARE * bytes as f64)) {
            options.optimizer.prefer_hash_join = false;
        } else {
            let most = options.execution.target_partitions;
            options.execution.target_partitions = known.partitions(most, settings.partition_cost);
        }
        let rows = Arc::new(NodeRows::new(known, Arc::clone(&relata.counters)));
        for rule in session.rules.iter_mut().filter(|rule| rule.name() == join_methods::REPLACED) {
            let (rows, model) = (Arc::clone(&rows), Arc::clone(&relata.cost_model));
            *rule = Arc::new(JoinMethods::new(rows, model, Arc::clone(rule)));
        }
        session.rules.insert(0, Arc::new(IdentifyScans(Arc::clone(&rows))));
        session.registry = Some(StatisticsRegistry::with_providers(vec![Arc::new(RelataStatistics(rows))]));
        session
    }
}

#[async_trait]
impl Session for PlanningSession<'_> {
    fn session_id(&self) -> &str {
        self.inner.session_id()
    }
    fn config(&self) -> &SessionConfig {
        &self.config
    }
    fn catalog_list(&self) -> Arc<dyn CatalogProviderList> {
        self.inner.catalog_list()
    }
    fn config_options(&self) -> &ConfigOptions {
        self.config.options()
    }
    fn query_planner(&self) -> Arc<dyn QueryPlanner + Send + Sync> {
        self.inner.query_planner()
    }
    fn optimize(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        self.inner.optimize(plan)
    }
    fn physical_optimizers(&self) -> &[Arc<dyn PhysicalOptimizerRule + Send + Sync>] {
        &self.rules
    }
    fn statistics_registry(&self) -> Option<&StatisticsRegistry> {
        self.registry.as_ref()
    }
    async fn create_physical_plan(&self, logical_plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
        self.inner.create_physical_plan(logical_plan).await
    }
    fn create_physical_expr(&self, expr: Expr, df_schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
        self.inner.create_physical_expr(expr, df_schema)
    }
    fn scalar_functions(&self) -> &HashMap<String, Arc<ScalarUDF>> {
        self.inner.scalar_functions()
    }
    fn higher_order_functions(&self) -> &HashMap<String, Arc<HigherOrderUDF>> {
        self.inner.higher_order_functions()
    }
    fn aggregate_functions(&self) -> &HashMap<String, Arc<AggregateUDF>> {
        self.inner.aggregate_functions()
    }
    fn window_functions(&self) -> &HashMap<String, Arc<WindowUDF>> {
        self.inner.window_functions()
    }
    fn extension_type_registry(&self) -> &ExtensionTypeRegistryRef {
        self.inner.extension_type_registry()
    }
    fn runtime_env(&self) -> &Arc<RuntimeEnv> {
        self.inner.runtime_env()
    }
    fn execution_props(&self) -> &ExecutionProps {
        self.inner.execution_props()
    }
    fn as_any(&self) -> &dyn Any {
        self.inner.as_any()
    }
    fn table_options(&self) -> &TableOptions {
        self.inner.table_options()
    }
    fn table_options_mut(&mut self) -> &mut TableOptions {
        &mut self.table_options
    }
    fn task_ctx(&self) -> Arc<TaskContext> {
        self.inner.task_ctx()
    }
}
