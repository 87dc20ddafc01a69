//! The training loop of the in-context predictor: tasks are drawn as they are needed, none is seen twice.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Result;
use crate::error::ExpertsError;
use crate::fixture::Noise;
use crate::in_context::network::{Network, Places};
use crate::in_context::{InContextConfig, InContextPredictor, in_parallel};
use crate::train::checkpoint::Checkpoint;
use crate::train::curve::Point;
use crate::train::in_context::Task;
use crate::train::in_context::gradient::{EncodedTask, add_gradient, task_loss};
use crate::train::in_context::muon;

/// Parts of a step whose gradients are summed in order, so that threads do not change what is learned.
const LANES: usize = 8;

/// Seeds of the tasks that are held out; those of training count from the run's seed times [`TASKS`].
const HELD_OUT: u64 = 1 << 62;

/// Seeds of tasks that belong to a run.
const TASKS: u64 = 1 << 40;

/// The largest seed of a run, so that none draws what is held out.
const MOST_SEED: u64 = HELD_OUT / TASKS - 1;

/// Whether a task's seed is one of those that are held out.
pub fn is_held_out(seed: u64) -> bool {
    seed >= HELD_OUT
}

/// Steps over which it rises.
const WARM_UP: u64 = 100;

/// Settings of a run.
#[derive(Debug, Clone)]
pub struct InContextFitConfig {
    /// Sizes.
    pub network: InContextConfig,
    /// Steps.
    pub steps: u64,
    /// Tasks of a step.
    pub tasks: usize,
    /// Highest learning rate.
    pub learning_rate: f32,
    /// Share of the steps at the end over which it falls.
    pub cool_down: f32,
    /// Seed of parameters and tasks.
    pub seed: u64,
    /// Steps between evaluations, each followed by a checkpoint.
    pub evaluate_every: u64,
    /// Tasks that are held out.
    pub held_out: usize,
    /// Weights to start from; random ones without.
    pub start: Option<Start>,
    /// Share of its parameters in those that are returned, beside the trained ones: the mean of two predictors that are close
    /// is often better than both (Wortsman et al., "Model soups", ICML 2022).
    pub keep: f32,
    /// What the tasks are drawn from, in words: a run with other tasks is another run.
    pub drawn_from: String,
    /// Where checkpoints are kept.
    pub checkpoint: PathBuf,
    /// Whether to go on from the checkpoint, if there is one.
    pub resume: bool,
    /// Commit of the source, if it is known.
    pub commit: Option<String>,
}

/// Weights to start from.
#[derive(Debug, Clone)]
pub struct Start {
    /// The predictor with these weights.
    pub predictor: InContextPredictor,
    /// SHA-256 of their file, hexadecimal.
    pub sha256: String,
    /// Tasks that they were trained on.
    pub seen: u64,
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct InContextFitted {
    /// The averaged parameters of the last step, with their share of those to start from.
    pub parameters: Vec<f32>,
    /// Steps taken.
    pub steps: u64,
    /// Commit of the source with which the run began, if it was known.
    pub begun: Option<String>,
}

/// What tells a run from others, of which it cannot go on; it may be made longer.
#[derive(Serialize)]
struct Identity<'a> {
    network: &'a InContextConfig,
    tasks: usize,
    drawn_from: &'a str,
    learning_rate: f32,
    start: Option<&'a str>,
}

/// The losses on held-out tasks.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct InContextLosses {
    /// Cross-entropy over that of the classes' shares among the examples.
    pub classes: f32,
    /// Pinball loss over that of the examples' quantiles.
    pub numbers: f32,
}

impl InContextLosses {
    fn score(self) -> f32 {
        (self.classes + self.numbers) / 2.0
    }
}

/// What a run says while it goes on.
#[derive(Debug, Clone, Copy)]
pub enum InContextEvent {
    /// A step, with its mean loss.
    Step(Point),
    /// An evaluation after a step.
    Evaluation(u64, InContextLosses),
}

/// Learning rate of a step: it rises, stays, and falls linearly at the end, so that a run can be made longer from any checkpoint
/// before (Hägele et al., "Scaling laws and compute-optimal training beyond fixed training durations", NeurIPS 2024).
fn rate(config: &InContextFitConfig, step: u64) -> f32 {
    let cool = ((config.steps as f32 * config.cool_down) as u64).max(1);
    let left = config.steps.saturating_sub(step);
    config.learning_rate * ((step + 1) as f32 / WARM_UP as f32).min(1.0) * (left as f32 / cool as f32).min(1.0)
}

/// Random parameters to start from: small enough that a layer changes little, biases zero.
fn initial(config: &InContextConfig, seed: u64) -> Vec<f32> {
    let mut noise = Noise::new(seed);
    let mut parameters = vec![];
    for parameter in config.parameters() {
        let outward = parameter.name.ends_with("mix.weight") || parameter.name.ends_with("mlp.1.weight");
        let scale = match parameter.shape[..] {
            [_] => 0.0,
            _ if parameter.last => 0.02,
            _ if parameter.name.starts_with("cell") || parameter.name.starts_with("label") => 0.5,
            [input, _] if outward => (3.0 / input as f32 / config.layers as f32).sqrt() * 0.5,
            [input, ..] => (3.0 / input as f32).sqrt(),
            [] => 0.0,
        };
        parameters.extend(noise.vector(parameter.len()).into_iter().map(|value| scale * value));
    }
    parameters
}

/// Fits a predictor to the tasks that `draw` makes of seeds, some of which are held out ([`is_held_out`]).
///
/// # Errors
///
/// [`ExpertsError::Config`] for settings that make no run, [`ExpertsError::Training`] where the checkpoint is of another one, and
/// what a checkpoint cannot be read or written for.
pub fn fit(
    config: &InContextFitConfig,
    draw: &(impl Fn(u64) -> Task + Sync),
    mut report: impl FnMut(InContextEvent),
) -> Result<InContextFitted> {
    config.network.validate()?;
    if config.tasks == 0 || config.seed > MOST_SEED {
        return Err(ExpertsError::Config(format!("{} tasks by seed {}", config.tasks, config.seed)));
    }
    if config.keep > 0.0 && config.start.is_none() {
        return Err(ExpertsError::Config("there are no weights of which to keep a share".to_owned()));
    }
    let (shapes, places) = (config.network.parameters(), Places::new(&config.network));
    let identity = Identity {
        network: &config.network,
        tasks: config.tasks,
        drawn_from: &config.drawn_from,
        learning_rate: config.learning_rate,
        start: config.start.as_ref().map(|start| start.sha256.as_str()),
    };
    let file = config.checkpoint.join("checkpoint.safetensors");
    let Checkpoint { mut run, begun, .. } = if config.resume && file.exists() {
        Checkpoint::read(&file, &identity, &shapes, config.seed)?
    } else {
        let start = config.start.as_ref().map(|start| start.predictor.parameters().to_vec());
        let start = start.unwrap_or_else(|| initial(&config.network, config.seed));
        Checkpoint::begin(&shapes, start, config.commit.clone())
    };
    create(&config.checkpoint)?;
    let held_out = draw_all(draw, (0..config.held_out as u64).map(|task| HELD_OUT + task));
    while run.step < config.steps {
        let first = config.seed * TASKS + run.step * config.tasks as u64;
        let tasks = draw_all(draw, first..first + config.tasks as u64);
        let network = Network { config: &config.network, places: &places, flat: &run.parameters };
        let (loss, gradient) = step(&network, &tasks);
        let learning_rate = rate(config, run.step);
        muon::update(&mut run, &shapes, learning_rate, &gradient);
        let mut point = Point { step: run.step, loss, learning_rate, held_out: None };
        if run.step % config.evaluate_every.max(1) == 0 || run.step == config.steps {
            let network = Network { config: &config.network, places: &places, flat: &run.average };
            let losses = evaluate(&network, &held_out);
            point.held_out = Some(losses.score());
            let checkpoint = Checkpoint {
                run: run.clone(),
                best: run.average.clone(),
                best_score: losses.score(),
                best_step: run.step,
                stale: 0,
                begun: begun.clone(),
            };
            checkpoint.write(&file, &identity, config.seed)?;
            report(InContextEvent::Evaluation(run.step, losses));
        }
        report(InContextEvent::Step(point));
    }
    let mut parameters = run.average;
    if let Some(start) = config.start.as_ref().filter(|_| config.keep > 0.0) {
        let mix = |(own, start): (&mut f32, &f32)| *own = (1.0 - config.keep) * *own + config.keep * start;
        parameters.iter_mut().zip(start.predictor.parameters()).for_each(mix);
        let network = Network { config: &config.network, places: &places, flat: &parameters };
        report(InContextEvent::Evaluation(run.step, evaluate(&network, &held_out)));
    }
    Ok(InContextFitted { parameters, steps: run.step, begun })
}

fn create(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|source| ExpertsError::Io { path: folder.to_owned(), source })
}

/// Draws and encodes tasks on all threads, in order.
fn draw_all(draw: &(impl Fn(u64) -> Task + Sync), seeds: impl Iterator<Item = u64>) -> Vec<EncodedTask> {
    in_parallel(seeds.collect(), &|(), seed| EncodedTask::new(&draw(seed)))
}

/// The mean loss of tasks and its gradient.
fn step(network: &Network<'_>, tasks: &[EncodedTask]) -> (f32, Vec<f32>) {
    // The largest tasks first, each to the lane that has least to do.
    let mut order: Vec<usize> = (0..tasks.len()).collect();
    order.sort_by_key(|task| std::cmp::Reverse(tasks[*task].work()));
    let mut lanes = vec![(0, vec![]); LANES];
    for task in order {
        if let Some((work, lane)) = lanes.iter_mut().min_by_key(|(work, _)| *work) {
            *work += tasks[task].work();
            lane.push(task);
        }
    }
    let weight = 1.0 / tasks.len() as f32;
    let sums = in_parallel(lanes, &|(), (_, lane): (usize, Vec<usize>)| {
        let mut gradient = vec![0.0; network.flat.len()];
        let losses = lane.iter().map(|task| add_gradient(network, &tasks[*task], weight, &mut gradient));
        (losses.sum::<f32>(), gradient)
    });
    let (mut loss, mut gradient) = (0.0, vec![0.0; network.flat.len()]);
    for (one, slopes) in sums {
        loss += one;
        gradient.iter_mut().zip(slopes).for_each(|(sum, slope)| *sum += slope);
    }
    (loss * weight, gradient)
}

fn evaluate(network: &Network<'_>, tasks: &[EncodedTask]) -> InContextLosses {
    let places: Vec<usize> = (0..tasks.len()).collect();
    let losses = in_parallel(places, &|(), task| task_loss(network, &tasks[task]));
    let mean = |classes: bool| {
        let of_kind = || tasks.iter().zip(&losses).filter(|(task, _)| task.has_classes() == classes);
        let known: f32 = of_kind().map(|(task, _)| task.known).sum();
        of_kind().map(|(_, loss)| loss).sum::<f32>() / known.max(1e-6)
    };
    InContextLosses { classes: mean(true), numbers: mean(false) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::in_context::tables::{self, TableConfig};
    use crate::train::in_context::write;

    #[test]
    fn learns_resumes_and_repeats_itself() {
        let folder = tempfile::tempdir().unwrap();
        let table = TableConfig { examples: 16..=24, rows: 8, features: 2..=4 };
        let config = |steps, resume| InContextFitConfig {
            network: InContextConfig { width: 16, heads: 2, layers: 2, hidden: 24, thinking: 2 },
            steps,
            tasks: 8,
            learning_rate: 5e-3,
            // So that a shorter run is the beginning of a longer one.
            cool_down: 0.0,
            seed: 3,
            evaluate_every: 20,
            held_out: 24,
            start: None,
            keep: 0.0,
            drawn_from: "tables".to_owned(),
            checkpoint: folder.path().to_owned(),
            resume,
            commit: None,
        };
        let draw = |seed| tables::task(&table, seed);
        let mut scores = vec![];
        let mut evaluated = vec![];
        // There is nothing to go on from yet.
        let whole = fit(&config(60, true), &draw, |event| match event {
            InContextEvent::Evaluation(step, losses) => {
                evaluated.push(step);
                scores.push(losses.score());
            }
            InContextEvent::Step(point) => assert_eq!(point.held_out.map(|_| point.step), evaluated.pop()),
        });
        let whole = whole.unwrap();
        assert!(scores.len() == 3 && scores[2] < scores[0] && scores[2] < 1.0, "{scores:?}");
        fit(&config(40, false), &draw, |_| ()).unwrap();
        assert_eq!(fit(&config(60, true), &draw, |_| ()).unwrap(), whole);
        // Nothing is left to do: these are the weights of 60 steps.
        assert_eq!(fit(&config(40, true), &draw, |_| ()).unwrap(), whole);
        // Other tasks are another run, and some settings none.
        let other = InContextFitConfig { drawn_from: "others".to_owned(), ..config(80, true) };
        assert!(matches!(fit(&other, &draw, |_| ()), Err(ExpertsError::Training(_))));
        for none in [
            InContextFitConfig { keep: 0.5, ..config(40, false) },
            InContextFitConfig { seed: MOST_SEED + 1, ..config(40, false) },
            InContextFitConfig { tasks: 0, ..config(40, false) },
        ] {
            assert!(matches!(fit(&none, &draw, |_| ()), Err(ExpertsError::Config(_))));
        }
        // Half of what it started from.
        let start = initial(&config(0, true).network, 9);
        let predictor = InContextPredictor::from_parameters(&config(0, true).network, start.clone()).unwrap();
        let start_of = Start { predictor, sha256: "start".to_owned(), seen: 7 };
        let from = |steps, keep| InContextFitConfig { start: Some(start_of.clone()), keep, ..config(steps, true) };
        std::fs::remove_file(folder.path().join("checkpoint.safetensors")).unwrap();
        let end = fit(&from(20, 0.0), &draw, |_| ()).unwrap();
        let mut evaluations = 0;
        let kept = fit(&from(20, 0.5), &draw, |_| evaluations += 1).unwrap();
        let mean = end.parameters.iter().zip(&start).map(|(own, start)| (own + start) / 2.0);
        assert!(kept.parameters.iter().zip(mean).all(|(kept, mean)| (kept - mean).abs() < 1e-6) && evaluations == 1);
        let manifest = write(&folder.path().join("weights"), &from(20, 0.5), &kept, "test".to_owned()).unwrap();
        assert_eq!((manifest.steps, manifest.seen, manifest.start_sha256.as_deref()), (20, 7 + 160, Some("start")));
    }
}
