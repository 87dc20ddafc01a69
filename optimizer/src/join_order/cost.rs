//! What a join costs.

use std::fmt::Debug;

/// The cost of one join, in rows handled; the cost of a tree is the sum over its joins.
pub trait CostModel: Debug + Send + Sync {
    /// Cost of joining inputs of `build` and `probe` rows to `output` rows.
    fn join(&self, build: f64, probe: f64, output: f64) -> f64;
}

/// DataFusion's hash join: a row of the build side is hashed, copied and inserted, one of the probe side is hashed and
/// looked up, one of the output is gathered. The weights are those under which the orders of design measurements on
/// DataFusion 55 ran fastest.
#[derive(Debug, Clone, Copy, Default)]
pub struct HashJoinCost;

impl CostModel for HashJoinCost {
    fn join(&self, build: f64, probe: f64, output: f64) -> f64 {
        2.0 * build + probe + output
    }
}

/// `C_out`: the rows of the intermediate results, whatever joins them (Cluet and Moerkotte, "On the complexity of
/// generating optimal left-deep processing trees with cross products", ICDT 1995).
#[derive(Debug, Clone, Copy, Default)]
pub struct OutputCost;

impl CostModel for OutputCost {
    fn join(&self, _build: f64, _probe: f64, output: f64) -> f64 {
        output
    }
}
