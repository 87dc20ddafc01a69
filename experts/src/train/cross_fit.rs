//! Calibration on databases that are trained on: by weights of further runs that go without them.
//!
//! Cross-conformal prediction (Vovk, "Cross-conformal predictors", 2015; CV+ of Barber, Candes, Ramdas & Tibshirani,
//! "Predictive inference with the jackknife+", 2021): open databases are few, too few to hold out as many as tell how much
//! harder one database is than another. Synthetic databases are easier than real ones, so that those that calibrate are named.

use std::path::PathBuf;

use burn::tensor::Device;
use relata_featurize::trace::DatabaseTrace;

use crate::Result;
use crate::train::data::{Corpus, check_names};
use crate::train::evaluate::Outcome;
use crate::train::fit::{Event, FitConfig, Fitted, fit};

/// Which databases calibrate, and how many runs are made for those among them that are trained on.
///
/// A run is as long as that of the weights: a shorter one has wider intervals, which need less calibration.
#[derive(Debug, Clone)]
pub struct CrossFit {
    /// Names of the databases.
    pub databases: Vec<String>,
    /// Number of runs, each without its share of the databases.
    pub folds: usize,
}

impl CrossFit {
    /// Fails where a name is no database's.
    ///
    /// # Errors
    ///
    /// [`crate::ExpertsError::Training`] with the name.
    pub fn validate(&self, corpus: &Corpus) -> Result<()> {
        check_names(&self.databases, corpus.training.iter().chain(&corpus.held_out).map(|trace| trace.name.as_str()))
    }

    /// Calibrates `fitted`, and returns the corpus it was fitted to.
    ///
    /// # Errors
    ///
    /// Whatever [`fit`] reports, and [`crate::ExpertsError::Training`] for a name that no database has.
    pub fn calibrate(
        &self,
        fitted: &mut Fitted,
        mut corpus: Corpus,
        config: &FitConfig,
        device: &Device,
        mut report: impl FnMut(usize, Event<'_>),
    ) -> Result<Corpus> {
        self.validate(&corpus)?;
        let held_out = names(&corpus.held_out);
        let trained: Vec<&String> = self.databases.iter().filter(|name| !held_out.contains(name)).collect();
        let (mut outcomes, mut databases) = (Vec::new(), Vec::new());
        let mut collect = |corpus: &Corpus, found: &[Outcome]| {
            for (index, trace) in corpus.held_out.iter().enumerate() {
                if self.databases.contains(&trace.name) {
                    let own = found.iter().filter(|outcome| outcome.database == index);
                    outcomes.extend(own.map(|outcome| Outcome { database: databases.len(), ..*outcome }));
                    databases.push(trace.name.clone());
                }
            }
        };
        collect(&corpus, &fitted.outcomes);
        for fold in 0..self.folds.min(trained.len()) {
            let without: Vec<String> = trained.iter().skip(fold).step_by(self.folds).copied().cloned().collect();
            corpus = corpus.hold_out(&without)?;
            let named = |path: &PathBuf| path.with_file_name(format!("fold-{fold}.safetensors"));
            let config = FitConfig {
                evaluate_every: config.steps,
                checkpoint: config.checkpoint.as_ref().map(named),
                ..config.clone()
            };
            let other = fit(&corpus, &config, device, |event| report(fold, event))?;
            collect(&corpus, &other.outcomes);
        }
        fitted.calibrate(&outcomes, databases, &config.experts);
        corpus.hold_out(&held_out)
    }
}

fn names(databases: &[DatabaseTrace]) -> Vec<String> {
    databases.iter().map(|trace| trace.name.clone()).collect()
}
