//! Conjuncts that no row passes together.
//!
//! What the conjuncts say of each column is collected: whether it can be NULL, between which limits it lies, and which values
//! are left. DataFusion's simplifier finds some contradictions, depending on the order in which the query names the conjuncts.

use std::cmp::Ordering;

use datafusion::scalar::ScalarValue;
use datafusion_expr::{BinaryExpr, Expr, Operator};
use hashbrown::HashMap;

use super::mirrored;

/// What is left of a column.
#[derive(Debug, Default)]
struct Left<'a> {
    null: bool,
    not_null: bool,
    /// The limits, and whether they are values themselves.
    low: Option<(&'a ScalarValue, bool)>,
    high: Option<(&'a ScalarValue, bool)>,
    /// The values it can have, of a column that is compared with some.
    values: Option<Vec<&'a ScalarValue>>,
    not: Vec<&'a ScalarValue>,
}

/// Whether no row can pass all of `filters`, whatever the table; provable.
pub(super) fn contradictory(filters: &[Expr]) -> bool {
    let mut columns: HashMap<&str, Left<'_>> = HashMap::new();
    for filter in filters {
        match filter {
            Expr::Literal(ScalarValue::Boolean(None | Some(false)), _) => return true,
            // The simplifier unfolds short lists.
            Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }) => {
                if let Some((column, values)) = alternatives(filter) {
                    columns.entry(column).or_default().one_of(values, false);
                }
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (left.as_ref(), right.as_ref()) {
                (Expr::Column(column), Expr::Literal(value, _)) => {
                    columns.entry(&column.name).or_default().compare(*op, value);
                }
                (Expr::Literal(value, _), Expr::Column(column)) => {
                    columns.entry(&column.name).or_default().compare(mirrored(*op), value);
                }
                _ => {}
            },
            Expr::IsNull(inner) | Expr::IsNotNull(inner) => {
                if let Expr::Column(column) = inner.as_ref() {
                    let left = columns.entry(&column.name).or_default();
                    let flag = if matches!(filter, Expr::IsNull(_)) { &mut left.null } else { &mut left.not_null };
                    *flag = true;
                }
            }
            Expr::Between(between) if !between.negated => {
                if let (Expr::Column(column), Expr::Literal(low, _), Expr::Literal(high, _)) =
                    (between.expr.as_ref(), between.low.as_ref(), between.high.as_ref())
                {
                    let left = columns.entry(&column.name).or_default();
                    left.compare(Operator::GtEq, low);
                    left.compare(Operator::LtEq, high);
                }
            }
            Expr::InList(list) => {
                let literal = |expr: &'_ Expr| matches!(expr, Expr::Literal(value, _) if !value.is_null());
                if let Expr::Column(column) = list.expr.as_ref()
                    && list.list.iter().all(literal)
                {
                    let values = list.list.iter().filter_map(Expr::as_literal);
                    columns.entry(&column.name).or_default().one_of(values.collect(), list.negated);
                }
            }
            _ => {}
        }
    }
    columns.values().any(Left::is_empty)
}

/// A column and the values that a chain of ORs leaves it.
fn alternatives(expr: &Expr) -> Option<(&str, Vec<&ScalarValue>)> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return None };
    match (op, left.as_ref(), right.as_ref()) {
        (Operator::Eq, Expr::Column(column), Expr::Literal(value, _))
        | (Operator::Eq, Expr::Literal(value, _), Expr::Column(column)) => Some((&column.name, vec![value])),
        (Operator::Or, left, right) => {
            let ((column, mut values), (other, others)) = (alternatives(left)?, alternatives(right)?);
            values.extend(others);
            (column == other).then_some((column, values))
        }
        _ => None,
    }
}

impl<'a> Left<'a> {
    fn compare(&mut self, op: Operator, value: &'a ScalarValue) {
        match op {
            Operator::Eq => self.one_of(vec![value], false),
            Operator::NotEq => self.one_of(vec![value], true),
            Operator::Lt | Operator::LtEq => {
                let (own, inclusive) = (&mut self.high, op == Operator::LtEq);
                tighten(own, value, inclusive, Ordering::Less);
            }
            Operator::Gt | Operator::GtEq => {
                let (own, inclusive) = (&mut self.low, op == Operator::GtEq);
                tighten(own, value, inclusive, Ordering::Greater);
            }
            _ => return,
        }
        self.not_null = true;
    }

    fn one_of(&mut self, values: Vec<&'a ScalarValue>, negated: bool) {
        if negated {
            self.not.extend(values);
        } else {
            self.values = Some(match self.values.take() {
                Some(before) => {
                    before.into_iter().filter(|one| values.iter().any(|other| may_equal(one, other))).collect()
                }
                None => values,
            });
        }
        self.not_null = true;
    }

    fn is_empty(&self) -> bool {
        let below = |value: &ScalarValue, (low, inclusive): (&ScalarValue, bool)| match value.partial_cmp(low) {
            Some(Ordering::Less) => true,
            Some(Ordering::Equal) => !inclusive,
            _ => false,
        };
        let above = |value: &ScalarValue, (high, inclusive): (&ScalarValue, bool)| match value.partial_cmp(high) {
            Some(Ordering::Greater) => true,
            Some(Ordering::Equal) => !inclusive,
            _ => false,
        };
        let impossible = |value: &&ScalarValue| {
            value.is_null()
                || self.low.is_some_and(|low| below(value, low))
                || self.high.is_some_and(|high| above(value, high))
                || self.not.contains(value)
        };
        let crossed =
            self.low.zip(self.high).is_some_and(|(low, high)| above(low.0, high) || (low.0 == high.0 && !low.1));
        (self.null && self.not_null)
            || crossed
            || self.values.as_ref().is_some_and(|values| values.iter().all(impossible))
    }
}

/// Whether two literals may be the same value; nothing is said of those of different types.
fn may_equal(one: &ScalarValue, other: &ScalarValue) -> bool {
    one == other || one.data_type() != other.data_type()
}

/// Keeps the limit that leaves less: the smaller one on the side `Less`, the larger one on the side `Greater`.
fn tighten<'a>(own: &mut Option<(&'a ScalarValue, bool)>, value: &'a ScalarValue, inclusive: bool, side: Ordering) {
    let Some((before, was_inclusive)) = own else {
        *own = Some((value, inclusive));
        return;
    };
    match value.partial_cmp(before) {
        Some(Ordering::Equal) => *was_inclusive &= inclusive,
        Some(order) if order == side => *own = Some((value, inclusive)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use datafusion_expr::{col, in_list, lit};

    use super::*;

    #[test]
    fn contradictions_are_found_in_any_order() {
        let x = || col("x");
        let contradictions = [
            vec![x().gt(lit(5)), x().lt(lit(3))],
            vec![x().gt(lit(5)), x().lt_eq(lit(5))],
            vec![x().eq(lit(1)), x().eq(lit(2))],
            vec![x().is_null(), x().eq(lit(1))],
            vec![x().is_null(), x().is_not_null()],
            vec![x().is_null(), x().not_eq(lit(1))],
            vec![x().between(lit(7), lit(3))],
            vec![x().between(lit(1), lit(3)), lit(4).lt(x())],
            vec![in_list(x(), vec![], false)],
            vec![in_list(x(), vec![lit(1), lit(2)], false), in_list(x(), vec![lit(3), lit(4)], false)],
            vec![in_list(x(), vec![lit(1), lit(2)], false), x().not_eq(lit(2)), x().gt(lit(1))],
            vec![x().eq(lit(1)), in_list(x(), vec![lit(1)], true)],
            vec![x().eq(lit("a")), x().gt(lit("b"))],
            vec![x().eq(lit(ScalarValue::Int32(None)))],
            vec![lit(false)],
            vec![x().eq(lit(1)).or(lit(2).eq(x())), x().eq(lit(3)).or(x().eq(lit(4))).or(x().eq(lit(5)))],
        ];
        for mut filters in contradictions {
            assert!(contradictory(&filters), "{filters:?}");
            filters.reverse();
            filters.push(col("y").gt(lit(1)));
            assert!(contradictory(&filters), "{filters:?}");
        }
    }

    #[test]
    fn what_can_be_true_is_none() {
        let x = || col("x");
        let possible = [
            vec![],
            vec![x().gt_eq(lit(5)), x().lt_eq(lit(5))],
            vec![x().gt(lit(5)), col("y").lt(lit(3))],
            vec![x().eq(lit(1)), x().gt(lit(0)), x().is_not_null()],
            vec![in_list(x(), vec![lit(1), lit(2)], false), in_list(x(), vec![lit(2), lit(3)], false)],
            vec![in_list(x(), vec![], true)],
            vec![x().eq(lit(1)).or(x().eq(lit(2))), x().eq(lit(2))],
            vec![x().eq(lit(1)).or(col("y").eq(lit(2))), x().eq(lit(2))],
            vec![x().eq(lit(1)).or(x().gt(lit(2))), x().eq(lit(4))],
            // Of types that have no order among each other nothing is said.
            vec![x().gt(lit("a")), x().lt(lit(3))],
            vec![x().eq(lit(1i64)), x().eq(lit(1i32))],
            vec![x().eq(col("y")), x().gt(lit(1))],
        ];
        for filters in possible {
            assert!(!contradictory(&filters), "{filters:?}");
        }
    }
}
