//! Seeded workloads over any database, in the shapes of the corpus' own.
//!
//! Most queries are built around one real row of their join: its values satisfy every filter, so the filters go together
//! as they do in queries that people write. The others take their literals from each column on its own. The shares of
//! joins, filters, operators and features follow the corpus' description of its workloads; the databases to measure on
//! are never read for it.

mod columns;
mod correlation;
mod expressions;
mod filters;
mod joins;
mod output;
mod report;
mod statement;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use rand::Rng;
use rand::SeedableRng;
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use crate::database::{Database, quote};
use columns::TableColumns;
use filters::FilterWriter;
use joins::{JoinWalker, JoinedTables};
pub(crate) use statement::Statement;
use statement::{LastJoin, Relation};

/// Share of the queries that are built around a real row.
const ANCHORED: f64 = 0.65;

/// A kind of workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Up to 2 joins and 5 comparisons: the shape of the seed paper.
    Seed,
    /// 3 to 6 joins and 2 to 7 filters of every form.
    Hard,
    /// GROUP BY of 1 to 3 columns over a query like `seed`.
    Group,
    /// AVG, SUM, MIN, MAX or COUNT over a query like `seed`.
    Aqp,
    /// A query like `seed` whose filters compute: arithmetic, lengths, parts of dates.
    Expression,
    /// DISTINCT of 1 to 3 columns over a query like `seed`.
    Distinct,
    /// A query like `group` with a condition on the groups.
    Having,
    /// ORDER BY ... LIMIT over a query like `seed`.
    Top,
    /// Up to 3 joins, the last of them an outer, semi or anti join.
    Outer,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

/// What makes a query hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Feature {
    /// A join on two columns or more.
    Composite,
    /// Filters on columns that depend on one another.
    Corr,
    /// An IN list.
    In,
    /// A LIKE pattern.
    Like,
    /// A join of two references, unique on neither side.
    M2n,
    /// A `<>`.
    Ne,
    /// IS NULL or IS NOT NULL.
    Null,
    /// A disjunction.
    Or,
    /// A table that occurs twice.
    #[serde(rename = "self")]
    SelfJoin,
    /// LEFT JOIN.
    Left,
    /// FULL JOIN.
    Full,
    /// EXISTS or IN over a subquery.
    Semi,
    /// NOT EXISTS.
    Anti,
}

/// A query of a workload, with the keys of the corpus' `queries.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Query {
    /// Unique in its workload.
    pub id: String,
    /// Its kind.
    pub kind: Kind,
    /// Number of joins.
    pub joins: usize,
    /// Number of filters.
    pub filters: usize,
    /// The joined tables, one entry per alias.
    pub tables: Vec<String>,
    /// The query in SQL that DataFusion, DuckDB and PostgreSQL understand.
    pub sql: String,
    /// What makes it hard.
    pub features: BTreeSet<Feature>,
    #[serde(skip)]
    pub(crate) statement: Statement,
}

/// Writes queries over one database. The same database and seed give the same queries.
#[derive(Debug)]
pub struct Generator<'a> {
    database: &'a Database,
    tables: Vec<TableColumns>,
    /// `[tables]`
    aliases: Vec<String>,
    walker: JoinWalker<'a>,
    random: StdRng,
    written: usize,
    /// Fewest and most joins of a query, instead of those of its kind.
    pub joins: Option<(usize, usize)>,
}

impl<'a> Generator<'a> {
    /// Looks at the values and keys of a database.
    pub fn new(database: &'a Database, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let tables = (0..database.tables.len()).map(|index| {
            let keys: Vec<usize> = database
                .foreign_keys
                .iter()
                .filter(|key| key.table == index)
                .flat_map(|key| key.columns.clone())
                .collect();
            TableColumns::new(&database.tables[index], &keys, &mut random)
        });
        let tables = tables.collect();
        Self {
            database,
            tables,
            aliases: aliases(database),
            walker: JoinWalker::new(database),
            random,
            written: 0,
            joins: None,
        }
    }

    /// Whether the database can give queries of a kind: those with joins need a foreign key.
    pub fn can_write(&self, kind: Kind) -> bool {
        let rows = self.tables.iter().any(|table| table.rows > 0 && !table.columns.is_empty());
        rows && (!matches!(kind, Kind::Hard | Kind::Outer) || self.walker.can_join())
    }

    /// The next query of a kind; `None` where the walk met a dead end, and the next call may succeed.
    pub fn query(&mut self, kind: Kind) -> Option<Query> {
        if !self.can_write(kind) {
            return None;
        }
        let anchored = self.random.random_bool(ANCHORED);
        let (joins, many_to_many) = match kind {
            Kind::Seed | Kind::Aqp | Kind::Expression | Kind::Top => {
                (choose(&mut self.random, &[0.365, 0.34, 0.295]), 0.11)
            }
            Kind::Group | Kind::Distinct | Kind::Having => (choose(&mut self.random, &[0.29, 0.35, 0.36]), 0.05),
            Kind::Outer => (1 + choose(&mut self.random, &[0.45, 0.35, 0.2]), 0.08),
            Kind::Hard => (3 + choose(&mut self.random, &[0.365, 0.297, 0.198, 0.14]), 0.36),
        };
        let joins = self.joins.map_or(joins, |(least, most)| self.random.random_range(least..=most.max(least)));
        let joins = if self.walker.can_join() { joins } else { 0 };
        // Longer walks meet dead ends more often; a few attempts keep their share.
        let mut walks = (0..4).map(|_| self.walker.walk(&mut self.random, joins, many_to_many, anchored));
        let walked = walks.find_map(|walked| walked)?;
        self.write(kind, &walked)
    }

    fn write(&mut self, kind: Kind, walked: &JoinedTables) -> Option<Query> {
        let aliases = self.query_aliases(walked);
        let mut features = join_features(walked);
        let filters = self.filters(kind, walked, &aliases, &mut features);
        let count = filters.iter().map(Vec::len).sum();
        if count == 0 {
            return None;
        }
        if kind != Kind::Hard {
            features.retain(|feature| matches!(feature, Feature::M2n | Feature::SelfJoin | Feature::Composite));
        }
        let (output, tail) = self.output(kind, walked, &aliases)?;
        let last = if kind == Kind::Outer { self.last_join(walked) } else { LastJoin::Inner };
        features.extend(last.feature());
        let explicit = self.random.random_bool(0.5);
        let table = |place: usize| &self.database.tables[walked.relations[place].table];
        let name = |place: usize, column: usize| {
            format!("{}.{}", aliases[place], quote(table(place).batch.schema().field(column).name()))
        };
        let relations = aliases.iter().enumerate().zip(filters).map(|((place, alias), filters)| {
            // Relation i + 1 is tied to an earlier one by join i.
            let join = place.checked_sub(1).map(|join| &walked.joins[join]);
            let keys =
                join.iter().flat_map(|join| join.keys.iter().map(|&(l, r)| (name(join.left, l), name(place, r))));
            Relation {
                table: quote(&table(place).name),
                alias: alias.clone(),
                keys: keys.collect(),
                joined_with: join.map(|join| join.left),
                filters,
            }
        });
        let statement = Statement { relations: relations.collect(), output, tail, last, explicit };
        self.written += 1;
        Some(Query {
            id: format!("{}-{kind}-{:05}", self.database.name, self.written),
            kind,
            joins: walked.joins.len(),
            filters: count,
            tables: walked.relations.iter().map(|relation| self.database.tables[relation.table].name.clone()).collect(),
            sql: statement.sql(),
            features,
            statement,
        })
    }

    /// The filters of each relation, in the order of the relations.
    fn filters(
        &mut self,
        kind: Kind,
        walked: &JoinedTables,
        aliases: &[String],
        features: &mut BTreeSet<Feature>,
    ) -> Vec<Vec<String>> {
        let random = &mut self.random;
        let mut writers: Vec<FilterWriter<'_>> = walked
            .relations
            .iter()
            .zip(aliases)
            .map(|(relation, alias)| FilterWriter::new(&self.tables[relation.table], alias, relation.row))
            .collect();
        if kind != Kind::Hard {
            let wanted = 1 + choose(random, &[0.19, 0.31, 0.255, 0.15, 0.095]);
            for _ in 0..wanted {
                let relation = random.random_range(0..writers.len());
                if kind == Kind::Expression && writers[relation].expression(random) {
                    continue;
                }
                if !writers[relation].plain(random) {
                    // All columns of a small table are taken.
                    let _ = writers.iter_mut().any(|writer| writer.plain(random));
                }
            }
            return writers.into_iter().map(|writer| writer.written).collect();
        }
        let wanted = 2 + choose(random, &[0.176, 0.183, 0.199, 0.22, 0.206, 0.016]);
        let filtered = (1 + choose(random, &[0.105, 0.36, 0.37, 0.145, 0.02])).min(wanted).min(writers.len());
        let chosen = rand::seq::index::sample(random, writers.len(), filtered).into_vec();
        let mut turns = chosen.iter().copied().cycle();
        let mut missing = wanted;
        if wanted >= 2
            && random.random_bool(0.29)
            && chosen.iter().any(|&relation| writers[relation].correlated(random))
        {
            features.insert(Feature::Corr);
            missing -= 2;
        }
        for attempt in 0..missing {
            let relation = if attempt < filtered {
                turns.next().unwrap_or_default()
            } else {
                chosen[random.random_range(0..chosen.len())]
            };
            features.extend(writers[relation].hard(random).flatten());
        }
        writers.into_iter().map(|writer| writer.written).collect()
    }

    /// The alias of each relation: that of its table, numbered from the second occurrence on.
    fn query_aliases(&self, walked: &JoinedTables) -> Vec<String> {
        let mut seen: Vec<usize> = vec![];
        let mut aliases = vec![];
        for relation in &walked.relations {
            seen.push(relation.table);
            let count = seen.iter().filter(|table| **table == relation.table).count();
            let alias = &self.aliases[relation.table];
            aliases.push(if count == 1 { alias.clone() } else { format!("{alias}{count}") });
        }
        aliases
    }
}

fn join_features(walked: &JoinedTables) -> BTreeSet<Feature> {
    let mut features = BTreeSet::new();
    for join in &walked.joins {
        if join.many_to_many {
            features.insert(Feature::M2n);
        }
        if join.keys.len() > 1 {
            features.insert(Feature::Composite);
        }
    }
    let tables: BTreeSet<usize> = walked.relations.iter().map(|relation| relation.table).collect();
    if tables.len() < walked.relations.len() {
        features.insert(Feature::SelfJoin);
    }
    features
}

/// An alias per table: the initials of its words, or the shortest beginning of its letters that is free.
fn aliases(database: &Database) -> Vec<String> {
    let mut taken: Vec<String> = vec![];
    for table in &database.tables {
        let words = table.name.split('_').filter_map(|word| word.chars().find(char::is_ascii_lowercase));
        let initials: String = words.collect();
        let letters: String = table.name.chars().filter(char::is_ascii_lowercase).collect();
        let beginnings = (1..=letters.len()).map(|length| letters[..length].to_owned());
        // Letters only: numbers tell the occurrences of a table apart.
        let fallback = (0..).map(|number: usize| {
            let tail: String = number.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect();
            format!("{letters}_{tail}")
        });
        let free = |alias: &String| !alias.is_empty() && quote(alias) == *alias && !taken.contains(alias);
        let alias = std::iter::once(initials).chain(beginnings).chain(fallback).find(free);
        taken.push(alias.unwrap_or_default());
    }
    taken
}

/// A random index, as often as its weight says.
fn choose(random: &mut StdRng, weights: &[f64]) -> usize {
    weighted(random, weights.iter().copied()).unwrap_or_default()
}

/// The same, `None` if all weights are zero.
pub(crate) fn weighted(random: &mut StdRng, weights: impl IntoIterator<Item = f64>) -> Option<usize> {
    WeightedIndex::new(weights).ok().map(|index| index.sample(random))
}
