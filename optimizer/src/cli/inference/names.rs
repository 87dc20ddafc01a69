//! What the names of columns and tables say about keys.

/// Words that say that a column identifies something, without saying what.
const MARKERS: [&str; 9] = ["id", "key", "code", "no", "nr", "num", "number", "fk", "pk"];

/// The words of a column's name and of its table's.
#[derive(Debug)]
pub(super) struct ColumnName {
    /// All words of the column, singular and lower-case.
    words: Vec<String>,
    /// The words of the column without markers.
    stem: Vec<String>,
    /// The words of the table.
    table: Vec<String>,
}

impl ColumnName {
    pub(super) fn new(table: &str, column: &str) -> Self {
        let words = split(column);
        let stem = words.iter().filter(|word| !MARKERS.contains(&word.as_str())).cloned().collect();
        ColumnName { words, stem, table: split(table) }
    }

    /// How much the column looks like the key of its own table; 0 if nothing speaks for it.
    pub(super) fn key_score(&self, position: usize) -> f64 {
        let marked = self.stem.len() < self.words.len();
        let own = self.own_table_score();
        let first = if position == 0 { 1.0 } else { 0.0 };
        let identifies = if marked && self.stem.is_empty() { 2.0 } else { f64::from(u8::from(marked)) };
        let named = f64::from(u8::from(self.stem.last().is_some_and(|word| word == "name")));
        identifies + first + own + 0.25 * named
    }

    /// Whether the column is called after its own table: 1 for the same words, less for some of them.
    pub(super) fn own_table_score(&self) -> f64 {
        if self.stem.is_empty() {
            if self.words.is_empty() { 0.0 } else { 1.0 }
        } else {
            ending(&self.table, &self.stem)
        }
    }

    /// How much this column is called like the key `parent` or after its table, in [0, 1].
    pub(super) fn reference_similarity(&self, parent: &ColumnName) -> f64 {
        if self.stem.is_empty() {
            return 0.0;
        }
        let after_table = ending(&self.stem, &parent.table);
        // A key called "id" or "name" says nothing; one called "customer_id" says as much as its table.
        let generic = parent.stem.is_empty() || parent.stem == ["name"];
        let after_key = if generic { 0.0 } else { ending(&self.stem, &parent.stem) };
        after_table.max(after_key)
    }
}

/// 1 if `name` is `other`, 0.8 if one ends with the other ("home_team" and "team"), else half the share of common words.
fn ending(name: &[String], other: &[String]) -> f64 {
    if name.is_empty() || other.is_empty() {
        return 0.0;
    }
    if name == other {
        return 1.0;
    }
    if name.ends_with(other) || other.ends_with(name) {
        return 0.8;
    }
    let common = name.iter().filter(|word| other.contains(word)).count() as f64;
    common / (name.len() + other.len()) as f64
}

/// The words of a name: "homeTeamIDs" and "home_team_ids" are "home", "team", "id".
fn split(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut previous = '_';
    for character in name.chars() {
        let starts_word = !previous.is_alphanumeric() || (character.is_uppercase() && previous.is_lowercase());
        if character.is_alphanumeric() {
            let lower = character.to_lowercase();
            match words.last_mut() {
                Some(word) if !starts_word => word.extend(lower),
                _ => words.push(lower.collect()),
            }
        }
        previous = character;
    }
    for word in &mut words {
        singular(word);
    }
    words
}

fn singular(word: &mut String) {
    if let Some(stem) = word.strip_suffix("ies").filter(|stem| stem.len() > 1) {
        *word = format!("{stem}y");
    } else if word.len() > 2 && word.ends_with('s') && !word.ends_with("ss") && !word.ends_with("us") {
        word.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn similarity(child: (&str, &str), parent: (&str, &str)) -> f64 {
        ColumnName::new(child.0, child.1).reference_similarity(&ColumnName::new(parent.0, parent.1))
    }

    #[test]
    fn references_are_called_after_keys_or_tables() {
        assert!(similarity(("orders", "customer_id"), ("customers", "id")) > 0.9);
        assert!(similarity(("orders", "customerId"), ("customer", "CustomerID")) > 0.9);
        assert!(similarity(("games", "home_team_id"), ("teams", "team_id")) > 0.7);
        assert!(similarity(("orders", "quantity"), ("customers", "id")) < 0.1);
        assert!(similarity(("orders", "id"), ("customers", "id")) < 0.1);
        assert!(similarity(("orders", "customer_id"), ("products", "product_id")) < 0.1);
    }

    #[test]
    fn keys_are_called_after_their_table() {
        let score = |table, column, position| ColumnName::new(table, column).key_score(position);
        assert!(score("customers", "id", 0) > score("customers", "email", 1));
        assert!(score("customers", "customer_id", 3) > score("customers", "supplier_id", 3));
        assert!(score("customers", "balance", 4) <= 0.0);
    }
}
