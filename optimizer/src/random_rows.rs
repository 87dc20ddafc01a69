//! Estimates that have nothing to do with the data, for tests that answers do not depend on estimates.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::estimate::KnownRows;
use crate::{JoinGraph, RelationSet};

/// Rows that are no number of rows, or hardly one.
const ODD: [f64; 8] = [0.0, -0.0, -7.0, 1e-300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX];

/// Random rows for every set of relations: mostly a power of ten between 1e-3 and 1e13, else zero, negative, not a number,
/// infinite or as large as numbers get. The same for the same seed and set.
///
/// ```
/// use std::sync::Arc;
/// use relata::{RandomRows, Relata};
///
/// # fn main() -> Result<(), relata::RelataError> {
/// let misled = Relata::pretrained()?.with_known_rows(Arc::new(RandomRows::new(1)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct RandomRows {
    seed: u64,
}

impl RandomRows {
    /// Other rows for every seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }
}

impl KnownRows for RandomRows {
    fn rows(&self, graph: &JoinGraph, set: RelationSet) -> Option<f64> {
        let hash = xxh3_64_with_seed(&set.0.to_le_bytes(), self.seed ^ graph.relations.len() as u64);
        let exponent = (hash >> 8) % 17;
        Some(match ODD.get((hash % 24) as usize) {
            Some(odd) => *odd,
            None => 10_f64.powi(exponent as i32 - 3),
        })
    }
}
