//! Split-conformal calibration of the intervals, per number of joins, on databases that were not trained on.
//!
//! Conformalized quantile regression (Romano, Patterson & Candes, NeurIPS 2019), the two ends apart. Differences: every
//! held-out database weighs the same, however many queries it has, because what must hold is coverage on the next
//! database; and a bucket with few labels borrows from its neighbours.

use crate::heads::{ConformalOffset, JOIN_BUCKETS};
use crate::train::evaluate::Outcome;

/// Labels of a bucket below which it borrows from the buckets next to it.
const MINIMUM: usize = 200;

/// The offsets that make intervals cover `1 - miss` of the labels, half of the rest on either side, from estimates that are
/// not calibrated.
pub fn conformal_offsets(outcomes: &[Outcome], miss: f64) -> Vec<ConformalOffset> {
    (0..JOIN_BUCKETS)
        .map(|bucket| {
            let mut reach = 0;
            let mut members: Vec<&Outcome>;
            loop {
                members = outcomes.iter().filter(|outcome| outcome.bucket.abs_diff(bucket) <= reach).collect();
                if members.len() >= MINIMUM.min(outcomes.len()) || reach >= JOIN_BUCKETS {
                    break;
                }
                reach += 1;
            }
            let below = |outcome: &Outcome| outcome.quantiles.lower - residual(outcome);
            let above = |outcome: &Outcome| residual(outcome) - outcome.quantiles.upper;
            ConformalOffset {
                lower: weighted_quantile(&members, below, 1.0 - miss / 2.0),
                upper: weighted_quantile(&members, above, 1.0 - miss / 2.0),
            }
        })
        .collect()
}

fn residual(outcome: &Outcome) -> f32 {
    outcome.label - outcome.base
}

/// The `share` quantile of `value` over `members`, each database weighing the same; 0 without members.
fn weighted_quantile(members: &[&Outcome], value: impl Fn(&Outcome) -> f32, share: f64) -> f32 {
    let databases = members.iter().map(|outcome| outcome.database + 1).max().unwrap_or(0);
    let mut counts = vec![0usize; databases];
    members.iter().for_each(|outcome| counts[outcome.database] += 1);
    let present = counts.iter().filter(|count| **count > 0).count();
    let mut values: Vec<(f32, f64)> =
        members.iter().map(|outcome| (value(outcome), 1.0 / (counts[outcome.database] * present) as f64)).collect();
    values.sort_unstable_by(|left, right| left.0.total_cmp(&right.0));
    let mut below = 0.0;
    for &(value, weight) in &values {
        below += weight;
        if below >= share - 1e-12 {
            return value;
        }
    }
    values.last().map_or(0.0, |last| last.0)
}

/// Coverage of calibrated intervals on a database that did not calibrate them: leaving out each database in turn. `None`
/// with fewer than two databases.
pub fn left_out_coverage(outcomes: &[Outcome], databases: usize, miss: f64) -> Option<f64> {
    let mut coverages = Vec::new();
    for database in 0..databases {
        let (left_out, rest): (Vec<Outcome>, Vec<Outcome>) =
            outcomes.iter().partition(|outcome| outcome.database == database);
        if left_out.is_empty() || rest.is_empty() {
            continue;
        }
        let offsets = conformal_offsets(&rest, miss);
        let covered = left_out.iter().filter(|outcome| apply(&offsets, **outcome).covered()).count();
        coverages.push(covered as f64 / left_out.len() as f64);
    }
    (!coverages.is_empty()).then(|| coverages.iter().sum::<f64>() / coverages.len() as f64)
}

/// The outcome with its interval moved.
fn apply(offsets: &[ConformalOffset], mut outcome: Outcome) -> Outcome {
    let offset = offsets[outcome.bucket];
    let quantiles = &mut outcome.quantiles;
    quantiles.lower = (quantiles.lower - offset.lower).min(quantiles.median);
    quantiles.upper = (quantiles.upper + offset.upper).max(quantiles.median);
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Noise;
    use crate::heads::CardinalityQuantiles;

    /// Labels spread uniformly around the estimate, under an interval that is far too narrow.
    fn outcomes(databases: usize, count: usize) -> Vec<Outcome> {
        let mut noise = Noise::new(1);
        let mut outcome = |index: usize| Outcome {
            database: index % databases,
            bucket: index % JOIN_BUCKETS,
            base: 20.0,
            label: 20.0 + 10.0 * (noise.unit() - 0.5),
            quantiles: CardinalityQuantiles { lower: -0.1, median: 0.0, upper: 0.1 },
        };
        (0..count).map(&mut outcome).collect()
    }

    #[test]
    fn calibrated_intervals_cover_what_they_promise() {
        let outcomes = outcomes(4, 20_000);
        let offsets = conformal_offsets(&outcomes, 0.1);
        let covered = outcomes.iter().filter(|outcome| apply(&offsets, **outcome).covered()).count();
        assert!((covered as f64 / outcomes.len() as f64 - 0.9).abs() < 0.01);
        assert!((left_out_coverage(&outcomes, 4, 0.1).unwrap() - 0.9).abs() < 0.02);
    }

    #[test]
    fn one_database_leaves_nothing_to_calibrate_on() {
        assert_eq!(left_out_coverage(&outcomes(1, 100), 1, 0.1), None);
        assert_eq!(left_out_coverage(&[], 0, 0.1), None);
    }

    #[test]
    fn rare_buckets_borrow() {
        let mut outcomes = outcomes(4, 5_000);
        outcomes.retain(|outcome| outcome.bucket < 3);
        let offsets = conformal_offsets(&outcomes, 0.1);
        assert!((offsets[4].upper - 4.4).abs() < 0.3, "{offsets:?}");
        assert_eq!(conformal_offsets(&[], 0.1), vec![ConformalOffset::default(); JOIN_BUCKETS]);
    }

    #[test]
    fn every_database_weighs_the_same() {
        let narrow = outcomes(1, 10_000);
        let mut both: Vec<Outcome> = narrow.iter().map(|outcome| Outcome { bucket: 0, ..*outcome }).collect();
        both.extend((0..300).map(|_| Outcome { database: 1, bucket: 0, label: 30.0, ..narrow[0] }));
        assert!((conformal_offsets(&both, 0.1)[0].upper - 9.9).abs() < 1e-3);
    }
}
