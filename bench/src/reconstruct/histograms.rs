//! Histograms: the rows of buckets by every contender.

use std::time::Instant;

use anyhow::Result;
use rand::SeedableRng;
use rand::rngs::StdRng;
use relata_experts::data::DataExpert;
use relata_featurize::profile::ProfileConfig;
use relata_featurize::relative::TableInput;
use relata_featurize::restoration::{CountedHistogram, TableTask, bucket_of};

use super::linear::Ridge;
use super::{BucketFigure, EXPERT, ReconstructOptions, Restored};
use crate::database::{Database, Table};
use crate::metrics::{percentile, q_error, sorted};
use crate::tables::task;

/// The contenders, in the order of the tables.
pub(super) const CONTENDERS: [&str; 5] =
    [EXPERT, "column embedding alone", "groups, untrained", "profile: independence", "linear (linfa)"];

/// A bucket that is restored to this many rows counts as restored to some.
const SOME: f32 = 0.5;

/// Buckets of a table of role `train` that the linear model is fitted to.
const SAMPLES: usize = 1000;

/// A bucket with its rows by every contender.
#[derive(Debug, Clone, Copy)]
pub(super) struct RestoredBucket {
    columns: usize,
    rows: u32,
    /// `[CONTENDERS]`, NaN from those who do not restore such buckets.
    restored: [f32; CONTENDERS.len()],
}

/// What independent columns say of a bucket: its rows, and those of its smallest interval, as `ln(1 + rows)`.
struct Independent {
    /// Per column of a histogram the share of each bucket.
    columns: Vec<Vec<f32>>,
}

impl Independent {
    fn new(input: &TableInput, histogram: &CountedHistogram) -> Self {
        let column = |column: &u32| {
            let mut shares = vec![0.0; histogram.buckets() + 1];
            for (bin, log_share) in input.log_shares(0, *column as usize).enumerate() {
                shares[bucket_of(bin, histogram.buckets())] += log_share.exp();
            }
            shares
        };
        Self { columns: histogram.columns.iter().map(column).collect() }
    }

    fn shares(&self, histogram: &CountedHistogram, code: u32) -> (f32, f32) {
        let shares = self.columns.iter().zip(histogram.split(code)).map(|(column, bucket)| column[bucket]);
        shares.fold((1.0, 1.0), |(product, least), share| (product * share, share.min(least)))
    }
}

/// The rows of every code of a histogram.
fn counted(histogram: &CountedHistogram) -> impl Iterator<Item = (u32, u32)> {
    let mut counts = histogram.counts.iter().peekable();
    (0..histogram.codes()).map(move |code| (code, counts.next_if(|count| count.0 == code).map_or(0, |count| count.1)))
}

/// A linear model of `ln(1 + rows)` on the logarithms of what independent columns say.
#[derive(Debug)]
pub(super) struct Linear(Ridge);

/// Features and `ln(1 + rows)` of a bucket.
pub(super) type Sample = (Vec<f64>, f64);

impl Linear {
    /// Fits the model; `None` without samples.
    pub(super) fn fit(samples: &[Sample]) -> Result<Option<Self>> {
        if samples.is_empty() {
            return Ok(None);
        }
        let (x, y): (Vec<Vec<f64>>, Vec<f64>) = samples.iter().cloned().unzip();
        Ok(Some(Self(Ridge::fit(&x, &y, 1e-4)?)))
    }

    fn features(task: &TableTask, histogram: &CountedHistogram, (product, least): (f32, f32)) -> Vec<f64> {
        let rows = |share: f32| (task.rows * f64::from(share)).ln_1p();
        vec![
            rows(product),
            rows(product).powi(2),
            rows(least),
            task.rows.ln_1p(),
            f64::from(task.input.table_statistics[2]),
            histogram.columns.len() as f64,
        ]
    }

    fn rows(&self, task: &TableTask, histogram: &CountedHistogram, shares: (f32, f32)) -> f32 {
        let most = (task.rows * f64::from(shares.1)).ln_1p();
        self.0.predict(&Self::features(task, histogram, shares)).clamp(0.0, most).exp_m1() as f32
    }
}

/// Histograms over one column, as many as there are, and over two to five.
fn wanted(options: &ReconstructOptions) -> [usize; 5] {
    let several = options.histograms;
    [usize::MAX, several, several, several, several]
}

/// What the linear model is fitted to.
pub(super) fn samples(database: &Database, options: &ReconstructOptions) -> Result<Vec<Sample>> {
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut samples = vec![];
    for table in &database.tables {
        let config = ProfileConfig::default();
        let Some((task, _)) = task(table, &config, [0, 3, 3, 3, 3], 0, &mut random)? else { continue };
        let mut own = vec![];
        for histogram in &task.histograms {
            let independent = Independent::new(&task.input, histogram);
            for (code, rows) in counted(histogram) {
                let shares = independent.shares(histogram, code);
                if rows > 0 || shares.0 * task.rows as f32 >= SOME {
                    own.push((Linear::features(&task, histogram, shares), f64::from(rows).ln_1p()));
                }
            }
        }
        let step = own.len().div_ceil(SAMPLES).max(1);
        samples.extend(own.into_iter().step_by(step));
    }
    Ok(samples)
}

/// Restores histograms of a table.
pub(super) fn restore(
    table: &Table,
    options: &ReconstructOptions,
    expert: &DataExpert,
    linear: Option<&Linear>,
    random: &mut StdRng,
    restored: &mut Restored,
) -> Result<()> {
    let Some((task, profile)) = task(table, &ProfileConfig::default(), wanted(options), 0, random)? else {
        return Ok(());
    };
    let start = Instant::now();
    let embedding = expert.embed(&TableInput::new(&profile))?;
    restored.embedding_us.push(start.elapsed().as_secs_f64() * 1e6);
    let zero = vec![0.0; expert.config().parameter_count()];
    let untrained = DataExpert::from_parameters(expert.config(), &zero)?;
    let plain = untrained.embed(&task.input)?;
    let (factors, plain_factors) = (expert.factors(&embedding), untrained.factors(&plain));
    for histogram in &task.histograms {
        let by_expert = expert.restore(&embedding, &factors, &histogram.columns)?;
        let by_groups = untrained.restore(&plain, &plain_factors, &histogram.columns)?;
        let independent = Independent::new(&task.input, histogram);
        let alone = marginal(expert, embedding.column(histogram.columns[0] as usize), histogram);
        for (code, rows) in counted(histogram) {
            let shares = independent.shares(histogram, code);
            let of_profile = task.rows as f32 * shares.0;
            let (of_column, of_linear) = if histogram.columns.len() == 1 {
                (alone[code as usize] * task.rows as f32, of_profile)
            } else {
                (f32::NAN, linear.map_or(f32::NAN, |linear| linear.rows(&task, histogram, shares)))
            };
            let own = [by_expert[code as usize], of_column, by_groups[code as usize], of_profile, of_linear];
            if rows > 0 || own.iter().any(|rows| *rows >= SOME) {
                restored.buckets.push(RestoredBucket { columns: histogram.columns.len(), rows, restored: own });
            }
        }
    }
    Ok(())
}

/// The shares of the buckets of one column by its embedding alone.
fn marginal(expert: &DataExpert, column: Option<&[f32]>, histogram: &CountedHistogram) -> Vec<f32> {
    let mut shares = vec![0.0; histogram.buckets() + 1];
    for (bin, share) in column.map(|column| expert.marginal(column)).iter().flatten().enumerate() {
        shares[bucket_of(bin, histogram.buckets())] += share;
    }
    shares
}

/// The figures over all databases.
pub(super) fn figures(databases: &[Restored]) -> Vec<BucketFigure> {
    type Group = (&'static str, fn(usize) -> bool);
    let groups: [Group; 3] = [("1-d", |d| d == 1), ("2-5-d", |d| d > 1), ("all", |_| true)];
    let mut figures = vec![];
    for (group, belongs) in groups {
        for (index, contender) in CONTENDERS.into_iter().enumerate() {
            let errors = |database: &Restored, with_rows: bool| -> Vec<f64> {
                let counts = |bucket: &&RestoredBucket| {
                    let own = bucket.restored[index];
                    belongs(bucket.columns) && !own.is_nan() && (bucket.rows > 0 || (!with_rows && own >= SOME))
                };
                let error =
                    |bucket: &RestoredBucket| q_error(f64::from(bucket.restored[index]), f64::from(bucket.rows));
                sorted(database.buckets.iter().filter(counts).map(error).collect())
            };
            let ends = |errors: &[f64]| [percentile(errors, 50.0), percentile(errors, 95.0)];
            let each: Vec<Vec<f64>> = databases.iter().map(|database| errors(database, false)).collect();
            let pooled = sorted(each.iter().flatten().copied().collect());
            if pooled.is_empty() || (group != "1-d" && contender == CONTENDERS[1]) {
                continue;
            }
            let own: Vec<[f64; 2]> =
                each.iter().filter(|errors| !errors.is_empty()).map(|errors| ends(errors)).collect();
            let mean = |end: usize| own.iter().map(|ends| ends[end]).sum::<f64>() / own.len() as f64;
            let with_rows = sorted(databases.iter().flat_map(|database| errors(database, true)).collect());
            figures.push(BucketFigure {
                group,
                contender,
                buckets: pooled.len(),
                per_database: [mean(0), mean(1)],
                pooled: ends(&pooled),
                with_rows: ends(&with_rows),
            });
        }
    }
    figures
}
