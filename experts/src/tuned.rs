//! Weights tuned on one database: a weight file like any other, whose manifest names the weights that it started from.

use relata_featurize::graph::LAYOUT_VERSION;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::config::ParameterShape;
use crate::error::ExpertsError;
use crate::heads::ConformalOffset;
use crate::physical::PhysicalExpert;
use crate::stack::ExpertStack;
use crate::weights::{sha256, to_bytes, verified};

/// q-errors of the queries that tuned weights were validated on.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct QErrors {
    /// Geometric mean.
    pub mean: f64,
    /// 50%, 90%, 95% and 99%.
    pub percentiles: [f64; 4],
}

impl QErrors {
    /// Of q-errors whose logarithms are `errors`.
    pub fn of(errors: &[f32]) -> Self {
        let mut sorted = errors.to_vec();
        sorted.sort_unstable_by(f32::total_cmp);
        let percentiles = [0.5, 0.9, 0.95, 0.99].map(|share| {
            let rank = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
            sorted.get(rank).map_or(f64::NAN, |&error| f64::from(error).exp())
        });
        let sum: f64 = errors.iter().map(|&error| f64::from(error)).sum();
        Self { mean: (sum / errors.len() as f64).exp(), percentiles }
    }

    /// Whether tuning helped: a smaller mean than `before`, and no larger 95th percentile.
    pub fn improves(&self, before: &Self) -> bool {
        self.mean < before.mean && self.percentiles[2] <= before.percentiles[2]
    }
}

/// Where tuned weights come from, and what they need to be read.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TunedManifest {
    /// SHA-256 of the weight file, hexadecimal.
    pub sha256: String,
    /// SHA-256 of the weights that were tuned.
    pub base_sha256: String,
    /// [`LAYOUT_VERSION`] of the graphs they were tuned on.
    pub layout_version: u32,
    /// Calibration of the intervals: per [`crate::heads::calibration_bucket`], or of times and memory.
    pub conformal: Vec<ConformalOffset>,
    /// Executed queries that they were tuned on.
    pub queries: usize,
    /// Share of the way from the weights that were tuned.
    pub share: f32,
    /// Errors on held-out queries before
    pub before: QErrors,
    /// and after.
    pub after: QErrors,
}

impl ExpertStack {
    /// These experts with weights that were tuned from theirs.
    ///
    /// # Errors
    ///
    /// Damage, another checksum than the manifest's, another feature layout, weights tuned from others than these, tensors
    /// that do not fit or are not finite.
    pub fn with_tuned(&self, weights: &[u8], manifest: &[u8]) -> Result<Self> {
        let (tuned, parameters) = read(weights, manifest, self.sha256(), &self.config().parameters())?;
        let mut stack = Self::from_parameters(self.data().clone(), self.config(), &parameters, &tuned.conformal)?;
        stack.tuned = Some(tuned);
        Ok(stack)
    }

    /// The weight file and the manifest of these experts, tuned from `base`; of `report` only the figures are read.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Manifest`] for figures that are not finite.
    pub fn to_tuned(&self, base: &Self, report: &TunedManifest) -> Result<(Vec<u8>, Vec<u8>)> {
        write(&self.parameters(), &self.config().parameters(), self.conformal(), base.sha256(), report)
    }

    /// What the weights were tuned on, where they were.
    pub fn tuned(&self) -> Option<&TunedManifest> {
        self.tuned.as_ref()
    }

    /// SHA-256 of the weights, hexadecimal: that of their file, where they were loaded from one.
    fn sha256(&self) -> String {
        let file = self.manifest().map(|manifest| manifest.sha256.clone());
        file.unwrap_or_else(|| sha256_of(&self.parameters()))
    }
}

impl PhysicalExpert {
    /// This expert with weights that were tuned from its own.
    ///
    /// # Errors
    ///
    /// As [`ExpertStack::with_tuned`].
    pub fn with_tuned(&self, weights: &[u8], manifest: &[u8]) -> Result<Self> {
        let shapes = self.config().parameters();
        let (tuned, parameters) = read(weights, manifest, sha256_of(&self.parameters()), &shapes)?;
        Self::from_parameters(self.config(), &parameters, &tuned.conformal)
    }

    /// The weight file and the manifest of this expert, tuned from `base`; of `report` only the figures are read.
    ///
    /// # Errors
    ///
    /// As [`ExpertStack::to_tuned`].
    pub fn to_tuned(&self, base: &Self, report: &TunedManifest) -> Result<(Vec<u8>, Vec<u8>)> {
        let base = sha256_of(&base.parameters());
        write(&self.parameters(), &self.config().parameters(), self.conformal(), base, report)
    }
}

fn sha256_of(parameters: &[f32]) -> String {
    sha256(&parameters.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
}

/// The manifest and the parameters of weights that were tuned from those of checksum `base`.
fn read(weights: &[u8], manifest: &[u8], base: String, shapes: &[ParameterShape]) -> Result<(TunedManifest, Vec<f32>)> {
    let tuned: TunedManifest = serde_json::from_slice(manifest)?;
    if tuned.layout_version != LAYOUT_VERSION {
        return Err(ExpertsError::Layout { expected: LAYOUT_VERSION, found: tuned.layout_version });
    }
    if tuned.base_sha256 != base {
        return Err(ExpertsError::Base { expected: base, found: tuned.base_sha256 });
    }
    let parameters = verified(weights, &tuned.sha256, shapes)?;
    Ok((tuned, parameters))
}

/// The weight file and the manifest of tuned parameters.
fn write(
    parameters: &[f32],
    shapes: &[ParameterShape],
    conformal: &[ConformalOffset],
    base_sha256: String,
    report: &TunedManifest,
) -> Result<(Vec<u8>, Vec<u8>)> {
    let weights = to_bytes(shapes, parameters)?;
    let manifest = TunedManifest {
        sha256: sha256(&weights),
        base_sha256,
        layout_version: LAYOUT_VERSION,
        conformal: conformal.to_vec(),
        ..report.clone()
    };
    let json = serde_json::to_vec_pretty(&manifest)?;
    // JSON has no word for what is not finite.
    serde_json::from_slice::<TunedManifest>(&json)?;
    Ok((weights, json))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn manifest() -> TunedManifest {
        let (before, after) = (QErrors::of(&[1.0, 2.0]), QErrors::of(&[0.5, 1.0]));
        TunedManifest { queries: 7, share: 0.5, before, after, ..TunedManifest::default() }
    }

    #[test]
    fn tuned_weights_are_read_back_above_the_same_base_only() {
        let [base, tuned, other] = [1, 2, 3].map(|seed| fixture::stack(8, seed).unwrap());
        let (weights, json) = tuned.to_tuned(&base, &manifest()).unwrap();
        // The data expert is the base's.
        let read = base.with_tuned(&weights, &json).unwrap();
        assert_eq!(read.parameters(), tuned.parameters());
        assert_eq!(read.tuned().map(|tuned| tuned.queries), Some(7));
        assert!(matches!(other.with_tuned(&weights, &json), Err(ExpertsError::Base { .. })));
        assert!(base.with_tuned(&weights[..weights.len() - 1], &json).is_err());
        assert!(base.with_tuned(&weights, &json[1..]).is_err());
        let mut damaged = weights.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(matches!(base.with_tuned(&damaged, &json), Err(ExpertsError::Checksum { .. })));
        let unknown = TunedManifest { after: QErrors::of(&[]), ..manifest() };
        assert!(matches!(tuned.to_tuned(&base, &unknown), Err(ExpertsError::Manifest(_))));
        let layout = TunedManifest { layout_version: LAYOUT_VERSION + 1, ..serde_json::from_slice(&json).unwrap() };
        let layout = serde_json::to_vec(&layout).unwrap();
        assert!(matches!(base.with_tuned(&weights, &layout), Err(ExpertsError::Layout { .. })));
    }

    #[test]
    fn tuning_helps_when_the_mean_falls_and_the_tail_does_not_rise() {
        let errors = |last: f32| QErrors::of(&[&[0.1; 18][..], &[1.0, last]].concat());
        assert!(QErrors::of(&[0.05; 20]).improves(&errors(2.0)));
        assert!(!errors(2.0).improves(&errors(2.0)));
        assert!(!QErrors::of(&[&[0.0; 18][..], &[1.5, 1.5]].concat()).improves(&errors(1.0)));
        assert!((errors(2.0).percentiles[3] - 2f64.exp()).abs() < 1e-5);
    }
}
