//! Settings of relata: defaults for a [`crate::Relata`], changed per session with `SET relata.<name> = <value>`.

use datafusion::common::config::{ConfigExtension, ConfigOptions};
use datafusion::common::extensions_options;

extensions_options! {
    /// Settings of relata in a session.
    pub struct RelataConfig {
        /// Whether relata takes part in planning at all.
        pub enabled: bool, default = true
        /// Whether inner joins are reordered.
        pub join_reordering: bool, default = true
        /// Whether DataFusion's physical planning sees relata's estimates.
        pub statistics: bool, default = true
        /// Whether EXPLAIN and EXPLAIN ANALYZE show relata's estimates.
        pub explain: bool, default = true
        /// Whether tables without a profile are profiled when a query over them is planned.
        pub lazy_profiling: bool, default = true
        /// Milliseconds that lazy profiling may take of one planning; tables left over are tried again by the next query.
        pub profile_budget_ms: u64, default = 5_000
        /// How many times cheaper a new join order must be for the query's own order to be left.
        pub minimum_gain: f64, default = 1.5
        /// Cost of the query's own order, in the cost model's unit, below which it is left as it is: nanoseconds by default.
        pub minimum_cost: f64, default = 1_000_000.0
        /// Cost of the best plan by the analytical estimates, in the cost model's unit, below which the experts are not asked:
        /// they take longer than they gain. 0 always asks them.
        pub expert_cost: f64, default = 500_000_000.0
        /// Whether orders are chosen by the expected rows of their joins, over the intervals, instead of by the medians.
        pub expected_cost: bool, default = false
        /// Predicted cost, in the cost model's unit, that every partition of a plan must have at least: plans with less to do run
        /// in fewer partitions than `datafusion.execution.target_partitions`. 0 always leaves it as it is.
        pub partition_cost: f64, default = 4_000_000.0
        /// Executed queries that are kept in the profile directory for `relata tune`, the last of them: their plans with the rows and
        /// times of the operators, without names, constants or data. The first one measures the machine. 0 records none.
        pub record: usize, default = 0
        /// Pairs of relation sets that join enumeration looks at before it goes on greedily; a chain of 18 relations, a star of
        /// 9 and a clique of 7 are within the default.
        pub enumeration_budget: usize, default = 1_100
    }
}

impl ConfigExtension for RelataConfig {
    const PREFIX: &'static str = "relata";
}

impl RelataConfig {
    /// The settings of a session; `None` where relata is not installed.
    pub fn of(options: &ConfigOptions) -> Option<&Self> {
        options.extensions.get::<Self>()
    }
}
