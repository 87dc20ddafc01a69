//! Per-column summaries, built in the same scan as the sample: common values, equi-depth histogram, distinct count and
//! the degrees of the column as a join key.

mod builder;
mod counter;
mod degrees;
mod merge;
mod order;
mod reading;
mod values;

pub(crate) use builder::{ColumnSketchBuilder, KnownRange};
pub use degrees::{DegreeSequence, DegreeStep};
pub use order::ValueOrder;
pub(crate) use reading::{Reading, integer_key, key_hash, text_key};
pub(crate) use values::Slots;
pub use values::{Domain, Value, scalar_value};

use serde::{Deserialize, Serialize};

use crate::relative::BINS;

/// Number of common values kept per column.
pub const COMMON_VALUES: usize = 512;

/// Number of histogram bounds kept per column.
pub const HISTOGRAM_BOUNDS: usize = 256;

/// A value and the number of its rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommonValue {
    /// The value.
    pub value: Value,
    /// Its rows.
    pub rows: f64,
}

/// Equi-depth histogram over the non-NULL finite values, with the mass on each bound so that `<` and `<=` differ.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Strictly ascending.
    pub bounds: Vec<Value>,
    /// Share of values `<=` each bound; the last is 1.
    pub cumulative: Vec<f64>,
    /// Share of values equal to each bound.
    pub at: Vec<f64>,
}

impl Histogram {
    /// Share of values `<= value`, in [0, 1]; linear between bounds for numbers, half a bucket for strings.
    pub fn share_up_to(&self, value: &Value) -> f64 {
        self.share(value, true)
    }

    /// Share of values `< value`, in [0, 1].
    pub fn share_below(&self, value: &Value) -> f64 {
        self.share(value, false)
    }

    fn share(&self, value: &Value, inclusive: bool) -> f64 {
        if self.bounds.is_empty() {
            return 0.0;
        }
        match self.bounds.binary_search_by(|bound| bound.order(value)) {
            Ok(i) => self.cumulative[i] - if inclusive { 0.0 } else { self.at[i] },
            Err(0) => 0.0,
            Err(i) if i == self.bounds.len() => 1.0,
            Err(i) => {
                let below = self.cumulative[i - 1];
                let above = self.cumulative[i] - self.at[i];
                below + (above - below).max(0.0) * value.fraction_between(&self.bounds[i - 1], &self.bounds[i])
            }
        }
    }
}

/// How often the values of a column repeat, as a join key. NULLs are excluded.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Degrees {
    /// Number of distinct values.
    pub distinct: f64,
    /// Rows of the most frequent value.
    pub max: f64,
    /// Sum over the values of the square of their rows: the size of the self join.
    pub sum_of_squares: f64,
    /// Whether every value was counted, so that these numbers are exact and not estimated.
    pub exact: bool,
    /// A sequence that provably dominates the column's; empty for opaque columns, of whose values nothing is known.
    pub sequence: DegreeSequence,
}

/// What is known of strings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct TextStatistics {
    /// Mean length in bytes.
    pub mean_length: f64,
    /// Length of the longest in bytes.
    pub max_length: f64,
    /// Distinct prefixes of 1, 2 and 4 characters per sampled string, in [0, 1].
    pub prefixes: [f64; 3],
}

/// What is known of a column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnSketch {
    /// How its values are read.
    pub domain: Domain,
    /// Rows, NULLs included.
    pub rows: f64,
    /// NULL rows.
    pub nulls: f64,
    /// Rows whose value is NaN or infinite; they are in no histogram.
    pub non_finite: f64,
    /// Smallest finite value.
    pub min: Option<Value>,
    /// Largest finite value.
    pub max: Option<Value>,
    /// Most frequent values, in ascending order of value.
    pub common: Vec<CommonValue>,
    /// Whether `common` holds every value of the column.
    pub common_is_complete: bool,
    /// Whether the rows of the common values are counts, not estimates.
    pub common_is_exact: bool,
    /// Equi-depth histogram.
    pub histogram: Histogram,
    /// Degrees as a join key.
    pub degrees: Degrees,
    /// The smallest hashes of the values, ascending, of a hash that all columns share: what tells the distinct values of two
    /// columns together (Bar-Yossef et al., "Counting distinct elements in a data stream", RANDOM 2002, algorithm 2).
    pub distinct_hashes: Vec<u64>,
    /// How the values lie along the file.
    pub order: ValueOrder,
    /// Lengths and prefixes, of text.
    pub text: Option<TextStatistics>,
    /// Rows in each bin of the relative encoding ([`crate::relative::bin_of`]), the last for rows without a value. Exact for
    /// numbers that were all counted and for text of few values, scaled up from the sample otherwise.
    pub bins: [f64; BINS],
}

impl ColumnSketch {
    /// Share of NULLs, in [0, 1].
    pub fn null_share(&self) -> f64 {
        if self.rows > 0.0 { self.nulls / self.rows } else { 0.0 }
    }

    /// Number of distinct values, at least 1.
    pub fn distinct(&self) -> f64 {
        self.degrees.distinct.max(1.0)
    }

    /// Whether every non-NULL value occurs once.
    pub fn is_unique(&self) -> bool {
        self.degrees.exact && self.degrees.max <= 1.0
    }

    /// Smallest and largest value of a column of numbers.
    pub fn number_range(&self) -> Option<(f64, f64)> {
        match (&self.min, &self.max) {
            (Some(Value::Number(min)), Some(Value::Number(max))) => Some((*min, *max)),
            _ => None,
        }
    }

    /// Rows of the most frequent value at most; provable.
    pub fn max_degree(&self) -> f64 {
        match self.domain {
            Domain::Opaque => self.rows - self.nulls,
            _ => self.degrees.sequence.max().max(self.non_finite),
        }
    }

    /// A sequence that dominates the degrees of all values; `None` where some values were not counted: of opaque columns, and
    /// NaNs and infinities, which join as well.
    pub fn degree_sequence(&self) -> Option<&DegreeSequence> {
        (self.domain != Domain::Opaque && self.non_finite <= 0.0).then_some(&self.degrees.sequence)
    }

    /// The common value equal to `value`.
    pub fn common_value(&self, value: &Value) -> Option<&CommonValue> {
        self.common.binary_search_by(|c| c.value.order(value)).ok().map(|i| &self.common[i])
    }

    /// Rows and distinct values that are not common.
    pub fn remainder(&self) -> (f64, f64) {
        let rows = self.rows - self.nulls - self.common.iter().map(|c| c.rows).sum::<f64>();
        (rows.max(0.0), (self.degrees.distinct - self.common.len() as f64).max(0.0))
    }

    /// Share of all rows equal to `value`: exact for common values, the mean of the others otherwise.
    pub fn equality(&self, value: &Value) -> f64 {
        if self.rows <= 0.0 {
            return 0.0;
        }
        if let Some(common) = self.common_value(value) {
            return common.rows / self.rows;
        }
        let outside = |bound: &Option<Value>, side| bound.as_ref().is_some_and(|bound| value.order(bound) == side);
        if self.common_is_complete
            || outside(&self.min, std::cmp::Ordering::Less)
            || outside(&self.max, std::cmp::Ordering::Greater)
        {
            return 0.0;
        }
        let (rows, distinct) = self.remainder();
        rows / distinct.max(1.0) / self.rows
    }

    /// Share of all rows whose value is below (or equal to, when `inclusive`) `value`.
    pub fn below(&self, value: &Value, inclusive: bool) -> f64 {
        if self.rows <= 0.0 {
            return 0.0;
        }
        let finite = (self.rows - self.nulls - self.non_finite).max(0.0) / self.rows;
        finite * if inclusive { self.histogram.share_up_to(value) } else { self.histogram.share_below(value) }
    }
}
