//! Aggregates of the rows that refer to a row.

use datafusion::arrow::datatypes::DataType;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::expr_fn::{avg, count, max, min, stddev, sum};
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion_expr::{Expr, ExprFunctionExt, cast, lit, when};

use super::paths::{Form, Reading, Source};
use crate::Result;

/// An aggregate of one feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Mean,
    Min,
    Max,
    Sum,
    /// Standard deviation of a sample, N - 1 in the denominator.
    Deviation,
    /// The value of the latest row, the greatest of several.
    Latest,
    /// The most frequent value, the least of several.
    Mode,
    /// The number of different values.
    Distinct,
}

impl Function {
    /// The aggregates that a feature is worth, the most telling first. What is an aggregate already, or was read from another
    /// row, is worth fewer.
    pub(super) fn of(form: Form, source: Source) -> &'static [Self] {
        match (form, source) {
            (Form::Time, _) => &[Self::Max, Self::Min],
            (Form::Number, Source::Own { reading: Reading::Length, .. }) => &[Self::Mean],
            (Form::Number, Source::Own { .. }) => {
                &[Self::Mean, Self::Latest, Self::Max, Self::Min, Self::Sum, Self::Deviation]
            }
            (Form::Number, Source::Count { .. } | Source::Aggregate { function: Self::Sum, .. }) => {
                &[Self::Mean, Self::Sum, Self::Max]
            }
            (Form::Number, _) => &[Self::Mean, Self::Max],
            (Form::Category, Source::Own { .. }) => &[Self::Mode, Self::Latest, Self::Distinct],
            (Form::Category, _) => &[Self::Mode],
        }
    }

    /// Whether it is computed from the counts of values.
    pub(super) fn counts_values(self) -> bool {
        matches!(self, Self::Mode | Self::Distinct)
    }

    /// The form of the aggregate.
    pub(super) fn form(self, of: Form) -> Form {
        if self == Self::Distinct { Form::Number } else { of }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mean => "MEAN",
            Self::Min => "MIN",
            Self::Max => "MAX",
            Self::Sum => "SUM",
            Self::Deviation => "STDDEV",
            Self::Latest => "LATEST",
            Self::Mode => "MODE",
            Self::Distinct => "DISTINCT",
        }
    }

    /// The aggregate of `value`. `time` orders the rows; `times` is how often a value occurs where values were counted.
    pub(super) fn call(self, value: Expr, time: Expr, times: Expr) -> Result<Expr> {
        let first = |value: Expr, order: Vec<_>| first_value_udaf().call(vec![value]).order_by(order);
        Ok(match self {
            Self::Mean => avg(value),
            Self::Min => min(value),
            Self::Max => max(value),
            Self::Sum => sum(value),
            Self::Deviation => stddev(value),
            Self::Latest => first(value.clone(), vec![time.sort(false, false), value.sort(false, false)]).build()?,
            Self::Mode => {
                let order = vec![times.sort(false, false), value.clone().sort(true, false)];
                first(value.clone(), order).filter(value.is_not_null()).build()?
            }
            Self::Distinct => count(value),
        })
    }
}

/// NULL for NaN and the infinities.
pub(super) fn finite(value: Expr) -> Result<Expr> {
    // In the total order that Arrow compares by, NaN is beyond the infinities.
    Ok(when(value.clone().between(lit(f64::MIN), lit(f64::MAX)), value).end()?)
}

/// A count of what refers to a row: 0 without any, NULL where there is no row to refer to.
pub(super) fn counted(count: Expr, referenced: Vec<Expr>) -> Result<Expr> {
    let count = coalesce(vec![cast(count, DataType::Float64), lit(0.0)]);
    match referenced.into_iter().map(Expr::is_not_null).reduce(Expr::and) {
        Some(there) => Ok(when(there, count).end()?),
        None => Ok(count),
    }
}
