//! Databases, labelled queries and the yardstick of relata.

pub mod count;
pub mod database;
pub mod metrics;
pub mod queries;
