//! Weights tuned on a database, kept beside its profiles.
//!
//! Two files, like the pretrained weights: `tuned.safetensors` and `tuned.json`, which says what they were tuned on and from
//! which weights. Whatever does not fit leaves the pretrained weights in place, with an error that says why.

use std::path::Path;

use relata_experts::ExpertStack;
use relata_experts::tuned::TunedManifest;

use crate::{Relata, RelataError, Result};

/// The weights.
const WEIGHTS: &str = "tuned.safetensors";
/// Their manifest, which appears last and goes first: without it there are no tuned weights.
const MANIFEST: &str = "tuned.json";

impl Relata {
    /// The same with these experts, which must be above the same data expert; profiles made so far are kept.
    #[must_use]
    pub fn with_experts(mut self, experts: ExpertStack) -> Self {
        // The profiles remember states of the experts before.
        self.profiles = self.profiles.for_other_experts().into();
        self.experts = Some(experts.into());
        self
    }

    /// The experts, where there are any.
    pub fn experts(&self) -> Option<&ExpertStack> {
        self.experts.as_deref()
    }

    /// The same with the weights that were tuned on the database whose profiles are in the profile directory; `None` where
    /// there are none.
    ///
    /// # Errors
    /// They are damaged, of another feature layout or tuned from other weights than this has.
    pub fn tuned(&self) -> Result<Option<Self>> {
        let (Some(directory), Some(experts)) = (&self.profiles.directory, &self.experts) else { return Ok(None) };
        if !directory.join(MANIFEST).exists() {
            return Ok(None);
        }
        let (weights, manifest) = (read(&directory.join(WEIGHTS))?, read(&directory.join(MANIFEST))?);
        let tuned = experts
            .with_tuned(&weights, &manifest)
            .map_err(|error| RelataError::Tuning(format!("{}: {error}", directory.display())))?;
        Ok(Some(self.clone().with_experts(tuned)))
    }

    /// Keeps the weights of `tuned`, which were tuned from those of this, in the profile directory; `manifest` says on what.
    ///
    /// # Errors
    /// There is no profile directory, or it cannot be written.
    pub fn save_tuned(&self, tuned: &ExpertStack, manifest: &TunedManifest) -> Result<()> {
        let (Some(directory), Some(experts)) = (&self.profiles.directory, &self.experts) else {
            return Err(RelataError::Tuning("there is no profile directory to keep the weights in".to_owned()));
        };
        let (weights, manifest) = tuned.to_tuned(experts, manifest)?;
        std::fs::create_dir_all(directory).map_err(|error| failed(directory, &error))?;
        remove(&directory.join(MANIFEST))?;
        for (name, bytes) in [(WEIGHTS, weights), (MANIFEST, manifest)] {
            let path = directory.join(name);
            std::fs::write(&path, bytes).map_err(|error| failed(&path, &error))?;
        }
        Ok(())
    }

    /// Removes the tuned weights from the profile directory; whether there were any.
    ///
    /// # Errors
    /// They cannot be removed.
    pub fn remove_tuned(&self) -> Result<bool> {
        let Some(directory) = &self.profiles.directory else { return Ok(false) };
        let manifest = remove(&directory.join(MANIFEST))?;
        Ok(remove(&directory.join(WEIGHTS))? || manifest)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| failed(path, &error))
}

/// Removes a file; whether it was there.
fn remove(path: &Path) -> Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(path, &error)),
    }
}

fn failed(path: &Path, error: &std::io::Error) -> RelataError {
    RelataError::Tuning(format!("{}: {error}", path.display()))
}
