//! Tasks of the corpus with their features.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, ensure};
use datafusion::prelude::SessionContext;
use hashbrown::HashMap;
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::{SliceRandom, index};
use relata_experts::in_context::{Labels, MOST_CLASSES};
use relata_experts::weights::sha256;
use relata_featurize::synthesis::{
    FeatureColumn, FeatureTable, FeatureValues, LabelledTable, Reference, SynthesisConfig,
};
use serde::{Deserialize, Serialize};

use super::PredictOptions;
use crate::database::{Database, Role};
use crate::tasks::{self, Rows};

/// Rows of a task whose features are made.
const MOST_ROWS: usize = 1536;

/// Features that are made of a task at most.
const MOST_FEATURES: usize = 120;

/// What the corpus does not say of its tasks: times, and what would give labels away.
const SETTINGS: &str = include_str!("../../predict/tasks.json");

/// What else a task needs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// The column of the entity's time.
    time: Option<String>,
    /// Columns `table.column` that give the label away.
    hide: Vec<String>,
    /// Tables that do.
    without: Vec<String>,
    /// Steps along foreign keys at most, where a table has too many rows for more.
    depth: Option<usize>,
    /// Whether the logarithm of the label is predicted.
    log: bool,
    /// Why it is no task.
    drop: Option<String>,
}

/// A task of `schema.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    name: String,
    entity_table: String,
    entity_key: Key,
    target_column: String,
    kind: Kind,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Key {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Classification,
    Regression,
}

#[derive(Debug, Deserialize)]
struct Schema {
    role: Role,
    #[serde(default)]
    prediction_tasks: Vec<Entry>,
}

/// A task with its features, without rows whose label is missing.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) name: String,
    pub(crate) features: FeatureTable,
    pub(crate) label: Labels,
    /// The rows that each row refers to, one column for each foreign key.
    pub(crate) entities: Vec<Vec<Option<u32>>>,
    /// Whether the rows are in the order of their times.
    pub(crate) in_time: bool,
}

impl Prepared {
    pub(crate) fn classes(&self) -> usize {
        match &self.label {
            Labels::Classes { count, .. } => *count,
            Labels::Numbers(_) => 0,
        }
    }

    pub(crate) fn labels_of(&self, rows: &[usize]) -> Labels {
        match &self.label {
            Labels::Classes { labels, count } => {
                Labels::Classes { labels: rows.iter().map(|row| labels[*row]).collect(), count: *count }
            }
            Labels::Numbers(labels) => Labels::Numbers(rows.iter().map(|row| labels[*row]).collect()),
        }
    }

    /// Whether labels of these rows differ.
    pub(crate) fn differ(&self, rows: &[usize]) -> bool {
        match self.labels_of(rows) {
            Labels::Classes { labels, .. } => labels.iter().any(|label| *label != labels[0]),
            Labels::Numbers(labels) => labels.iter().any(|label| (label - labels[0]).abs() > 1e-9),
        }
    }
}

/// All tasks that are asked for.
pub(crate) fn tasks(options: &PredictOptions) -> Result<Vec<Prepared>> {
    let settings: BTreeMap<String, Settings> = serde_json::from_str(SETTINGS)?;
    let mut folders: Vec<_> = std::fs::read_dir(&options.corpus)
        .with_context(|| format!("no corpus at {}", options.corpus.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    folders.retain(|folder| folder.join("schema.json").is_file());
    folders.sort();
    let bar = ProgressBar::new(folders.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} databases  {elapsed}  {msg}")?);
    let runtime = tokio::runtime::Runtime::new()?;
    let mut prepared = vec![];
    for folder in &folders {
        bar.inc(1);
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let schema: Schema = serde_json::from_str(&std::fs::read_to_string(folder.join("schema.json"))?)?;
        let wanted =
            if options.database.is_empty() { schema.role == Role::Eval } else { options.database.contains(&name) };
        if !wanted || schema.prediction_tasks.is_empty() {
            continue;
        }
        bar.set_message(name.clone());
        let mut database = None;
        for entry in &schema.prediction_tasks {
            let task = format!("{name}/{}", entry.name);
            let settings = settings.get(&task).cloned().unwrap_or_default();
            if settings.drop.is_some() {
                continue;
            }
            let kept = format!(
                "{name}-{}-{}{}-{}.tasks",
                entry.name,
                options.depth,
                if options.shuffle_keys { "-shuffled" } else { "" },
                fingerprint(entry, &settings)?
            );
            let file = options.output.join("features").join(kept);
            if !file.is_file() {
                if database.is_none() {
                    database = Some(Database::from_folder(folder)?);
                }
                if let Some(database) = &database {
                    let tables =
                        runtime.block_on(make(options, database, entry, &settings)).with_context(|| task.clone())?;
                    std::fs::create_dir_all(options.output.join("features"))?;
                    LabelledTable::write_all(&tables, &file)?;
                }
            }
            let [table, entities] = <[LabelledTable; 2]>::try_from(LabelledTable::read_all(&file)?)
                .map_err(|tables| anyhow!("{} holds {} tables", file.display(), tables.len()))?;
            prepared.push(finish(task, table, entities, settings.time.is_some(), settings.log));
        }
    }
    bar.finish_and_clear();
    ensure!(!prepared.is_empty(), "no tasks in {}", options.corpus.display());
    Ok(prepared)
}

/// A short hash of what decides the features of a task beside its data and the command line.
fn fingerprint(entry: &Entry, settings: &Settings) -> Result<String> {
    let mut hash = sha256(&serde_json::to_vec(&(entry, settings, MOST_ROWS, MOST_FEATURES))?);
    hash.truncate(8);
    Ok(hash)
}

/// The features of a task's rows, in the order of their times, and what the rows refer to.
async fn make(
    options: &PredictOptions,
    database: &Database,
    entry: &Entry,
    settings: &Settings,
) -> Result<[LabelledTable; 2]> {
    let mut database = database.clone();
    if options.shuffle_keys {
        tasks::shuffle_keys(&mut database)?;
    }
    let table_of = |name: &str| {
        let found = database.tables.iter().position(|table| table.name == name);
        found.with_context(|| format!("there is no table {name}"))
    };
    let column_of =
        |table: usize, name: &str| Ok::<usize, anyhow::Error>(database.tables[table].batch.schema().index_of(name)?);
    let table = table_of(&entry.entity_table)?;
    let keys = match &entry.entity_key {
        Key::One(key) => std::slice::from_ref(key),
        Key::Several(keys) => keys,
    };
    let key = keys.iter().map(|key| column_of(table, key)).collect::<Result<Vec<_>>>()?;
    let target = column_of(table, &entry.target_column)?;
    let mut hidden = vec![(table, target)];
    for name in &settings.hide {
        let (of, column) = name.split_once('.').context("a hidden column is written table.column")?;
        let of = table_of(of)?;
        hidden.push((of, column_of(of, column)?));
    }
    let mut relations = tasks::relations(&database)?;
    let without = settings.without.iter().map(|name| table_of(name)).collect::<Result<Vec<_>>>()?;
    relations.references.retain(|key| !without.contains(&key.table) && !without.contains(&key.references));
    if options.depth == 0 {
        relations.references.clear();
    }
    let batch = &database.tables[table].batch;
    let time = settings.time.as_ref().map(|time| column_of(table, time)).transpose()?;
    let times = match time {
        Some(time) => Some(tasks::times(batch.column(time))?.context("a row has no time")?),
        None => None,
    };
    let all: Vec<u32> = (0..batch.num_rows() as u32).collect();
    let label = tasks::values(&tasks::take_rows(batch.column(target), &all)?, entry.kind == Kind::Classification)?;
    let label = label.context("the label is neither a number nor a class")?;
    let known: Vec<u32> = all.into_iter().filter(|row| is_known(&label, *row as usize)).collect();
    let mut random = StdRng::seed_from_u64(1);
    let sample = index::sample(&mut random, known.len(), known.len().min(MOST_ROWS));
    let mut rows: Vec<u32> = sample.into_iter().map(|place| known[place]).collect();
    rows.shuffle(&mut random);
    if let Some(times) = &times {
        rows.sort_by_key(|row| times[*row as usize]);
    }
    let at = times.map(|times| rows.iter().map(|row| times[*row as usize]).collect());
    let label = take_label(&label, &rows);
    let mut entities = FeatureTable { rows: (0..rows.len() as u64).collect(), columns: vec![] };
    let schema = batch.schema();
    let here = hidden.iter().filter(|(of, _)| *of == table);
    let unseen: Vec<&str> = here.map(|(_, column)| schema.field(*column).name().as_str()).collect();
    for column in entity_columns(&relations.references, table, &unseen) {
        let referring = tasks::take_rows(batch.column(column_of(table, column)?), &rows)?;
        let values = tasks::values(&referring, true)?.context("a key of no type")?;
        entities.columns.push(FeatureColumn { name: column.to_owned(), values });
    }
    let depth = settings.depth.unwrap_or(options.depth).min(options.depth.max(1));
    let rows = Rows { table, key, hidden, rows, at };
    let context = SessionContext::new();
    let config = SynthesisConfig { depth: depth.max(1), max_features: MOST_FEATURES };
    let features = tasks::features(&context, &database, &relations, &rows, &config).await?;
    let entities = LabelledTable { name: "entities".to_owned(), features: entities, label: label.clone() };
    Ok([LabelledTable { name: entry.name.clone(), features, label }, entities])
}

/// The columns of a table that refer to rows on their own, without those that are hidden.
fn entity_columns<'a>(references: &'a [Reference], table: usize, hidden: &[&str]) -> Vec<&'a str> {
    let of_table = references.iter().filter(|key| key.table == table && key.columns.len() == 1);
    of_table.map(|key| key.columns[0].as_str()).filter(|column| !hidden.contains(column)).collect()
}

fn is_known(label: &FeatureValues, row: usize) -> bool {
    match label {
        FeatureValues::Number(values) => values[row].is_finite(),
        FeatureValues::Category { codes, .. } => codes[row].is_some(),
    }
}

fn take_label(label: &FeatureValues, rows: &[u32]) -> FeatureValues {
    match label {
        FeatureValues::Number(values) => FeatureValues::Number(rows.iter().map(|row| values[*row as usize]).collect()),
        FeatureValues::Category { codes, levels } => FeatureValues::Category {
            codes: rows.iter().map(|row| codes[*row as usize]).collect(),
            levels: levels.clone(),
        },
    }
}

/// Labels as they are predicted: the most frequent classes and the rest as one.
fn finish(name: String, table: LabelledTable, entities: LabelledTable, in_time: bool, log: bool) -> Prepared {
    let label = match table.label {
        FeatureValues::Number(values) => {
            let value = |value: f32| if log { value.signum() * value.abs().ln_1p() } else { value };
            Labels::Numbers(values.into_iter().map(value).collect())
        }
        FeatureValues::Category { codes, .. } => {
            let mut counts: HashMap<u32, usize> = HashMap::new();
            codes.iter().flatten().for_each(|code| *counts.entry(*code).or_default() += 1);
            let mut order: Vec<(u32, usize)> = counts.into_iter().collect();
            order.sort_by_key(|(code, count)| (std::cmp::Reverse(*count), *code));
            let count = order.len().min(MOST_CLASSES);
            let ranks: HashMap<u32, u32> = order.iter().zip(0..).map(|((code, _), rank)| (*code, rank)).collect();
            let class = |code: &Option<u32>| code.map_or(0, |code| ranks[&code].min(count as u32 - 1));
            Labels::Classes { labels: codes.iter().map(class).collect(), count }
        }
    };
    let mut features = table.features;
    if features.columns.is_empty() {
        // Without foreign keys a table may have nothing but its key and the label.
        let values = FeatureValues::Number(vec![0.0; features.rows.len()]);
        features.columns.push(FeatureColumn { name: "nothing".to_owned(), values });
    }
    let codes = |column: FeatureColumn| match column.values {
        FeatureValues::Category { codes, .. } => Some(codes),
        FeatureValues::Number(_) => None,
    };
    let entities = entities.features.columns.into_iter().filter_map(codes).collect();
    Prepared { name, features, label, entities, in_time }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_columns_are_no_entities() {
        let reference = |table, columns: &[&str]| Reference {
            table,
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
            references: 2,
            referenced: columns.iter().map(|_| "id".to_owned()).collect(),
        };
        let references = [
            reference(0, &["winner_id"]),
            reference(0, &["home_id"]),
            reference(0, &["season", "ground"]),
            reference(1, &["away_id"]),
            reference(0, &["best_player_id"]),
        ];
        assert_eq!(entity_columns(&references, 0, &["winner_id", "best_player_id"]), ["home_id"]);
        assert_eq!(entity_columns(&references, 1, &["winner_id"]), ["away_id"]);
    }

    #[test]
    fn other_settings_are_other_features() {
        let entry = |target: &str| Entry {
            name: "winner".to_owned(),
            entity_table: "matches".to_owned(),
            entity_key: Key::One("match_id".to_owned()),
            target_column: target.to_owned(),
            kind: Kind::Classification,
        };
        let settings: Settings = serde_json::from_str(r#"{"time": "date"}"#).unwrap();
        let first = fingerprint(&entry("winner_id"), &settings).unwrap();
        assert_eq!((first.len(), &first), (8, &fingerprint(&entry("winner_id"), &settings).unwrap()));
        let hiding = Settings { hide: vec!["matches.score".to_owned()], ..settings.clone() };
        assert_ne!(first, fingerprint(&entry("winner_id"), &hiding).unwrap());
        assert_ne!(first, fingerprint(&entry("loser_id"), &settings).unwrap());
    }
}
