//! A learned query optimizer for engines built on Apache DataFusion.
//!
//! Three lines in an engine switch it on: the experts with the weights inside this crate, a session state that plans with
//! them, and the profiles of the tables (built at the first planning of a query where they are missing).
//!
//! ```
//! use datafusion::execution::SessionStateBuilder;
//! use datafusion::prelude::SessionContext;
//! use relata::Relata;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), relata::RelataError> {
//! let relata = Relata::pretrained()?;
//! let state = relata.install(SessionStateBuilder::new_with_default_features()).build();
//! let ctx = SessionContext::new_with_state(state);
//! // ... register tables, then:
//! relata.profile(&ctx).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The path of one query, in the order in which to read the code: [`estimate`] turns an optimized logical plan into
//! estimates with intervals, `join_order` orders its joins by them, `statistics` hands them to DataFusion's physical
//! planning, `join_methods` picks the sides and methods of its joins, `dynamic_filters` sees to it that the filters of one
//! order of joins lose no rows, and `planner` drives all of it from inside DataFusion.
//! `profiles` keeps the profiles of the tables, `synopses` their samples joined along foreign keys, and `maintenance` renews,
//! lists and forgets them. `explain` shows the estimates, in EXPLAIN and next to DataFusion's own.
//! `runtime` predicts how long a physical plan takes on the machine, `advice` compares settings by it and `layout` the
//! orders of files, `recorded` keeps how long it took.
//! `answer` answers aggregating queries from the same profiles. `predict` predicts a column of any database from labelled examples,
//! without training. `sql` has the table functions of a session, `approx_answer` and those of maintenance, and the relation
//! `PREDICT(...)`.
//! `tune` (a feature) adapts the experts to a database by running its queries, and `tuned` keeps their weights.
//!
//! Invariants: only this crate implements DataFusion traits; whatever goes wrong inside relata leaves the query to
//! DataFusion's own estimates and plan, is counted ([`Relata::counters`]) and never fails the query.

mod advice;
mod answer;
#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
pub mod counters;
mod dynamic_filters;
pub mod error;
pub mod estimate;
mod explain;
mod join_methods;
pub mod join_order;
mod layout;
mod maintenance;
mod optimizer;
mod planner;
mod predict;
mod profiles;
mod random_rows;
mod recorded;
mod residuals;
mod runtime;
mod sql;
mod statistics;
mod synopses;
#[cfg(feature = "tune")]
pub mod tune;
mod tuned;

pub use advice::SettingAdvice;
pub use config::RelataConfig;
pub use counters::CounterValues;
pub use error::RelataError;
pub use estimate::{Estimate, KnownRows, Origin, PlanEstimate};
pub use layout::LayoutAdvice;
pub use maintenance::{LoadedProfile, ProfileReport};
pub use optimizer::{QueryEstimate, Relata};
pub use predict::{MOST_EXAMPLES, PredictQuery, PredictTask, Predictions};
pub use profiles::{DataVersions, ProfileSource, TableReport};
pub use random_rows::RandomRows;
pub use runtime::{EstimatedPlan, RuntimeEstimate};
pub use synopses::{ForeignKey, SynopsesReport, SynopsisReport};

/// The experts that [`Relata::new`] takes.
pub use relata_experts::ExpertStack;
/// What [`Relata::with_predictor`] takes.
pub use relata_experts::in_context::InContextPredictor;
/// The joins that [`KnownRows`] is asked about.
pub use relata_featurize::join_graph::{JoinGraph, RelationSet};
/// How a table is sampled and sketched.
pub use relata_featurize::profile::ProfileConfig;
/// What a machine takes for the units of work of plans.
pub use relata_featurize::resources::Resources;
/// How the samples of several tables are joined.
pub use relata_featurize::synopsis::SynopsisConfig;

/// Result of this crate.
pub type Result<T, E = RelataError> = std::result::Result<T, E>;
