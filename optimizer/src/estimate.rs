//! The conductor (being written).

use std::fmt;

/// Where an estimate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The experts corrected the analytical estimate.
    Expert,
    /// Profiles and formulas alone.
    Analytical,
    /// Known, not estimated.
    Exact,
    /// A guess, for this reason; DataFusion's own estimate is used in planning.
    Fallback(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Expert => f.write_str("expert"),
            Origin::Analytical => f.write_str("analytical"),
            Origin::Exact => f.write_str("exact"),
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

/// The estimate of a plan's root and, below it, of its inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanEstimate {
    /// The root node as DataFusion displays it.
    pub node: String,
    /// Its estimate.
    pub estimate: Estimate,
    /// The inputs, in the order of `LogicalPlan::inputs`.
    pub inputs: Vec<PlanEstimate>,
}
