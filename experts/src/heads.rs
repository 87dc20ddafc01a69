//! Heads: the state of a node -> an estimate with its interval.
//!
//! The cardinality head returns a residual over the analytical estimate in `ln` space, never a cardinality: an untrained
//! head, whose last layer is zero, repeats the analytical estimate.

use relata_featurize::graph::NodeKind;
use serde::{Deserialize, Serialize};

use crate::config::HEAD_OUTPUTS;
use crate::mlp::Mlp;

/// Residuals beyond this are cut off, in `ln` units: no state makes the head move an estimate by more than a factor of
/// 160,000.
pub const RESIDUAL_LIMIT: f32 = 12.0;

/// Buckets of nodes by joins: 0, 1, 2, 3 and 4 or more.
pub const JOIN_BUCKETS: usize = 5;

/// The bucket of a node above `joins` joins.
pub const fn join_bucket(joins: usize) -> usize {
    if joins < JOIN_BUCKETS { joins } else { JOIN_BUCKETS - 1 }
}

/// The bucket of the conformal offsets from which on groups are counted instead of rows: before it lie filters and 1, 2, 3,
/// 4, 5 and 6 or more joins.
pub(crate) const FIRST_OF_GROUPS: usize = 7;

/// Buckets of the conformal offsets; the last ones are groups over 0, 1 and 2 or more joins.
pub const CALIBRATION_BUCKETS: usize = FIRST_OF_GROUPS + 3;

/// The bucket of the conformal offsets of a node above `joins` joins.
pub const fn calibration_bucket(kind: NodeKind, joins: usize) -> usize {
    let (first, last) = match kind {
        NodeKind::Aggregate => (FIRST_OF_GROUPS, CALIBRATION_BUCKETS - 1),
        _ => (0, FIRST_OF_GROUPS - 1),
    };
    if joins < last - first { first + joins } else { last }
}

/// Median and 90% interval of a cardinality.
///
/// # Units
///
/// `ln(rows)` relative to the analytical estimate; 0 repeats that estimate. `lower <= median <= upper`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct CardinalityQuantiles {
    /// 5% quantile.
    pub lower: f32,
    /// Median: the estimate.
    pub median: f32,
    /// 95% quantile.
    pub upper: f32,
}

impl CardinalityQuantiles {
    /// Lower end, median and upper end.
    pub(crate) fn values(self) -> [f32; 3] {
        [self.lower, self.median, self.upper]
    }

    /// The quantiles of the number of rows over the analytical estimate `base`.
    ///
    /// # Units
    ///
    /// `base` is `ln(max(1, rows))`, the result is in rows and at least 1.
    pub fn rows(self, base: f32) -> [f64; 3] {
        self.values().map(|residual| f64::from(base + residual).exp().max(1.0))
    }
}

/// How far split-conformal calibration moves the two ends of an interval outwards (negative: inwards), in `ln` units.
///
/// Conformalized quantile regression (Romano, Patterson & Candes, NeurIPS 2019), the two ends apart, calibrated on held-out
/// databases per [`calibration_bucket`].
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct ConformalOffset {
    /// Subtracted from the lower end.
    pub lower: f32,
    /// Added to the upper end.
    pub upper: f32,
}

/// The cardinality head.
#[derive(Debug, Clone)]
pub struct CardinalityHead {
    mlp: Mlp,
    /// One per [`calibration_bucket`].
    conformal: [ConformalOffset; CALIBRATION_BUCKETS],
}

impl CardinalityHead {
    /// A head with its calibration; missing buckets repeat the last one, and no calibration moves nothing.
    pub(crate) fn new(mlp: Mlp, conformal: &[ConformalOffset]) -> Self {
        let bucket = |bucket: usize| conformal.get(bucket).or(conformal.last()).copied().unwrap_or_default();
        Self { mlp, conformal: std::array::from_fn(bucket) }
    }

    /// The flat parameters of its model.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = f32> {
        self.mlp.parameters()
    }

    /// The calibration, one per bucket of [`calibration_bucket`].
    pub(crate) fn conformal(&self) -> &[ConformalOffset] {
        &self.conformal
    }

    /// The quantiles of one node of a [`calibration_bucket`]: `state: [D]`.
    pub fn quantiles(&self, state: &[f32], bucket: usize) -> CardinalityQuantiles {
        let mut raw = [0.0; HEAD_OUTPUTS];
        self.mlp.forward(state, &mut raw);
        self.calibrated(raw, bucket)
    }

    /// The quantiles of some nodes: `states: [N, D]`, `buckets: [N]`.
    pub fn quantiles_batch(&self, states: &[f32], buckets: &[usize]) -> Vec<CardinalityQuantiles> {
        let mut raw = vec![0.0; buckets.len() * HEAD_OUTPUTS];
        self.mlp.forward(states, &mut raw);
        let rows = raw.chunks_exact(HEAD_OUTPUTS).zip(buckets);
        rows.map(|(raw, &bucket)| self.calibrated([raw[0], raw[1], raw[2]], bucket)).collect()
    }

    /// The interval as the network sees it, before calibration and limits.
    pub(crate) fn uncalibrated([median, below, above]: [f32; HEAD_OUTPUTS]) -> CardinalityQuantiles {
        CardinalityQuantiles { lower: median - softplus(below), median, upper: median + softplus(above) }
    }

    fn calibrated(&self, raw: [f32; HEAD_OUTPUTS], bucket: usize) -> CardinalityQuantiles {
        let quantiles = Self::uncalibrated(raw);
        let offset = self.conformal[bucket.min(CALIBRATION_BUCKETS - 1)];
        let limit = |residual: f32| residual.clamp(-RESIDUAL_LIMIT, RESIDUAL_LIMIT);
        let median = limit(quantiles.median);
        CardinalityQuantiles {
            lower: limit(quantiles.lower - offset.lower).min(median),
            median,
            upper: limit(quantiles.upper + offset.upper).max(median),
        }
    }
}

/// `ln(1 + exp(x))` without overflow.
fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ExpertConfig, Module};
    use crate::fixture;
    use proptest::prelude::*;

    fn head(conformal: &[ConformalOffset]) -> CardinalityHead {
        let shapes = ExpertConfig::with_width(16).shapes();
        CardinalityHead::new(Mlp::of(Module::Cardinality, &shapes, &fixture::Noise::new(3).vector(200_000)), conformal)
    }

    #[test]
    fn zero_weights_repeat_the_analytical_estimate() {
        let shapes = ExpertConfig::with_width(16).shapes();
        let head = CardinalityHead::new(Mlp::of(Module::Cardinality, &shapes, &vec![0.0; 200_000]), &[]);
        let quantiles = head.quantiles(&[1.0; 16], 2);
        assert!(quantiles.median.abs() < f32::EPSILON);
        assert!((quantiles.rows(100f32.ln())[1] - 100.0).abs() < 1e-3);
    }

    #[test]
    fn calibration_moves_the_ends_and_not_the_median() {
        let offsets = [ConformalOffset::default(), ConformalOffset { lower: 0.5, upper: 0.25 }];
        let (plain, moved) = (head(&[]), head(&offsets));
        let state = fixture::Noise::new(5).vector(16);
        assert_eq!(plain.quantiles(&state, 0), moved.quantiles(&state, 0));
        for bucket in [1, 4, 9] {
            let (plain, moved) = (plain.quantiles(&state, bucket), moved.quantiles(&state, bucket));
            assert!((plain.median - moved.median).abs() < 1e-6);
            assert!((plain.lower - moved.lower - 0.5).abs() < 1e-4);
            assert!((moved.upper - plain.upper - 0.25).abs() < 1e-4);
        }
    }

    #[test]
    fn rows_and_groups_have_buckets_of_their_own() {
        let buckets = |kind| [0, 1, 2, 5, 6, 7].map(|joins| calibration_bucket(kind, joins));
        assert_eq!(buckets(NodeKind::Join), [0, 1, 2, 5, 6, 6]);
        assert_eq!(buckets(NodeKind::Aggregate), [7, 8, 9, 9, 9, 9]);
    }

    proptest! {
        #[test]
        fn quantiles_never_cross(raw in prop::array::uniform3(-100.0f32..100.0), offset in -20.0f32..20.0, bucket in 0usize..12) {
            let head = head(&[ConformalOffset { lower: offset, upper: -offset }]);
            let quantiles = head.calibrated(raw, bucket);
            prop_assert!(quantiles.lower <= quantiles.median && quantiles.median <= quantiles.upper);
            prop_assert!(quantiles.median.abs() <= RESIDUAL_LIMIT);
        }

        #[test]
        fn batches_agree_with_single_nodes(seed in 0u64..1000) {
            let head = head(&[]);
            let states = fixture::Noise::new(seed).vector(5 * 16);
            let batch = head.quantiles_batch(&states, &[0, 1, 2, 3, 4]);
            for (node, quantiles) in batch.iter().enumerate() {
                let single = head.quantiles(&states[node * 16..(node + 1) * 16], node);
                prop_assert!((single.median - quantiles.median).abs() < 1e-3);
            }
        }
    }
}
