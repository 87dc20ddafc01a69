//! Random equi-joins over random tables have the same rows with and without relata.

use std::fmt::Write;
use std::sync::Arc;

use datafusion::arrow::array::{Int64Array, StringArray};
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;

use crate::{Sessions, batch, pretrained};

const COLUMNS: [&str; 3] = ["a", "b", "c"];

/// A row of numbers, any of which may be NULL.
type Row = [Option<i64>; 3];

#[derive(Debug, Clone)]
struct Case {
    /// At least one table.
    tables: Vec<Vec<Row>>,
    /// The table of each relation of the query, to be taken modulo the tables.
    relations: Vec<usize>,
    /// What ties each relation but the first to an earlier one: that one, a column of it, an own column; modulo as well.
    keys: Vec<(usize, usize, usize)>,
    /// More conditions of that kind, between any two relations.
    cycles: Vec<(usize, usize, usize, usize)>,
    filters: Vec<(usize, usize, Filter)>,
}

#[derive(Debug, Clone)]
enum Filter {
    Equal(i64),
    Less(i64),
    OneOf(i64, i64),
    IsNull,
    Word(i64),
}

fn case() -> impl Strategy<Value = Case> {
    let row = [weighted(0.85, 0..8i64), weighted(0.85, 0..15i64), weighted(0.85, 0..30i64)];
    let filter = prop_oneof![
        (0..10i64).prop_map(Filter::Equal),
        (0..20i64).prop_map(Filter::Less),
        (0..10i64, 0..10i64).prop_map(|(one, other)| Filter::OneOf(one, other)),
        Just(Filter::IsNull),
        (0..10i64).prop_map(Filter::Word),
    ];
    let tables = vec(vec(row, 0..25), 1..4);
    (tables, vec(0..9usize, 3..=5)).prop_flat_map(move |(tables, relations)| {
        let joins = relations.len() - 1;
        let keys = vec((0..9usize, 0..3usize, 0..3usize), joins);
        let cycles = vec((0..9usize, 0..9usize, 0..3usize, 0..3usize), 0..2);
        let filters = vec((0..9usize, 0..3usize, filter.clone()), 0..3);
        (Just(tables), Just(relations), keys, cycles, filters)
            .prop_map(|(tables, relations, keys, cycles, filters)| Case { tables, relations, keys, cycles, filters })
    })
}

impl Case {
    fn sql(&self) -> String {
        let relations = self.relations.len();
        let from: Vec<String> = self
            .relations
            .iter()
            .enumerate()
            .map(|(i, table)| format!("t{} r{i}", table % self.tables.len()))
            .collect();
        let mut conditions = vec!["TRUE".to_owned()];
        for (i, (earlier, theirs, own)) in self.keys.iter().enumerate() {
            conditions.push(format!("r{}.{} = r{}.{}", earlier % (i + 1), COLUMNS[*theirs], i + 1, COLUMNS[*own]));
        }
        for (left, right, theirs, own) in &self.cycles {
            let (left, right) = (left % relations, right % relations);
            conditions.push(format!("r{left}.{} = r{right}.{}", COLUMNS[*theirs], COLUMNS[*own]));
        }
        for (relation, column, filter) in &self.filters {
            let relation = relation % relations;
            let column = format!("r{relation}.{}", COLUMNS[*column]);
            conditions.push(match filter {
                Filter::Equal(value) => format!("{column} = {value}"),
                Filter::Less(value) => format!("{column} < {value}"),
                Filter::OneOf(one, other) => format!("{column} IN ({one}, {other}, 3)"),
                Filter::IsNull => format!("{column} IS NULL"),
                Filter::Word(value) => format!("r{relation}.word LIKE '%{value}'"),
            });
        }
        let mut columns = String::new();
        for i in 0..relations {
            let _ = write!(columns, "{}r{i}.a AS a{i}, r{i}.c AS c{i}", if i == 0 { "" } else { ", " });
        }
        format!("SELECT {columns} FROM {} WHERE {}", from.join(", "), conditions.join(" AND "))
    }

    fn register(&self, sessions: &Sessions) {
        for (i, rows) in self.tables.iter().enumerate() {
            let column = |c: usize| Arc::new(Int64Array::from_iter(rows.iter().map(|row| row[c])));
            let words = StringArray::from_iter(rows.iter().map(|row| row[1].map(|value| format!("word {value}"))));
            let columns = batch([("a", column(0)), ("b", column(1)), ("c", column(2)), ("word", Arc::new(words))]);
            sessions.register(&format!("t{i}"), &columns);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_joins_keep_their_rows(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let sessions = Sessions::new(pretrained());
            case.register(&sessions);
            sessions.same(&case.sql()).await;
            sessions.assert_untroubled();
        });
    }
}
