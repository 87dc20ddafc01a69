//! The physical-plan expert: a cost model is calibrated on executed plans, then the expert learns what to correct it by.
//!
//! As in the seed paper a model of traditional costs comes first and runtimes after it; here the costs are a base that stays, so
//! that the expert starts from them. Plans are seen by turns under the rows that were estimated and those that were counted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::tensor::{Device, IndexingUpdateOp, Tensor};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use relata_featurize::graph::LAYOUT_VERSION;
use relata_featurize::physical::{OPERATOR_FEATURES, Observed, OperatorKind, OperatorRows, WORK};
use relata_featurize::resources::Resources;
use relata_featurize::trace::{self, Execution};

use crate::Result;
use crate::config::Module;
use crate::error::ExpertsError;
use crate::heads::ConformalOffset;
use crate::message_passing::Gather;
pub use crate::physical::elapsed_us;
use crate::physical::{Costs, OPERATOR_INPUTS, OPERATOR_LIMIT, PhysicalConfig, PhysicalExpert, PlanInput};
use crate::train::calibrate::conformal_offset;
use crate::train::curve::Point;
use crate::train::data::check_names;
use crate::train::export::write_files;
use crate::train::model::{Models, normalise};
use crate::train::optimizer::{AdamW, AdamWConfig, initial_parameters, learning_rate};
use crate::tuned::QErrors;
use crate::weights::{PhysicalManifest, RuntimeErrors, sha256, to_bytes};

pub mod tune;

/// Microseconds by which the times of operators are rounded when they are compared.
const OPERATOR_SLACK_US: f32 = 20.0;

/// Weight of the times of operators beside that of the plan.
const OPERATOR_WEIGHT: f32 = 0.2;

/// Weight of the memory beside the time.
const MEMORY_WEIGHT: f32 = 0.3;

/// The file that says how traces to train on were made.
const MANIFEST: &str = "trace.json";

/// How far the features of a machine are moved at most, in `ln` units: the times are those of one machine, so that what
/// distinguishes it must not be learned by heart.
const MACHINE_NOISE: f32 = 0.35;

/// Plans that an operator occurs in to be known.
const LEAST_PLANS: usize = 20;

/// Sweeps of the coordinate descent that calibrates the costs.
const SWEEPS: usize = 2000;

/// Settings of a run.
#[derive(Debug, Clone)]
pub struct PhysicalFitConfig {
    /// Optimizer.
    pub optimizer: AdamWConfig,
    /// Steps.
    pub steps: u64,
    /// Plans of a step.
    pub batch: usize,
    /// Seed of parameters and batches.
    pub seed: u64,
    /// Steps between evaluations.
    pub evaluate_every: u64,
}

impl Default for PhysicalFitConfig {
    fn default() -> Self {
        let optimizer = AdamWConfig { learning_rate: 1e-3, ..AdamWConfig::default() };
        Self { optimizer, steps: 2500, batch: 64, seed: 1, evaluate_every: 250 }
    }
}

/// The executed plans of one database.
#[derive(Debug, Clone, Default)]
pub struct Executed {
    /// Its name.
    pub database: String,
    /// The plans.
    pub executions: Vec<Execution>,
}

/// The executed plans to train on and those held out.
#[derive(Debug, Clone, Default)]
pub struct PhysicalCorpus {
    /// To train on.
    pub training: Vec<Executed>,
    /// To choose the step and to calibrate.
    pub held_out: Vec<Executed>,
}

impl PhysicalCorpus {
    /// Reads the traces below `folders`; the databases in `held_out` are held out.
    ///
    /// # Errors
    ///
    /// When a trace cannot be read, was not made to train on, nothing is left to train on, or no database has a name that is to
    /// be held out.
    pub fn read(folders: &[PathBuf], held_out: &[String]) -> Result<Self> {
        let mut corpus = Self::default();
        for folder in folders {
            // Executions to measure on are kept without it.
            if !folder.join(MANIFEST).exists() {
                return Err(ExpertsError::Training(format!("{} holds no {MANIFEST}", folder.display())));
            }
            for mut trace in trace::read_all(folder)? {
                trace.executions.retain(|one| !one.graph.operators.is_empty() && one.machine.is_valid());
                let part = if held_out.contains(&trace.name) { &mut corpus.held_out } else { &mut corpus.training };
                let executed = Executed { database: trace.name, executions: trace.executions };
                part.extend((!executed.executions.is_empty()).then_some(executed));
            }
        }
        let read = corpus.training.iter().chain(&corpus.held_out);
        check_names(held_out, read.map(|executed| executed.database.as_str()))?;
        if corpus.training.is_empty() {
            return Err(ExpertsError::Training("no executed plan is left to train on".to_owned()));
        }
        Ok(corpus)
    }
}

/// The rows of a plan's operators as they were estimated, or counted.
pub fn rows(execution: &Execution, counted: bool) -> Vec<OperatorRows> {
    if !counted {
        return execution.graph.filled(&execution.estimated);
    }
    let exact = |rows: f32| OperatorRows::exact(f64::from(rows));
    let known: Vec<Option<OperatorRows>> = execution.observed.iter().map(|one| one.rows.map(exact)).collect();
    execution.graph.filled(&known)
}

/// The costs that give the times of the executions with the least squared relative error, none of them negative (Lawson and
/// Hanson, "Solving least squares problems", 1974; by coordinate descent).
fn calibrate(executed: &[Executed]) -> Costs {
    const SIZE: usize = OperatorKind::COUNT * WORK;
    let mut gram = vec![0.0f64; SIZE * SIZE];
    let mut target = vec![0.0f64; SIZE];
    for execution in executed.iter().flat_map(|one| &one.executions) {
        let scale = execution.machine.slowness() / f64::from(elapsed_us(execution));
        let rows = rows(execution, true);
        let mut work = vec![0.0f64; SIZE];
        for (index, operator) in execution.graph.operators.iter().enumerate() {
            let of_kind = &mut work[operator.kind as usize * WORK..][..WORK];
            of_kind.iter_mut().zip(execution.graph.work(index, &rows)).for_each(|(sum, one)| *sum += one * scale);
        }
        let used: Vec<usize> = (0..SIZE).filter(|&place| work[place] > 0.0).collect();
        for &row in &used {
            target[row] += work[row];
            used.iter().for_each(|&column| gram[row * SIZE + column] += work[row] * work[column]);
        }
    }
    let mut costs = vec![0.0f64; SIZE];
    for _ in 0..SWEEPS {
        for place in 0..SIZE {
            let diagonal = gram[place * SIZE + place];
            if diagonal > 0.0 {
                let sum: f64 = gram[place * SIZE..][..SIZE].iter().zip(&costs).map(|(gram, cost)| gram * cost).sum();
                costs[place] = (costs[place] + (target[place] - sum) / (diagonal * (1.0 + 1e-6))).max(0.0);
            }
        }
    }
    costs.chunks_exact(WORK).map(|costs| std::array::from_fn(|place| costs[place] as f32)).collect()
}

/// The kinds of operators that occur in enough plans; what is anything else may be anything.
fn known(executed: &[Executed]) -> Vec<OperatorKind> {
    let mut plans: BTreeMap<OperatorKind, usize> = BTreeMap::new();
    for execution in executed.iter().flat_map(|one| &one.executions) {
        let kinds: BTreeSet<OperatorKind> = execution.graph.operators.iter().map(|operator| operator.kind).collect();
        kinds.into_iter().for_each(|kind| *plans.entry(kind).or_default() += 1);
    }
    plans.remove(&OperatorKind::Other);
    plans.into_iter().filter(|(_, plans)| *plans >= LEAST_PLANS).map(|(kind, _)| kind).collect()
}

/// A plan under some rows with what was measured of it.
#[derive(Debug, Clone)]
struct Sample {
    input: PlanInput,
    /// The inputs of every operator.
    inputs: Vec<Vec<u32>>,
    /// The level of every operator: above all its inputs.
    levels: Vec<u32>,
    /// `ln` microseconds of the plan, on a machine of slowness 1 as all times here.
    time: f32,
    /// `ln` bytes.
    memory: f32,
    /// Weight of the bytes beside the time.
    memory_weight: f32,
    /// Microseconds of every operator on one thread, and its share of the measured times; 0 where it was not measured.
    operators: Vec<(f32, f32)>,
}

impl Sample {
    fn new(costs: &Costs, execution: &Execution, counted: bool) -> Self {
        let rows = rows(execution, counted);
        let graph = &execution.graph;
        let mut levels: Vec<u32> = Vec::with_capacity(graph.operators.len());
        for operator in &graph.operators {
            let below = operator.inputs.iter().map(|input| levels[*input as usize] + 1).max();
            levels.push(below.unwrap_or(0));
        }
        let slowness = execution.machine.slowness() as f32;
        let parallel = |index: usize| graph.operators[index].facts.partitions.min(graph.threads as f32).max(1.0);
        let time = |(index, one): (usize, &Observed)| one.elapsed_us.unwrap_or(0.0) / parallel(index) / slowness;
        let times: Vec<f32> = execution.observed.iter().enumerate().map(time).collect();
        let all = times.iter().sum::<f32>().max(1e-3);
        Self {
            input: PlanInput::new(costs, graph, &rows, &execution.machine),
            inputs: graph.operators.iter().map(|operator| operator.inputs.to_vec()).collect(),
            levels,
            time: (elapsed_us(execution) / slowness).ln(),
            memory: (execution.peak_bytes as f64 + crate::physical::LEAST_BYTES).ln() as f32,
            memory_weight: MEMORY_WEIGHT,
            operators: times.into_iter().map(|time| (time, time / all)).collect(),
        }
    }

    /// Moves the features of the machine, at random.
    fn blur(mut self, random: &mut StdRng) -> Self {
        let noise: [f32; Resources::FEATURES] =
            std::array::from_fn(|_| random.random_range(-MACHINE_NOISE..=MACHINE_NOISE));
        for operator in self.input.features.chunks_exact_mut(OPERATOR_INPUTS) {
            let of_machine = operator[OPERATOR_FEATURES..].iter_mut().zip(noise);
            of_machine.for_each(|(feature, noise)| *feature += noise);
        }
        self
    }
}

/// The operators of one level of a batch.
struct Level {
    rows: usize,
    features: Vec<f32>,
    roles: [Gather; 2],
}

/// Plans of one step, their operators by level.
struct Batch {
    levels: Vec<Level>,
    /// The plan of every operator, in the order of the levels. `[N]`
    plans: Vec<u32>,
    /// Row of the root of every plan. `[P]`
    roots: Vec<u32>,
    /// By operator: `ln` cost, share of the plan's cost, measured time and its share. `[N]`
    costs: Vec<f32>,
    shares: Vec<f32>,
    times: Vec<f32>,
    weights: Vec<f32>,
    /// By plan: `ln` of the bytes held, of the time and of the memory, and the weights of both. `[P]`
    held: Vec<f32>,
    targets: [Vec<f32>; 2],
    head_weights: [Vec<f32>; 2],
}

impl Batch {
    fn new(samples: &[&Sample]) -> Self {
        let mut order: Vec<(u32, u32, u32)> = vec![];
        for (plan, sample) in samples.iter().enumerate() {
            order.extend(sample.levels.iter().enumerate().map(|(index, level)| (*level, plan as u32, index as u32)));
        }
        order.sort_unstable();
        let mut places: Vec<Vec<u32>> = samples.iter().map(|sample| vec![0; sample.levels.len()]).collect();
        for (place, (_, plan, index)) in order.iter().enumerate() {
            places[*plan as usize][*index as usize] = place as u32;
        }
        let of = |(plan, index): (u32, u32)| (samples[plan as usize], index as usize);
        let levels = order.chunk_by(|a, b| a.0 == b.0).map(|members| {
            let mut level = Level { rows: members.len(), features: vec![], roles: Default::default() };
            for (row, &(_, plan, index)) in members.iter().enumerate() {
                let (sample, index) = of((plan, index));
                level.features.extend(&sample.input.features[index * OPERATOR_INPUTS..][..OPERATOR_INPUTS]);
                for (role, source) in sample.inputs[index].iter().enumerate() {
                    let role = &mut level.roles[role.min(1)];
                    role.sources.push(places[plan as usize][*source as usize]);
                    role.targets.push(row as u32);
                }
            }
            level
        });
        let each = |value: &dyn Fn(&Sample, usize) -> f32| -> Vec<f32> {
            order
                .iter()
                .map(|&(_, plan, index)| of((plan, index)))
                .map(|(sample, index)| value(sample, index))
                .collect()
        };
        let plans = |value: &dyn Fn(&Sample) -> f32| samples.iter().map(|sample| value(sample)).collect();
        Self {
            levels: levels.collect(),
            plans: order.iter().map(|(_, plan, _)| *plan).collect(),
            roots: places.iter().filter_map(|places| places.last().copied()).collect(),
            costs: each(&|sample, index| sample.input.costs[index].ln()),
            shares: each(&|sample, index| sample.input.costs[index] / sample.input.cost()),
            times: each(&|sample, index| (sample.operators[index].0 + OPERATOR_SLACK_US).ln()),
            weights: each(&|sample, index| sample.operators[index].1),
            held: plans(&|sample| sample.input.held.ln()),
            targets: [plans(&|sample| sample.time), plans(&|sample| sample.memory)],
            head_weights: [plans(&|_| 1.0), plans(&|sample| sample.memory_weight)],
        }
    }
}

/// What the models say of a batch: raw outputs of the heads `[P, 3]` with their bases `[P, 1]`, and `ln` times of operators `[N, 1]`.
struct Output {
    heads: [(Tensor<2>, Tensor<2>); 2],
    operators: Tensor<2>,
}

fn forward(config: &PhysicalConfig, models: &Models, batch: &Batch) -> Output {
    let (width, plans, nodes) = (config.width, batch.roots.len(), batch.plans.len());
    let mut states: Option<Tensor<2>> = None;
    for level in &batch.levels {
        let mut input = vec![models.constant(&level.features, [level.rows, OPERATOR_INPUTS])];
        input.extend(level.roles.iter().map(|role| models.role(role, level.rows, states.as_ref(), width)));
        let own = normalise(models.mlp(Module::Operator).forward(Tensor::cat(input, 1)));
        states = Some(match states {
            Some(before) => Tensor::cat(vec![before, own], 0),
            None => own,
        });
    }
    let states = states.unwrap_or_else(|| models.zeros([nodes, width]));
    let residuals = models.mlp(Module::OperatorTime).forward(states.clone()).clamp(-OPERATOR_LIMIT, OPERATOR_LIMIT);
    let operators = residuals + models.constant(&batch.costs, [nodes, 1]);
    let of_plan = models.indices(&batch.plans);
    let sum = |values: Tensor<2>, width: usize| {
        models.zeros([plans, width]).select_assign(0, of_plan.clone(), values, IndexingUpdateOp::Add)
    };
    let total = sum(operators.clone().exp(), 1).log();
    let pooled = sum(states.clone() * models.constant(&batch.shares, [nodes, 1]), width);
    let root = states.select(0, models.indices(&batch.roots));
    let held = models.constant(&batch.held, [plans, 1]);
    let head = |module, base: Tensor<2>| {
        let input = Tensor::cat(vec![root.clone(), pooled.clone(), base.clone().div_scalar(10.0)], 1);
        (models.mlp(module).forward(input), base)
    };
    Output { heads: [head(Module::Runtime, total), head(Module::Memory, held)], operators }
}

fn step_loss(config: &PhysicalConfig, flat: &[f32], batch: &Batch, device: &Device) -> (f32, Vec<f32>) {
    let models = Models::new(&config.shapes(), flat, device);
    let output = forward(config, &models, batch);
    let plans = batch.roots.len();
    let pinball = |head: usize| {
        let (raw, base) = &output.heads[head];
        let residuals = models.constant(&batch.targets[head], [plans, 1]) - base.clone();
        let losses = models.pinball(raw, residuals, &config.quantiles);
        (losses * models.constant(&batch.head_weights[head], [plans, 1])).sum()
    };
    let nodes = batch.plans.len();
    let times = output.operators.clone().exp().add_scalar(OPERATOR_SLACK_US).log();
    let operators =
        (times - models.constant(&batch.times, [nodes, 1])).abs() * models.constant(&batch.weights, [nodes, 1]);
    let loss = pinball(0) + pinball(1) + operators.sum().mul_scalar(OPERATOR_WEIGHT);
    let loss = loss.div_scalar(plans as f32);
    let gradient = models.gradients(loss.backward());
    (loss.into_scalar::<f32>(), gradient)
}

/// The result of a run.
#[derive(Debug, Clone)]
pub struct FittedPhysical {
    /// The sizes and the cost model.
    pub config: PhysicalConfig,
    /// The averaged parameters with the best score on the held-out databases.
    pub parameters: Vec<f32>,
    /// The step they are from.
    pub step: u64,
    /// Calibration of the intervals of times and of memory.
    pub conformal: Vec<ConformalOffset>,
    /// Errors on the held-out databases.
    pub errors: Vec<RuntimeErrors>,
}

/// Calibrates the costs and fits the expert above them; `report` sees every step.
///
/// # Errors
///
/// [`ExpertsError`] for an unusable configuration.
pub fn fit(
    corpus: &PhysicalCorpus,
    settings: &PhysicalFitConfig,
    device: &Device,
    mut report: impl FnMut(&Point),
) -> Result<FittedPhysical> {
    let config = PhysicalConfig::above(calibrate(&corpus.training), known(&corpus.training));
    config.validate()?;
    let mut random = StdRng::seed_from_u64(settings.seed);
    let mut of = |one: &Executed, counted: bool| -> Vec<Sample> {
        let sample = |execution| Sample::new(&config.costs, execution, counted).blur(&mut random);
        one.executions.iter().map(sample).collect()
    };
    let training: Vec<[Vec<Sample>; 2]> = corpus.training.iter().map(|one| [of(one, false), of(one, true)]).collect();
    let shapes = config.parameters();
    let quiet = [Module::OperatorTime, Module::Runtime, Module::Memory];
    let mut run = AdamW::new(&shapes, initial_parameters(&shapes, &quiet, settings.seed));
    let (mut best, mut best_score, mut best_step) = (run.average.clone(), f64::INFINITY, 0);
    for step in 0..settings.steps {
        let mut random = StdRng::seed_from_u64(settings.seed.rotate_left(32) ^ step);
        let members: Vec<&Sample> = (0..settings.batch)
            .map(|_| {
                let database = &training[random.random_range(0..training.len())];
                let samples = &database[random.random_range(0..2)];
                &samples[random.random_range(0..samples.len())]
            })
            .collect();
        let (loss, gradient) = step_loss(&config, &run.parameters, &Batch::new(&members), device);
        let rate = learning_rate(settings.optimizer.learning_rate, step, settings.steps);
        run.update(&settings.optimizer, rate, &gradient);
        let mut point = Point { step: step + 1, loss, learning_rate: rate, held_out: None };
        if (step + 1) % settings.evaluate_every.max(1) == 0 || step + 1 == settings.steps {
            let expert = PhysicalExpert::from_parameters(&config, &run.average, &[])?;
            let outcomes = outcomes(&expert, &corpus.held_out, false)?;
            let score = outcomes.iter().map(|one| one.time.abs()).sum::<f64>() / outcomes.len().max(1) as f64;
            point.held_out = Some(score as f32);
            if score < best_score || corpus.held_out.is_empty() {
                (best, best_score, best_step) = (run.average.clone(), score, step + 1);
            }
        }
        report(&point);
    }
    let plain = outcomes(&PhysicalExpert::from_parameters(&config, &best, &[])?, &corpus.held_out, false)?;
    let times = offset(&config, plain.iter().map(|one| one.ends));
    let conformal = vec![times, offset(&config, plain.iter().map(|one| one.memory_ends))];
    let expert = PhysicalExpert::from_parameters(&config, &best, &conformal)?;
    // Nothing is known of nothing.
    let kinds = [("estimated", false), ("counted", true)].into_iter().filter(|_| !plain.is_empty());
    let errors = kinds
        .map(|(name, counted)| Ok::<_, ExpertsError>(errors(name, &outcomes(&expert, &corpus.held_out, counted)?)));
    let errors = errors.collect::<Result<_>>()?;
    Ok(FittedPhysical { parameters: best, step: best_step, conformal, errors, config })
}

/// What the expert says of one execution, in `ln` units above the truth.
#[derive(Debug, Clone, Copy)]
struct Outcome {
    cost: f64,
    time: f64,
    memory: f64,
    /// Whether it is known how much memory was held: nobody measures that of recorded executions.
    measured: bool,
    /// Lower and upper end of the interval.
    ends: [f64; 2],
    memory_ends: [f64; 2],
}

fn outcomes(expert: &PhysicalExpert, executed: &[Executed], counted: bool) -> Result<Vec<Outcome>> {
    executed.iter().flat_map(|one| &one.executions).map(|execution| Outcome::new(expert, execution, counted)).collect()
}

impl Outcome {
    fn new(expert: &PhysicalExpert, execution: &Execution, counted: bool) -> Result<Self> {
        let said = expert.runtime(&execution.graph, &rows(execution, counted), &execution.machine)?;
        let truth = f64::from(elapsed_us(execution)).ln();
        let bytes = (execution.peak_bytes as f64 + crate::physical::LEAST_BYTES).ln();
        let above = |value: f64, truth: f64| value.max(f64::MIN_POSITIVE).ln() - truth;
        Ok(Self {
            cost: above(said.cost_us, truth),
            time: above(said.elapsed_us[1], truth),
            memory: above(said.peak_bytes[1], bytes),
            measured: execution.peak_bytes > 0,
            ends: [above(said.elapsed_us[0], truth), above(said.elapsed_us[2], truth)],
            memory_ends: [above(said.peak_bytes[0], bytes), above(said.peak_bytes[2], bytes)],
        })
    }
}

/// The offset that calibrates intervals, from the ends of those without any.
fn offset(config: &PhysicalConfig, ends: impl Iterator<Item = [f64; 2]>) -> ConformalOffset {
    let miss = f64::from(1.0 - (config.quantiles[2] - config.quantiles[0]));
    conformal_offset(ends.map(|[lower, upper]| [lower as f32, -upper as f32]), miss)
}

fn errors(rows: &str, outcomes: &[Outcome]) -> RuntimeErrors {
    let percentiles = |value: fn(&Outcome) -> f64| {
        QErrors::of(&outcomes.iter().map(|one| value(one).abs() as f32).collect::<Vec<_>>()).percentiles
    };
    let covered = outcomes.iter().filter(|one| one.ends[0] <= 0.0 && one.ends[1] >= 0.0).count();
    RuntimeErrors {
        rows: rows.to_owned(),
        executions: outcomes.len(),
        cost: percentiles(|one| one.cost),
        expert: percentiles(|one| one.time),
        memory: percentiles(|one| one.memory),
        coverage: covered as f64 / outcomes.len().max(1) as f64,
    }
}

/// Writes `physical.safetensors` and `physical.json` to `folder` after reading them back.
///
/// # Errors
///
/// [`ExpertsError::Io`] if a file cannot be written; otherwise what [`PhysicalExpert::from_bytes`] refuses.
pub fn write(
    folder: &Path,
    corpus: &PhysicalCorpus,
    fitted: &FittedPhysical,
    seed: u64,
    command: String,
    commit: Option<String>,
) -> Result<PhysicalManifest> {
    let weights = to_bytes(&fitted.config.parameters(), &fitted.parameters)?;
    let names = |executed: &[Executed]| executed.iter().map(|one| one.database.clone()).collect();
    let manifest = PhysicalManifest {
        sha256: sha256(&weights),
        layout_version: LAYOUT_VERSION,
        config: fitted.config.clone(),
        seed,
        steps: fitted.step,
        command,
        commit,
        databases: names(&corpus.training),
        held_out: names(&corpus.held_out),
        executions: corpus.training.iter().map(|one| one.executions.len()).sum(),
        conformal: fitted.conformal.clone(),
        errors: fitted.errors.clone(),
    };
    let json = serde_json::to_vec_pretty(&manifest)?;
    PhysicalExpert::from_bytes(&weights, &json)?;
    write_files(folder, [("physical.safetensors", weights), ("physical.json", json)])?;
    Ok(manifest)
}

#[cfg(test)]
mod tests;
