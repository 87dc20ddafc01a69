//! `relata-train physical`: calibrates the cost model and fits the physical-plan expert above it.

use std::path::PathBuf;

use burn::tensor::Device;
use relata_experts::train::curve;
use relata_experts::train::physical::{Executed, PhysicalCorpus, PhysicalFitConfig, fit, write};

use crate::Follower;

/// Options of the fit.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folders of traced databases with executed plans.
    #[arg(long, required = true, num_args = 1..)]
    traces: Vec<PathBuf>,
    /// Where to write physical.safetensors and physical.json.
    #[arg(long, default_value = "experts/weights")]
    output: PathBuf,
    /// Number of steps; 0 writes untrained weights above the calibrated cost model.
    #[arg(long, default_value_t = PhysicalFitConfig::default().steps)]
    steps: u64,
    /// Seed of parameters and batches.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Names of the databases to hold out.
    #[arg(long, num_args = 1.., value_delimiter = ',')]
    holdout_databases: Vec<String>,
    /// Highest learning rate.
    #[arg(long, default_value_t = PhysicalFitConfig::default().optimizer.learning_rate)]
    learning_rate: f32,
    /// Folder of the run: curve.csv and curve.svg.
    #[arg(long, default_value = ".relata/train-physical")]
    checkpoint: PathBuf,
}

/// Fits the expert.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut config = PhysicalFitConfig { steps: arguments.steps, seed: arguments.seed, ..PhysicalFitConfig::default() };
    config.optimizer.learning_rate = arguments.learning_rate;
    let corpus = PhysicalCorpus::read(&arguments.traces, &arguments.holdout_databases)?;
    let count = |executed: &[Executed]| executed.iter().map(|one| one.executions.len()).sum::<usize>();
    println!(
        "{} databases with {} executions, {} held out with {}; {} steps",
        corpus.training.len(),
        count(&corpus.training),
        corpus.held_out.len(),
        count(&corpus.held_out),
        config.steps,
    );
    let mut follower = Follower::new(config.steps, &arguments.checkpoint, false)?;
    let fitted = fit(&corpus, &config, &Device::default().autodiff(), |point| follower.step(point))?;
    follower.finish(curve::RUNTIMES)?;
    let manifest = write(&arguments.output, &corpus, &fitted, config.seed, crate::command(), crate::commit())?;
    println!("best weights of step {}, calibrated, in {}", manifest.steps, arguments.output.display());
    for one in &manifest.errors {
        println!(
            "{:>9} rows: q-error at 50/90/95/99% {:.2?} by the cost model, {:.2?} by the expert, {:.2?} of the memory; coverage {:.3}",
            one.rows, one.cost, one.expert, one.memory, one.coverage
        );
    }
    Ok(())
}
