//! Predicates in SQL, each built around a value that satisfies it.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::columns::{Column, TableColumns, Value};
use super::{Feature, weighted};

/// The forms a predicate of a `hard` query takes.
const HARD_FORMS: [(Form, f64); 6] = [
    (Form::Plain, 0.40),
    (Form::In, 0.19),
    (Form::Or, 0.155),
    (Form::Like, 0.115),
    (Form::Different, 0.075),
    (Form::Null, 0.085),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `= < > <= >= BETWEEN`
    Plain,
    In,
    Or,
    Like,
    Different,
    Null,
}

/// Writes the filters of one relation of a query, at most one of each column.
#[derive(Debug)]
pub(crate) struct FilterWriter<'a> {
    pub(crate) table: &'a TableColumns,
    pub(crate) alias: &'a str,
    /// The row that has to satisfy all filters, if any.
    pub(crate) anchor: Option<usize>,
    /// Columns with a filter, by position in the table's columns.
    used: Vec<usize>,
    pub(crate) written: Vec<String>,
}

impl<'a> FilterWriter<'a> {
    pub(crate) fn new(table: &'a TableColumns, alias: &'a str, anchor: Option<usize>) -> Self {
        Self { table, alias, anchor, used: vec![], written: vec![] }
    }

    /// Adds a comparison; false if no column is left for one.
    pub(crate) fn plain(&mut self, random: &mut StdRng) -> bool {
        self.write(random, Form::Plain).is_some()
    }

    /// Adds a predicate of any form, and says what it shows.
    pub(crate) fn hard(&mut self, random: &mut StdRng) -> Option<Option<Feature>> {
        // Not every table has a string to search or a NULL to find.
        for _ in 0..2 {
            let form = HARD_FORMS[weighted(random, HARD_FORMS.map(|(_, weight)| weight))?].0;
            if let Some(feature) = self.write(random, form) {
                return Some(feature);
            }
        }
        self.write(random, Form::Plain)
    }

    /// Adds comparisons on two columns that depend on one another; false if there is no such pair.
    pub(crate) fn correlated(&mut self, random: &mut StdRng) -> bool {
        let free = |place: &usize| !self.used.contains(place);
        let pairs: Vec<(usize, usize)> =
            self.table.correlated.iter().copied().filter(|(a, b)| free(a) && free(b)).collect();
        let Some(&(first, second)) = pairs.choose(random) else { return false };
        // The row that ties both together, where no row of the whole join does.
        let row = self.anchor.unwrap_or_else(|| random.random_range(0..self.table.rows.max(1)));
        let mut predicate = |place: usize| {
            let column = &self.table.columns[place];
            comparison(random, column, &self.name(column), column.value(row).as_ref())
        };
        let (Some(one), Some(two)) = (predicate(first), predicate(second)) else { return false };
        self.used.extend([first, second]);
        self.written.extend([one, two]);
        true
    }

    fn write(&mut self, random: &mut StdRng, form: Form) -> Option<Option<Feature>> {
        // A column may turn out not to suit the anchor, say because its value is NULL.
        for _ in 0..6 {
            let place = self.choose(random, form)?;
            let column = &self.table.columns[place];
            let pivot = self.pivot(random, column);
            let predicate = match form {
                Form::Plain => comparison(random, column, &self.name(column), pivot.as_ref()),
                Form::In => one_of(random, column, &self.name(column), pivot.as_ref()?),
                Form::Or => self.either(random, place, pivot.as_ref()),
                Form::Like => like(random, &self.name(column), pivot.as_ref()),
                Form::Different => different(random, column, &self.name(column), pivot.as_ref()),
                Form::Null => {
                    let null = match self.anchor {
                        Some(row) => column.value(row).is_none(),
                        None => random.random_bool(0.55),
                    };
                    Some(format!("{} IS {}NULL", self.name(column), if null { "" } else { "NOT " }))
                }
            };
            if let Some(predicate) = predicate {
                self.take(place, predicate);
                return Some(match form {
                    Form::Plain => None,
                    Form::In => Some(Feature::In),
                    Form::Or => Some(Feature::Or),
                    Form::Like => Some(Feature::Like),
                    Form::Different => Some(Feature::Ne),
                    Form::Null => Some(Feature::Null),
                });
            }
        }
        None
    }

    /// A free column that suits the form.
    fn choose(&self, random: &mut StdRng, form: Form) -> Option<usize> {
        let weights = self.table.columns.iter().enumerate().map(|(place, column)| {
            let suits = match form {
                Form::Plain => true,
                Form::In | Form::Or | Form::Different => !column.is_boolean() && column.distinct_count() > 2,
                Form::Like => column.is_text(),
                Form::Null => column.nulls > 0.0,
            };
            if !suits || column.ordered.is_empty() || self.used.contains(&place) {
                0.0
            } else if column.key || column.distinct_share() > 0.9 {
                0.6
            } else {
                1.0
            }
        });
        weighted(random, weights)
    }

    /// The value a predicate is built around: that of the anchor, or one of the column's own.
    fn pivot(&self, random: &mut StdRng, column: &Column) -> Option<Value> {
        match self.anchor {
            Some(row) => column.value(row),
            None if random.random_bool(0.6) => column.frequent(random),
            None => column.any(random),
        }
    }

    /// Two or three alternatives over one column or two; one of them holds for the pivot.
    fn either(&self, random: &mut StdRng, place: usize, pivot: Option<&Value>) -> Option<String> {
        let column = &self.table.columns[place];
        let mut parts = vec![comparison(random, column, &self.name(column), pivot)?];
        let alternatives = if random.random_bool(0.79) { 1 } else { 2 };
        let alternative = |random: &mut StdRng| {
            let place = if random.random_bool(0.3) { place } else { self.choose(random, Form::Plain).unwrap_or(place) };
            let column = &self.table.columns[place];
            let pivot = if random.random_bool(0.6) { column.frequent(random) } else { column.any(random) };
            comparison(random, column, &self.name(column), pivot.as_ref())
        };
        for _ in 0..alternatives {
            let mut part = alternative(random)?;
            if random.random_bool(0.1) {
                part = format!("({part} AND {})", alternative(random)?);
            }
            if !parts.contains(&part) {
                parts.push(part);
            }
        }
        if parts.len() < 2 {
            return None;
        }
        let turn = random.random_range(0..parts.len());
        parts.rotate_left(turn);
        Some(format!("({})", parts.join(" OR ")))
    }

    /// Whether a column has values and no filter.
    pub(crate) fn is_free(&self, place: usize) -> bool {
        !self.used.contains(&place) && !self.table.columns[place].ordered.is_empty()
    }

    /// Adds a predicate on a column.
    pub(crate) fn take(&mut self, place: usize, predicate: String) {
        self.mark(place);
        self.written.push(predicate);
    }

    /// Keeps other filters away from a column.
    pub(crate) fn mark(&mut self, place: usize) {
        self.used.push(place);
    }

    pub(crate) fn name(&self, column: &Column) -> String {
        format!("{}.{}", self.alias, crate::database::quote(&column.name))
    }
}

/// `= < > <= >= BETWEEN`, true for the pivot.
fn comparison(random: &mut StdRng, column: &Column, name: &str, pivot: Option<&Value>) -> Option<String> {
    let pivot = pivot?;
    let literal = pivot.literal()?;
    let (equal, between) = if column.is_boolean() {
        (1.0, 0.0)
    } else if column.is_text() {
        (0.83, 0.05)
    } else if column.is_temporal() {
        (0.06, 0.31)
    } else if column.distinct_share() > 0.5 {
        (0.22, 0.26)
    } else {
        (0.5, 0.18)
    };
    let form: f64 = random.random();
    if form < equal {
        return Some(format!("{name} = {literal}"));
    }
    let ordered = &column.ordered;
    let rank = ordered.partition_point(|value| value < pivot);
    if form < equal + between {
        // Narrow ranges as often as wide ones.
        let width = if random.random_bool(0.5) { 0.5 * 0.002_f64.powf(random.random()) } else { random.random() };
        let (width, below) = (width * ordered.len() as f64, random.random::<f64>());
        let low =
            ordered.get(rank.saturating_sub((width * below) as usize)).filter(|low| *low <= pivot).unwrap_or(pivot);
        let place = (rank + (width * (1.0 - below)) as usize).min(ordered.len().saturating_sub(1));
        let high = ordered.get(place).filter(|high| *high >= pivot).unwrap_or(pivot);
        return Some(format!("{name} BETWEEN {} AND {}", shortened(random, low).literal()?, high.literal()?));
    }
    let at_most = random.random_bool(0.5);
    let bound = if random.random_bool(0.15) || ordered.is_empty() {
        pivot
    } else if at_most {
        &ordered[random.random_range(rank.min(ordered.len() - 1)..ordered.len())]
    } else {
        &ordered[random.random_range(0..=rank.min(ordered.len() - 1))]
    };
    let inclusive = if random.random_bool(0.45) { "=" } else { "" };
    Some(if at_most {
        let inclusive = if bound > pivot { inclusive } else { "=" };
        format!("{name} <{inclusive} {}", if bound >= pivot { bound } else { pivot }.literal()?)
    } else {
        let inclusive = if bound < pivot { inclusive } else { "=" };
        format!("{name} >{inclusive} {}", if bound <= pivot { bound } else { pivot }.literal()?)
    })
}

/// A prefix of a string now and then, which is never above the string.
fn shortened(random: &mut StdRng, value: &Value) -> Value {
    match value {
        Value::Text(text) if random.random_bool(0.4) => {
            Value::Text(text.chars().take(random.random_range(1..=3)).collect())
        }
        other => other.clone(),
    }
}

/// `IN` with two to six values most of the time, up to fifteen else.
fn one_of(random: &mut StdRng, column: &Column, name: &str, pivot: &Value) -> Option<String> {
    let size = if random.random_bool(0.81) { random.random_range(2..=6) } else { random.random_range(7..=15) };
    let mut literals = vec![pivot.literal()?];
    let frequent = random.random_bool(0.5);
    for _ in 1..size {
        let value = if frequent { column.frequent(random) } else { column.any(random) };
        if let Some(literal) = value.and_then(|value| value.literal())
            && !literals.contains(&literal)
        {
            literals.push(literal);
        }
    }
    let turn = random.random_range(0..literals.len());
    literals.rotate_left(turn);
    (literals.len() > 1).then(|| format!("{name} IN ({})", literals.join(", ")))
}

/// `<>` another value than the pivot.
fn different(random: &mut StdRng, column: &Column, name: &str, pivot: Option<&Value>) -> Option<String> {
    let value = if random.random_bool(0.7) { column.frequent(random) } else { column.any(random) }?;
    (pivot? != &value).then_some(())?;
    Some(format!("{name} <> {}", value.literal()?))
}

/// `LIKE` with a piece of the pivot: in the middle more often than in front, and seldom at the end.
fn like(random: &mut StdRng, name: &str, pivot: Option<&Value>) -> Option<String> {
    let text = pivot?.text()?;
    let characters: Vec<char> = text.chars().collect();
    let length = characters.len();
    if length == 0 {
        return None;
    }
    let (front, back, start, end) = match random.random_range(0..100) {
        0..56 => {
            let words: Vec<(usize, usize)> = words(&characters);
            match words.choose(random) {
                Some(&(start, end)) if random.random_bool(0.6) => ("%", "%", start, end),
                _ => {
                    let size = random.random_range(2..=5).min(length);
                    let start = random.random_range(0..=length - size);
                    ("%", "%", start, start + size)
                }
            }
        }
        56..86 => ("", "%", 0, random.random_range(1..=4).min(length)),
        _ => ("%", "", length - random.random_range(1..=3).min(length), length),
    };
    let piece: String = characters[start..end].iter().collect();
    let plain = !piece.contains(|c: char| c == '%' || c == '_' || c == '\\' || c.is_control()) && piece.len() <= 40;
    plain.then(|| format!("{name} LIKE '{front}{}{back}'", piece.replace('\'', "''")))
}

/// Runs of letters and digits, at least three of them.
fn words(characters: &[char]) -> Vec<(usize, usize)> {
    let mut words = vec![];
    let mut start = None;
    for (place, character) in characters.iter().enumerate() {
        if character.is_alphanumeric() {
            start.get_or_insert(place);
        } else if let Some(begin) = start.take() {
            words.push((begin, place));
        }
    }
    words.extend(start.map(|begin| (begin, characters.len())));
    words.retain(|(start, end)| end - start >= 3);
    words
}
