//! What estimates owe each other: a further conjunct does not raise that of a table, equivalent queries share one, a join with
//! a unique key never multiplies the rows of its other side, contradictions have none, and no estimate exceeds what its tables
//! can give.
//!
//! The databases are larger than the samples of their profiles, so that next to nothing is exact.
//!
//! What does not hold exactly is measured by `what_raised_an_estimate`: of 611 further conjuncts on single tables, 4 raised the
//! estimate, by less than 0.01%; of 2,369 on joins of two to five tables, 53 did, half of them by less than 4%, one by a factor of
//! 17. Of 980 joins of three to five tables with a further one by a unique key, 84 raised it, half of them by less than 0.1%,
//! one by a factor of 5. Queries with several conditions on one column can differ by their order, where the simplifier drops one or not.

use std::sync::{Arc, OnceLock};

use datafusion::arrow::array::{ArrayRef, Int64Array, StringArray};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use relata::{ProfileConfig, QueryEstimate};

use crate::{Sessions, pretrained};

/// Rows of each sample.
const SAMPLE: usize = 256;

/// A table with its rows, its columns of numbers with the range of their values, and its columns of text.
struct Table {
    name: &'static str,
    rows: i64,
    numbers: &'static [(&'static str, i64)],
    text: &'static str,
}

/// Parents first: each has the key `id`.
const TABLES: [Table; 5] = [
    Table { name: "town", rows: 300, numbers: &[("region", 7), ("size", 90)], text: "name" },
    Table { name: "customer", rows: 900, numbers: &[("age", 80), ("grade", 6)], text: "job" },
    Table { name: "product", rows: 400, numbers: &[("kind", 12), ("price", 200)], text: "label" },
    Table { name: "orders", rows: 2000, numbers: &[("amount", 500), ("day", 365)], text: "state" },
    Table { name: "item", rows: 3000, numbers: &[("quantity", 9), ("discount", 30)], text: "note" },
];

/// Foreign keys: child, its column, parent.
const KEYS: [(usize, &str, usize); 4] = [(1, "town", 0), (3, "customer", 1), (4, "orders", 3), (4, "product", 2)];

/// One condition on a column of a table; numbers are taken modulo the range of the column.
#[derive(Debug, Clone)]
struct Conjunct {
    table: usize,
    column: usize,
    form: usize,
    values: [i64; 3],
}

/// A join of tables that foreign keys connect, with conditions on them.
#[derive(Debug, Clone)]
struct Query {
    database: u64,
    tables: Vec<usize>,
    conjuncts: Vec<Conjunct>,
}

impl Conjunct {
    fn sql(&self, alias: &str) -> String {
        let Table { numbers, text, .. } = TABLES[self.table];
        let Some((name, range)) = numbers.get(self.column % (numbers.len() + 1)) else {
            let word = self.values[0] % 23;
            return match self.form % 3 {
                0 => format!("{alias}.{text} LIKE '%{}%'", word % 10),
                1 => format!("{alias}.{text} = 'word {word}'"),
                _ => format!("{alias}.{text} IN ('word {word}', 'word {}')", (word + 5) % 23),
            };
        };
        let [a, b, c] = self.values.map(|value| value % range);
        let column = format!("{alias}.{name}");
        match self.form % 9 {
            0 => format!("{column} = {a}"),
            1 => format!("{column} < {a}"),
            2 => format!("{column} >= {a}"),
            3 => format!("{column} BETWEEN {} AND {}", a.min(b), a.max(b)),
            4 => format!("{column} IN ({a}, {b}, {c})"),
            5 => format!("{column} <> {a}"),
            6 => format!("{column} IS NOT NULL"),
            7 => format!("({column} < {a} OR {column} > {b})"),
            _ => format!("{column} % {} = {}", 2 + b % 5, a % 2),
        }
    }
}

/// How a query is written.
#[derive(Debug, Clone, Copy, Default)]
struct Style {
    /// Names of relations.
    aliases: bool,
    /// Tables, conditions and the sides of equalities in reverse order.
    reversed: bool,
    /// JOIN ... ON instead of WHERE.
    joins: bool,
}

impl Query {
    /// The SQL with the first `conjuncts` conditions.
    fn sql(&self, conjuncts: usize, style: Style) -> String {
        let alias = |table: usize| {
            if style.aliases { format!("r{}", 7 * table % 5) } else { TABLES[table].name.to_owned() }
        };
        let mut tables = self.tables.clone();
        let mut conditions: Vec<String> =
            self.conjuncts[..conjuncts].iter().map(|conjunct| conjunct.sql(&alias(conjunct.table))).collect();
        if style.reversed {
            tables.reverse();
            conditions.reverse();
        }
        let from = |table: usize| format!("{} AS {}", TABLES[table].name, alias(table));
        let keys: Vec<(usize, usize, String)> = KEYS
            .iter()
            .filter(|(child, _, parent)| tables.contains(child) && tables.contains(parent))
            .map(|&(child, column, parent)| {
                let sides = [format!("{}.{column}", alias(child)), format!("{}.id", alias(parent))];
                let [left, right] = if style.reversed { [1, 0] } else { [0, 1] }.map(|side| &sides[side]);
                (child, parent, format!("{left} = {right}"))
            })
            .collect();
        let clause = if style.joins {
            // Each table brings the keys to those before it, or is a cross join that WHERE makes an equi-join of.
            let mut text = from(tables[0]);
            for (place, &table) in tables.iter().enumerate().skip(1) {
                let before = &tables[..place];
                let on: Vec<&str> = keys
                    .iter()
                    .filter(|(a, b, _)| (*a == table && before.contains(b)) || (*b == table && before.contains(a)))
                    .map(|(_, _, on)| on.as_str())
                    .collect();
                text += &if on.is_empty() {
                    format!(" CROSS JOIN {}", from(table))
                } else {
                    format!(" JOIN {} ON {}", from(table), on.join(" AND "))
                };
            }
            text
        } else {
            conditions.splice(0..0, keys.into_iter().map(|(_, _, on)| on));
            tables.iter().map(|&table| from(table)).collect::<Vec<_>>().join(", ")
        };
        let conditions = if conditions.is_empty() { "TRUE".to_owned() } else { conditions.join(" AND ") };
        format!("SELECT COUNT(*) FROM {clause} WHERE {conditions}")
    }

    /// The same query without a table, where its rest is connected.
    fn without(&self, table: usize) -> Self {
        let tables = self.tables.iter().copied().filter(|other| *other != table).collect();
        let conjuncts = self.conjuncts.iter().filter(|conjunct| conjunct.table != table).cloned().collect();
        Self { tables, conjuncts, ..self.clone() }
    }

    /// The child of a table in the query, for a table with one child and no parent there.
    fn outer_parents(&self) -> Vec<usize> {
        let degree = |table: usize| {
            let inside = |one: &usize| self.tables.contains(one);
            let touching = KEYS.iter().filter(|(c, _, p)| (*c == table || *p == table) && inside(c) && inside(p));
            touching.count()
        };
        let is_parent = |table: usize| KEYS.iter().any(|(c, _, p)| *p == table && self.tables.contains(c));
        self.tables.iter().copied().filter(|&table| degree(table) == 1 && is_parent(table)).collect()
    }

    fn estimate(&self, conjuncts: usize, style: Style) -> QueryEstimate {
        estimate(self.database, &self.sql(conjuncts, style))
    }
}

fn query(
    tables: std::ops::RangeInclusive<usize>,
    conjuncts: std::ops::RangeInclusive<usize>,
) -> impl Strategy<Value = Query> {
    let condition = (any::<prop::sample::Index>(), 0..6usize, 0..18usize, prop::array::uniform3(0..600i64));
    (0..DATABASES, 0..TABLES.len(), vec(any::<prop::sample::Index>(), tables), vec(condition, conjuncts)).prop_map(
        |(database, first, picks, conditions)| {
            let mut tables = vec![first];
            for pick in &picks[1..] {
                let near = |&table: &usize| {
                    !tables.contains(&table)
                        && KEYS.iter().any(|(child, _, parent)| {
                            (*child == table && tables.contains(parent)) || (*parent == table && tables.contains(child))
                        })
                };
                let near: Vec<usize> = (0..TABLES.len()).filter(near).collect();
                tables.push(near[pick.index(near.len())]);
            }
            let conjunct = |(table, column, form, values): (prop::sample::Index, usize, usize, [i64; 3])| Conjunct {
                table: tables[table.index(tables.len())],
                column,
                form,
                values,
            };
            let conjuncts = conditions.into_iter().map(conjunct).collect();
            Query { database, tables, conjuncts }
        },
    )
}

/// Databases of different seeds.
const DATABASES: u64 = 3;

/// Columns depend on each other and on the key; keys of children are skewed; some numbers are missing.
fn sessions(database: u64) -> &'static Sessions {
    static SESSIONS: [OnceLock<Sessions>; DATABASES as usize] = [const { OnceLock::new() }; DATABASES as usize];
    SESSIONS[database as usize].get_or_init(|| {
        let config = ProfileConfig { sample_rows: SAMPLE, key_sample_rows: SAMPLE, ..ProfileConfig::default() };
        let sessions = Sessions::new(pretrained().with_profile_config(config));
        for (index, table) in TABLES.iter().enumerate() {
            let noise = |row: i64, column: u64| {
                let mut bits = (row as u64) ^ (database << 40) ^ (index as u64) << 32 ^ column << 48;
                for shift in [31, 27, 33] {
                    bits = (bits ^ (bits >> shift)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                }
                (bits >> 33) as i64
            };
            let mut columns = vec![("id", Arc::new(Int64Array::from_iter_values(0..table.rows)) as ArrayRef)];
            for &(_, column, parent) in KEYS.iter().filter(|(child, ..)| *child == index) {
                let parents = TABLES[parent].rows;
                // The smaller of two draws is more often a small one.
                let key = |row| (noise(row, 1) % parents).min(noise(row, 2) % parents);
                columns.push((column, Arc::new(Int64Array::from_iter_values((0..table.rows).map(key)))));
            }
            for (place, &(name, range)) in table.numbers.iter().enumerate() {
                let number = |row: i64| {
                    let own = noise(row, 3 + place as u64 + database) % range;
                    let value = if noise(row, 7) % 3 == 0 { own } else { (row * range / table.rows + own / 4) % range };
                    (own % 11 != 0).then_some(value)
                };
                columns.push((name, Arc::new(Int64Array::from_iter((0..table.rows).map(number)))));
            }
            let word = |row: i64| format!("word {}", (noise(row, 9) % 23).min(row * 23 / table.rows));
            columns.push((table.text, Arc::new(StringArray::from_iter_values((0..table.rows).map(word)))));
            let columns = columns.into_iter().map(|(name, column)| (name, column, true));
            sessions.register(
                table.name,
                &datafusion::arrow::array::RecordBatch::try_from_iter_with_nullable(columns).unwrap(),
            );
        }
        runtime().block_on(sessions.relata.profile(&sessions.learned)).unwrap();
        sessions
    })
}

fn estimate(database: u64, sql: &str) -> QueryEstimate {
    let sessions = sessions(database);
    runtime().block_on(sessions.relata.estimate_sql(&sessions.learned, sql)).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Rounding, in the network's single precision.
const TOLERANCE: f64 = 1e-4;

/// By how much a conjunct that every row passes may raise an estimate: the network sees one condition more.
const RAISED: f64 = 0.01;

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_further_conjunct_never_raises_the_estimate_of_a_table(query in query(1..=1, 2..=4)) {
        let whole = query.estimate(query.conjuncts.len(), Style::default()).estimate;
        for conjuncts in 0..query.conjuncts.len() {
            let before = query.estimate(conjuncts, Style::default()).estimate;
            prop_assert!(whole <= before * (1.0 + RAISED), "{before} -> {whole}: {}", query.sql(conjuncts, Style::default()));
        }
    }

    #[test]
    fn equivalent_queries_share_an_estimate(query in query(1..=4, 0..=4), bits in 1..8u8) {
        // Of several conditions on one column the simplifier drops some or not, depending on their order.
        let columns: std::collections::BTreeSet<(usize, usize)> =
            query.conjuncts.iter().map(|one| (one.table, one.column % (TABLES[one.table].numbers.len() + 1))).collect();
        prop_assume!(columns.len() == query.conjuncts.len());
        let style = Style { aliases: bits & 1 > 0, reversed: bits & 2 > 0, joins: bits & 4 > 0 };
        let [one, other, again] = [Style::default(), style, Style::default()].map(|style| {
            let found = query.estimate(query.conjuncts.len(), style);
            [found.lower, found.estimate, found.upper]
        });
        prop_assert_eq!(one.map(f64::to_bits), again.map(f64::to_bits));
        for (one, other) in one.into_iter().zip(other) {
            prop_assert!((one - other).abs() <= TOLERANCE * one, "{one} and {other}: {}", query.sql(query.conjuncts.len(), style));
        }
    }

    #[test]
    fn a_join_with_a_unique_key_has_no_more_rows_than_its_other_side(query in query(2..=2, 0..=4)) {
        let joined = query.estimate(query.conjuncts.len(), Style::default()).estimate;
        for parent in query.outer_parents() {
            let rest = query.without(parent);
            let rest = rest.estimate(rest.conjuncts.len(), Style::default()).estimate;
            prop_assert!(joined <= rest * (1.0 + TOLERANCE), "{rest} -> {joined}");
        }
    }

    #[test]
    fn no_estimate_exceeds_what_the_tables_can_give(query in query(1..=5, 0..=4)) {
        let found = query.estimate(query.conjuncts.len(), Style::default());
        // A chain of foreign keys has no more rows than its last child, which no estimate is told.
        let most = query.tables.iter().map(|&table| TABLES[table].rows as f64).product::<f64>();
        prop_assert!(0.0 <= found.lower && found.lower <= found.estimate && found.estimate <= found.upper, "{found:?}");
        prop_assert!(found.upper <= most * (1.0 + TOLERANCE), "{found:?} of {most}");
    }

    #[test]
    fn contradictions_have_no_rows(query in query(1..=4, 0..=3), pick in any::<prop::sample::Index>(), form in 0..7usize, value in 0..200i64) {
        let table = &TABLES[query.tables[pick.index(query.tables.len())]];
        let (name, number) = (table.name, table.numbers[0].0);
        let contradiction = match form {
            0 => format!("{name}.{number} > {} AND {name}.{number} < {value}", value + 1),
            1 => format!("{name}.{number} = {value} AND {name}.{number} = {}", value + 1),
            2 => format!("{name}.{number} IS NULL AND {name}.{number} = {value}"),
            3 => format!("{name}.{number} BETWEEN {} AND {value}", value + 1),
            4 => format!("{name}.{number} IN ({value}, 1000) AND {name}.{number} IN (2000, {})", value + 1),
            5 => format!("{name}.{} = 'a' AND {name}.{} > 'b'", table.text, table.text),
            _ => format!("{name}.{number} IN ({value}, 1000) AND {name}.{number} NOT IN (1000, {value}, 7)"),
        };
        let sql = format!("{} AND {contradiction}", query.sql(query.conjuncts.len(), Style::default()));
        let found = estimate(query.database, &sql);
        prop_assert!(found.upper < 1.0, "{found:?}: {sql}");
    }
}

/// Not a test: prints how often and by how much a further conjunct, and a join with a unique key, raise an estimate.
///
///     cargo test -p relata --test library -- --ignored --nocapture raised
#[test]
#[ignore = "prints a measurement"]
#[expect(clippy::print_stdout, reason = "the measurement")]
fn what_raised_an_estimate() {
    for tables in 1..=5 {
        let mut runner = TestRunner::deterministic();
        let (mut by_conjunct, mut by_join) = (vec![], vec![]);
        for _ in 0..200 {
            let query = query(tables..=tables, 1..=5).new_tree(&mut runner).unwrap().current();
            let mut before = query.estimate(0, Style::default()).estimate;
            for conjuncts in 1..=query.conjuncts.len() {
                let after = query.estimate(conjuncts, Style::default()).estimate;
                by_conjunct.push(after / before);
                before = after;
            }
            for parent in query.outer_parents() {
                let rest = query.without(parent);
                by_join.push(before / rest.estimate(rest.conjuncts.len(), Style::default()).estimate);
            }
        }
        for (what, factors) in [("conjuncts", by_conjunct), ("joins", by_join)] {
            let mut raised: Vec<f64> = factors.iter().copied().filter(|factor| *factor > 1.0 + 1e-6).collect();
            raised.sort_by(f64::total_cmp);
            let (median, most) = (raised.get(raised.len() / 2).unwrap_or(&1.0), raised.last().unwrap_or(&1.0));
            let (count, all) = (raised.len(), factors.len());
            println!(
                "{tables} tables: {count} of {all} {what}, by a factor of {median:.4} in the median, {most:.4} at most"
            );
        }
    }
}
