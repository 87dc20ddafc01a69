//! A fitted stack -> the weight folder: safetensors, manifest and golden forward pass.

use std::path::Path;

use relata_featurize::graph::LAYOUT_VERSION;
use relata_featurize::trace::DatabaseTrace;

use crate::Result;
use crate::error::ExpertsError;
use crate::fixture;
use crate::stack::ExpertStack;
use crate::train::data::Corpus;
use crate::train::fit::{FitConfig, Fitted};
use crate::weights::{self, Manifest, sha256, to_bytes};

/// Writes `relata.safetensors`, `manifest.json` and `golden.json` to `folder` after reading them back.
///
/// # Errors
///
/// [`ExpertsError::Io`] if a file cannot be written; otherwise what [`ExpertStack::from_bytes`] refuses.
pub fn write(folder: &Path, corpus: &Corpus, config: &FitConfig, fitted: &Fitted, command: String) -> Result<Manifest> {
    let weights = to_bytes(&config.experts.parameters(), &fitted.parameters)?;
    let manifest = Manifest {
        sha256: sha256(&weights),
        layout_version: LAYOUT_VERSION,
        data_sha256: config.data.manifest().map_or_else(String::new, |data| data.sha256.clone()),
        config: config.experts.clone(),
        seed: config.seed,
        steps: fitted.step,
        command,
        commit: config.commit.clone(),
        begun: fitted.begun.clone(),
        corpus: weights::Corpus { calibration: fitted.calibration.clone(), ..describe(corpus) },
        conformal: fitted.conformal.clone(),
        held_out: fitted.errors.clone(),
        left_out_coverage: fitted.left_out_coverage(),
    };
    let json = serde_json::to_vec_pretty(&manifest)?;
    let golden = fixture::golden(&ExpertStack::above(config.data.clone(), &weights, &json)?)?;
    let golden = serde_json::to_vec_pretty(&golden)?;
    write_files(folder, [("relata.safetensors", weights), ("manifest.json", json), ("golden.json", golden)])?;
    Ok(manifest)
}

/// Writes files into a folder, which it creates if need be.
pub(crate) fn write_files<const N: usize>(folder: &Path, files: [(&str, Vec<u8>); N]) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|source| ExpertsError::Io { path: folder.to_owned(), source })?;
    for (name, bytes) in files {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(|source| ExpertsError::Io { path, source })?;
    }
    Ok(())
}

fn describe(corpus: &Corpus) -> weights::Corpus {
    let names = |databases: &[DatabaseTrace]| databases.iter().map(|database| database.name.clone()).collect();
    let graphs = |databases: &[DatabaseTrace]| databases.iter().map(|database| database.graphs.len()).sum();
    weights::Corpus {
        databases: names(&corpus.training),
        held_out: names(&corpus.held_out),
        graphs: graphs(&corpus.training),
        held_out_graphs: graphs(&corpus.held_out),
        ..weights::Corpus::default()
    }
}
