//! What a query returns: counts, groups, aggregates, the first rows of an order; and how its last relation is joined.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::joins::JoinedTables;
use super::statement::LastJoin;
use super::{Generator, Kind, choose, weighted};
use crate::database::quote;

impl Generator<'_> {
    /// What is selected, and what follows the conditions.
    pub(super) fn output(&mut self, kind: Kind, walked: &JoinedTables, aliases: &[String]) -> Option<(String, String)> {
        let count = || ("COUNT(*)".to_owned(), String::new());
        Some(match kind {
            Kind::Seed | Kind::Hard | Kind::Expression | Kind::Outer => count(),
            Kind::Group => {
                let groups = self.groups(walked, aliases)?.join(", ");
                (format!("{groups}, COUNT(*)"), format!(" GROUP BY {groups}"))
            }
            Kind::Distinct => (format!("DISTINCT {}", self.groups(walked, aliases)?.join(", ")), String::new()),
            Kind::Having => {
                let groups = self.groups(walked, aliases)?.join(", ");
                let condition = match self.number(walked, aliases).filter(|_| self.random.random_bool(0.4)) {
                    Some((name, literal)) => {
                        let function = ["AVG", "MIN", "MAX"][choose(&mut self.random, &[0.5, 0.25, 0.25])];
                        format!("{function}({name}) {} {literal}", if self.random.random_bool(0.5) { "<" } else { ">" })
                    }
                    None => {
                        let least =
                            [1, 2, 3, 5, 10, 30, 100][choose(&mut self.random, &[0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1])];
                        format!("COUNT(*) > {least}")
                    }
                };
                (format!("{groups}, COUNT(*)"), format!(" GROUP BY {groups} HAVING {condition}"))
            }
            Kind::Top => {
                let columns = self.groups(walked, aliases)?;
                let direction = if self.random.random_bool(0.5) { " DESC" } else { "" };
                let limit =
                    [1, 5, 10, 20, 50, 100, 1000][choose(&mut self.random, &[0.1, 0.15, 0.3, 0.1, 0.1, 0.2, 0.05])];
                (columns.join(", "), format!(" ORDER BY {}{direction} LIMIT {limit}", columns[0]))
            }
            Kind::Aqp => {
                let function =
                    ["COUNT", "AVG", "SUM", "MIN", "MAX"][choose(&mut self.random, &[0.2, 0.35, 0.25, 0.1, 0.1])];
                match self.number(walked, aliases).filter(|_| function != "COUNT") {
                    Some((name, _)) => (format!("{function}({name})"), String::new()),
                    None => count(),
                }
            }
        })
    }

    /// A column of numbers that is no key, with one of its values.
    fn number(&mut self, walked: &JoinedTables, aliases: &[String]) -> Option<(String, String)> {
        let numbers = walked.relations.iter().zip(aliases).flat_map(|(relation, alias)| {
            let columns = self.tables[relation.table].columns.iter();
            columns.filter(|column| column.is_number() && !column.key).map(move |column| (alias, column))
        });
        let numbers: Vec<_> = numbers.collect();
        let (alias, column) = numbers.choose(&mut self.random)?;
        let literal = column.frequent(&mut self.random)?.literal()?;
        Some((format!("{alias}.{}", quote(&column.name)), literal))
    }

    /// How the last relation is joined where it is not by an inner join.
    pub(super) fn last_join(&mut self, walked: &JoinedTables) -> LastJoin {
        let keys = walked.joins.last().map_or(0, |join| join.keys.len());
        match choose(&mut self.random, &[0.3, 0.1, 0.2, 0.15, 0.25]) {
            0 => LastJoin::Left,
            1 => LastJoin::Full,
            2 if keys == 1 => LastJoin::In,
            4 => LastJoin::NotExists,
            _ => LastJoin::Exists,
        }
    }

    /// One to three columns to group by, not all of them unique.
    fn groups(&mut self, walked: &JoinedTables, aliases: &[String]) -> Option<Vec<String>> {
        let random = &mut self.random;
        let wanted = 1 + choose(random, &[0.355, 0.41, 0.235]);
        let mut groups: Vec<String> = vec![];
        for _ in 0..2 * wanted {
            let place = random.random_range(0..walked.relations.len());
            let columns = &self.tables[walked.relations[place].table].columns;
            let weights: Vec<f64> = columns
                .iter()
                .map(|column| {
                    let unique = if column.distinct_share() > 0.9 { 0.15 } else { 1.0 };
                    if column.is_float() { 0.3 * unique } else { unique }
                })
                .collect();
            let Some(column) = weighted(random, weights) else { continue };
            let name = format!("{}.{}", aliases[place], quote(&columns[column].name));
            if groups.len() < wanted && !groups.contains(&name) {
                groups.push(name);
            }
        }
        (!groups.is_empty()).then_some(groups)
    }
}
