//! Databases, labelled queries and the yardstick of relata.
//!
//! - [`database`] holds tables and foreign keys in memory, [`queries`] writes seeded workloads over them, [`planned`] reads
//!   a query as the join graph that relata estimates, and [`count`] counts its sub-joins without running them.
//! - [`trace`] puts these together into labelled feature graphs to train on, [`workload`] into files of queries with answers.
//! - [`corpus`] reads the databases to measure on, [`score`] sets everyone's estimates against their exact answers, in the
//!   [`metrics`] of the corpus, with the [`machine`] and the versions beside the figures.
//! - [`answers`] sets approximate answers against the exact ones, [`runtimes`] predicted times against measured ones,
//!   [`layout`] advised orders of tables against what they do.
//! - [`tasks`] makes features and labels over synthetic databases to train the in-context predictor on, [`predict`] scores it on the
//!   prediction tasks of the corpus beside linear models and, through `bench/peers`, tree ensembles.
//! - [`profiling`] times the building of profiles; [`prior`] writes databases of the relational prior, [`marginals`] sets them
//!   beside those of the corpus.
//! - [`baseline`] is a linear model among the contenders; it and [`mod@trace`] read the [`profiles`] of databases in memory.
//! - [`run`] times queries, those of [`tpch`] as well, under DataFusion's default, relata, and others such as relata with the
//!   [`oracle`]'s cardinalities; [`mod@tune`] measures what tuning on a database gains; [`report`] and [`compare`] read what `estimate` and
//!   `run` wrote, [`ablations`] what `estimate` wrote of models that lack something.
//!
//! Invariant: databases of role `eval` are measured on and never traced to train on.

pub mod ablations;
pub mod answers;
mod arguments;
pub mod baseline;
pub mod calibrate;
pub mod compare;
pub mod corpus;
pub mod count;
pub mod database;
pub mod layout;
pub mod machine;
mod manifest;
pub mod marginals;
pub mod metrics;
pub mod oracle;
pub mod planned;
pub mod predict;
pub mod prior;
pub mod profiles;
pub mod profiling;
pub mod queries;
pub mod reconstruct;
pub mod report;
pub mod run;
pub mod runtimes;
pub mod score;
pub mod tables;
pub mod tasks;
pub mod tpch;
pub mod trace;
pub mod tune;
pub mod workload;
