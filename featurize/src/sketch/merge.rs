//! Two sketches of parts of one column -> the sketch of both: how a table that was appended to is profiled by its new rows.
//!
//! What adds up stays exact: rows, NULLs, ranges, bounds, and everything where one part's values lie beyond the other's or
//! where both know all of their values. The rest is estimated from the values that both parts have in common.

use std::cmp::Ordering;

use datafusion::arrow::array::ArrayRef;

use super::builder::{DISTINCT_HASHES, MAX_TEXT, reduce, sampled_bins};
use super::{COMMON_VALUES, ColumnSketch, CommonValue, Degrees, Domain, Histogram, TextStatistics, Value, ValueOrder};
use crate::relative::BINS;

impl ColumnSketch {
    /// The sketch of this part of a column and of the part that follows it; `sample` is the column in a sample of both.
    pub(crate) fn merge(&self, next: &ColumnSketch, sample: &ArrayRef) -> ColumnSketch {
        let apart = self.is_apart(next);
        let (common, common_is_complete) = merge_common(self, next);
        let common_is_exact = self.common_is_exact && next.common_is_exact && (apart || common_is_complete);
        let (distinct_hashes, by_hashes) = merge_hashes(self, next);
        let distinct = if common_is_complete {
            common.len() as f64
        } else if apart {
            self.degrees.distinct + next.degrees.distinct
        } else {
            let most = self.degrees.distinct + next.degrees.distinct;
            by_hashes.clamp(self.degrees.distinct.max(next.degrees.distinct), most)
        };
        let mut merged = ColumnSketch {
            domain: self.domain,
            rows: self.rows + next.rows,
            nulls: self.nulls + next.nulls,
            non_finite: self.non_finite + next.non_finite,
            min: extreme(&self.min, &next.min, Ordering::Less),
            max: extreme(&self.max, &next.max, Ordering::Greater),
            common,
            common_is_complete,
            common_is_exact,
            histogram: merge_histograms(self, next),
            degrees: Degrees::default(),
            distinct_hashes,
            order: merge_order(self, next),
            text: merge_text(self, next),
            bins: [0.0; BINS],
        };
        merged.degrees = merge_degrees(self, next, &merged, distinct, apart);
        merged.bins = sampled_bins(&merged, sample);
        merged
    }

    /// Whether no value of one part can be a value of the other.
    fn is_apart(&self, next: &ColumnSketch) -> bool {
        // The ends of long strings are cut.
        let known = |sketch: &ColumnSketch| sketch.text.is_none_or(|text| text.max_length <= MAX_TEXT as f64);
        let below = |one: &ColumnSketch, other: &ColumnSketch| match (&one.max, &other.min) {
            (Some(max), Some(min)) => max.order(min).is_lt(),
            _ => true,
        };
        self.domain != Domain::Opaque && known(self) && known(next) && (below(self, next) || below(next, self))
    }
}

fn extreme(one: &Option<Value>, other: &Option<Value>, side: Ordering) -> Option<Value> {
    match (one, other) {
        (Some(a), Some(b)) => Some(if b.order(a) == side { b.clone() } else { a.clone() }),
        _ => one.clone().or_else(|| other.clone()),
    }
}

/// The most frequent of the common values of both, and whether these are all values.
fn merge_common(one: &ColumnSketch, other: &ColumnSketch) -> (Vec<CommonValue>, bool) {
    let mut all: Vec<CommonValue> = one.common.clone();
    for common in &mut all {
        common.rows += other.equality(&common.value) * other.rows;
    }
    let new = other.common.iter().filter(|common| one.common_value(&common.value).is_none());
    all.extend(new.map(|common| CommonValue {
        value: common.value.clone(),
        rows: common.rows + one.equality(&common.value) * one.rows,
    }));
    let complete = one.common_is_complete && other.common_is_complete && all.len() <= COMMON_VALUES;
    all.sort_by(|a, b| b.rows.total_cmp(&a.rows).then(a.value.order(&b.value)));
    all.truncate(COMMON_VALUES);
    all.sort_by(|a, b| a.value.order(&b.value));
    (all, complete)
}

/// The smallest hashes of both, and the distinct values by them: all hashes, or one less than their number over the share of
/// hashes that are as small (Bar-Yossef et al., RANDOM 2002).
fn merge_hashes(one: &ColumnSketch, other: &ColumnSketch) -> (Vec<u64>, f64) {
    let last = |sketch: &ColumnSketch| match sketch.distinct_hashes.last() {
        Some(last) if sketch.distinct_hashes.len() >= DISTINCT_HASHES => *last,
        _ => u64::MAX,
    };
    let mut hashes: Vec<u64> = one.distinct_hashes.iter().chain(&other.distinct_hashes).copied().collect();
    hashes.sort_unstable();
    hashes.dedup();
    let threshold = last(one).min(last(other));
    hashes.retain(|hash| *hash <= threshold);
    hashes.truncate(DISTINCT_HASHES);
    let distinct = match hashes.last() {
        Some(last) if hashes.len() >= DISTINCT_HASHES => {
            (hashes.len() - 1) as f64 / (*last as f64 / u64::MAX as f64).max(f64::MIN_POSITIVE)
        }
        _ => hashes.len() as f64,
    };
    (hashes, distinct)
}

fn merge_degrees(
    one: &ColumnSketch,
    other: &ColumnSketch,
    merged: &ColumnSketch,
    distinct: f64,
    apart: bool,
) -> Degrees {
    let (a, b) = (&one.degrees, &other.degrees);
    let exact = a.exact && b.exact;
    if merged.common_is_complete && merged.common_is_exact {
        let rows = || merged.common.iter().map(|common| common.rows);
        let mut sequence = a.sequence.sum(&b.sequence);
        if exact {
            sequence = super::DegreeSequence::new(rows().map(|rows| (rows as u64, 1)).collect());
        }
        let max = rows().fold(0.0, f64::max);
        return Degrees { distinct, max, sum_of_squares: rows().map(|rows| rows * rows).sum(), exact, sequence };
    }
    if apart {
        let (max, sum_of_squares) = (a.max.max(b.max), a.sum_of_squares + b.sum_of_squares);
        return Degrees { distinct, max, sum_of_squares, exact, sequence: a.sequence.union(&b.sequence) };
    }
    // Values of both parts have their rows in both.
    let shared = (a.distinct + b.distinct - distinct).max(0.0);
    let mean = |sketch: &ColumnSketch| (sketch.rows - sketch.nulls) / sketch.degrees.distinct.max(1.0);
    let common = merged.common.iter().map(|common| common.rows).fold(0.0, f64::max);
    Degrees {
        distinct,
        max: a.max.max(b.max).max(common),
        sum_of_squares: a.sum_of_squares + b.sum_of_squares + 2.0 * shared * mean(one) * mean(other),
        exact: false,
        sequence: a.sequence.sum(&b.sequence),
    }
}

/// The bounds of both histograms with the shares of both, reduced to the usual number.
fn merge_histograms(one: &ColumnSketch, other: &ColumnSketch) -> Histogram {
    let finite = |sketch: &ColumnSketch| (sketch.rows - sketch.nulls - sketch.non_finite).max(0.0);
    let total = finite(one) + finite(other);
    if total <= 0.0 {
        return Histogram::default();
    }
    let (share, other_share) = (finite(one) / total, finite(other) / total);
    let mut bounds: Vec<&Value> = one.histogram.bounds.iter().chain(&other.histogram.bounds).collect();
    bounds.sort_by(|a, b| a.order(b));
    bounds.dedup();
    let mut merged = Histogram::default();
    for bound in bounds {
        let up_to = share * one.histogram.share_up_to(bound) + other_share * other.histogram.share_up_to(bound);
        let below = share * one.histogram.share_below(bound) + other_share * other.histogram.share_below(bound);
        merged.bounds.push(bound.clone());
        merged.cumulative.push(up_to);
        merged.at.push((up_to - below).max(0.0));
    }
    reduce(merged)
}

fn merge_order(one: &ColumnSketch, next: &ColumnSketch) -> ValueOrder {
    let follows = match (&one.max, &next.min) {
        (Some(max), Some(min)) => max.order(min).is_le(),
        _ => true,
    };
    let values = |sketch: &ColumnSketch| (sketch.rows - sketch.nulls).max(0.0);
    let spread = |min: &Option<Value>, max: &Option<Value>| match (min, max) {
        (Some(Value::Number(min)), Some(Value::Number(max))) => max - min,
        _ => 0.0,
    };
    let (a, b) = (values(one), values(next));
    let all = (a + b).max(1.0);
    let sorted = follows && one.order.ascending >= 1.0 && next.order.ascending >= 1.0;
    if sorted {
        return ValueOrder { ascending: 1.0, clustering: 1.0 };
    }
    let covered = |sketch: &ColumnSketch| (1.0 - sketch.order.clustering) * spread(&sketch.min, &sketch.max);
    let whole = spread(&extreme(&one.min, &next.min, Ordering::Less), &extreme(&one.max, &next.max, Ordering::Greater));
    let clustering = if whole > 0.0 {
        1.0 - (a * covered(one) + b * covered(next)) / all / whole
    } else {
        (a * one.order.clustering + b * next.order.clustering) / all
    };
    // The seam is one pair of neighbours that may be out of order.
    let ascending = (a * one.order.ascending + b * next.order.ascending) / all;
    ValueOrder { ascending: ascending.min(1.0 - 1.0 / all), clustering: clustering.clamp(0.0, 1.0) }
}

fn merge_text(one: &ColumnSketch, other: &ColumnSketch) -> Option<TextStatistics> {
    let (a, b) = (one.text?, other.text?);
    let (rows, other_rows) = (one.rows - one.nulls, other.rows - other.nulls);
    let mean = |x: f64, y: f64| (x * rows + y * other_rows) / (rows + other_rows).max(1.0);
    Some(TextStatistics {
        mean_length: mean(a.mean_length, b.mean_length),
        max_length: a.max_length.max(b.max_length),
        prefixes: std::array::from_fn(|i| mean(a.prefixes[i], b.prefixes[i])),
    })
}
