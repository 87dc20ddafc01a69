//! Databases, labelled queries and the yardstick of relata.

pub mod count;
pub mod database;
pub mod metrics;
pub mod planned;
pub mod queries;
pub mod trace;
