//! Tuning on one database: the pretrained expert, moved towards the times of a few hundred executed queries.
//!
//! Of the way that training goes a share is kept, which queries of other folds choose, as in [`crate::train::tune`]. All
//! executions of a query are in one fold.

use burn::tensor::Device;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use relata_featurize::trace::Execution;

use super::{Outcome, Sample, offset, step_loss};
use crate::Result;
use crate::error::ExpertsError;
use crate::heads::ConformalOffset;
use crate::physical::PhysicalExpert;
use crate::train::optimizer::{AdamW, AdamWConfig, learning_rate};
use crate::train::physical::Batch;
use crate::train::tune::along;
use crate::tuned::QErrors;

/// Executions whose time, or memory, was measured; with fewer its intervals stay as they are.
const FEWEST_CALIBRATING: usize = 100;

/// Settings of tuning.
#[derive(Debug, Clone, PartialEq)]
pub struct PhysicalTuneConfig {
    /// Optimizer; its weight decay is the pull towards the pretrained weights.
    pub optimizer: AdamWConfig,
    /// Steps of each fold and of the whole.
    pub steps: u64,
    /// Plans of a step.
    pub batch: usize,
    /// Folds of the queries, each held out once; at least 2.
    pub folds: usize,
    /// Shares of the way from the pretrained to the tuned weights to choose from.
    pub shares: Vec<f32>,
    /// Seed of folds and steps.
    pub seed: u64,
}

impl Default for PhysicalTuneConfig {
    fn default() -> Self {
        let optimizer = AdamWConfig { learning_rate: 1e-3, weight_decay: 0.0, average: 0.98, ..AdamWConfig::default() };
        Self { optimizer, steps: 150, batch: 64, folds: 5, shares: vec![0.25, 0.5, 0.75, 1.0], seed: 1 }
    }
}

/// An expert tuned on one database.
#[derive(Debug, Clone)]
pub struct TunedPhysical {
    /// The expert.
    pub expert: PhysicalExpert,
    /// The share of the way that was chosen.
    pub share: f32,
    /// Executions that it was tuned on.
    pub executions: usize,
    /// Errors of the times by the expert as it was,
    pub before: QErrors,
    /// and by experts tuned on the other folds.
    pub after: QErrors,
}

impl TunedPhysical {
    /// Whether the tuned weights help: the mean q-error of held-out queries falls, and its 95th percentile does not rise.
    pub fn accepted(&self) -> bool {
        self.after.improves(&self.before)
    }
}

/// Tunes `expert` on executions of one database; `progress` is told the steps taken and their number.
///
/// # Errors
///
/// [`ExpertsError::Training`] with fewer queries than folds, and what the expert refuses.
pub fn tune(
    expert: &PhysicalExpert,
    executions: &[Execution],
    config: &PhysicalTuneConfig,
    mut progress: impl FnMut(u64, u64),
) -> Result<TunedPhysical> {
    let mut queries: Vec<u32> = executions.iter().map(|execution| execution.query).collect();
    queries.sort_unstable();
    queries.dedup();
    if config.folds < 2 || queries.len() < config.folds || config.shares.is_empty() {
        return Err(ExpertsError::Training(format!("{} executed queries are too few", queries.len())));
    }
    queries.shuffle(&mut StdRng::seed_from_u64(config.seed));
    let fold_of = |execution: &Execution| {
        queries.iter().position(|query| *query == execution.query).map_or(0, |place| place % config.folds)
    };
    let folds: Vec<usize> = executions.iter().map(fold_of).collect();
    let samples: Vec<[Sample; 2]> =
        executions.iter().map(|one| [false, true].map(|counted| sample(expert, one, counted))).collect();
    let start = expert.parameters();
    let total = config.steps * (config.folds as u64 + 1);
    let mut taken = 0;
    let mut step = || {
        taken += 1;
        progress(taken, total);
    };
    let moved = |way: &[f32], share: f32, conformal: &[_]| {
        PhysicalExpert::from_parameters(expert.config(), &along(&start, way, share), conformal)
    };
    let mut after: Vec<Vec<Outcome>> = vec![vec![]; config.shares.len()];
    for fold in 0..config.folds {
        let (held, rest): (Vec<usize>, Vec<usize>) = (0..executions.len()).partition(|&one| folds[one] == fold);
        let way = distance(expert, &start, &samples, &rest, config, &mut step)?;
        for (outcomes, &share) in after.iter_mut().zip(&config.shares) {
            let tuned = moved(&way, share, &[])?;
            for &one in &held {
                outcomes.push(Outcome::new(&tuned, &executions[one], false)?);
            }
        }
    }
    let figures =
        |outcomes: &[Outcome]| QErrors::of(&outcomes.iter().map(|one| one.time.abs() as f32).collect::<Vec<_>>());
    let best = (0..after.len()).min_by(|&a, &b| figures(&after[a]).mean.total_cmp(&figures(&after[b]).mean));
    let best = best.unwrap_or(0);
    let before = executions.iter().map(|one| Outcome::new(expert, one, false)).collect::<Result<Vec<_>>>()?;
    let all: Vec<usize> = (0..executions.len()).collect();
    let way = distance(expert, &start, &samples, &all, config, &mut step)?;
    let mut conformal = expert.conformal().to_vec();
    conformal.resize(2, ConformalOffset::default());
    let ends = after[best].iter().map(|one| one.ends);
    let memory_ends = after[best].iter().filter(|one| one.measured).map(|one| one.memory_ends);
    for (known, ends) in conformal.iter_mut().zip([ends.collect::<Vec<_>>(), memory_ends.collect()]) {
        if ends.len() >= FEWEST_CALIBRATING {
            *known = offset(expert.config(), ends.into_iter());
        }
    }
    Ok(TunedPhysical {
        expert: moved(&way, config.shares[best], &conformal)?,
        share: config.shares[best],
        executions: executions.len(),
        before: figures(&before),
        after: figures(&after[best]),
    })
}

/// Memory that nobody measured teaches nothing.
fn sample(expert: &PhysicalExpert, execution: &Execution, counted: bool) -> Sample {
    let mut sample = Sample::new(&expert.config().costs, execution, counted);
    if execution.peak_bytes == 0 {
        sample.memory_weight = 0.0;
    }
    sample
}

/// Where training on some of the executions moves the parameters.
fn distance(
    expert: &PhysicalExpert,
    start: &[f32],
    samples: &[[Sample; 2]],
    members: &[usize],
    config: &PhysicalTuneConfig,
    taken: &mut impl FnMut(),
) -> Result<Vec<f32>> {
    let device = Device::flex().autodiff();
    let mut random = StdRng::seed_from_u64(config.seed);
    let mut run = AdamW::new(&expert.config().parameters(), vec![0.0; start.len()]);
    let mut left: Vec<usize> = vec![];
    for step in 0..config.steps {
        if left.is_empty() {
            left = members.to_vec();
            left.shuffle(&mut random);
        }
        let batch = left.split_off(left.len().saturating_sub(config.batch.max(1)));
        let batch: Vec<&Sample> = batch.into_iter().map(|one| &samples[one][random.random_range(0..2)]).collect();
        let parameters = along(start, &run.parameters, 1.0);
        let (_, gradient) = step_loss(expert.config(), &parameters, &Batch::new(&batch), &device);
        run.update(&config.optimizer, learning_rate(config.optimizer.learning_rate, step, config.steps), &gradient);
        taken();
    }
    Ok(run.average)
}
