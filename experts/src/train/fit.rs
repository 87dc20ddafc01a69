//! The training loop: logical expert and head together, on the labels of whole plans, above a data expert that stays as it
//! was pre-trained ([`crate::train::pretrain`]), as in the seed paper (section 3.2). A step depends on the seed and its number only, so that a
//! resumed run goes on exactly as it would have.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use rand::SeedableRng;
use rand::rngs::StdRng;
use relata_featurize::graph::NodeKind;
use relata_featurize::trace::DatabaseTrace;
use serde::Serialize;

use crate::Result;
use crate::config::{ExpertConfig, Module};
use crate::data::DataExpert;
use crate::error::ExpertsError;
use crate::heads::ConformalOffset;
use crate::stack::ExpertStack;
use crate::train::batch::Batch;
use crate::train::calibrate::{calibrated, conformal_offsets, left_out_coverages};
use crate::train::checkpoint::Checkpoint;
use crate::train::curve::Point;
use crate::train::data::{Chunk, Corpus, embed, epoch};
use crate::train::evaluate::{self, Outcome};
use crate::train::model::TrainingStack;
use crate::train::optimizer::{AdamWConfig, initial_parameters, learning_rate};
use crate::weights::HeldOutErrors;

/// Settings of a run.
#[derive(Debug, Clone)]
pub struct FitConfig {
    /// The data expert.
    pub data: DataExpert,
    /// Sizes of the experts above it.
    pub experts: ExpertConfig,
    /// Optimizer.
    pub optimizer: AdamWConfig,
    /// Seed of the parameters and the batches.
    pub seed: u64,
    /// Number of steps.
    pub steps: u64,
    /// Graphs of one database in a batch.
    pub graphs: usize,
    /// Databases in a batch.
    pub databases: usize,
    /// Share of nodes whose embedding is withheld from a step: dropout of whole embeddings. 1 is an ablation of the data
    /// expert: the weights that would read an embedding are zero and stay so, whatever evaluation offers them.
    pub withheld: f32,
    /// Steps between two evaluations.
    pub evaluate_every: u64,
    /// Evaluations without an improvement after which the run stops.
    pub patience: u32,
    /// Where to keep a checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// Time between two checkpoints.
    pub checkpoint_every: Duration,
    /// Whether to go on from the checkpoint, if there is one.
    pub resume: bool,
    /// Commit of the source, if it is known.
    pub commit: Option<String>,
}

/// What tells a run from others, of which it cannot go on.
#[derive(Serialize)]
struct Identity<'a> {
    data: Option<&'a str>,
    experts: &'a ExpertConfig,
    optimizer: &'a AdamWConfig,
    batch: [usize; 2],
    withheld: f32,
    /// The databases that are trained on and those that are held out, each with its number of graphs.
    databases: [Vec<(&'a str, usize)>; 2],
}

impl<'a> Identity<'a> {
    fn new(config: &'a FitConfig, corpus: &'a Corpus) -> Self {
        let named = |trace: &'a DatabaseTrace| (trace.name.as_str(), trace.graphs.len());
        Self {
            data: config.data.manifest().map(|data| data.sha256.as_str()),
            experts: &config.experts,
            optimizer: &config.optimizer,
            batch: [config.graphs, config.databases],
            withheld: config.withheld,
            databases: [&corpus.training, &corpus.held_out].map(|databases| databases.iter().map(named).collect()),
        }
    }
}

impl FitConfig {
    /// The defaults above a data expert.
    pub fn new(data: DataExpert) -> Self {
        Self {
            experts: ExpertConfig { embedding: data.config().width, ..ExpertConfig::default() },
            data,
            optimizer: AdamWConfig::default(),
            seed: 1,
            steps: 2000,
            graphs: 64,
            databases: 4,
            withheld: 0.0,
            evaluate_every: 200,
            patience: 10,
            checkpoint: None,
            checkpoint_every: Duration::from_secs(120),
            resume: false,
            commit: None,
        }
    }
}

/// What a run reports while it goes on.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step was taken.
    Step(&'a Point),
    /// The averaged weights were evaluated on the held-out databases.
    Evaluation {
        /// The step.
        step: u64,
        /// See [`evaluate::score`].
        score: f32,
        /// By number of joins.
        errors: &'a [HeldOutErrors],
    },
}

/// The result of a run.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// The averaged parameters with the best score on the held-out databases.
    pub parameters: Vec<f32>,
    /// The step they are from.
    pub step: u64,
    /// What they say of the held-out databases, with intervals that are not calibrated.
    pub outcomes: Vec<Outcome>,
    /// Calibration of their intervals.
    pub conformal: Vec<ConformalOffset>,
    /// The databases that calibrated them.
    pub calibration: Vec<String>,
    /// Their errors on the held-out databases, with calibrated intervals.
    pub errors: Vec<HeldOutErrors>,
    /// Coverage of the 90% intervals on each calibrating database, when the others calibrate them.
    pub left_out: Vec<(String, f64)>,
    /// The learning curve.
    pub curve: Vec<Point>,
    /// Commit of the source with which the run began, if it was known.
    pub begun: Option<String>,
}

impl Fitted {
    /// Calibrates the intervals by the outcomes of databases that the weights behind them were not trained on.
    pub fn calibrate(&mut self, outcomes: &[Outcome], databases: Vec<String>, config: &ExpertConfig) {
        let [lower, _, upper] = config.quantiles.map(f64::from);
        let miss = 1.0 - (upper - lower);
        self.conformal = conformal_offsets(outcomes, miss);
        let left_out = left_out_coverages(outcomes, databases.len(), miss).into_iter();
        self.left_out = left_out.map(|(database, coverage)| (databases[database].clone(), coverage)).collect();
        self.errors = evaluate::errors(&calibrated(&self.outcomes, &self.conformal));
        self.calibration = databases;
    }

    /// The mean of [`Self::left_out`].
    pub fn left_out_coverage(&self) -> Option<f64> {
        let sum: f64 = self.left_out.iter().map(|(_, coverage)| coverage).sum();
        (!self.left_out.is_empty()).then(|| sum / self.left_out.len() as f64)
    }
}

/// Number of steps in which every graph is seen once.
pub fn steps_per_epoch(corpus: &Corpus, graphs: usize, databases: usize) -> u64 {
    let chunks: usize = corpus.training.iter().map(|database| database.graphs.len().div_ceil(graphs.max(1))).sum();
    chunks.div_ceil(databases.max(1)) as u64
}

/// Fits the stack to a corpus.
///
/// # Errors
///
/// [`crate::ExpertsError`] for an unusable configuration, corpus or checkpoint.
pub fn fit(corpus: &Corpus, config: &FitConfig, device: &Device, mut report: impl FnMut(Event<'_>)) -> Result<Fitted> {
    config.experts.validate()?;
    if !(0.0..=1.0).contains(&config.withheld) {
        return Err(ExpertsError::Config(format!("withheld is {}, allowed is [0, 1]", config.withheld)));
    }
    let identity = Identity::new(config, corpus);
    let mut state = start(config, &identity)?;
    let per_epoch = steps_per_epoch(corpus, config.graphs, config.databases).max(1);
    let bucket_weights = corpus.bucket_weights();
    let tables = embed(&config.data, &corpus.training)?;
    let mut curve = Vec::new();
    let mut batches: (u64, Vec<Vec<Chunk>>) = (u64::MAX, Vec::new());
    let mut saved = Instant::now();
    while state.run.step < config.steps && state.stale < config.patience {
        let step = state.run.step;
        if batches.0 != step / per_epoch {
            batches = (
                step / per_epoch,
                epoch(&corpus.training, config.graphs, config.databases, config.seed, step / per_epoch),
            );
        }
        let chunks = &batches.1[(step % per_epoch) as usize];
        let mut random = StdRng::seed_from_u64(config.seed.rotate_left(32) ^ step);
        let batch = Batch::new(&corpus.training, &tables, chunks, &bucket_weights, config.withheld, &mut random)?;
        let (loss, gradient) = TrainingStack::new(&config.experts, &state.run.parameters, device).step(&batch);
        let rate = learning_rate(config.optimizer.learning_rate, step, config.steps);
        state.run.update(&config.optimizer, rate, &gradient);
        let mut point = Point { step: step + 1, loss, learning_rate: rate, held_out: None };
        if (step + 1) % config.evaluate_every.max(1) == 0 || step + 1 == config.steps {
            point.held_out = evaluate(corpus, config, &mut state, &mut report)?;
        }
        report(Event::Step(&point));
        curve.push(point);
        if let Some(path) = config.checkpoint.as_ref().filter(|_| saved.elapsed() >= config.checkpoint_every) {
            state.write(path, &identity, config.seed)?;
            saved = Instant::now();
        }
    }
    if let Some(path) = config.checkpoint.as_ref().filter(|_| !curve.is_empty()) {
        state.write(path, &identity, config.seed)?;
    }
    finish(corpus, config, state, curve)
}

/// A fresh run, or the one of the checkpoint.
fn start(config: &FitConfig, identity: &Identity<'_>) -> Result<Checkpoint> {
    if let Some(path) = config.checkpoint.as_ref().filter(|path| config.resume && path.exists()) {
        return Checkpoint::read(path, identity, &config.experts.parameters(), config.seed);
    }
    let shapes = config.experts.parameters();
    let mut initial = initial_parameters(&shapes, &[Module::Cardinality], config.seed);
    if config.withheld >= 1.0 {
        forget_embeddings(&mut initial, &config.experts);
    }
    Ok(Checkpoint::begin(&shapes, initial, config.commit.clone()))
}

/// Zeroes the weights that read embeddings. Withheld embeddings give them no gradient, and decay leaves zero as it is.
fn forget_embeddings(parameters: &mut [f32], config: &ExpertConfig) {
    for kind in NodeKind::ALL.into_iter().filter(|kind| kind.embedded()) {
        let first = format!("{}.0.weight", Module::Node(kind).name());
        for weight in config.parameters().iter().filter(|shape| shape.name == first) {
            let (start, columns) = (weight.offset + kind.features() * weight.shape[1], weight.shape[1]);
            parameters[start..start + config.embedding * columns].fill(0.0);
        }
    }
}

/// Evaluates the averaged weights and keeps them if they are the best so far; without held-out databases the last ones are.
fn evaluate(
    corpus: &Corpus,
    config: &FitConfig,
    state: &mut Checkpoint,
    report: &mut impl FnMut(Event<'_>),
) -> Result<Option<f32>> {
    let step = state.run.step;
    if corpus.held_out.is_empty() {
        (state.best, state.best_step) = (state.run.average.clone(), step);
        return Ok(None);
    }
    let outcomes = outcomes(corpus, config, &state.run.average)?;
    let score = evaluate::score(&outcomes, corpus.held_out.len());
    report(Event::Evaluation { step, score, errors: &evaluate::errors(&outcomes) });
    if score < state.best_score {
        (state.best, state.best_score, state.best_step, state.stale) = (state.run.average.clone(), score, step, 0);
    } else {
        state.stale += 1;
    }
    Ok(Some(score))
}

fn outcomes(corpus: &Corpus, config: &FitConfig, parameters: &[f32]) -> Result<Vec<Outcome>> {
    let stack = ExpertStack::from_parameters(config.data.clone(), &config.experts, parameters, &[])?;
    evaluate::outcomes(&stack, &corpus.held_out)
}

/// Calibrates the best weights on the held-out databases.
fn finish(corpus: &Corpus, config: &FitConfig, state: Checkpoint, curve: Vec<Point>) -> Result<Fitted> {
    let outcomes = outcomes(corpus, config, &state.best)?;
    let mut fitted = Fitted {
        parameters: state.best,
        step: state.best_step,
        outcomes: outcomes.clone(),
        conformal: vec![],
        calibration: vec![],
        errors: vec![],
        left_out: vec![],
        curve,
        begun: state.begun,
    };
    fitted.calibrate(&outcomes, corpus.held_out.iter().map(|trace| trace.name.clone()).collect(), &config.experts);
    Ok(fitted)
}
