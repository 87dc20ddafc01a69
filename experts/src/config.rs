//! Sizes of the stack, and the one list of its parameters that training and inference share.
//!
//! Every model of the stack is an MLP of the same form, so the whole stack is a list of [`MlpShape`]s. Both sides walk
//! [`ExpertConfig::parameters`]: training exports its flat parameter vector in that order, inference reads it back by name.

use relata_featurize::graph::NodeKind;
use relata_featurize::relative::{CELL_FEATURES, COLUMN_STATISTICS, TABLE_STATISTICS};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::error::ExpertsError;

/// Number of numbers that the cardinality head returns: the median and the two distances to its quantiles.
pub const HEAD_OUTPUTS: usize = 3;

/// Sizes of the stack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpertConfig {
    /// D: width of embeddings and node states.
    pub width: usize,
    /// Width of the hidden layers of the data expert's cell and row MLPs, which run once per cell and row.
    pub cell_hidden: usize,
    /// Width of the hidden layers of the data expert's column and table MLPs.
    pub data_hidden: usize,
    /// Layers of each MLP of the data expert (4 in the seed paper).
    pub data_layers: usize,
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

/// One MLP of the stack.
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
    /// Logical expert: a node of this kind.
    Node(NodeKind),
    /// Cardinality head.
    Cardinality,
}

impl Module {
    /// Name in the weight file.
    pub const fn name(self) -> &'static str {
        match self {
            Module::Cell => "data.cell",
            Module::Column => "data.column",
            Module::Row => "data.row",
            Module::Table => "data.table",
            Module::Node(NodeKind::Table) => "logical.table",
            Module::Node(NodeKind::Column) => "logical.column",
            Module::Node(NodeKind::Predicate) => "logical.predicate",
            Module::Node(NodeKind::Filter) => "logical.filter",
            Module::Node(NodeKind::Join) => "logical.join",
            Module::Node(NodeKind::Aggregate) => "logical.aggregate",
            Module::Node(NodeKind::Limit) => "logical.limit",
            Module::Cardinality => "heads.cardinality",
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
}

/// One tensor of the weight file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterShape {
    /// Name in the weight file, `<module>.<layer>.<weight|bias>`.
    pub name: String,
    /// `[input, output]` of a weight, `[output]` of a bias.
    pub shape: Vec<usize>,
    /// Where it starts in the flat parameter vector.
    pub offset: usize,
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

impl ExpertConfig {
    /// The default stack of width `width`.
    pub fn with_width(width: usize) -> Self {
        Self {
            width,
            cell_hidden: 32,
            data_hidden: 64,
            data_layers: 4,
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
        let sizes = [
            ("width", self.width, 1..=1024),
            ("cell_hidden", self.cell_hidden, 1..=1024),
            ("data_hidden", self.data_hidden, 1..=1024),
            ("data_layers", self.data_layers, 2..=16),
            ("node_hidden", self.node_hidden, 1..=1024),
            ("node_layers", self.node_layers, 2..=16),
            ("head_hidden", self.head_hidden, 1..=1024),
            ("head_layers", self.head_layers, 2..=16),
        ];
        for (name, size, range) in sizes {
            if !range.contains(&size) {
                return Err(ExpertsError::Config(format!("{name} is {size}, allowed are {range:?}")));
            }
        }
        let [lower, median, upper] = self.quantiles;
        if !(0.0 < lower && lower < median && median < upper && upper < 1.0) {
            return Err(ExpertsError::Config(format!("quantiles {:?} do not increase in (0, 1)", self.quantiles)));
        }
        Ok(())
    }

    /// Shape of the MLP `module`.
    ///
    /// # Shapes
    ///
    /// | module | input | output |
    /// |---|---|---|
    /// | cell | cell features ++ column statistics | D |
    /// | column | D (mean over its cells) ++ column statistics | D |
    /// | row | D (mean over its cells) | D |
    /// | table | D (mean over rows) ++ D (mean over columns) ++ table statistics | D |
    /// | node | features ++ D if embedded ++ D per role | D |
    /// | cardinality | D | 3 |
    pub fn mlp(&self, module: Module) -> MlpShape {
        let width = self.width;
        let (input, hidden, output, layers) = match module {
            Module::Cell => (CELL_FEATURES + COLUMN_STATISTICS, self.cell_hidden, width, self.data_layers),
            Module::Column => (width + COLUMN_STATISTICS, self.data_hidden, width, self.data_layers),
            Module::Row => (width, self.cell_hidden, width, self.data_layers),
            Module::Table => (2 * width + TABLE_STATISTICS, self.data_hidden, width, self.data_layers),
            Module::Node(kind) => {
                let states = kind.roles() + usize::from(kind.embedded());
                (kind.features() + states * width, self.node_hidden, width, self.node_layers)
            }
            Module::Cardinality => (width, self.head_hidden, HEAD_OUTPUTS, self.head_layers),
        };
        MlpShape { module, input, hidden, output, layers }
    }

    /// Every MLP, in the order of the flat parameter vector.
    pub fn modules() -> impl Iterator<Item = Module> {
        [Module::Cell, Module::Column, Module::Row, Module::Table]
            .into_iter()
            .chain(NodeKind::ALL.map(Module::Node))
            .chain([Module::Cardinality])
    }

    /// Every tensor, in the order of the flat parameter vector.
    pub fn parameters(&self) -> Vec<ParameterShape> {
        let mut parameters = Vec::new();
        let mut offset = 0;
        for shape in Self::modules().map(|module| self.mlp(module)) {
            for layer in 0..shape.layers {
                let (input, output) = shape.layer(layer);
                let name = shape.module.name();
                parameters.push(ParameterShape {
                    name: format!("{name}.{layer}.weight"),
                    shape: vec![input, output],
                    offset,
                });
                offset += input * output;
                parameters.push(ParameterShape { name: format!("{name}.{layer}.bias"), shape: vec![output], offset });
                offset += output;
            }
        }
        parameters
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
    fn parameters_are_contiguous_and_named_once() {
        let config = ExpertConfig::default();
        let parameters = config.parameters();
        let mut offset = 0;
        let mut names = std::collections::BTreeSet::new();
        for parameter in &parameters {
            assert_eq!(parameter.offset, offset);
            offset = parameter.range().end;
            assert!(names.insert(parameter.name.clone()), "{} twice", parameter.name);
        }
        assert_eq!(offset, config.parameter_count());
        assert!(offset * 4 <= 5_000_000, "{offset} parameters are more than 5 MB");
    }

    #[test]
    fn refuses_impossible_sizes() {
        assert!(ExpertConfig::default().validate().is_ok());
        assert!(ExpertConfig { width: 0, ..ExpertConfig::default() }.validate().is_err());
        assert!(ExpertConfig { node_layers: 1, ..ExpertConfig::default() }.validate().is_err());
        assert!(ExpertConfig { quantiles: [0.5, 0.5, 0.9], ..ExpertConfig::default() }.validate().is_err());
        assert!(ExpertConfig { quantiles: [f32::NAN, 0.5, 0.9], ..ExpertConfig::default() }.validate().is_err());
    }
}
