//! `relata-train in-context`: trains the in-context predictor on synthetic tasks.

use std::path::PathBuf;

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use relata_experts::in_context::{InContextConfig, InContextPredictor};
use relata_experts::train::curve;
use relata_experts::train::in_context::fit::{InContextEvent, InContextFitConfig, Start, fit, is_held_out};
use relata_experts::train::in_context::relations::RelationalTasks;
use relata_experts::train::in_context::tables::{self, TableConfig};
use relata_experts::train::in_context::write;
use relata_experts::weights::load_in_context;

use crate::Follower;

/// Options of the run.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to write in_context.safetensors and in_context.json.
    #[arg(long, default_value = "experts/weights")]
    output: PathBuf,
    /// Number of steps; a run can be made longer with --resume.
    #[arg(long, default_value_t = 3000)]
    steps: u64,
    /// Tasks of a step.
    #[arg(long, default_value_t = 16)]
    tasks: usize,
    /// Most examples of a task, at least 16.
    #[arg(long, default_value_t = 256, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(16..))]
    examples: usize,
    /// Most features of a task, at least 2.
    #[arg(long, default_value_t = 20, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(2..))]
    features: usize,
    /// Seed of parameters and tasks.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Highest learning rate.
    #[arg(long, default_value_t = 2e-3)]
    learning_rate: f32,
    /// Share of the steps at the end over which it falls.
    #[arg(long, default_value_t = 0.25)]
    cool_down: f32,
    /// Steps between evaluations and checkpoints.
    #[arg(long, default_value_t = 100)]
    evaluate_every: u64,
    /// Folder of tasks over relational databases, as `relata-bench tasks` writes them; single tables alone without it.
    #[arg(long)]
    relational: Option<PathBuf>,
    /// Share of the tasks over single tables beside them.
    #[arg(long, default_value_t = 0.1)]
    single_tables: f64,
    /// Folder with in_context.safetensors and in_context.json to start from.
    #[arg(long)]
    start: Option<PathBuf>,
    /// Share of those parameters in the ones that are written, 0 to 1.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    keep: f32,
    /// Folder of the run: checkpoint.safetensors, curve.csv and curve.svg.
    #[arg(long, default_value = ".relata/train-in-context")]
    checkpoint: PathBuf,
    /// Go on from the checkpoint.
    #[arg(long)]
    resume: bool,
}

fn share(text: &str) -> Result<f32, String> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "not a number from 0 to 1".to_owned())
}

/// Trains the predictor.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let start = arguments.start.as_ref().map(|folder| -> anyhow::Result<Start> {
        let read = |name| std::fs::read(folder.join(name)).with_context(|| folder.join(name).display().to_string());
        let (manifest, parameters) = load_in_context(&read("in_context.safetensors")?, &read("in_context.json")?)?;
        let predictor = InContextPredictor::from_parameters(&manifest.config, parameters)?;
        Ok(Start { predictor, sha256: manifest.sha256, seen: manifest.seen })
    });
    let start = start.transpose()?;
    let table =
        TableConfig { examples: 16..=arguments.examples, features: 2..=arguments.features, ..TableConfig::default() };
    let relational = arguments.relational.as_ref().map(|folder| RelationalTasks::read(folder, &table)).transpose()?;
    let counts = relational.as_ref().map(RelationalTasks::counts);
    let config = InContextFitConfig {
        network: start.as_ref().map_or_else(InContextConfig::default, |start| start.predictor.config().clone()),
        steps: arguments.steps,
        tasks: arguments.tasks,
        learning_rate: arguments.learning_rate,
        cool_down: arguments.cool_down,
        seed: arguments.seed,
        evaluate_every: arguments.evaluate_every,
        held_out: 256,
        start,
        keep: arguments.keep,
        drawn_from: match counts {
            Some(counts) => format!("{table:?}, {counts:?} over databases, {} over tables", arguments.single_tables),
            None => format!("{table:?}"),
        },
        checkpoint: arguments.checkpoint.clone(),
        resume: arguments.resume,
        commit: crate::commit(),
    };
    println!("{} parameters, {} steps of {} tasks", config.network.parameter_count(), config.steps, config.tasks);
    if let Some([training, held_out]) = counts {
        println!("{training} tasks over relational databases, {held_out} held out");
    }
    let draw = |seed: u64| match &relational {
        Some(relational) if StdRng::seed_from_u64(!seed).random::<f64>() >= arguments.single_tables => {
            relational.task(&table, seed, is_held_out(seed))
        }
        _ => tables::task(&table, seed),
    };
    let mut follower = Follower::new(config.steps, &arguments.checkpoint, arguments.resume)?;
    let fitted = fit(&config, &draw, |event| match event {
        InContextEvent::Step(point) => follower.step(&point),
        InContextEvent::Evaluation(step, losses) => follower.say(&format!(
            "step {step}: held out, of the loss of the labels' distribution: classes {:.4}, numbers {:.4}",
            losses.classes, losses.numbers
        )),
    })?;
    follower.finish(curve::TASKS)?;
    write(&arguments.output, &config, &fitted, crate::command())?;
    println!("weights of step {} in {}", fitted.steps, arguments.output.display());
    Ok(())
}
