//! Which columns of a table tell much about one another, from a sample.

use super::columns::{Column, Value};

/// Bins of the values of a column; one more holds NULLs.
const BINS: usize = 8;

/// Pairs above this share of the smaller entropy count as correlated. Independent columns of a thousand rows reach 0.02.
const CORRELATED: f64 = 0.25;

/// Wider tables are looked at in their first columns only.
const MOST_COLUMNS: usize = 40;

/// The bin of each sampled value by its rank among the `ordered` ones; equal values share a bin.
pub(crate) fn bins(sampled: &[Option<Value>], ordered: &[Value]) -> Vec<u8> {
    let bin = |value: &Value| ordered.partition_point(|other| other < value) * BINS / ordered.len().max(1);
    sampled.iter().map(|value| value.as_ref().map_or(BINS, bin) as u8).collect()
}

/// Pairs of columns whose mutual information is a good part of the smaller entropy.
pub(crate) fn correlated_pairs(columns: &[Column]) -> Vec<(usize, usize)> {
    let mut pairs = vec![];
    for left in 0..columns.len().min(MOST_COLUMNS) {
        for right in left + 1..columns.len().min(MOST_COLUMNS) {
            if dependence(&columns[left].bins, &columns[right].bins) > CORRELATED {
                pairs.push((left, right));
            }
        }
    }
    pairs
}

/// Mutual information over the smaller entropy, 0 where a column is constant.
fn dependence(left: &[u8], right: &[u8]) -> f64 {
    const SIDE: usize = BINS + 1;
    let mut joint = [0.0; SIDE * SIDE];
    let (mut first, mut second) = ([0.0; SIDE], [0.0; SIDE]);
    let share = 1.0 / left.len().max(1) as f64;
    for (&left, &right) in left.iter().zip(right) {
        joint[usize::from(left) * SIDE + usize::from(right)] += share;
        first[usize::from(left)] += share;
        second[usize::from(right)] += share;
    }
    let entropy = |shares: &[f64]| -> f64 { shares.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum() };
    let (first, second, joint) = (entropy(&first), entropy(&second), entropy(&joint));
    let smaller = first.min(second);
    if smaller < 0.05 { 0.0 } else { (first + second - joint) / smaller }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependence_is_between_none_and_all() {
        let left: Vec<u8> = (0..720).map(|i| (i % 8) as u8).collect();
        let independent: Vec<u8> = (0..720).map(|i| (i / 8 % 9) as u8).collect();
        let function: Vec<u8> = left.iter().map(|bin| bin / 2).collect();
        assert!(dependence(&left, &independent) < 1e-6);
        assert!((dependence(&left, &function) - 1.0).abs() < 1e-6);
        assert!(dependence(&left, &vec![3; 720]) < 1e-9);
    }

    #[test]
    fn equal_values_share_a_bin() {
        let values: Vec<Option<Value>> = [5, 5, 1, 9].iter().map(|&v| Some(Value::Integer(v))).chain([None]).collect();
        let mut ordered: Vec<Value> = values.iter().flatten().cloned().collect();
        ordered.sort_by(|a, b| a.partial_cmp(b).unwrap());
        let bins = bins(&values, &ordered);
        assert_eq!(bins[0], bins[1]);
        assert!(bins[2] < bins[0] && bins[0] < bins[3]);
        assert_eq!(bins[4], 8);
    }
}
