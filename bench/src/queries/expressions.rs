//! Predicates over expressions of columns: arithmetic, lengths and parts of strings, parts of dates.

use datafusion::arrow::temporal_conversions::{date32_to_datetime, timestamp_us_to_datetime};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::columns::{Column, Value};
use super::filters::FilterWriter;

/// Numbers beyond this stay out of arithmetic, which must not overflow 32 bits.
const LARGEST: f64 = 1e8;

impl FilterWriter<'_> {
    /// Adds a predicate over an expression, true for the anchor; false if no free column suits one.
    pub(crate) fn expression(&mut self, random: &mut StdRng) -> bool {
        // The row that the predicate is built around, where no row of the whole join is.
        let row = self.anchor.unwrap_or_else(|| random.random_range(0..self.table.rows.max(1)));
        for _ in 0..6 {
            let free: Vec<usize> = (0..self.table.columns.len()).filter(|place| self.is_free(*place)).collect();
            let Some(&place) = free.choose(random) else { return false };
            let column = &self.table.columns[place];
            let Some(value) = column.value(row) else { continue };
            if let Some((predicate, second)) = self.predicate(random, column, &value, row, &free) {
                self.take(place, predicate);
                second.into_iter().for_each(|place| self.mark(place));
                return true;
            }
        }
        false
    }

    /// A predicate, and the second column that it reads.
    fn predicate(
        &self,
        random: &mut StdRng,
        column: &Column,
        value: &Value,
        row: usize,
        free: &[usize],
    ) -> Option<(String, Option<usize>)> {
        let name = self.name(column);
        let alone = |predicate: String| Some((predicate, None));
        if let Some(text) = value.text() {
            let length = text.chars().count();
            let start: String = text.chars().take(random.random_range(1..=3)).collect();
            return match random.random_range(0..3) {
                0 => alone(format!("LENGTH({name}) {} {length}", random_comparison(random))),
                1 if length > 0 => {
                    let literal = Value::Text(start.clone()).literal()?;
                    alone(format!("SUBSTR({name}, 1, {}) = {literal}", start.chars().count()))
                }
                _ if text.is_ascii() => {
                    alone(format!("UPPER({name}) = {}", Value::Text(text.to_ascii_uppercase()).literal()?))
                }
                _ => None,
            };
        }
        if let Some((year, month)) = year_and_month(value) {
            return if random.random_bool(0.5) {
                alone(format!("EXTRACT(YEAR FROM {name}) {} {year}", random_comparison(random)))
            } else {
                alone(format!("EXTRACT(MONTH FROM {name}) = {month}"))
            };
        }
        let number = number(value).filter(|number| number.abs() < LARGEST)?;
        match random.random_range(0..4) {
            0 => {
                let partner = free.iter().copied().filter(|&place| {
                    let other = &self.table.columns[place];
                    other.is_number() && other.name != column.name && other.value(row).is_some()
                });
                let partners: Vec<usize> = partner.collect();
                let &place = partners.choose(random)?;
                let other = &self.table.columns[place];
                let second = self::number(&other.value(row)?).filter(|second| second.abs() < LARGEST)?;
                let (sign, sum) = if random.random_bool(0.5) { ("+", number + second) } else { ("-", number - second) };
                let comparison = random_comparison(random);
                let sum = literal(sum, column.is_float() || other.is_float(), comparison)?;
                Some((format!("{name} {sign} {} {comparison} {sum}", self.name(other)), Some(place)))
            }
            1 if !column.is_float() => {
                let modulus = random.random_range(2..=10);
                alone(format!("{name} % {modulus} = {}", number as i64 % modulus))
            }
            2 => {
                let frequent = self::number(&column.frequent(random)?).filter(|other| other.abs() < LARGEST)?;
                let centre = literal(frequent, column.is_float(), "=")?;
                let distance = literal((number - frequent).abs(), column.is_float(), "<=")?;
                alone(format!("ABS({name} - {centre}) <= {distance}"))
            }
            _ => {
                let factor = random.random_range(2..=5);
                let comparison = random_comparison(random);
                let product = literal(number * f64::from(factor), column.is_float(), comparison)?;
                alone(format!("{name} * {factor} {comparison} {product}"))
            }
        }
    }
}

fn random_comparison(random: &mut StdRng) -> &'static str {
    if random.random_bool(0.5) { "<=" } else { ">=" }
}

/// A number as a literal; computed floats are moved a little so that the comparison holds whatever the rounding.
fn literal(number: f64, float: bool, comparison: &str) -> Option<String> {
    if !float {
        return Some(format!("{}", number as i64));
    }
    let slack = 1e-9 * number.abs().max(1e-9);
    let moved = match comparison {
        "<=" => number + slack,
        ">=" => number - slack,
        _ => number,
    };
    Value::Float(moved).literal()
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        _ => None,
    }
}

fn year_and_month(value: &Value) -> Option<(i32, u32)> {
    let date = match value {
        Value::Date(days) => date32_to_datetime(*days)?,
        Value::Timestamp(micros) => timestamp_us_to_datetime(*micros)?,
        _ => return None,
    };
    let date = date.date().to_string();
    let mut parts = date.split('-');
    // Years of a sign or of more digits do not parse here.
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
