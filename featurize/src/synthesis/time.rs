//! When rows came to be, and how times become numbers.

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::functions::datetime::expr_fn::date_part;
use datafusion_expr::{Expr, cast, lit, try_cast};

use super::Relations;

/// References that are followed to find the time of a row without one.
pub(super) const MOST_HOPS: usize = 3;

const MICROSECONDS_PER_DAY: f64 = 86_400e6;

/// Whether the rows of a relation have an effective time: their own, or that of rows they refer to.
pub(super) fn is_timed(relations: &Relations, table: usize) -> bool {
    is_timed_within(relations, table, MOST_HOPS, &[])
}

/// The same within some hops, with the relations on the way that are not to be entered again.
pub(super) fn is_timed_within(relations: &Relations, table: usize, hops: usize, on_the_way: &[usize]) -> bool {
    relations.tables[table].time.is_some() || !timed_references(relations, table, hops, on_the_way).is_empty()
}

/// The references of a relation without a time that lead to one.
pub(super) fn timed_references(relations: &Relations, table: usize, hops: usize, on_the_way: &[usize]) -> Vec<usize> {
    if hops == 0 {
        return vec![];
    }
    let way = [on_the_way, &[table]].concat();
    let leads = |&index: &usize| {
        let reference = &relations.references[index];
        reference.table == table
            && !way.contains(&reference.references)
            && is_timed_within(relations, reference.references, hops - 1, &way)
    };
    (0..relations.references.len()).filter(leads).collect()
}

/// A date or timestamp in microseconds since 1970-01-01. Finer ones are cut off; what does not fit is NULL.
pub(super) fn microseconds(time: Expr) -> Expr {
    try_cast(try_cast(time, timestamp()), DataType::Int64)
}

/// Microseconds as days before the cutoff, or since 1970-01-01 without one.
pub(super) fn days(time: Expr, at: Option<Expr>) -> Expr {
    let time = cast(time, DataType::Float64);
    let time = match at {
        Some(at) => cast(at, DataType::Float64) - time,
        None => time,
    };
    time / lit(MICROSECONDS_PER_DAY)
}

/// What the calendar says of a cutoff in microseconds: names and numbers.
pub(super) fn calendar(at: &Expr) -> Vec<(&'static str, Expr)> {
    let time = try_cast(at.clone(), timestamp());
    let part = |name: &str| cast(date_part(lit(name), time.clone()), DataType::Float64);
    vec![
        ("MONTH", part("month")),
        ("DAY_OF_WEEK", part("dow")),
        ("HOUR", part("hour")),
        ("YEAR_FRACTION", (part("doy") - lit(1.0)) / lit(366.0)),
        ("DAYS", days(at.clone(), None)),
    ]
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}
