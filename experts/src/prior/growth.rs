//! Growing one table of a schema: references, latents, times, keys, and then its columns.

use std::sync::Arc;

use arrow::array::ArrayRef;

use super::calendar::{DAY, Season, time_of_day};
use super::columns::Columns;
use super::database::{ForeignKey, SyntheticTable, TableBuilder};
use super::keys::{self, MISSING};
use super::random::Random;
use super::schema::{KeyStyle, ReferencePlan, RowOrder, TableKind, TablePlan};
use super::text::Vocabulary;
use super::{PriorConfig, PriorError};

/// Length of the latent vector of a row.
pub(super) const LATENTS: usize = 4;

/// What the tables of one database share.
#[derive(Debug)]
pub(super) struct World {
    pub(super) vocabulary: Vocabulary,
    /// When things happen in it.
    season: Season,
}

impl World {
    pub(super) fn draw(random: &mut Random) -> Self {
        // Starts between 1985 and 2010 and lasts up to 15 years.
        let (first_day, days) = (5_479 + random.below(9_131) as i64, random.log_within(&(60..=5_500)));
        Self { vocabulary: Vocabulary::draw(random), season: Season::random(first_day, days, random) }
    }
}

/// What later tables need to know of a table.
#[derive(Debug, Default)]
pub(super) struct Grown {
    pub(super) rows: usize,
    /// `[LATENTS][rows]`, each about standard normal.
    pub(super) latents: Vec<Vec<f32>>,
    /// How much this row attracts children, standard normal, `[rows]`.
    pub(super) popularity: Vec<f32>,
    name: String,
    key_columns: Vec<String>,
    key_values: Vec<ArrayRef>,
    /// When the row came about, in microseconds.
    event: Option<Vec<i64>>,
    /// Signals of a few columns, which the columns of children can depend on.
    signals: Vec<Vec<f32>>,
}

/// Makes the table that `plan` describes; `grown` holds the tables before it.
pub(super) fn grow(
    config: &PriorConfig,
    plan: &TablePlan,
    grown: &[Grown],
    world: &World,
    random: &Random,
) -> Result<(Grown, SyntheticTable), PriorError> {
    let arrow_error = |source| PriorError::Arrow { table: plan.name.clone(), source };
    let parents: Vec<&Grown> = plan.references.iter().filter_map(|reference| grown.get(reference.table)).collect();
    let assigned = keys::assign(plan, grown, &random.fork(0));
    let rows = assigned.first().map_or(plan.rows, Vec::len);
    let latents = latents(&parents, &assigned, rows, &mut random.fork(1));
    let event = events(plan, &parents, &assigned, world, rows, &mut random.fork(2));

    let mut table = TableBuilder::new(&plan.name);
    let own_key = keys::key_values(plan, rows, &mut random.fork(3));
    let mut key_values: Vec<ArrayRef> = own_key.iter().map(Arc::clone).collect();
    if let (Some(name), Some(values)) = (plan.key_columns.first(), &own_key) {
        table.key(name, Arc::clone(values));
    }
    for (index, (reference, chosen)) in plan.references.iter().zip(&assigned).enumerate() {
        let parent = &grown[reference.table];
        let numbered =
            if let KeyStyle::Numbered { wide } = plan.key { Some(wide).filter(|_| index == 0) } else { None };
        for (name, values) in reference.columns.iter().zip(&parent.key_values) {
            let values = keys::reference_values(values, chosen).map_err(arrow_error)?;
            if plan.key == KeyStyle::References || numbered.is_some() {
                key_values.push(Arc::clone(&values));
                table.key(name, values);
            } else {
                table.column(name, values);
            }
        }
        if let (Some(wide), Some(name)) = (numbered, plan.key_columns.last()) {
            let numbers = keys::numbers_among(chosen, parent.rows, wide);
            key_values.push(Arc::clone(&numbers));
            table.key(name, numbers);
        }
        table.reference(foreign_key(reference, &parent.name, &parent.key_columns, chosen, parent.rows));
    }
    if let (Some(reference), Some(key)) = (plan.references.get(assigned.len()), &own_key) {
        let chosen = keys::assign_self(rows, reference.null_share, &mut random.fork(4));
        table.column(&reference.columns[0], keys::reference_values(key, &chosen).map_err(arrow_error)?);
        table.reference(foreign_key(reference, &plan.name, &plan.key_columns, &chosen, rows));
    }

    let mut pool = latents.clone();
    for (parent, chosen) in parents.iter().zip(&assigned) {
        pool.extend(parent.signals.iter().map(|signal| gather(signal, chosen)));
    }
    let mut columns = Columns::new(config, plan, pool, event.as_deref(), &world.vocabulary, rows);
    let mut used = table.column_names();
    for index in 0..plan.columns {
        let (name, values) = columns.next(&mut used, &mut random.fork(1000 + index as u64));
        table.column(&name, values);
    }
    let signals = columns.into_signals();

    // Popular parents differ from the others in what can be seen of them, too.
    let mut noise = random.fork(5);
    let popularity = latents[0].iter().map(|latent| 0.6 * latent + 0.8 * noise.normal()).collect();
    let state = Grown {
        rows,
        latents,
        popularity,
        name: plan.name.clone(),
        key_columns: plan.key_columns.clone(),
        key_values,
        event,
        signals,
    };
    Ok((state, table.finish()?))
}

fn foreign_key(
    reference: &ReferencePlan,
    table: &str,
    key: &[String],
    parents: &[u32],
    parent_rows: usize,
) -> ForeignKey {
    let (match_fraction, null_fraction) = keys::fractions(parents, parent_rows);
    ForeignKey {
        columns: reference.columns.clone(),
        references_table: table.to_owned(),
        references_columns: key.to_vec(),
        match_fraction,
        null_fraction,
    }
}

/// The values of the parents, 0 where there is none.
fn gather(values: &[f32], parents: &[u32]) -> Vec<f32> {
    parents.iter().map(|&parent| values.get(parent as usize).copied().unwrap_or(0.0)).collect()
}

/// Latent vectors: a weighted sum of those of the parents and noise, with variance one. The later latents also follow
/// the first, so that any two columns of a table tend to have something in common.
fn latents(parents: &[&Grown], assigned: &[Vec<u32>], rows: usize, random: &mut Random) -> Vec<Vec<f32>> {
    let noise = random.between(0.3, 1.0) as f32;
    let weights: Vec<f32> = parents.iter().map(|_| random.between(0.05, 0.8) as f32).collect();
    let length = (noise * noise + weights.iter().map(|weight| weight * weight).sum::<f32>()).sqrt();
    let mut latents: Vec<Vec<f32>> = Vec::with_capacity(LATENTS);
    for latent in 0..LATENTS {
        let mut values: Vec<f32> = (0..rows).map(|_| random.normal() * noise / length).collect();
        for ((parent, chosen), weight) in parents.iter().zip(assigned).zip(&weights) {
            // Each latent follows one of each parent, mostly its namesake.
            let source = if random.chance(0.7) { latent } else { random.below(LATENTS) };
            let from = &parent.latents[source];
            for (value, &row) in values.iter_mut().zip(chosen) {
                *value += from.get(row as usize).map_or(0.0, |latent| latent * weight / length);
            }
        }
        if let Some(first) = latents.first() {
            let shared = random.between(0.2, 0.95) as f32;
            let rest = (1.0 - shared * shared).sqrt();
            values.iter_mut().zip(first).for_each(|(value, first)| *value = shared * first + rest * *value);
        }
        latents.push(values);
    }
    latents
}

/// When each row came about: after its parent, or spread over the life of the database. None for timeless tables.
fn events(
    plan: &TablePlan,
    parents: &[&Grown],
    assigned: &[Vec<u32>],
    world: &World,
    rows: usize,
    random: &mut Random,
) -> Option<Vec<i64>> {
    let probability = match plan.kind {
        TableKind::Fact => 0.5,
        TableKind::Entity => 0.25,
        TableKind::Extension | TableKind::Link => 0.1,
        TableKind::Lookup => 0.05,
    };
    if !random.chance(probability) {
        return None;
    }
    let in_order = plan.order == RowOrder::Insertion;
    let season = &world.season;
    let at = |row: usize, random: &mut Random| {
        let u = if in_order { (row as f64 + random.uniform()) / rows as f64 } else { random.uniform() };
        season.day(u) * DAY + time_of_day(random)
    };
    let dated = parents.iter().zip(assigned).find_map(|(parent, chosen)| Some((parent.event.as_ref()?, chosen)));
    if let Some((parent_event, chosen)) = dated.filter(|_| random.chance(0.5)) {
        let delay = random.between(0.5, 60.0) * DAY as f64;
        let after = |(row, &parent): (usize, &u32)| match parent_event.get(parent as usize) {
            Some(event) if parent != MISSING => event + (random.exponential(delay) as i64 / 1_000_000) * 1_000_000,
            _ => at(row, random),
        };
        return Some(chosen.iter().enumerate().map(after).collect());
    }
    Some((0..rows).map(|row| at(row, random)).collect())
}
