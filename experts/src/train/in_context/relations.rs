//! Tasks over relational databases: features and labels that were synthesised before, in ever new cuts.
//!
//! A stored task is seen many times, each time with other examples and features, and with another label: its own, or one of its
//! features, as numbers or cut into classes (as RDB-PFN thresholds random columns).

use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use relata_featurize::synthesis::{FeatureValues, LabelledTable};

use crate::Result;
use crate::error::ExpertsError;
use crate::in_context::{Column, Labels, MOST_CLASSES};
use crate::train::in_context::Task;
use crate::train::in_context::tables::{TableConfig, class_shares, log_uniform, shuffle, split};

/// One of so many databases is held out.
const HELD_OUT: usize = 20;

/// Draws of a cut before another task is tried.
const ATTEMPTS: usize = 4;

/// Ending of a file of tasks.
const ENDING: &str = "tasks";

/// Stored tasks.
#[derive(Debug, Clone)]
pub struct RelationalTasks {
    training: Vec<LabelledTable>,
    held_out: Vec<LabelledTable>,
}

impl RelationalTasks {
    /// Reads the tasks in a folder, as `relata-bench tasks` writes them.
    ///
    /// # Errors
    ///
    /// When the folder or a file cannot be read, or holds too few tasks that `config` can be cut out of to hold some out.
    pub fn read(folder: &Path, config: &TableConfig) -> Result<Self> {
        let io = |source| ExpertsError::Io { path: folder.to_owned(), source };
        let entries = std::fs::read_dir(folder).map_err(io)?.collect::<Result<Vec<_>, _>>().map_err(io)?;
        let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == ENDING));
        files.sort();
        let (mut training, mut held_out) = (vec![], vec![]);
        for (place, file) in files.iter().enumerate() {
            let part = if place % HELD_OUT == 0 { &mut held_out } else { &mut training };
            part.extend(LabelledTable::read_all(file)?);
        }
        // Where one can be cut, one is found.
        let cuts = |table: &LabelledTable| {
            (0..ATTEMPTS as u64).any(|seed| cut(&mut StdRng::seed_from_u64(seed), config, table).is_some())
        };
        if ![&training, &held_out].into_iter().all(|tables| tables.iter().any(cuts)) {
            let message = format!("{} holds too few tasks with {:?} examples", folder.display(), config.examples);
            return Err(ExpertsError::Training(message));
        }
        Ok(Self { training, held_out })
    }

    /// Number of stored tasks to train on, and held out.
    pub fn counts(&self) -> [usize; 2] {
        [self.training.len(), self.held_out.len()]
    }

    /// The task that belongs to `seed`, of those to train on or of those held out.
    pub fn task(&self, config: &TableConfig, seed: u64, held_out: bool) -> Task {
        let tables = if held_out { &self.held_out } else { &self.training };
        let mut random = StdRng::seed_from_u64(seed);
        loop {
            let table = &tables[random.random_range(0..tables.len())];
            for _ in 0..ATTEMPTS {
                if let Some(task) = cut(&mut random, config, table) {
                    return task;
                }
            }
        }
    }
}

/// Some rows and features of a stored task with a label; `None` where the label says nothing there.
fn cut(random: &mut StdRng, config: &TableConfig, stored: &LabelledTable) -> Option<Task> {
    let mut table = stored.features.clone();
    let label = if random.random_bool(0.3) && table.columns.len() > 2 {
        table.columns.swap_remove(random.random_range(0..table.columns.len())).values
    } else {
        stored.label.clone()
    };
    let mut rows: Vec<usize> = match &label {
        FeatureValues::Number(values) => (0..values.len()).filter(|row| values[*row].is_finite()).collect(),
        FeatureValues::Category { codes, .. } => (0..codes.len()).filter(|row| codes[*row].is_some()).collect(),
    };
    shuffle(random, &mut rows);
    let asked = config.rows.min(rows.len() / 4);
    let most = (rows.len() - asked).min(*config.examples.end());
    if asked < 8 || most < *config.examples.start() {
        return None;
    }
    let examples = log_uniform(random, *config.examples.start() as f64, most as f64) as usize;
    rows.truncate(examples + asked);
    let labels = labels(random, &label, &rows)?;
    let features = log_uniform(random, *config.features.start() as f64, *config.features.end() as f64) as usize;
    if random.random_bool(0.5) {
        shuffle(random, &mut table.columns);
        table.columns.truncate(4 * features);
    }
    // As many as are read, by what they say of the examples.
    labels.select(&mut table, rows.iter().copied().take(examples), features);
    if table.columns.is_empty() {
        return None;
    }
    let columns = table.columns.iter().map(|feature| Column::of(&feature.values, rows.iter().copied()));
    split(columns.collect(), labels, examples)
}

/// The labels of some rows: numbers as they are or cut into classes, categories as classes of which the rarest are one.
fn labels(random: &mut StdRng, label: &FeatureValues, rows: &[usize]) -> Option<Labels> {
    match label {
        FeatureValues::Number(values) => {
            let numbers: Vec<f32> = rows.iter().map(|row| values[*row]).collect();
            if random.random_bool(0.5) {
                return Some(Labels::Numbers(numbers));
            }
            let count = if random.random_bool(0.7) { 2 } else { random.random_range(3..=MOST_CLASSES) };
            let mut sorted = numbers.clone();
            sorted.sort_unstable_by(f32::total_cmp);
            let mut below = 0.0;
            let bounds: Vec<f32> = class_shares(random, count)
                .into_iter()
                .take(count - 1)
                .map(|share| {
                    below += share;
                    sorted[((below * sorted.len() as f32) as usize).min(sorted.len() - 1)]
                })
                .collect();
            let class = |number: &f32| bounds.iter().filter(|bound| number >= bound).count() as u32;
            Some(Labels::Classes { labels: numbers.iter().map(class).collect(), count })
        }
        FeatureValues::Category { codes, levels } => {
            let mut counts = vec![0usize; levels.len()];
            rows.iter().filter_map(|row| codes[*row]).for_each(|code| counts[code as usize] += 1);
            let mut order: Vec<usize> = (0..levels.len()).filter(|level| counts[*level] > 0).collect();
            order.sort_by_key(|level| std::cmp::Reverse(counts[*level]));
            let count = order.len().min(MOST_CLASSES);
            let mut names: Vec<u32> = (0..count as u32).collect();
            shuffle(random, &mut names);
            let mut classes = vec![0; levels.len()];
            order
                .iter()
                .enumerate()
                .for_each(|(rank, level)| classes[*level] = *names.get(rank.min(count - 1)).unwrap_or(&0));
            let labels = rows.iter().filter_map(|row| codes[*row]).map(|code| classes[code as usize]).collect();
            (count >= 2).then_some(Labels::Classes { labels, count })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use relata_featurize::synthesis::{FeatureColumn, FeatureTable};

    fn table(seed: u64) -> LabelledTable {
        let mut random = StdRng::seed_from_u64(seed);
        let rows = 200;
        let mut number = || FeatureValues::Number((0..rows).map(|_| random.random()).collect());
        let columns: Vec<FeatureValues> = (0..6).map(|_| number()).collect();
        let codes = (0..rows as u32).map(|row| (row % 9 > 0).then_some(row % 13)).collect();
        let levels = (0..13).map(|level| level.to_string()).collect();
        let features = FeatureTable {
            rows: (0..rows as u64).collect(),
            columns: columns.into_iter().map(|values| FeatureColumn { name: "f".to_owned(), values }).collect(),
        };
        LabelledTable { name: "t".to_owned(), features, label: FeatureValues::Category { codes, levels } }
    }

    #[test]
    fn cuts_are_deterministic_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        for seed in 0..3 {
            LabelledTable::write_all(&[table(seed)], &folder.path().join(format!("{seed}.{ENDING}"))).unwrap();
        }
        let config = TableConfig { examples: 16..=64, rows: 32, features: 1..=5 };
        let tasks = RelationalTasks::read(folder.path(), &config).unwrap();
        assert_eq!(tasks.counts(), [2, 1]);
        for seed in 0..60 {
            let task = tasks.task(&config, seed, seed % 2 == 0);
            assert_eq!(format!("{task:?}"), format!("{:?}", tasks.task(&config, seed, seed % 2 == 0)));
            assert!(task.labels.validate().is_ok() && (16..=64).contains(&task.labels.len()));
            assert!((1..=5).contains(&task.examples.len()) && task.answers.len() == 32);
        }
        assert!(RelationalTasks::read(&folder.path().join("nowhere"), &config).is_err());
        let many = TableConfig { examples: 100_000..=200_000, ..config };
        assert!(matches!(RelationalTasks::read(folder.path(), &many), Err(ExpertsError::Training(_))));
    }
}
