//! Fine-tuning on a database: the experts, adapted to it by queries that are executed once.
//!
//! Each query runs with counting nodes in its plan, which give the exact rows of its filtered relations, joins and groups
//! (`counted`); those label the feature graphs that the estimate itself is made of (`label`). The experts are then tuned on
//! them and validated on held-out queries, by [`relata_experts::train::tune`]; weights that do not help there are dropped.
//! Predicted runtimes are tuned in the same way, on executions that were recorded (`runtimes`).

mod counted;
mod label;
mod runtimes;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::prelude::SessionContext;
use relata_experts::ExpertStack;
use relata_experts::train::tune as experts;
use relata_experts::tuned::{QErrors, TunedManifest};
use relata_featurize::logical::Tables;
use relata_featurize::relative::TableInput;
use relata_featurize::trace::DatabaseTrace;

use crate::{Relata, RelataError, Result};

/// Queries below which nothing is tuned: fewer say nothing about those held out.
const FEWEST_QUERIES: usize = 20;

/// Settings of tuning.
#[derive(Debug, Clone, PartialEq)]
pub struct TuneConfig {
    /// Queries that are executed at most, the first of them.
    pub queries: usize,
    /// Time after which a query is given up.
    pub timeout: Duration,
    /// Time after which no further query is executed.
    pub budget: Duration,
    /// Steps of training; `None` for the default.
    pub steps: Option<u64>,
}

impl Default for TuneConfig {
    fn default() -> Self {
        Self { queries: 512, timeout: Duration::from_secs(5), budget: Duration::from_secs(40), steps: None }
    }
}

/// How far tuning is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TuneProgress {
    /// So many queries were executed, of so many.
    Executed(usize, usize),
    /// So many steps of training were taken, of so many.
    Trained(u64, u64),
}

/// What tuning did.
#[derive(Debug, Clone, PartialEq)]
pub struct TuneReport {
    /// Queries that were executed and gave labels.
    pub queries: usize,
    /// Queries that failed, took too long or were no joins of profiled tables, and why the first of them did.
    pub skipped: usize,
    /// The reason of the first skipped query.
    pub first_skipped: Option<String>,
    /// Queries that no time was left for.
    pub left: usize,
    /// Queries among them whose own estimate was validated, each held out once.
    pub validated: usize,
    /// Their errors before
    pub before: QErrors,
    /// and after tuning on the others.
    pub after: QErrors,
    /// Share of the way from the pretrained to the tuned weights.
    pub share: f32,
    /// Time of executing the queries
    pub executing: Duration,
    /// and of training.
    pub training: Duration,
}

impl TuneReport {
    /// Whether the tuned weights help: the mean q-error of held-out queries falls, and its 95th percentile does not rise.
    pub fn accepted(&self) -> bool {
        self.after.improves(&self.before)
    }
}

/// The result of tuning.
#[derive(Debug)]
pub struct Tuning {
    /// What was done.
    pub report: TuneReport,
    /// The tuned experts, whether they help or not.
    pub experts: ExpertStack,
}

impl Relata {
    /// Adapts the experts to the database of `ctx` by executing `queries`, the statements of its workload; this stays as it
    /// is. Tables without a profile are profiled first. Use [`Relata::with_experts`] where [`TuneReport::accepted`], and
    /// [`Relata::keep_tuning`] to have [`Relata::tuned`] find the weights again.
    ///
    /// # Errors
    /// There are no experts to tune, too few queries give labels, or training fails. Queries that fail are skipped.
    pub async fn tune(
        &self,
        ctx: &SessionContext,
        queries: &[String],
        config: &TuneConfig,
        progress: Arc<dyn Fn(TuneProgress) + Send + Sync>,
    ) -> Result<Tuning> {
        let Some(stack) = self.experts.clone() else {
            return Err(RelataError::Tuning("there are no experts to tune".to_owned()));
        };
        self.profile(ctx).await?;
        let start = Instant::now();
        let executed = self.execute(ctx, queries, config, progress.as_ref()).await;
        let executing = start.elapsed();
        if executed.queries < FEWEST_QUERIES {
            let reason = executed.first_skipped.map(|reason| format!("; the first skipped one: {reason}"));
            let (found, reason) = (executed.queries, reason.unwrap_or_default());
            return Err(RelataError::Tuning(format!("{found} labelled queries, {FEWEST_QUERIES} are needed{reason}")));
        }
        let mut settings = experts::TuneConfig::default();
        settings.steps = config.steps.unwrap_or(settings.steps);
        let start = Instant::now();
        let Executed { trace, answers, queries, skipped, first_skipped, left } = executed;
        let train = move || {
            let report = |taken, steps| progress(TuneProgress::Trained(taken, steps));
            experts::tune(&stack, &trace, &answers, &settings, report)
        };
        let tuned =
            tokio::task::spawn_blocking(train).await.map_err(|error| RelataError::Tuning(error.to_string()))??;
        let report = TuneReport {
            queries,
            skipped,
            first_skipped,
            left,
            validated: tuned.answers,
            before: tuned.before,
            after: tuned.after,
            share: tuned.share,
            executing,
            training: start.elapsed(),
        };
        Ok(Tuning { report, experts: tuned.stack })
    }

    /// Keeps tuned weights in the profile directory, for [`Relata::tuned`].
    ///
    /// # Errors
    /// There is no profile directory, or it cannot be written.
    pub fn keep_tuning(&self, tuning: &Tuning) -> Result<()> {
        let TuneReport { queries, share, before, after, .. } = tuning.report;
        self.save_tuned(&tuning.experts, &TunedManifest { queries, share, before, after, ..TunedManifest::default() })
    }

    async fn execute(
        &self,
        ctx: &SessionContext,
        queries: &[String],
        config: &TuneConfig,
        progress: &(dyn Fn(TuneProgress) + Send + Sync),
    ) -> Executed {
        let queries = &queries[..queries.len().min(config.queries)];
        let state = label::counting_session(&ctx.state());
        let start = Instant::now();
        let mut executed = Executed::default();
        let mut tables = Tables::default();
        for (index, sql) in queries.iter().enumerate() {
            if start.elapsed() > config.budget {
                executed.left = queries.len() - index;
                break;
            }
            let (relata, state, sql, timeout) = (self.clone(), state.clone(), sql.clone(), config.timeout);
            // A task of its own, so that a panic in a query stays there.
            let task = tokio::spawn(async move { label::execute(&relata, &state, &sql, timeout).await });
            let counted = task.await.map_err(|error| RelataError::Tuning(error.to_string())).flatten();
            let labelled = counted.map(|counted| counted.label(&self.estimator(), &mut tables));
            executed.add(labelled);
            progress(TuneProgress::Executed(index + 1, queries.len()));
        }
        executed.trace.tables = tables.profiles.iter().map(|profile| TableInput::new(profile)).collect();
        executed
    }
}

/// What the executed queries gave.
#[derive(Default)]
struct Executed {
    trace: DatabaseTrace,
    /// One for each graph of the trace.
    answers: Vec<Option<experts::Answer>>,
    queries: usize,
    skipped: usize,
    first_skipped: Option<String>,
    left: usize,
}

impl Executed {
    /// Adds the regions of a query that have a label, or why there is none.
    fn add(&mut self, labelled: Result<Vec<label::Labelled>>) {
        let known = |(graph, answer): &label::Labelled| answer.is_some() || graph.labels.iter().any(Option::is_some);
        let reason = match labelled {
            Ok(labelled) if labelled.iter().any(known) => {
                self.queries += 1;
                let (graphs, answers): (Vec<_>, Vec<_>) = labelled.into_iter().filter(known).unzip();
                self.trace.graphs.extend(graphs);
                self.answers.extend(answers);
                return;
            }
            Ok(_) => "no joins or filters of profiled tables that were read to their end".to_owned(),
            Err(error) => error.to_string(),
        };
        self.skipped += 1;
        self.first_skipped.get_or_insert(reason);
    }
}
