//! The conductor: an optimized logical plan -> rows with intervals for every node.
//!
//! Inner joins are estimated as sets of relations, whatever their shape: `Region::set` walks from the profiles of the
//! relations through the experts to the estimate of any set. What stands above or between the regions (aggregates, outer
//! joins, limits) is estimated from its inputs.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::logical_expr::{Expr, LogicalPlan, TableScan};
use hashbrown::HashMap;
use relata_experts::ExpertStack;
use relata_featurize::analytical::Profiles;
use relata_featurize::join_graph::{JoinGraph, RelationSet};
use relata_featurize::profile::TableProfile;
use relata_featurize::selectivity::{FilterEstimate, estimate_filters};
use relata_featurize::synopsis::JoinSynopsis;

use crate::counters::Counters;
use crate::profiles::ProfileStore;

mod joins;
mod region;
mod tree;

pub(crate) use joins::JoinRows;
pub(crate) use region::{Answer, Region};
use region::{ExpertState, KnownRegion};
pub use tree::PlanEstimate;
#[cfg(feature = "tune")]
pub(crate) use tree::group_column;
pub(crate) use tree::{PlanRows, is_region, rows, tree};

/// Where an estimate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The experts corrected the analytical estimate.
    Expert,
    /// Profiles and formulas alone.
    Analytical,
    /// Known, not estimated.
    Exact,
    /// The most rows that are possible, which the estimate came to.
    Bound,
    /// A guess, for this reason; DataFusion's own estimate is used in planning.
    Fallback(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Expert => f.write_str("expert"),
            Origin::Analytical => f.write_str("analytical"),
            Origin::Exact => f.write_str("exact"),
            Origin::Bound => f.write_str("bound"),
            Origin::Fallback(reason) => write!(f, "fallback: {reason}"),
        }
    }
}

/// Rows of a plan node with a 90% interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Rows.
    pub rows: f64,
    /// 5% quantile of the rows.
    pub lower: f64,
    /// 95% quantile of the rows.
    pub upper: f64,
    /// Where they come from.
    pub origin: Origin,
}

impl Estimate {
    /// A number that is known.
    pub(crate) fn exact(rows: f64) -> Self {
        Self { rows, lower: rows, upper: rows, origin: Origin::Exact }
    }

    /// Nothing is known.
    pub(crate) fn fallback(reason: &'static str) -> Self {
        Self { rows: 1000.0, lower: 0.0, upper: f64::INFINITY, origin: Origin::Fallback(reason) }
    }

    /// Mean of the rows, from the quantiles (the three-point approximation of Pearson and Tukey, as in Keefer and Bodily,
    /// "Three-point approximations for continuous random variables", Management Science 1983).
    pub(crate) fn expected(&self) -> f64 {
        0.63 * self.rows + 0.185 * (self.lower + self.upper)
    }

    /// Whether planning may rely on it.
    pub(crate) fn is_known(&self) -> bool {
        !matches!(self.origin, Origin::Fallback(_))
    }

    /// The same for a node whose rows follow from this one's by a monotone formula.
    pub(crate) fn map(self, formula: impl Fn(f64) -> f64) -> Self {
        Self { rows: formula(self.rows), lower: formula(self.lower), upper: formula(self.upper), ..self }
    }

    /// The same for a node whose rows follow from two inputs by a monotone formula.
    fn zip(self, other: Self, formula: impl Fn(f64, f64) -> f64) -> Self {
        let origin = match (self.origin, other.origin) {
            (fallback @ Origin::Fallback(_), _) | (_, fallback @ Origin::Fallback(_)) => fallback,
            (Origin::Exact, Origin::Exact) => Origin::Exact,
            _ => Origin::Analytical,
        };
        Self {
            rows: formula(self.rows, other.rows),
            lower: formula(self.lower, other.lower),
            upper: formula(self.upper, other.upper),
            origin,
        }
    }
}

/// Rows that are known instead of estimated: counts of earlier executions, or the truth when the rest of the optimizer is
/// to be judged apart from its estimates.
pub trait KnownRows: fmt::Debug + Send + Sync {
    /// Rows of the joined relations of `set` under every filter and condition among them; `None` where they are not known.
    /// What cannot be a number of rows (negative or not finite) counts as not known.
    fn rows(&self, graph: &JoinGraph, set: RelationSet) -> Option<f64>;
}

/// Filters of a profiled table, by the profile's address, and their estimate.
type FilterCache = HashMap<(usize, Vec<Expr>), Arc<FilterEstimate>>;

/// Estimates the plans of one query: what they have in common is estimated once.
#[derive(Debug)]
pub(crate) struct Estimator<'a> {
    pub(crate) experts: Option<&'a ExpertStack>,
    pub(crate) profiles: &'a ProfileStore,
    pub(crate) counters: &'a Counters,
    pub(crate) known: Option<&'a dyn KnownRows>,
    /// The filters that ran on a sample already.
    filters: Mutex<FilterCache>,
    /// What the experts say of a table under its filters, by the address of the filters' estimate in `filters`.
    filtered: Mutex<HashMap<usize, Option<ExpertState>>>,
    /// The regions estimated so far.
    regions: Mutex<Vec<KnownRegion>>,
}

impl<'a> Estimator<'a> {
    pub(crate) fn new(experts: Option<&'a ExpertStack>, profiles: &'a ProfileStore, counters: &'a Counters) -> Self {
        let (filters, filtered, regions) = Default::default();
        Self { experts, profiles, counters, known: None, filters, filtered, regions }
    }

    /// Has the experts correct the estimates from now on; what the filters let through is known already.
    pub(crate) fn ask(&mut self, experts: Option<&'a ExpertStack>) {
        self.experts = experts;
        self.regions.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Profiles for Estimator<'_> {
    fn profile(&self, scan: &TableScan) -> Option<Arc<TableProfile>> {
        Some(Arc::clone(&self.profiles.of_scan(scan)?.profile))
    }

    fn filters(&self, profile: &Arc<TableProfile>, filters: &[Expr]) -> Arc<FilterEstimate> {
        let key = (Arc::as_ptr(profile) as usize, filters.to_vec());
        let mut known = self.filters.lock().unwrap_or_else(PoisonError::into_inner);
        let estimate = || {
            let estimate = estimate_filters(profile, filters);
            Arc::new(if self.bounded() { estimate } else { estimate.unbounded() })
        };
        Arc::clone(known.entry(key).or_insert_with(estimate))
    }

    fn synopsis(&self, scan: &TableScan) -> Option<Arc<JoinSynopsis>> {
        self.profiles.of_scan(scan)?.synopsis.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn bounded(&self) -> bool {
        self.profiles.config.bounds
    }

    fn derived_rows(&self, plan: &LogicalPlan) -> Option<f64> {
        // A base table without a profile; its estimate would ask for its derived rows again.
        if is_region(plan) {
            return None;
        }
        let estimate = rows(self, plan);
        estimate.is_known().then_some(estimate.rows)
    }
}
