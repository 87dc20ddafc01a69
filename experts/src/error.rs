//! What can go wrong between a weight file and an estimate.

use std::path::PathBuf;

use relata_featurize::FeaturizeError;

/// Error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExpertsError {
    /// The weight file could not be read as safetensors, for instance because it is truncated.
    #[error("the weight file is damaged: {0}")]
    Weights(#[from] safetensors::SafeTensorError),

    /// The manifest is not the JSON that this version expects.
    #[error("the manifest is damaged: {0}")]
    Manifest(#[from] serde_json::Error),

    /// The weight file is not the one that the manifest describes.
    #[error("the weight file has SHA-256 {found}, the manifest names {expected}")]
    Checksum {
        /// Checksum in the manifest, hexadecimal.
        expected: String,
        /// Checksum of the bytes, hexadecimal.
        found: String,
    },

    /// The weights were tuned from others than these.
    #[error("the weights were tuned from those with SHA-256 {found}, these are {expected}")]
    Base {
        /// Checksum of these, hexadecimal.
        expected: String,
        /// Checksum in the manifest, hexadecimal.
        found: String,
    },

    /// The weights were trained on another feature layout.
    #[error("the weights are for feature layout {found}, this version writes layout {expected}")]
    Layout {
        /// [`relata_featurize::graph::LAYOUT_VERSION`].
        expected: u32,
        /// Layout in the manifest.
        found: u32,
    },

    /// The configuration describes no usable model.
    #[error("unusable configuration: {0}")]
    Config(String),

    /// A tensor is missing, superfluous, or has another shape or type than the configuration gives it.
    #[error("tensor {name}: expected {expected}, found {found}")]
    Tensor {
        /// Name of the tensor.
        name: String,
        /// Type and shape that the configuration gives it.
        expected: String,
        /// What the file holds.
        found: String,
    },

    /// NaN or infinity among weights, features or results.
    #[error("{what} holds a number that is not finite")]
    NotFinite {
        /// Where it was found.
        what: String,
    },

    /// An input has another length than its declared shape.
    #[error("{what}: expected length {expected}, found {found}")]
    Shape {
        /// Which input.
        what: &'static str,
        /// Length by its shape.
        expected: usize,
        /// Length found.
        found: usize,
    },

    /// A graph refers to a table, column or node that does not exist.
    #[error("malformed graph: {0}")]
    Graph(String),

    /// Examples that nothing can be predicted from.
    #[error("cannot predict from these examples: {0}")]
    Context(String),

    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },

    /// A trace could not be read.
    #[error(transparent)]
    Featurize(#[from] FeaturizeError),

    /// Training cannot go on, for instance without labelled databases.
    #[error("training: {0}")]
    Training(String),
}

/// Fails unless `found == expected`.
pub(crate) fn check_length(what: &'static str, expected: usize, found: usize) -> crate::Result<()> {
    if found == expected { Ok(()) } else { Err(ExpertsError::Shape { what, expected, found }) }
}

/// Fails unless all of `values` are finite.
pub(crate) fn check_finite(what: &str, values: &[f32]) -> crate::Result<()> {
    // A sum of x * 0 is NaN exactly when one of them is not finite, and vectorises.
    if values.iter().map(|value| value * 0.0).sum::<f32>().is_nan() {
        return Err(ExpertsError::NotFinite { what: what.to_owned() });
    }
    Ok(())
}
