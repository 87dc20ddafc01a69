//! The stack in burn: the same forward pass as inference, with gradients.
//!
//! Parameters come in and gradients go out as one flat vector in the order of [`ExpertConfig::parameters`]; everything
//! between is tensors on whatever device burn was built for.

use burn::tensor::activation::{relu, softplus};
use burn::tensor::{Device, Gradients, IndexingUpdateOp, Int, Tensor, TensorData, module::linear};
use relata_featurize::relative::{CELL_FEATURES, COLUMN_STATISTICS, TABLE_STATISTICS};

use crate::config::{ExpertConfig, HEAD_OUTPUTS, MlpShape, Module};
use crate::message_passing::{Gather, Group, Schedule};
use crate::mlp::NORM_EPSILON;
use crate::train::batch::{Batch, TableBatch};

/// One layer.
struct Layer {
    /// `[input, output]`
    weight: Tensor<2>,
    /// `[output]`
    bias: Tensor<1>,
}

/// An MLP, see [`crate::mlp`].
struct Mlp {
    layers: Vec<Layer>,
}

impl Mlp {
    fn new(shape: MlpShape, parameters: &[f32], device: &Device) -> Self {
        let mut offset = 0;
        let mut take = |count: usize| {
            offset += count;
            parameters[offset - count..offset].to_vec()
        };
        let layers = (0..shape.layers)
            .map(|layer| {
                let (input, output) = shape.layer(layer);
                let weight = TensorData::new(take(input * output), [input, output]);
                let bias = TensorData::new(take(output), [output]);
                Layer {
                    weight: Tensor::from_data(weight, device).require_grad(),
                    bias: Tensor::from_data(bias, device).require_grad(),
                }
            })
            .collect();
        Self { layers }
    }

    /// `[.., input]` -> `[.., output]`
    fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.last(self.hidden(x))
    }

    /// `[.., input]` -> `[.., hidden]`
    fn hidden<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let first = &self.layers[0];
        self.middle(relu(linear(x, first.weight.clone(), Some(first.bias.clone()))))
    }

    /// `[.., hidden]` -> `[.., hidden]`: the residual layers.
    fn middle<const D: usize>(&self, mut hidden: Tensor<D>) -> Tensor<D> {
        for layer in &self.layers[1..self.layers.len() - 1] {
            hidden = hidden.clone() + relu(linear(hidden, layer.weight.clone(), Some(layer.bias.clone())));
        }
        hidden
    }

    /// `[.., hidden]` -> `[.., output]`
    fn last<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        let last = &self.layers[self.layers.len() - 1];
        linear(hidden, last.weight.clone(), Some(last.bias.clone()))
    }
}

/// The whole stack with gradients.
pub struct TrainingStack {
    config: ExpertConfig,
    device: Device,
    /// In the order of [`ExpertConfig::modules`].
    mlps: Vec<(Module, Mlp)>,
}

impl std::fmt::Debug for TrainingStack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrainingStack")
            .field("config", &self.config)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

impl TrainingStack {
    /// The stack of a flat parameter vector on a device with autodiff.
    pub fn new(config: &ExpertConfig, parameters: &[f32], device: &Device) -> Self {
        let mut offset = 0;
        let mlps = ExpertConfig::modules()
            .map(|module| {
                let shape = config.mlp(module);
                let length: usize = (0..shape.layers).map(|layer| shape.layer(layer)).map(|(i, o)| i * o + o).sum();
                offset += length;
                (module, Mlp::new(shape, &parameters[offset - length..offset], device))
            })
            .collect();
        Self { config: config.clone(), device: device.clone(), mlps }
    }

    /// The gradients as a flat vector; zero where a parameter took no part.
    pub fn gradients(&self, mut gradients: Gradients) -> Vec<f32> {
        let mut flat = Vec::with_capacity(self.config.parameter_count());
        for layer in self.mlps.iter().flat_map(|(_, mlp)| &mlp.layers) {
            let count = layer.weight.shape().num_elements();
            extend(&mut flat, layer.weight.grad_remove(&mut gradients), count);
            let count = layer.bias.shape().num_elements();
            extend(&mut flat, layer.bias.grad_remove(&mut gradients), count);
        }
        flat
    }

    fn mlp(&self, module: Module) -> &Mlp {
        // Modules are few and all are there: `new` builds every one of them.
        let index = self.mlps.iter().position(|(name, _)| *name == module).unwrap_or(0);
        &self.mlps[index].1
    }

    /// A constant on the device.
    fn constant<const D: usize>(&self, values: &[f32], shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &self.device)
    }

    fn indices(&self, values: &[u32]) -> Tensor<1, Int> {
        let values: Vec<i32> = values.iter().map(|&value| value as i32).collect();
        let length = values.len();
        Tensor::from_data(TensorData::new(values, [length]), &self.device)
    }

    /// The embedding matrix of a batch: tables, then columns, then a row of zeros. `[T + C + 1, D]`
    pub fn embed(&self, tables: &TableBatch) -> Tensor<2> {
        let (t, c, r, width) = (tables.tables, tables.columns, tables.rows, self.config.width);
        let zero = Tensor::zeros([1, width], &self.device);
        let table_statistics = self.constant(&tables.table_statistics, [t, TABLE_STATISTICS]);
        let (row_pool, columns) = if c * r > 0 {
            self.embed_cells(tables)
        } else {
            let cell = self.mlp(Module::Cell).last(Tensor::zeros([c.max(1), self.config.cell_hidden], &self.device));
            let statistics = self.constant(&tables.column_statistics, [c, COLUMN_STATISTICS]);
            let columns =
                (c > 0).then(|| normalise(self.mlp(Module::Column).forward(Tensor::cat(vec![cell, statistics], 1))));
            let rows = self.mlp(Module::Row).last(Tensor::zeros([t, self.config.cell_hidden], &self.device));
            (rows, columns)
        };
        let column_pool = match &columns {
            Some(columns) => self.constant(&tables.table_columns, [t, c]).matmul(columns.clone()), // [T, D]
            None => Tensor::zeros([t, width], &self.device),
        };
        let table =
            normalise(self.mlp(Module::Table).forward(Tensor::cat(vec![row_pool, column_pool, table_statistics], 1)));
        Tensor::cat([Some(table), columns, Some(zero)].into_iter().flatten().collect(), 0)
    }

    /// The pooled rows of each table `[T, D]` and the embeddings of all columns `[C, D]`.
    fn embed_cells(&self, tables: &TableBatch) -> (Tensor<2>, Option<Tensor<2>>) {
        let (t, c, r) = (tables.tables, tables.columns, tables.rows);
        let (hidden, width) = (self.config.cell_hidden, self.config.width);
        let cell = self.mlp(Module::Cell);
        let statistics = self.constant(&tables.column_statistics, [c, COLUMN_STATISTICS]);
        let first = &cell.layers[0];
        let cells = self.constant(&tables.cells, [c * r, CELL_FEATURES]);
        let own = cells.matmul(first.weight.clone().slice_dim(0, 0..CELL_FEATURES)).reshape([c, r, hidden]);
        let shared = linear(
            statistics.clone(),
            first.weight.clone().slice_dim(0, CELL_FEATURES..CELL_FEATURES + COLUMN_STATISTICS),
            Some(first.bias.clone()),
        );
        let states = relu(own + shared.reshape([c, 1, hidden])).reshape([c * r, hidden]);
        let states = cell.middle(states); // [C * R, hidden]

        let by_column = self.constant(&tables.column_rows, [c, 1, r]).matmul(states.clone().reshape([c, r, hidden]));
        let column = Tensor::cat(vec![cell.last(by_column.reshape([c, hidden])), statistics], 1);
        let columns = normalise(self.mlp(Module::Column).forward(column)); // [C, D]

        let by_row = self.constant(&tables.table_columns, [t, c]).matmul(states.reshape([c, r * hidden]));
        let rows = cell.last(by_row.reshape([t * r, hidden])).reshape([t * r, width]);
        let rows = self.mlp(Module::Row).hidden(rows).reshape([t, r, hidden]);
        let rows = self.constant(&tables.table_rows, [t, 1, r]).matmul(rows).reshape([t, hidden]);
        (self.mlp(Module::Row).last(rows), Some(columns))
    }

    /// The states of all nodes in the order of the schedule: embeddings `[T + C + 1, D]` -> `[N, D]`.
    pub fn states(&self, schedule: &Schedule, embeddings: &Tensor<2>) -> Tensor<2> {
        let mut states: Option<Tensor<2>> = None;
        for level in schedule.groups.chunk_by(|left, right| left.level == right.level) {
            let mut known: Vec<Tensor<2>> = states.iter().cloned().collect();
            known.extend(level.iter().map(|group| self.group(group, states.as_ref(), embeddings)));
            states = Some(Tensor::cat(known, 0));
        }
        states.unwrap_or_else(|| Tensor::zeros([0, self.config.width], &self.device))
    }

    /// The states of one group: `[rows, D]`.
    fn group(&self, group: &Group, states: Option<&Tensor<2>>, embeddings: &Tensor<2>) -> Tensor<2> {
        let mut input = vec![self.constant(&group.features, [group.rows, group.kind.features()])];
        if group.kind.embedded() {
            input.push(embeddings.clone().select(0, self.indices(&group.embeddings)));
        }
        input.extend(group.roles.iter().map(|role| self.role(role, group.rows, states)));
        normalise(self.mlp(Module::Node(group.kind)).forward(Tensor::cat(input, 1)))
    }

    /// The summed inputs of one role: `[rows, D]`.
    fn role(&self, role: &Gather, rows: usize, states: Option<&Tensor<2>>) -> Tensor<2> {
        let zeros = || Tensor::zeros([rows, self.config.width], &self.device);
        let Some(states) = states.filter(|_| !role.sources.is_empty()) else { return zeros() };
        let gathered = states.clone().select(0, self.indices(&role.sources)); // [E, D]
        if role.is_one_to_one(rows) {
            return gathered;
        }
        zeros().select_assign(0, self.indices(&role.targets), gathered, IndexingUpdateOp::Add)
    }

    /// What the cardinality head returns for the labelled nodes: `[L, 3]`.
    pub fn head(&self, batch: &Batch) -> Tensor<2> {
        let states = self.states(&batch.schedule, &self.embed(&batch.tables));
        self.mlp(Module::Cardinality).forward(states.select(0, self.indices(&batch.labelled)))
    }

    /// The weighted pinball loss of the three quantiles (Koenker & Bassett, Econometrica 1978), in `ln` units.
    pub fn loss(&self, batch: &Batch) -> Tensor<1> {
        let raw = self.head(batch);
        let labels = batch.labelled.len();
        let column = |index: usize| raw.clone().slice_dim(1, index..index + 1);
        let median = column(0);
        let lower = median.clone() - softplus(column(1), 1.0);
        let upper = median.clone() + softplus(column(2), 1.0);
        let error = self.constant(&batch.residuals, [labels, 1]) - Tensor::cat(vec![lower, median, upper], 1);
        let quantiles = self.constant(&self.config.quantiles, [1, HEAD_OUTPUTS]);
        let pinball = error.clone() * quantiles + relu(-error); // [L, 3]
        (pinball * self.constant(&batch.weights, [labels, 1])).sum()
    }

    /// Loss and gradients of one batch.
    pub fn step(&self, batch: &Batch) -> (f32, Vec<f32>) {
        let loss = self.loss(batch);
        let gradients = self.gradients(loss.backward());
        (loss.into_scalar::<f32>(), gradients)
    }
}

/// Scales each row to a root mean square of 1; see [`crate::mlp::normalise`].
fn normalise(states: Tensor<2>) -> Tensor<2> {
    let scale = states.clone().square().mean_dim(1).add_scalar(NORM_EPSILON).sqrt();
    states / scale
}

/// Appends a gradient of `count` numbers, or zeros if there is none.
fn extend<const D: usize>(flat: &mut Vec<f32>, gradient: Option<Tensor<D>>, count: usize) {
    let values = gradient.and_then(|gradient| gradient.into_data().try_into_vec::<f32>().ok());
    flat.extend(values.unwrap_or_else(|| vec![0.0; count]));
}
