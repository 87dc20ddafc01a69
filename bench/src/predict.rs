//! `relata-bench predict`: the prediction tasks of the corpus' databases, with few examples.
//!
//! The features of some rows of each task are made once and kept. Of every task, number of examples and seed there is a split into
//! examples and rows to predict, which come later where the rows have a time; everyone predicts the same splits from the same
//! features. The in-context predictor and linear models run here; `bench/peers` adds tree ensembles over what `--export` writes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use relata_experts::in_context::{Column, InContextPredictor, Labels, Prediction};
use relata_experts::weights::{InContextManifest, load_in_context};
use relata_featurize::synthesis::FeatureTable;
use serde::{Deserialize, Serialize};

mod entity;
mod export;
pub(crate) mod linear;
mod prepare;
mod scaling;
pub mod scores;

use prepare::Prepared;
use scores::Score;

/// Rows of a split that are predicted at most.
const MOST_ROWS: usize = 512;

/// Score predictions with few examples
#[derive(Debug, Clone, Args)]
pub struct PredictOptions {
    /// Folder of the corpus
    #[arg(long, default_value = "../shared/corpus")]
    pub corpus: PathBuf,
    /// Databases of the corpus [default: every one of role "eval"]
    #[arg(long, num_args = 1..)]
    pub database: Vec<String>,
    /// Numbers of examples
    #[arg(long, value_delimiter = ',', default_values_t = [16, 64, 256, 512, 1024])]
    pub shots: Vec<usize>,
    /// Seeds of the splits
    #[arg(long, default_value_t = 5)]
    pub seeds: u64,
    /// Steps along foreign keys; 0 reads the columns of the table alone
    #[arg(long, default_value_t = PredictOptions::DEPTH)]
    pub depth: usize,
    /// Features that a predictor reads at most
    #[arg(long, default_value_t = 30)]
    pub features: usize,
    /// Shuffle the foreign keys, as a control
    #[arg(long)]
    pub shuffle_keys: bool,
    /// Folder with other weights: in_context.safetensors and in_context.json
    #[arg(long)]
    pub weights: Option<PathBuf>,
    /// Name of the in-context predictor in the results [default: "relata", or what its weights, depth and keys say]
    #[arg(long)]
    pub name: Option<String>,
    /// Folder of the results, one file for each name, and of features that were made before
    #[arg(long, default_value = ".relata/predict")]
    pub output: PathBuf,
    /// Write features, labels and splits for `bench/peers` as well
    #[arg(long)]
    pub export: bool,
    /// Print the results that are there, of everyone
    #[arg(long)]
    pub report: bool,
    /// Folders with weights after more and more training: score each, and plot that over the tasks seen
    #[arg(long, num_args = 1.., conflicts_with_all = ["weights", "report", "export"])]
    pub scaling: Vec<PathBuf>,
    /// Picture of the results over the number of examples
    #[arg(long)]
    pub plot: Option<PathBuf>,
}

/// A split of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Split {
    pub(crate) seed: u64,
    pub(crate) shots: usize,
    /// Places of the examples and of the rows to predict.
    pub(crate) examples: Vec<usize>,
    pub(crate) rows: Vec<usize>,
    /// Features, chosen by what they say of the examples' labels.
    pub(crate) columns: Vec<usize>,
}

/// Scores the predictor on what was asked for, or prints what is there.
///
/// # Errors
/// When the corpus, weights or results cannot be read, when there are no results to print or two folders of weights have seen as many
/// tasks, or when features cannot be made or kept.
pub fn run(options: &PredictOptions) -> Result<String> {
    if !options.scaling.is_empty() {
        return scale(options);
    }
    if !options.report {
        score(options)?;
    }
    let scores = scores::read(&options.output)?;
    if let Some(path) = &options.plot {
        scores::plot(&scores, path)?;
    }
    Ok(scores::print(&scores))
}

/// Scores weights of several stages of training.
fn scale(options: &PredictOptions) -> Result<String> {
    let mut weights = BTreeMap::new();
    for folder in &options.scaling {
        let (predictor, manifest) = read_weights(folder)?;
        if let Some((other, _)) = weights.insert(manifest.seen, (folder, predictor)) {
            bail!("{} and {} have both seen {} tasks", other.display(), folder.display(), manifest.seen);
        }
    }
    let tasks = prepare::tasks(options)?;
    let mut stages = scaling::Stages::new();
    for (seen, (_, predictor)) in weights {
        stages.insert(seen, predicted(options, PredictOptions::NAME, &predictor, &tasks)?);
    }
    if let Some(path) = &options.plot {
        scaling::plot(&stages, path)?;
    }
    Ok(scaling::print(&stages))
}

fn score(options: &PredictOptions) -> Result<()> {
    let name = options.name()?;
    let predictor = match &options.weights {
        Some(folder) => read_weights(folder)?.0,
        None => InContextPredictor::pretrained()?,
    };
    let tasks = prepare::tasks(options)?;
    let mut scores = predicted(options, &name, &predictor, &tasks)?;
    for task in &tasks {
        let splits = splits(options, task);
        if name == PredictOptions::NAME {
            for split in &splits {
                scores.extend(linear::score(task, split)?);
                scores.push(entity::score(task, split));
            }
        }
        if options.export {
            export::write(&options.output, task, &splits)?;
        }
    }
    std::fs::create_dir_all(&options.output)?;
    scores::write(&options.output, &name, &scores)
}

fn read_weights(folder: &Path) -> Result<(InContextPredictor, InContextManifest)> {
    let read = |name| std::fs::read(folder.join(name)).with_context(|| folder.join(name).display().to_string());
    let (manifest, parameters) = load_in_context(&read("in_context.safetensors")?, &read("in_context.json")?)?;
    Ok((InContextPredictor::from_parameters(&manifest.config, parameters)?, manifest))
}

/// The scores of a predictor on all splits of some tasks.
fn predicted(
    options: &PredictOptions,
    name: &str,
    predictor: &InContextPredictor,
    tasks: &[Prepared],
) -> Result<Vec<Score>> {
    let bar = ProgressBar::new(tasks.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} tasks  {elapsed}  {msg}")?);
    let mut scores: Vec<Score> = vec![];
    for task in tasks {
        bar.set_message(task.name.clone());
        for split in splits(options, task) {
            scores.push(in_context(name, predictor, task, &split)?);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(scores)
}

impl PredictOptions {
    /// The predictor's name in results that are not of a control.
    const NAME: &str = "relata";

    /// Its steps along foreign keys there.
    const DEPTH: usize = 2;

    /// The predictor's name: that of a control says how it differs.
    fn name(&self) -> Result<String> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let mut parts = vec![];
        if let Some(folder) = &self.weights {
            let name = folder.file_name().context("the weights have no name of their own: give one with --name")?;
            parts.push(name.to_string_lossy().into_owned());
        }
        if self.depth != Self::DEPTH {
            parts.push(format!("depth-{}", self.depth));
        }
        if self.shuffle_keys {
            parts.push("shuffled-keys".to_owned());
        }
        ensure!(parts != [Self::NAME], "these weights are called as those that ship: give another name with --name");
        Ok(if parts.is_empty() { Self::NAME.to_owned() } else { parts.join("-") })
    }
}

/// The splits of a task: earlier rows are examples where there is a time.
fn splits(options: &PredictOptions, task: &Prepared) -> Vec<Split> {
    let mut splits = vec![];
    for seed in 0..options.seeds {
        let mut random = StdRng::seed_from_u64(seed);
        let mut order: Vec<usize> = (0..task.features.rows.len()).collect();
        if !task.in_time {
            order.shuffle(&mut random);
        }
        let later = order.split_off(order.len() - (order.len() / 3).min(MOST_ROWS));
        order.shuffle(&mut random);
        for &shots in &options.shots {
            if shots > order.len() {
                continue;
            }
            let examples = order[..shots].to_vec();
            if !task.differ(&examples) || !task.differ(&later) {
                continue;
            }
            let columns = chosen(task, &examples, options.features);
            splits.push(Split { seed, shots, examples, rows: later.clone(), columns });
        }
    }
    splits
}

/// The features that say most of the examples' labels.
fn chosen(task: &Prepared, examples: &[usize], budget: usize) -> Vec<usize> {
    let mut table = task.features.clone();
    // Names tell the columns apart afterwards.
    table.columns.iter_mut().enumerate().for_each(|(place, column)| column.name = place.to_string());
    task.labels_of(examples).select(&mut table, examples.iter().copied(), budget);
    let columns: Vec<usize> = table.columns.iter().filter_map(|column| column.name.parse().ok()).collect();
    // Examples that are all the same in every feature say nothing, and are read as they are.
    if columns.is_empty() { vec![0] } else { columns }
}

/// Some rows of some features.
fn columns(features: &FeatureTable, columns: &[usize], rows: &[usize]) -> Vec<Column> {
    let column = |place: &usize| Column::of(&features.columns[*place].values, rows.iter().copied());
    columns.iter().map(column).collect()
}

fn in_context(name: &str, predictor: &InContextPredictor, task: &Prepared, split: &Split) -> Result<Score> {
    let examples = columns(&task.features, &split.columns, &split.examples);
    let rows = columns(&task.features, &split.columns, &split.rows);
    let (labels, used) = compact(&task.labels_of(&split.examples));
    let prefilled = predictor.prefill(&examples, &labels)?;
    let predictions = prefilled.predict(&rows)?;
    let values: Vec<Vec<f64>> = predictions
        .iter()
        .map(|prediction| match prediction {
            Prediction::Classes(shares) => {
                let mut all = vec![0.0; task.classes()];
                shares.iter().zip(&used).for_each(|(share, class)| all[*class as usize] = f64::from(*share));
                all
            }
            Prediction::Numbers(_) => vec![f64::from(prediction.mean().unwrap_or(f32::NAN))],
        })
        .collect();
    Ok(Score::new(name, task, split, &values))
}

/// Labels whose classes all occur, and the class that each of them was.
fn compact(labels: &Labels) -> (Labels, Vec<u32>) {
    match labels {
        Labels::Numbers(_) => (labels.clone(), vec![]),
        Labels::Classes { labels, .. } => {
            let mut used = labels.clone();
            used.sort_unstable();
            used.dedup();
            let place = |label: &u32| used.partition_point(|class| class < label) as u32;
            (Labels::Classes { labels: labels.iter().map(place).collect(), count: used.len() }, used)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use relata_experts::weights::{IN_CONTEXT_MANIFEST, IN_CONTEXT_WEIGHTS};

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: PredictOptions,
    }

    fn parse(more: &[&str]) -> PredictOptions {
        Command::parse_from([&["predict"], more].concat()).options
    }

    #[test]
    fn controls_have_names_of_their_own() {
        let name = |more: &[&str]| parse(more).name().unwrap();
        assert_eq!(name(&["--shots", "64,256"]), "relata");
        assert_eq!(name(&["--depth", "0"]), "depth-0");
        assert_eq!(name(&["--shuffle-keys", "--weights", ".relata/in-context/most/"]), "most-shuffled-keys");
        assert_eq!(name(&["--depth", "1", "--name", "near"]), "near");
        assert!(parse(&["--weights", "other/relata"]).name().unwrap_err().to_string().contains("--name"));
    }

    #[test]
    fn results_that_are_not_there_are_missed() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("missing");
        let missing = run(&parse(&["--report", "--output", &output.display().to_string()])).unwrap_err();
        assert!(missing.to_string().contains("no results") && !output.exists(), "{missing}");
    }

    #[test]
    fn stages_have_seen_different_tasks() {
        let folder = tempfile::tempdir().unwrap();
        let stages = ["one", "two"].map(|name| folder.path().join(name));
        for stage in &stages {
            std::fs::create_dir(stage).unwrap();
            std::fs::write(stage.join("in_context.safetensors"), IN_CONTEXT_WEIGHTS).unwrap();
            std::fs::write(stage.join("in_context.json"), IN_CONTEXT_MANIFEST).unwrap();
        }
        let [one, two] = stages.map(|stage| stage.display().to_string());
        let refused = run(&parse(&["--scaling", &one, &two])).unwrap_err().to_string();
        assert!(refused.contains("have both seen"), "{refused}");
    }
}
