//! Split-conformal calibration of the intervals, per kind of node and number of joins, on databases that were not trained on.
//!
//! Conformalized quantile regression (Romano, Patterson & Candes, NeurIPS 2019), the two ends apart, where the group is the
//! database: what must hold is coverage on the next one, so that the distributions of the databases' scores are pooled with
//! the same weight for each, however many queries it has (Dunn, Wasserman & Ramdas, "Distribution-free prediction sets for
//! two-layer hierarchical models", JASA 2023: pooled distributions, without the correction for the number of databases that
//! makes them a guarantee; coverage is to be right on average, and leaving out each database in turn measures it). Nodes
//! whose rows are known calibrate nothing: their intervals are points. A bucket with few labels borrows from its neighbours.

use crate::heads::{CALIBRATION_BUCKETS, ConformalOffset, FIRST_OF_GROUPS};
use crate::train::evaluate::Outcome;

/// Labels of a bucket below which it borrows from the buckets next to it.
const MINIMUM: usize = 200;

/// The offsets that make intervals cover `1 - miss` of the labels, half of the rest on either side, from estimates that are
/// not calibrated.
pub fn conformal_offsets(outcomes: &[Outcome], miss: f64) -> Vec<ConformalOffset> {
    let all = outcomes.iter().filter(|outcome| outcome.calibration.is_some()).count();
    (0..CALIBRATION_BUCKETS)
        .map(|bucket| {
            let mut members: Vec<&Outcome> = Vec::new();
            for reach in 0..2 * CALIBRATION_BUCKETS {
                let near = |other: usize| distance(bucket, other) <= reach;
                members = outcomes.iter().filter(|outcome| outcome.calibration.is_some_and(near)).collect();
                if members.len() >= MINIMUM.min(all) {
                    break;
                }
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

/// The offset that makes intervals cover `1 - miss` of the truths, half of the rest on either side, where every interval counts the
/// same: `beyond` is how far each truth lies below the lower and above the upper end.
pub(crate) fn conformal_offset(beyond: impl Iterator<Item = [f32; 2]>, miss: f64) -> ConformalOffset {
    let (below, above): (Vec<f32>, Vec<f32>) = beyond.map(|[below, above]| (below, above)).unzip();
    let quantile = |mut values: Vec<f32>| {
        values.sort_unstable_by(f32::total_cmp);
        let rank = ((1.0 - miss / 2.0) * (values.len() + 1) as f64).ceil() as usize;
        values.get(rank.clamp(1, values.len().max(1)) - 1).copied().unwrap_or(0.0)
    };
    ConformalOffset { lower: quantile(below), upper: quantile(above) }
}

/// How far a bucket is from one that borrows from it: what counts rows is nearer to all that does than to what counts groups.
fn distance(one: usize, other: usize) -> usize {
    let same = (one < FIRST_OF_GROUPS) == (other < FIRST_OF_GROUPS);
    one.abs_diff(other) + if same { 0 } else { CALIBRATION_BUCKETS }
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

/// Coverage of calibrated intervals on databases that did not calibrate them: leaving out each database in turn. With
/// the index of the database; one without a node that is estimated has no coverage.
pub fn left_out_coverages(outcomes: &[Outcome], databases: usize, miss: f64) -> Vec<(usize, f64)> {
    let mut coverages = Vec::new();
    for database in 0..databases {
        let estimated = outcomes.iter().filter(|outcome| outcome.calibration.is_some());
        let (left_out, rest): (Vec<Outcome>, Vec<Outcome>) =
            estimated.partition(|outcome| outcome.database == database);
        if left_out.is_empty() || rest.is_empty() {
            continue;
        }
        let covered = calibrated(&left_out, &conformal_offsets(&rest, miss)).iter().filter(|o| o.covered()).count();
        coverages.push((database, covered as f64 / left_out.len() as f64));
    }
    coverages
}

/// The outcomes with their intervals moved.
pub fn calibrated(outcomes: &[Outcome], offsets: &[ConformalOffset]) -> Vec<Outcome> {
    let apply = |outcome: &Outcome| {
        let mut outcome = *outcome;
        let offset = outcome.calibration.map(|bucket| offsets[bucket]).unwrap_or_default();
        let quantiles = &mut outcome.quantiles;
        quantiles.lower = (quantiles.lower - offset.lower).min(quantiles.median);
        quantiles.upper = (quantiles.upper + offset.upper).max(quantiles.median);
        outcome
    };
    outcomes.iter().map(apply).collect()
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
            bucket: 0,
            calibration: Some(index % CALIBRATION_BUCKETS),
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
        let covered = calibrated(&outcomes, &offsets).iter().filter(|outcome| outcome.covered()).count();
        assert!((covered as f64 / outcomes.len() as f64 - 0.9).abs() < 0.01);
        let left_out = left_out_coverages(&outcomes, 4, 0.1);
        assert!(
            left_out.len() == 4 && left_out.iter().all(|(_, coverage)| (coverage - 0.9).abs() < 0.02),
            "{left_out:?}"
        );
    }

    #[test]
    fn one_database_leaves_nothing_to_calibrate_on() {
        assert!(left_out_coverages(&outcomes(1, 100), 1, 0.1).is_empty());
        assert!(left_out_coverages(&[], 0, 0.1).is_empty());
    }

    #[test]
    fn rare_buckets_borrow_from_what_counts_the_same() {
        let mut outcomes = outcomes(4, 10_000);
        outcomes.retain(|outcome| outcome.calibration < Some(3) || outcome.calibration == Some(FIRST_OF_GROUPS));
        let groups = |outcome: &Outcome| outcome.calibration >= Some(FIRST_OF_GROUPS);
        outcomes.iter_mut().filter(|outcome| groups(outcome)).for_each(|outcome| outcome.label = 30.0);
        let offsets = conformal_offsets(&outcomes, 0.1);
        assert!((offsets[4].upper - 4.4).abs() < 0.3, "{offsets:?}");
        assert!((offsets[FIRST_OF_GROUPS + 2].upper - 9.9).abs() < 0.1, "{offsets:?}");
        assert_eq!(conformal_offsets(&[], 0.1), vec![ConformalOffset::default(); CALIBRATION_BUCKETS]);
    }

    #[test]
    fn what_is_known_calibrates_nothing() {
        let mut outcomes = outcomes(4, 20_000);
        let offsets = conformal_offsets(&outcomes, 0.1);
        let known = Outcome { calibration: None, label: 20.0, ..outcomes[0] };
        outcomes.extend(std::iter::repeat_n(known, 20_000));
        assert_eq!(conformal_offsets(&outcomes, 0.1), offsets);
    }

    #[test]
    fn every_database_weighs_the_same() {
        let narrow = outcomes(1, 10_000);
        let mut both: Vec<Outcome> =
            narrow.iter().map(|outcome| Outcome { calibration: Some(0), ..*outcome }).collect();
        let far = Outcome { database: 1, label: 30.0, ..both[0] };
        both.extend(std::iter::repeat_n(far, 300));
        assert!((conformal_offsets(&both, 0.1)[0].upper - 9.9).abs() < 1e-3);
    }
}
