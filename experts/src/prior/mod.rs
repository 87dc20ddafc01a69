//! The relational prior: an endless, seeded stream of diverse relational databases.
//!
//! Training needs more databases than anyone publishes, and a demonstration needs one that fits no licence but ours.
//! [`generate`] draws a database from a seed; [`demo_database`] builds the fixed retail database of `relata demo`.
//! Everything is arrow record batches in memory, with the keys declared beside them; [`Tables`] hands out one table at
//! a time, so that databases larger than memory can be written.
//!
//! ```
//! use relata_experts::prior::{PriorConfig, generate};
//!
//! let config = PriorConfig { tables: 3..=5, rows: 100..=1_000, ..PriorConfig::default() };
//! let database = generate(&config, 42)?;
//! for table in &database.tables {
//!     assert_eq!(table.batch, generate(&config, 42)?.table(&table.name).expect("same seed").batch);
//! }
//! # Ok::<(), relata_experts::prior::PriorError>(())
//! ```
//!
//! # How a database is drawn
//!
//! 1. A schema: a directed acyclic graph of lookups, entities, facts, link tables and one-to-one extensions; rows are
//!    identified by numbers, codes, their references, or a number among those of one parent (`schema.rs`).
//! 2. For each table, parents first, the parent row of each row: fanouts from even to heavy Zipf, correlated between
//!    the children of one parent through its popularity, and between the references of one row (`keys.rs`).
//! 3. A small latent vector per row, mixed from the latent vectors of its parents and noise (`growth.rs`).
//! 4. Columns, each a noisy non-linear function of latents, of the parents' columns and of earlier columns, sent
//!    through a marginal distribution: a structural causal model (`columns.rs`, `marginal.rs`, `text.rs`).
//!
//! # Sources
//!
//! The plan follows the Relational Prior Generator of RDB-PFN (Wang, You, Shi and Zhang, "Relational In-Context
//! Learning via Synthetic Pre-training with Structural Prior", arXiv 2603.03805, 2026): a table graph in topological
//! order, one causal model per table, the parent's causal output among the child's inputs, uniform or Zipf parents.
//! The blocks that tie two references of one row together are a flat form of the hierarchical stochastic block models
//! of PluRel (Kothapalli et al., "PluRel: Synthetic Data unlocks Scaling Laws for Relational Foundation Models", arXiv
//! 2602.04029, 2026). Both serve prediction; this one serves query optimization as well, and so adds what estimators
//! trip over: strings with shared prefixes and words, functional dependencies, near duplicates, NULLs that depend on
//! values, link tables, optional and dangling references, popular parents shared by several children, clustered rows.
//!
//! # How close it comes
//!
//! The defaults of [`PriorConfig`] are set after the 16 `train` databases of the corpus; beside them 200 draws (seeds
//! 0 to 199). Each database weighs the same, so that the two with over forty tables do not stand for all. Key columns
//! count among the columns of a table and nowhere else; tables under 50 rows are left out of what is measured per
//! column, tables under 200 rows of what is measured per reference. KS is the largest difference between the two
//! distribution functions; the last column its 95th percentile between 16 draws and all 200, which is what chance makes
//! of it. `relata-bench marginals` measures this, `bench/reports/prior` has it with plots.
//!
//! | quartiles | corpus | prior | KS | by chance |
//! |---|---|---|---|---|
//! | tables of a database | 5, 7, 10 | 5, 7, 9 | 0.13 | 0.27 |
//! | rows of a table | 179, 2628, 17426 | 163, 1937, 15725 | 0.08 | 0.15 |
//! | columns of a table | 3, 5, 7 | 3, 4, 6 | 0.11 | 0.11 |
//! | distinct values over values of a column | 0.002, 0.04, 0.75 | 0.002, 0.04, 0.72 | 0.04 | 0.12 |
//! | share of the most frequent value | 0.01, 0.08, 0.51 | 0.01, 0.15, 0.51 | 0.09 | 0.10 |
//! | share of NULLs where there are some | 0.01, 0.05, 0.64 | 0.01, 0.17, 0.73 | 0.14 | 0.15 |
//! | rank correlation of two numeric columns of a table | 0.06, 0.21, 0.34 | 0.05, 0.15, 0.43 | 0.10 | 0.20 |
//! | the same, child to parent | 0.02, 0.05, 0.18 | 0.03, 0.08, 0.22 | 0.17 | 0.18 |
//! | children of a parent that has some, mean | 2.5, 29, 653 | 2.6, 20, 173 | 0.11 | 0.16 |
//! | their deviation over their mean | 0.39, 0.60, 1.6 | 0.28, 0.62, 1.2 | 0.11 | 0.13 |
//! | share of the children with the top 1 % of the parents | 0.02, 0.04, 0.12 | 0.03, 0.05, 0.10 | 0.10 | 0.13 |
//! | share of the parents without children | 0, 0.003, 0.47 | 0, 0.03, 0.58 | 0.10 | 0.14 |
//! | rank correlation of two fanouts of one parent | 0.03, 0.23, 0.52 | 0.01, 0.17, 0.48 | 0.17 | 0.23 |
//!
//! Composite keys have 34 % of the tables (corpus: 32 %), links are 18 % (19 %), dates 7 % of the columns (6 %), NULLs
//! occur in 40 % (37 %), 15 % of the references are composite (17 %), 11 % optional (13 %), 8 % dangle (10 %).
//!
//! Still apart: the widest fanouts (a quarter of the corpus' references have over 653 children per parent), and the share
//! of NULLs, of which the prior has more.
//!
//! # Same seed, same database
//!
//! A seed names the same database on every machine: the generator and the functions it uses are fixed to the bit
//! (`random.rs`), tables and columns draw from streams of their own, and nothing depends on threads or hash order.

mod calendar;
mod columns;
mod database;
mod demo;
mod family;
mod growth;
mod keys;
mod marginal;
mod random;
mod schema;
mod text;

#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

pub use database::{Description, ForeignKey, SyntheticDatabase, SyntheticTable};
pub use demo::demo_database;
pub use family::{Family, family_column};

use random::Random;

/// What kind of databases [`generate`] draws.
#[derive(Debug, Clone, PartialEq)]
pub struct PriorConfig {
    /// Number of tables, bell-shaped in the logarithm. Default `2..=20`.
    pub tables: RangeInclusive<usize>,
    /// Rows of a fact or link table, uniform in the logarithm. Entities have about a tenth, lookups at most 200.
    /// Default `500..=400_000`.
    pub rows: RangeInclusive<usize>,
    /// Most columns a table has beside its keys; small numbers are the more likely ones. Default 20.
    pub max_columns: usize,
    /// Most references of a fact to other tables. Default 4.
    pub max_references: usize,
    /// Share of the columns that can be NULL. Default 0.45.
    pub nullable_columns: f64,
    /// Share of the references that can be NULL. Default 0.16.
    pub optional_references: f64,
    /// Share of the references with some values that no parent has. Default 0.18.
    pub dangling_references: f64,
    /// Exponents of the fanouts that follow Zipf's law. Default `0.3..=1.4`.
    pub zipf_exponent: RangeInclusive<f64>,
}

impl Default for PriorConfig {
    fn default() -> Self {
        Self {
            tables: 2..=20,
            rows: 500..=400_000,
            max_columns: 20,
            max_references: 4,
            nullable_columns: 0.45,
            optional_references: 0.16,
            dangling_references: 0.18,
            zipf_exponent: 0.3..=1.4,
        }
    }
}

impl PriorConfig {
    fn validate(&self) -> Result<(), PriorError> {
        let within = |share: f64| (0.0..=1.0).contains(&share);
        let rule = if self.tables.is_empty() || *self.tables.start() == 0 || *self.tables.end() > 64 {
            "tables must be a range within 1..=64"
        } else if self.rows.is_empty() || *self.rows.start() == 0 || *self.rows.end() > 1 << 23 {
            "rows must be a range within 1..=2^23"
        } else if self.max_columns == 0 || self.max_columns > 1000 {
            "max_columns must be within 1..=1000"
        } else if self.max_references == 0 {
            "max_references must be at least 1"
        } else if !(within(self.nullable_columns)
            && within(self.optional_references)
            && within(self.dangling_references))
        {
            "shares must be within 0..=1"
        } else if self.zipf_exponent.is_empty() || *self.zipf_exponent.start() < 0.0 || *self.zipf_exponent.end() > 10.0
        {
            "zipf_exponent must be a range within 0..=10"
        } else {
            return Ok(());
        };
        Err(PriorError::InvalidConfig(rule))
    }
}

/// Why no database was generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PriorError {
    /// The configuration contradicts the rule it names.
    #[error("invalid configuration of the relational prior: {0}")]
    InvalidConfig(&'static str),
    /// Arrow refused the arrays of a table.
    #[error("cannot build table \"{table}\"")]
    Arrow {
        /// The table that was being built.
        table: String,
        /// What arrow says.
        #[source]
        source: arrow::error::ArrowError,
    },
}

/// Draws the database that belongs to `seed`.
///
/// # Errors
///
/// [`PriorError::InvalidConfig`] where `config` contradicts itself.
pub fn generate(config: &PriorConfig, seed: u64) -> Result<SyntheticDatabase, PriorError> {
    let tables = Tables::new(config, seed)?;
    Ok(SyntheticDatabase { name: tables.name(), tables: tables.collect::<Result<_, _>>()? })
}

/// The tables of [`generate`], one at a time.
///
/// While a table grows it is in memory with its latents and signals: about 60 bytes per row and 15 per value, 0.9 GB for
/// five million rows of 12 columns. Of the tables before it there are only the keys and about 40 bytes per row, and
/// those only until the last table that refers to them is there.
#[derive(Debug)]
pub struct Tables {
    config: PriorConfig,
    seed: u64,
    random: Random,
    plans: Vec<schema::TablePlan>,
    world: growth::World,
    grown: Vec<growth::Grown>,
}

impl Tables {
    /// The tables of the database that belongs to `seed`.
    ///
    /// # Errors
    ///
    /// [`PriorError::InvalidConfig`] where `config` contradicts itself.
    pub fn new(config: &PriorConfig, seed: u64) -> Result<Self, PriorError> {
        config.validate()?;
        let random = Random::new(seed);
        let plans = schema::draw(config, &mut random.fork(0));
        let world = growth::World::draw(&mut random.fork(1));
        let grown = Vec::with_capacity(plans.len());
        Ok(Self { config: config.clone(), seed, random, plans, world, grown })
    }

    /// The name of the database.
    pub fn name(&self) -> String {
        format!("prior_{}", self.seed)
    }
}

impl Iterator for Tables {
    type Item = Result<SyntheticTable, PriorError>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.grown.len();
        let plan = self.plans.get(index)?;
        let random = self.random.fork(2 + index as u64);
        let (state, table) = match growth::grow(&self.config, plan, &self.grown, &self.world, &random) {
            Ok(grown) => grown,
            Err(error) => {
                self.plans.clear();
                return Some(Err(error));
            }
        };
        self.grown.push(state);
        let refers = |plan: &schema::TablePlan, to| plan.references.iter().any(|reference| reference.table == to);
        for parent in 0..=index {
            if !self.plans[index + 1..].iter().any(|plan| refers(plan, parent)) {
                self.grown[parent] = growth::Grown::default();
            }
        }
        Some(Ok(table))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.plans.len().saturating_sub(self.grown.len());
        (left, Some(left))
    }
}
