//! What people ask of the rows of a query beyond counting them: orders, windows, subtotals, unions, groups of groups.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::columns::Column;
use super::statement::LastJoin;
use super::{Generator, Query, choose};
use crate::database::quote;

/// Forms of a report.
const FORMS: usize = 9;

/// A column of a query with the name it has there.
#[derive(Debug, Clone)]
struct Named<'a> {
    name: String,
    column: &'a Column,
}

impl Generator<'_> {
    /// The rows of a query with inner joins in a report over them, in a form drawn at random; `None` where its columns do not
    /// suit the form.
    pub fn report(&mut self, query: &Query) -> Option<String> {
        if query.statement.last != LastJoin::Inner {
            return None;
        }
        let random = &mut StdRng::seed_from_u64(self.random.random());
        let columns = self.columns_of(query);
        let mut statement = query.statement.clone();
        let key = &key(&columns, random)?.name;
        let others: Vec<&String> = columns.iter().map(|named| &named.name).filter(|name| *name != key).collect();
        let other = *others.choose(random)?;
        let value = columns.iter().filter(|named| named.column.is_number() && !named.column.key);
        let value = value.collect::<Vec<_>>().choose(random).map(|named| named.name.clone());
        let total = value.as_ref().map_or("COUNT(*)".to_owned(), |value| format!("SUM({value})"));
        let direction = ["", " DESC"][choose(random, &[0.5, 0.5])];
        let limit = ["", " LIMIT 100"][choose(random, &[0.5, 0.5])];
        (statement.output, statement.tail) = match random.random_range(0..FORMS) {
            // All rows in an order.
            0 => (format!("{key}, {other}"), format!(" ORDER BY {other}{direction}, {key}{limit}")),
            // A share of the whole that a row belongs to.
            1 => {
                let share = value.map_or("COUNT(*)".to_owned(), |value| format!("AVG({value})"));
                (format!("{key}, {other}, {share} OVER (PARTITION BY {key})"), String::new())
            }
            // The first rows of each group.
            2 => {
                let place = format!("ROW_NUMBER() OVER (PARTITION BY {key} ORDER BY {other}{direction})");
                statement.output = format!("{key} AS key, {other} AS value, {place} AS place");
                return Some(format!("SELECT * FROM ({}) AS ranked WHERE place <= 3", statement.sql()));
            }
            // Subtotals.
            3 => {
                let groups = ["ROLLUP", "CUBE"][choose(random, &[0.7, 0.3])];
                (
                    format!("{key}, {other}, {total}"),
                    format!(" GROUP BY {groups} ({key}, {other}) ORDER BY {key}{limit}"),
                )
            }
            // The same under other filters besides.
            4 => {
                let all = ["UNION", "UNION ALL"][choose(random, &[0.3, 0.7])];
                statement.output = format!("{key} AS key, {total} AS total");
                statement.tail = format!(" GROUP BY {key}");
                let first = statement.sql();
                if let Some(relation) = statement.relations.iter_mut().find(|relation| !relation.filters.is_empty()) {
                    relation.filters.pop();
                }
                return Some(format!("{first} {all} {} ORDER BY total{direction}{limit}", statement.sql()));
            }
            // Groups of groups.
            5 => {
                statement.output = format!("{key} AS key, {other} AS other, {total} AS total");
                statement.tail = format!(" GROUP BY {key}, {other}");
                let inner = statement.sql();
                return Some(format!(
                    "SELECT key, COUNT(*), AVG(total) AS mean FROM ({inner}) AS grouped GROUP BY key ORDER BY mean{direction}{limit}"
                ));
            }
            6 => (format!("{key}, COUNT(DISTINCT {other}), {total}"), format!(" GROUP BY {key}")),
            // Totals of several kinds side by side.
            7 => {
                let column = columns.choose(random)?;
                let summed = value.unwrap_or_else(|| "1".to_owned());
                let cases = (1..=3).map(|place| {
                    let literal = column.column.frequent(random)?.literal()?;
                    let case = format!("CASE WHEN {} = {literal} THEN {summed} ELSE 0 END", column.name);
                    Some(format!("SUM({case}) AS total_{place}"))
                });
                let cases = cases.collect::<Option<Vec<_>>>()?.join(", ");
                (format!("{key}, {cases}"), format!(" GROUP BY {key} ORDER BY {key}{limit}"))
            }
            // Groups above their mean.
            _ => {
                statement.output = format!("{key} AS key, {total} AS total");
                statement.tail = format!(" GROUP BY {key}");
                let totals = statement.sql();
                return Some(format!(
                    "WITH totals AS ({totals}) SELECT key, total FROM totals WHERE total > (SELECT AVG(total) FROM totals) \
                     ORDER BY total{direction}{limit}"
                ));
            }
        };
        Some(statement.sql())
    }

    /// The columns of a query's relations.
    fn columns_of(&self, query: &Query) -> Vec<Named<'_>> {
        let relations = query.statement.relations.iter().zip(&query.tables);
        let tables = relations.filter_map(|(relation, name)| {
            let place = self.database.tables.iter().position(|table| table.name == *name)?;
            Some((&relation.alias, &self.tables[place]))
        });
        let columns = tables.flat_map(|(alias, table)| {
            let columns = table.columns.iter();
            columns.map(move |column| Named { name: format!("{alias}.{}", quote(&column.name)), column })
        });
        columns.collect()
    }
}

/// A column whose values occur more than once, where there is one.
fn key<'a>(columns: &'a [Named<'a>], random: &mut StdRng) -> Option<&'a Named<'a>> {
    let repeated: Vec<&Named<'_>> = columns.iter().filter(|named| named.column.distinct_share() < 0.5).collect();
    repeated.choose(random).copied().or_else(|| columns.choose(random))
}
