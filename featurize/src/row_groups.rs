//! Rows of a sample -> groups of similar rows, within which columns are close to independent.
//!
//! A multivariate decision tree over the bins of the relative encoding. A split is worth the mutual information between
//! its side and every *other* column, less what independent columns would show by chance (the likelihood-ratio statistic is
//! half a chi-squared variable; Wilks, Annals of Mathematical Statistics 1938), so that splits go where columns depend on
//! each other and nowhere else. The leaves are a mixture of products, a sum-product network of depth one
//! (Poon and Domingos, "Sum-product networks", UAI 2011; learned by splitting rows as in DeepDB, Hilprecht et al.,
//! VLDB 2020, who cluster by k-means where this splits greedily).
//!
//! Everything is a function of counts: neither the order of the rows nor the names or scales of the columns matter.

use datafusion::arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::relative::{BINS, bin_of};
use crate::sketch::ColumnSketch;

/// Groups of a table at most.
pub const MOST_GROUPS: usize = 64;

/// Rows of a group of an incomplete sample at least.
const LEAST_ROWS: usize = 4;

/// Information a split must give at least beyond chance, in nats.
const LEAST_GAIN: f64 = 1.0;

/// Standard deviations above its mean that chance is taken for: the best of many splits is looked for.
const DEVIATIONS: f64 = 2.5;

/// Groups of similar rows, as the counts of their bins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowGroups {
    /// Rows of each group. `[G]`
    pub rows: Vec<u32>,
    /// Rows of each group in each bin of each column. `[C, G, BINS]`
    pub counts: Vec<u32>,
}

impl RowGroups {
    /// Groups the rows of `sample`, whose columns `sketches` describe. A sample that is the whole table is split as far as
    /// it goes: what looks like chance is how its rows are.
    pub fn of_sample(sketches: &[ColumnSketch], sample: &RecordBatch) -> Self {
        let complete = sketches.first().is_some_and(|sketch| sample.num_rows() as f64 >= sketch.rows);
        let bins: Vec<Vec<u8>> = sketches
            .iter()
            .zip(sample.columns())
            .map(|(sketch, array)| sketch.relative_values(array).into_iter().map(|v| bin_of(v) as u8).collect())
            .collect();
        Self::of_bins(&bins, sample.num_rows(), complete)
    }

    /// Groups `rows` rows by the bins of their columns, `bins: [C][rows]`; `complete` takes chance for what it is.
    pub fn of_bins(bins: &[Vec<u8>], rows: usize, complete: bool) -> Self {
        if rows == 0 || bins.is_empty() {
            return Self::default();
        }
        let logarithms: Vec<f64> = (0..=rows).map(|n| if n > 0 { n as f64 * (n as f64).ln() } else { 0.0 }).collect();
        let leaf = |rows: Vec<u32>| Leaf { split: best_split(bins, &rows, &logarithms, complete), rows };
        let mut leaves = vec![leaf((0..rows as u32).collect())];
        while leaves.len() < MOST_GROUPS {
            // The first of the best: leaves are numbered in the order they came about.
            let mut best: Option<(usize, Split)> = None;
            for (index, leaf) in leaves.iter().enumerate() {
                if let Some(split) = leaf.split
                    && best.is_none_or(|(_, best)| split.gain > best.gain)
                {
                    best = Some((index, split));
                }
            }
            let Some((index, Split { column, bin, .. })) = best else { break };
            let all = std::mem::take(&mut leaves[index].rows);
            let (below, above): (Vec<u32>, Vec<u32>) =
                all.into_iter().partition(|&row| bins[column][row as usize] <= bin);
            leaves[index] = leaf(below);
            leaves.push(leaf(above));
        }
        let mut counts = vec![0; bins.len() * leaves.len() * BINS];
        for (column, bins) in bins.iter().enumerate() {
            for (group, leaf) in leaves.iter().enumerate() {
                let counts = &mut counts[(column * leaves.len() + group) * BINS..][..BINS];
                leaf.rows.iter().for_each(|&row| counts[usize::from(bins[row as usize])] += 1);
            }
        }
        Self { rows: leaves.iter().map(|leaf| leaf.rows.len() as u32).collect(), counts }
    }

    /// G: number of groups.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no group, as of an empty sample.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Rows of group `group` in each bin of column `column`.
    pub fn counts(&self, column: usize, group: usize) -> &[u32] {
        &self.counts[(column * self.len() + group) * BINS..][..BINS]
    }

    /// Whether the counts are those of `columns` columns.
    pub fn is_valid(&self, columns: usize) -> bool {
        self.counts.len() == columns * self.len() * BINS && self.len() <= MOST_GROUPS
    }

    /// Size in memory, in bytes.
    pub fn bytes(&self) -> usize {
        (self.rows.len() + self.counts.len()) * size_of::<u32>()
    }
}

struct Leaf {
    rows: Vec<u32>,
    split: Option<Split>,
}

/// Rows whose bin of `column` is at most `bin` go one way.
#[derive(Clone, Copy)]
struct Split {
    gain: f64,
    column: usize,
    bin: u8,
}

/// The split of `rows` that says most about the other columns; the first of equals. `logarithms[n]` is `n ln n`.
fn best_split(bins: &[Vec<u8>], rows: &[u32], logarithms: &[f64], complete: bool) -> Option<Split> {
    let least = if complete { 1 } else { LEAST_ROWS.max(logarithms.len() / 512) };
    let least_gain = if complete { 1e-9 } else { LEAST_GAIN };
    if rows.len() < 2 * least {
        return None;
    }
    let pairs = Pairs::count(bins, rows);
    let width = pairs.width();
    let total = logarithms[rows.len()];
    let mut best: Option<Split> = None;
    let mut below = vec![0u32; width];
    for column in 0..bins.len() {
        below.fill(0);
        let own = pairs.first[column]..pairs.first[column + 1];
        let mut left = 0;
        for slot in own.start..own.end.saturating_sub(1) {
            let joint = &pairs.joint[slot * width..][..width];
            below.iter_mut().zip(joint).for_each(|(sum, count)| *sum += count);
            left += joint[slot] as usize;
            let right = rows.len() - left;
            if left < least || right < least {
                continue;
            }
            let sides = logarithms[left] + logarithms[right];
            let mut gain = 0.0;
            for other in (0..bins.len()).filter(|&other| other != column) {
                let range = pairs.first[other]..pairs.first[other + 1];
                let half_freedom = 0.5 * (range.len() - 1) as f64;
                let mut information = total - sides;
                for slot in range {
                    let (all, below) = (pairs.joint[slot * width + slot] as usize, below[slot] as usize);
                    information += logarithms[below] + logarithms[all - below] - logarithms[all];
                }
                let chance = if complete { 0.0 } else { half_freedom + DEVIATIONS * half_freedom.sqrt() };
                gain += (information - chance).max(0.0);
            }
            if gain > best.map_or(least_gain, |best| best.gain) {
                best = Some(Split { gain, column, bin: pairs.bins[slot] });
            }
        }
    }
    best
}

/// How often two bins of two columns occur together, over the bins that occur at all.
struct Pairs {
    /// Where the slots of a column start. `[C + 1]`
    first: Vec<usize>,
    /// The bin of each slot, ascending within a column.
    bins: Vec<u8>,
    /// `[slots, slots]`
    joint: Vec<u32>,
}

impl Pairs {
    fn width(&self) -> usize {
        self.bins.len()
    }

    fn count(bins: &[Vec<u8>], rows: &[u32]) -> Self {
        let (mut first, mut occurring) = (vec![0], Vec::new());
        let mut slots = vec![[0usize; BINS]; bins.len()];
        for (column, slots) in bins.iter().zip(&mut slots) {
            let mut seen = [false; BINS];
            rows.iter().for_each(|&row| seen[usize::from(column[row as usize])] = true);
            for bin in (0..BINS).filter(|&bin| seen[bin]) {
                slots[bin] = occurring.len();
                occurring.push(bin as u8);
            }
            first.push(occurring.len());
        }
        let width = occurring.len();
        let mut joint = vec![0u32; width * width];
        let mut here = vec![0; bins.len()];
        for &row in rows {
            for ((here, column), slots) in here.iter_mut().zip(bins).zip(&slots) {
                *here = slots[usize::from(column[row as usize])];
            }
            for &slot in &here {
                let joint = &mut joint[slot * width..][..width];
                here.iter().for_each(|&other| joint[other] += 1);
            }
        }
        Self { first, bins: occurring, joint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look random.
    fn noise(seed: u64) -> impl Iterator<Item = u8> {
        (0..).map(move |i| (crate::sample::mix(i ^ (seed << 32)) % 20) as u8)
    }

    #[test]
    fn dependent_columns_are_taken_apart() {
        let a: Vec<u8> = noise(1).take(2000).collect();
        let b: Vec<u8> = a.iter().map(|bin| 19 - bin).collect();
        let free: Vec<u8> = noise(2).take(2000).collect();
        let groups = RowGroups::of_bins(&[a, b, free], 2000, false);
        assert_eq!(groups.rows.iter().sum::<u32>(), 2000);
        assert!(groups.is_valid(3) && !groups.is_valid(2));
        // One group per value of the two; the third takes no part.
        assert_eq!(groups.len(), 20);
        assert!((0..20).all(|group| groups.counts(0, group).iter().filter(|&&rows| rows > 0).count() == 1));
    }

    #[test]
    fn rows_of_a_whole_table_are_told_apart() {
        let columns: Vec<Vec<u8>> = (0..3).map(|seed| noise(seed).take(40).collect()).collect();
        let groups = RowGroups::of_bins(&columns, 40, true);
        // Where only one column varies, there is nothing left to say.
        for group in 0..groups.len() {
            let varies = |column: &usize| groups.counts(*column, group).iter().filter(|&&rows| rows > 0).count() > 1;
            assert!((0..3).filter(varies).count() <= 1);
        }
    }

    #[test]
    fn independent_columns_are_split_less() {
        let columns: Vec<Vec<u8>> = (0..4).map(|seed| noise(seed).take(3000).collect()).collect();
        let groups = RowGroups::of_bins(&columns, 3000, false);
        // Of many splits the best is looked for, so that chance makes some.
        assert!(groups.len() < MOST_GROUPS / 2, "{}", groups.len());
        assert!(RowGroups::of_bins(&columns, 0, false).is_empty());
        assert_eq!(RowGroups::of_bins(&[vec![3, 3]], 2, true).rows, [2]);
    }

    #[test]
    fn order_of_rows_does_not_matter() {
        let a: Vec<u8> = noise(1).take(500).collect();
        let b: Vec<u8> = a.iter().zip(noise(5)).map(|(bin, noise)| (bin + noise % 4).min(20)).collect();
        let turned = |bins: &[u8]| bins.iter().rev().copied().collect::<Vec<u8>>();
        let (left, right): (RowGroups, RowGroups) =
            [[a.clone(), b.clone()], [turned(&a), turned(&b)]].map(|bins| RowGroups::of_bins(&bins, 500, false)).into();
        assert_eq!(left, right);
        assert!(left.len() > 5);
    }
}
