//! The prior of tasks over a single table: features and a label from random structural causal models.
//!
//! A multi-layer perceptron of random depth, activations and sparsity, whose inner values are the features and the label (Müller et
//! al., ICLR 2022; Hollmann et al., "TabPFN", ICLR 2023), or an ensemble of random trees over correlated features (as in TabForestPFN,
//! den Breejen et al., 2024). What comes out is warped, cut into categories, mixed with columns that say nothing, and loses
//! values, as real tables do.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::in_context::{Column, Labels, MOST_CLASSES};
use crate::train::in_context::Task;

/// Sizes of the tasks that are drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct TableConfig {
    /// Examples, uniform in the logarithm.
    pub examples: std::ops::RangeInclusive<usize>,
    /// Rows to predict.
    pub rows: usize,
    /// Features, uniform in the logarithm.
    pub features: std::ops::RangeInclusive<usize>,
}

impl Default for TableConfig {
    fn default() -> Self {
        Self { examples: 16..=256, rows: 64, features: 2..=20 }
    }
}

/// The task that belongs to `seed`.
pub fn task(config: &TableConfig, seed: u64) -> Task {
    let mut random = StdRng::seed_from_u64(seed);
    let examples = log_uniform(&mut random, *config.examples.start() as f64, *config.examples.end() as f64) as usize;
    let features = log_uniform(&mut random, *config.features.start() as f64, *config.features.end() as f64) as usize;
    loop {
        let rows = examples + config.rows;
        let mut table = if random.random_bool(0.65) {
            network(&mut random, rows, features)
        } else {
            trees(&mut random, rows, features)
        };
        let target = table.swap_remove(0);
        if let Some(task) = finish(&mut random, table, &target, examples) {
            return task;
        }
    }
}

pub(super) fn log_uniform(random: &mut StdRng, low: f64, high: f64) -> f64 {
    (low.ln() + random.random::<f64>() * ((high + 1.0).ln() - low.ln())).exp().min(high)
}

fn normal(random: &mut StdRng) -> f32 {
    let (u, v): (f32, f32) = (random.random(), random.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f32::consts::TAU * v).cos()
}

fn standardise(values: &mut [f32]) {
    let count = values.len() as f32;
    let mean = values.iter().sum::<f32>() / count;
    let deviation = (values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / count).sqrt();
    let scale = if deviation > 1e-6 { 1.0 / deviation } else { 0.0 };
    values.iter_mut().for_each(|value| *value = (*value - mean) * scale);
}

/// A column of independent values of a random distribution.
fn cause(random: &mut StdRng, rows: usize) -> Vec<f32> {
    let kind = random.random_range(0..5);
    let levels = random.random_range(2..6) as f32;
    let mut values: Vec<f32> = (0..rows)
        .map(|_| match kind {
            0 | 1 => normal(random),
            2 => random.random::<f32>(),
            // Heavy tails on one side.
            3 => (normal(random)).exp(),
            // A few groups.
            _ => (random.random::<f32>() * levels).floor() + 0.2 * normal(random),
        })
        .collect();
    standardise(&mut values);
    values
}

fn activate(kind: u32, x: f32) -> f32 {
    match kind {
        0 => x.tanh(),
        1 => x.max(0.0),
        2 => (3.0 * x).sin(),
        3 => f32::from(x > 0.0),
        4 => x * x,
        5 => x.abs(),
        6 => (-x * x).exp(),
        _ => x,
    }
}

/// The label and features of a random network, one vector per column.
fn network(random: &mut StdRng, rows: usize, features: usize) -> Vec<Vec<f32>> {
    let causes = log_uniform(random, 1.0, 12.0) as usize;
    let depth = random.random_range(1..=5);
    let width = (log_uniform(random, 4.0, 40.0) as usize).max((features + 2).div_ceil(depth));
    let noise = log_uniform(random, 0.002, 0.6) as f32 - 0.002;
    let kept = random.random_range(0.25..=1.0f32);
    let (mixed, fixed) = (random.random_bool(0.6), random.random_range(0..8));
    let mut layer: Vec<Vec<f32>> = (0..causes).map(|_| cause(random, rows)).collect();
    let mut values: Vec<Vec<f32>> = vec![];
    // Labels come late where features cause them, anywhere otherwise.
    let causal = random.random_bool(0.5);
    let mut last = 0..0;
    for _ in 0..depth {
        let next: Vec<Vec<f32>> = (0..width)
            .map(|_| {
                let kind = if mixed { random.random_range(0..8) } else { fixed };
                let mut sum = vec![0.0f32; rows];
                let sure = random.random_range(0..layer.len());
                for (place, input) in layer.iter().enumerate() {
                    if place != sure && random.random::<f32>() > kept {
                        continue;
                    }
                    let weight = normal(random);
                    sum.iter_mut().zip(input).for_each(|(sum, input)| *sum += weight * input);
                }
                standardise(&mut sum);
                let shift = 0.5 * normal(random);
                sum.iter_mut().for_each(|x| *x = activate(kind, *x + shift));
                standardise(&mut sum);
                sum.iter_mut().for_each(|x| *x += noise * normal(random));
                sum
            })
            .collect();
        last = values.len()..values.len() + width;
        values.extend(next.iter().cloned());
        layer = next;
    }
    let chosen = |random: &mut StdRng, range: std::ops::Range<usize>| random.random_range(range);
    let target = if causal { chosen(random, last) } else { chosen(random, 0..values.len()) };
    let mut columns = vec![values[target].clone()];
    // Neighbours in the network have more to do with each other.
    let near = random.random_bool(0.5);
    let start = chosen(random, 0..values.len());
    let mut order: Vec<usize> = (0..values.len()).filter(|place| *place != target).collect();
    if near {
        let start = start.min(order.len().saturating_sub(1));
        order.rotate_left(start);
    } else {
        shuffle(random, &mut order);
    }
    columns.extend(order.into_iter().take(features).map(|place| values[place].clone()));
    columns
}

pub(super) fn shuffle<T>(random: &mut StdRng, values: &mut [T]) {
    for place in (1..values.len()).rev() {
        values.swap(place, random.random_range(0..=place));
    }
}

/// The label and features of an ensemble of random trees over correlated features.
fn trees(random: &mut StdRng, rows: usize, features: usize) -> Vec<Vec<f32>> {
    let latents: Vec<Vec<f32>> = (0..features.div_ceil(2)).map(|_| cause(random, rows)).collect();
    let correlated = random.random::<f32>();
    let mut columns: Vec<Vec<f32>> = (0..features)
        .map(|_| {
            let mut column = cause(random, rows);
            if random.random::<f32>() < correlated {
                let latent = &latents[random.random_range(0..latents.len())];
                let weight = 2.0 * random.random::<f32>();
                column.iter_mut().zip(latent).for_each(|(value, latent)| *value += weight * latent);
                standardise(&mut column);
            }
            column
        })
        .collect();
    // Few features matter in some tables, all of them in others.
    let matter = random.random_range(1..=features);
    let (count, depth) = (log_uniform(random, 1.0, 24.0) as usize, random.random_range(1..=5));
    let mut target = vec![0.0f32; rows];
    for _ in 0..count {
        // Oblivious trees: a feature and a threshold per level.
        let splits: Vec<(usize, f32)> = (0..depth)
            .map(|_| {
                let feature = random.random_range(0..matter);
                (feature, columns[feature][random.random_range(0..rows)])
            })
            .collect();
        let leaves: Vec<f32> = (0..1 << depth).map(|_| normal(random)).collect();
        for (row, target) in target.iter_mut().enumerate() {
            let leaf = splits
                .iter()
                .fold(0, |leaf, (feature, threshold)| 2 * leaf + usize::from(columns[*feature][row] > *threshold));
            *target += leaves[leaf];
        }
    }
    standardise(&mut target);
    let noise = log_uniform(random, 0.002, 1.0) as f32 - 0.002;
    target.iter_mut().for_each(|value| *value += noise * normal(random));
    shuffle(random, &mut columns);
    columns.insert(0, target);
    columns
}

/// The quantile of every value among all.
fn ranks(values: &[f32]) -> Vec<f32> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    order.iter().enumerate().for_each(|(rank, &place)| ranks[place] = rank as f32 / values.len() as f32);
    ranks
}

/// The shares of `count` classes, from even to skewed.
pub(super) fn class_shares(random: &mut StdRng, count: usize) -> Vec<f32> {
    let skew = 1.5 * random.random::<f32>();
    let shares: Vec<f32> = (0..count).map(|_| (skew * normal(random)).exp()).collect();
    let sum: f32 = shares.iter().sum();
    shares.into_iter().map(|share| share / sum).collect()
}

/// The classes of values cut into intervals, whose order says nothing where `shuffled`.
fn classes(random: &mut StdRng, values: &[f32], count: usize, shuffled: bool) -> Vec<u32> {
    let shares = class_shares(random, count);
    let mut names: Vec<u32> = (0..count as u32).collect();
    if shuffled {
        shuffle(random, &mut names);
    }
    let class = |rank: f32| {
        let mut below = 0.0;
        let found = shares.iter().position(|share| {
            below += share;
            rank < below
        });
        names[found.unwrap_or(count - 1)]
    };
    ranks(values).into_iter().map(class).collect()
}

/// A numeric column with another distribution.
fn warp(random: &mut StdRng, values: &mut [f32]) {
    let (kind, strength) = (random.random_range(0..9), random.random_range(0.3..1.5f32));
    let steps = log_uniform(random, 1.0, 30.0) as f32;
    let floor = normal(random);
    values.iter_mut().for_each(|value| {
        *value = match kind {
            0 | 1 => (strength * *value).exp(),
            2 => (*value * steps).round() / steps,
            3 => value.max(floor),
            4 => value.powi(3),
            5 => (strength * *value).exp().round(),
            _ => *value,
        }
    });
}

/// Makes a task of features and a label; `None` where the examples say nothing.
fn finish(random: &mut StdRng, table: Vec<Vec<f32>>, target: &[f32], examples: usize) -> Option<Task> {
    let categories = if random.random_bool(0.3) { 0.0 } else { 0.7 * random.random::<f32>() };
    let missing = if random.random_bool(0.6) { 0.0 } else { 0.5 * random.random::<f32>() };
    let silent = if random.random_bool(0.5) { 0.0 } else { 0.4 * random.random::<f32>() };
    let mut columns = Vec::with_capacity(table.len());
    for mut values in table {
        if random.random::<f32>() < silent {
            shuffle(random, &mut values);
        }
        let lost = if random.random::<f32>() < missing { 0.5 * random.random::<f32>() } else { 0.0 };
        if random.random::<f32>() < categories {
            let levels = log_uniform(random, 2.0, 20.0) as usize;
            let shuffled = random.random_bool(0.7);
            let codes = classes(random, &values, levels, shuffled);
            let code = |code| (random.random::<f32>() >= lost).then_some(code);
            columns.push(Column::Category(codes.into_iter().map(code).collect()));
        } else {
            warp(random, &mut values);
            values.iter_mut().for_each(|value| {
                if random.random::<f32>() < lost {
                    *value = f32::NAN;
                }
            });
            columns.push(Column::Number(values));
        }
    }
    let labels = label(random, target)?;
    split(columns, labels, examples)
}

/// Labels of a random kind.
fn label(random: &mut StdRng, target: &[f32]) -> Option<Labels> {
    if target.iter().any(|value| !value.is_finite()) {
        return None;
    }
    if random.random_bool(0.6) {
        let count = if random.random_bool(0.6) { 2 } else { random.random_range(3..=MOST_CLASSES) };
        let shuffled = random.random_bool(0.8);
        return Some(Labels::Classes { labels: classes(random, target, count, shuffled), count });
    }
    let mut values = target.to_vec();
    standardise(&mut values);
    warp(random, &mut values);
    Some(Labels::Numbers(values))
}

/// The first rows as examples, the others to be predicted.
pub(super) fn split(columns: Vec<Column>, labels: Labels, examples: usize) -> Option<Task> {
    let cut = |column: Column| match column {
        Column::Number(mut values) => {
            let rest = values.split_off(examples);
            (Column::Number(values), Column::Number(rest))
        }
        Column::Category(mut codes) => {
            let rest = codes.split_off(examples);
            (Column::Category(codes), Column::Category(rest))
        }
    };
    let (labels, answers) = match labels {
        Labels::Classes { mut labels, count } => {
            let rest = labels.split_off(examples);
            (Labels::Classes { labels, count }, Labels::Classes { labels: rest, count })
        }
        Labels::Numbers(mut labels) => {
            let rest = labels.split_off(examples);
            (Labels::Numbers(labels), Labels::Numbers(rest))
        }
    };
    let varies = match &labels {
        Labels::Numbers(labels) => labels.iter().any(|label| (label - labels[0]).abs() > 1e-6),
        Labels::Classes { .. } => true,
    };
    if !varies || labels.validate().is_err() {
        return None;
    }
    let (examples, rows) = columns.into_iter().map(cut).unzip();
    Some(Task { examples, labels, rows, answers })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_deterministic_and_whole() {
        let config = TableConfig { examples: 16..=40, rows: 8, features: 2..=12 };
        let mut kinds = [0; 2];
        for seed in 0..200 {
            let drawn = task(&config, seed);
            assert_eq!(format!("{drawn:?}"), format!("{:?}", task(&config, seed)));
            assert!(drawn.labels.validate().is_ok() && drawn.answers.len() == 8);
            assert!((2..=12).contains(&drawn.examples.len()) && drawn.rows.len() == drawn.examples.len());
            assert!(drawn.examples.iter().all(|column| column.len() == drawn.labels.len()));
            assert!(drawn.rows.iter().all(|column| column.len() == 8));
            kinds[usize::from(matches!(drawn.labels, Labels::Numbers(_)))] += 1;
        }
        assert!(kinds.iter().all(|kind| *kind > 40), "{kinds:?}");
    }
}
