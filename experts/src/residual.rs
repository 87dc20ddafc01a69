//! What the physical-plan expert gets wrong: executed plans with the residuals of their times -> that of another plan.
//!
//! The expert's fallback where it was trained on nothing alike. The in-context predictor reads executed plans as examples: what
//! the expert and its cost model say of each, its size and rows, labelled with `ln` of the measured over the predicted time. A
//! predicted time is multiplied by what it says of the plan. Nothing is trained, so that a few executions are enough. Whether they
//! help is told by themselves, each predicted from those of other queries; so is how wide an interval has to be (Romano, Patterson
//! and Candès, "Conformalized quantile regression", NeurIPS 2019).

use std::collections::BTreeSet;

use relata_featurize::physical::{OperatorRows, PhysicalGraph};
use relata_featurize::resources::Resources;
use relata_featurize::trace::Execution;

use crate::Result;
use crate::error::{ExpertsError, check_finite};
use crate::in_context::{Column, InContextPredictor, Labels, Prediction, Prefilled, QUANTILES};
use crate::physical::{PhysicalExpert, Runtime, elapsed_us};

/// Executions that are read at most, the latest.
pub const MOST_EXECUTIONS: usize = 256;

/// Different queries that are needed.
pub const FEWEST_QUERIES: usize = 16;

/// Parts of the queries, each predicted from the others.
const FOLDS: usize = 4;

/// Standard errors by which the mean error has to fall.
const MARGIN: f64 = 0.5;

/// Share of the residuals that intervals cover.
const COVERAGE: f64 = 0.9;

/// The largest correction, in `ln` units.
const LIMIT: f32 = 12.0;

/// Number of features of a plan.
pub const FEATURES: usize = 17;

/// An executed plan as an example.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The query, as in [`Execution`].
    pub query: u32,
    /// What the plan is like, finite.
    pub features: [f32; FEATURES],
    /// `ln` of the measured over the predicted time.
    pub residual: f32,
}

impl Example {
    /// Of an execution whose time is predicted from its estimated rows.
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

/// Features of a plan, the rows of whose operators are `known` where they are, with its predicted runtime.
fn features(
    expert: &PhysicalExpert,
    graph: &PhysicalGraph,
    known: &[Option<OperatorRows>],
    machine: &Resources,
) -> Result<([f32; FEATURES], Runtime)> {
    if !graph.is_valid() {
        return Err(ExpertsError::Graph("inputs of an operator are not before it".to_owned()));
    }
    let rows = graph.filled(known);
    let runtime = expert.runtime(graph, &rows, machine)?;
    let log = |value: f64| value.max(0.0).ln_1p();
    let (mut all, mut most, mut table_rows, mut file_bytes) = (0.0, 0.0f64, 0.0, 0.0);
    let (mut unknown, mut read_unknown) = (0.0, 0.0);
    for (operator, own) in graph.operators.iter().zip(&rows) {
        let own = f64::from(own.rows);
        all += own;
        most = most.max(own);
        table_rows += f64::from(operator.facts.table_rows);
        file_bytes += f64::from(operator.facts.file_bytes);
        if !expert.knows(operator.kind) {
            let read: f64 = operator.inputs.iter().map(|input| f64::from(rows[*input as usize].rows)).sum();
            unknown += 1.0;
            read_unknown += read.max(own);
        }
    }
    let [lower, median, upper] = runtime.elapsed_us.map(log);
    let operators = graph.operators.len() as f64;
    let pipelines = graph.operators.iter().map(|operator| operator.pipeline).max().map_or(0.0, f64::from);
    let features: [f64; FEATURES] = [
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
        unknown / operators,
        log(read_unknown),
    ];
    let features = features.map(|feature| feature as f32);
    check_finite("the features of a plan", &features)?;
    Ok((features, runtime))
}

/// The in-context predictor with executed plans as its examples.
#[derive(Debug, Clone)]
pub struct ResidualPredictor {
    prefilled: Prefilled,
    executions: usize,
    /// What both ends of an interval are moved outwards by, in `ln` units.
    widening: f32,
}

impl ResidualPredictor {
    /// Of recorded executions, the oldest first: of every query, by threads, batch size and memory limit, the latest that the expert does not refuse, [`MOST_EXECUTIONS`] of them at most; `None`
    /// where [`Self::validated`] says so.
    ///
    /// # Errors
    ///
    /// What [`Self::read`] refuses.
    pub fn fit(
        expert: &PhysicalExpert,
        predictor: &InContextPredictor,
        executions: &[Execution],
    ) -> Result<Option<Self>> {
        let mut seen = BTreeSet::new();
        let latest = executions.iter().rev();
        let setting = |one: &Execution| (one.query, one.graph.threads, one.graph.batch_size, one.graph.memory_limit);
        let examples = latest.filter_map(|one| {
            if seen.contains(&setting(one)) {
                return None;
            }
            let example = Example::new(expert, one).ok()?;
            seen.insert(setting(one));
            Some(example)
        });
        let examples = examples.take(MOST_EXECUTIONS);
        let examples: Vec<Example> = examples.collect();
        let mut examples: Vec<&Example> = examples.iter().collect();
        // Sums of floats depend on their order.
        examples.sort_by(|a, b| a.query.cmp(&b.query).then(a.residual.total_cmp(&b.residual)));
        Self::validated(predictor, &examples)
    }

    /// Reads examples where they help: the mean error of the times, in `ln` units, falls by more than half of its standard error
    /// where each query is predicted from others. `None` where it does not, or there are fewer than [`FEWEST_QUERIES`] queries.
    ///
    /// # Errors
    ///
    /// What [`Self::read`] refuses.
    pub fn validated(predictor: &InContextPredictor, examples: &[&Example]) -> Result<Option<Self>> {
        let queries: Vec<u32> = examples.iter().map(|one| one.query).collect::<BTreeSet<_>>().into_iter().collect();
        if queries.len() < FEWEST_QUERIES {
            return Ok(None);
        }
        let fold_of = |one: &Example| queries.partition_point(|query| *query < one.query) % FOLDS;
        let (mut gains, mut misses): (Vec<f64>, Vec<f32>) = (vec![], vec![]);
        for fold in 0..FOLDS {
            let (held, rest): (Vec<&Example>, Vec<&Example>) = examples.iter().partition(|one| fold_of(one) == fold);
            let asked: Vec<_> = held.iter().map(|one| one.features).collect();
            let said = Self::read(predictor, &rest)?.residuals(&asked)?;
            for (residual, [lower, median, upper]) in held.iter().map(|one| one.residual).zip(said) {
                gains.push(f64::from(residual.abs() - (residual - median).abs()));
                misses.push((lower - residual).max(residual - upper));
            }
        }
        let count = gains.len() as f64;
        let mean = gains.iter().sum::<f64>() / count;
        let variance = gains.iter().map(|gain| (gain - mean).powi(2)).sum::<f64>() / (count - 1.0);
        if mean <= MARGIN * (variance / count).sqrt() {
            return Ok(None);
        }
        misses.sort_unstable_by(f32::total_cmp);
        let rank = ((count + 1.0) * COVERAGE).ceil() as usize;
        let widening = misses[rank.clamp(1, misses.len()) - 1];
        Ok(Some(Self { widening, ..Self::read(predictor, examples)? }))
    }

    /// Reads examples, whatever they help; their order does not matter.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Context`] without examples, and whatever else [`InContextPredictor::prefill`] refuses.
    pub fn read(predictor: &InContextPredictor, examples: &[&Example]) -> Result<Self> {
        let labels = Labels::Numbers(examples.iter().map(|one| one.residual).collect());
        let features: Vec<_> = examples.iter().map(|one| one.features).collect();
        let prefilled = predictor.prefill(&columns(&features), &labels)?;
        Ok(Self { prefilled, executions: examples.len(), widening: 0.0 })
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
        let predictions = self.prefilled.predict(&columns(features))?;
        let residual = |prediction: Prediction| match prediction {
            Prediction::Numbers(quantiles) => {
                let last = QUANTILES.len() - 1;
                let [lower, median, upper] = [0, last / 2, last].map(|place| quantiles[place]);
                let ends = [(lower - self.widening).min(median), median, (upper + self.widening).max(median)];
                Ok(ends.map(|residual| residual.clamp(-LIMIT, LIMIT)))
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

/// The features of plans, column by column.
fn columns(features: &[[f32; FEATURES]]) -> Vec<Column> {
    (0..FEATURES).map(|place| Column::Number(features.iter().map(|one| one[place]).collect())).collect()
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
