//! Files beside what a command keeps that say how it was made.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes how the content of `folder` is made into its file `name`, or makes sure that what is there was made in the same way.
///
/// # Errors
/// When the folder was made in another way by `agree`, which takes what was found and what is wanted, or when the file cannot be
/// read or written.
pub(crate) fn check<M: Serialize + DeserializeOwned>(
    folder: &Path,
    name: &str,
    manifest: &M,
    agree: impl Fn(&M, &M) -> bool,
) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let path = folder.join(name);
    if path.exists() {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let found: M = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        ensure!(
            agree(&found, manifest),
            "{} was made with other options or by another version ({}): give them, or another folder",
            folder.display(),
            text.trim()
        );
        return Ok(());
    }
    std::fs::write(&path, serde_json::to_string(manifest)? + "\n").with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_stay_of_one_kind() {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("new");
        let check = |value: u32| check(&new, "made.json", &value, PartialEq::eq);
        check(1).unwrap();
        check(1).unwrap();
        let refused = check(2).unwrap_err().to_string();
        assert!(refused.contains("other options") && refused.contains("(1)"), "{refused}");
    }
}
