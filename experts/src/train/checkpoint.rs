//! Checkpoints: everything a run needs to go on where it was, in one safetensors file.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::Serialize;

use crate::Result;
use crate::config::ParameterShape;
use crate::error::{ExpertsError, check_length};
use crate::train::optimizer::AdamW;

/// The state of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Parameters and optimizer.
    pub run: AdamW,
    /// The best averaged parameters so far.
    pub best: Vec<f32>,
    /// Their score on the held-out databases.
    pub best_score: f32,
    /// The step they are from.
    pub best_step: u64,
    /// Evaluations since then.
    pub stale: u32,
    /// Commit of the source with which the run began, if it was known.
    pub begun: Option<String>,
}

/// What a checkpoint stores besides tensors, and whom it belongs to.
const META: [&str; 7] = ["run", "seed", "step", "best_score", "best_step", "stale", "begun"];

impl Checkpoint {
    /// A run that begins with the source of this commit.
    pub fn begin(shapes: &[ParameterShape], parameters: Vec<f32>, commit: Option<String>) -> Self {
        let run = AdamW::new(shapes, parameters);
        Self { best: run.average.clone(), run, best_score: f32::INFINITY, best_step: 0, stale: 0, begun: commit }
    }

    /// Writes the checkpoint of a run that is told from others by `identity` and its seed; a crash while writing leaves the old
    /// one in place.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Io`] if the file cannot be written.
    pub fn write(&self, path: &Path, identity: &impl Serialize, seed: u64) -> Result<()> {
        let values = [
            serde_json::to_string(identity)?,
            seed.to_string(),
            self.run.step.to_string(),
            self.best_score.to_string(),
            self.best_step.to_string(),
            self.stale.to_string(),
            serde_json::to_string(&self.begun)?,
        ];
        let metadata: HashMap<String, String> = META.map(str::to_owned).into_iter().zip(values).collect();
        let arrays = [
            ("parameters", &self.run.parameters),
            ("first", &self.run.first),
            ("second", &self.run.second),
            ("average", &self.run.average),
            ("best", &self.best),
        ];
        let bytes = arrays.map(|(name, values)| {
            (name, values.len(), values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
        });
        let mut views = Vec::new();
        for (name, length, bytes) in &bytes {
            views.push((*name, TensorView::new(Dtype::F32, vec![*length], bytes)?));
        }
        let file = safetensors::serialize(views, Some(metadata))?;
        let io = |source| ExpertsError::Io { path: path.to_owned(), source };
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, file).map_err(io)?;
        std::fs::rename(&temporary, path).map_err(io)
    }

    /// Reads the checkpoint of the run with this identity and seed.
    ///
    /// # Errors
    ///
    /// [`ExpertsError::Training`] if it is of another run, [`ExpertsError::Io`] or [`ExpertsError::Weights`] if it cannot
    /// be read.
    pub fn read(path: &Path, identity: &impl Serialize, shapes: &[ParameterShape], seed: u64) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|source| ExpertsError::Io { path: path.to_owned(), source })?;
        let (_, header) = SafeTensors::read_metadata(&bytes)?;
        let tensors = SafeTensors::deserialize(&bytes)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let field = |name: &str| {
            metadata.get(name).ok_or_else(|| ExpertsError::Training(format!("the checkpoint has no {name}")))
        };
        if *field("run")? != serde_json::to_string(identity)? || *field("seed")? != seed.to_string() {
            let message = format!("{} is of a run with other sizes, settings, data or seed", path.display());
            return Err(ExpertsError::Training(message));
        }
        let count = shapes.last().map_or(0, |last| last.range().end);
        let array = |name: &str| -> Result<Vec<f32>> {
            let data = tensors.tensor(name)?.data();
            check_length("a checkpointed array", count * 4, data.len())?;
            Ok(data.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect())
        };
        let mut run = AdamW::new(shapes, array("parameters")?);
        run.step = number(field("step")?)?;
        (run.first, run.second, run.average) = (array("first")?, array("second")?, array("average")?);
        Ok(Self {
            run,
            best: array("best")?,
            best_score: number(field("best_score")?)?,
            best_step: number(field("best_step")?)?,
            stale: number(field("stale")?)?,
            begun: serde_json::from_str(field("begun")?)?,
        })
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| ExpertsError::Training(format!("the checkpoint holds {text} for a number")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ExpertConfig;
    use crate::fixture;

    #[test]
    fn what_is_written_is_read_back() {
        let config = ExpertConfig::with_width(4);
        let shapes = config.parameters();
        let mut run = AdamW::new(&shapes, fixture::parameters(&shapes, 1));
        run.step = 17;
        run.first[3] = 0.5;
        let best = run.parameters.clone();
        let checkpoint =
            Checkpoint { run, best, best_score: 0.1 + 0.2, best_step: 9, stale: 2, begun: Some("c".to_owned()) };
        let path = std::env::temp_dir().join(format!("relata-checkpoint-{}.safetensors", std::process::id()));
        checkpoint.write(&path, &config, 5).unwrap();
        assert_eq!(Checkpoint::read(&path, &config, &shapes, 5).unwrap(), checkpoint);
        assert!(matches!(Checkpoint::read(&path, &config, &shapes, 6), Err(ExpertsError::Training(_))));
        assert!(Checkpoint::read(&path, &ExpertConfig::with_width(8), &shapes, 5).is_err());
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Checkpoint::read(&path, &config, &shapes, 5), Err(ExpertsError::Io { .. })));
    }
}
