//! Keys inferred from data, for databases that declare none.
//!
//! One scan of each table probes its whole-number and text columns (`probe`). A column without NULLs and repetitions
//! can be a primary key; a column whose values are all found in such a column can be a foreign key. Contained values
//! alone prove little (small numbers are found in every numbering), so names decide between candidates (`names`), and
//! where no name speaks for a reference, it must cover much of a large text key.
//!
//! Method: single-column inclusion dependencies ranked by name similarity and coverage, two of the features of Rostin,
//! Albrecht, Bauckmann, Naumann and Leser, "A Machine Learning Approach to Foreign Key Discovery", WebDB 2009; here on
//! hash samples and with a fixed rule.

mod names;
mod probe;

use datafusion::prelude::SessionContext;
use futures::TryStreamExt;

use super::database::{Database, DatabaseTable};
use super::error::Result;
use super::keys::{ForeignKey, Keys, PrimaryKey};
use names::ColumnName;
use probe::ColumnProbe;

/// Name similarity from which a contained column is taken for a reference.
const SIMILAR: f64 = 0.5;
/// Distinct values a text column without a similar name must have to count as a reference.
const TEXT_DISTINCT: u64 = 20;
/// Share of the key's values that it must cover as well.
const TEXT_COVERAGE: f64 = 0.3;

/// A probed column.
#[derive(Debug)]
struct Candidate {
    table: usize,
    position: usize,
    column: String,
    name: ColumnName,
    probe: ColumnProbe,
}

impl Candidate {
    fn is_key(&self) -> bool {
        self.probe.is_unique()
    }
}

/// Infers primary and foreign keys of `database`.
///
/// # Errors
/// A table cannot be scanned.
pub async fn infer_keys(ctx: &SessionContext, database: &Database) -> Result<Keys> {
    let mut candidates = Vec::new();
    for (index, table) in database.tables.iter().enumerate() {
        candidates.extend(probe_table(ctx, index, table).await?);
    }
    Ok(keys_of(database, &candidates))
}

/// Scans the columns of one table that can be part of a key.
async fn probe_table(ctx: &SessionContext, index: usize, table: &DatabaseTable) -> Result<Vec<Candidate>> {
    let schema = table.schema();
    let mut candidates: Vec<Candidate> = schema
        .fields()
        .iter()
        .enumerate()
        .filter_map(|(position, field)| {
            let probe = ColumnProbe::new(field.data_type())?;
            let name = ColumnName::new(&table.name, field.name());
            Some(Candidate { table: index, position, column: field.name().clone(), name, probe })
        })
        .collect();
    if candidates.is_empty() {
        return Ok(candidates);
    }
    let indices: Vec<usize> = candidates.iter().map(|candidate| candidate.position).collect();
    let frame = ctx.table(table.reference()).await?;
    let (state, plan) = frame.into_parts();
    let plan = datafusion::logical_expr::LogicalPlanBuilder::from(plan).select(indices)?.build()?;
    let plan = state.create_physical_plan(&plan).await?;
    let mut stream = datafusion::physical_plan::execute_stream(plan, state.task_ctx())?;
    while let Some(batch) = stream.try_next().await? {
        for (candidate, column) in candidates.iter_mut().zip(batch.columns()) {
            candidate.probe.add(column)?;
        }
    }
    Ok(candidates)
}

fn keys_of(database: &Database, candidates: &[Candidate]) -> Keys {
    let table_name = |candidate: &Candidate| database.tables[candidate.table].name.clone();
    let primary: Vec<&Candidate> =
        (0..database.tables.len()).filter_map(|table| primary_key(table, candidates)).collect();
    let is_primary = |candidate: &Candidate| primary.iter().any(|key| std::ptr::eq(*key, candidate));
    let mut keys = Keys::default();
    for key in &primary {
        keys.primary.push(PrimaryKey { table: table_name(key), columns: vec![key.column.clone()] });
    }
    for child in candidates {
        let parents = candidates.iter().filter(|parent| parent.is_key() && !std::ptr::eq(*parent, child));
        let ranked = parents.filter_map(|parent| {
            let score = reference_score(child, parent, is_primary(child), is_primary(parent))?;
            Some((score, parent))
        });
        // Of equally good parents the first in the order of tables and columns.
        let best = ranked.reduce(|best, next| if next.0 > best.0 { next } else { best });
        if let Some((_, parent)) = best {
            keys.foreign.push(ForeignKey {
                table: table_name(child),
                columns: vec![child.column.clone()],
                references: table_name(parent),
                ref_columns: vec![parent.column.clone()],
            });
        }
    }
    keys
}

/// The unique column of a table that looks most like its key; none of them if none looks like one.
fn primary_key(table: usize, candidates: &[Candidate]) -> Option<&Candidate> {
    let unique = candidates.iter().filter(|candidate| candidate.table == table && candidate.is_key());
    let ranked = unique.map(|candidate| (candidate.name.key_score(candidate.position), candidate));
    let best = ranked.reduce(|best, next| if next.0 > best.0 { next } else { best });
    best.filter(|(score, _)| *score > 0.0).map(|(_, candidate)| candidate)
}

/// How much speaks for `child` referring to `parent`, higher is more; `None` if the data or the names speak against it.
fn reference_score(child: &Candidate, parent: &Candidate, child_is_key: bool, parent_is_key: bool) -> Option<f64> {
    if child.probe.distinct() == 0 || !child.probe.same_family(&parent.probe) {
        return None;
    }
    let similarity = child.name.reference_similarity(&parent.name);
    let coverage = child.probe.distinct() as f64 / parent.probe.distinct().max(1) as f64;
    let told_by_name = similarity >= SIMILAR;
    let told_by_values =
        child.probe.is_text() && child.probe.distinct() >= TEXT_DISTINCT && coverage >= TEXT_COVERAGE && parent_is_key;
    if !(told_by_name || told_by_values) || !child.probe.is_contained_in(&parent.probe) {
        return None;
    }
    // A key that refers to another key is a one-to-one extension: the smaller one refers, and of equal ones the one
    // whose table is not what the column is called after.
    if child_is_key {
        let extends = child.table != parent.table && told_by_name && coverage <= 1.0;
        let backwards =
            parent.probe.is_contained_in(&child.probe) && child.name.own_table_score() >= parent.name.own_table_score();
        if !extends || backwards {
            return None;
        }
    }
    Some(similarity + 0.2 * f64::from(u8::from(parent_is_key)) + 0.2 * parent.name.own_table_score() + 0.1 * coverage)
}
