//! Sizes of the in-context predictor and the list of its parameters.

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::config::{ParameterShape, check_sizes};
use crate::error::ExpertsError;
use crate::in_context::encoding::{CELL_FEATURES, LABEL_FEATURES, MOST_CLASSES, QUANTILES};

/// Numbers that the decoder returns: a logit per class and the quantiles of a number.
pub const OUTPUTS: usize = MOST_CLASSES + QUANTILES.len();

/// Sizes of the in-context predictor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InContextConfig {
    /// D: width of the state of a cell.
    pub width: usize,
    /// Heads of the queries of both attentions; keys and values have one.
    pub heads: usize,
    /// Layers.
    pub layers: usize,
    /// Width of the hidden layer of the MLPs.
    pub hidden: usize,
    /// Learned rows that every context has beside its own.
    pub thinking: usize,
}

impl Default for InContextConfig {
    fn default() -> Self {
        Self { width: 96, heads: 4, layers: 5, hidden: 192, thinking: 8 }
    }
}

/// One tensor of the predictor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tensor {
    /// Features of a cell -> its state. `[CELL_FEATURES, D]`
    Cell,
    /// Features of a label -> its state. `[LABEL_FEATURES, D]`
    Label,
    /// The cells of the thinking rows, the same in every column, then their labels. `[2 thinking, D]`
    Thinking,
    /// A tensor of a layer.
    Layer(usize, LayerTensor),
    /// State of a label -> hidden. `[D, 2 D]`, and its bias
    Decode,
    DecodeBias,
    /// Hidden -> outputs. `[2 D, OUTPUTS]`, and its bias
    Output,
    OutputBias,
}

/// One tensor of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerTensor {
    /// Queries, of all heads. `[D, D]`
    Query(Axis),
    /// Keys and values. `[D, 2 D / heads]`
    Key(Axis),
    /// What the heads say -> state. `[D, D]`
    Mix(Axis),
    /// `[D, hidden]`, its bias, `[hidden, D]`
    Inner,
    InnerBias,
    Outer,
}

/// Along which axis of the table cells attend to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Axis {
    /// Over the cells of a row.
    Features,
    /// Over the cells of a column, in the rows of the context.
    Rows,
}

impl Axis {
    pub(crate) const BOTH: [Self; 2] = [Self::Features, Self::Rows];

    fn name(self) -> &'static str {
        match self {
            Self::Features => "features",
            Self::Rows => "rows",
        }
    }
}

impl InContextConfig {
    /// Checks that the sizes describe a model.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Config`] names what is out of range.
    pub fn validate(&self) -> Result<()> {
        check_sizes(&[
            ("width", self.width, 1..=1024),
            ("heads", self.heads, 1..=64),
            ("layers", self.layers, 1..=64),
            ("hidden", self.hidden, 1..=4096),
            ("thinking", self.thinking, 1..=256),
        ])?;
        match self.width % self.heads {
            0 => Ok(()),
            _ => Err(ExpertsError::Config(format!("{} heads do not divide a width of {}", self.heads, self.width))),
        }
    }

    /// Width of a head.
    pub(crate) fn head(&self) -> usize {
        self.width / self.heads
    }

    /// Every tensor, in the order of the flat parameter vector.
    pub(crate) fn tensors(&self) -> Vec<Tensor> {
        let of_axis = |axis| [LayerTensor::Query(axis), LayerTensor::Key(axis), LayerTensor::Mix(axis)];
        let mlp = [LayerTensor::Inner, LayerTensor::InnerBias, LayerTensor::Outer];
        let layer = |layer| {
            let attentions = Axis::BOTH.into_iter().flat_map(of_axis);
            attentions.chain(mlp).map(move |tensor| Tensor::Layer(layer, tensor))
        };
        let last = [Tensor::Decode, Tensor::DecodeBias, Tensor::Output, Tensor::OutputBias];
        let first = [Tensor::Cell, Tensor::Label, Tensor::Thinking];
        first.into_iter().chain((0..self.layers).flat_map(layer)).chain(last).collect()
    }

    /// Name and shape of a tensor.
    fn describe(&self, tensor: Tensor) -> (String, Vec<usize>) {
        let width = self.width;
        match tensor {
            Tensor::Cell => ("cell.weight".to_owned(), vec![CELL_FEATURES, width]),
            Tensor::Label => ("label.weight".to_owned(), vec![LABEL_FEATURES, width]),
            Tensor::Thinking => ("thinking.weight".to_owned(), vec![2 * self.thinking, width]),
            Tensor::Decode => ("decode.0.weight".to_owned(), vec![width, 2 * width]),
            Tensor::DecodeBias => ("decode.0.bias".to_owned(), vec![2 * width]),
            Tensor::Output => ("decode.1.weight".to_owned(), vec![2 * width, OUTPUTS]),
            Tensor::OutputBias => ("decode.1.bias".to_owned(), vec![OUTPUTS]),
            Tensor::Layer(layer, tensor) => {
                let (name, shape) = match tensor {
                    LayerTensor::Query(axis) => (format!("{}.query.weight", axis.name()), vec![width, width]),
                    LayerTensor::Key(axis) => (format!("{}.key.weight", axis.name()), vec![width, 2 * self.head()]),
                    LayerTensor::Mix(axis) => (format!("{}.mix.weight", axis.name()), vec![width, width]),
                    LayerTensor::Inner => ("mlp.0.weight".to_owned(), vec![width, self.hidden]),
                    LayerTensor::InnerBias => ("mlp.0.bias".to_owned(), vec![self.hidden]),
                    LayerTensor::Outer => ("mlp.1.weight".to_owned(), vec![self.hidden, width]),
                };
                (format!("layer.{layer}.{name}"), shape)
            }
        }
    }

    /// Every tensor with its name, in the order of the flat parameter vector.
    pub fn parameters(&self) -> Vec<ParameterShape> {
        let mut offset = 0;
        let shape = |tensor| {
            let (name, shape) = self.describe(tensor);
            let parameter = ParameterShape { name, offset, last: tensor == Tensor::Output, shape };
            offset = parameter.range().end;
            parameter
        };
        self.tensors().into_iter().map(shape).collect()
    }

    /// Length of the flat parameter vector.
    pub fn parameter_count(&self) -> usize {
        self.parameters().last().map_or(0, |last| last.range().end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_contiguous_named_once_and_small() {
        let config = InContextConfig::default();
        let (parameters, mut offset) = (config.parameters(), 0);
        let mut names: Vec<&str> = parameters.iter().map(|parameter| parameter.name.as_str()).collect();
        for parameter in &parameters {
            assert_eq!(parameter.offset, offset);
            offset = parameter.range().end;
        }
        assert_eq!(offset, config.parameter_count());
        assert!(offset * 4 <= 8_000_000, "the weights exceed 8 MB");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), parameters.len());
        assert!(InContextConfig { heads: 5, ..config }.validate().is_err());
    }
}
