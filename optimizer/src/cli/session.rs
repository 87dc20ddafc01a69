//! DataFusion sessions with and without relata, built by one function so that they differ in relata only.

use std::sync::Arc;

use datafusion::execution::SessionStateBuilder;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};

use super::error::Result;
use crate::Relata;

/// Stack of the threads that plan queries; plans of many joins recurse deeply.
pub const STACK_BYTES: usize = 16 << 20;

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
    /// This many partitions, and at most so much memory for what queries hold at a time: a join that needs more fails instead
    /// of the process.
    ///
    /// # Errors
    /// The runtime cannot be set up.
    pub fn new(threads: Option<usize>, memory_limit: Option<usize>) -> Result<Self> {
        let builder = RuntimeEnvBuilder::new();
        let builder = match memory_limit {
            Some(bytes) => builder.with_memory_limit(bytes, 1.0),
            None => builder,
        };
        Ok(SessionOptions { threads, runtime: builder.build_arc()? })
    }
}

/// Parses a number of bytes such as `1500000`, `800m` or `4g`, with binary units.
///
/// # Errors
/// In words.
pub fn parse_bytes(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit: usize = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        "t" | "tb" => 1 << 40,
        _ => return Err("must be a number of bytes, or of k, m, g or t".to_owned()),
    };
    let number: usize = digits.parse().map_err(|error| format!("{error}"))?;
    number.checked_mul(unit).filter(|bytes| *bytes > 0).ok_or_else(|| "is out of range".to_owned())
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

#[cfg(test)]
mod tests {
    use super::parse_bytes;

    #[test]
    fn bytes_have_units() {
        assert_eq!(parse_bytes("800m"), Ok(800 << 20));
        assert_eq!(parse_bytes("4GB"), Ok(4 << 30));
        assert_eq!(parse_bytes("17"), Ok(17));
        assert!(["", "0", "g", "-1", "1x", "1.5g", "99999999999t"].iter().all(|text| parse_bytes(text).is_err()));
    }
}
