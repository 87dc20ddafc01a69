//! Weights tuned on a database, kept beside its profiles.
//!
//! Two files for the estimates and two for the runtimes, like the pretrained weights: `tuned.safetensors` and `tuned.json`, which
//! says what they were tuned on and from which weights, and `tuned-physical.*`. Whatever does not fit leaves the pretrained weights
//! in place, with an error that says why.

use std::path::Path;

use relata_experts::tuned::TunedManifest;
use relata_experts::{ExpertStack, ExpertsError, PhysicalExpert};

use crate::{Relata, RelataError, Result};

/// The weights and their manifest, which appears last and goes first: without it there are no tuned weights.
#[derive(Clone, Copy)]
struct Files {
    weights: &'static str,
    manifest: &'static str,
}

const ESTIMATES: Files = Files { weights: "tuned.safetensors", manifest: "tuned.json" };
const RUNTIMES: Files = Files { weights: "tuned-physical.safetensors", manifest: "tuned-physical.json" };

impl Files {
    /// The weights and the manifest, where there are any.
    fn read(self, directory: &Path) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        if !directory.join(self.manifest).exists() {
            return Ok(None);
        }
        Ok(Some((read(&directory.join(self.weights))?, read(&directory.join(self.manifest))?)))
    }

    fn write(self, directory: &Path, (weights, manifest): (Vec<u8>, Vec<u8>)) -> Result<()> {
        std::fs::create_dir_all(directory).map_err(|error| failed(directory, &error))?;
        remove(&directory.join(self.manifest))?;
        for (name, bytes) in [(self.weights, weights), (self.manifest, manifest)] {
            let path = directory.join(name);
            std::fs::write(&path, bytes).map_err(|error| failed(&path, &error))?;
        }
        Ok(())
    }

    /// Whether there were any.
    fn remove(self, directory: &Path) -> Result<bool> {
        let manifest = remove(&directory.join(self.manifest))?;
        Ok(remove(&directory.join(self.weights))? || manifest)
    }
}

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

    /// The same with this expert of physical plans.
    #[must_use]
    pub fn with_physical(mut self, expert: PhysicalExpert) -> Self {
        self.physical = Some(expert.into());
        self.residuals = Default::default();
        self
    }

    /// The same with the weights that were tuned on the database whose profiles are in the profile directory; `None` where
    /// there are none.
    ///
    /// # Errors
    /// They are damaged, of another feature layout or tuned from other weights than this has.
    pub fn tuned(&self) -> Result<Option<Self>> {
        let Some(directory) = &self.profiles.directory else { return Ok(None) };
        let unfit = |error: ExpertsError| RelataError::Tuning(format!("{}: {error}", directory.display()));
        let mut tuned = None;
        if let (Some(experts), Some((weights, manifest))) = (&self.experts, ESTIMATES.read(directory)?) {
            let experts = experts.with_tuned(&weights, &manifest).map_err(unfit)?;
            tuned = Some(self.clone().with_experts(experts));
        }
        if let (Some(expert), Some((weights, manifest))) = (&self.physical, RUNTIMES.read(directory)?) {
            let expert = expert.with_tuned(&weights, &manifest).map_err(unfit)?;
            tuned = Some(tuned.unwrap_or_else(|| self.clone()).with_physical(expert));
        }
        Ok(tuned)
    }

    /// Keeps the weights of `tuned`, which were tuned from those of this, in the profile directory; `manifest` says on what.
    ///
    /// # Errors
    /// There is no profile directory, or it cannot be written.
    pub fn save_tuned(&self, tuned: &ExpertStack, manifest: &TunedManifest) -> Result<()> {
        let (Some(directory), Some(experts)) = (&self.profiles.directory, &self.experts) else { return Err(nowhere()) };
        ESTIMATES.write(directory, tuned.to_tuned(experts, manifest)?)
    }

    /// The same of an expert of physical plans.
    ///
    /// # Errors
    /// As [`Self::save_tuned`].
    pub fn save_runtimes(&self, tuned: &PhysicalExpert, manifest: &TunedManifest) -> Result<()> {
        let (Some(directory), Some(expert)) = (&self.profiles.directory, &self.physical) else { return Err(nowhere()) };
        RUNTIMES.write(directory, tuned.to_tuned(expert, manifest)?)
    }

    /// Removes the tuned weights from the profile directory; whether there were any.
    ///
    /// # Errors
    /// They cannot be removed.
    pub fn remove_tuned(&self) -> Result<bool> {
        let Some(directory) = &self.profiles.directory else { return Ok(false) };
        let runtimes = RUNTIMES.remove(directory)?;
        Ok(ESTIMATES.remove(directory)? || runtimes)
    }
}

fn nowhere() -> RelataError {
    RelataError::Tuning("there is no profile directory to keep the weights in".to_owned())
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
