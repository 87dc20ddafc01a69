//! Training of the experts, with burn: the data expert on tables, then the experts above it on labelled plans.
//!
//! [`pretrain`] is the first stage. The walk of the second: [`data`] reads traces and splits them by database; [`batch`]
//! turns graphs of a few databases into arrays; [`model`] is the forward pass with gradients; [`optimizer`] takes the step; [`evaluate`] measures q-errors on the
//! held-out databases through the inference path; [`calibrate`] fits the intervals, [`cross_fit`] to databases that are trained on as well; [`export`] writes the weight file.
//! [`fit`] is the loop around them, [`checkpoint`] what it resumes from, [`curve`] what it plots.
//!
//! [`answers`] is the third stage: the answer head on top. [`physical`] is the expert of physical plans.
//!
//! The loop knows no backend: it runs on the [`burn::tensor::Device`] it is given.

pub mod answers;
pub mod batch;
pub mod calibrate;
pub mod checkpoint;
pub mod cross_fit;
pub mod curve;
pub mod data;
pub mod evaluate;
pub mod export;
pub mod fit;
pub mod in_context;
pub mod model;
pub mod optimizer;
pub mod physical;
pub mod pretrain;
pub mod tune;

#[cfg(test)]
pub(crate) mod tests;
