//! Join trees over the foreign keys of a database, walked along real rows.

use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use hashbrown::HashMap;
use rand::Rng;
use rand::rngs::StdRng;

use super::weighted;
use crate::count::{KeyCodes, NULL_CODE};
use crate::database::Database;

/// A way from one table to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// Columns of the table that the step leaves.
    from: Vec<usize>,
    /// The table it reaches.
    pub(crate) table: usize,
    /// The columns there.
    to: Vec<usize>,
    /// What the columns are there.
    kind: StepKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StepKind {
    /// The row that is referred to: one at most.
    Parent,
    /// The rows that refer.
    Child,
    /// Two references to the same rows are equal, which makes neither side unique.
    ManyToMany,
}

/// A relation of a query under construction.
#[derive(Debug, Clone)]
pub(crate) struct JoinedTable {
    pub(crate) table: usize,
    /// Its row of the result that the query is built around.
    pub(crate) row: Option<usize>,
}

/// The join of a relation with an earlier one.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    pub(crate) left: usize,
    pub(crate) right: usize,
    pub(crate) keys: Vec<(usize, usize)>,
    pub(crate) many_to_many: bool,
}

/// Relations and the joins that tie each to an earlier one, `joins[i]` being that of relation `i + 1`.
#[derive(Debug, Clone)]
pub(crate) struct JoinedTables {
    pub(crate) relations: Vec<JoinedTable>,
    pub(crate) joins: Vec<Join>,
}

/// Finds join trees.
#[derive(Debug)]
pub(crate) struct JoinWalker<'a> {
    database: &'a Database,
    /// `[tables][steps]`
    steps: Vec<Vec<Step>>,
    keys: KeyCodes,
    rows_by_key: HashMap<(usize, Vec<usize>), Option<Arc<RowsByKey>>>,
}

/// The rows of a table by the code of their key.
#[derive(Debug)]
struct RowsByKey {
    codes: Arc<[u32]>,
    /// Where the rows of each code begin in `rows`. `[codes + 1]`
    starts: Vec<u32>,
    rows: Vec<u32>,
}

impl<'a> JoinWalker<'a> {
    pub(crate) fn new(database: &'a Database) -> Self {
        Self { database, steps: steps(database), keys: KeyCodes::default(), rows_by_key: HashMap::new() }
    }

    /// Whether any table can be joined with another.
    pub(crate) fn can_join(&self) -> bool {
        self.steps.iter().any(|steps| !steps.is_empty())
    }

    /// A tree of `joins` joins, around a real row of its result if `anchored`; `many_to_many` is the share of steps
    /// between two references. `None` if the walk ended early: try again.
    pub(crate) fn walk(
        &mut self,
        random: &mut StdRng,
        joins: usize,
        many_to_many: f64,
        anchored: bool,
    ) -> Option<JoinedTables> {
        let rows = |table: usize| self.database.tables[table].batch.num_rows();
        let start_weights = (0..self.steps.len()).map(|table| {
            let joinable = joins == 0 || !self.steps[table].is_empty();
            if joinable { (rows(table) as f64).powf(0.25) } else { 0.0 }
        });
        let start = weighted(random, start_weights)?;
        let row = if anchored { Some(random.random_range(0..rows(start))) } else { None };
        let mut walked = JoinedTables { relations: vec![JoinedTable { table: start, row }], joins: vec![] };
        let mut attempts = 0;
        while walked.joins.len() < joins {
            attempts += 1;
            if attempts > 20 + 4 * joins {
                return None;
            }
            self.extend(random, &mut walked, many_to_many);
        }
        Some(walked)
    }

    /// Adds one relation, unless the row it is joined with has no match.
    fn extend(&mut self, random: &mut StdRng, walked: &mut JoinedTables, many_to_many: f64) -> Option<()> {
        let newest = walked.relations.len() - 1;
        let left = if random.random_bool(0.4) { newest } else { random.random_range(0..=newest) };
        let JoinedTable { table, row } = walked.relations[left];
        let wanted = random.random_bool(many_to_many);
        let twice = random.random_bool(0.05);
        let weights: Vec<f64> = self.steps[table]
            .iter()
            .map(|step| {
                let seen = walked.relations.iter().filter(|relation| relation.table == step.table).count();
                let empty = self.database.tables[step.table].batch.num_rows() == 0;
                let wrong = (step.kind == StepKind::ManyToMany) != wanted;
                let known = seen > 0 && !twice && walked.has_parent(left, step);
                if empty || wrong || known { 0.0 } else { 0.25_f64.powi(seen as i32) }
            })
            .collect();
        let step = self.steps[table][weighted(random, weights)?].clone();
        let mut keys: Vec<(usize, usize)> = step.from.iter().copied().zip(step.to.iter().copied()).collect();
        if random.random_bool(0.2) {
            self.widen(random, table, &step, &mut keys);
        }
        let matching = match row {
            Some(row) => Some(self.matching_row(random, table, row, step.table, &keys)?),
            None => None,
        };
        let right = walked.relations.len();
        walked.relations.push(JoinedTable { table: step.table, row: matching });
        walked.joins.push(Join { left, right, keys, many_to_many: step.kind == StepKind::ManyToMany });
        Some(())
    }

    /// Adds the columns of a second step between the same tables, if there is one over other columns.
    fn widen(&self, random: &mut StdRng, table: usize, step: &Step, keys: &mut Vec<(usize, usize)>) {
        let weights = self.steps[table].iter().map(|other| {
            let apart = other.from.iter().all(|column| !step.from.contains(column))
                && other.to.iter().all(|column| !step.to.contains(column));
            f64::from(u8::from(other.table == step.table && apart))
        });
        if let Some(other) = weighted(random, weights.collect::<Vec<_>>()).map(|place| &self.steps[table][place]) {
            keys.extend(other.from.iter().copied().zip(other.to.iter().copied()));
        }
    }

    /// A random row of `to` that joins with a row of `from`.
    fn matching_row(
        &mut self,
        random: &mut StdRng,
        from: usize,
        row: usize,
        to: usize,
        keys: &[(usize, usize)],
    ) -> Option<usize> {
        let (left, right): (Vec<usize>, Vec<usize>) = keys.iter().copied().unzip();
        let code = self.rows_by_key(from, left)?.codes[row];
        let index = self.rows_by_key(to, right)?;
        let matches = index.matches(code);
        matches.get(random.random_range(0..matches.len().max(1))).map(|&row| row as usize)
    }

    fn rows_by_key(&mut self, table: usize, columns: Vec<usize>) -> Option<Arc<RowsByKey>> {
        let batch = &self.database.tables[table].batch;
        let keys = &mut self.keys;
        let entry = self.rows_by_key.entry((table, columns));
        let arrays: Vec<ArrayRef> = entry.key().1.iter().map(|&column| Arc::clone(batch.column(column))).collect();
        entry.or_insert_with(|| Some(Arc::new(RowsByKey::new(keys.codes(&arrays)?)))).clone()
    }
}

impl JoinedTables {
    /// Whether a step to a parent leads to a row that the query has already, joined by the same key.
    fn has_parent(&self, left: usize, step: &Step) -> bool {
        let parents = self.relations.iter().enumerate().filter(|(_, relation)| relation.table == step.table);
        let equal = |place: usize| {
            step.from.iter().zip(&step.to).all(|(&from, &to)| self.equal_columns((left, from)).contains(&(place, to)))
        };
        step.kind == StepKind::Parent && parents.into_iter().any(|(place, _)| equal(place))
    }

    /// The columns that the joins make equal to one, itself included, as relation and column.
    fn equal_columns(&self, start: (usize, usize)) -> Vec<(usize, usize)> {
        let mut equal = vec![start];
        let mut next = 0;
        while let Some(&column) = equal.get(next) {
            for join in &self.joins {
                for &(left, right) in &join.keys {
                    let ends = [(join.left, left), (join.right, right)];
                    if ends.contains(&column) {
                        let new: Vec<_> = ends.into_iter().filter(|end| !equal.contains(end)).collect();
                        equal.extend(new);
                    }
                }
            }
            next += 1;
        }
        equal
    }
}

impl RowsByKey {
    fn new(codes: Arc<[u32]>) -> Self {
        let present = || codes.iter().enumerate().filter(|(_, code)| **code != NULL_CODE);
        let limit = present().map(|(_, code)| *code as usize + 1).max().unwrap_or(0);
        let mut starts = vec![0_u32; limit + 1];
        for (_, &code) in present() {
            starts[code as usize + 1] += 1;
        }
        for place in 1..starts.len() {
            starts[place] += starts[place - 1];
        }
        let mut next = starts.clone();
        let mut rows = vec![0; starts.last().map_or(0, |total| *total as usize)];
        for (row, &code) in present() {
            let place = &mut next[code as usize];
            rows[*place as usize] = row as u32;
            *place += 1;
        }
        Self { codes, starts, rows }
    }

    fn matches(&self, code: u32) -> &[u32] {
        match (self.starts.get(code as usize), self.starts.get((code as usize).saturating_add(1))) {
            (Some(&start), Some(&end)) if code != NULL_CODE => &self.rows[start as usize..end as usize],
            _ => &[],
        }
    }
}

/// Every foreign key in both directions, and every two foreign keys that refer to the same columns.
fn steps(database: &Database) -> Vec<Vec<Step>> {
    let mut steps: Vec<Vec<Step>> = vec![vec![]; database.tables.len()];
    let mut add = |from_table: usize, from: &[usize], table: usize, to: &[usize], kind: StepKind| {
        let step = Step { from: from.to_vec(), table, to: to.to_vec(), kind };
        if !steps[from_table].contains(&step) {
            steps[from_table].push(step);
        }
    };
    for key in &database.foreign_keys {
        add(key.table, &key.columns, key.references, &key.references_columns, StepKind::Parent);
        add(key.references, &key.references_columns, key.table, &key.columns, StepKind::Child);
        for other in &database.foreign_keys {
            if other.references == key.references && other.references_columns == key.references_columns {
                add(key.table, &key.columns, other.table, &other.columns, StepKind::ManyToMany);
            }
        }
    }
    steps
}
