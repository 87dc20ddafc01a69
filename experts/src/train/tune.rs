//! Fine-tuning on one database: the pretrained experts, moved a little towards the labels of a few hundred executed queries.
//!
//! After the seed paper, which fine-tunes on 512 queries. Differences: training is short, and of the way it goes from the
//! pretrained weights only a share is kept (weight interpolation, Wortsman et al., CVPR 2022), because all of it fits the
//! noise of so few queries; a pull towards the pretrained weights in training (L2-SP, Li et al., ICML 2018), which the weight
//! decay of the optimizer is here, did no better. Every query is held out once: weights tuned on the other folds choose
//! the share, say whether tuning helps at all and calibrate the intervals (cross-conformal, Vovk, Annals of Mathematics and
//! Artificial Intelligence 2015). What is kept is tuned on all of them.

use burn::tensor::Device;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use relata_featurize::trace::DatabaseTrace;

use crate::Result;
use crate::data::TableEmbedding;
use crate::error::{ExpertsError, check_length};
use crate::heads::{ConformalOffset, JOIN_BUCKETS};
use crate::stack::ExpertStack;
use crate::train::batch::Batch;
use crate::train::calibrate::conformal_offsets;
use crate::train::data::{Chunk, embed, targets};
use crate::train::evaluate::Outcome;
use crate::train::model::TrainingStack;
use crate::train::optimizer::{AdamW, AdamWConfig, learning_rate};
use crate::tuned::QErrors;

/// Labels below which the intervals stay as they are.
const FEWEST_CALIBRATING: usize = 200;

/// Settings of fine-tuning.
#[derive(Debug, Clone, PartialEq)]
pub struct TuneConfig {
    /// Optimizer; its weight decay is the pull towards the pretrained weights.
    pub optimizer: AdamWConfig,
    /// Steps of each fold and of the whole.
    pub steps: u64,
    /// Graphs of a step.
    pub graphs: usize,
    /// Folds of the queries, each held out once; at least 2.
    pub folds: usize,
    /// Shares of the way from the pretrained to the tuned weights to choose from.
    pub shares: Vec<f32>,
    /// Seed of folds and steps.
    pub seed: u64,
}

impl Default for TuneConfig {
    fn default() -> Self {
        let optimizer = AdamWConfig { learning_rate: 1e-3, weight_decay: 0.0, average: 0.98, ..AdamWConfig::default() };
        Self { optimizer, steps: 50, graphs: 64, folds: 5, shares: vec![0.25, 0.5, 0.75], seed: 1 }
    }
}

/// The node of a graph whose estimate is the query's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// Index of the node.
    pub node: usize,
    /// `ln(max(1, rows))` that it cannot exceed.
    pub bound: f32,
    /// `ln(max(1, rows))` of the truth.
    pub label: f32,
    /// Whether the experts have no say in it: its analytical estimate is known to be right.
    pub exact: bool,
}

/// Experts tuned on one database.
#[derive(Debug, Clone)]
pub struct Tuned {
    /// The experts.
    pub stack: ExpertStack,
    /// The share of the way that was chosen.
    pub share: f32,
    /// Queries with an answer.
    pub answers: usize,
    /// Their errors by the experts as they were,
    pub before: QErrors,
    /// and by experts tuned on the other folds.
    pub after: QErrors,
}

/// Tunes `stack` on the graphs of one database; `answers` has an entry for each. `progress` is told the steps taken and their
/// number.
///
/// # Errors
///
/// [`ExpertsError::Training`] with fewer labelled graphs than folds or without an answer, and what the experts refuse.
pub fn tune(
    stack: &ExpertStack,
    trace: &DatabaseTrace,
    answers: &[Option<Answer>],
    config: &TuneConfig,
    mut progress: impl FnMut(u64, u64),
) -> Result<Tuned> {
    check_length("answers of the graphs", trace.graphs.len(), answers.len())?;
    let mut labelled: Vec<usize> =
        (0..answers.len()).filter(|&graph| !targets(&trace.graphs[graph]).is_empty()).collect();
    if config.folds < 2
        || labelled.len() < config.folds
        || config.shares.is_empty()
        || answers.iter().all(Option::is_none)
    {
        return Err(ExpertsError::Training(format!("{} labelled queries are too few", labelled.len())));
    }
    labelled.shuffle(&mut StdRng::seed_from_u64(config.seed));
    let tuner = Tuner::new(stack, trace, config)?;
    let total = config.steps * (config.folds as u64 + 1);
    let mut taken = 0;
    let mut step = || {
        taken += 1;
        progress(taken, total);
    };

    let errors = |tuner: &Tuner<'_>, stack: &ExpertStack, graph: usize| {
        answers[graph].as_ref().map(|answer| tuner.error(stack, graph, answer)).transpose()
    };
    let before = (0..answers.len()).map(|graph| errors(&tuner, stack, graph)).collect::<Result<Vec<Option<f32>>>>()?;
    let mut after: Vec<Vec<Option<f32>>> = vec![before.clone(); config.shares.len()];
    let mut outcomes: Vec<Vec<Outcome>> = vec![vec![]; config.shares.len()];
    for fold in 0..config.folds {
        let (held, rest): (Vec<_>, Vec<_>) =
            labelled.iter().enumerate().partition(|(place, _)| place % config.folds == fold);
        let [held, rest] = [held, rest].map(|part| part.into_iter().map(|(_, graph)| *graph).collect::<Vec<_>>());
        let distance = tuner.distance(&rest, &mut step)?;
        for (share, &part) in config.shares.iter().enumerate() {
            let tuned = tuner.moved(&distance, part, &[])?;
            for &graph in &held {
                after[share][graph] = errors(&tuner, &tuned, graph)?;
            }
            outcomes[share].extend(tuner.outcomes(&tuned, &held)?);
        }
    }
    let figures = |errors: &[Option<f32>]| QErrors::of(&errors.iter().flatten().copied().collect::<Vec<_>>());
    let mean = |share: usize| figures(&after[share]).mean;
    let best = (0..after.len()).min_by(|&a, &b| mean(a).total_cmp(&mean(b))).unwrap_or(0);
    let distance = tuner.distance(&labelled, &mut step)?;
    let conformal = calibrated(stack, &outcomes[best]);
    let stack = tuner.moved(&distance, config.shares[best], &conformal)?;
    let (before, after) = (figures(&before), figures(&after[best]));
    Ok(Tuned { stack, share: config.shares[best], answers: answers.iter().flatten().count(), before, after })
}

/// The offsets that calibrate held-out outcomes; those of `stack` where there are few.
fn calibrated(stack: &ExpertStack, outcomes: &[Outcome]) -> Vec<ConformalOffset> {
    if outcomes.len() < FEWEST_CALIBRATING {
        return stack.conformal().to_vec();
    }
    let [lower, _, upper] = stack.config().quantiles.map(f64::from);
    conformal_offsets(outcomes, 1.0 - (upper - lower))
}

/// The pretrained experts and what they are tuned on.
struct Tuner<'a> {
    stack: &'a ExpertStack,
    /// Its parameters.
    start: Vec<f32>,
    trace: &'a DatabaseTrace,
    /// Of the one database.
    tables: Vec<Vec<TableEmbedding>>,
    config: &'a TuneConfig,
    device: Device,
}

impl<'a> Tuner<'a> {
    fn new(stack: &'a ExpertStack, trace: &'a DatabaseTrace, config: &'a TuneConfig) -> Result<Self> {
        let tables = embed(stack.data(), std::slice::from_ref(trace))?;
        Ok(Self { stack, start: stack.parameters(), trace, tables, config, device: Device::flex().autodiff() })
    }

    /// Where training on `graphs` moves the parameters.
    fn distance(&self, graphs: &[usize], taken: &mut impl FnMut()) -> Result<Vec<f32>> {
        let config = self.config;
        let shapes = self.stack.config().parameters();
        let mut random = StdRng::seed_from_u64(config.seed);
        let mut run = AdamW::new(&shapes, vec![0.0; self.start.len()]);
        let mut left: Vec<usize> = vec![];
        for step in 0..config.steps {
            if left.is_empty() {
                left = graphs.to_vec();
                left.shuffle(&mut random);
            }
            let graphs = left.split_off(left.len().saturating_sub(config.graphs.max(1)));
            let chunks = [Chunk { database: 0, graphs }];
            let corpus = std::slice::from_ref(self.trace);
            let batch = Batch::new(corpus, &self.tables, &chunks, &[1.0; JOIN_BUCKETS], 0.0, &mut random)?;
            let parameters = along(&self.start, &run.parameters, 1.0);
            let (_, gradient) = TrainingStack::new(self.stack.config(), &parameters, &self.device).step(&batch);
            run.update(&config.optimizer, learning_rate(config.optimizer.learning_rate, step, config.steps), &gradient);
            taken();
        }
        Ok(run.average)
    }

    /// The experts a share of the way along.
    fn moved(&self, distance: &[f32], share: f32, conformal: &[ConformalOffset]) -> Result<ExpertStack> {
        let parameters = along(&self.start, distance, share);
        ExpertStack::from_parameters(self.stack.data().clone(), self.stack.config(), &parameters, conformal)
    }

    /// `ln` q-error of the answer of a graph.
    fn error(&self, stack: &ExpertStack, graph: usize, answer: &Answer) -> Result<f32> {
        let plan = &self.trace.graphs[graph].graph;
        let base = plan.nodes.get(answer.node).and_then(|node| node.base);
        let base = base.ok_or_else(|| ExpertsError::Graph("an answer of a node without an estimate".to_owned()))?;
        let quantiles =
            if answer.exact { None } else { stack.forward(plan, &self.tables[0])?.cardinalities[answer.node] };
        let median = quantiles.map_or(0.0, |quantiles| quantiles.median);
        Ok(((base + median).min(answer.bound).max(0.0) - answer.label).abs())
    }

    /// The estimates of every labelled node of `graphs`.
    fn outcomes(&self, stack: &ExpertStack, graphs: &[usize]) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        for &graph in graphs {
            let labelled = &self.trace.graphs[graph];
            let estimates = stack.forward(&labelled.graph, &self.tables[0])?;
            for target in targets(labelled) {
                let Some(quantiles) = estimates.cardinalities[target.node] else { continue };
                outcomes.push(Outcome::new(0, labelled.graph.nodes[target.node].kind, &target, quantiles));
            }
        }
        Ok(outcomes)
    }
}

/// `start` with a share of `distance`.
pub(in crate::train) fn along(start: &[f32], distance: &[f32], share: f32) -> Vec<f32> {
    start.iter().zip(distance).map(|(start, way)| start + share * way).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::train::tests::database;

    /// Experts and a database whose analytical estimates are off by a factor that a feature of their node says.
    fn wrong() -> (ExpertStack, DatabaseTrace, Vec<Option<Answer>>) {
        let trace = database(120, 3);
        let answer = |graph: &relata_featurize::trace::LabelledGraph| {
            let target = targets(graph).pop()?;
            Some(Answer { node: target.node, bound: f32::INFINITY, label: target.label, exact: false })
        };
        let answers = trace.graphs.iter().map(answer).collect();
        (fixture::stack(16, 1).unwrap(), trace, answers)
    }

    #[test]
    fn held_out_queries_get_better_and_intervals_cover_them() {
        let (stack, trace, answers) = wrong();
        // Random weights are far from right, and quickly better.
        let optimizer = AdamWConfig { learning_rate: 1e-2, average: 0.9, ..TuneConfig::default().optimizer };
        let config = TuneConfig { optimizer, steps: 50, graphs: 32, folds: 3, ..TuneConfig::default() };
        let mut steps = vec![];
        let tuned = tune(&stack, &trace, &answers, &config, |taken, all| steps.push((taken, all))).unwrap();
        assert_eq!((tuned.answers, steps.len(), steps.last()), (120, 200, Some(&(200, 200))));
        assert!(tuned.after.improves(&tuned.before), "{:?} {:?}", tuned.before, tuned.after);
        let tables = embed(stack.data(), std::slice::from_ref(&trace)).unwrap();
        let covered = trace.graphs.iter().flat_map(|graph| {
            let estimates = tuned.stack.forward(&graph.graph, &tables[0]).unwrap();
            let inside = move |target: crate::train::data::Target| {
                let quantiles = estimates.cardinalities[target.node].unwrap();
                Outcome::new(0, graph.graph.nodes[target.node].kind, &target, quantiles).covered()
            };
            targets(graph).into_iter().map(inside).collect::<Vec<_>>()
        });
        let covered: Vec<bool> = covered.collect();
        let share = covered.iter().filter(|covered| **covered).count() as f64 / covered.len() as f64;
        assert!(share > 0.85, "{share}");
    }

    #[test]
    fn too_few_queries_are_refused() {
        let (stack, mut trace, mut answers) = wrong();
        let config = TuneConfig { steps: 1, ..TuneConfig::default() };
        assert!(tune(&stack, &trace, &answers[1..], &config, |_, _| ()).is_err());
        let none = vec![None; answers.len()];
        assert!(tune(&stack, &trace, &none, &config, |_, _| ()).is_err());
        trace.graphs.truncate(4);
        answers.truncate(4);
        assert!(tune(&stack, &trace, &answers, &config, |_, _| ()).is_err());
    }
}
