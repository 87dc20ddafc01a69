//! Tables and query plans in, relative feature graphs out.
//!
//! The walk of one query through this crate:
//!
//! 1. [`sample`] keeps a seeded uniform row sample of a table, [`key_sample`] rows by the values of join keys, [`sketch`]
//!    summarises each column in the same scan, and all of it is the table's [`profile`], stored on disk and keyed by the
//!    data it describes.
//!    [`synopsis`] adds the rows of other tables that a sample refers to along [`foreign_key`]s.
//! 2. [`relative`] turns a profile into the relative encoding the data expert reads: no names, ids or raw constants pass
//!    that door. [`row_groups`] puts similar rows together, so that what columns have to do with each other gets through;
//!    [`restoration`] holds the tasks that the data expert is pre-trained on.
//! 3. [`join_graph`] reads the inner joins of a logical plan as relations, equi-join keys and filters, whatever the shape
//!    of the plan.
//! 4. [`selectivity`] runs filters on the sample and asks the sketches where the sample is silent; [`analytical`] combines
//!    them into a row estimate and an upper bound of every set of joined relations.
//!    [`answer`] reads means, sums and extremes of values over a join from the same samples.
//! 5. [`logical`] writes all of it into a [`graph::FeatureGraph`], and [`trace`] keeps labelled graphs for training.
//! 6. [`synthesis`] describes the rows of one table by what the others say of them along foreign keys, as a logical plan.
//!
//! Invariants: this crate knows no tensors and no models, it implements no DataFusion trait, and what it computes is the
//! same for the same profile and query whatever the names, the order of joins or the order of predicates.
#![cfg_attr(test, expect(clippy::float_cmp, reason = "counts are exact"))]

pub mod analytical;
pub mod answer;
mod bound;
pub mod error;
pub mod foreign_key;
pub mod graph;
pub mod groups;
pub mod join_graph;
pub mod key_sample;
pub mod logical;
pub mod physical;
pub mod profile;
pub mod relative;
pub mod resources;
pub mod restoration;
pub mod row_groups;
pub mod sample;
pub mod selectivity;
pub mod sketch;
pub mod synopsis;
pub mod synthesis;
pub mod trace;

pub use error::FeaturizeError;

/// Result of this crate.
pub type Result<T, E = FeaturizeError> = std::result::Result<T, E>;
