//! DataFusion sessions with and without relata, built by one function so that they differ in relata only.

use std::sync::Arc;

use datafusion::execution::SessionStateBuilder;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::error::Result;
use crate::Relata;

/// Which planner a session uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum OptimizerKind {
    /// DataFusion as it comes.
    Default,
    /// DataFusion with relata installed.
    Relata,
}

impl OptimizerKind {
    /// Both planners, the baseline first.
    pub const ALL: [OptimizerKind; 2] = [OptimizerKind::Default, OptimizerKind::Relata];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            OptimizerKind::Default => "default",
            OptimizerKind::Relata => "relata",
        }
    }
}

/// Settings of every session of one command.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// Partitions a query runs in (`--threads`); DataFusion's default, one per core, where `None`.
    pub threads: Option<usize>,
    /// Memory pool, object stores and metadata caches, shared by all sessions so that none finds them warmer.
    pub runtime: Arc<RuntimeEnv>,
}

impl SessionOptions {
    /// Default runtime with this many partitions.
    pub fn with_threads(threads: Option<usize>) -> Self {
        SessionOptions { threads, ..Self::default() }
    }
}

/// A session under `options`, with relata installed where given. `DATAFUSION_*` environment variables apply to both, as
/// in datafusion-cli.
///
/// # Errors
/// An environment variable names no option or has a value the option does not accept.
pub fn session(options: &SessionOptions, relata: Option<&Relata>) -> Result<SessionContext> {
    let mut config = SessionConfig::from_env()?.with_information_schema(true);
    if let Some(threads) = options.threads {
        config = config.with_target_partitions(threads.max(1));
    }
    let builder = SessionStateBuilder::new_with_default_features()
        .with_config(config)
        .with_runtime_env(Arc::clone(&options.runtime));
    let builder = match relata {
        Some(relata) => relata.install(builder),
        None => builder,
    };
    Ok(SessionContext::new_with_state(builder.build()))
}
