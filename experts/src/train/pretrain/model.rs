//! The data expert in burn: the same forward pass as inference, with gradients, and the losses of both tasks.

use burn::tensor::activation::{relu, softmax};
use burn::tensor::{Device, Tensor, module::linear};
use relata_featurize::relative::{BINS, CELL_FEATURES, COLUMN_STATISTICS, LOG_SCALE, TABLE_STATISTICS};

use super::batch::{BucketBatch, CellBatch, IntervalRows, TableBatch};
use crate::config::{DataConfig, Module};
use crate::data::cells::{GATE_FEATURES, SHARPNESS, TARGETS, window};
use crate::data::context::{DISTANCES, PAIR_FEATURES};
use crate::data::histogram::{LEAST_SHARE, MOST_PULL};
use crate::train::model::{Models, normalise};

/// The data expert with gradients.
pub struct TrainingDataExpert {
    config: DataConfig,
    models: Models,
}

impl std::fmt::Debug for TrainingDataExpert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrainingDataExpert").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The embeddings of stacked tables.
pub struct Embedded {
    /// `[T, D]`
    pub tables: Tensor<2>,
    /// `[C, D]`
    pub columns: Tensor<2>,
    /// `[C, R, S]`
    pub slots: Tensor<3>,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").finish_non_exhaustive()
    }
}

impl TrainingDataExpert {
    /// The data expert of a flat parameter vector on a device with autodiff.
    pub fn new(config: &DataConfig, parameters: &[f32], device: &Device) -> Self {
        Self { config: config.clone(), models: Models::new(&config.shapes(), parameters, device) }
    }

    /// Embeds stacked tables; see [`crate::data::DataExpert::embed`].
    pub fn embed(&self, batch: &TableBatch) -> Embedded {
        let (t, c, r) = (batch.tables, batch.columns, batch.rows);
        let (hidden, slot, models) = (self.config.cell_hidden, self.config.slot, &self.models);
        let cell = models.mlp(Module::Cell);
        let statistics = models.constant(&batch.column_statistics, [c, COLUMN_STATISTICS]);
        let first = &cell.layers[0];
        let cells = models.constant(&batch.cells, [c * r, CELL_FEATURES]);
        let own = cells.clone().matmul(first.weight.clone().slice_dim(0, 0..CELL_FEATURES)).reshape([c, r, hidden]);
        let shared = linear(
            statistics.clone(),
            first.weight.clone().slice_dim(0, CELL_FEATURES..CELL_FEATURES + COLUMN_STATISTICS),
            Some(first.bias.clone()),
        );
        let states = cell.middle(relu(own + shared.reshape([c, 1, hidden])).reshape([c * r, hidden]));
        let passed = Tensor::cat(vec![cells.clone().slice_dim(1, 0..BINS), models.zeros([c * r, slot - BINS])], 1);
        let slots = (cell.last(states.clone()) + passed).reshape([c, r, slot]);

        let shares = models.constant(&batch.shares, [t, r]);
        let column_shares = shares.clone().select(0, models.indices(&batch.table_of)); // [C, R]
        let pooled =
            column_shares.reshape([c, 1, r]).matmul(states.clone().reshape([c, r, hidden])).reshape([c, hidden]);
        let whole = cells.reshape([c, r, CELL_FEATURES]).slice_dim(1, 0..1).reshape([c, CELL_FEATURES]);
        let columns = normalise(models.mlp(Module::Column).forward(Tensor::cat(vec![pooled, whole, statistics], 1)));

        let table_columns = models.constant(&batch.table_columns, [t, c]);
        let by_row = table_columns.clone().matmul(states.reshape([c, r * hidden])).reshape([t * r, hidden]);
        let row = models.mlp(Module::Row);
        let rows = row.hidden(by_row).reshape([t, r, hidden]);
        let rows = row.last(shares.reshape([t, 1, r]).matmul(rows).reshape([t, hidden]));
        let column_mean = table_columns.matmul(columns.clone());
        let table_statistics = models.constant(&batch.table_statistics, [t, TABLE_STATISTICS]);
        let tables = models.mlp(Module::Table).forward(Tensor::cat(vec![rows, column_mean, table_statistics], 1));
        Embedded { tables: normalise(tables), columns, slots }
    }

    /// Restored `ln(1 + rows)` of buckets; see [`crate::data::DataExpert::restore`]. `[E]`
    pub fn restore(&self, tables: &TableBatch, embedded: &Embedded, batch: &BucketBatch) -> Tensor<1> {
        let (c, r, e, models) = (tables.columns, tables.rows, batch.targets.len(), &self.models);
        let slots = embedded.slots.clone().reshape([c * r, self.config.slot]);
        let logits =
            models.mlp(Module::Factor).forward(slots.clone()) + slots.slice_dim(1, 0..BINS).mul_scalar(LOG_SCALE);
        let bins = softmax(logits, 1); // [C * R, BINS]
        let mut intervals: Vec<Tensor<2>> = IntervalRows::matrices()
            .into_iter()
            .map(|(buckets, matrix)| {
                let shares = bins.clone().matmul(models.constant(&matrix, [BINS, buckets])).reshape([c, r, buckets]);
                shares.swap_dims(1, 2).reshape([c * buckets, r])
            })
            .collect();
        intervals.push(models.zeros([1, r]).add_scalar(1.0));
        let intervals = Tensor::cat(intervals, 0);
        let shares = models.constant(&tables.shares, [tables.tables, r]).select(0, models.indices(&batch.table_of)); // [E, R]

        let column = |values: &[f32]| models.constant(values, [e, 1]);
        let mut mixture = shares.clone();
        let (mut independent, mut pull, mut least): (Option<Tensor<2>>, Option<Tensor<2>>, Option<Tensor<2>>) =
            (None, None, None);
        for rows in &batch.intervals {
            let own = intervals.clone().select(0, models.indices(rows)); // [E, R]
            let whole = own.clone().slice_dim(1, 0..1);
            let mixed = (own.clone() * shares.clone()).sum_dim(1).clamp_min(LEAST_SHARE);
            // The row of ones stands for no column: its mixture is 1 as its share, unless the table has no groups.
            let pulled = (whole.clone() / mixed).clamp_max(MOST_PULL);
            mixture = mixture * own;
            independent = Some(times(independent, whole.clone()));
            pull = Some(times(pull, pulled));
            least = Some(match least {
                Some(least) => least.clone() - relu(least - whole),
                None => whole,
            });
        }
        let ones = || models.zeros([e, 1]).add_scalar(1.0);
        let most = mixture.clone().max_dim(1);
        let mixture = mixture.sum_dim(1);
        let (independent, pull, least) =
            (independent.unwrap_or_else(ones), pull.unwrap_or_else(ones), least.unwrap_or_else(ones));
        let logs = |index: usize| -> Vec<f32> {
            let of = |table: &u32| {
                let statistics = &tables.table_statistics[*table as usize * TABLE_STATISTICS..][..TABLE_STATISTICS];
                crate::data::log_rows(statistics)[index]
            };
            batch.table_of.iter().map(of).collect()
        };
        let (log_rows, log_sampled) = (column(&logs(0)), column(&logs(1)));
        let rows = log_rows.clone().exp().sub_scalar(1.0);
        let sampled = log_sampled.clone().exp().sub_scalar(1.0);
        let log_of = |share: Tensor<2>, rows: &Tensor<2>| (share * rows.clone()).log1p();
        let pulled = log_of(mixture.clone() * pull, &rows);
        let bound = log_of(least, &rows);
        let anchor = pulled.clone() - relu(pulled.clone() - bound.clone());
        let features = Tensor::cat(
            vec![
                log_of(mixture.clone(), &rows),
                log_of(independent, &rows),
                pulled,
                bound.clone(),
                log_rows,
                column(&batch.dimensions).mul_scalar(2.0),
                log_of(mixture, &sampled),
                log_sampled,
                log_of(most.clone(), &rows),
                log_of(most, &sampled),
            ],
            1,
        );
        let mut columns = models.zeros([e, self.config.width]);
        for (own, weights) in batch.columns.iter().zip(&batch.column_weights) {
            columns = columns + embedded.columns.clone().select(0, models.indices(own)) * column(weights);
        }
        let table = embedded.tables.clone().select(0, models.indices(&batch.table_of));
        let correction =
            models.mlp(Module::Bucket).forward(Tensor::cat(vec![features.mul_scalar(0.1), table, columns], 1));
        let several: Vec<f32> = batch.dimensions.iter().map(|&d| f32::from(u8::from(d > 1.5))).collect();
        let several = column(&several);
        let corrected = relu(anchor + correction);
        let corrected = corrected.clone() - relu(corrected - bound.clone());
        (corrected * several.clone() + bound * (several.neg().add_scalar(1.0))).reshape([e])
    }

    /// The loss of restoring buckets, in `ln` units: the weighted mean of `|restored - target|`, rounded off at zero
    /// (Huber 1964, with a width of a tenth), and the divergence of the distributions that the column embeddings alone tell.
    pub fn bucket_loss(&self, tables: &TableBatch, batch: &BucketBatch) -> Tensor<1> {
        const WIDTH: f32 = 0.1;
        let e = batch.targets.len();
        let embedded = self.embed(tables);
        let error = self.restore(tables, &embedded, batch) - self.models.constant(&batch.targets, [e]);
        let smooth = error.square().add_scalar(WIDTH * WIDTH).sqrt().sub_scalar(WIDTH);
        let restored = (smooth * self.models.constant(&batch.weights, [e])).sum();
        let logits = self.models.mlp(Module::Marginal).forward(embedded.columns);
        let whole = self.models.constant(&tables.whole, [tables.columns, BINS]);
        let divergence = (burn::tensor::activation::log_softmax(logits, 1) * whole).sum_dim(1).mean().neg();
        restored + divergence.mul_scalar(0.1)
    }

    /// The distributions of masked cells; see [`crate::data::DataExpert::distribution`]. `[Q, TARGETS]`
    pub fn distribution(&self, batch: &CellBatch) -> Tensor<2> {
        let (q, r, v, h, models) = (batch.masked, batch.rows, batch.visible, self.config.kernels, &self.models);
        let (middle, range) = SHARPNESS;
        let weights = models.mlp(Module::Relevance).forward(models.constant(&batch.pairs, [v, PAIR_FEATURES]));
        let weights = weights.clamp(-range, range).add_scalar(middle).exp().reshape([v * DISTANCES, h]);
        let logits = models.constant(&batch.distances, [q * r, v * DISTANCES]).matmul(weights).neg();
        let kernels = softmax(logits.reshape([q, r, h]).swap_dims(1, 2), 2).reshape([q * h, r]);
        let pooled = kernels.clone().matmul(models.constant(&batch.values, [r, TARGETS])); // [Q * H, TARGETS]
        let line = models.constant(&batch.line, [q, 1, TARGETS]);
        let all = h + 1;
        let pooled = Tensor::cat(vec![pooled.reshape([q, h, TARGETS]), line], 1); // [Q, H + 1, TARGETS]
        let windows: Vec<f32> = (0..TARGETS * TARGETS).map(|index| window(index % TARGETS, index / TARGETS)).collect();
        let flat = pooled.clone().reshape([q * all, TARGETS]);
        let best = flat.clone().matmul(models.constant(&windows, [TARGETS, TARGETS])).max_dim(1);
        let none = flat.slice_dim(1, TARGETS - 1..TARGETS);
        let of_line = models.zeros([q, 1]).add_scalar(batch.line_confidence);
        let effective =
            Tensor::cat(vec![kernels.square().sum_dim(1).log().mul_scalar(-0.1).reshape([q, h]), of_line], 1);
        // The other masked rows are what the gate judges by, as left-out rows are in inference.
        let right = models.constant(&batch.right, [q, 1, TARGETS]);
        let shares = (pooled.clone() * right).sum_dim(2).reshape([q, all]).detach();
        let others = (shares.clone().sum_dim(0) - shares).div_scalar((q.max(2) - 1) as f32);
        let confidence = Tensor::cat(
            vec![
                best.reshape([q, all, 1]),
                none.reshape([q, all, 1]),
                effective.reshape([q, all, 1]),
                others.reshape([q, all, 1]),
            ],
            2,
        );
        let size = models.constant(&batch.size.repeat(q), [q, 2]);
        let confidence = confidence.reshape([q, all * GATE_FEATURES]);
        let gates = softmax(models.mlp(Module::Gate).forward(Tensor::cat(vec![confidence, size], 1)), 1);
        gates.reshape([q, 1, all]).matmul(pooled).reshape([q, TARGETS])
    }

    /// The loss of restoring cells: `-ln` of the share of the distribution that is right.
    pub fn cell_loss(&self, batch: &CellBatch) -> Tensor<1> {
        let right = self.models.constant(&batch.right, [batch.masked, TARGETS]);
        (self.distribution(batch) * right).sum_dim(1).add_scalar(0.02).log().mean().neg()
    }

    /// Loss and gradients of one step: the buckets, and the mean over the masked columns.
    pub fn step(&self, tables: &TableBatch, buckets: &BucketBatch, cells: &[CellBatch]) -> (f32, f32, Vec<f32>) {
        let bucket_loss = self.bucket_loss(tables, buckets);
        let mut cell_loss = self.models.zeros([1]);
        for batch in cells {
            cell_loss = cell_loss + self.cell_loss(batch).div_scalar(cells.len() as f32);
        }
        let gradients = self.models.gradients((bucket_loss.clone() + cell_loss.clone()).backward());
        (bucket_loss.into_scalar::<f32>(), cell_loss.into_scalar::<f32>(), gradients)
    }
}

/// The product of what there is so far and one more.
fn times(product: Option<Tensor<2>>, factor: Tensor<2>) -> Tensor<2> {
    match product {
        Some(product) => product * factor,
        None => factor,
    }
}
