//! Pre-training of the data expert: restoring histograms from column embeddings and masked cells from row embeddings, as
//! in the seed paper (section 3.2), on tables of the synthetic prior and of real databases.
//!
//! [`tasks`] reads tables, [`batch`] draws steps, [`model`] is the forward pass with gradients and the two losses, [`fit`] the
//! loop, [`mod@evaluate`] measures on held-out databases through the inference path. The experts above are trained later, on
//! labelled plans ([`crate::train::fit`]).

pub mod batch;
pub mod evaluate;
pub mod model;
pub mod tasks;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use relata_featurize::graph::LAYOUT_VERSION;
use serde::Serialize;

use crate::Result;
use crate::config::{DataConfig, Module};
use crate::data::DataExpert;
use crate::train::checkpoint::Checkpoint;
use crate::train::curve::Point;
use crate::train::export::write_files;
use crate::train::optimizer::{AdamWConfig, initial_parameters, learning_rate};
use crate::weights::{DataManifest, RestorationErrors, sha256, to_bytes};
use batch::{BucketBatch, CellBatch, TableBatch};
use model::TrainingDataExpert;
use tasks::{PreparedTable, Tables};

/// Modules that correct something, and start close to zero.
const QUIET: [Module; 5] = [Module::Cell, Module::Factor, Module::Bucket, Module::Relevance, Module::Gate];

/// Settings of a run.
#[derive(Debug, Clone)]
pub struct PretrainConfig {
    /// Sizes.
    pub data: DataConfig,
    /// Optimizer.
    pub optimizer: AdamWConfig,
    /// Seed of the parameters and of what is drawn.
    pub seed: u64,
    /// Number of steps.
    pub steps: u64,
    /// Tables of a step.
    pub tables: usize,
    /// Histograms of a table.
    pub histograms: usize,
    /// Buckets of a histogram with rows, and as many without.
    pub buckets: usize,
    /// Masked columns of a step.
    pub columns: usize,
    /// Rows of a masked column, and rows among which they are encoded.
    pub masked: (usize, usize),
    /// Visible columns at most.
    pub visible: usize,
    /// Steps between two evaluations.
    pub evaluate_every: u64,
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
    data: &'a DataConfig,
    optimizer: &'a AdamWConfig,
    /// What a step reads.
    step: [usize; 7],
    /// The databases that are trained on and those that are held out, and the tables of both.
    databases: [&'a [String]; 2],
    tables: [usize; 2],
}

impl<'a> Identity<'a> {
    fn new(config: &'a PretrainConfig, tables: &'a Tables) -> Self {
        let PretrainConfig { tables: drawn, histograms, buckets, columns, masked, visible, .. } = config;
        Self {
            data: &config.data,
            optimizer: &config.optimizer,
            step: [*drawn, *histograms, *buckets, *columns, masked.0, masked.1, *visible],
            databases: [&tables.databases, &tables.held_out_databases],
            tables: [tables.training.iter().map(Vec::len).sum(), tables.held_out.len()],
        }
    }
}

impl Default for PretrainConfig {
    fn default() -> Self {
        Self {
            data: DataConfig::default(),
            optimizer: AdamWConfig::default(),
            seed: 1,
            steps: 8000,
            tables: 6,
            histograms: 8,
            buckets: 16,
            columns: 3,
            masked: (24, 384),
            visible: 10,
            evaluate_every: 500,
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
    /// A step was taken, with these losses of buckets and cells.
    Step(&'a Point, [f32; 2]),
    /// The averaged weights were evaluated on the held-out databases.
    Evaluation(u64, &'a RestorationErrors),
}

/// The result of a run.
#[derive(Debug, Clone)]
pub struct Pretrained {
    /// The averaged parameters with the best score on the held-out databases.
    pub parameters: Vec<f32>,
    /// The step they are from.
    pub step: u64,
    /// Their errors on the held-out databases.
    pub restored: RestorationErrors,
    /// Commit of the source with which the run began, if it was known.
    pub begun: Option<String>,
}

/// Pre-trains the data expert.
///
/// A step depends on the seed and its number only, so that a resumed run goes on exactly as it would have.
///
/// # Errors
///
/// [`crate::ExpertsError`] for an unusable configuration or checkpoint.
pub fn fit(
    tables: &Tables,
    config: &PretrainConfig,
    device: &Device,
    mut report: impl FnMut(Event<'_>),
) -> Result<Pretrained> {
    config.data.validate()?;
    let shapes = config.data.parameters();
    let identity = Identity::new(config, tables);
    let mut state = match config.checkpoint.as_ref().filter(|path| config.resume && path.exists()) {
        Some(path) => Checkpoint::read(path, &identity, &shapes, config.seed)?,
        None => Checkpoint::begin(&shapes, initial_parameters(&shapes, &QUIET, config.seed), config.commit.clone()),
    };
    let mut saved = Instant::now();
    while state.run.step < config.steps {
        let step = state.run.step;
        let (batch, buckets, cells) = draw(tables, config, step);
        let expert = TrainingDataExpert::new(&config.data, &state.run.parameters, device);
        let (bucket_loss, cell_loss, gradient) = expert.step(&batch, &buckets, &cells);
        let rate = learning_rate(config.optimizer.learning_rate, step, config.steps);
        state.run.update(&config.optimizer, rate, &gradient);
        let loss = bucket_loss + cell_loss;
        let mut point = Point { step: step + 1, loss, learning_rate: rate, held_out: None };
        if (step + 1) % config.evaluate_every.max(1) == 0 || step + 1 == config.steps {
            let errors = evaluated(tables, config, &state.run.average)?;
            report(Event::Evaluation(step + 1, &errors));
            let score = evaluate::score(&errors);
            point.held_out = Some(score);
            if score < state.best_score || tables.held_out.is_empty() {
                (state.best, state.best_score, state.best_step) = (state.run.average.clone(), score, step + 1);
            }
        }
        report(Event::Step(&point, [bucket_loss, cell_loss]));
        if let Some(path) = config.checkpoint.as_ref().filter(|_| saved.elapsed() >= config.checkpoint_every) {
            state.write(path, &identity, config.seed)?;
            saved = Instant::now();
        }
    }
    if let Some(path) = &config.checkpoint {
        state.write(path, &identity, config.seed)?;
    }
    let restored = evaluated(tables, config, &state.best)?;
    Ok(Pretrained { parameters: state.best, step: state.best_step, restored, begun: state.begun })
}

fn evaluated(tables: &Tables, config: &PretrainConfig, parameters: &[f32]) -> Result<RestorationErrors> {
    evaluate::evaluate(&DataExpert::from_parameters(&config.data, parameters)?, &tables.held_out)
}

/// What step `step` sees.
fn draw(tables: &Tables, config: &PretrainConfig, step: u64) -> (TableBatch, BucketBatch, Vec<CellBatch>) {
    let mut random = StdRng::seed_from_u64(config.seed.rotate_left(32) ^ step);
    let pick = |random: &mut StdRng| -> &PreparedTable {
        let folder = &tables.training[random.random_range(0..tables.training.len())];
        &folder[random.random_range(0..folder.len())]
    };
    let drawn: Vec<&PreparedTable> = (0..config.tables).map(|_| pick(&mut random)).collect();
    let batch = TableBatch::new(&drawn.iter().map(|table| &table.task.input).collect::<Vec<_>>());
    let buckets = BucketBatch::draw(&drawn, config.histograms, config.buckets, &mut random);
    let mut cells = vec![];
    // Tables with too few rows or columns give none.
    for _ in 0..10 * config.columns {
        let table = pick(&mut random);
        let (masked, rows) = config.masked;
        cells.extend(CellBatch::draw(table, masked, rows, config.visible, &mut random));
        if cells.len() == config.columns {
            break;
        }
    }
    (batch, buckets, cells)
}

/// Writes `data.safetensors` and `data.json` to `folder` after reading them back.
///
/// # Errors
///
/// [`crate::ExpertsError::Io`] if a file cannot be written; otherwise what [`DataExpert::from_bytes`] refuses.
pub fn write(
    folder: &Path,
    tables: &Tables,
    config: &PretrainConfig,
    pretrained: &Pretrained,
    command: String,
) -> Result<DataManifest> {
    let weights = to_bytes(&config.data.parameters(), &pretrained.parameters)?;
    let manifest = DataManifest {
        sha256: sha256(&weights),
        layout_version: LAYOUT_VERSION,
        config: config.data.clone(),
        seed: config.seed,
        steps: pretrained.step,
        command,
        commit: config.commit.clone(),
        begun: pretrained.begun.clone(),
        databases: tables.databases.clone(),
        held_out: tables.held_out_databases.clone(),
        tables: tables.training.iter().map(Vec::len).sum(),
        restored: pretrained.restored,
    };
    let json = serde_json::to_vec_pretty(&manifest)?;
    DataExpert::from_bytes(&weights, &json)?;
    write_files(folder, [("data.safetensors", weights), ("data.json", json)])?;
    Ok(manifest)
}
