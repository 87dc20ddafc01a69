//! The degree sequence of a column as a join key: how often its values repeat, most frequent first.
//!
//! Compressed to a few steps that dominate the sequence: the rows of its k most frequent values are never more than those of
//! the first k values of the steps. The size of a join is then at most that of the steps joined rank by rank (Deeds, Suciu,
//! Balazinska, "SafeBound: A Practical System for Generating Cardinality Bounds", SIGMOD 2023, sections 3 and 4).

use serde::{Deserialize, Serialize};

/// Steps kept of a degree sequence.
const STEPS: usize = 48;

/// Values of one degree.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DegreeStep {
    /// Rows of each value.
    pub degree: f64,
    /// Number of values; a fraction where the step stands for values of several degrees.
    pub values: f64,
}

/// A degree sequence in at most 48 steps of falling degree; it dominates the column's own. NULLs have no part in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DegreeSequence {
    steps: Vec<DegreeStep>,
}

impl DegreeSequence {
    /// The sequence of `values`, the number of values of each degree.
    pub(crate) fn new(mut values: Vec<(u64, u64)>) -> Self {
        values.sort_unstable_by(|a, b| b.cmp(a));
        values.dedup_by(|next, one| {
            let same = next.0 == one.0;
            one.1 += if same { next.1 } else { 0 };
            same
        });
        let Some(&(largest, _)) = values.first() else { return Self::default() };
        let several = values.len() > STEPS;
        // Degrees within one factor share a step, whose values all have its largest degree: as many as its rows allow.
        let factor = if several { (largest as f64).powf(1.0 / STEPS as f64).max(1.0) } else { 1.0 };
        let mut steps: Vec<DegreeStep> = vec![];
        let mut floor = f64::INFINITY;
        for (degree, count) in values {
            let rows = degree as f64 * count as f64;
            match steps.last_mut().filter(|_| degree as f64 > floor) {
                Some(step) => step.values += rows / step.degree,
                None => {
                    floor = if several { degree as f64 / factor } else { degree as f64 };
                    steps.push(DegreeStep { degree: degree as f64, values: count as f64 });
                }
            }
        }
        Self { steps }
    }

    /// Its steps, in falling order of degree.
    pub fn steps(&self) -> &[DegreeStep] {
        &self.steps
    }

    /// Rows of the most frequent value at most.
    pub fn max(&self) -> f64 {
        self.steps.first().map_or(0.0, |step| step.degree)
    }

    /// Rows of all values.
    pub fn rows(&self) -> f64 {
        self.steps.iter().map(|step| step.degree * step.values).sum()
    }

    /// A bound of the sum over the values of their rows to the power `p`: the p-th power of the sequence's l_p norm.
    pub fn power_sum(&self, p: i32) -> f64 {
        self.steps.iter().map(|step| step.values * step.degree.powi(p)).sum()
    }

    /// A bound of the rows of the equi-join of two columns of which at most `rows` and `other_rows` rows take part: frequent
    /// values meet frequent ones, until the rows of one side are used up.
    pub fn join_bound(&self, rows: f64, other: &DegreeSequence, other_rows: f64) -> f64 {
        let (mut bound, mut left, mut right) = (0.0, rows, other_rows);
        let (mut mine, mut theirs) = (self.steps.iter().copied(), other.steps.iter().copied());
        let (mut a, mut b) = (mine.next(), theirs.next());
        while let (Some(x), Some(y)) = (a.as_mut(), b.as_mut()) {
            let values = x.values.min(y.values).min(left / x.degree).min(right / y.degree);
            bound += values * x.degree * y.degree;
            left -= values * x.degree;
            right -= values * y.degree;
            x.values -= values;
            y.values -= values;
            let (done_x, done_y) = (x.values <= 0.0, y.values <= 0.0);
            if done_x {
                a = mine.next();
            }
            if done_y {
                b = theirs.next();
            }
            if left <= 0.0 || right <= 0.0 || !(done_x || done_y) {
                break;
            }
        }
        bound
    }

    /// A sequence that dominates that of both columns' values put together.
    pub(crate) fn sum(&self, other: &DegreeSequence) -> DegreeSequence {
        // Rank by rank: the most frequent values of both may be the same ones.
        let mut steps: Vec<DegreeStep> = vec![];
        let (mut mine, mut theirs) = (self.steps.iter().copied(), other.steps.iter().copied());
        let (mut a, mut b) = (mine.next(), theirs.next());
        loop {
            let (degree, values) = match (a, b) {
                (Some(x), Some(y)) => (x.degree + y.degree, x.values.min(y.values)),
                (Some(x), None) => (x.degree, x.values),
                (None, Some(y)) => (y.degree, y.values),
                (None, None) => break,
            };
            steps.push(DegreeStep { degree, values });
            for (step, rest) in [(&mut a, &mut mine), (&mut b, &mut theirs)] {
                if let Some(one) = step {
                    one.values -= values;
                    if one.values <= 0.0 {
                        *step = rest.next();
                    }
                }
            }
        }
        Self::reduced(steps)
    }

    /// A sequence that dominates that of two columns without a common value put together.
    pub(crate) fn union(&self, other: &DegreeSequence) -> DegreeSequence {
        let mut steps: Vec<DegreeStep> = self.steps.iter().chain(&other.steps).copied().collect();
        steps.sort_by(|a, b| b.degree.total_cmp(&a.degree));
        steps.dedup_by(|next, step| {
            let same = next.degree >= step.degree;
            step.values += if same { next.values } else { 0.0 };
            same
        });
        Self::reduced(steps)
    }

    /// At most twice as many steps as are kept: neighbours share one until they are few enough.
    fn reduced(mut steps: Vec<DegreeStep>) -> Self {
        let rows = |steps: &[DegreeStep]| steps.iter().map(|step| step.degree * step.values).sum::<f64>();
        while steps.len() > STEPS {
            let joined =
                |pair: &[DegreeStep]| DegreeStep { degree: pair[0].degree, values: rows(pair) / pair[0].degree };
            steps = steps.chunks(2).map(joined).collect();
        }
        Self { steps }
    }

    /// Whether it is a falling sequence of positive numbers; what was stored may not be.
    pub(crate) fn is_valid(&self) -> bool {
        let positive = |step: &DegreeStep| step.degree > 0.0 && step.values > 0.0 && step.values.is_finite();
        self.steps.iter().all(positive) && self.steps.is_sorted_by(|a, b| a.degree > b.degree)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sequence(degrees: &[u64]) -> DegreeSequence {
        DegreeSequence::new(degrees.iter().map(|degree| (*degree, 1)).collect())
    }

    fn falling(degrees: &[u64]) -> Vec<f64> {
        let mut sorted: Vec<f64> = degrees.iter().map(|degree| *degree as f64).collect();
        sorted.sort_by(|a, b| b.total_cmp(a));
        sorted
    }

    #[test]
    fn few_degrees_are_kept_as_they_are() {
        let kept = sequence(&[3, 1, 3, 7]);
        let steps: Vec<_> = kept.steps().iter().map(|step| (step.degree, step.values)).collect();
        assert_eq!(steps, [(7.0, 1.0), (3.0, 2.0), (1.0, 1.0)]);
        assert_eq!((kept.max(), kept.rows(), kept.power_sum(2)), (7.0, 14.0, 68.0));
        assert_eq!(kept.join_bound(14.0, &kept, 14.0), 68.0);
        assert_eq!(kept.join_bound(3.5, &kept, 14.0), 24.5, "half of the most frequent value");
        assert_eq!(kept.join_bound(0.0, &kept, 14.0), 0.0);
        assert_eq!(sequence(&[]).join_bound(1.0, &kept, 14.0), 0.0);
    }

    proptest! {
        #[test]
        fn steps_dominate(degrees in prop::collection::vec(1u64..5000, 1..300), more in prop::collection::vec(1u64..9, 0..80)) {
            let kept = sequence(&degrees);
            prop_assert!(kept.is_valid() && kept.steps().len() <= STEPS + 1);
            let own: f64 = falling(&degrees).iter().sum();
            prop_assert!((kept.rows() - own).abs() < 1e-6 * own);
            for (one, other) in [(&kept, &degrees), (&kept.sum(&sequence(&more)), &degrees)] {
                prop_assert!(one.is_valid());
                for k in 1..=other.len() {
                    let mine: f64 = falling(other)[..k].iter().sum();
                    prop_assert!(first(one, k as f64) >= mine * (1.0 - 1e-9));
                }
            }
            let apart = kept.union(&sequence(&more));
            let all: Vec<u64> = degrees.iter().chain(&more).copied().collect();
            for k in 1..=all.len() {
                prop_assert!(first(&apart, k as f64) >= falling(&all)[..k].iter().sum::<f64>() * (1.0 - 1e-9));
            }
            let both = kept.sum(&sequence(&more));
            let mut sums = falling(&degrees);
            for (place, degree) in falling(&more).into_iter().enumerate() {
                if place < sums.len() { sums[place] += degree } else { sums.push(degree) }
            }
            for k in 1..=sums.len() {
                prop_assert!(first(&both, k as f64) >= sums[..k].iter().sum::<f64>() * (1.0 - 1e-9));
            }
        }

        #[test]
        fn joins_are_bounded(left in prop::collection::vec(0u64..40, 1..60), right in prop::collection::vec(0u64..40, 1..60)) {
            let present = |degrees: &[u64]| degrees.iter().copied().filter(|degree| *degree > 0).collect::<Vec<_>>();
            let (a, b) = (sequence(&present(&left)), sequence(&present(&right)));
            let rows: u64 = left.iter().zip(&right).map(|(x, y)| x * y).sum();
            prop_assert!(a.join_bound(a.rows(), &b, b.rows()) >= rows as f64 * (1.0 - 1e-9));
            // Every second row passes a filter.
            let halves: Vec<u64> = left.iter().map(|degree| degree / 2).collect();
            let passing: u64 = halves.iter().sum();
            let filtered: u64 = halves.iter().zip(&right).map(|(x, y)| x * y).sum();
            prop_assert!(a.join_bound(passing as f64, &b, b.rows()) >= filtered as f64 * (1.0 - 1e-9));
        }
    }

    /// Rows of the first `k` values of the steps.
    fn first(sequence: &DegreeSequence, k: f64) -> f64 {
        let mut left = k;
        sequence
            .steps()
            .iter()
            .map(|step| {
                let values = step.values.min(left);
                left -= values;
                values * step.degree
            })
            .sum()
    }
}
