//! How good predictions are, and who is better.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use plotters::prelude::*;
use relata_experts::in_context::Labels;
use serde::{Deserialize, Serialize};

use super::Split;
use super::prepare::Prepared;
use crate::corpus::read_lines;
use crate::score::figures::table;

/// What one predictor made of one split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Who predicted.
    pub name: String,
    /// Database and task.
    pub task: String,
    /// Whether classes were predicted.
    pub classes: bool,
    /// Examples.
    pub shots: usize,
    /// Seed of the split.
    pub seed: u64,
    /// Area under the ROC curve, each class against the others on average; of numbers R2, at least -1.
    pub score: f64,
    /// Of numbers, the mean absolute error over that of the examples' median.
    pub nmae: Option<f64>,
}

impl Score {
    /// Scores predictions: a share for each class, or a number.
    pub(super) fn new(name: &str, task: &Prepared, split: &Split, values: &[Vec<f64>]) -> Self {
        let (score, nmae) = match task.labels_of(&split.rows) {
            Labels::Classes { labels, count } => (area(&labels, count, values), None),
            Labels::Numbers(labels) => {
                let Labels::Numbers(mut known) = task.labels_of(&split.examples) else {
                    return Self::nothing(name, task, split);
                };
                known.sort_unstable_by(f32::total_cmp);
                let median = f64::from(known[known.len() / 2]);
                let labels: Vec<f64> = labels.into_iter().map(f64::from).collect();
                let predicted = values.iter().map(|value| value[0]);
                let mean = labels.iter().sum::<f64>() / labels.len() as f64;
                let squares: f64 =
                    labels.iter().zip(predicted.clone()).map(|(label, value)| (label - value).powi(2)).sum();
                let all: f64 = labels.iter().map(|label| (label - mean).powi(2)).sum();
                let errors: f64 = labels.iter().zip(predicted).map(|(label, value)| (label - value).abs()).sum();
                let known: f64 = labels.iter().map(|label| (label - median).abs()).sum();
                ((1.0 - squares / all.max(1e-12)).max(-1.0), Some(errors / known.max(1e-12)))
            }
        };
        Self { score, nmae, ..Self::nothing(name, task, split) }
    }

    fn nothing(name: &str, task: &Prepared, split: &Split) -> Self {
        let (name, task_name) = (name.to_owned(), task.name.clone());
        Self {
            name,
            task: task_name,
            classes: task.classes() > 0,
            shots: split.shots,
            seed: split.seed,
            score: 0.0,
            nmae: None,
        }
    }
}

/// The area under the ROC curve of each class that occurs beside others, on average.
fn area(labels: &[u32], count: usize, values: &[Vec<f64>]) -> f64 {
    // Two classes mirror each other.
    let classes = if count == 2 { 1..2 } else { 0..count };
    let of_class = |class: usize| {
        let mut order: Vec<usize> = (0..labels.len()).collect();
        order.sort_by(|&a, &b| values[a][class].total_cmp(&values[b][class]));
        let positives = labels.iter().filter(|label| **label as usize == class).count();
        let negatives = labels.len() - positives;
        if positives == 0 || negatives == 0 {
            return None;
        }
        // Equal predictions share their ranks.
        let (mut rank, mut sum) = (0, 0.0);
        for same in order.chunk_by(|&a, &b| values[a][class].total_cmp(&values[b][class]).is_eq()) {
            let mean = rank as f64 + (same.len() + 1) as f64 / 2.0;
            sum += mean * same.iter().filter(|row| labels[**row] as usize == class).count() as f64;
            rank += same.len();
        }
        let (positives, negatives) = (positives as f64, negatives as f64);
        Some((sum - positives * (positives + 1.0) / 2.0) / (positives * negatives))
    };
    let areas: Vec<f64> = classes.filter_map(of_class).collect();
    if areas.is_empty() { 0.5 } else { areas.iter().sum::<f64>() / areas.len() as f64 }
}

/// Keeps the scores of a name.
pub(super) fn write(folder: &Path, name: &str, scores: &[Score]) -> Result<()> {
    let lines = scores.iter().map(|score| Ok(serde_json::to_string(score)? + "\n")).collect::<Result<String>>()?;
    let file = folder.join(format!("{name}.jsonl"));
    std::fs::write(&file, lines).with_context(|| file.display().to_string())
}

/// All scores in a folder.
///
/// # Errors
/// When the folder holds none, or a file is damaged.
pub(super) fn read(folder: &Path) -> Result<Vec<Score>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("no results at {}", folder.display()))?;
    let mut files: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    let mut scores = vec![];
    for file in files {
        scores.extend(read_lines::<Score>(&file)?);
    }
    ensure!(!scores.is_empty(), "no results at {}", folder.display());
    Ok(scores)
}

/// What a name reached with some examples: means over tasks of their means over seeds.
#[derive(Debug, Clone, Copy, Default)]
struct Reached {
    area: f64,
    r2: f64,
    nmae: f64,
    rank: f64,
}

type ByTask<'a> = BTreeMap<&'a str, BTreeMap<&'a str, Vec<&'a Score>>>;

/// By number of examples, then name. Only tasks count that everyone has predicted who has predicted any with as many examples.
fn summary(scores: &[Score]) -> BTreeMap<usize, (usize, BTreeMap<&str, Reached>)> {
    let mut shots: BTreeMap<usize, ByTask<'_>> = BTreeMap::new();
    for score in scores {
        let task = shots.entry(score.shots).or_default().entry(score.task.as_str()).or_default();
        task.entry(score.name.as_str()).or_default().push(score);
    }
    shots.into_iter().map(|(shots, tasks)| (shots, of_shots(tasks))).collect()
}

/// The number of common tasks, and what each name reached in them.
fn of_shots(tasks: ByTask<'_>) -> (usize, BTreeMap<&str, Reached>) {
    let mean = |values: &mut dyn Iterator<Item = f64>| {
        let values: Vec<f64> = values.collect();
        if values.is_empty() { f64::NAN } else { values.iter().sum::<f64>() / values.len() as f64 }
    };
    let names: BTreeSet<&str> = tasks.values().flat_map(|names| names.keys().copied()).collect();
    let common: Vec<_> = tasks.into_values().filter(|task| task.len() == names.len()).collect();
    let of_name = |name: &str| {
        let own = |classes: bool| common.iter().map(|task| &task[name]).filter(move |own| own[0].classes == classes);
        let ranks = &mut common.iter().map(|task| {
            let score = |name: &str| task[name].iter().map(|score| score.score).sum::<f64>() / task[name].len() as f64;
            let mine = score(name);
            let better = names.iter().filter(|other| score(other) > mine + 1e-9).count();
            let equal = names.iter().filter(|other| (score(other) - mine).abs() <= 1e-9).count();
            better as f64 + (equal + 1) as f64 / 2.0
        });
        Reached {
            area: mean(&mut own(true).map(|own| mean(&mut own.iter().map(|score| score.score)))),
            r2: mean(&mut own(false).map(|own| mean(&mut own.iter().map(|score| score.score)))),
            nmae: mean(&mut own(false).map(|own| mean(&mut own.iter().filter_map(|score| score.nmae)))),
            rank: mean(ranks),
        }
    };
    (common.len(), names.iter().map(|name| (*name, of_name(name))).collect())
}

/// Mean AUC and mean R2 of one name's scores, by number of examples.
pub(super) fn means(scores: &[Score]) -> BTreeMap<usize, [f64; 2]> {
    let of = |(shots, (_, names)): (usize, (usize, BTreeMap<&str, Reached>))| {
        names.into_values().next().map(|reached| (shots, [reached.area, reached.r2]))
    };
    summary(scores).into_iter().filter_map(of).collect()
}

/// A mean, or a dash for that of nothing.
pub(super) fn shown(mean: f64, decimals: usize) -> String {
    if mean.is_nan() { "-".to_owned() } else { format!("{mean:.decimals$}") }
}

/// A table by number of examples.
pub(super) fn print(scores: &[Score]) -> String {
    let mut rows = vec![];
    for (shots, (tasks, names)) in summary(scores) {
        for (name, reached) in names {
            rows.push(vec![
                shots.to_string(),
                tasks.to_string(),
                name.to_owned(),
                shown(reached.area, 4),
                shown(reached.r2, 4),
                shown(reached.nmae, 4),
                shown(reached.rank, 2),
            ]);
        }
    }
    table(&[&["examples", "tasks", "predictor", "AUC", "R2", "NMAE", "mean rank"]], rows)
}

/// A picture of the mean AUC over the number of examples.
pub(super) fn plot(scores: &[Score], path: &Path) -> Result<()> {
    draw(scores, path).map_err(|error| anyhow::anyhow!("cannot plot {}: {error}", path.display()))
}

fn draw(scores: &[Score], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let summary = summary(scores);
    let mut lines: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for (shots, (_, names)) in &summary {
        for (name, reached) in names {
            lines.entry(name).or_default().push(((*shots as f64).log2(), reached.area));
        }
    }
    let points = || lines.values().flatten().filter(|(_, area)| area.is_finite());
    let (low, high) = points().fold((1.0f64, 0.5f64), |(low, high), (_, area)| (low.min(*area), high.max(*area)));
    let (first, last) = points().fold((f64::MAX, 1.0f64), |(first, last), (x, _)| (first.min(*x), last.max(*x)));
    let root = SVGBackend::new(path, (900, 500)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(20)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(first..last, (low - 0.01)..(high + 0.01))?;
    let label = |x: &f64| format!("{:.0}", x.exp2());
    chart.configure_mesh().x_desc("examples").y_desc("mean AUC").x_label_formatter(&label).draw()?;
    for (place, (name, line)) in lines.into_iter().enumerate() {
        let color = Palette99::pick(place).to_rgba();
        chart
            .draw_series(LineSeries::new(line, color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color));
    }
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_those_of_the_definition() {
        let shares = |values: &[f64]| values.iter().map(|value| vec![1.0 - value, *value]).collect::<Vec<_>>();
        assert!((area(&[0, 0, 1, 1], 2, &shares(&[0.1, 0.4, 0.35, 0.8])) - 0.75).abs() < 1e-12);
        assert!((area(&[0, 1, 0, 1], 2, &shares(&[0.5; 4])) - 0.5).abs() < 1e-12);
        assert!((area(&[1, 0], 2, &shares(&[0.2, 0.9]))).abs() < 1e-12);
    }

    fn score(name: &str, task: &str, shots: usize, score: f64) -> Score {
        let (name, task) = (name.to_owned(), task.to_owned());
        Score { name, task, classes: true, shots, seed: 0, score, nmae: None }
    }

    #[test]
    fn ranks_count_tasks_of_all() {
        let scores = [score("a", "t", 16, 0.9), score("b", "t", 16, 0.8), score("a", "u", 16, 0.6)];
        let summary = summary(&scores);
        let (tasks, names) = &summary[&16];
        assert_eq!(*tasks, 1);
        assert!((names["a"].rank - 1.0).abs() < 1e-12 && (names["b"].rank - 2.0).abs() < 1e-12);
        assert!(print(&scores).contains("0.9000"));
    }

    #[test]
    fn who_has_fewer_numbers_of_examples_takes_none_away() {
        let scores = [score("a", "t", 16, 0.9), score("a", "t", 64, 0.7), score("control", "t", 64, 0.5)];
        let summary = summary(&scores);
        assert_eq!((summary[&16].0, summary[&64].0), (1, 1));
        assert_eq!(summary[&16].1.keys().collect::<Vec<_>>(), [&"a"]);
        assert!((summary[&64].1["control"].rank - 2.0).abs() < 1e-12);
        // No task has numbers.
        let text = print(&scores);
        assert!(text.contains(" - ") && !text.contains("NaN"), "{text}");
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).unwrap_err().to_string().contains("no results"));
        write(folder.path(), "a", &scores).unwrap();
        assert_eq!(read(folder.path()).unwrap(), scores);
    }
}
