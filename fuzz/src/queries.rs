//! Bytes -> a query over [`tables`]: every byte is a choice, and where there are no more the first one is taken, so that
//! fewer bytes are a simpler query.
//!
//! Joins of every kind and nesting, conditions in ON and WHERE, subqueries under EXISTS, IN and comparisons, groups, DISTINCT,
//! set operations, and limits under an order of all columns. Numbers are integers: sums do not depend on the order of rows.

use std::fmt::Write;
use std::sync::Arc;

use datafusion::arrow::array::{Int64Array, RecordBatch, StringArray, new_null_array};
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;

/// Columns of every table, as often as they are chosen: a key with a few NULLs, two parts of a composite key with duplicates, a
/// number, and only NULLs;
const NUMBERS: [&str; 12] = ["k", "p", "q", "v", "k", "p", "q", "v", "k", "p", "v", "n"];
/// and a word.
const WORD: &str = "s";

/// Rows of the tables `t0`, `t1`, ...; one is empty.
const ROWS: [i64; 6] = [14, 11, 9, 6, 1, 0];

/// Most relations of a FROM.
const MOST_RELATIONS: usize = 5;

/// The tables by name.
///
/// # Errors
/// None: the columns have one length.
pub fn tables() -> Result<Vec<(String, RecordBatch)>, ArrowError> {
    let mut tables = vec![];
    for (table, rows) in ROWS.into_iter().enumerate() {
        let shift = table as i64;
        let numbers = |known: &dyn Fn(i64) -> bool, value: &dyn Fn(i64) -> i64| {
            Arc::new(Int64Array::from_iter((0..rows).map(|row| known(row).then(|| value(row)))))
        };
        let words =
            (0..rows).map(|row| (row % 4 != shift % 4).then(|| ["a", "b", "", "ab", "B"][(row * row % 5) as usize]));
        let batch = RecordBatch::try_from_iter_with_nullable([
            ("k", numbers(&|row| row % 6 != 4, &|row| row + shift % 2) as _, true),
            ("p", numbers(&|row| (row + shift) % 5 != 1, &|row| (row + shift) % 4) as _, true),
            ("q", numbers(&|row| row % 3 != 2, &|row| row / 3 % 3) as _, true),
            ("v", numbers(&|row| row % 7 != 3, &|row| row * row % 11 - 2) as _, true),
            ("n", new_null_array(&DataType::Int64, rows as usize), true),
            (WORD, Arc::new(StringArray::from_iter(words)) as _, true),
        ])?;
        tables.push((format!("t{table}"), batch));
    }
    Ok(tables)
}

/// The query that the bytes choose.
pub fn query(data: &[u8]) -> String {
    let mut writer = Writer { choices: data.iter(), relations: 0 };
    writer.query()
}

struct Writer<'a> {
    choices: std::slice::Iter<'a, u8>,
    /// Relations named so far.
    relations: usize,
}

impl Writer<'_> {
    /// One of `options` numbers from 0.
    fn choose(&mut self, options: usize) -> usize {
        self.choices.next().map_or(0, |byte| usize::from(*byte) % options.max(1))
    }

    fn one<'o, T: ?Sized>(&mut self, options: &[&'o T]) -> &'o T {
        options[self.choose(options.len())]
    }

    /// Once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.choose(times) + 1 == times
    }

    fn query(&mut self) -> String {
        let columns = 1 + self.choose(3);
        let mut sql = self.select(columns);
        if self.once_in(6) {
            let operation = self.one(&["UNION ALL", "UNION", "INTERSECT", "EXCEPT"]);
            let other = self.select(columns);
            sql = format!("{sql} {operation} {other}");
        }
        if self.once_in(4) {
            let places: Vec<String> = (1..=columns).map(|place| place.to_string()).collect();
            let direction = self.one(&["", " DESC", " NULLS FIRST"]);
            let limit = 1 + self.choose(9);
            let _ = write!(sql, " ORDER BY {}{direction} LIMIT {limit}", places.join(", "));
            if self.once_in(3) {
                let _ = write!(sql, " OFFSET {}", self.choose(7));
            }
        }
        sql
    }

    /// A SELECT of so many columns, all of them numbers.
    fn select(&mut self, columns: usize) -> String {
        let (from, relations) = self.from();
        let mut filters = vec![];
        for _ in 0..[0, 1, 1, 2][self.choose(4)] {
            filters.push(self.predicate(&relations, 2));
        }
        let condition = if filters.is_empty() { String::new() } else { format!(" WHERE {}", filters.join(" AND ")) };
        let mut outputs: Vec<String> = (0..columns).map(|_| self.number(&relations)).collect();
        let groups = if self.once_in(3) { 1 + self.choose(columns.min(2)) } else { 0 };
        let distinct = if self.once_in(6) { "DISTINCT " } else { "" };
        let mut tail = String::new();
        if groups > 0 {
            for output in &mut outputs[groups..] {
                let function = self.one(&["COUNT(", "SUM(", "MIN(", "MAX(", "COUNT(DISTINCT "]);
                *output = format!("{function}{output})");
            }
            let _ = write!(tail, " GROUP BY {}", outputs[..groups].join(", "));
            if self.once_in(3) {
                let _ = write!(tail, " HAVING COUNT(*) > {}", self.choose(4));
            }
        }
        let outputs: Vec<String> = outputs.iter().enumerate().map(|(i, output)| format!("{output} AS c{i}")).collect();
        format!("SELECT {distinct}{} FROM {from}{condition}{tail}", outputs.join(", "))
    }

    /// A FROM, and the relations that can be named outside of it.
    fn from(&mut self) -> (String, Vec<String>) {
        let relations = 1 + self.choose(MOST_RELATIONS);
        if self.once_in(3) { self.chain(relations) } else { self.joined(relations) }
    }

    /// Inner joins one after the other.
    fn chain(&mut self, relations: usize) -> (String, Vec<String>) {
        let (mut from, mut known) = self.relation();
        for _ in 1..relations {
            let (relation, own) = self.relation();
            let _ = write!(from, " JOIN {relation} ON {}", self.keys(&known, &own));
            known.extend(own);
        }
        (from, known)
    }

    /// A tree of joins.
    fn joined(&mut self, relations: usize) -> (String, Vec<String>) {
        if relations == 1 {
            return self.relation();
        }
        let right = 1 + self.choose(relations - 1);
        let (left, mut known) = self.joined(relations - right);
        let (inner, own) = self.joined(right);
        let inner = if right > 1 { format!("({inner})") } else { inner };
        let kind = self.one(&[
            "JOIN",
            "JOIN",
            "JOIN",
            "LEFT JOIN",
            "RIGHT JOIN",
            "FULL JOIN",
            "LEFT SEMI JOIN",
            "LEFT ANTI JOIN",
            "RIGHT SEMI JOIN",
            "RIGHT ANTI JOIN",
        ]);
        let mut condition = self.keys(&known, &own);
        if self.once_in(4) {
            let both: Vec<String> = known.iter().chain(&own).cloned().collect();
            let _ = write!(condition, " AND {}", self.predicate(&both, 0));
        }
        match kind {
            "LEFT SEMI JOIN" | "LEFT ANTI JOIN" => {}
            "RIGHT SEMI JOIN" | "RIGHT ANTI JOIN" => known = own,
            _ => known.extend(own),
        }
        (format!("{left} {kind} {inner} ON {condition}"), known)
    }

    /// A table, or a subquery in its place.
    fn relation(&mut self) -> (String, Vec<String>) {
        let name = format!("r{}", self.relations);
        self.relations += 1;
        let table = self.table();
        let source = match self.choose(12) {
            10 => format!("(SELECT * FROM {table} WHERE {})", self.predicate(std::slice::from_ref(&table), 0)),
            11 => format!(
                "(SELECT p, q, MAX(k) AS k, COUNT(*) AS v, MIN(n) AS n, MIN(s) AS s FROM {table} GROUP BY p, q)"
            ),
            _ => table,
        };
        (format!("{source} AS {name}"), vec![name])
    }

    fn table(&mut self) -> String {
        // The empty table and that of one row are taken less often.
        format!("t{}", [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 4, 5][self.choose(20)])
    }

    /// What ties relations on two sides.
    fn keys(&mut self, left: &[String], right: &[String]) -> String {
        let (l, r) = (self.name(left), self.name(right));
        match self.choose(10) {
            0..=2 => format!("{l}.p = {r}.p"),
            3 => format!("{l}.p = {r}.p AND {l}.q = {r}.q"),
            4 => format!("{l}.k = {r}.k"),
            5 => format!("{l}.s = {r}.s"),
            6 => format!("{l}.k = {r}.v"),
            7 => format!("({l}.q IS NOT DISTINCT FROM {r}.q) AND {l}.p = {r}.q"),
            8 => format!("{l}.p + {r}.q > {}", self.choose(4)),
            _ => format!("{l}.k + 1 = {r}.k AND {l}.v < {r}.v"),
        }
    }

    fn name(&mut self, relations: &[String]) -> String {
        relations[self.choose(relations.len())].clone()
    }

    /// A number of one of the relations.
    fn number(&mut self, relations: &[String]) -> String {
        let name = self.name(relations);
        let column = NUMBERS[self.choose(NUMBERS.len())];
        match self.choose(8) {
            6 => format!("{name}.{column} + {}", self.choose(3)),
            7 => format!("COALESCE({name}.{column}, {})", self.choose(3)),
            _ => format!("{name}.{column}"),
        }
    }

    /// A condition over relations, with subqueries nested this deep at most.
    fn predicate(&mut self, relations: &[String], depth: usize) -> String {
        let options = if depth > 0 { 17 } else { 10 };
        match self.choose(options) {
            0 => format!("{} < {}", self.number(relations), self.choose(9)),
            1 => format!("{} = {}", self.number(relations), self.number(relations)),
            2 => format!("{} IS NULL", self.number(relations)),
            3 => format!("{} IS NOT NULL", self.number(relations)),
            4 => format!("{}.{WORD} IN ('a', 'ab', '')", self.name(relations)),
            5 => format!("{} <> {}", self.number(relations), self.choose(4)),
            6 => format!("({} OR {})", self.predicate(relations, 0), self.predicate(relations, 0)),
            7 => format!("NOT ({})", self.predicate(relations, 0)),
            8 => format!("{}.{WORD} LIKE 'a%'", self.name(relations)),
            9 => format!("{} BETWEEN {} AND {}", self.number(relations), self.choose(3), 2 + self.choose(8)),
            subquery => self.subquery(subquery - 10, relations, depth - 1),
        }
    }

    fn subquery(&mut self, form: usize, outer: &[String], depth: usize) -> String {
        let (from, relations) = {
            let relations = 1 + self.choose(2);
            self.joined(relations)
        };
        let mut conditions = vec![];
        if self.choose(4) > 0 {
            let (inside, outside) = (self.name(&relations), self.name(outer));
            conditions.push(match self.choose(5) {
                0 | 1 => format!("{inside}.p = {outside}.p"),
                2 => format!("{inside}.k = {outside}.k"),
                3 => format!("{inside}.p = {outside}.p AND {inside}.q = {outside}.q"),
                _ => format!("{inside}.p = {outside}.p AND {inside}.v < {outside}.v"),
            });
        }
        if self.once_in(3) {
            conditions.push(self.predicate(&relations, depth));
        }
        let condition =
            if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        let inner = self.number(&relations);
        match form {
            0 => format!("EXISTS (SELECT 1 FROM {from}{condition})"),
            1 => format!("NOT EXISTS (SELECT 1 FROM {from}{condition})"),
            2 => format!("{} IN (SELECT {inner} FROM {from}{condition})", self.number(outer)),
            3 => format!("{} NOT IN (SELECT {inner} FROM {from}{condition})", self.number(outer)),
            4 => format!("{} > (SELECT MIN({inner}) FROM {from}{condition})", self.number(outer)),
            5 => format!("{} = (SELECT MAX({inner}) FROM {from}{condition})", self.number(outer)),
            _ => format!("{} <= (SELECT COUNT(*) FROM {from}{condition})", self.number(outer)),
        }
    }
}
