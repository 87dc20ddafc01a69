//! A query of the generator, as SQL, and the sub-joins of it.

use super::Feature;

/// How the last relation of a query is joined with the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastJoin {
    Inner,
    Left,
    Full,
    Exists,
    In,
    NotExists,
}

impl LastJoin {
    pub(crate) fn feature(self) -> Option<Feature> {
        match self {
            LastJoin::Inner => None,
            LastJoin::Left => Some(Feature::Left),
            LastJoin::Full => Some(Feature::Full),
            LastJoin::Exists | LastJoin::In => Some(Feature::Semi),
            LastJoin::NotExists => Some(Feature::Anti),
        }
    }
}

/// A relation of a query; names are quoted where they need to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relation {
    pub(crate) table: String,
    pub(crate) alias: String,
    /// Index of the earlier relation that it is joined with; `None` for the first.
    pub(crate) joined_with: Option<usize>,
    /// Equal columns, that of the earlier relation first.
    pub(crate) keys: Vec<(String, String)>,
    pub(crate) filters: Vec<String>,
}

impl Relation {
    fn source(&self) -> String {
        format!("{} AS {}", self.table, self.alias)
    }

    /// The rows that pass the filters, under the same alias.
    fn filtered_source(&self) -> String {
        if self.filters.is_empty() {
            return self.source();
        }
        format!("(SELECT * FROM {} WHERE {}) AS {}", self.source(), self.filters.join(" AND "), self.alias)
    }

    fn conditions(&self) -> impl Iterator<Item = String> {
        self.keys.iter().map(|(left, right)| format!("{left} = {right}"))
    }

    fn condition(&self) -> String {
        self.conditions().collect::<Vec<_>>().join(" AND ")
    }
}

/// A query before it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) relations: Vec<Relation>,
    /// What is selected.
    pub(crate) output: String,
    /// What follows the conditions.
    pub(crate) tail: String,
    pub(crate) last: LastJoin,
    /// JOIN ... ON rather than a list of relations.
    pub(crate) explicit: bool,
}

impl Statement {
    /// The query.
    pub(crate) fn sql(&self) -> String {
        let Some((last, others)) = self.relations.split_last() else { return String::new() };
        let (from, conditions) = match self.last {
            LastJoin::Inner => inner(&self.relations, self.explicit),
            LastJoin::Left => {
                let (from, conditions) = inner(others, true);
                let on: Vec<String> = last.conditions().chain(last.filters.iter().cloned()).collect();
                (format!("{from} LEFT JOIN {} ON {}", last.source(), on.join(" AND ")), conditions)
            }
            LastJoin::Full => {
                let mut from = others.first().map(Relation::filtered_source).unwrap_or_default();
                for relation in &others[1..] {
                    from.push_str(&format!(" JOIN {} ON {}", relation.filtered_source(), relation.condition()));
                }
                (format!("{from} FULL JOIN {} ON {}", last.filtered_source(), last.condition()), vec![])
            }
            LastJoin::Exists | LastJoin::NotExists => {
                let (from, mut conditions) = inner(others, self.explicit);
                let inside: Vec<String> = last.conditions().chain(last.filters.iter().cloned()).collect();
                let not = if self.last == LastJoin::NotExists { "NOT " } else { "" };
                let inside = inside.join(" AND ");
                conditions.push(format!("{not}EXISTS (SELECT 1 FROM {} WHERE {inside})", last.source()));
                (from, conditions)
            }
            LastJoin::In => {
                let (from, mut conditions) = inner(others, self.explicit);
                let filters = match last.filters.as_slice() {
                    [] => String::new(),
                    filters => format!(" WHERE {}", filters.join(" AND ")),
                };
                let tests = last
                    .keys
                    .iter()
                    .map(|(left, right)| format!("{left} IN (SELECT {right} FROM {}{filters})", last.source()));
                conditions.extend(tests);
                (from, conditions)
            }
        };
        let conditions =
            if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        format!("SELECT {} FROM {from}{conditions}{}", self.output, self.tail)
    }

    /// The table of a relation, by its alias.
    pub(crate) fn table(&self, alias: &str) -> Option<String> {
        self.relations.iter().find(|relation| relation.alias == alias).map(|relation| relation.table.clone())
    }

    /// `COUNT(*)` of the inner join of some relations with their filters; `None` if no keys tie them together.
    pub(crate) fn sub_join(&self, aliases: &[&str]) -> Option<String> {
        let chosen = |relation: usize| aliases.contains(&self.relations[relation].alias.as_str());
        let members: Vec<usize> = (0..self.relations.len()).filter(|&relation| chosen(relation)).collect();
        let tied = members.iter().filter(|&&relation| self.relations[relation].joined_with.is_some_and(chosen));
        if members.len() != aliases.len() || tied.count() + 1 != members.len() {
            return None;
        }
        let relations: Vec<Relation> = members
            .iter()
            .map(|&member| {
                let mut relation = self.relations[member].clone();
                if !relation.joined_with.is_some_and(chosen) {
                    relation.keys.clear();
                }
                relation
            })
            .collect();
        let (from, conditions) = inner(&relations, false);
        let conditions =
            if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        Some(format!("SELECT COUNT(*) FROM {from}{conditions}"))
    }
}

/// The FROM clause of an inner join, and the conditions that remain for WHERE.
fn inner(relations: &[Relation], explicit: bool) -> (String, Vec<String>) {
    let mut conditions = vec![];
    let mut from = String::new();
    for (place, relation) in relations.iter().enumerate() {
        match place {
            0 => from.push_str(&relation.source()),
            _ if explicit => from.push_str(&format!(" JOIN {} ON {}", relation.source(), relation.condition())),
            _ => {
                from.push_str(&format!(", {}", relation.source()));
                conditions.extend(relation.conditions());
            }
        }
    }
    conditions.extend(relations.iter().flat_map(|relation| relation.filters.iter().cloned()));
    (from, conditions)
}
