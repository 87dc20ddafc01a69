//! Tuning of predicted runtimes, on the executed queries that are recorded in the profile directory.

use std::time::Instant;

use datafusion::prelude::SessionContext;
use relata_experts::train::physical::tune::{PhysicalTuneConfig, TunedPhysical, tune};
use relata_experts::tuned::TunedManifest;

use super::{TuneConfig, TuneProgress};
use crate::{Relata, RelataConfig, RelataError, Result};

/// Executed queries that tuning keeps.
const MOST_RECORDED: usize = 4096;

impl Relata {
    /// Executes `queries` in the session `ctx`, which relata is installed in, and records them as `relata.record` does; how many
    /// ran to their end.
    pub async fn record(
        &self,
        ctx: &SessionContext,
        queries: &[String],
        config: &TuneConfig,
        progress: &(dyn Fn(TuneProgress) + Send + Sync),
    ) -> usize {
        let mut state = ctx.state();
        let options = state.config_mut().options_mut();
        let settings = RelataConfig::of(options).unwrap_or(&self.config);
        let settings = RelataConfig { record: settings.record.max(MOST_RECORDED), ..settings.clone() };
        options.extensions.insert(settings);
        let ctx = SessionContext::new_with_state(state);
        let queries = &queries[..queries.len().min(config.queries)];
        let (start, mut ran) = (Instant::now(), 0);
        for (index, sql) in queries.iter().enumerate() {
            if start.elapsed() > config.budget {
                break;
            }
            let (ctx, sql, timeout) = (ctx.clone(), sql.clone(), config.timeout);
            // A task of its own, so that a panic in a query stays there.
            let run =
                async move { tokio::time::timeout(timeout, async { ctx.sql(&sql).await?.collect().await }).await };
            ran += usize::from(matches!(tokio::spawn(run).await, Ok(Ok(Ok(_)))));
            progress(TuneProgress::Executed(index + 1, queries.len()));
        }
        ran
    }

    /// Adapts predicted runtimes to the database and its machine, by the executions that are recorded; this stays as it is. Use
    /// [`Relata::with_physical`] where [`TunedPhysical::accepted`], and [`Relata::keep_runtimes`] to have [`Relata::tuned`] find
    /// the weights again.
    ///
    /// # Errors
    /// There is no expert to tune, too few executions are recorded, or training fails.
    pub async fn tune_runtimes(
        &self,
        config: PhysicalTuneConfig,
        progress: impl Fn(TuneProgress) + Send + Sync + 'static,
    ) -> Result<TunedPhysical> {
        let failed = |reason: String| RelataError::Tuning(reason);
        let expert = self.physical.clone().ok_or_else(|| failed("there is no expert to tune".to_owned()))?;
        let recorded = self.recorded().map_err(|error| failed(error.to_string()))?;
        let train = move || tune(&expert, &recorded, &config, |taken, all| progress(TuneProgress::Trained(taken, all)));
        Ok(tokio::task::spawn_blocking(train).await.map_err(|error| failed(error.to_string()))??)
    }

    /// Keeps tuned weights in the profile directory, for [`Relata::tuned`].
    ///
    /// # Errors
    /// There is no profile directory, or it cannot be written.
    pub fn keep_runtimes(&self, tuned: &TunedPhysical) -> Result<()> {
        let TunedPhysical { executions, share, before, after, .. } = *tuned;
        let report = TunedManifest { queries: executions, share, before, after, ..TunedManifest::default() };
        self.save_runtimes(&tuned.expert, &report)
    }
}
