//! What relata did and where it stood back, counted since it was made.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident)*) => {
        /// The running counts.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
        }

        /// The counts at one moment.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct CounterValues {
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl CounterValues {
            /// The counts with their names.
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }

        impl Counters {
            pub(crate) fn values(&self) -> CounterValues {
                CounterValues { $($name: self.$name.load(Ordering::Relaxed),)* }
            }

            pub(crate) fn add(&self, values: CounterValues) {
                $(self.$name.fetch_add(values.$name, Ordering::Relaxed);)*
            }
        }
    };
}

counters! {
    /// Queries that relata planned.
    planned
    /// Regions of inner joins that were given another order.
    reordered
    /// Regions that kept the query's order, because no other was predicted to be clearly better.
    kept
    /// Regions left alone because one of their relations could not be estimated.
    unestimated
    /// Rewritten plans that were given up, because their schema differed or they could not be built.
    rejected
    /// Estimates by the experts that were not finite or failed, answered analytically.
    expert_failures
    /// Physical plans whose scans could not be tied to the logical plan's.
    unidentified
    /// Profiles built.
    profiled
    /// Profiles read from the profile directory.
    loaded
    /// Profiles of tables that were appended to, brought up to date by profiling their new files.
    updated
    /// Stored profiles that were damaged and rebuilt.
    damaged
    /// Stored profiles whose table had changed, rebuilt or brought up to date.
    stale
    /// Tables that could not be profiled.
    unprofiled
    /// Join synopses built.
    synopses_built
    /// Join synopses read from the profile directory.
    synopses_loaded
    /// Stored join synopses that were damaged and rebuilt.
    synopses_damaged
    /// Tables that lazy profiling had no time left for.
    postponed
    /// Errors inside relata that left a query to DataFusion.
    failures
}

impl CounterValues {
    /// What is counted of a query that was planned twice, the second time from the first order.
    pub(crate) fn refined(self, second: Self) -> Self {
        let regions = if second.reordered > self.reordered { second } else { self };
        Self {
            failures: self.failures + second.failures,
            expert_failures: self.expert_failures + second.expert_failures,
            ..regions
        }
    }
}

/// Counts one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
