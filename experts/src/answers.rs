//! The answer head: approximate answers where a sample alone says too little.
//!
//! It reads the state of the node whose rows are aggregated, the embeddings of the aggregated columns and what the sample
//! says, and returns a residual over the sample's answer with its 90% interval; an untrained head repeats the sample. Its
//! weights are trained after the experts below it, which stay as they are.

use relata_featurize::answer::{ANSWER_FEATURES, AnswerForm};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::config::{HEAD_OUTPUTS, MlpShape, Module, ParameterShape, parameters};
use crate::error::{ExpertsError, check_finite, check_length};
use crate::heads::{CardinalityHead, CardinalityQuantiles, ConformalOffset};
use crate::mlp::Mlp;
use crate::weights::{self, AnswerManifest};

/// Sizes of the answer head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerConfig {
    /// Width of the embeddings of the data expert.
    pub embedding: usize,
    /// Width of the states of the logical expert.
    pub width: usize,
    /// Width of the hidden layers.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
}

impl AnswerConfig {
    /// Checks that the sizes describe a model.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Config`] if one is out of range.
    pub fn validate(&self) -> Result<()> {
        let sizes = [self.embedding, self.width, self.hidden];
        if sizes.iter().any(|size| !(1..=1024).contains(size)) || !(2..=16).contains(&self.layers) {
            return Err(ExpertsError::Config(format!("{self:?} is no answer head")));
        }
        Ok(())
    }

    /// The one MLP: state ++ embedding (mean of the columns') ++ [`ANSWER_FEATURES`] -> 3.
    pub fn shape(&self) -> MlpShape {
        MlpShape {
            module: Module::Answer,
            input: self.width + self.embedding + ANSWER_FEATURES,
            hidden: self.hidden,
            output: HEAD_OUTPUTS,
            layers: self.layers,
        }
    }

    /// Every tensor.
    pub fn parameters(&self) -> Vec<ParameterShape> {
        parameters(&[self.shape()])
    }
}

/// The answer head.
#[derive(Debug, Clone)]
pub struct AnswerHead {
    config: AnswerConfig,
    mlp: Mlp,
    conformal: [ConformalOffset; AnswerForm::COUNT],
}

impl AnswerHead {
    /// The head with the weights that ship with this crate.
    ///
    /// # Errors
    ///
    /// See [`Self::from_bytes`]; a released crate has none.
    pub fn pretrained() -> Result<Self> {
        Self::from_bytes(weights::ANSWER_WEIGHTS, weights::ANSWER_MANIFEST, weights::PRETRAINED_MANIFEST)
    }

    /// The head of a weight file and its manifest, above the experts of another manifest.
    ///
    /// # Errors
    ///
    /// Whatever makes the weights unusable: damage, another checksum than the manifest's, training above other experts,
    /// tensors that do not fit the configuration or are not finite.
    pub fn from_bytes(weights: &[u8], manifest: &[u8], experts: &[u8]) -> Result<Self> {
        let (manifest, parameters): (AnswerManifest, _) = weights::load_answers(weights, manifest, experts)?;
        Self::from_parameters(&manifest.config, &parameters, &manifest.conformal)
    }

    /// The head of a flat parameter vector.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Config`], [`ExpertsError::Shape`] or [`ExpertsError::NotFinite`].
    pub fn from_parameters(config: &AnswerConfig, parameters: &[f32], conformal: &[ConformalOffset]) -> Result<Self> {
        config.validate()?;
        let shape = config.shape();
        check_length("parameters", shape.parameter_count(), parameters.len())?;
        check_finite("the parameter vector", parameters)?;
        let offset = |form: usize| conformal.get(form).copied().unwrap_or_default();
        Ok(Self {
            config: config.clone(),
            mlp: Mlp::of(Module::Answer, &[shape], parameters),
            conformal: std::array::from_fn(offset),
        })
    }

    /// The residual of an answer: `input` as [`Self::input`] makes it.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Shape`] or [`ExpertsError::NotFinite`].
    pub fn residual(&self, form: AnswerForm, input: &[f32]) -> Result<CardinalityQuantiles> {
        check_length("input of the answer head", self.config.shape().input, input.len())?;
        check_finite("the input of the answer head", input)?;
        let mut raw = [0.0; HEAD_OUTPUTS];
        self.mlp.forward(input, &mut raw);
        check_finite("an answer", &raw)?;
        let quantiles = CardinalityHead::uncalibrated(raw);
        let offset = self.conformal[form as usize];
        Ok(CardinalityQuantiles {
            lower: (quantiles.lower - offset.lower).min(quantiles.median),
            median: quantiles.median,
            upper: (quantiles.upper + offset.upper).max(quantiles.median),
        })
    }

    /// What the head reads: the state of the node whose rows are aggregated, the mean of the embeddings of the columns, and
    /// what the sample says.
    ///
    /// # Shapes
    ///
    /// `state: [D]`, `columns: [C][D of the data expert]`, `features: [ANSWER_FEATURES]` -> `[input]`
    pub fn input<'a>(
        config: &AnswerConfig,
        state: &[f32],
        columns: impl Iterator<Item = &'a [f32]>,
        features: &[f32],
    ) -> Vec<f32> {
        let mut input = Vec::with_capacity(config.shape().input);
        input.extend_from_slice(state);
        let start = input.len();
        input.resize(start + config.embedding, 0.0);
        let mut count = 0.0;
        for column in columns {
            count += 1.0;
            input[start..].iter_mut().zip(column).for_each(|(sum, value)| *sum += value);
        }
        if count > 1.0 {
            input[start..].iter_mut().for_each(|sum| *sum /= count);
        }
        input.extend_from_slice(features);
        input
    }

    /// The sizes.
    pub fn config(&self) -> &AnswerConfig {
        &self.config
    }
}
