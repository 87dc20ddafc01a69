//! A physical plan as a graph of operators, which the physical-plan expert reads.
//!
//! [`PhysicalGraph::new`] keeps what a plan says of itself: what every operator does, in which mode and over how many
//! partitions, how wide its rows are, what a scan reads. How many rows flow is not part of it: [`PhysicalGraph::features`] and
//! [`PhysicalGraph::work`] take them apart, so that one graph serves estimated and actual rows.

use datafusion::arrow::datatypes::Schema;
use datafusion::physical_plan::ExecutionPlan;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::logical::{count, flag};

mod facts;
mod observed;

pub use observed::{Observed, observe};

/// Bytes assumed of a value of variable length.
const VARIABLE_BYTES: usize = 24;

/// Bytes of a row, where a value of variable length counts as 24.
pub fn row_width(schema: &Schema) -> usize {
    schema.fields().iter().map(|field| field.data_type().primitive_width().unwrap_or(VARIABLE_BYTES)).sum()
}

/// What an operator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum OperatorKind {
    /// Reads a table.
    Scan,
    /// Keeps the rows that pass a predicate.
    Filter,
    /// Computes columns.
    Projection,
    /// Joins by a hash table of its first input.
    HashJoin,
    /// Joins by comparing all pairs, cross joins among them.
    NestedLoopJoin,
    /// Joins two sorted inputs.
    SortMergeJoin,
    /// Groups, or aggregates everything.
    Aggregate,
    /// Sorts, or keeps the first rows of an order.
    Sort,
    /// Merges sorted partitions.
    Merge,
    /// Deals rows out to other partitions.
    Repartition,
    /// Makes one partition of several, or larger batches.
    Coalesce,
    /// Stops after some rows.
    Limit,
    /// Computes window functions.
    Window,
    /// Puts inputs one after the other.
    Union,
    /// Anything else.
    Other,
}

impl OperatorKind {
    /// Number of kinds.
    pub const COUNT: usize = 15;

    /// Whether it gives no row before it has read its (first) input to the end, so that what is above runs afterwards.
    pub const fn blocks(self) -> bool {
        matches!(self, OperatorKind::Aggregate | OperatorKind::Sort | OperatorKind::Window)
    }

    /// Whether it joins two inputs, the first of which is read to the end first.
    pub const fn joins(self) -> bool {
        matches!(self, OperatorKind::HashJoin | OperatorKind::NestedLoopJoin | OperatorKind::SortMergeJoin)
    }
}

/// What a plan says of an operator, whatever the rows.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Facts {
    /// Output partitions.
    pub partitions: f32,
    /// Bytes of an output row; values of variable length count as 24.
    pub width: f32,
    /// Output columns.
    pub columns: f32,
    /// Those of variable length among them.
    pub variable: f32,
    /// Nodes of the expressions it evaluates: comparisons, arithmetic, functions, aggregates; of each grouping set.
    pub expressions: f32,
    /// Those among them that look into text.
    pub text: f32,
    /// Keys that it hashes, sorts or groups by, in each grouping set.
    pub keys: f32,
    /// Keys of variable length among them.
    pub variable_keys: f32,
    /// The most rows of each partition, 0 without a limit.
    pub fetch: f32,
    /// Whether it does the first half of the work alone: a build side for all partitions, a partial aggregation, a hash
    /// repartitioning.
    pub mode: f32,
    /// Whether not all rows of a match are joined (semi, anti, mark), or rows without one are kept (outer): 1 and 2.
    pub outer: f32,
    /// Whether a join has a condition beside its keys, or a scan a predicate that prunes.
    pub filtered: f32,
    /// Rows of the table that a scan reads, 0 where they are not known.
    pub table_rows: f32,
    /// Bytes of the files that it reads, 0 in memory.
    pub file_bytes: f32,
    /// Share of the columns that it reads.
    pub share: f32,
    /// Whether it decodes Parquet.
    pub parquet: f32,
}

/// An operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhysicalOperator {
    /// What it does.
    pub kind: OperatorKind,
    /// Its inputs, all of them earlier in the graph.
    pub inputs: SmallVec<[u32; 2]>,
    /// The pipeline whose rows it reads: operators of one pipeline hand batches on until one has to wait for all.
    pub pipeline: u32,
    /// What the plan says of it.
    pub facts: Facts,
}

/// A physical plan; inputs come before the operators that read them, the root is the last.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PhysicalGraph {
    /// The operators.
    pub operators: Vec<PhysicalOperator>,
    /// Partitions that run at a time at most.
    pub threads: u32,
    /// Rows of a batch.
    pub batch_size: u32,
    /// Bytes that its operators may hold at a time, 0 without a limit.
    #[serde(default)]
    pub memory_limit: u64,
}

/// Rows that an operator gives, with a 90% interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OperatorRows {
    /// Rows.
    pub rows: f32,
    /// 5% quantile.
    pub lower: f32,
    /// 95% quantile.
    pub upper: f32,
}

impl OperatorRows {
    /// Rows that are known.
    pub fn exact(rows: f64) -> Self {
        let rows = rows as f32;
        Self { rows, lower: rows, upper: rows }
    }
}

/// Number of features of an operator.
pub const OPERATOR_FEATURES: usize = OperatorKind::COUNT + 33;

/// Kinds of work that an operator's time is a sum of.
pub const WORK: usize = 8;

/// Rows assumed where nothing is known.
const UNKNOWN_ROWS: f32 = 1000.0;

impl PhysicalGraph {
    /// The graph of a plan for so many threads.
    pub fn new(plan: &dyn ExecutionPlan, threads: usize, batch_size: usize) -> Self {
        let mut graph = Self { threads: threads as u32, batch_size: batch_size as u32, ..Self::default() };
        let mut pipelines = 0;
        graph.add(plan, &mut pipelines);
        graph
    }

    /// The same where its operators may hold so many bytes at a time.
    #[must_use]
    pub fn with_memory_limit(mut self, bytes: Option<usize>) -> Self {
        self.memory_limit = bytes.map_or(0, |bytes| (bytes as u64).max(1));
        self
    }

    fn add(&mut self, plan: &dyn ExecutionPlan, pipelines: &mut u32) -> u32 {
        let inputs: SmallVec<[u32; 2]> =
            plan.children().into_iter().map(|input| self.add(input.as_ref(), pipelines)).collect();
        let (kind, facts) = facts::of(plan);
        // A join goes on with the rows of its last input.
        let streamed = inputs.last().map(|&input| &self.operators[input as usize]);
        let pipeline = match streamed.filter(|input| !input.kind.blocks()) {
            Some(input) => input.pipeline,
            None => {
                *pipelines += 1;
                *pipelines - 1
            }
        };
        self.operators.push(PhysicalOperator { kind, inputs, pipeline, facts });
        self.operators.len() as u32 - 1
    }

    /// Whether the inputs of every operator come before it, and its facts are numbers.
    pub fn is_valid(&self) -> bool {
        self.operators.iter().enumerate().all(|(index, operator)| {
            operator.inputs.iter().all(|input| (*input as usize) < index)
                && operator.facts.numbers().iter().all(|fact| fact.is_finite() && *fact >= 0.0)
        })
    }

    /// The rows of every operator where those of some are known: an operator of unknown rows has those of its inputs.
    pub fn filled(&self, known: &[Option<OperatorRows>]) -> Vec<OperatorRows> {
        let mut rows: Vec<OperatorRows> = Vec::with_capacity(self.operators.len());
        for (operator, known) in self.operators.iter().zip(known) {
            let largest = operator.inputs.iter().map(|input| rows[*input as usize]);
            let largest = largest.max_by(|a, b| a.rows.total_cmp(&b.rows));
            let unknown = match operator.facts.table_rows {
                0.0 => OperatorRows { rows: UNKNOWN_ROWS, lower: 0.0, upper: UNKNOWN_ROWS * UNKNOWN_ROWS },
                rows => OperatorRows { rows, lower: 0.0, upper: rows },
            };
            rows.push(known.or(largest).unwrap_or(unknown));
        }
        rows
    }

    /// Rows of the first input (of a scan: of its table), and of the second.
    fn inputs(&self, operator: &PhysicalOperator, rows: &[OperatorRows], own: OperatorRows) -> [OperatorRows; 2] {
        let none = OperatorRows::exact(0.0);
        match operator.inputs[..] {
            [] => [OperatorRows::exact(f64::from(operator.facts.table_rows).max(f64::from(own.rows))), none],
            [input] => [rows[input as usize], none],
            [left, right, ..] if operator.kind.joins() => [rows[left as usize], rows[right as usize]],
            // The inputs of a union, one after the other.
            ref all => [all.iter().fold(none, |sum, input| sum.and(rows[*input as usize])), none],
        }
    }

    /// Features of an operator under these rows. `[OPERATOR_FEATURES]`, finite
    pub fn features(&self, index: usize, rows: &[OperatorRows]) -> [f32; OPERATOR_FEATURES] {
        let (operator, own) = (&self.operators[index], rows[index]);
        let [left, right] = self.inputs(operator, rows, own);
        let facts = &operator.facts;
        let mut features = [0.0; OPERATOR_FEATURES];
        features[operator.kind as usize] = 1.0;
        let log = |value: f32| count(f64::from(if value.is_nan() { 0.0 } else { value }));
        let spread = |rows: OperatorRows| log(rows.upper) - log(rows.lower);
        let in_width = operator.inputs.first().map_or(facts.width, |input| self.operators[*input as usize].facts.width);
        let values = [
            log(own.rows),
            log(left.rows),
            log(right.rows),
            spread(own),
            spread(left),
            spread(right),
            log(own.upper) - log(own.rows),
            log(left.rows * in_width),
            log(own.rows * facts.width),
            log(facts.width),
            log(in_width),
            log(facts.columns),
            log(facts.variable),
            log(facts.expressions),
            log(facts.text),
            log(facts.keys),
            log(facts.variable_keys),
            log(facts.fetch),
            flag(facts.fetch > 0.0),
            facts.mode,
            flag(facts.outer > 0.5 && facts.outer < 1.5),
            flag(facts.outer > 1.5),
            facts.filtered,
            log(facts.table_rows),
            log(facts.file_bytes),
            facts.share,
            facts.parquet,
            facts.partitions.min(64.0).ln_1p() / 2.0,
            self.threads.min(64) as f32 / 8.0,
            log(self.batch_size as f32),
            log(self.parallel(operator)),
            log(self.operators.len() as f32),
            self.pressure(index, rows),
        ];
        features[OperatorKind::COUNT..].copy_from_slice(&values);
        features
    }

    /// Threads that an operator runs in.
    fn parallel(&self, operator: &PhysicalOperator) -> f32 {
        operator.facts.partitions.min(self.threads as f32).max(1.0)
    }

    /// The work of an operator under these rows, per thread: partitions to start, rows of both inputs and of the output,
    /// bytes of the first input (of a scan: bytes that it decodes) and of the output, evaluations of expressions or, where it sorts,
    /// comparisons, and bytes to spill. `[WORK]`, finite and not negative
    pub fn work(&self, index: usize, rows: &[OperatorRows]) -> [f64; WORK] {
        let (operator, own) = (&self.operators[index], rows[index]);
        let [left, right] = self.inputs(operator, rows, own);
        let facts = &operator.facts;
        let parallel = f64::from(self.parallel(operator));
        // One table for all partitions is made by one of them.
        let build = if operator.kind == OperatorKind::HashJoin && facts.mode > 0.0 { 1.0 } else { parallel };
        let number = |value: f32| f64::from(value).clamp(0.0, 1e15);
        let (left, right, own) = (number(left.rows), number(right.rows), number(own.rows));
        let in_width = match operator.inputs.first() {
            Some(input) => number(self.operators[*input as usize].facts.width),
            None => number(facts.width),
        };
        let evaluated = match operator.kind {
            OperatorKind::Sort | OperatorKind::Merge => left * (left + 2.0).log2(),
            OperatorKind::NestedLoopJoin => left * right,
            OperatorKind::HashJoin => own * number(facts.filtered),
            OperatorKind::SortMergeJoin => left + right,
            _ => left * number(facts.expressions + facts.text),
        };
        [
            number(facts.partitions),
            left / build,
            right / parallel,
            own / parallel,
            left * in_width / build,
            own * number(facts.width) / parallel,
            evaluated / parallel,
            self.spilled(index, rows) / parallel,
        ]
    }

    /// Bytes that an operator that can spill asks for under these rows: a sort twice as much as it holds.
    fn asked(&self, index: usize, rows: &[OperatorRows]) -> f64 {
        let asked = match self.operators[index].kind {
            OperatorKind::Sort => 2.0 * self.held(index, rows),
            OperatorKind::Aggregate => self.held(index, rows),
            _ => 0.0,
        };
        asked.clamp(0.0, 1e15)
    }

    /// How close an operator comes to the memory that it may hold, or how far beyond: 0 for an eighth of it or less, as without a
    /// limit, so that a limit which is not felt says nothing.
    fn pressure(&self, index: usize, rows: &[OperatorRows]) -> f32 {
        match self.memory_limit {
            0 => 0.0,
            limit => (count(8.0 * self.asked(index, rows)) - count(limit as f64)).max(0.0),
        }
    }

    /// Bytes that an operator writes to disk and reads again under these rows: all that it holds where it asks for more than it may.
    fn spilled(&self, index: usize, rows: &[OperatorRows]) -> f64 {
        let spills = self.memory_limit > 0 && self.asked(index, rows) > self.memory_limit as f64;
        if spills { self.held(index, rows).clamp(0.0, 1e15) } else { 0.0 }
    }

    /// Bytes that an operator holds at a time, under these rows, as its inputs and output tell: hash tables, groups and sorted
    /// rows.
    pub fn held(&self, index: usize, rows: &[OperatorRows]) -> f64 {
        let (operator, own) = (&self.operators[index], rows[index]);
        let [left, _] = self.inputs(operator, rows, own);
        let input = operator.inputs.first().map(|input| self.operators[*input as usize].facts);
        let of = |rows: OperatorRows, width: f32| f64::from(rows.rows) * (f64::from(width) + 16.0);
        match operator.kind {
            OperatorKind::HashJoin | OperatorKind::NestedLoopJoin => of(left, input.map_or(0.0, |input| input.width)),
            OperatorKind::Aggregate => of(own, operator.facts.width),
            OperatorKind::Sort if operator.facts.fetch <= 0.0 => of(left, input.map_or(0.0, |input| input.width)),
            OperatorKind::Sort | OperatorKind::Window => of(own, operator.facts.width),
            _ => 0.0,
        }
    }
}

impl OperatorRows {
    /// The rows of both together.
    fn and(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, lower: self.lower + other.lower, upper: self.upper + other.upper }
    }
}

impl Facts {
    fn numbers(&self) -> [f32; 16] {
        let Self { partitions, width, columns, variable, expressions, text, keys, variable_keys, .. } = *self;
        let Self { fetch, mode, outer, filtered, table_rows, file_bytes, share, parquet, .. } = *self;
        [
            partitions,
            width,
            columns,
            variable,
            expressions,
            text,
            keys,
            variable_keys,
            fetch,
            mode,
            outer,
            filtered,
            table_rows,
            file_bytes,
            share,
            parquet,
        ]
    }
}

#[cfg(test)]
mod tests;
