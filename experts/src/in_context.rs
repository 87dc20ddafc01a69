//! The in-context predictor: examples with their labels, and rows without -> a prediction of each row, without training.
//!
//! A prior-data fitted network (Müller et al., "Transformers can do Bayesian inference", ICLR 2022) for relational databases (Wang,
//! You, Shi and Zhang, "Relational in-context learning via synthetic pre-training with structural prior", arXiv 2603.03805,
//! 2026): a transformer that was trained on nothing but synthetic tasks reads the examples and the rows at once. Features of the
//! rows come from `relata_featurize::synthesis`. Unlike the paper's it predicts numbers as well, by their quantiles, and tells
//! up to ten classes apart at once.
//!
//! The walk: `ridge` adds what a linear model says of the labels, [`encoding`] reads columns and labels relative to the examples,
//! `network` is the transformer, most of whose time is spent in `attention`, and this page holds them together:
//! [`InContextPredictor::prefill`] encodes the examples once, [`Prefilled::predict`] reads rows against them.
//!
//! Predictions depend neither on the order of examples and rows nor on that of the features.

use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use crate::Result;
use crate::error::{ExpertsError, check_finite, check_length};
use crate::weights;

pub(crate) mod attention;
pub mod config;
pub mod encoding;
pub(crate) mod kernels;
pub(crate) mod network;
pub(crate) mod ridge;

pub use config::InContextConfig;
pub use encoding::{Column, Labels, MOST_CLASSES, QUANTILES};

use config::OUTPUTS;
use encoding::{CELL_FEATURES, ColumnEncoder, LABEL_FEATURES, LabelEncoder, check_columns};
use network::{Context, DecoderTape, LayerTape, Network, Places, exchanged};
use ridge::Ridge;

/// Most columns of a task.
pub const MOST_FEATURES: usize = 512;

/// Cells that a thread reads at a time, so that what it computes of them stays in its cache.
const CELLS_AT_A_TIME: usize = 1024;

/// The in-context predictor. Clones share the weights.
#[derive(Debug, Clone)]
pub struct InContextPredictor {
    config: InContextConfig,
    places: Places,
    flat: Arc<[f32]>,
}

/// What is predicted of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Prediction {
    /// The probability of each class.
    Classes(Vec<f32>),
    /// The [`QUANTILES`] of a number, ascending.
    Numbers([f32; QUANTILES.len()]),
}

impl Prediction {
    /// The most probable class; `None` for a number.
    pub fn class(&self) -> Option<usize> {
        match self {
            Self::Classes(shares) => (0..shares.len()).max_by(|&a, &b| shares[a].total_cmp(&shares[b]).then(b.cmp(&a))),
            Self::Numbers(_) => None,
        }
    }

    /// The expected number: the mean of its quantiles; `None` for a class.
    pub fn mean(&self) -> Option<f32> {
        match self {
            Self::Classes(_) => None,
            Self::Numbers(quantiles) => Some(quantiles.iter().sum::<f32>() / quantiles.len() as f32),
        }
    }
}

/// Examples that were read, ready for any number of predictions.
#[derive(Debug, Clone)]
pub struct Prefilled {
    predictor: InContextPredictor,
    ridge: Ridge,
    /// Of the features and of what the ridge regression says.
    columns: Vec<ColumnEncoder>,
    labels: LabelEncoder,
    /// Rows of the examples with the thinking rows.
    rows: usize,
    /// Keys and values of every layer. `[A, rows, 2 D / heads]`
    keys: Vec<Vec<f32>>,
}

impl InContextPredictor {
    /// The predictor with the weights that ship with this crate.
    ///
    /// # Errors
    ///
    /// See [`Self::from_bytes`]; a released crate has none.
    pub fn pretrained() -> Result<Self> {
        Self::from_bytes(weights::IN_CONTEXT_WEIGHTS, weights::IN_CONTEXT_MANIFEST)
    }

    /// The predictor of a weight file and its manifest.
    ///
    /// # Errors
    ///
    /// Whatever makes the weights unusable: damage, another checksum than the manifest's, tensors that do not fit the
    /// configuration or are not finite.
    pub fn from_bytes(weights: &[u8], manifest: &[u8]) -> Result<Self> {
        let (manifest, parameters) = weights::load_in_context(weights, manifest)?;
        Self::from_parameters(&manifest.config, parameters)
    }

    /// The predictor of a flat parameter vector, in the order of [`InContextConfig::parameters`].
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Config`], [`ExpertsError::Shape`] or [`ExpertsError::NotFinite`].
    pub fn from_parameters(config: &InContextConfig, flat: Vec<f32>) -> Result<Self> {
        config.validate()?;
        check_length("parameters", config.parameter_count(), flat.len())?;
        check_finite("the parameter vector", &flat)?;
        Ok(Self { config: config.clone(), places: Places::new(config), flat: flat.into() })
    }

    /// The sizes.
    pub fn config(&self) -> &InContextConfig {
        &self.config
    }

    /// The flat parameter vector.
    pub fn parameters(&self) -> &[f32] {
        &self.flat
    }

    pub(crate) fn network(&self) -> Network<'_> {
        Network { config: &self.config, places: &self.places, flat: &self.flat }
    }

    /// Reads examples: their features, one [`Column`] of R rows each, and their R labels.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Context`] where there is nothing to tell apart ([`Labels::validate`]), there are no features or more than
    /// [`MOST_FEATURES`]; [`ExpertsError::Shape`] where columns and labels differ in length.
    pub fn prefill(&self, features: &[Column], labels: &Labels) -> Result<Prefilled> {
        labels.validate()?;
        check_columns(features, labels.len())?;
        if features.is_empty() || features.len() > MOST_FEATURES {
            let reason = format!("{} features, allowed are 1 to {MOST_FEATURES}", features.len());
            return Err(ExpertsError::Context(reason));
        }
        let (ridge, predicted) = Ridge::fit(features, labels);
        let features = &[features, &predicted].concat()[..];
        let network = self.network();
        let columns = features.len() + 1;
        let rows = self.config.thinking + labels.len();
        let mut prefilled = Prefilled {
            predictor: self.clone(),
            ridge,
            columns: features.iter().map(ColumnEncoder::fit).collect(),
            labels: LabelEncoder::fit(labels),
            rows,
            keys: vec![],
        };
        // Rows are independent of each other but where they are read along their columns.
        let embed = |(): &mut (), rows| prefilled.embed(features, Some(labels), rows);
        let mut chunks = in_parallel(chunks_of(labels.len(), columns), &embed);
        chunks.push(network.thinking(columns));
        for layer in 0..self.config.layers {
            let before = prefilled.keys.last();
            let work = |tape: &mut LayerTape, mut x: Vec<f32>| {
                if let Some(key) = before {
                    network.attend_rows(layer - 1, &mut x, columns, Context { key, rows }, tape);
                }
                network.attend_features(layer, &mut x, columns, &mut tape.features);
                let key = network.context_keys(layer, &x);
                (x, key)
            };
            let keys: Vec<Vec<f32>>;
            (chunks, keys) = in_parallel(chunks, &work).into_iter().unzip();
            let active = if network.is_last(layer) { 1 } else { columns };
            prefilled.keys.push(exchanged(&keys, active, network.key_width()));
        }
        check_finite("the examples", prefilled.keys.last().map_or(&[], Vec::as_slice))?;
        Ok(prefilled)
    }
}

impl Prefilled {
    /// Predicts the label of every row of these features, which are those of the examples in the same order.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Shape`] for another number of features or rows, [`ExpertsError::Context`] for a feature of another
    /// kind, [`ExpertsError::NotFinite`] where a prediction is not a number.
    pub fn predict(&self, features: &[Column]) -> Result<Vec<Prediction>> {
        check_length("features", self.columns.len() - self.ridge.columns(), features.len())?;
        let rows = features.first().map_or(0, Column::len);
        check_columns(features, rows)?;
        if let Some(place) = features.iter().zip(&self.columns).position(|(column, encoder)| !encoder.reads(column)) {
            return Err(ExpertsError::Context(format!("feature {place} is of another kind than in the examples")));
        }
        let features = &[features, &self.ridge.predict(features)].concat()[..];
        let chunks = chunks_of(rows, features.len() + 1);
        let outputs = in_parallel(chunks, &|tape, rows| self.outputs(features, rows, tape)).concat();
        check_finite("a prediction", &outputs)?;
        Ok(outputs.chunks_exact(OUTPUTS).map(|output| self.prediction(output)).collect())
    }

    /// Bytes that the examples are kept in.
    pub fn memory(&self) -> usize {
        self.keys.iter().map(|key| size_of_val(key.as_slice())).sum()
    }

    /// `[R, OUTPUTS]`
    fn outputs(&self, features: &[Column], rows: Range<usize>, tape: &mut LayerTape) -> Vec<f32> {
        let network = self.predictor.network();
        let columns = features.len() + 1;
        let mut x = self.embed(features, None, rows);
        for (layer, key) in self.keys.iter().enumerate() {
            let active = if network.is_last(layer) { 1 } else { columns };
            network.attend_features(layer, &mut x, columns, &mut tape.features);
            network.attend_rows(layer, &mut x, active, Context { key, rows: self.rows }, tape);
        }
        network.decode(&x, &mut DecoderTape::default())
    }

    /// States of rows. `[R, C, D]`
    fn embed(&self, features: &[Column], labels: Option<&Labels>, rows: Range<usize>) -> Vec<f32> {
        let (cells, labels) = encode(&self.columns, &self.labels, features, labels, rows);
        self.predictor.network().embed(&cells, &labels)
    }

    fn prediction(&self, output: &[f32]) -> Prediction {
        let (logits, quantiles) = output.split_at(MOST_CLASSES);
        match self.labels {
            LabelEncoder::Classes(count) => {
                let mut shares = logits[..count].to_vec();
                kernels::softmax(&mut shares, count, 1.0);
                Prediction::Classes(shares)
            }
            LabelEncoder::Numbers(scale) => {
                let mut numbers = [0.0; QUANTILES.len()];
                numbers.iter_mut().zip(quantiles).for_each(|(number, squashed)| *number = scale.restore(*squashed));
                numbers.sort_unstable_by(f32::total_cmp);
                Prediction::Numbers(numbers)
            }
        }
    }
}

/// Features of the cells and labels of some rows: `[R F, CELL_FEATURES]` and `[R, LABEL_FEATURES]`. Rows without labels are
/// those that are asked for.
pub(crate) fn encode(
    columns: &[ColumnEncoder],
    encoder: &LabelEncoder,
    features: &[Column],
    labels: Option<&Labels>,
    rows: Range<usize>,
) -> (Vec<f32>, Vec<f32>) {
    let mut cells = vec![0.0; rows.len() * columns.len() * CELL_FEATURES];
    let mut of_labels = vec![0.0; rows.len() * LABEL_FEATURES];
    let each_row =
        cells.chunks_exact_mut(columns.len() * CELL_FEATURES).zip(of_labels.chunks_exact_mut(LABEL_FEATURES));
    for (row, (cells, label)) in rows.zip(each_row) {
        for ((encoder, column), out) in columns.iter().zip(features).zip(cells.chunks_exact_mut(CELL_FEATURES)) {
            encoder.encode(column, row, out);
        }
        encoder.encode(labels.map(|labels| (labels, row)), label);
    }
    (cells, of_labels)
}

/// The rows that a thread reads at a time, when all threads get about as many.
fn chunks_of(rows: usize, columns: usize) -> Vec<Range<usize>> {
    let turns = (rows * columns).div_ceil(threads() * CELLS_AT_A_TIME).max(1);
    let chunk = rows.div_ceil(threads() * turns).max(1);
    (0..rows).step_by(chunk).map(|from| from..(from + chunk).min(rows)).collect()
}

/// Threads that a prediction uses.
fn threads() -> usize {
    // Asking reads files on some systems.
    static THREADS: LazyLock<usize> =
        LazyLock::new(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    *THREADS
}

/// Applies `work` to every input, on as many threads as the machine has, and returns the results in order. What a thread
/// works with goes from one input to the next.
pub(crate) fn in_parallel<S: Default, T: Send, U: Send>(
    inputs: Vec<T>,
    work: &(impl Fn(&mut S, T) -> U + Sync),
) -> Vec<U> {
    if inputs.len() < 2 {
        return inputs.into_iter().map(|input| work(&mut S::default(), input)).collect();
    }
    let count = threads().min(inputs.len());
    let queue = Mutex::new(inputs.into_iter().enumerate());
    // Whoever is free takes the next one: they differ in length.
    let take = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let run = || {
        let mut own = S::default();
        std::iter::from_fn(&take).map(|(place, input)| (place, work(&mut own, input))).collect::<Vec<_>>()
    };
    let mut results = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(run)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Vec<(usize, U)>>| match thread.join() {
            Ok(results) => results,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        threads.into_iter().flat_map(join).collect::<Vec<_>>()
    });
    results.sort_by_key(|(place, _)| *place);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests;
