//! Which parent row each row refers to, and the arrays of key values.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, StringArray, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use arrow::error::ArrowError;

use super::growth::Grown;
use super::random::{Alias, Random, normal_share_below, zipf_weights};
use super::schema::{Fanout, KeyStyle, ReferencePlan, RowOrder, TableKind, TablePlan};

/// In place of a parent row: no reference. Numbers from the parent's row count up to here dangle.
pub(super) const MISSING: u32 = u32::MAX;

/// How many key values that no parent has one reference uses.
const DANGLING_KEYS: usize = 50;

/// Orders rows by descending score, ties by row.
fn rank(scores: &[f32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    order.sort_unstable_by(|&a, &b| {
        let by_score: Ordering = scores[b as usize].total_cmp(&scores[a as usize]);
        by_score.then(a.cmp(&b))
    });
    order
}

/// For each reference of `plan` to an earlier table, the parent row of each row. All lists have the same length,
/// which for links (distinct pairs) and extensions (distinct parents) can differ from the plan.
pub(super) fn assign(plan: &TablePlan, grown: &[Grown], random: &Random) -> Vec<Vec<u32>> {
    let mut assigned: Vec<Vec<u32>> = vec![];
    let earlier = plan.references.iter().filter(|reference| reference.table < grown.len());
    for (index, reference) in earlier.enumerate() {
        let mut random = random.fork(index as u64);
        let parent = &grown[reference.table];
        if plan.kind == TableKind::Extension {
            assigned.push(some_rows(parent.rows, plan.rows, &mut random));
            continue;
        }
        // What the row is like so far: the latent of its first parent.
        let company: Option<Vec<f32>> = assigned.first().map(|rows: &Vec<u32>| {
            let latent = &grown[plan.references[0].table].latents[0];
            rows.iter().map(|&row| latent.get(row as usize).copied().unwrap_or(0.0)).collect()
        });
        let rows = if plan.kind == TableKind::Link && plan.key == KeyStyle::References {
            plan.rows + plan.rows / 4 + 1
        } else {
            plan.rows
        };
        let mut parents = draw_parents(reference, parent, rows, company.as_deref(), &mut random);
        omit(reference, parent.rows, &mut parents, company.as_deref(), &mut random);
        if index == 0 && plan.order == RowOrder::ByParent {
            parents.sort_unstable();
        }
        assigned.push(parents);
    }
    if plan.kind == TableKind::Link && plan.key == KeyStyle::References {
        assigned = distinct(assigned, plan.rows, plan.order, &mut random.fork(u64::MAX));
    }
    assigned
}

fn draw_parents(
    reference: &ReferencePlan,
    parent: &Grown,
    rows: usize,
    company: Option<&[f32]>,
    random: &mut Random,
) -> Vec<u32> {
    let own = (1.0 - reference.popularity * reference.popularity).max(0.0).sqrt();
    let scores: Vec<f32> =
        parent.popularity.iter().map(|popularity| reference.popularity * popularity + own * random.normal()).collect();
    let mut ranked = rank(&scores);
    let covered = ((parent.rows as f64 * reference.covered).ceil() as usize).clamp(1, parent.rows);
    ranked.truncate(covered);
    let weights: Vec<f64> = match reference.fanout {
        Fanout::Even => {
            let mut parents: Vec<u32> = (0..rows).map(|row| ranked[row % covered]).collect();
            for row in (1..rows).rev() {
                parents.swap(row, random.below(row + 1));
            }
            return parents;
        }
        Fanout::Uniform => vec![1.0; covered],
        Fanout::LogNormal { spread } => {
            // Descending, so that the ranks keep their meaning.
            let mut draws: Vec<f64> =
                (0..covered).map(|_| super::random::exp(spread * f64::from(random.normal()))).collect();
            draws.sort_unstable_by(|a, b| b.total_cmp(a));
            draws
        }
        Fanout::Zipf { exponent } => zipf_weights(covered, exponent),
    };
    let alias = Alias::new(&weights);
    let affinity = if company.is_some() { reference.affinity } else { 0.0 };
    let similar: Vec<u32> = if affinity > 0.0 {
        // Ranks in the order of the parents' latent: neighbours are alike.
        let latents: Vec<f32> = ranked.iter().map(|&row| -parent.latents[0][row as usize]).collect();
        rank(&latents)
    } else {
        vec![]
    };
    // Parents that still wait for their first child, if each is to have one.
    let mut waiting: Vec<u32> = if reference.complete && rows >= covered { ranked.clone() } else { vec![] };
    for last in (1..waiting.len()).rev() {
        waiting.swap(last, random.below(last + 1));
    }
    (0..rows)
        .map(|row| {
            // Exactly as many of the rows that are left as there are parents without children, at random.
            if !waiting.is_empty()
                && random.below(rows - row) < waiting.len()
                && let Some(parent) = waiting.pop()
            {
                return parent;
            }
            let rank = match company {
                Some(company) if random.chance(affinity) => {
                    let place = normal_share_below(company[row]) + 0.05 * f64::from(random.normal());
                    let place = ((place.clamp(0.0, 1.0) * covered as f64) as usize).min(covered - 1);
                    let neighbour = (place + random.below(covered / 50 + 2)).min(covered - 1);
                    // The more popular of the two.
                    similar[place].min(similar[neighbour]) as usize
                }
                _ => alias.draw(random),
            };
            ranked[rank]
        })
        .collect()
}

/// Takes references away: at random or, where the row has other parents, depending on them. Lets some dangle.
fn omit(
    reference: &ReferencePlan,
    parent_rows: usize,
    parents: &mut [u32],
    company: Option<&[f32]>,
    random: &mut Random,
) {
    if reference.null_share <= 0.0 && reference.dangling_share <= 0.0 {
        return;
    }
    let depends = random.chance(0.5);
    for (row, parent) in parents.iter_mut().enumerate() {
        let tilt = company.filter(|_| depends).map_or(1.0, |company| 2.0 * normal_share_below(company[row]));
        if random.chance(reference.null_share * tilt) {
            *parent = MISSING;
        } else if random.chance(reference.dangling_share) {
            *parent = (parent_rows + random.below(DANGLING_KEYS)) as u32;
        }
    }
}

/// About `wanted` of the rows `0..rows`, in order.
fn some_rows(rows: usize, wanted: usize, random: &mut Random) -> Vec<u32> {
    let share = wanted as f64 / rows as f64;
    let chosen: Vec<u32> = (0..rows as u32).filter(|_| random.chance(share)).collect();
    if chosen.is_empty() { vec![random.below(rows) as u32] } else { chosen }
}

/// Rows of `columns` without repetitions, at most `wanted`.
fn distinct(columns: Vec<Vec<u32>>, wanted: usize, order: RowOrder, random: &mut Random) -> Vec<Vec<u32>> {
    let Some(rows) = columns.first().map(Vec::len) else { return columns };
    let tuple =
        |row: u32| -> [u32; 3] { std::array::from_fn(|i| columns.get(i).map_or(0, |column| column[row as usize])) };
    // Links never have more than three references.
    let mut order_of_rows: Vec<([u32; 3], u32)> = (0..rows as u32).map(|row| (tuple(row), row)).collect();
    order_of_rows.sort_unstable();
    order_of_rows.dedup_by_key(|(tuple, _)| *tuple);
    if order != RowOrder::ByParent || order_of_rows.len() > wanted {
        // The order in which they were drawn, which cuts off the excess without a bias.
        order_of_rows.sort_unstable_by_key(|&(_, row)| row);
        order_of_rows.truncate(wanted);
    }
    match order {
        RowOrder::ByParent => order_of_rows.sort_unstable(),
        RowOrder::Shuffled => {
            for row in (1..order_of_rows.len()).rev() {
                order_of_rows.swap(row, random.below(row + 1));
            }
        }
        RowOrder::Insertion => {}
    }
    (0..columns.len()).map(|i| order_of_rows.iter().map(|(tuple, _)| tuple[i]).collect()).collect()
}

/// A tree over the rows of one table: the parent of each row was there before it. `null_share` of them are roots.
pub(super) fn assign_self(rows: usize, null_share: f64, random: &mut Random) -> Vec<u32> {
    (0..rows)
        .map(|row| {
            let u = random.uniform();
            // Early rows have most of the children.
            if row == 0 || random.chance(null_share) { MISSING } else { (row as f64 * u * u) as u32 }
        })
        .collect()
}

/// Numbers the rows of each parent from one, in the order of the rows.
pub(super) fn numbers_among(parents: &[u32], parent_rows: usize, wide: bool) -> ArrayRef {
    let mut last = vec![0u32; parent_rows];
    let numbers = parents.iter().map(|&parent| {
        let number = &mut last[parent as usize];
        *number += 1;
        *number
    });
    if wide {
        Arc::new(Int64Array::from_iter_values(numbers.map(i64::from)))
    } else {
        Arc::new(Int32Array::from_iter_values(numbers.map(|number| number as i32)))
    }
}

/// The values of a key of its own, or none where the table has no such key.
pub(super) fn key_values(plan: &TablePlan, rows: usize, random: &mut Random) -> Option<ArrayRef> {
    let shuffled = plan.order == RowOrder::Shuffled;
    match plan.key {
        KeyStyle::None | KeyStyle::References | KeyStyle::Numbered { .. } => None,
        KeyStyle::Numbers { wide, first, gap } => {
            let mut next = first;
            let mut numbers: Vec<i64> = (0..rows)
                .map(|_| {
                    let number = next;
                    next += 1 + random.below(gap) as i64;
                    number
                })
                .collect();
            if shuffled {
                numbers = random.permutation(rows).iter().map(|&row| numbers[row as usize]).collect();
            }
            if wide {
                Some(Arc::new(Int64Array::from(numbers)))
            } else {
                Some(Arc::new(Int32Array::from_iter_values(numbers.iter().map(|&number| number as i32))))
            }
        }
        KeyStyle::Codes => {
            let letters = |mut n: usize, width: usize| -> String {
                let mut code = vec![b'A'; width];
                for letter in code.iter_mut().rev() {
                    *letter = b'A' + (n % 26) as u8;
                    n /= 26;
                }
                String::from_utf8_lossy(&code).into_owned()
            };
            let scattered = random.chance(0.5);
            let prefix = letters(random.below(676), 2);
            let order = random.permutation(rows);
            let code = |row: usize| {
                let number = if scattered || shuffled { order[row] as usize } else { row };
                // Seven has no factor in common with 26^3, so no code comes twice among that many rows.
                if scattered { letters(number * 7 % 17_576, 3) } else { format!("{prefix}{:04}", number + 1) }
            };
            Some(Arc::new(StringArray::from_iter_values((0..rows).map(code))))
        }
    }
}

/// The values of a reference: the parent's key values in the order of `parents`.
pub(super) fn reference_values(key: &ArrayRef, parents: &[u32]) -> Result<ArrayRef, ArrowError> {
    let rows = key.len();
    let dangles = parents.iter().any(|&parent| parent != MISSING && parent as usize >= rows);
    let complete = parents.iter().all(|&parent| parent != MISSING);
    let indices = if complete {
        UInt32Array::from_iter_values(parents.iter().copied())
    } else {
        parents.iter().map(|&parent| (parent != MISSING).then_some(parent)).collect()
    };
    if dangles {
        take(&concat(&[key.as_ref(), &*dangling_keys(key)])?, &indices, None)
    } else {
        take(key, &indices, None)
    }
}

/// [`DANGLING_KEYS`] values of the key's type that are not among its values.
fn dangling_keys(key: &ArrayRef) -> ArrayRef {
    let count = DANGLING_KEYS as i64;
    match key.data_type() {
        DataType::Int64 => {
            let largest = arrow::compute::max(key.as_primitive::<Int64Type>()).unwrap_or(0);
            Arc::new(Int64Array::from_iter_values((1..=count).map(|i| largest + i)))
        }
        DataType::Int32 => {
            let largest = arrow::compute::max(key.as_primitive::<Int32Type>()).unwrap_or(0);
            Arc::new(Int32Array::from_iter_values((1..=count).map(|i| largest + i as i32)))
        }
        // Key codes have no lower-case letters.
        _ => Arc::new(StringArray::from_iter_values((1..=count).map(|i| format!("gone{i:02}")))),
    }
}

/// Shares of matched values and of NULLs among `parents`.
pub(super) fn fractions(parents: &[u32], parent_rows: usize) -> (f64, f64) {
    let missing = parents.iter().filter(|&&parent| parent == MISSING).count();
    let matched = parents.iter().filter(|&&parent| (parent as usize) < parent_rows).count();
    let present = parents.len() - missing;
    let match_fraction = if present == 0 { 1.0 } else { matched as f64 / present as f64 };
    (match_fraction, missing as f64 / parents.len().max(1) as f64)
}
