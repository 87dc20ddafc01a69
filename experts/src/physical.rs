//! The physical-plan expert: a physical plan, its rows and the machine -> how long it takes and how much memory it holds.
//!
//! The time of an operator is its work times what a unit of it takes (`PhysicalConfig::costs`, the calibrated cost model), times
//! what the expert corrects it by; the times of all operators add up to that of the plan (per pipeline in Rieger and Neumann,
//! "T3: Accurate and fast performance prediction for relational database systems", SIGMOD 2025). A head reads the states of the
//! plan for what the sum leaves out, with an interval; another does the same for the memory. States pass from the scans up, as
//! in [`crate::logical`], and hold the logical plan's estimates with their quantiles. How fast the machine is only scales the
//! times; how its units of work compare to each other is a feature ([`Resources`]).

use relata_featurize::physical::{OPERATOR_FEATURES, OperatorKind, OperatorRows, PhysicalGraph, WORK};
use relata_featurize::resources::Resources;
use relata_featurize::trace::Execution;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::config::{HEAD_OUTPUTS, MlpShape, Module, ParameterShape, check_sizes, parameters};
use crate::error::{ExpertsError, check_finite, check_length};
use crate::heads::{CardinalityHead, CardinalityQuantiles, ConformalOffset};
use crate::mlp::{Mlp, normalise};
use crate::weights;

/// What the expert may correct the time of an operator by at most, in `ln` units.
pub const OPERATOR_LIMIT: f32 = 4.0;

/// Microseconds that the cost of an operator counts as at least.
pub(crate) const LEAST_US: f64 = 0.05;

/// Bytes that a plan counts as holding at least: batches on their way are not reserved.
pub(crate) const LEAST_BYTES: f64 = 65_536.0;

/// Microseconds that a unit of each kind of work takes, by [`OperatorKind`], on a machine of slowness 1.
pub type Costs = Vec<[f32; WORK]>;

/// Sizes of the physical-plan expert, and the cost model that it corrects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhysicalConfig {
    /// D: width of the states of operators.
    pub width: usize,
    /// Width of the hidden layers.
    pub hidden: usize,
    /// Layers of each MLP.
    pub layers: usize,
    /// Quantiles that the heads estimate: lower, median, upper.
    pub quantiles: [f32; 3],
    /// The cost model.
    pub costs: Costs,
    /// The kinds of operators that occur in the plans trained on.
    pub known: Vec<OperatorKind>,
}

impl PhysicalConfig {
    /// The default sizes above a cost model, for plans of these operators.
    pub fn above(costs: Costs, known: Vec<OperatorKind>) -> Self {
        Self { width: 32, hidden: 64, layers: 3, quantiles: [0.05, 0.5, 0.95], costs, known }
    }

    /// Checks that the sizes describe a model.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Config`] names what is out of range.
    pub fn validate(&self) -> Result<()> {
        check_sizes(&[
            ("width", self.width, 1..=1024),
            ("hidden", self.hidden, 1..=1024),
            ("layers", self.layers, 2..=16),
        ])?;
        let is_cost = |cost: &f32| cost.is_finite() && *cost >= 0.0;
        if self.costs.len() != OperatorKind::COUNT || !self.costs.iter().flatten().all(is_cost) {
            return Err(ExpertsError::Config(
                "the cost model is not one of non-negative costs per operator".to_owned(),
            ));
        }
        Ok(())
    }

    /// Every MLP, in the order of the flat parameter vector.
    ///
    /// # Shapes
    ///
    /// | module | input | output |
    /// |---|---|---|
    /// | operator | features ++ those of the machine ++ `ln` of its cost and of the plan's ++ D of each input | D |
    /// | operator time | D | 1 |
    /// | runtime, memory | D of the root ++ D (mean, by cost) ++ `ln` of the sum | 3 |
    pub fn shapes(&self) -> Vec<MlpShape> {
        let of = |module, input, output| MlpShape { module, input, hidden: self.hidden, output, layers: self.layers };
        vec![
            of(Module::Operator, OPERATOR_INPUTS + 2 * self.width, self.width),
            of(Module::OperatorTime, self.width, 1),
            of(Module::Runtime, 2 * self.width + 1, HEAD_OUTPUTS),
            of(Module::Memory, 2 * self.width + 1, HEAD_OUTPUTS),
        ]
    }

    /// Every tensor, in the order of the flat parameter vector.
    pub fn parameters(&self) -> Vec<ParameterShape> {
        parameters(&self.shapes())
    }
}

/// What an operator brings beside the states of its inputs.
pub(crate) const OPERATOR_INPUTS: usize = OPERATOR_FEATURES + Resources::FEATURES + 2;

/// A plan as the models read it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PlanInput {
    /// `[N, OPERATOR_INPUTS]`
    pub(crate) features: Vec<f32>,
    /// Microseconds of every operator by the cost model, on a machine of slowness 1. `[N]`
    pub(crate) costs: Vec<f32>,
    /// Bytes that the plan holds, by the same rows.
    pub(crate) held: f32,
}

impl PlanInput {
    /// A plan with at least one operator, under these rows of its operators, on a machine.
    pub(crate) fn new(costs: &Costs, graph: &PhysicalGraph, rows: &[OperatorRows], machine: &Resources) -> Self {
        let of_machine = machine.features();
        let costs: Vec<f32> = (0..graph.operators.len())
            .map(|index| {
                let of_kind = &costs[graph.operators[index].kind as usize];
                let work = graph.work(index, rows);
                let sum: f64 = work.iter().zip(of_kind).map(|(work, cost)| work * f64::from(*cost)).sum();
                sum.clamp(LEAST_US, 1e15) as f32
            })
            .collect();
        let total = costs.iter().sum::<f32>().ln();
        let mut features = Vec::with_capacity(costs.len() * OPERATOR_INPUTS);
        for (index, cost) in costs.iter().enumerate() {
            features.extend(graph.features(index, rows));
            features.extend(of_machine);
            features.extend([cost.ln() / 10.0, total / 10.0]);
        }
        let held = (0..costs.len()).map(|index| graph.held(index, rows)).sum::<f64>() + LEAST_BYTES;
        let held = held.min(most_bytes(graph));
        Self { features, costs, held: held.min(1e15) as f32 }
    }

    /// Microseconds of the plan by the cost model, on a machine of slowness 1.
    pub(crate) fn cost(&self) -> f32 {
        self.costs.iter().sum()
    }
}

/// How long a plan takes and how much memory it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Runtime {
    /// Microseconds from the first to the last row: 5% quantile, median and 95% quantile.
    pub elapsed_us: [f64; 3],
    /// Bytes that its operators have reserved at a time, at most: 5% quantile, median and 95% quantile.
    pub peak_bytes: [f64; 3],
    /// Microseconds of every operator on one thread. `[N]`
    pub operators_us: Vec<f64>,
    /// Microseconds of the plan by the cost model alone.
    pub cost_us: f64,
}

/// Bytes that the operators of a plan may hold at a time.
fn most_bytes(graph: &PhysicalGraph) -> f64 {
    if graph.memory_limit == 0 { f64::INFINITY } else { (graph.memory_limit as f64).max(LEAST_BYTES) }
}

/// The median time of an execution, in microseconds.
pub fn elapsed_us(execution: &Execution) -> f32 {
    let mut times = execution.execution_us.clone();
    times.sort_unstable_by(f32::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(1.0).max(1.0)
}

/// The physical-plan expert with its heads.
#[derive(Debug, Clone)]
pub struct PhysicalExpert {
    config: PhysicalConfig,
    operator: Mlp,
    time: Mlp,
    runtime: Mlp,
    memory: Mlp,
    conformal: [ConformalOffset; 2],
}

impl PhysicalExpert {
    /// The expert with the weights that ship with this crate.
    ///
    /// # Errors
    ///
    /// See [`Self::from_bytes`]; a released crate has none.
    pub fn pretrained() -> Result<Self> {
        Self::from_bytes(weights::PHYSICAL_WEIGHTS, weights::PHYSICAL_MANIFEST)
    }

    /// The expert of a weight file and its manifest.
    ///
    /// # Errors
    ///
    /// Whatever makes the weights unusable: damage, another checksum than the manifest's, another feature layout, tensors that
    /// do not fit the configuration or are not finite.
    pub fn from_bytes(weights: &[u8], manifest: &[u8]) -> Result<Self> {
        let (manifest, parameters) = weights::load_physical(weights, manifest)?;
        Self::from_parameters(&manifest.config, &parameters, &manifest.conformal)
    }

    /// The expert of a flat parameter vector, in the order of [`PhysicalConfig::parameters`]; `conformal` calibrates the intervals
    /// of times and memory.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Config`], [`ExpertsError::Shape`] or [`ExpertsError::NotFinite`].
    pub fn from_parameters(config: &PhysicalConfig, flat: &[f32], conformal: &[ConformalOffset]) -> Result<Self> {
        config.validate()?;
        let shapes = config.shapes();
        check_length("parameters", shapes.iter().map(MlpShape::parameter_count).sum(), flat.len())?;
        check_finite("the parameter vector", flat)?;
        let mlp = |module| Mlp::of(module, &shapes, flat);
        Ok(Self {
            config: config.clone(),
            operator: mlp(Module::Operator),
            time: mlp(Module::OperatorTime),
            runtime: mlp(Module::Runtime),
            memory: mlp(Module::Memory),
            conformal: std::array::from_fn(|head| conformal.get(head).copied().unwrap_or_default()),
        })
    }

    /// The flat parameter vector, as [`Self::from_parameters`] takes it.
    pub fn parameters(&self) -> Vec<f32> {
        let mlps = [&self.operator, &self.time, &self.runtime, &self.memory];
        mlps.into_iter().flat_map(Mlp::parameters).collect()
    }

    /// The calibration of the intervals of times and memory.
    pub fn conformal(&self) -> &[ConformalOffset] {
        &self.conformal
    }

    /// The sizes and the cost model.
    pub fn config(&self) -> &PhysicalConfig {
        &self.config
    }

    /// Whether operators of a kind occur in the plans that it was trained on.
    pub fn knows(&self, kind: OperatorKind) -> bool {
        self.config.known.contains(&kind)
    }

    /// What a plan under these rows takes on a machine.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Graph`] for a malformed or empty plan or another number of rows, [`ExpertsError::NotFinite`] where a number
    /// is not finite.
    pub fn runtime(&self, graph: &PhysicalGraph, rows: &[OperatorRows], machine: &Resources) -> Result<Runtime> {
        if !graph.is_valid() || graph.operators.is_empty() || graph.operators.len() != rows.len() || !machine.is_valid()
        {
            return Err(ExpertsError::Graph("the plan, its rows or the machine are malformed".to_owned()));
        }
        let input = PlanInput::new(&self.config.costs, graph, rows, machine);
        let width = self.config.width;
        let mut states = vec![0.0; graph.operators.len() * width];
        let mut x = vec![0.0; self.operator.input()];
        for (index, operator) in graph.operators.iter().enumerate() {
            x.fill(0.0);
            x[..OPERATOR_INPUTS].copy_from_slice(&input.features[index * OPERATOR_INPUTS..][..OPERATOR_INPUTS]);
            for (place, source) in operator.inputs.iter().enumerate() {
                let role = &mut x[OPERATOR_INPUTS + place.min(1) * width..][..width];
                role.iter_mut().zip(&states[*source as usize * width..]).for_each(|(sum, state)| *sum += state);
            }
            check_finite("the input of an operator", &x)?;
            let state = &mut states[index * width..][..width];
            self.operator.forward(&x, state);
            normalise(state);
        }
        let mut residuals = vec![0.0; graph.operators.len()];
        self.time.forward(&states, &mut residuals);
        check_finite("the times of operators", &residuals)?;
        let times: Vec<f64> = input
            .costs
            .iter()
            .zip(&residuals)
            .map(|(cost, residual)| f64::from(*cost) * f64::from(residual.clamp(-OPERATOR_LIMIT, OPERATOR_LIMIT)).exp())
            .collect();
        let total = times.iter().sum::<f64>();
        let cost = input.cost();
        let mut pooled = states[states.len() - width..].to_vec();
        pooled.resize(2 * width + 1, 0.0);
        for (state, own) in states.chunks_exact(width).zip(&input.costs) {
            pooled[width..2 * width].iter_mut().zip(state).for_each(|(sum, state)| *sum += state * own / cost);
        }
        let mut head = |mlp: &Mlp, base: f64, offset: ConformalOffset| -> Result<[f64; 3]> {
            pooled[2 * width] = base.ln() as f32 / 10.0;
            let mut raw = [0.0; HEAD_OUTPUTS];
            mlp.forward(&pooled, &mut raw);
            check_finite("the runtime of a plan", &raw)?;
            Ok(calibrated(raw, offset).map(|residual| base * f64::from(residual).exp()))
        };
        let slowness = machine.slowness();
        let elapsed_us = head(&self.runtime, total, self.conformal[0])?.map(|elapsed| elapsed * slowness);
        let peak_bytes = head(&self.memory, f64::from(input.held), self.conformal[1])?;
        let peak_bytes = peak_bytes.map(|bytes| bytes.min(most_bytes(graph)));
        let scale = elapsed_us[1] / total;
        let operators_us = times.into_iter().map(|time| time * scale).collect();
        Ok(Runtime { elapsed_us, peak_bytes, operators_us, cost_us: f64::from(cost) * slowness })
    }
}

/// The quantiles of a head's output, calibrated and in order.
pub(crate) fn calibrated(raw: [f32; HEAD_OUTPUTS], offset: ConformalOffset) -> [f32; 3] {
    let CardinalityQuantiles { lower, median, upper } = CardinalityHead::uncalibrated(raw);
    [(lower - offset.lower).min(median), median, (upper + offset.upper).max(median)].map(|one| one.clamp(-12.0, 12.0))
}
