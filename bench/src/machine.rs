//! Where and from what figures were taken.

use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// What a figure depends on beside the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Commit of the source, with `+` if files were changed since; `None` outside a checkout.
    pub commit: Option<String>,
    /// Version of relata.
    pub relata: String,
    /// Version of DataFusion.
    pub datafusion: String,
    /// SHA-256 of the weights in use.
    pub weights: Option<String>,
    /// The processor, as the operating system names it.
    pub processor: Option<String>,
    /// Threads it offers.
    pub threads: usize,
    /// Operating system and architecture.
    pub system: String,
    /// Whether the compiler optimized.
    pub release: bool,
    /// The command line.
    pub command: String,
}

impl Provenance {
    /// Looks around.
    pub fn collect(weights: Option<String>) -> Self {
        Self {
            commit: commit(),
            relata: env!("CARGO_PKG_VERSION").to_owned(),
            datafusion: datafusion::DATAFUSION_VERSION.to_owned(),
            weights,
            processor: processor(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            release: !cfg!(debug_assertions),
            command: std::env::args().collect::<Vec<_>>().join(" "),
        }
    }
}

/// The commit of the checkout this was built in, as far as it is still there.
fn commit() -> Option<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let git = |arguments: &[&str]| -> Option<String> {
        let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|files| !files.is_empty());
    Some(if changed { commit + "+" } else { commit })
}

pub(crate) fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_surroundings() {
        let here = Provenance::collect(Some("abc".to_owned()));
        assert!(here.threads > 0 && !here.datafusion.is_empty());
        assert_eq!(here.weights.as_deref(), Some("abc"));
    }
}
