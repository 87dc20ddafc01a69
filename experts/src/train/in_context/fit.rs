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
use crate::train::optimizer::AdamW;

/// Parts of a step whose gradients are summed in order, so that threads do not change what is learned.
const LANES: usize = 8;

/// Seeds of the tasks that are held out; those of training count from 0.
const HELD_OUT: u64 = 1 << 62;

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
    /// Predictor to start from; random parameters without.
    pub start: Option<InContextPredictor>,
    /// Share of its parameters in those that are returned, beside the trained ones: the mean of two predictors that are close
    /// is often better than both (Wortsman et al., "Model soups", ICML 2022).
    pub keep: f32,
    /// Tasks that it was trained on.
    pub seen: u64,
    /// Where checkpoints are kept.
    pub checkpoint: PathBuf,
    /// Whether to go on from the checkpoint.
    pub resume: bool,
}

/// What a checkpoint has to fit: a run may be made longer.
#[derive(Serialize)]
struct Same<'a> {
    network: &'a InContextConfig,
    tasks: usize,
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

/// Fits a predictor to the tasks that `draw` makes of seeds, some of which are held out ([`is_held_out`]); returns the averaged
/// parameters of the last step, with their share of those to start from.
///
/// # Errors
///
/// [`ExpertsError::Training`] where the checkpoint is of another run, and what a checkpoint cannot be read or written for.
pub fn fit(
    config: &InContextFitConfig,
    draw: &(impl Fn(u64) -> Task + Sync),
    mut report: impl FnMut(InContextEvent),
) -> Result<Vec<f32>> {
    config.network.validate()?;
    let (shapes, places) = (config.network.parameters(), Places::new(&config.network));
    let same = Same { network: &config.network, tasks: config.tasks };
    let file = config.checkpoint.join("checkpoint.safetensors");
    let mut run = if config.resume {
        Checkpoint::read(&file, &same, &shapes, config.seed)?.run
    } else {
        let start = config.start.as_ref().map(|start| start.parameters().to_vec());
        let start = start.unwrap_or_else(|| initial(&config.network, config.seed));
        AdamW::new(&shapes, start)
    };
    create(&config.checkpoint)?;
    let held_out = draw_all(draw, (0..config.held_out as u64).map(|task| HELD_OUT + task));
    while run.step < config.steps {
        let first = (config.seed << 40) + run.step * config.tasks as u64;
        let tasks = draw_all(draw, first..first + config.tasks as u64);
        let network = Network { config: &config.network, places: &places, flat: &run.parameters };
        let (loss, gradient) = step(&network, &tasks);
        let (at, learning_rate) = (run.step, rate(config, run.step));
        muon::update(&mut run, &shapes, learning_rate, &gradient);
        let mut point = Point { step: at, loss, learning_rate, held_out: None };
        if run.step % config.evaluate_every == 0 || run.step == config.steps {
            let network = Network { config: &config.network, places: &places, flat: &run.average };
            let losses = evaluate(&network, &held_out);
            point.held_out = Some(losses.score());
            let checkpoint = Checkpoint {
                run: run.clone(),
                best: run.average.clone(),
                best_score: losses.score(),
                best_step: run.step,
                stale: 0,
            };
            checkpoint.write(&file, &same, config.seed)?;
            report(InContextEvent::Evaluation(run.step, losses));
        }
        report(InContextEvent::Step(point));
    }
    let mut parameters = run.average;
    if let Some(start) = config.start.as_ref().filter(|_| config.keep > 0.0) {
        let mix = |(own, start): (&mut f32, &f32)| *own = (1.0 - config.keep) * *own + config.keep * start;
        parameters.iter_mut().zip(start.parameters()).for_each(mix);
        let network = Network { config: &config.network, places: &places, flat: &parameters };
        report(InContextEvent::Evaluation(run.step, evaluate(&network, &held_out)));
    }
    Ok(parameters)
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
            seen: 0,
            checkpoint: folder.path().to_owned(),
            resume,
        };
        let draw = |seed| tables::task(&table, seed);
        let mut scores = vec![];
        let whole = fit(&config(60, false), &draw, |event| {
            if let InContextEvent::Evaluation(_, losses) = event {
                scores.push(losses.score());
            }
        });
        let whole = whole.unwrap();
        assert!(scores.len() == 3 && scores[2] < scores[0] && scores[2] < 1.0, "{scores:?}");
        fit(&config(40, false), &draw, |_| ()).unwrap();
        assert_eq!(fit(&config(60, true), &draw, |_| ()).unwrap(), whole);
        // Nothing is left to do.
        assert_eq!(fit(&config(40, true), &draw, |_| ()).unwrap(), whole);
        // Half of what it started from.
        let start = initial(&config(0, true).network, 9);
        let from = InContextPredictor::from_parameters(&config(0, true).network, start.clone()).unwrap();
        let mut evaluations = 0;
        let kept =
            fit(&InContextFitConfig { start: Some(from), keep: 0.5, ..config(40, true) }, &draw, |_| evaluations += 1);
        let mean = whole.iter().zip(&start).map(|(own, start)| (own + start) / 2.0);
        assert!(kept.unwrap().iter().zip(mean).all(|(kept, mean)| (kept - mean).abs() < 1e-6) && evaluations == 1);
    }
}
