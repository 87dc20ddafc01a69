//! Databases, labelled queries and the yardstick of relata.

pub mod corpus;
pub mod count;
pub mod database;
pub mod machine;
pub mod metrics;
pub mod planned;
pub mod queries;
pub mod score;
pub mod trace;
