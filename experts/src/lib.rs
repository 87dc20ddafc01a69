//! The stacked models of relata: plain arrays in, estimates with intervals out.
//!
//! The walk of one query through this crate, after the foundation database model (seed paper, section 3.1):
//!
//! 1. [`data`]: the sample and statistics of a table -> an embedding of the table and one of each column. Computed once per
//!    table and cached by the caller. It is pre-trained to restore the table, before and apart from the rest.
//! 2. [`logical`]: a plan as a feature graph -> a state per node, by typed message passing from the tables up.
//!    [`message_passing`] orders the nodes of many plans into few large products.
//! 3. [`heads`]: the state of a node -> the residual of its cardinality over the analytical estimate, with an interval that
//!    is calibrated per number of joins. [`answers`]: that state and what a sample says -> the residual of an aggregate.
//!
//! 4. [`physical`]: the operators of a physical plan with those rows, and the machine -> time and memory.
//! 5. [`in_context`]: examples with their labels, and rows without -> predictions, apart from the rest.
//! 6. [`residual`]: executed plans as such examples -> what the times of [`physical`] are corrected by.
//!
//! [`stack`] holds the first three together; [`config`] fixes their sizes, names and parameters once for training and inference;
//! [`mlp`] is the one network they are made of; [`weights`] reads and verifies the file that they are stored in, [`tuned`] those that
//! were tuned on one database.
//! With the feature `train`, `train` fits the stack to labelled plans, and the command `relata-train` runs it.
//!
//! Invariants: this crate names no DataFusion type; inference uses no framework; whatever is wrong with weights or inputs
//! is an [`ExpertsError`], never a panic or a NaN, because a model failure must never fail a query.
//!
//! Shape letters: B batch, N nodes, E edges, F features, D width, R rows, C columns.
//!
//! ```
//! use relata_experts::fixture;
//!
//! # fn main() -> relata_experts::Result<()> {
//! let stack = fixture::stack(16, 1)?;
//! let tables = [fixture::table(100, 3, 1), fixture::table(50, 2, 2)];
//! let embeddings = [stack.embed_table(&tables[0])?, stack.embed_table(&tables[1])?];
//! let estimates = stack.forward(&fixture::graph(2, &tables, 3), &embeddings)?;
//! assert!(estimates.cardinalities.iter().flatten().all(|q| q.lower <= q.median && q.median <= q.upper));
//! # Ok(())
//! # }
//! ```

pub mod answers;
mod cholesky;
pub mod config;
pub mod data;
pub mod error;
#[doc(hidden)]
pub mod fixture;
pub mod heads;
pub mod in_context;
pub mod logical;
pub mod message_passing;
pub mod mlp;
pub mod physical;
#[cfg(feature = "prior")]
pub mod prior;
pub mod residual;
pub mod stack;
#[cfg(feature = "train")]
pub mod train;
pub mod tuned;
pub mod weights;

pub use answers::AnswerHead;
pub use data::TableEmbedding;
pub use error::ExpertsError;
pub use heads::CardinalityQuantiles;
pub use physical::PhysicalExpert;
pub use residual::ResidualPredictor;
pub use stack::{ExpertStack, PlanEstimates};

/// Result of this crate.
pub type Result<T, E = ExpertsError> = std::result::Result<T, E>;
