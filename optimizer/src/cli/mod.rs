//! The command `relata`, as functions that the benchmarks share.
//!
//! - [`database`] opens a folder of Parquet or CSV files, [`keys`] reads the keys it declares and [`inference`] finds them
//!   where it declares none.
//! - [`session`] builds the sessions, with and without relata, that are compared everywhere; [`measure`] times one query in
//!   one of them and [`digest`] says whether two results are the same.
//! - One module per command: [`sql`], [`profile`], [`estimate`], [`answer`], [`predict`], [`explain`], [`run`] (with
//!   [`compare`]), [`tune`] and [`demo`].
//!
//! Results go to standard output and everything else to standard error, both through [`terminal::Terminal`].

pub mod advise;
pub mod answer;
pub mod compare;
pub mod database;
pub mod demo;
pub mod digest;
pub mod error;
pub mod estimate;
pub mod explain;
pub mod inference;
pub mod keys;
pub mod measure;
pub mod open;
pub mod output;
pub mod predict;
pub mod profile;
pub mod queries;
pub mod run;
pub mod session;
mod shell;
pub mod sql;
pub mod terminal;
pub mod tune;

pub use database::Database;
pub use error::{CliError, Outcome};
