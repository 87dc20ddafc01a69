//! What can go wrong inside relata, and its one conversion to DataFusion's error.

use datafusion::error::DataFusionError;
use relata_experts::ExpertsError;
use relata_featurize::FeaturizeError;

/// Errors of relata. None of them fails a query that runs through an installed [`crate::Relata`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelataError {
    /// DataFusion could not parse, plan or scan.
    #[error(transparent)]
    DataFusion(#[from] DataFusionError),
    /// A table could not be profiled, or a plan could not be featurized.
    #[error(transparent)]
    Featurize(#[from] FeaturizeError),
    /// The weights do not load, or the experts failed.
    #[error(transparent)]
    Experts(#[from] ExpertsError),
    /// Tuned weights cannot be made, read or kept.
    #[error("tuned weights: {0}")]
    Tuning(String),
    /// A profile cannot be removed.
    #[error("profiles: {0}")]
    Profiles(String),
    /// There is no such table.
    #[error("no table {0}")]
    NoTable(String),
    /// The query has no approximate answer.
    #[error("no approximate answer: {0}")]
    NoAnswer(String),
    /// A column cannot be predicted: the task does not fit the tables, or has nothing to learn from.
    #[error("no prediction: {0}")]
    NoPrediction(String),
    /// The query has no predicted runtime.
    #[error("no runtime: {0}")]
    NoRuntime(String),
    /// The statement is not a query, so there is nothing to estimate.
    #[error("not a query: {0}")]
    NoQuery(String),
}

impl From<RelataError> for DataFusionError {
    fn from(error: RelataError) -> Self {
        match error {
            RelataError::DataFusion(error) => error,
            error => DataFusionError::External(Box::new(error)),
        }
    }
}
