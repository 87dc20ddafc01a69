//! What can go wrong between a table or a plan and its features.

use datafusion::error::DataFusionError;

/// Errors of profiling and featurization.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeaturizeError {
    /// DataFusion failed while scanning a table or evaluating an expression.
    #[error("DataFusion: {0}")]
    DataFusion(#[from] DataFusionError),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// A stored profile or trace is damaged or of another layout.
    #[error("{path}: {reason}")]
    Stored {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Profiles of parts with different schemas were to be put together.
    #[error("the parts of a table have different schemas")]
    Parts,
    /// Relations, references or entities that do not fit together.
    #[error("relations: {0}")]
    Relations(String),
    /// The plan holds something the feature graph has no node for.
    #[error("not supported: {0}")]
    Unsupported(String),
}
