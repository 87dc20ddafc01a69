//! Columns and labels as the in-context predictor reads them: relative to the rows of the context.
//!
//! A number is read twice: squashed and standardised, and as its quantile in the context, each through radial basis functions
//! (as LimiX-2M does), so that a layer finds steps and bumps of it. A category is the rank of its frequency
//! in the context. No name or constant passes; whatever a column's unit, its encoding is the same.

use relata_featurize::synthesis::{self, FeatureTable, FeatureValues};

use crate::Result;
use crate::error::{ExpertsError, check_length};

/// Values of a feature, one per row.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// Numbers; what is not finite is missing.
    Number(Vec<f32>),
    /// Codes of categories, of which only equality counts; `None` is missing.
    Category(Vec<Option<u32>>),
}

impl Column {
    /// R: number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Number(values) => values.len(),
            Self::Category(codes) => codes.len(),
        }
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Some rows of a feature.
    pub fn of(values: &FeatureValues, rows: impl Iterator<Item = usize>) -> Self {
        match values {
            FeatureValues::Number(values) => Self::Number(rows.map(|row| values[row]).collect()),
            FeatureValues::Category { codes, .. } => Self::Category(rows.map(|row| codes[row]).collect()),
        }
    }
}

/// What the rows of a context are labelled with.
#[derive(Debug, Clone, PartialEq)]
pub enum Labels {
    /// Classes `0..count`.
    Classes {
        /// The class of each row.
        labels: Vec<u32>,
        /// Number of classes, at most [`MOST_CLASSES`].
        count: usize,
    },
    /// Finite numbers.
    Numbers(Vec<f32>),
}

impl Labels {
    /// R: number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Classes { labels, .. } => labels.len(),
            Self::Numbers(labels) => labels.len(),
        }
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps the features of a table that say most of these labels, which are of the rows at these places
    /// ([`FeatureTable::select`]).
    pub fn select(&self, table: &mut FeatureTable, rows: impl Iterator<Item = usize>, budget: usize) {
        match self {
            Self::Classes { labels, .. } => {
                let labelled: Vec<(usize, u32)> = rows.zip(labels.iter().copied()).collect();
                table.select(synthesis::Labels::Classes(&labelled), budget);
            }
            Self::Numbers(labels) => {
                let labelled: Vec<(usize, f32)> = rows.zip(labels.iter().copied()).collect();
                table.select(synthesis::Labels::Numbers(&labelled), budget);
            }
        }
    }

    /// Checks that there is something to predict.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Context`] without labels, with a single class, a class out of range or a label that is not finite.
    pub fn validate(&self) -> Result<()> {
        let refuse = |reason: &str| Err(ExpertsError::Context(reason.to_owned()));
        match self {
            _ if self.is_empty() => refuse("there are no labelled examples"),
            Self::Numbers(labels) if !labels.iter().all(|label| label.is_finite()) => refuse("a label is not finite"),
            Self::Numbers(_) => Ok(()),
            Self::Classes { count, .. } if !(2..=MOST_CLASSES).contains(count) => {
                Err(ExpertsError::Context(format!("{count} classes, allowed are 2 to {MOST_CLASSES}")))
            }
            Self::Classes { labels, count } if labels.iter().any(|label| *label as usize >= *count) => {
                refuse("a label is of no class")
            }
            Self::Classes { labels, .. } if labels.iter().all(|label| *label == labels[0]) => {
                refuse("all examples are of one class")
            }
            Self::Classes { .. } => Ok(()),
        }
    }
}

/// Most classes of a task.
pub const MOST_CLASSES: usize = 10;

/// Quantiles that are predicted of a number.
pub const QUANTILES: [f32; 19] =
    [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95];

/// Radial basis functions of a squashed number and of its quantile.
const BASES: usize = 12;
const QUANTILE_BASES: usize = 8;

/// Ranks of categories that are told apart; the last stands for all rarer ones.
const RANKS: usize = 16;

/// Deviations beyond which numbers are not told apart.
const LARGEST: f32 = 4.0;

/// Features of a cell: number, quantile, their bases, rank of a category, share of its category, missing, and what it is.
pub(crate) const CELL_FEATURES: usize = 2 + BASES + QUANTILE_BASES + RANKS + 1 + 3;

/// Features of a label: class, number, its bases, what it is, and whether it is asked for.
pub(crate) const LABEL_FEATURES: usize = MOST_CLASSES + 1 + BASES + 3;

/// Numbers to squashed deviations and back: `asinh` of the distance to the median in interquartile ranges, standardised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scale {
    median: f32,
    spread: f32,
    mean: f32,
    deviation: f32,
    /// Smallest and largest squashed number of the context.
    range: [f32; 2],
}

/// Interquartile ranges in a standard deviation of the normal distribution.
const QUARTILES: f32 = 1.349;

impl Scale {
    /// The scale of finite numbers in ascending order.
    pub(crate) fn fit(sorted: &[f32]) -> Self {
        let Some(last) = sorted.len().checked_sub(1) else {
            return Self { median: 0.0, spread: 1.0, mean: 0.0, deviation: 1.0, range: [0.0; 2] };
        };
        let at = |share: f32| sorted[(share * last as f32).round() as usize];
        let count = sorted.len() as f64;
        let mean = sorted.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
        let variance = sorted.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count;
        let quartiles = (at(0.75) - at(0.25)) / QUARTILES;
        let spread = if quartiles > 0.0 { quartiles } else { variance.sqrt() as f32 };
        // Numbers that are all the same have none; too small or large ones could not be divided by it.
        let spread = if spread > 1e-30 && spread < 1e30 { spread } else { 1.0 };
        let mut scale = Self { median: at(0.5), spread, mean: 0.0, deviation: 1.0, range: [0.0; 2] };
        let squashed: Vec<f32> = sorted.iter().map(|value| scale.apply(*value)).collect();
        let mean = squashed.iter().sum::<f32>() / count as f32;
        let variance = squashed.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / count as f32;
        (scale.mean, scale.range) = (mean, [squashed[0], squashed[last]]);
        scale.deviation = if variance > 1e-12 { variance.sqrt() } else { 1.0 };
        scale
    }

    /// The squashed deviation of a number.
    pub(crate) fn apply(&self, value: f32) -> f32 {
        ((((f64::from(value) - f64::from(self.median)) / f64::from(self.spread)).asinh() as f32) - self.mean)
            / self.deviation
    }

    /// The number of a squashed deviation, at most half the range of the context outside of it.
    pub(crate) fn restore(&self, squashed: f32) -> f32 {
        let [low, high] = self.range;
        let margin = 0.5 * (high - low);
        let squashed = (squashed * self.deviation + self.mean).clamp(low - margin, high + margin);
        let restored = f64::from(squashed).sinh() * f64::from(self.spread) + f64::from(self.median);
        restored.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
    }
}

/// `count` bumps over `-1..=1`, each as wide as they are apart.
fn bases(value: f32, out: &mut [f32]) {
    let apart = 2.0 / (out.len() - 1) as f32;
    for (place, out) in out.iter_mut().enumerate() {
        let distance = (value + 1.0) / apart - place as f32;
        *out = (-distance * distance).exp();
    }
}

/// How a column is read, relative to the context.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ColumnEncoder {
    /// With the numbers of the context in ascending order.
    Number { scale: Scale, sorted: Vec<f32> },
    /// With the codes of the context in ascending order, each with its rank and its share.
    Category { codes: Vec<(u32, usize, f32)> },
}

/// Finite numbers in ascending order.
pub(crate) fn ascending(values: &[f32]) -> Vec<f32> {
    let mut sorted: Vec<f32> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_unstable_by(f32::total_cmp);
    sorted
}

/// Categories with the number of their rows, the most frequent first.
pub(crate) fn by_frequency(codes: &[Option<u32>]) -> Vec<(u32, usize)> {
    let mut known: Vec<u32> = codes.iter().flatten().copied().collect();
    known.sort_unstable();
    let mut counts: Vec<(u32, usize)> = known.chunk_by(|a, b| a == b).map(|same| (same[0], same.len())).collect();
    counts.sort_by_key(|&(code, count)| (std::cmp::Reverse(count), code));
    counts
}

impl ColumnEncoder {
    /// Fits it to a column of the context.
    pub(crate) fn fit(column: &Column) -> Self {
        match column {
            Column::Number(values) => {
                let sorted = ascending(values);
                Self::Number { scale: Scale::fit(&sorted), sorted }
            }
            Column::Category(codes) => {
                let total = codes.iter().flatten().count().max(1) as f32;
                let ranked = by_frequency(codes).into_iter().enumerate();
                let mut codes: Vec<(u32, usize, f32)> =
                    ranked.map(|(rank, (code, count))| (code, rank, count as f32 / total)).collect();
                codes.sort_unstable_by_key(|(code, ..)| *code);
                Self::Category { codes }
            }
        }
    }

    /// Whether a column can be read by it.
    pub(crate) fn reads(&self, column: &Column) -> bool {
        matches!(
            (self, column),
            (Self::Number { .. }, Column::Number(_)) | (Self::Category { .. }, Column::Category(_))
        )
    }

    /// Writes the features of a cell to zeros. `[CELL_FEATURES]`
    pub(crate) fn encode(&self, column: &Column, row: usize, out: &mut [f32]) {
        let (numbers, rest) = out.split_at_mut(2 + BASES + QUANTILE_BASES);
        let (ranks, rest) = rest.split_at_mut(RANKS);
        match (self, column) {
            (Self::Number { scale, sorted }, Column::Number(values)) => {
                rest[2] = 1.0;
                let value = values[row];
                if !value.is_finite() || sorted.is_empty() {
                    rest[1] = 1.0;
                    return;
                }
                let squashed = scale.apply(value).clamp(-LARGEST, LARGEST);
                let below = sorted.partition_point(|one| *one < value);
                let equal = sorted.partition_point(|one| *one <= value) - below;
                let quantile = (2 * below + equal) as f32 / sorted.len() as f32 - 1.0;
                (numbers[0], numbers[1]) = (squashed, quantile);
                let (of_number, of_quantile) = numbers[2..].split_at_mut(BASES);
                bases(squashed / 3.0, of_number);
                bases(quantile, of_quantile);
            }
            (Self::Category { codes }, Column::Category(values)) => {
                rest[3] = 1.0;
                let Some(code) = values[row] else {
                    rest[1] = 1.0;
                    return;
                };
                // A category that the context has not is like the rare ones.
                let known = codes.binary_search_by_key(&code, |(code, ..)| *code).map(|place| codes[place]);
                let (_, rank, share) = known.unwrap_or((code, RANKS, 0.0));
                ranks[rank.min(RANKS - 1)] = 1.0;
                rest[0] = share;
            }
            _ => rest[1] = 1.0,
        }
    }
}

/// How labels are read and predictions written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum LabelEncoder {
    Classes(usize),
    Numbers(Scale),
}

impl LabelEncoder {
    pub(crate) fn fit(labels: &Labels) -> Self {
        match labels {
            Labels::Classes { count, .. } => Self::Classes(*count),
            Labels::Numbers(labels) => Self::Numbers(Scale::fit(&ascending(labels))),
        }
    }

    /// Writes the features of a label, or of a row whose label is asked for, to zeros. `[LABEL_FEATURES]`
    pub(crate) fn encode(&self, labels: Option<(&Labels, usize)>, out: &mut [f32]) {
        let (classes, numbers) = out.split_at_mut(MOST_CLASSES);
        let (numbers, kinds) = numbers.split_at_mut(1 + BASES);
        kinds[match self {
            Self::Classes(_) => 0,
            Self::Numbers(_) => 1,
        }] = 1.0;
        match (self, labels) {
            (Self::Classes(_), Some((Labels::Classes { labels, .. }, row))) => classes[labels[row] as usize] = 1.0,
            (Self::Numbers(scale), Some((Labels::Numbers(labels), row))) => {
                let squashed = scale.apply(labels[row]).clamp(-LARGEST, LARGEST);
                numbers[0] = squashed;
                bases(squashed / 3.0, &mut numbers[1..]);
            }
            _ => kinds[2] = 1.0,
        }
    }
}

/// Checks that columns have a number of rows each.
pub(crate) fn check_columns(columns: &[Column], rows: usize) -> Result<()> {
    columns.iter().try_for_each(|column| check_length("rows of a feature", rows, column.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(column: &Column) -> Vec<[f32; CELL_FEATURES]> {
        let encoder = ColumnEncoder::fit(column);
        let encode = |row| {
            let mut out = [0.0; CELL_FEATURES];
            encoder.encode(column, row, &mut out);
            out
        };
        (0..column.len()).map(encode).collect()
    }

    #[test]
    fn numbers_are_read_without_their_unit() {
        let values = [3.0, 1.0, f32::NAN, 7.0, 1.0, 100.0, 5.0];
        let (plain, scaled) = (values.to_vec(), values.map(|value| 1000.0 * value - 40.0).to_vec());
        let (plain, scaled) = (encoded(&Column::Number(plain)), encoded(&Column::Number(scaled)));
        for (a, b) in plain.iter().zip(&scaled) {
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3), "{a:?} {b:?}");
        }
        assert_eq!(plain[2].iter().filter(|value| **value != 0.0).count(), 2);
    }

    #[test]
    fn extreme_numbers_stay_finite() {
        for values in [vec![], vec![f32::NAN; 3], vec![5.0; 4], vec![-3e38, 3e38, 0.0, 1.0], vec![1e-40, 2e-40]] {
            let scale = Scale::fit(&ascending(&values));
            assert!(values.iter().all(|value| value.is_nan() || scale.restore(scale.apply(*value)).is_finite()));
            assert!([-1e30, 1e30].iter().all(|squashed| scale.restore(*squashed).is_finite()));
            assert!(encoded(&Column::Number(values)).iter().flatten().all(|feature| feature.is_finite()));
        }
    }

    #[test]
    fn scales_restore_what_they_squash() {
        let values: Vec<f32> = (0..50).map(|place| ((place * 7) % 50) as f32 * 3.0 + 10.0).collect();
        let scale = Scale::fit(&ascending(&values));
        assert!(values.iter().all(|value| (scale.restore(scale.apply(*value)) - value).abs() < 1e-2));
    }

    #[test]
    fn categories_are_read_by_their_frequency() {
        let rows = encoded(&Column::Category(vec![Some(7), Some(9), Some(9), None, Some(900)]));
        let rank = |row: usize| rows[row][22..38].iter().position(|value| *value > 0.5);
        assert_eq!([rank(0), rank(1), rank(2), rank(3), rank(4)], [Some(1), Some(0), Some(0), None, Some(2)]);
        let encoder = ColumnEncoder::fit(&Column::Category(vec![Some(1)]));
        let mut unseen = [0.0; CELL_FEATURES];
        encoder.encode(&Column::Category(vec![Some(2)]), 0, &mut unseen);
        assert!(unseen[22 + RANKS - 1] > 0.5);
    }

    #[test]
    fn labels_without_anything_to_tell_are_refused() {
        let classes = |labels: &[u32], count| Labels::Classes { labels: labels.to_vec(), count }.validate();
        assert!(classes(&[0, 1, 0], 2).is_ok());
        for refused in [classes(&[], 2), classes(&[1, 1], 2), classes(&[0, 2], 2), classes(&[0, 1], 11)] {
            assert!(matches!(refused, Err(ExpertsError::Context(_))));
        }
        assert!(Labels::Numbers(vec![1.0, f32::NAN]).validate().is_err());
    }
}
