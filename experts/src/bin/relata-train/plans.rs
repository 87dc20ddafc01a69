//! `relata-train plans`: fits the experts above the data expert to labelled plans.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use burn::tensor::Device;
use relata_experts::config::ExpertConfig;
use relata_experts::data::DataExpert;
use relata_experts::train::cross_fit::CrossFit;
use relata_experts::train::data::Corpus;
use relata_experts::train::evaluate::render;
use relata_experts::train::fit::{Event, FitConfig, fit, steps_per_epoch};
use relata_experts::train::optimizer::AdamWConfig;
use relata_experts::train::{curve, export};

use crate::{Curve, progress_bar};

/// Options of the fit.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folders with traces: databases, or folders of databases.
    #[arg(long, required = true, num_args = 1..)]
    traces: Vec<PathBuf>,
    /// Where to write relata.safetensors, manifest.json and golden.json.
    #[arg(long, default_value = "experts/weights")]
    output: PathBuf,
    /// Passes over the training graphs.
    #[arg(long, default_value_t = 20.0)]
    epochs: f64,
    /// Number of steps, instead of epochs; 0 writes untrained weights.
    #[arg(long)]
    steps: Option<u64>,
    /// Seed of parameters, batches, drawn rows and the split.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Share of the databases to hold out.
    #[arg(long, default_value_t = 0.15)]
    holdout: f64,
    /// Names of the databases to hold out, instead of a share.
    #[arg(long, num_args = 1.., value_delimiter = ',')]
    holdout_databases: Vec<String>,
    /// Databases to train on at most, drawn by the seed: a smaller number is a part of a larger one.
    #[arg(long)]
    most_databases: Option<usize>,
    /// Names of the databases that calibrate the intervals; those among them that are trained on do so by weights of further
    /// runs without them [default: the databases held out]
    #[arg(long, num_args = 1.., value_delimiter = ',')]
    calibration_databases: Vec<String>,
    /// Number of these runs, each as long as that of the weights.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    folds: u32,
    /// Folder of the run: checkpoint, curve.csv and curve.svg.
    #[arg(long, default_value = ".relata/train")]
    checkpoint: PathBuf,
    /// Go on from the checkpoint.
    #[arg(long)]
    resume: bool,
    /// Highest learning rate.
    #[arg(long, default_value_t = AdamWConfig::default().learning_rate)]
    learning_rate: f32,
    /// Decoupled weight decay.
    #[arg(long, default_value_t = AdamWConfig::default().weight_decay)]
    weight_decay: f32,
    /// D: width of embeddings and states.
    #[arg(long, default_value_t = ExpertConfig::default().width)]
    width: usize,
    /// Width of the hidden layers of the logical expert; twice the width unless given.
    #[arg(long)]
    hidden: Option<usize>,
    /// Layers of the MLPs of the logical expert.
    #[arg(long, default_value_t = ExpertConfig::default().node_layers)]
    layers: usize,
    /// Graphs of one database in a batch.
    #[arg(long, default_value_t = 64)]
    graphs: usize,
    /// Databases in a batch.
    #[arg(long, default_value_t = 4)]
    databases: usize,
    /// Share of nodes whose embedding is withheld from a step; 1 fits experts that never read an embedding.
    #[arg(long, default_value_t = 0.0)]
    withheld: f32,
    /// Steps between two evaluations; once per epoch, but not more often than every 100 steps, unless given.
    #[arg(long)]
    evaluate_every: Option<u64>,
    /// Evaluations without an improvement after which the run stops.
    #[arg(long, default_value_t = 10)]
    patience: u32,
}

/// Fits the experts.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut corpus = Corpus::read(&arguments.traces, arguments.holdout, &arguments.holdout_databases, arguments.seed)?;
    if let Some(most) = arguments.most_databases {
        corpus.keep(most, arguments.seed);
    }
    let config = fit_config(arguments, &corpus)?;
    std::fs::create_dir_all(&arguments.checkpoint)
        .with_context(|| format!("cannot create {}", arguments.checkpoint.display()))?;
    println!(
        "{} databases with {} graphs, {} held out with {}; {} parameters, {} steps",
        corpus.training.len(),
        corpus.training.iter().map(|database| database.graphs.len()).sum::<usize>(),
        corpus.held_out.len(),
        corpus.held_out.iter().map(|database| database.graphs.len()).sum::<usize>(),
        config.experts.parameter_count(),
        config.steps,
    );
    if corpus.dropped > 0 {
        println!("{} graphs were left out: malformed, or without a label", corpus.dropped);
    }

    let cross_fit = CrossFit { databases: arguments.calibration_databases.clone(), folds: arguments.folds as usize };
    cross_fit.validate(&corpus)?;

    let bar = progress_bar(config.steps)?;
    let started = Instant::now();
    let mut smooth = None;
    let mut curve = Curve::new(&arguments.checkpoint, arguments.resume);
    let device = Device::default().autodiff();
    let mut fitted = fit(&corpus, &config, &device, |event| match event {
        Event::Step(point) => {
            curve.add(point, &bar);
            let loss = smooth.map_or(point.loss, |smooth: f32| 0.98 * smooth + 0.02 * point.loss);
            smooth = Some(loss);
            bar.set_position(point.step);
            bar.set_message(format!("loss {loss:.4}"));
        }
        Event::Evaluation { step, score, errors } => {
            let seconds = started.elapsed().as_secs();
            bar.suspend(|| {
                println!(
                    "step {step}, {seconds} s, training loss {:.4}, held-out ln q-error {score:.4}\n{}",
                    smooth.unwrap_or(f32::NAN),
                    render(errors)
                );
            });
        }
    })?;
    if !arguments.calibration_databases.is_empty() {
        corpus = cross_fit.calibrate(&mut fitted, corpus, &config, &device, |fold, event| {
            if let Event::Step(point) = event {
                bar.set_position(point.step);
                bar.set_message(format!("calibration {}/{}", fold + 1, cross_fit.folds));
            }
        })?;
    }
    bar.finish_and_clear();

    curve.finish(curve::PLANS)?;
    export::write(&arguments.output, &corpus, &config, &fitted, crate::command())?;
    println!("best weights of step {}, calibrated, in {}", fitted.step, arguments.output.display());
    print!("{}", render(&fitted.errors));
    if let Some(coverage) = fitted.left_out_coverage() {
        println!("coverage of a database that the others calibrate: {coverage:.3} on average over");
        for (name, coverage) in &fitted.left_out {
            println!("    {name} {coverage:.3}");
        }
    }
    Ok(())
}

fn fit_config(arguments: &Arguments, corpus: &Corpus) -> anyhow::Result<FitConfig> {
    let per_epoch = steps_per_epoch(corpus, arguments.graphs, arguments.databases);
    let sizes = ExpertConfig::with_width(arguments.width);
    let defaults = FitConfig::new(DataExpert::pretrained()?);
    Ok(FitConfig {
        experts: ExpertConfig {
            embedding: defaults.experts.embedding,
            node_hidden: arguments.hidden.unwrap_or(sizes.node_hidden),
            node_layers: arguments.layers,
            ..sizes
        },
        optimizer: AdamWConfig {
            learning_rate: arguments.learning_rate,
            weight_decay: arguments.weight_decay,
            ..AdamWConfig::default()
        },
        seed: arguments.seed,
        steps: arguments.steps.unwrap_or_else(|| (arguments.epochs * per_epoch as f64).ceil() as u64),
        graphs: arguments.graphs,
        databases: arguments.databases,
        withheld: arguments.withheld,
        evaluate_every: arguments.evaluate_every.unwrap_or_else(|| per_epoch.max(100)),
        patience: arguments.patience,
        checkpoint: Some(arguments.checkpoint.join("checkpoint.safetensors")),
        resume: arguments.resume,
        commit: crate::commit(),
        ..defaults
    })
}
