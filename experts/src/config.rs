//! Sizes of the experts, and the one list of their parameters that training and inference share.
//!
//! Every model is an MLP of the same form, so each expert is a list of [`MlpShape`]s. Both sides walk [`parameters`] of that
//! list: training exports its flat parameter vector in that order, inference reads it back by name. The data expert has
//! sizes and weights of its own, because it is pre-trained before the rest.

use relata_featurize::graph::NodeKind;
use relata_featurize::relative::{BINS, CELL_FEATURES, COLUMN_STATISTICS, TABLE_STATISTICS};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::data::cells::GATE_FEATURES;
use crate::data::context::{DISTANCES, PAIR_FEATURES};
use crate::data::histogram::BUCKET_FEATURES;
use crate::error::ExpertsError;

/// Number of numbers that the cardinality head returns: the median and the two distances to its quantiles.
pub const HEAD_OUTPUTS: usize = 3;

/// Sizes of the data expert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// D: width of the embeddings of tables and columns.
    pub width: usize,
    /// S: width of a slot, the embedding of one cell; at least [`BINS`].
    pub slot: usize,
    /// Width of the hidden layers of the MLPs that run once per cell.
    pub cell_hidden: usize,
    /// Layers of these MLPs.
    pub cell_layers: usize,
    /// Width of the hidden layers of the MLPs that run once per row, column, table or bucket.
    pub hidden: usize,
    /// Layers of these MLPs (4 in the seed paper).
    pub layers: usize,
    /// H: kernels of the row encoder.
    pub kernels: usize,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self { width: 64, slot: 24, cell_hidden: 48, cell_layers: 3, hidden: 64, layers: 4, kernels: 6 }
    }
}

/// Sizes of the experts above the data expert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpertConfig {
    /// Width of the embeddings of the data expert.
    pub embedding: usize,
    /// D: width of node states.
    pub width: usize,
    /// Width of the hidden layers of the MLPs of the logical expert.
    pub node_hidden: usize,
    /// Layers of each MLP of the logical expert (6 in the seed paper).
    pub node_layers: usize,
    /// Width of the hidden layers of the cardinality head.
    pub head_hidden: usize,
    /// Layers of the cardinality head.
    pub head_layers: usize,
    /// Quantiles that the cardinality head estimates: lower, median, upper.
    pub quantiles: [f32; 3],
}

impl Default for ExpertConfig {
    fn default() -> Self {
        Self::with_width(64)
    }
}

/// One MLP of an expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Module {
    /// Data expert: one cell with the statistics of its column.
    Cell,
    /// Data expert: the pooled cells of a column with its statistics.
    Column,
    /// Data expert: the pooled cells of a row.
    Row,
    /// Data expert: pooled rows, pooled columns and table statistics.
    Table,
    /// Data expert, restoring: a slot -> the distribution of its values.
    Factor,
    /// Data expert, restoring: a column embedding -> the distribution of its values.
    Marginal,
    /// Data expert, restoring: the correction of a bucket's rows.
    Bucket,
    /// Data expert, row encoder: what one column says about another.
    Relevance,
    /// Data expert, row encoder: which kernel to trust.
    Gate,
    /// Logical expert: a node of this kind.
    Node(NodeKind),
    /// Cardinality head.
    Cardinality,
    /// Answer head.
    Answer,
    /// Physical-plan expert: an operator.
    Operator,
    /// Physical-plan expert: the time of an operator.
    OperatorTime,
    /// Runtime head.
    Runtime,
    /// Memory head.
    Memory,
}

impl Module {
    /// Name in the weight file.
    pub const fn name(self) -> &'static str {
        match self {
            Module::Cell => "data.cell",
            Module::Column => "data.column",
            Module::Row => "data.row",
            Module::Table => "data.table",
            Module::Factor => "data.factor",
            Module::Marginal => "data.marginal",
            Module::Bucket => "data.bucket",
            Module::Relevance => "data.relevance",
            Module::Gate => "data.gate",
            Module::Node(NodeKind::Table) => "logical.table",
            Module::Node(NodeKind::Column) => "logical.column",
            Module::Node(NodeKind::Predicate) => "logical.predicate",
            Module::Node(NodeKind::Filter) => "logical.filter",
            Module::Node(NodeKind::Join) => "logical.join",
            Module::Node(NodeKind::Aggregate) => "logical.aggregate",
            Module::Node(NodeKind::Limit) => "logical.limit",
            Module::Cardinality => "heads.cardinality",
            Module::Answer => "heads.answer",
            Module::Operator => "physical.operator",
            Module::OperatorTime => "physical.time",
            Module::Runtime => "heads.runtime",
            Module::Memory => "heads.memory",
        }
    }
}

/// Shape of one MLP: a first layer with activation, residual layers of the hidden width, a linear last layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MlpShape {
    /// Which MLP.
    pub module: Module,
    /// F: length of the input.
    pub input: usize,
    /// Width of the hidden layers.
    pub hidden: usize,
    /// Length of the output.
    pub output: usize,
    /// Number of layers, at least 2.
    pub layers: usize,
}

impl MlpShape {
    /// Input and output length of layer `layer`.
    pub const fn layer(&self, layer: usize) -> (usize, usize) {
        let input = if layer == 0 { self.input } else { self.hidden };
        let output = if layer + 1 == self.layers { self.output } else { self.hidden };
        (input, output)
    }

    /// Number of its parameters.
    pub fn parameter_count(&self) -> usize {
        (0..self.layers).map(|layer| self.layer(layer)).map(|(input, output)| input * output + output).sum()
    }
}

/// One tensor of a weight file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterShape {
    /// Name in the weight file, `<module>.<layer>.<weight|bias>`.
    pub name: String,
    /// `[input, output]` of a weight, `[output]` of a bias.
    pub shape: Vec<usize>,
    /// Where it starts in the flat parameter vector.
    pub offset: usize,
    /// Whether it belongs to the last layer of its MLP.
    pub last: bool,
}

impl ParameterShape {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its part of the flat parameter vector.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.len()
    }
}

/// Every tensor of MLPs, in the order of their flat parameter vector.
pub fn parameters(shapes: &[MlpShape]) -> Vec<ParameterShape> {
    let mut parameters = Vec::new();
    let mut offset = 0;
    for shape in shapes {
        let (name, layers) = (shape.module.name(), shape.layers);
        for layer in 0..layers {
            let (input, output) = shape.layer(layer);
            for (part, shape) in [("weight", vec![input, output]), ("bias", vec![output])] {
                let count: usize = shape.iter().product();
                let (name, last) = (format!("{name}.{layer}.{part}"), layer + 1 == layers);
                parameters.push(ParameterShape { name, shape, offset, last });
                offset += count;
            }
        }
    }
    parameters
}

pub(crate) fn check_sizes(sizes: &[(&str, usize, std::ops::RangeInclusive<usize>)]) -> Result<()> {
    match sizes.iter().find(|(_, size, range)| !range.contains(size)) {
        Some((name, size, range)) => Err(ExpertsError::Config(format!("{name} is {size}, allowed are {range:?}"))),
        None => Ok(()),
    }
}

impl DataConfig {
    /// Checks that the sizes describe a model.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Config`] names the size that is out of range.
    pub fn validate(&self) -> Result<()> {
        check_sizes(&[
            ("width", self.width, 1..=1024),
            ("slot", self.slot, BINS..=1024),
            ("cell_hidden", self.cell_hidden, 1..=1024),
            ("cell_layers", self.cell_layers, 2..=16),
            ("hidden", self.hidden, 1..=1024),
            ("layers", self.layers, 2..=16),
            ("kernels", self.kernels, 1..=64),
        ])
    }

    /// Every MLP, in the order of the flat parameter vector.
    ///
    /// # Shapes
    ///
    /// | module | input | output |
    /// |---|---|---|
    /// | cell | cell features ++ column statistics | S |
    /// | column | hidden cells (mean over rows) ++ cell features of the whole column ++ column statistics | D |
    /// | row | hidden cells (mean over columns) | D |
    /// | table | D (mean over rows) ++ D (mean over columns) ++ table statistics | D |
    /// | factor | S | bins |
    /// | marginal | D | bins |
    /// | bucket | bucket features ++ D of the table ++ D (mean over its columns) | 1 |
    /// | relevance | pair features | distances x H |
    /// | gate | gate features x (H + 1) ++ 2 | H + 1 |
    pub fn shapes(&self) -> Vec<MlpShape> {
        let (width, cell) = (self.width, CELL_FEATURES + COLUMN_STATISTICS);
        let mlp = |module, input, hidden, output, layers| MlpShape { module, input, hidden, output, layers };
        vec![
            mlp(Module::Cell, cell, self.cell_hidden, self.slot, self.cell_layers),
            mlp(Module::Column, self.cell_hidden + cell, self.hidden, width, self.layers),
            mlp(Module::Row, self.cell_hidden, self.cell_hidden, width, self.layers),
            mlp(Module::Table, 2 * width + TABLE_STATISTICS, self.hidden, width, self.layers),
            mlp(Module::Factor, self.slot, self.cell_hidden, BINS, self.cell_layers),
            mlp(Module::Marginal, width, self.hidden, BINS, self.cell_layers),
            mlp(Module::Bucket, BUCKET_FEATURES + 2 * width, self.hidden, 1, self.layers),
            mlp(Module::Relevance, PAIR_FEATURES, self.hidden, DISTANCES * self.kernels, self.cell_layers),
            mlp(Module::Gate, GATE_FEATURES * (self.kernels + 1) + 2, self.hidden, self.kernels + 1, self.cell_layers),
        ]
    }

    /// Every tensor, in the order of the flat parameter vector.
    pub fn parameters(&self) -> Vec<ParameterShape> {
        parameters(&self.shapes())
    }

    /// Length of the flat parameter vector.
    pub fn parameter_count(&self) -> usize {
        self.shapes().iter().map(MlpShape::parameter_count).sum()
    }
}

impl ExpertConfig {
    /// The default stack of width `width`.
    pub fn with_width(width: usize) -> Self {
        Self {
            embedding: DataConfig::default().width,
            width,
            node_hidden: 2 * width,
            node_layers: 3,
            head_hidden: 64,
            head_layers: 3,
            quantiles: [0.05, 0.5, 0.95],
        }
    }

    /// Checks that the sizes describe a model.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Config`] names the size that is out of range.
    pub fn validate(&self) -> Result<()> {
        check_sizes(&[
            ("embedding", self.embedding, 1..=1024),
            ("width", self.width, 1..=1024),
            ("node_hidden", self.node_hidden, 1..=1024),
            ("node_layers", self.node_layers, 2..=16),
            ("head_hidden", self.head_hidden, 1..=1024),
            ("head_layers", self.head_layers, 2..=16),
        ])?;
        let [lower, median, upper] = self.quantiles;
        if !(0.0 < lower && lower < median && median < upper && upper < 1.0) {
            return Err(ExpertsError::Config(format!("quantiles {:?} do not increase in (0, 1)", self.quantiles)));
        }
        Ok(())
    }

    /// Every MLP, in the order of the flat parameter vector.
    ///
    /// # Shapes
    ///
    /// | module | input | output |
    /// |---|---|---|
    /// | node | features ++ embedding if embedded ++ D per role | D |
    /// | cardinality | D | 3 |
    pub fn shapes(&self) -> Vec<MlpShape> {
        let width = self.width;
        let node = |kind: NodeKind| MlpShape {
            module: Module::Node(kind),
            input: kind.features() + kind.roles() * width + usize::from(kind.embedded()) * self.embedding,
            hidden: self.node_hidden,
            output: width,
            layers: self.node_layers,
        };
        let head = MlpShape {
            module: Module::Cardinality,
            input: width,
            hidden: self.head_hidden,
            output: HEAD_OUTPUTS,
            layers: self.head_layers,
        };
        NodeKind::ALL.into_iter().map(node).chain([head]).collect()
    }

    /// Every tensor, in the order of the flat parameter vector.
    pub fn parameters(&self) -> Vec<ParameterShape> {
        parameters(&self.shapes())
    }

    /// Length of the flat parameter vector.
    pub fn parameter_count(&self) -> usize {
        self.shapes().iter().map(MlpShape::parameter_count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_contiguous_and_named_once() {
        let (data, experts) = (DataConfig::default(), ExpertConfig::default());
        let mut names = std::collections::BTreeSet::new();
        for (parameters, count) in
            [(data.parameters(), data.parameter_count()), (experts.parameters(), experts.parameter_count())]
        {
            let mut offset = 0;
            for parameter in &parameters {
                assert_eq!(parameter.offset, offset);
                offset = parameter.range().end;
                assert!(names.insert(parameter.name.clone()), "{} twice", parameter.name);
            }
            assert_eq!(offset, count);
        }
        assert!(data.parameter_count() * 4 <= 2_000_000, "the data expert is larger than 2 MB");
        assert!((data.parameter_count() + experts.parameter_count()) * 4 <= 5_000_000, "the experts exceed 5 MB");
    }

    #[test]
    fn refuses_impossible_sizes() {
        assert!(ExpertConfig::default().validate().is_ok() && DataConfig::default().validate().is_ok());
        assert!(DataConfig { slot: BINS - 1, ..DataConfig::default() }.validate().is_err());
        assert!(ExpertConfig { width: 0, ..ExpertConfig::default() }.validate().is_err());
        assert!(ExpertConfig { node_layers: 1, ..ExpertConfig::default() }.validate().is_err());
        assert!(ExpertConfig { quantiles: [0.5, 0.5, 0.9], ..ExpertConfig::default() }.validate().is_err());
        assert!(ExpertConfig { quantiles: [f32::NAN, 0.5, 0.9], ..ExpertConfig::default() }.validate().is_err());
    }
}
