//! A conjunct as the sketches see it.

use std::cmp::Ordering;

use datafusion_expr::{BinaryExpr, Expr, Operator};

use super::{mirrored, relative_literal};
use crate::join_graph::{column_of, keeps_values_in_order};
use crate::profile::TableProfile;
use crate::sketch::{Value, scalar_value};

/// The form of a conjunct, a feature of predicate nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PredicateKind {
    /// `=`
    Equal,
    /// `<>`
    NotEqual,
    /// `<` or `<=`
    Less,
    /// `>` or `>=`
    Greater,
    /// BETWEEN
    Between,
    /// IN (literals)
    InList,
    /// LIKE and its relatives
    Like,
    /// IS NULL
    IsNull,
    /// IS NOT NULL
    IsNotNull,
    /// OR of conditions
    Or,
    /// Anything else
    Other,
}

impl PredicateKind {
    /// Number of kinds.
    pub const COUNT: usize = 11;
}

/// One end of a range on a column.
#[derive(Debug, Clone)]
pub(super) struct Limit {
    pub(super) value: Value,
    pub(super) inclusive: bool,
}

/// What the sketches know of a conjunct.
#[derive(Debug, Clone)]
pub(super) struct Sketched {
    pub(super) kind: PredicateKind,
    pub(super) columns: Vec<usize>,
    pub(super) literals: Vec<Value>,
    pub(super) selectivity: Option<f64>,
    /// Rows that can pass at most, where that is known.
    pub(super) bound: Option<f64>,
    /// Where it bounds one column: lower and upper end, and the share of rows between them by the histogram.
    pub(super) range: Option<(Option<Limit>, Option<Limit>)>,
}

impl Sketched {
    pub(super) fn of(expr: &Expr, profile: &TableProfile) -> Self {
        let mut columns: Vec<usize> =
            expr.column_refs().iter().filter_map(|c| profile.schema().index_of(&c.name).ok()).collect();
        columns.sort_unstable();
        columns.dedup();
        let mut out = Self {
            kind: PredicateKind::Other,
            columns,
            literals: Vec::new(),
            selectivity: None,
            bound: None,
            range: None,
        };
        out.read(expr, profile);
        out.selectivity = out.selectivity.map(|s| s.clamp(0.0, 1.0));
        out
    }

    /// Whether it holds for its literals and no other value.
    pub(super) fn is_list(&self) -> bool {
        self.kind == PredicateKind::Equal || (self.kind == PredicateKind::InList && self.bound.is_some())
    }

    pub(super) fn relative_literals(&self, profile: &TableProfile) -> Option<(f32, f32)> {
        let [column] = self.columns[..] else { return None };
        let relative = self.literals.iter().map(|value| relative_literal(profile, column, value));
        relative.fold(None, |range, v| Some(range.map_or((v, v), |(low, high): (f32, f32)| (low.min(v), high.max(v)))))
    }

    fn read(&mut self, expr: &Expr, profile: &TableProfile) {
        let null_share = |column: usize| profile.columns[column].null_share();
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
                Operator::Or => {
                    self.kind = PredicateKind::Or;
                    self.disjunction(&[left, right], profile);
                }
                Operator::And => {
                    let parts = [Self::of(left, profile), Self::of(right, profile)];
                    self.selectivity = parts[0].selectivity.zip(parts[1].selectivity).map(|(l, r)| l * r);
                    self.bound = match (parts[0].bound, parts[1].bound) {
                        (Some(l), Some(r)) => Some(l.min(r)),
                        (l, r) => l.or(r),
                    };
                    self.literals = parts.into_iter().flat_map(|p| p.literals).collect();
                }
                _ => {
                    if let Some((column, value)) = comparison(left, right, profile) {
                        self.compare(column, *op, value, profile);
                    } else if let Some((column, value)) = comparison(right, left, profile) {
                        self.compare(column, mirrored(*op), value, profile);
                    }
                }
            },
            Expr::Between(between) => {
                self.kind = PredicateKind::Between;
                let low = comparison(&between.expr, &between.low, profile);
                let high = comparison(&between.expr, &between.high, profile);
                if let (Some((column, low)), Some((_, high))) = (low, high) {
                    let sketch = &profile.columns[column];
                    let inside = (sketch.below(&high, true) - sketch.below(&low, false)).max(0.0);
                    self.selectivity = Some(if between.negated { 1.0 - sketch.null_share() - inside } else { inside });
                    self.literals = vec![low.clone(), high.clone()];
                    if !between.negated {
                        let end = |value| Some(Limit { value, inclusive: true });
                        self.range = Some((end(low), end(high)));
                    }
                }
            }
            Expr::InList(list) => {
                self.kind = PredicateKind::InList;
                let members: Option<Vec<(usize, Value)>> =
                    list.list.iter().map(|item| comparison(&list.expr, item, profile)).collect();
                let Some(mut members) = members else { return };
                members.sort_by(|a, b| a.1.order(&b.1));
                members.dedup();
                let Some((column, _)) = members.first().cloned() else { return };
                let share: f64 = members.iter().map(|(_, value)| profile.columns[column].equality(value)).sum();
                self.selectivity = Some(if list.negated { 1.0 - null_share(column) - share } else { share });
                if !list.negated {
                    self.bound = members.iter().map(|(c, value)| equality_bound(profile, *c, value)).sum();
                }
                self.literals = members.into_iter().map(|m| m.1).collect();
            }
            Expr::Like(_) | Expr::SimilarTo(_) => self.kind = PredicateKind::Like,
            Expr::IsNull(inner) => {
                self.kind = PredicateKind::IsNull;
                if let Some(column) = table_column(inner, profile) {
                    self.selectivity = Some(null_share(column));
                    self.bound = Some(profile.columns[column].nulls);
                }
            }
            Expr::IsNotNull(inner) => {
                self.kind = PredicateKind::IsNotNull;
                if let Some(column) = table_column(inner, profile) {
                    self.selectivity = Some(1.0 - null_share(column));
                    self.bound = Some(profile.rows - profile.columns[column].nulls);
                }
            }
            Expr::Not(inner) => {
                let inner = Self::of(inner, profile);
                self.literals = inner.literals;
                if let [column] = self.columns[..] {
                    self.selectivity = inner.selectivity.map(|s| 1.0 - null_share(column) - s);
                }
            }
            Expr::Column(_) => {
                if let Some(column) = table_column(expr, profile) {
                    self.compare(column, Operator::Eq, Value::Number(1.0), profile);
                }
            }
            _ => {}
        }
    }

    fn disjunction(&mut self, sides: &[&Expr], profile: &TableProfile) {
        let mut none = Some(1.0);
        let mut bound = Some(0.0);
        let mut equalities = true;
        let mut sum = Some(0.0);
        for side in sides {
            let side = Self::of(side, profile);
            none = none.zip(side.selectivity).map(|(n, s)| n * (1.0 - s));
            sum = sum.zip(side.selectivity).map(|(n, s)| n + s);
            bound = bound.zip(side.bound).map(|(l, r): (f64, f64)| l + r);
            equalities &= matches!(side.kind, PredicateKind::Equal | PredicateKind::InList);
            self.literals.extend(side.literals);
        }
        // Equalities on one column exclude each other.
        let exclusive = equalities && self.columns.len() == 1;
        self.selectivity = if exclusive { sum } else { none.map(|n| 1.0 - n) };
        if exclusive {
            self.kind = PredicateKind::InList;
        }
        self.bound = bound;
    }

    fn compare(&mut self, column: usize, op: Operator, value: Value, profile: &TableProfile) {
        let sketch = &profile.columns[column];
        let end = |inclusive| Some(Limit { value: value.clone(), inclusive });
        match op {
            Operator::Eq => {
                self.kind = PredicateKind::Equal;
                self.selectivity = Some(sketch.equality(&value));
                self.bound = equality_bound(profile, column, &value);
            }
            Operator::NotEq => {
                self.kind = PredicateKind::NotEqual;
                self.selectivity = Some(1.0 - sketch.null_share() - sketch.equality(&value));
            }
            Operator::Lt | Operator::LtEq => {
                self.kind = PredicateKind::Less;
                self.selectivity = Some(sketch.below(&value, op == Operator::LtEq));
                self.range = Some((None, end(op == Operator::LtEq)));
            }
            Operator::Gt | Operator::GtEq => {
                self.kind = PredicateKind::Greater;
                let all = 1.0 - sketch.null_share();
                self.selectivity = Some(all - sketch.below(&value, op == Operator::Gt));
                self.range = Some((end(op == Operator::GtEq), None));
            }
            _ => return,
        }
        self.literals = vec![value];
    }
}

/// Rows equal to `value` at most: its count where that is exact, the smallest common count otherwise.
fn equality_bound(profile: &TableProfile, column: usize, value: &Value) -> Option<f64> {
    let sketch = &profile.columns[column];
    match sketch.common_value(value) {
        _ if !sketch.common_is_exact => Some(sketch.max_degree()),
        Some(common) => Some(common.rows),
        None if sketch.common_is_complete => Some(0.0),
        // Common values of text are found through the sample, so that a frequent one may be missing.
        None => Some(sketch.max_degree().min(sketch.remainder().0)),
    }
}

/// The column of the table that an expression is, under casts that change none of its values.
fn table_column(expr: &Expr, profile: &TableProfile) -> Option<usize> {
    let schema = profile.schema();
    let column = schema.index_of(&column_of(expr)?.name).ok()?;
    keeps_values_in_order(expr, schema.field(column).data_type()).then_some(column)
}

/// `column` and `literal` as a column of the table and a value of its type.
fn comparison(column: &Expr, literal: &Expr, profile: &TableProfile) -> Option<(usize, Value)> {
    let index = table_column(column, profile)?;
    let Expr::Literal(scalar, _) = literal else { return None };
    let schema = profile.schema();
    let value = scalar_value(scalar, schema.field(index).data_type())?;
    // A cast that rounds the literal would change the comparison: 1.5 is no value of an integer column.
    let kept = match (&value, scalar.cast_to(&datafusion::arrow::datatypes::DataType::Float64)) {
        (Value::Number(v), Ok(datafusion::scalar::ScalarValue::Float64(Some(original))))
            if scalar.data_type().is_numeric() =>
        {
            (v - original).abs() <= 1e-9 * original.abs().max(1.0)
        }
        _ => true,
    };
    Some((index, if kept { value } else { unrounded(scalar)? }))
}

fn unrounded(scalar: &datafusion::scalar::ScalarValue) -> Option<Value> {
    scalar_value(scalar, &datafusion::arrow::datatypes::DataType::Float64)
}

/// The tighter of two lower (`Ordering::Greater`) or upper (`Ordering::Less`) limits.
pub(super) fn tighter(a: Option<Limit>, b: Option<Limit>, side: Ordering) -> Option<Limit> {
    match (a, b) {
        (Some(a), Some(b)) => Some(match a.value.order(&b.value) {
            Ordering::Equal => Limit { inclusive: a.inclusive && b.inclusive, value: a.value },
            order if order == side => a,
            _ => b,
        }),
        (a, b) => a.or(b),
    }
}
