//! Training of the in-context predictor, on nothing but synthetic tasks.
//!
//! [`tables`] draws tasks over a single table, [`relations`] cuts them out of those over databases, `gradient` reads a task forwards and backwards, `muon` takes the step, and [`fit`]
//! is the loop around them.

use std::path::Path;

use crate::Result;
use crate::fixture;
use crate::in_context::{Column, InContextPredictor, Labels};
use crate::train::export::write_files;
use crate::weights::{InContextManifest, sha256, to_f16_bytes, verified};

use fit::{InContextFitConfig, InContextFitted};

pub mod fit;
mod gradient;
mod muon;
pub mod relations;
pub mod tables;

/// A task with its answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Features of the examples.
    pub examples: Vec<Column>,
    /// Their labels.
    pub labels: Labels,
    /// Features of the rows to predict.
    pub rows: Vec<Column>,
    /// What is to be predicted of them, of the same kind as `labels`.
    pub answers: Labels,
}

/// Writes `in_context.safetensors` and `in_context.json` to `folder` after reading them back.
///
/// # Errors
///
/// [`crate::ExpertsError::Io`] if a file cannot be written; otherwise what [`InContextPredictor::from_bytes`] refuses.
pub fn write(
    folder: &Path,
    config: &InContextFitConfig,
    fitted: &InContextFitted,
    command: String,
) -> Result<InContextManifest> {
    let shapes = config.network.parameters();
    let weights = to_f16_bytes(&shapes, &fitted.parameters)?;
    let rounded = verified(&weights, &sha256(&weights), &shapes)?;
    let predictor = InContextPredictor::from_parameters(&config.network, rounded)?;
    let tasks = fitted.steps * config.tasks as u64;
    let manifest = InContextManifest {
        golden: fixture::golden_predictions(&predictor)?,
        sha256: sha256(&weights),
        start_sha256: config.start.as_ref().map(|start| start.sha256.clone()),
        config: config.network.clone(),
        seed: config.seed,
        steps: fitted.steps,
        tasks,
        seen: config.start.as_ref().map_or(0, |start| start.seen) + tasks,
        command,
        commit: config.commit.clone(),
        begun: fitted.begun.clone(),
    };
    let json = serde_json::to_vec_pretty(&manifest)?;
    InContextPredictor::from_bytes(&weights, &json)?;
    write_files(folder, [("in_context.safetensors", weights), ("in_context.json", json)])?;
    Ok(manifest)
}
