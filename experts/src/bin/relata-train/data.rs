//! `relata-train data`: the pre-training of the data expert.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use burn::tensor::Device;
use relata_experts::train::curve;
use relata_experts::train::optimizer::AdamWConfig;
use relata_experts::train::pretrain::tasks::Tables;
use relata_experts::train::pretrain::{Event, PretrainConfig, fit, write};

use crate::{Curve, progress_bar};

/// Options of the pre-training.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folders of databases that `relata-bench tables` wrote; each is drawn from equally often.
    #[arg(long, required = true, num_args = 1..)]
    tables: Vec<PathBuf>,
    /// Where to write data.safetensors and data.json.
    #[arg(long, default_value = "experts/weights")]
    output: PathBuf,
    /// Number of steps; 0 writes untrained weights.
    #[arg(long, default_value_t = PretrainConfig::default().steps)]
    steps: u64,
    /// Seed of parameters and of what is drawn.
    #[arg(long, default_value_t = PretrainConfig::default().seed)]
    seed: u64,
    /// Names of the databases to hold out.
    #[arg(long, num_args = 1.., value_delimiter = ',')]
    holdout_databases: Vec<String>,
    /// Folder of the run: checkpoint, curve.csv and curve.svg.
    #[arg(long, default_value = ".relata/train-data")]
    checkpoint: PathBuf,
    /// Go on from the checkpoint.
    #[arg(long)]
    resume: bool,
    /// Highest learning rate.
    #[arg(long, default_value_t = AdamWConfig::default().learning_rate)]
    learning_rate: f32,
    /// Steps between two evaluations.
    #[arg(long, default_value_t = PretrainConfig::default().evaluate_every)]
    evaluate_every: u64,
}

/// Pre-trains the data expert.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let tables = Tables::read(&arguments.tables, &arguments.holdout_databases)?;
    let config = PretrainConfig {
        optimizer: AdamWConfig { learning_rate: arguments.learning_rate, ..AdamWConfig::default() },
        seed: arguments.seed,
        steps: arguments.steps,
        evaluate_every: arguments.evaluate_every,
        checkpoint: Some(arguments.checkpoint.join("checkpoint.safetensors")),
        resume: arguments.resume,
        commit: crate::commit(),
        ..PretrainConfig::default()
    };
    std::fs::create_dir_all(&arguments.checkpoint)
        .with_context(|| format!("cannot create {}", arguments.checkpoint.display()))?;
    println!(
        "{} tables of {} databases, {} tables of {} databases held out; {} parameters, {} steps",
        tables.training.iter().map(Vec::len).sum::<usize>(),
        tables.databases.len(),
        tables.held_out.len(),
        tables.held_out_databases.len(),
        config.data.parameter_count(),
        config.steps,
    );
    let bar = progress_bar(config.steps)?;
    let started = Instant::now();
    let mut smooth: Option<[f32; 2]> = None;
    let mut curve = Curve::new(&arguments.checkpoint, arguments.resume);
    let pretrained = fit(&tables, &config, &Device::default().autodiff(), |event| match event {
        Event::Step(point, losses) => {
            curve.add(point, &bar);
            let now = smooth.get_or_insert(losses);
            now.iter_mut().zip(losses).for_each(|(smooth, loss)| *smooth = 0.98 * *smooth + 0.02 * loss);
            bar.set_position(point.step);
            bar.set_message(format!("buckets {:.4}, cells {:.4}", now[0], now[1]));
        }
        Event::Evaluation(step, errors) => {
            let [buckets, cells] = smooth.unwrap_or([f32::NAN; 2]);
            bar.suspend(|| {
                println!(
                    "step {step}, {} s, losses {buckets:.4} and {cells:.4}; held out: buckets {:.4} (untrained {:.4}), \
                     cells {:.1}%",
                    started.elapsed().as_secs(),
                    errors.buckets,
                    errors.buckets_untrained,
                    100.0 * errors.cells
                );
            });
        }
    })?;
    bar.finish_and_clear();
    curve.finish(curve::TABLES)?;
    write(&arguments.output, &tables, &config, &pretrained, crate::command())?;
    println!("best weights of step {} in {}", pretrained.step, arguments.output.display());
    Ok(())
}
