//! The library from the outside: the same answers with and without relata, and queries over data and plans that are odd.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::util::pretty::pretty_format_batches_with_schema;
use datafusion::error::Result;
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use relata::{ExpertStack, Relata, RelataConfig};

#[path = "library/answers.rs"]
mod answers;
#[path = "library/bad_input.rs"]
mod bad_input;
#[path = "library/consistency.rs"]
mod consistency;
#[path = "library/cost_models.rs"]
mod cost_models;
#[path = "library/estimates.rs"]
mod estimates;
#[path = "library/explain.rs"]
mod explain;
#[path = "library/maintenance.rs"]
mod maintenance;
#[path = "library/predict.rs"]
mod predict;
#[path = "library/property.rs"]
mod property;
#[path = "../examples/quick_start.rs"]
mod quick_start;
#[path = "library/same_answers.rs"]
mod same_answers;
#[path = "library/sessions.rs"]
mod sessions;
#[path = "library/slt.rs"]
mod slt;
#[path = "library/sources.rs"]
mod sources;
#[path = "library/stored_profiles.rs"]
mod stored_profiles;

#[test]
fn the_quick_start_runs() {
    quick_start::main().unwrap();
}

/// The experts are loaded once; profiles and counters are the caller's own.
fn pretrained() -> Relata {
    static EXPERTS: OnceLock<ExpertStack> = OnceLock::new();
    let experts = EXPERTS.get_or_init(|| ExpertStack::pretrained().unwrap());
    Relata::new(Some(experts.clone())).with_config(every_region())
}

/// Leaves the query's own order whatever the gain, so that every region goes through the rewrite.
fn every_region() -> RelataConfig {
    let mut config = RelataConfig::default();
    (config.minimum_gain, config.minimum_cost, config.partition_cost) = (0.0, 0.0, 0.0);
    config
}

/// One session as DataFusion makes it and one with relata.
struct Sessions {
    default: SessionContext,
    learned: SessionContext,
    relata: Relata,
}

impl Sessions {
    fn new(relata: Relata) -> Self {
        let builder = || {
            let config = SessionConfig::new().with_target_partitions(2);
            SessionStateBuilder::new_with_default_features().with_config(config)
        };
        let default = SessionContext::new_with_state(builder().build());
        let learned = SessionContext::new_with_state(relata.install(builder()).build());
        Self { default, learned, relata }
    }

    fn both(&self) -> [&SessionContext; 2] {
        [&self.default, &self.learned]
    }

    fn register(&self, name: &str, batch: &RecordBatch) {
        for ctx in self.both() {
            ctx.register_batch(name, batch.clone()).unwrap();
        }
    }

    /// Asserts that a query has the same rows in both sessions, in any order; returns how many.
    async fn same(&self, sql: &str) -> usize {
        let (mut expected, mut actual) = (self.default_rows(sql).await, rows(&self.learned, sql).await.unwrap());
        let count = expected.len() - 1;
        expected.sort();
        actual.sort();
        assert_eq!(expected, actual, "{sql}\n{}", self.plans(sql).await);
        count
    }

    /// The same for a query with an order.
    async fn same_in_order(&self, sql: &str) {
        let (expected, actual) = (self.default_rows(sql).await, rows(&self.learned, sql).await.unwrap());
        assert_eq!(expected, actual, "{sql}\n{}", self.plans(sql).await);
    }

    /// Asserts that a query has the same rows in both sessions or fails in both.
    async fn same_outcome(&self, sql: &str) {
        let sorted = |rows: Result<Vec<String>>| match rows {
            Ok(mut rows) => {
                rows.sort();
                Ok(rows)
            }
            Err(_) => Err("an error"),
        };
        let (expected, actual) = (rows(&self.default, sql).await, rows(&self.learned, sql).await);
        let shown = format!("{sql}\n{expected:?}\n{actual:?}");
        assert_eq!(sorted(expected), sorted(actual), "{shown}");
    }

    async fn default_rows(&self, sql: &str) -> Vec<String> {
        rows(&self.default, sql).await.unwrap_or_else(|error| panic!("the test's own query fails: {sql}\n{error}"))
    }

    async fn plans(&self, sql: &str) -> String {
        let mut text = String::new();
        for ctx in self.both() {
            let plan = rows(ctx, &format!("EXPLAIN {sql}")).await.unwrap_or_default();
            let _ = writeln!(text, "{}", plan.join("\n"));
        }
        text
    }

    /// Asserts that relata stood back nowhere.
    fn assert_untroubled(&self) {
        let counters = self.relata.counters();
        assert_eq!((counters.failures, counters.rejected, counters.expert_failures), (0, 0, 0), "{counters:?}");
    }
}

/// The rows of a query as text, the header with names and types first.
async fn rows(ctx: &SessionContext, sql: &str) -> Result<Vec<String>> {
    let data = ctx.sql(sql).await?;
    let schema = Arc::clone(data.schema().inner());
    let types: Vec<String> = schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
    let batches = data.collect().await?;
    let text = pretty_format_batches_with_schema(schema, &batches)?.to_string();
    let data_lines = text.lines().skip(3).filter(|line| line.starts_with('|')).map(str::to_owned);
    Ok(std::iter::once(types.join(", ")).chain(data_lines).collect())
}

/// A batch of nullable columns.
fn batch<const N: usize>(columns: [(&str, ArrayRef); N]) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}
