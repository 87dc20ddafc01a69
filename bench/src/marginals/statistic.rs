//! What is measured of a database, and how two sets of databases are compared in it.

use serde::Serialize;

/// A number that every database, table, column, pair of columns or reference has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// Tables of a database.
    Tables,
    /// Rows of a table.
    Rows,
    /// Columns of a table, keys included.
    Columns,
    /// References of a table to others and to itself.
    References,
    /// Distinct values of a column over its values.
    DistinctRatio,
    /// Share of the most frequent value among the values of a column.
    TopShare,
    /// Share of NULLs in a column that has some.
    NullShare,
    /// Mean length in bytes of the values of a text column.
    TextLength,
    /// Absolute rank correlation (Spearman) of two numeric columns of a table.
    Correlation,
    /// The same of a column of the child and a column of the parent, over a reference.
    AcrossCorrelation,
    /// Mean number of children of the parents that have any.
    FanoutMean,
    /// Deviation of that number over its mean.
    FanoutVariation,
    /// Share of the children that belong to the one percent of these parents with most children.
    FanoutTop,
    /// Share of the parents without children.
    Childless,
    /// Rank correlation of the numbers of children that parents have in two references.
    FanoutCorrelation,
}

impl Statistic {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 15] = [
        Self::Tables,
        Self::Rows,
        Self::Columns,
        Self::References,
        Self::DistinctRatio,
        Self::TopShare,
        Self::NullShare,
        Self::TextLength,
        Self::Correlation,
        Self::AcrossCorrelation,
        Self::FanoutMean,
        Self::FanoutVariation,
        Self::FanoutTop,
        Self::Childless,
        Self::FanoutCorrelation,
    ];

    /// The name in tables and plots.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tables => "tables of a database",
            Self::Rows => "rows of a table",
            Self::Columns => "columns of a table",
            Self::References => "references of a table",
            Self::DistinctRatio => "distinct values / values of a column",
            Self::TopShare => "share of the most frequent value",
            Self::NullShare => "share of NULLs where there are some",
            Self::TextLength => "mean length of a text column",
            Self::Correlation => "absolute rank correlation in a table",
            Self::AcrossCorrelation => "absolute rank correlation, child to parent",
            Self::FanoutMean => "children of a parent: mean",
            Self::FanoutVariation => "children of a parent: deviation / mean",
            Self::FanoutTop => "children with the top 1 % of parents",
            Self::Childless => "share of parents without children",
            Self::FanoutCorrelation => "rank correlation of two fanouts",
        }
    }

    /// Whether its values spread over orders of magnitude.
    pub const fn is_logarithmic(self) -> bool {
        matches!(
            self,
            Self::Tables
                | Self::Rows
                | Self::Columns
                | Self::TextLength
                | Self::FanoutMean
                | Self::FanoutVariation
                | Self::DistinctRatio
        )
    }
}

/// How often something occurs among the tables, columns or references of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Share {
    /// Columns that are no keys and hold text,
    Text,
    /// integers,
    Integer,
    /// floating-point numbers,
    Real,
    /// dates and times,
    Date,
    /// booleans.
    Boolean,
    /// Columns with NULLs.
    Nullable,
    /// Tables whose primary key has several columns.
    CompositeKey,
    /// Tables without a primary key.
    NoKey,
    /// Tables whose primary key consists of two or more references (m:n).
    Link,
    /// Tables that refer to nothing.
    Root,
    /// References of several columns.
    CompositeReference,
    /// References of a table to itself.
    SelfReference,
    /// References with NULLs.
    OptionalReference,
    /// References with values that no parent has.
    DanglingReference,
}

impl Share {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 14] = [
        Self::Text,
        Self::Integer,
        Self::Real,
        Self::Date,
        Self::Boolean,
        Self::Nullable,
        Self::CompositeKey,
        Self::NoKey,
        Self::Link,
        Self::Root,
        Self::CompositeReference,
        Self::SelfReference,
        Self::OptionalReference,
        Self::DanglingReference,
    ];

    /// The name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "columns: text",
            Self::Integer => "columns: integer",
            Self::Real => "columns: real",
            Self::Date => "columns: date or time",
            Self::Boolean => "columns: boolean",
            Self::Nullable => "columns: with NULLs",
            Self::CompositeKey => "tables: composite primary key",
            Self::NoKey => "tables: no primary key",
            Self::Link => "tables: m:n link",
            Self::Root => "tables: without references",
            Self::CompositeReference => "references: composite",
            Self::SelfReference => "references: to the table itself",
            Self::OptionalReference => "references: with NULLs",
            Self::DanglingReference => "references: dangling",
        }
    }
}

/// What one database has of every statistic and share.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Measured {
    values: [Vec<f64>; Statistic::ALL.len()],
    /// Hits and cases.
    shares: [(usize, usize); Share::ALL.len()],
}

impl Measured {
    pub(super) fn add(&mut self, statistic: Statistic, value: f64) {
        self.values[statistic as usize].push(value);
    }

    pub(super) fn count(&mut self, share: Share, hit: bool) {
        let (hits, cases) = &mut self.shares[share as usize];
        *hits += usize::from(hit);
        *cases += 1;
    }
}

/// The values of one statistic over several databases, sorted, with weights that add up to one.
///
/// Each database weighs the same, however many tables it has: the question is what the next database looks like.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    points: Vec<(f64, f64)>,
}

impl Distribution {
    /// Gathers `statistic` from `databases`; those that have no value of it do not count.
    pub fn new<'a>(databases: impl IntoIterator<Item = &'a Measured>, statistic: Statistic) -> Self {
        let mut points: Vec<(f64, f64)> = vec![];
        let mut count = 0.0;
        for values in databases.into_iter().map(|measured| &measured.values[statistic as usize]) {
            if !values.is_empty() {
                count += 1.0;
                points.extend(values.iter().map(|&value| (value, 1.0 / values.len() as f64)));
            }
        }
        points.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        points.iter_mut().for_each(|(_, weight)| *weight /= count);
        Self { points }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// The value that a share `u` of the weight does not exceed; NaN where there is none.
    pub fn quantile(&self, u: f64) -> f64 {
        let mut sum = 0.0;
        let reached = |&&(_, weight): &&(f64, f64)| {
            sum += weight;
            sum >= u - 1e-9
        };
        self.points.iter().find(reached).or(self.points.last()).map_or(f64::NAN, |&(value, _)| value)
    }

    /// Largest difference between two distribution functions (Kolmogorov and Smirnov).
    pub fn distance(&self, other: &Self) -> f64 {
        let (mut left, mut right) = (self.points.iter().peekable(), other.points.iter().peekable());
        let (mut below_left, mut below_right, mut largest) = (0.0, 0.0, 0.0f64);
        while let (Some(&&(a, _)), Some(&&(b, _))) = (left.peek(), right.peek()) {
            let value = a.min(b);
            while let Some((_, weight)) = left.next_if(|point| point.0 <= value) {
                below_left += weight;
            }
            while let Some((_, weight)) = right.next_if(|point| point.0 <= value) {
                below_right += weight;
            }
            largest = largest.max(f64::abs(below_left - below_right));
        }
        largest
    }
}

/// Mean over the databases of how often `share` occurs in them.
pub fn mean_share<'a>(databases: impl IntoIterator<Item = &'a Measured>, share: Share) -> f64 {
    let of = |measured: &Measured| {
        let (hits, cases) = measured.shares[share as usize];
        (cases > 0).then(|| hits as f64 / cases as f64)
    };
    let shares: Vec<f64> = databases.into_iter().filter_map(of).collect();
    shares.iter().sum::<f64>() / shares.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(values: &[f64]) -> Measured {
        let mut measured = Measured::default();
        values.iter().for_each(|&value| measured.add(Statistic::Rows, value));
        measured
    }

    #[test]
    fn databases_weigh_the_same() {
        let few = measured(&[1.0]);
        let many = measured(&[10.0; 99]);
        let both = Distribution::new([&few, &many, &Measured::default()], Statistic::Rows);
        assert_eq!((both.len(), both.quantile(0.5), both.quantile(0.51)), (100, 1.0, 10.0));
        let alone = Distribution::new([&few], Statistic::Rows);
        assert!((both.distance(&alone) - 0.5).abs() < 1e-9);
        assert!((alone.distance(&both) - 0.5).abs() < 1e-9);
        assert!(both.distance(&both) < 1e-9);
        let none = Distribution::new([&few], Statistic::Columns);
        assert!(none.is_empty() && none.quantile(0.5).is_nan());
    }

    #[test]
    fn distance_agrees_with_the_definition() {
        let (left, right) = (measured(&[1.0, 2.0, 2.0, 5.0]), measured(&[2.0, 3.0, 4.0]));
        let of = |one: &Measured| Distribution::new([one], Statistic::Rows);
        let below = |values: &[f64], x: f64| values.iter().filter(|&&v| v <= x).count() as f64 / values.len() as f64;
        let gap = |x: i32| (below(&[1.0, 2.0, 2.0, 5.0], x.into()) - below(&[2.0, 3.0, 4.0], x.into())).abs();
        let expected = (0..7).map(gap).fold(0.0, f64::max);
        assert!((of(&left).distance(&of(&right)) - expected).abs() < 1e-9);
    }

    #[test]
    fn shares_are_averaged() {
        let (mut all, mut half) = (Measured::default(), Measured::default());
        all.count(Share::Text, true);
        half.count(Share::Text, true);
        half.count(Share::Text, false);
        assert!((mean_share([&all, &half, &Measured::default()], Share::Text) - 0.75).abs() < 1e-9);
    }
}
