//! Which features say something of a label.

use std::hash::{DefaultHasher, Hash, Hasher};

use hashbrown::{HashMap, HashSet};

use super::{FeatureColumn, FeatureTable, FeatureValues};

/// Bins of numbers at most.
const MOST_BINS: usize = 8;

/// Labelled rows that a bin has at least on average.
const ROWS_PER_BIN: usize = 8;

/// A category says nothing of other rows when more than this share of the labelled ones have a value of their own.
const MOST_SINGLE: f64 = 0.8;

/// Labels of some rows, by the row's place in the table.
#[derive(Debug, Clone, Copy)]
pub enum Labels<'a> {
    /// Numbers; NaN is missing.
    Numbers(&'a [(usize, f32)]),
    /// Classes.
    Classes(&'a [(usize, u32)]),
}

impl FeatureTable {
    /// Keep the `budget` columns that say most of the labels, in the order they have.
    ///
    /// Constant columns, repeated ones and categories in which nearly every labelled row has a value of its own go first.
    /// The others are ranked by mutual information with the label in bins of equal frequency, less what as many levels share
    /// with a label by chance (Miller, "Note on the bias of information estimates", 1955), as a part of the label's entropy.
    /// Equal ones rank in the order they have. Labels of rows that are not there are left out.
    pub fn select(&mut self, labels: Labels<'_>, budget: usize) {
        let (places, codes): (Vec<usize>, Vec<u32>) = self.label_codes(labels).into_iter().unzip();
        let label = compact(codes);
        let mut scores: Vec<(f64, usize)> = vec![];
        let mut seen: HashMap<u64, Vec<usize>> = HashMap::new();
        for (index, column) in self.columns.iter().enumerate() {
            let Some(levels) = levels(column, &places, self.rows.len()) else { continue };
            let same = seen.entry(fingerprint(&column.values)).or_default();
            if same.iter().any(|&other| is_same(&self.columns[other].values, &column.values)) {
                continue;
            }
            same.push(index);
            scores.push((information(&levels, &label), index));
        }
        scores.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let kept: HashSet<usize> = scores.into_iter().take(budget).map(|(_, index)| index).collect();
        let mut index = 0;
        self.columns.retain(|_| {
            index += 1;
            kept.contains(&(index - 1))
        });
    }

    /// The labelled rows and their labels' classes or bins.
    fn label_codes(&self, labels: Labels<'_>) -> Vec<(usize, u32)> {
        match labels {
            Labels::Classes(classes) => classes.iter().copied().filter(|(place, _)| *place < self.rows.len()).collect(),
            Labels::Numbers(numbers) => {
                let there = |(place, label): &&(usize, f32)| *place < self.rows.len() && !label.is_nan();
                let (places, values): (Vec<usize>, Vec<f32>) = numbers.iter().filter(there).copied().unzip();
                places.into_iter().zip(bins(&values)).collect()
            }
        }
    }
}

/// Levels of a column on the labelled rows, or of all rows without any; `None` for a column that can say nothing.
fn levels(column: &FeatureColumn, labelled: &[usize], rows: usize) -> Option<Vec<u32>> {
    let all: Vec<usize>;
    let places = if labelled.is_empty() {
        all = (0..rows).collect();
        &all
    } else {
        labelled
    };
    let levels = match &column.values {
        FeatureValues::Number(values) => {
            let values: Vec<f32> = places.iter().map(|&place| values[place]).collect();
            bins(&values)
        }
        FeatureValues::Category { codes, .. } => {
            let codes: Vec<Option<u32>> = places.iter().map(|&place| codes[place]).collect();
            let mut times: HashMap<u32, usize> = HashMap::new();
            codes.iter().flatten().for_each(|code| *times.entry(*code).or_default() += 1);
            let single = times.values().filter(|times| **times == 1).count();
            if single as f64 > MOST_SINGLE * codes.iter().flatten().count() as f64 {
                return None;
            }
            codes.into_iter().map(|code| code.map_or(0, |code| code + 1)).collect()
        }
    };
    let levels = compact(levels);
    levels.iter().any(|level| *level > 0).then_some(levels)
}

/// Bins of about equal frequency, equal values in the same one; missing values are in bin 0. `[rows]`
fn bins(values: &[f32]) -> Vec<u32> {
    let mut sorted: Vec<f32> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    sorted.sort_by(f32::total_cmp);
    let most = (sorted.len() / ROWS_PER_BIN).clamp(2, MOST_BINS);
    let mut distinct = sorted.clone();
    distinct.dedup();
    let mut edges = if distinct.len() <= most {
        distinct
    } else {
        (0..most).map(|bin| sorted[bin * sorted.len() / most]).collect()
    };
    edges.dedup();
    // Where more than a part of the values are the least one, the others begin a bin of their own.
    if let [edge] = edges[..]
        && let Some(next) = sorted.iter().find(|value| **value > edge)
    {
        edges.push(*next);
    }
    let bin = |value: &f32| if value.is_nan() { 0 } else { edges.partition_point(|edge| edge <= value) as u32 };
    values.iter().map(bin).collect()
}

/// Codes renamed to 0, 1, … by first occurrence.
fn compact(codes: Vec<u32>) -> Vec<u32> {
    let mut names: HashMap<u32, u32> = HashMap::new();
    let name = |code: u32| {
        let next = names.len() as u32;
        *names.entry(code).or_insert(next)
    };
    codes.into_iter().map(name).collect()
}

/// Mutual information of compact codes beyond chance, as a part of the label's entropy.
fn information(levels: &[u32], label: &[u32]) -> f64 {
    let width = |codes: &[u32]| codes.iter().max().map_or(0, |most| *most as usize + 1);
    let (rows, columns) = (width(levels), width(label));
    if label.is_empty() || levels.len() != label.len() {
        return 0.0;
    }
    // Pairs by place rather than in a hash: sums of floats depend on their order.
    let mut pairs: Vec<(u32, u32)> = levels.iter().copied().zip(label.iter().copied()).collect();
    pairs.sort_unstable();
    let pairs = pairs.chunk_by(|a, b| a == b).map(<[_]>::len);
    let joint = entropy(pairs, label.len());
    let of_label = entropy(counts(label, columns), label.len());
    let mutual = entropy(counts(levels, rows), levels.len()) + of_label - joint;
    let chance = ((rows - 1) * (columns - 1)) as f64 / (2.0 * label.len() as f64);
    if of_label > 0.0 { (mutual - chance) / of_label } else { 0.0 }
}

fn counts(codes: &[u32], width: usize) -> impl Iterator<Item = usize> {
    let mut counts = vec![0; width];
    codes.iter().for_each(|code| counts[*code as usize] += 1);
    counts.into_iter()
}

/// Entropy of counts, in nats.
fn entropy(counts: impl Iterator<Item = usize>, all: usize) -> f64 {
    counts.filter(|count| *count > 0).map(|count| count as f64 / all as f64).map(|share| -share * share.ln()).sum()
}

fn fingerprint(values: &FeatureValues) -> u64 {
    let mut hasher = DefaultHasher::new();
    match values {
        FeatureValues::Number(values) => values.iter().for_each(|value| bits(*value).hash(&mut hasher)),
        FeatureValues::Category { codes, levels } => (codes, levels).hash(&mut hasher),
    }
    hasher.finish()
}

fn is_same(a: &FeatureValues, b: &FeatureValues) -> bool {
    match (a, b) {
        (FeatureValues::Number(a), FeatureValues::Number(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| bits(*a) == bits(*b))
        }
        (a, b) => a == b,
    }
}

/// Bits that are equal for equal numbers and for all NaN.
fn bits(value: f32) -> u32 {
    if value.is_nan() { f32::NAN.to_bits() } else { (value + 0.0).to_bits() }
}
