//! `relata-train answers`: fits the answer head above the other experts.

use std::path::PathBuf;

use burn::tensor::Device;
use relata_experts::ExpertStack;
use relata_experts::answers::AnswerConfig;
use relata_experts::train::answers::{AnswerCorpus, AnswerFitConfig, fit, write};
use relata_experts::train::curve;

use crate::Follower;

/// Options of the fit.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folders of traced databases with aggregates among their queries.
    #[arg(long, required = true, num_args = 1..)]
    traces: Vec<PathBuf>,
    /// Where to write answers.safetensors and answers.json.
    #[arg(long, default_value = "experts/weights")]
    output: PathBuf,
    /// Number of steps; 0 writes untrained weights.
    #[arg(long, default_value_t = AnswerFitConfig::default().steps)]
    steps: u64,
    /// Seed of parameters and batches.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Names of the databases to hold out.
    #[arg(long, num_args = 1.., value_delimiter = ',')]
    holdout_databases: Vec<String>,
    /// Width of the hidden layers.
    #[arg(long, default_value_t = AnswerFitConfig::default().hidden)]
    hidden: usize,
    /// Number of layers.
    #[arg(long, default_value_t = AnswerFitConfig::default().layers)]
    layers: usize,
    /// Highest learning rate.
    #[arg(long, default_value_t = AnswerFitConfig::default().optimizer.learning_rate)]
    learning_rate: f32,
    /// Decoupled weight decay.
    #[arg(long, default_value_t = AnswerFitConfig::default().optimizer.weight_decay)]
    weight_decay: f32,
    /// Folder of the run: curve.csv and curve.svg.
    #[arg(long, default_value = ".relata/train-answers")]
    checkpoint: PathBuf,
}

/// Fits the head.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let stack = ExpertStack::pretrained()?;
    let sizes = AnswerConfig {
        embedding: stack.data().config().width,
        width: stack.width(),
        hidden: arguments.hidden,
        layers: arguments.layers,
    };
    let mut config = AnswerFitConfig { steps: arguments.steps, seed: arguments.seed, ..AnswerFitConfig::default() };
    config.optimizer.learning_rate = arguments.learning_rate;
    config.optimizer.weight_decay = arguments.weight_decay;
    let corpus = AnswerCorpus::read(&stack, &sizes, &arguments.traces, &arguments.holdout_databases)?;
    let count = |samples: &[relata_experts::train::answers::Samples]| -> usize {
        samples.iter().map(|samples| samples.samples.len()).sum()
    };
    println!(
        "{} databases with {} aggregates, {} held out with {}; {} parameters, {} steps",
        corpus.training.len(),
        count(&corpus.training),
        corpus.held_out.len(),
        count(&corpus.held_out),
        sizes.shape().parameter_count(),
        config.steps,
    );
    let mut follower = Follower::new(config.steps, &arguments.checkpoint, false)?;
    let quantiles = stack.config().quantiles;
    let fitted = fit(&corpus, &sizes, &config, &Device::default().autodiff(), quantiles, |point| follower.step(point))?;
    follower.finish(curve::ANSWERS)?;
    let manifest = write(&arguments.output, &stack, &corpus, &fitted, crate::command(), crate::commit())?;
    println!("best weights of step {}, calibrated, in {}", manifest.steps, arguments.output.display());
    for (form, [sample, head]) in ["means", "smallest", "largest"].iter().zip(&manifest.errors) {
        println!("{form:>9}: mean size of the residual {sample:.3} by the sample, {head:.3} by the head");
    }
    if let Some(coverage) = manifest.left_out_coverage {
        println!("coverage on a database that did not calibrate: {coverage:.3}");
    }
    Ok(())
}
