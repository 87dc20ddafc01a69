//! Weight files: safetensors with f32 or f16 tensors, next to a JSON manifest that says where they come from.

use std::collections::BTreeMap;

use half::f16;
use relata_featurize::graph::LAYOUT_VERSION;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Result;
use crate::answers::AnswerConfig;
use crate::config::{DataConfig, ExpertConfig, ParameterShape};
use crate::error::{ExpertsError, check_finite, check_length};
use crate::heads::ConformalOffset;
use crate::in_context::InContextConfig;
use crate::physical::PhysicalConfig;

/// The weights that ship with this crate.
pub const PRETRAINED_WEIGHTS: &[u8] = include_bytes!("../weights/relata.safetensors");

/// Their manifest.
pub const PRETRAINED_MANIFEST: &[u8] = include_bytes!("../weights/manifest.json");

/// The weights of the data expert that ship with this crate.
pub const DATA_WEIGHTS: &[u8] = include_bytes!("../weights/data.safetensors");

/// Their manifest.
pub const DATA_MANIFEST: &[u8] = include_bytes!("../weights/data.json");

/// The weights of the answer head that ship with this crate.
pub const ANSWER_WEIGHTS: &[u8] = include_bytes!("../weights/answers.safetensors");

/// Their manifest.
pub const ANSWER_MANIFEST: &[u8] = include_bytes!("../weights/answers.json");

/// The weights of the physical-plan expert that ship with this crate.
pub const PHYSICAL_WEIGHTS: &[u8] = include_bytes!("../weights/physical.safetensors");

/// Their manifest.
pub const PHYSICAL_MANIFEST: &[u8] = include_bytes!("../weights/physical.json");

/// The weights of the in-context predictor that ship with this crate.
pub const IN_CONTEXT_WEIGHTS: &[u8] = include_bytes!("../weights/in_context.safetensors");

/// Their manifest.
pub const IN_CONTEXT_MANIFEST: &[u8] = include_bytes!("../weights/in_context.json");

/// Where the weights of the data expert come from, and what they need to be read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataManifest {
    /// SHA-256 of the weight file, hexadecimal.
    pub sha256: String,
    /// [`LAYOUT_VERSION`] of the tables it was trained on.
    pub layout_version: u32,
    /// The sizes.
    pub config: DataConfig,
    /// Seed of the training run.
    pub seed: u64,
    /// Steps of the training run that made these weights; 0 for untrained ones.
    pub steps: u64,
    /// The command that made it, or made the last part of it.
    pub command: String,
    /// Commit of the source, if it was known.
    pub commit: Option<String>,
    /// Commit of the source with which the run began, if it was known.
    #[serde(default)]
    pub begun: Option<String>,
    /// Databases that were trained on.
    pub databases: Vec<String>,
    /// Databases that were held out to choose the step.
    pub held_out: Vec<String>,
    /// Number of tables trained on.
    pub tables: usize,
    /// Errors on the held-out databases.
    pub restored: RestorationErrors,
}

/// How well the data expert restores tables of held-out databases.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct RestorationErrors {
    /// Mean `|ln(1 + restored) - ln(1 + rows)|` of buckets of histograms over two to five columns,
    pub buckets: f64,
    /// and the same without training: pulled mixtures without a correction.
    pub buckets_untrained: f64,
    /// Share of masked cells that were restored.
    pub cells: f64,
}

/// Where the weights of the answer head come from, and what they need to be read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnswerManifest {
    /// SHA-256 of the weight file, hexadecimal.
    pub sha256: String,
    /// SHA-256 of the weights of the experts it was trained above.
    pub experts_sha256: String,
    /// The sizes.
    pub config: AnswerConfig,
    /// Seed of the training run.
    pub seed: u64,
    /// Steps of the training run that made these weights; 0 for untrained ones.
    pub steps: u64,
    /// The command that made it.
    pub command: String,
    /// Commit of the source, if it was known.
    pub commit: Option<String>,
    /// Databases that were trained on.
    pub databases: Vec<String>,
    /// Databases that were held out to choose the step and to calibrate.
    pub held_out: Vec<String>,
    /// Number of aggregates trained on.
    pub aggregates: usize,
    /// Calibration of the intervals, per [`relata_featurize::answer::AnswerForm`].
    pub conformal: Vec<ConformalOffset>,
    /// Mean size of the residual on the held-out databases, per form: of the sample's answer and of the head's.
    pub errors: Vec<[f32; 2]>,
    /// Share of the exact answers within the intervals on databases that neither trained nor calibrated them.
    pub left_out_coverage: Option<f64>,
}

/// Where the weights of the physical-plan expert come from, and what they need to be read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhysicalManifest {
    /// SHA-256 of the weight file, hexadecimal.
    pub sha256: String,
    /// [`LAYOUT_VERSION`] of the traces it was trained on.
    pub layout_version: u32,
    /// The sizes, and the cost model below.
    pub config: PhysicalConfig,
    /// Seed of the training run.
    pub seed: u64,
    /// Steps of the training run that made these weights; 0 for untrained ones.
    pub steps: u64,
    /// The command that made it.
    pub command: String,
    /// Commit of the source, if it was known.
    pub commit: Option<String>,
    /// Databases that were trained on.
    pub databases: Vec<String>,
    /// Databases that were held out to choose the step and to calibrate.
    pub held_out: Vec<String>,
    /// Executed plans trained on.
    pub executions: usize,
    /// Calibration of the intervals of times and of memory.
    pub conformal: Vec<ConformalOffset>,
    /// Errors on the held-out databases.
    pub errors: Vec<RuntimeErrors>,
}

/// Where the weights of the in-context predictor come from, and what they need to be read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InContextManifest {
    /// SHA-256 of the weight file, hexadecimal.
    pub sha256: String,
    /// SHA-256 of the weights that the run started from; random ones without.
    #[serde(default)]
    pub start_sha256: Option<String>,
    /// The sizes.
    pub config: InContextConfig,
    /// Seed of the training run.
    pub seed: u64,
    /// Steps of the training run.
    pub steps: u64,
    /// Synthetic tasks of these steps.
    pub tasks: u64,
    /// These and the tasks that the weights were trained on that the run started from.
    pub seen: u64,
    /// The command that made it, or made the last part of it.
    pub command: String,
    /// Commit of the source, if it was known.
    pub commit: Option<String>,
    /// Commit of the source with which the run began, if it was known.
    #[serde(default)]
    pub begun: Option<String>,
    /// What it says of a fixed table: the golden forward pass.
    #[serde(default)]
    pub golden: Vec<f32>,
}

/// q-errors of runtimes on held-out databases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuntimeErrors {
    /// Which rows the plans have: estimated or actual.
    pub rows: String,
    /// Executions.
    pub executions: usize,
    /// 50%, 90%, 95% and 99% of the q-error of the cost model.
    pub cost: [f64; 4],
    /// The same of the expert's median.
    pub expert: [f64; 4],
    /// The same of its memory.
    pub memory: [f64; 4],
    /// Share of the times within the calibrated interval.
    pub coverage: f64,
}

/// Where a weight file comes from, and what it needs to be read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// SHA-256 of the weight file, hexadecimal.
    pub sha256: String,
    /// [`LAYOUT_VERSION`] of the traces it was trained on.
    pub layout_version: u32,
    /// SHA-256 of the weights of the data expert it was trained above.
    pub data_sha256: String,
    /// The sizes.
    pub config: ExpertConfig,
    /// Seed of the training run.
    pub seed: u64,
    /// Steps of the training run that made these weights; 0 for untrained ones.
    pub steps: u64,
    /// The command that made it, or made the last part of it.
    pub command: String,
    /// Commit of the source, if it was known.
    pub commit: Option<String>,
    /// Commit of the source with which the run began, if it was known.
    #[serde(default)]
    pub begun: Option<String>,
    /// What it was trained on.
    pub corpus: Corpus,
    /// Calibration of the interval, per [`crate::heads::calibration_bucket`].
    pub conformal: Vec<ConformalOffset>,
    /// Errors on the held-out databases.
    pub held_out: Vec<HeldOutErrors>,
    /// Coverage of the intervals on databases that neither trained nor calibrated them, where that could be measured.
    pub left_out_coverage: Option<f64>,
}

/// The traces of a training run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Corpus {
    /// Databases that were trained on.
    pub databases: Vec<String>,
    /// Databases that were held out for early stopping.
    pub held_out: Vec<String>,
    /// Databases that calibrated the intervals, by weights that were trained without them.
    #[serde(default)]
    pub calibration: Vec<String>,
    /// Number of graphs trained on.
    pub graphs: usize,
    /// Number of graphs held out.
    pub held_out_graphs: usize,
}

/// q-errors of the analytical estimate and of the expert on held-out databases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldOutErrors {
    /// Number of joins, or "all".
    pub joins: String,
    /// Number of nodes.
    pub nodes: usize,
    /// 50%, 90%, 95% and 99% of the q-error of the analytical estimate.
    pub base: [f64; 4],
    /// The same of the expert's median.
    pub expert: [f64; 4],
    /// Share of labels within the expert's calibrated interval.
    pub coverage: f64,
}

/// Reads and verifies a weight file: the manifest and the flat parameter vector.
///
/// # Errors
///
/// See [`crate::ExpertStack::from_bytes`].
pub fn load(weights: &[u8], manifest: &[u8]) -> Result<(Manifest, Vec<f32>)> {
    let manifest: Manifest = serde_json::from_slice(manifest)?;
    if manifest.layout_version != LAYOUT_VERSION {
        return Err(ExpertsError::Layout { expected: LAYOUT_VERSION, found: manifest.layout_version });
    }
    manifest.config.validate()?;
    let parameters = verified(weights, &manifest.sha256, &manifest.config.parameters())?;
    Ok((manifest, parameters))
}

/// Reads and verifies a weight file of the data expert: the manifest and the flat parameter vector.
///
/// # Errors
///
/// See [`crate::data::DataExpert::from_bytes`].
pub fn load_data(weights: &[u8], manifest: &[u8]) -> Result<(DataManifest, Vec<f32>)> {
    let manifest: DataManifest = serde_json::from_slice(manifest)?;
    if manifest.layout_version != LAYOUT_VERSION {
        return Err(ExpertsError::Layout { expected: LAYOUT_VERSION, found: manifest.layout_version });
    }
    manifest.config.validate()?;
    let parameters = verified(weights, &manifest.sha256, &manifest.config.parameters())?;
    Ok((manifest, parameters))
}

/// Reads and verifies a weight file of the answer head: the manifest and the flat parameter vector. `experts` is the manifest
/// of the experts below it.
///
/// # Errors
///
/// See [`crate::AnswerHead::from_bytes`].
pub fn load_answers(weights: &[u8], manifest: &[u8], experts: &[u8]) -> Result<(AnswerManifest, Vec<f32>)> {
    let manifest: AnswerManifest = serde_json::from_slice(manifest)?;
    let experts: Manifest = serde_json::from_slice(experts)?;
    if experts.sha256 != manifest.experts_sha256 {
        return Err(ExpertsError::Checksum { expected: manifest.experts_sha256, found: experts.sha256 });
    }
    manifest.config.validate()?;
    let parameters = verified(weights, &manifest.sha256, &manifest.config.parameters())?;
    Ok((manifest, parameters))
}

/// Reads and verifies a weight file of the physical-plan expert: the manifest and the flat parameter vector.
///
/// # Errors
///
/// See [`crate::PhysicalExpert::from_bytes`].
pub fn load_physical(weights: &[u8], manifest: &[u8]) -> Result<(PhysicalManifest, Vec<f32>)> {
    let manifest: PhysicalManifest = serde_json::from_slice(manifest)?;
    if manifest.layout_version != LAYOUT_VERSION {
        return Err(ExpertsError::Layout { expected: LAYOUT_VERSION, found: manifest.layout_version });
    }
    manifest.config.validate()?;
    let parameters = verified(weights, &manifest.sha256, &manifest.config.parameters())?;
    Ok((manifest, parameters))
}

/// Reads and verifies a weight file of the in-context predictor: the manifest and the flat parameter vector.
///
/// # Errors
///
/// See [`crate::in_context::InContextPredictor::from_bytes`].
pub fn load_in_context(weights: &[u8], manifest: &[u8]) -> Result<(InContextManifest, Vec<f32>)> {
    let manifest: InContextManifest = serde_json::from_slice(manifest)?;
    manifest.config.validate()?;
    let parameters = verified(weights, &manifest.sha256, &manifest.config.parameters())?;
    Ok((manifest, parameters))
}

/// The parameters of a weight file with this checksum.
pub(crate) fn verified(weights: &[u8], expected: &str, shapes: &[ParameterShape]) -> Result<Vec<f32>> {
    let tensors = SafeTensors::deserialize(weights)?;
    let found = sha256(weights);
    if found != expected {
        return Err(ExpertsError::Checksum { expected: expected.to_owned(), found });
    }
    from_tensors(shapes, &tensors)
}

/// The flat parameter vector of a safetensors file that holds exactly the tensors `shapes`.
///
/// # Errors
///
/// [`ExpertsError::Tensor`] for a missing, superfluous or misshaped tensor, [`ExpertsError::NotFinite`] for NaN or infinity.
pub fn from_tensors(shapes: &[ParameterShape], tensors: &SafeTensors<'_>) -> Result<Vec<f32>> {
    let mut parameters = Vec::new();
    for shape in shapes {
        let expected = format!("F32 or F16 {:?}", shape.shape);
        let mismatch =
            |found: String| ExpertsError::Tensor { name: shape.name.clone(), expected: expected.clone(), found };
        let tensor = tensors.tensor(&shape.name).map_err(|_| mismatch("none".to_owned()))?;
        let bytes = tensor.data();
        match tensor.dtype() {
            _ if tensor.shape() != shape.shape => return Err(mismatch(format!("{:?}", tensor.shape()))),
            Dtype::F32 => {
                let values = bytes.as_chunks().0.iter();
                parameters.extend(values.map(|&value| f32::from_le_bytes(value)));
            }
            Dtype::F16 => {
                let values = bytes.as_chunks().0.iter();
                parameters.extend(values.map(|&value| f16::from_le_bytes(value).to_f32()));
            }
            other => return Err(mismatch(format!("{other:?}"))),
        }
        check_finite(&format!("tensor {}", shape.name), &parameters[shape.range()])?;
    }
    if let Some(name) = tensors.names().into_iter().find(|&name| shapes.iter().all(|shape| shape.name != name)) {
        let (expected, found) = ("none".to_owned(), "a tensor of no model".to_owned());
        return Err(ExpertsError::Tensor { name: name.to_owned(), expected, found });
    }
    Ok(parameters)
}

/// The safetensors file of a flat parameter vector.
///
/// # Errors
///
/// [`ExpertsError::Shape`] if `parameters` is not as long as `shapes` say.
pub fn to_bytes(shapes: &[ParameterShape], parameters: &[f32]) -> Result<Vec<u8>> {
    serialized(shapes, parameters, Dtype::F32, f32::to_le_bytes)
}

/// The same in half the bytes, each number rounded to the nearest f16.
///
/// # Errors
///
/// Those of [`to_bytes`].
pub fn to_f16_bytes(shapes: &[ParameterShape], parameters: &[f32]) -> Result<Vec<u8>> {
    serialized(shapes, parameters, Dtype::F16, |value| f16::from_f32(value).to_le_bytes())
}

fn serialized<const BYTES: usize>(
    shapes: &[ParameterShape],
    parameters: &[f32],
    dtype: Dtype,
    bytes: impl Fn(f32) -> [u8; BYTES],
) -> Result<Vec<u8>> {
    check_length("parameters", shapes.last().map_or(0, |last| last.range().end), parameters.len())?;
    let bytes: Vec<u8> = parameters.iter().flat_map(|value| bytes(*value)).collect();
    let mut tensors = BTreeMap::new();
    for shape in shapes {
        let range = shape.range();
        let data = &bytes[range.start * BYTES..range.end * BYTES];
        tensors.insert(shape.name.as_str(), TensorView::new(dtype, shape.shape.clone(), data)?);
    }
    Ok(safetensors::serialize(tensors, None)?)
}

/// SHA-256 of `bytes`, hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
