//! What the physical-plan expert gets wrong: executed plans with the residuals of their times -> that of another plan.
//!
//! The expert's fallback where it was trained on nothing alike. The in-context predictor reads executed plans as examples: what
//! the expert says of each, as a whole and by kind of operator, labelled with `ln` of the measured over the predicted time. A
//! predicted time is multiplied by what it says of the plan. Nothing is trained, so that a few executions are enough. Whether they
//! help is told by themselves, each predicted from those of other queries.

use std::collections::BTreeSet;

use relata_featurize::physical::{OperatorKind, OperatorRows, PhysicalGraph};
use relata_featurize::resources::Resources;
use relata_featurize::synthesis::{FeatureColumn, FeatureTable, FeatureValues};
use relata_featurize::trace::Execution;

use crate::Result;
use crate::error::{ExpertsError, check_finite};
use crate::in_context::{Column, InContextPredictor, Labels, Prediction, Prefilled, QUANTILES};
use crate::physical::{PhysicalExpert, Runtime, elapsed_us};

/// Executions that are read at most, the latest.
pub const MOST_EXECUTIONS: usize = 256;

/// Different queries that are needed.
pub const FEWEST_QUERIES: usize = 16;

/// Features that are read at most.
const MOST_FEATURES: usize = 30;

/// Parts of the queries, each predicted from the others.
const FOLDS: usize = 4;

/// Standard errors by which the mean error has to fall.
const MARGIN: f64 = 2.0;

/// The largest correction, in `ln` units.
const LIMIT: f32 = 12.0;

/// Features of a plan as a whole, and of each kind of operator.
const OF_PLAN: usize = 17;
const OF_KIND: usize = 3;

/// Number of features of a plan.
pub const FEATURES: usize = OF_PLAN + OF_KIND * OperatorKind::COUNT;

/// An executed plan as an example.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The query, as in [`Execution`].
    pub query: u32,
    /// What the expert says of the plan, finite.
    pub features: [f32; FEATURES],
    /// `ln` of the measured over the predicted time.
    pub residual: f32,
}

impl Example {
    /// Of an execution whose time was predicted from its estimated rows.
    ///
    /// # Errors
    ///
    /// What [`PhysicalExpert::runtime`] refuses, and [`ExpertsError::NotFinite`] for a time that is no number.
    pub fn new(expert: &PhysicalExpert, execution: &Execution) -> Result<Self> {
        check_finite("the times of an execution", &execution.execution_us)?;
        let (features, runtime) = features(expert, &execution.graph, &execution.estimated, &execution.machine)?;
        let residual = (f64::from(elapsed_us(execution)) / runtime.elapsed_us[1]).ln() as f32;
        check_finite("the time of an execution", &[residual])?;
        Ok(Self { query: execution.query, features, residual })
    }
}

/// Features of a plan the rows of whose operators are `known` where they are, with the runtime that they are of.
fn features(
    expert: &PhysicalExpert,
    graph: &PhysicalGraph,
    known: &[Option<OperatorRows>],
    machine: &Resources,
) -> Result<([f32; FEATURES], Runtime)> {
    let rows = graph.filled(known);
    let runtime = expert.runtime(graph, &rows, machine)?;
    let log = |value: f64| value.max(0.0).ln_1p();
    let (mut all, mut most, mut table_rows, mut file_bytes, mut unknown) = (0.0, 0.0f64, 0.0, 0.0, [0.0; 2]);
    let mut of_kind = [[0.0; OF_KIND]; OperatorKind::COUNT];
    let total: f64 = runtime.operators_us.iter().sum();
    for ((operator, own), time) in graph.operators.iter().zip(&rows).zip(&runtime.operators_us) {
        let own = f64::from(own.rows);
        let read = operator.inputs.iter().map(|input| f64::from(rows[*input as usize].rows)).sum::<f64>().max(own);
        all += own;
        most = most.max(own);
        table_rows += f64::from(operator.facts.table_rows);
        file_bytes += f64::from(operator.facts.file_bytes);
        if !expert.knows(operator.kind) {
            unknown[0] += 1.0;
            unknown[1] += read;
        }
        let [operators, share, reads] = &mut of_kind[operator.kind as usize];
        *operators += 1.0;
        *share += time / total;
        *reads += read;
    }
    let [lower, median, upper] = runtime.elapsed_us.map(log);
    let operators = graph.operators.len() as f64;
    let pipelines = graph.operators.iter().map(|operator| operator.pipeline).max().map_or(0.0, f64::from);
    let of_plan: [f64; OF_PLAN] = [
        median,
        log(runtime.cost_us),
        median - log(runtime.cost_us),
        upper - lower,
        log(runtime.peak_bytes[1]),
        log(operators),
        log(pipelines),
        log(f64::from(graph.threads)),
        log(f64::from(graph.batch_size)),
        log(all),
        log(most),
        log(rows.last().map_or(0.0, |rows| f64::from(rows.rows))),
        1.0 - known.iter().flatten().count() as f64 / operators,
        log(table_rows),
        log(file_bytes),
        unknown[0] / operators,
        log(unknown[1]),
    ];
    let of_kind = of_kind.into_iter().flat_map(|[operators, share, reads]| [operators, share, log(reads)]);
    let mut features = [0.0; FEATURES];
    features.iter_mut().zip(of_plan.into_iter().chain(of_kind)).for_each(|(feature, value)| *feature = value as f32);
    check_finite("the features of a plan", &features)?;
    Ok((features, runtime))
}

/// The in-context predictor with executed plans as its examples.
#[derive(Debug, Clone)]
pub struct ResidualPredictor {
    prefilled: Prefilled,
    /// The features that it reads.
    kept: Vec<usize>,
    executions: usize,
}

impl ResidualPredictor {
    /// Of recorded executions, the oldest first: of every query and setting the latest, [`MOST_EXECUTIONS`] of them at most. `None`
    /// where there are fewer than [`FEWEST_QUERIES`] queries or they do not help each other.
    ///
    /// # Errors
    ///
    /// What [`Self::read`] refuses. Executions that the expert refuses are left out.
    pub fn fit(
        expert: &PhysicalExpert,
        predictor: &InContextPredictor,
        executions: &[Execution],
    ) -> Result<Option<Self>> {
        let mut seen = BTreeSet::new();
        let latest = executions.iter().rev();
        let latest = latest.filter(|one| seen.insert((one.query, one.graph.threads, one.graph.batch_size)));
        let examples = latest.filter_map(|one| Example::new(expert, one).ok()).take(MOST_EXECUTIONS);
        let examples: Vec<Example> = examples.collect();
        let mut examples: Vec<&Example> = examples.iter().collect();
        // Sums of floats depend on their order.
        examples.sort_by(|a, b| a.query.cmp(&b.query).then(a.residual.total_cmp(&b.residual)));
        match Self::helps(predictor, &examples)? {
            true => Self::read(predictor, &examples).map(Some),
            false => Ok(None),
        }
    }

    /// Whether examples help: the mean error of the times, in `ln` units, falls by more than twice its standard error where each
    /// query is predicted from others.
    ///
    /// # Errors
    ///
    /// What [`Self::read`] refuses.
    pub fn helps(predictor: &InContextPredictor, examples: &[&Example]) -> Result<bool> {
        let queries: Vec<u32> = examples.iter().map(|one| one.query).collect::<BTreeSet<_>>().into_iter().collect();
        if queries.len() < FEWEST_QUERIES {
            return Ok(false);
        }
        let fold_of = |one: &Example| queries.partition_point(|query| *query < one.query) % FOLDS;
        let mut gains: Vec<f64> = vec![];
        for fold in 0..FOLDS {
            let (held, rest): (Vec<&Example>, Vec<&Example>) = examples.iter().partition(|one| fold_of(one) == fold);
            let asked: Vec<_> = held.iter().map(|one| one.features).collect();
            let residuals = Self::read(predictor, &rest)?.residuals(&asked)?;
            let gain = |(one, said): (&&Example, [f32; 3])| one.residual.abs() - (one.residual - said[1]).abs();
            gains.extend(held.iter().zip(residuals).map(gain).map(f64::from));
        }
        let count = gains.len() as f64;
        let mean = gains.iter().sum::<f64>() / count;
        let variance = gains.iter().map(|gain| (gain - mean).powi(2)).sum::<f64>() / (count - 1.0);
        Ok(mean > MARGIN * (variance / count).sqrt())
    }

    /// Reads examples, whose order does not matter.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Context`] without examples, and whatever else [`InContextPredictor::prefill`] refuses.
    pub fn read(predictor: &InContextPredictor, examples: &[&Example]) -> Result<Self> {
        let labels = Labels::Numbers(examples.iter().map(|one| one.residual).collect());
        let column = |place: usize| {
            let values = examples.iter().map(|one| one.features[place]).collect();
            // Names tell the columns apart afterwards.
            FeatureColumn { name: place.to_string(), values: FeatureValues::Number(values) }
        };
        let rows = (0..examples.len() as u64).collect();
        let mut table = FeatureTable { rows, columns: (0..FEATURES).map(column).collect() };
        labels.select(&mut table, 0..examples.len(), MOST_FEATURES);
        let mut kept: Vec<usize> = table.columns.iter().filter_map(|column| column.name.parse().ok()).collect();
        if kept.is_empty() {
            // Plans that are all the same differ by nothing.
            kept.push(0);
        }
        let features: Vec<_> = examples.iter().map(|one| one.features).collect();
        let prefilled = predictor.prefill(&columns(&features, &kept), &labels)?;
        Ok(Self { prefilled, kept, executions: examples.len() })
    }

    /// Executions that were read.
    pub fn executions(&self) -> usize {
        self.executions
    }

    /// `ln` of the measured over the predicted time of plans with these features: 5% quantile, median and 95% quantile.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::NotFinite`] where a prediction is no number.
    pub fn residuals(&self, features: &[[f32; FEATURES]]) -> Result<Vec<[f32; 3]>> {
        let predictions = self.prefilled.predict(&columns(features, &self.kept))?;
        let residual = |prediction: Prediction| match prediction {
            Prediction::Numbers(quantiles) => {
                let last = QUANTILES.len() - 1;
                Ok([0, last / 2, last].map(|place| quantiles[place].clamp(-LIMIT, LIMIT)))
            }
            Prediction::Classes(_) => Err(ExpertsError::Context("residuals are no classes".to_owned())),
        };
        predictions.into_iter().map(residual).collect()
    }

    /// The same of a plan, the rows of whose operators are `known` where they are.
    ///
    /// # Errors
    ///
    /// What [`PhysicalExpert::runtime`] refuses, and as [`Self::residuals`].
    pub fn residual(
        &self,
        expert: &PhysicalExpert,
        graph: &PhysicalGraph,
        known: &[Option<OperatorRows>],
        machine: &Resources,
    ) -> Result<[f32; 3]> {
        let (features, _) = features(expert, graph, known, machine)?;
        Ok(self.residuals(&[features])?[0])
    }
}

/// Some features of plans, column by column.
fn columns(features: &[[f32; FEATURES]], kept: &[usize]) -> Vec<Column> {
    kept.iter().map(|&place| Column::Number(features.iter().map(|one| one[place]).collect())).collect()
}

impl Runtime {
    /// The same where the plan has this residual: 5% quantile, median and 95% quantile, in `ln` units.
    #[must_use]
    pub fn corrected(mut self, residual: [f32; 3]) -> Self {
        let [lower, median, upper] = residual.map(|residual| f64::from(residual).exp());
        let predicted = self.elapsed_us[1];
        self.elapsed_us = [lower, median, upper].map(|factor| predicted * factor);
        self.operators_us.iter_mut().for_each(|time| *time *= median);
        self
    }
}

#[cfg(test)]
mod tests;
