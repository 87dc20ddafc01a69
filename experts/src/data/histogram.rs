//! Restoring histograms: the embeddings of a table and some of its columns -> the rows in each of their buckets.
//!
//! A slot says how the values of one column are distributed within one group of rows, so a group's share of a bucket is a
//! product over columns, and the bucket's is the sum over groups: a mixture of products, whose factors are decoded from
//! slots by one MLP. The slot of the whole table knows the column's own distribution, to which the mixture is pulled, and
//! the rows of no bucket can exceed those of one of its intervals. What is left over is corrected by a small MLP that knows
//! how large table and sample are.
//!
//! Everything is trained on `|ln(1 + restored) - ln(1 + rows)|`, which is the logarithm of the q-error for all but the
//! smallest buckets.

use relata_featurize::relative::{BINS, LOG_SCALE, VALUE_BINS};
use relata_featurize::restoration::{BUCKETS, CountedHistogram, bucket_of};

use super::{DataExpert, TableEmbedding, softmax};
use crate::Result;
use crate::error::ExpertsError;

/// Features of a bucket besides embeddings; see [`BucketShares::features`].
pub const BUCKET_FEATURES: usize = 10;

/// Shares below this are taken for it where they divide.
pub(crate) const LEAST_SHARE: f32 = 1e-12;

/// The mixture is pulled to the distribution of a column by this factor at most.
pub(crate) const MOST_PULL: f32 = 1e3;

/// The distribution of the values of each cell of a table: what [`DataExpert::factors`] decodes from its slots.
#[derive(Debug, Clone, PartialEq)]
pub struct Factors {
    rows: usize,
    /// Shares of the bins. `[C, R, BINS]`
    bins: Vec<f32>,
}

/// What the mixture says of one bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BucketShares {
    /// Its share by the mixture,
    pub mixture: f32,
    /// by independent columns,
    pub independent: f32,
    /// by the mixture, pulled to the distributions of its columns,
    pub pulled: f32,
    /// and the smallest share of one of its intervals.
    pub least: f32,
    /// What the group with most of it has of it.
    pub most: f32,
}

impl BucketShares {
    /// The features of the correction, the pulled mixture and the upper bound, the last two as `ln(1 + rows)`.
    ///
    /// # Shapes
    ///
    /// -> `[BUCKET_FEATURES]`
    pub fn features(&self, columns: usize, log_rows: f32, log_sampled: f32) -> ([f32; BUCKET_FEATURES], f32, f32) {
        let (rows, sampled) = (log_rows.exp_m1(), log_sampled.exp_m1());
        let (pulled, bound) = ((rows * self.pulled).ln_1p(), (rows * self.least).ln_1p());
        let features = [
            (rows * self.mixture).ln_1p(),
            (rows * self.independent).ln_1p(),
            pulled,
            bound,
            log_rows,
            2.0 * columns as f32,
            (sampled * self.mixture).ln_1p(),
            log_sampled,
            (rows * self.most).ln_1p(),
            (sampled * self.most).ln_1p(),
        ];
        (features.map(|feature| 0.1 * feature), pulled.min(bound), bound)
    }
}

impl DataExpert {
    /// Decodes the slots of a table.
    pub fn factors(&self, embedding: &TableEmbedding) -> Factors {
        let slot = self.config.slot;
        let mut bins = vec![0.0; embedding.slots.len() / slot * BINS];
        self.factor.forward(&embedding.slots, &mut bins);
        for (bins, slot) in bins.chunks_exact_mut(BINS).zip(embedding.slots.chunks_exact(slot)) {
            bins.iter_mut().zip(slot).for_each(|(bin, slot)| *bin += LOG_SCALE * slot);
            softmax(bins);
        }
        Factors { rows: embedding.rows, bins }
    }

    /// The distribution of a column as its embedding `[D]` alone tells it: `[BINS]`.
    pub fn marginal(&self, column: &[f32]) -> [f32; BINS] {
        let mut bins = [0.0; BINS];
        self.marginal.forward(column, &mut bins);
        softmax(&mut bins);
        bins
    }

    /// The rows of every bucket of a histogram over `columns`, in the order of the codes of [`CountedHistogram`].
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Graph`] if a column is not there, or if there are none or more than five.
    pub fn restore(&self, embedding: &TableEmbedding, factors: &Factors, columns: &[u32]) -> Result<Vec<f32>> {
        let known = columns.iter().all(|&column| (column as usize) < embedding.columns.nrows());
        if !known || !(1..=BUCKETS.len()).contains(&columns.len()) {
            return Err(ExpertsError::Graph(format!("no histogram over columns {columns:?}")));
        }
        let histogram = CountedHistogram { columns: columns.to_vec(), counts: vec![] };
        let intervals = Intervals::new(embedding, factors, &histogram);
        let mut features = Vec::with_capacity(histogram.codes() as usize * BUCKET_FEATURES);
        let mut anchors = Vec::with_capacity(histogram.codes() as usize);
        for code in 0..histogram.codes() {
            let shares = intervals.shares(&histogram, code);
            let (own, anchor, bound) = shares.features(columns.len(), embedding.log_rows, embedding.log_sampled);
            features.extend(own);
            anchors.push((anchor, bound));
        }
        if columns.len() == 1 {
            return Ok(anchors.into_iter().map(|(_, bound)| bound.exp_m1()).collect());
        }
        let mut context = embedding.table.clone();
        let mut mean = vec![0.0; self.config.width];
        for column in columns.iter().filter_map(|&column| embedding.column(column as usize)) {
            super::add_scaled(&mut mean, column, 1.0 / columns.len() as f32);
        }
        context.extend(mean);
        let shared = self.bucket.first_of_shared(BUCKET_FEATURES, &context);
        let hidden = self.bucket.hidden_with_shared(BUCKET_FEATURES, &features, &shared);
        let mut corrections = vec![0.0; anchors.len()];
        self.bucket.last(&hidden, &mut corrections);
        let restored = anchors.iter().zip(corrections);
        Ok(restored.map(|((anchor, bound), by)| (anchor + by).clamp(0.0, *bound).exp_m1()).collect())
    }
}

/// The shares of the buckets of single columns.
struct Intervals<'a> {
    weights: &'a [f32],
    /// Per column and bucket: its share in the table, the pull to it, and its shares in the groups. `[d][buckets + 1]`
    columns: Vec<Vec<Interval>>,
}

#[derive(Clone)]
struct Interval {
    whole: f32,
    pull: f32,
    groups: Vec<f32>,
}

impl<'a> Intervals<'a> {
    fn new(embedding: &'a TableEmbedding, factors: &Factors, histogram: &CountedHistogram) -> Self {
        let (buckets, rows) = (histogram.buckets(), factors.rows);
        let column = |&column: &u32| {
            let mut intervals = vec![Interval { whole: 0.0, pull: 1.0, groups: vec![0.0; rows] }; buckets + 1];
            let cells = &factors.bins[column as usize * rows * BINS..][..rows * BINS];
            for (row, bins) in cells.chunks_exact(BINS).enumerate() {
                for (bin, share) in bins.iter().enumerate() {
                    intervals[bucket_of(bin, buckets)].groups[row] += share;
                }
            }
            for interval in &mut intervals {
                interval.whole = interval.groups.first().copied().unwrap_or(0.0);
                let mixed: f32 =
                    interval.groups.iter().zip(&embedding.shares).map(|(group, share)| group * share).sum();
                interval.pull = (interval.whole / mixed.max(LEAST_SHARE)).min(MOST_PULL);
            }
            intervals
        };
        Self { weights: &embedding.shares, columns: histogram.columns.iter().map(column).collect() }
    }

    fn shares(&self, histogram: &CountedHistogram, code: u32) -> BucketShares {
        let mut groups = self.weights.to_vec();
        let (mut independent, mut pull, mut least) = (1.0, 1.0, 1.0f32);
        for (column, bucket) in self.columns.iter().zip(histogram.split(code)) {
            let interval = &column[bucket];
            groups.iter_mut().zip(&interval.groups).for_each(|(product, share)| *product *= share);
            independent *= interval.whole;
            pull *= interval.pull;
            least = least.min(interval.whole);
        }
        let mixture: f32 = groups.iter().sum();
        let most = groups.iter().copied().fold(0.0, f32::max);
        BucketShares { mixture, independent, pulled: mixture * pull, least, most }
    }
}

/// The bins that make up each bucket, as a matrix: `[BINS, buckets + 1]`.
pub fn bucket_matrix(buckets: usize) -> Vec<f32> {
    let mut matrix = vec![0.0; BINS * (buckets + 1)];
    for bin in 0..=VALUE_BINS {
        matrix[bin * (buckets + 1) + bucket_of(bin, buckets)] = 1.0;
    }
    matrix
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DataConfig;
    use crate::fixture;

    #[test]
    fn untrained_factors_repeat_the_shares_of_the_bins() {
        let config = DataConfig::default();
        let expert = DataExpert::from_parameters(&config, &vec![0.0; config.parameter_count()]).unwrap();
        let table = fixture::table(5, 3, 1);
        let factors = expert.factors(&expert.embed(&table).unwrap());
        for column in 0..3 {
            for row in 0..5 {
                let own = &factors.bins[(column * 5 + row) * BINS..][..BINS];
                for (factor, log_share) in own.iter().zip(table.log_shares(row, column)) {
                    assert!((factor - log_share.exp()).abs() < 1e-4);
                }
            }
        }
    }

    #[test]
    fn restored_buckets_stay_within_their_bounds() {
        let config = DataConfig::default();
        let expert = DataExpert::from_parameters(&config, &fixture::parameters(&config.parameters(), 3)).unwrap();
        let embedding = expert.embed(&fixture::table(9, 6, 2)).unwrap();
        let factors = expert.factors(&embedding);
        let rows = embedding.log_rows.exp();
        for columns in [&[2][..], &[0, 3], &[5, 1, 2], &[0, 1, 2, 3], &[5, 4, 3, 2, 1]] {
            let restored = expert.restore(&embedding, &factors, columns).unwrap();
            assert!(restored.iter().all(|count| (0.0..=rows).contains(count)));
            if columns.len() == 1 {
                assert!((restored.iter().sum::<f32>() / embedding.log_rows.exp_m1() - 1.0).abs() < 1e-3);
            }
        }
        assert!(expert.restore(&embedding, &factors, &[]).is_err());
        assert!(expert.restore(&embedding, &factors, &[6]).is_err());
        assert!(expert.restore(&embedding, &factors, &[0; 6]).is_err());
    }
}
