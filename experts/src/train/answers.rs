//! Training of the answer head on the aggregates of traces, above experts that stay as they are: their states of the aggregated
//! nodes are computed once.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use relata_featurize::answer::AnswerForm;
use relata_featurize::trace::{self, DatabaseTrace};

use crate::Result;
use crate::answers::{AnswerConfig, AnswerHead};
use crate::config::Module;
use crate::error::ExpertsError;
use crate::heads::{CardinalityQuantiles, ConformalOffset};
use crate::stack::ExpertStack;
use crate::train::calibrate::conformal_offset;
use crate::train::curve::Point;
use crate::train::data::check_names;
use crate::train::export::write_files;
use crate::train::model::Models;
use crate::train::optimizer::{AdamW, AdamWConfig, initial_parameters, learning_rate};
use crate::weights::{AnswerManifest, sha256, to_bytes, verified};

/// Settings of a run.
#[derive(Debug, Clone)]
pub struct AnswerFitConfig {
    /// Optimizer.
    pub optimizer: AdamWConfig,
    /// Seed of the parameters and of what is drawn.
    pub seed: u64,
    /// Number of steps.
    pub steps: u64,
    /// Aggregates of a step.
    pub batch: usize,
    /// Steps between two evaluations.
    pub evaluate_every: u64,
    /// Width of the hidden layers.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
}

impl Default for AnswerFitConfig {
    fn default() -> Self {
        Self {
            optimizer: AdamWConfig { learning_rate: 1e-3, ..AdamWConfig::default() },
            seed: 1,
            steps: 6000,
            batch: 512,
            evaluate_every: 500,
            hidden: 64,
            layers: 4,
        }
    }
}

/// An aggregate as the head reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its form.
    pub form: AnswerForm,
    /// What [`AnswerHead::input`] makes of it.
    pub input: Vec<f32>,
    /// The residual of the exact answer.
    pub residual: f32,
}

/// The aggregates of one database.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// The database.
    pub database: String,
    /// Its aggregates.
    pub samples: Vec<Sample>,
}

/// The aggregates to train on and those held out.
#[derive(Debug, Clone, Default)]
pub struct AnswerCorpus {
    /// To train on.
    pub training: Vec<Samples>,
    /// To choose the step and to calibrate.
    pub held_out: Vec<Samples>,
}

impl AnswerCorpus {
    /// Reads the traces below `folders` through the experts; the databases in `held_out` are held out.
    ///
    /// # Errors
    ///
    /// When a trace cannot be read, nothing is left to train on, or no database has a name that is to be held out.
    pub fn read(stack: &ExpertStack, config: &AnswerConfig, folders: &[PathBuf], held_out: &[String]) -> Result<Self> {
        let mut corpus = Self::default();
        for folder in folders {
            for trace in trace::read_all(folder)? {
                let samples = samples(stack, config, &trace)?;
                let part = if held_out.contains(&trace.name) { &mut corpus.held_out } else { &mut corpus.training };
                part.extend((!samples.is_empty()).then_some(Samples { database: trace.name, samples }));
            }
        }
        let read = corpus.training.iter().chain(&corpus.held_out);
        check_names(held_out, read.map(|samples| samples.database.as_str()))?;
        if corpus.training.is_empty() {
            return Err(ExpertsError::Training("no aggregate is left to train on".to_owned()));
        }
        Ok(corpus)
    }
}

fn samples(stack: &ExpertStack, config: &AnswerConfig, trace: &DatabaseTrace) -> Result<Vec<Sample>> {
    let tables = trace.tables.iter().map(|table| stack.embed_table(table)).collect::<Result<Vec<_>>>()?;
    let mut samples = Vec::with_capacity(trace.answers.len());
    for answer in &trace.answers {
        let Some(graph) = trace.graphs.get(answer.query as usize) else { continue };
        let Ok(plan) = stack.forward(&graph.graph, &tables) else { continue };
        let columns: Option<Vec<&[f32]>> = answer
            .columns
            .iter()
            .map(|(table, column)| tables.get(*table as usize)?.column(*column as usize))
            .collect();
        let (Some(columns), true) = (columns, (answer.node as usize) < plan.states.nrows()) else { continue };
        let state = plan.states.row(answer.node as usize).to_vec();
        let input = AnswerHead::input(config, &state, columns.into_iter(), &answer.features);
        if input.iter().all(|value| value.is_finite()) && answer.residual.is_finite() {
            samples.push(Sample { form: answer.form, input, residual: answer.residual });
        }
    }
    Ok(samples)
}

/// The result of a run.
#[derive(Debug, Clone)]
pub struct FittedAnswers {
    /// The sizes.
    pub sizes: AnswerConfig,
    /// The seed of the run.
    pub seed: u64,
    /// The averaged parameters with the best score on the held-out databases.
    pub parameters: Vec<f32>,
    /// The step they are from.
    pub step: u64,
    /// Calibration of the intervals, per form.
    pub conformal: Vec<ConformalOffset>,
    /// Mean size of the residual on the held-out databases, per form: of the sample's answer and of the head's.
    pub errors: Vec<[f32; 2]>,
    /// Coverage of the intervals on databases that neither trained nor calibrated them.
    pub left_out_coverage: Option<f64>,
}

/// Fits the head; `report` sees every step.
///
/// # Errors
///
/// [`ExpertsError`] for an unusable configuration.
pub fn fit(
    corpus: &AnswerCorpus,
    sizes: &AnswerConfig,
    config: &AnswerFitConfig,
    device: &Device,
    quantiles: [f32; 3],
    mut report: impl FnMut(&Point),
) -> Result<FittedAnswers> {
    sizes.validate()?;
    let shapes = sizes.parameters();
    let mut run = AdamW::new(&shapes, initial_parameters(&shapes, &[Module::Answer], config.seed));
    let (mut best, mut best_score, mut best_step) = (run.average.clone(), f32::INFINITY, 0);
    for step in 0..config.steps {
        let mut random = StdRng::seed_from_u64(config.seed.rotate_left(32) ^ step);
        let batch: Vec<&Sample> = (0..config.batch)
            .map(|_| {
                // A database counts by the square root of its aggregates: by lot twice.
                let pick = |random: &mut StdRng| &corpus.training[random.random_range(0..corpus.training.len())];
                let (one, other) = (pick(&mut random), pick(&mut random));
                let database = if one.samples.len() < other.samples.len() { other } else { one };
                &database.samples[random.random_range(0..database.samples.len())]
            })
            .collect();
        let (loss, gradient) = step_loss(sizes, &run.parameters, &batch, quantiles, device);
        let rate = learning_rate(config.optimizer.learning_rate, step, config.steps);
        run.update(&config.optimizer, rate, &gradient);
        let mut point = Point { step: step + 1, loss, learning_rate: rate, held_out: None };
        if (step + 1) % config.evaluate_every.max(1) == 0 || step + 1 == config.steps {
            let head = AnswerHead::from_parameters(sizes, &run.average, &[])?;
            let score = pinball(&outcomes(&head, &corpus.held_out)?, quantiles);
            point.held_out = Some(score);
            if score < best_score || corpus.held_out.is_empty() {
                (best, best_score, best_step) = (run.average.clone(), score, step + 1);
            }
        }
        report(&point);
    }
    let head = AnswerHead::from_parameters(sizes, &best, &[])?;
    let outcomes = outcomes(&head, &corpus.held_out)?;
    let miss = f64::from(1.0 - (quantiles[2] - quantiles[0]));
    Ok(FittedAnswers {
        sizes: sizes.clone(),
        seed: config.seed,
        parameters: best,
        step: best_step,
        conformal: offsets(&outcomes, miss),
        errors: (0..AnswerForm::COUNT).map(|form| errors(&outcomes, form)).collect(),
        left_out_coverage: left_out_coverage(&outcomes, corpus.held_out.len(), miss),
    })
}

fn step_loss(
    sizes: &AnswerConfig,
    parameters: &[f32],
    batch: &[&Sample],
    quantiles: [f32; 3],
    device: &Device,
) -> (f32, Vec<f32>) {
    let models = Models::new(&[sizes.shape()], parameters, device);
    let input: Vec<f32> = batch.iter().flat_map(|sample| sample.input.iter().copied()).collect();
    let residuals: Vec<f32> = batch.iter().map(|sample| sample.residual).collect();
    let raw = models.mlp(Module::Answer).forward(models.constant(&input, [batch.len(), sizes.shape().input]));
    let residuals = models.constant(&residuals, [batch.len(), 1]);
    let loss = models.pinball(&raw, residuals, &quantiles).sum().div_scalar(batch.len() as f32);
    let gradient = models.gradients(loss.backward());
    (loss.into_scalar::<f32>(), gradient)
}

/// What the head says of one aggregate.
#[derive(Debug, Clone, Copy)]
struct Outcome {
    database: usize,
    form: AnswerForm,
    residual: f32,
    quantiles: CardinalityQuantiles,
}

fn outcomes(head: &AnswerHead, databases: &[Samples]) -> Result<Vec<Outcome>> {
    let mut outcomes = vec![];
    for (database, samples) in databases.iter().enumerate() {
        for Sample { form, input, residual } in &samples.samples {
            let quantiles = head.residual(*form, input)?;
            outcomes.push(Outcome { database, form: *form, residual: *residual, quantiles });
        }
    }
    Ok(outcomes)
}

/// The mean pinball loss.
fn pinball(outcomes: &[Outcome], shares: [f32; 3]) -> f32 {
    let loss = |outcome: &Outcome| -> f32 {
        let CardinalityQuantiles { lower, median, upper } = outcome.quantiles;
        let errors = [lower, median, upper].map(|quantile| outcome.residual - quantile);
        errors.iter().zip(shares).map(|(error, share)| error * share + (-error).max(0.0)).sum()
    };
    outcomes.iter().map(loss).sum::<f32>() / outcomes.len().max(1) as f32
}

fn errors(outcomes: &[Outcome], form: usize) -> [f32; 2] {
    let members: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.form as usize == form).collect();
    let mean = |error: fn(&Outcome) -> f32| {
        members.iter().map(|outcome| error(outcome)).sum::<f32>() / members.len().max(1) as f32
    };
    [mean(|outcome| outcome.residual.abs()), mean(|outcome| (outcome.residual - outcome.quantiles.median).abs())]
}

/// The offsets of every form (see [`conformal_offset`]).
fn offsets(outcomes: &[Outcome], miss: f64) -> Vec<ConformalOffset> {
    let of_form = |form: usize| {
        let members = outcomes.iter().filter(move |outcome| outcome.form as usize == form);
        let beyond = members.map(|one| [one.quantiles.lower - one.residual, one.residual - one.quantiles.upper]);
        conformal_offset(beyond, miss)
    };
    (0..AnswerForm::COUNT).map(of_form).collect()
}

/// Coverage on each database by the offsets of the others, on average.
fn left_out_coverage(outcomes: &[Outcome], databases: usize, miss: f64) -> Option<f64> {
    let mut coverages = vec![];
    for database in 0..databases {
        let (left_out, rest): (Vec<Outcome>, Vec<Outcome>) =
            outcomes.iter().partition(|outcome| outcome.database == database);
        if left_out.is_empty() || rest.is_empty() {
            continue;
        }
        let offsets = offsets(&rest, miss);
        let covered = left_out.iter().filter(|outcome| {
            let offset = offsets[outcome.form as usize];
            let (lower, upper) = (outcome.quantiles.lower - offset.lower, outcome.quantiles.upper + offset.upper);
            (lower - 1e-3..=upper + 1e-3).contains(&outcome.residual)
        });
        coverages.push(covered.count() as f64 / left_out.len() as f64);
    }
    (!coverages.is_empty()).then(|| coverages.iter().sum::<f64>() / coverages.len() as f64)
}

/// Writes `answers.safetensors` and `answers.json` to `folder` after reading them back.
///
/// # Errors
///
/// [`ExpertsError::Io`] if a file cannot be written; otherwise what [`AnswerHead::from_bytes`] refuses.
pub fn write(
    folder: &Path,
    stack: &ExpertStack,
    corpus: &AnswerCorpus,
    fitted: &FittedAnswers,
    command: String,
    commit: Option<String>,
) -> Result<AnswerManifest> {
    let weights = to_bytes(&fitted.sizes.parameters(), &fitted.parameters)?;
    let names = |samples: &[Samples]| samples.iter().map(|samples| samples.database.clone()).collect();
    let manifest = AnswerManifest {
        sha256: sha256(&weights),
        experts_sha256: stack.manifest().map_or_else(String::new, |manifest| manifest.sha256.clone()),
        config: fitted.sizes.clone(),
        seed: fitted.seed,
        steps: fitted.step,
        command,
        commit,
        databases: names(&corpus.training),
        held_out: names(&corpus.held_out),
        aggregates: corpus.training.iter().map(|samples| samples.samples.len()).sum(),
        conformal: fitted.conformal.clone(),
        errors: fitted.errors.clone(),
        left_out_coverage: fitted.left_out_coverage,
    };
    let json = serde_json::to_vec_pretty(&manifest)?;
    let read: AnswerManifest = serde_json::from_slice(&json)?;
    let parameters = verified(&weights, &read.sha256, &read.config.parameters())?;
    AnswerHead::from_parameters(&read.config, &parameters, &read.conformal)?;
    write_files(folder, [("answers.safetensors", weights), ("answers.json", json)])?;
    Ok(manifest)
}
