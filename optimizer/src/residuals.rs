//! What the recorded executions say of predicted runtimes, read when one is first asked for and again as the record grows.

use std::sync::Arc;

use relata_experts::residual::{FEWEST_QUERIES, MOST_EXECUTIONS};
use relata_experts::{PhysicalExpert, ResidualPredictor};
use tokio::sync::Mutex;

use crate::counters::count;
use crate::{Relata, RelataError, Result};

/// Lines of the record that are read, as some are of the same query.
const MOST_LINES: usize = 4 * MOST_EXECUTIONS;

/// Part of the record that is new when it is read again, and executions that are at least.
const GROWTH: usize = 4;
const LEAST_NEW: usize = 4;

/// What the record says of predicted runtimes, once it was read.
#[derive(Debug, Default)]
pub(crate) struct Residuals {
    /// Whoever finds it being read waits for it.
    fitted: Mutex<Option<Fitted>>,
}

#[derive(Debug, Clone, Default)]
struct Fitted {
    /// `None` where the record does not help.
    predictor: Option<Arc<ResidualPredictor>>,
    /// Executions that were read.
    recorded: usize,
    /// Executions that this process had recorded before.
    added: usize,
}

impl Relata {
    /// What corrects the expert's times; `None` where too few executions are recorded, they do not help, or anything fails.
    pub(crate) async fn residuals(&self, expert: &Arc<PhysicalExpert>) -> Option<Arc<ResidualPredictor>> {
        self.profiles.directory.as_ref()?;
        let mut fitted = self.residuals.fitted.lock().await;
        let added = self.record.added();
        if let Some(fitted) = fitted.as_ref()
            && added - fitted.added < LEAST_NEW.max(fitted.recorded / GROWTH)
        {
            return fitted.predictor.clone();
        }
        let (relata, expert) = (self.clone(), Arc::clone(expert));
        let read = tokio::task::spawn_blocking(move || relata.fit(&expert)).await;
        let read = read.map_err(|error| RelataError::NoRuntime(error.to_string())).flatten();
        let (predictor, recorded) = read.unwrap_or_else(|_| {
            count(&self.counters.failures);
            (None, 0)
        });
        let predictor = predictor.map(Arc::new);
        fitted.insert(Fitted { predictor, recorded, added }).predictor.clone()
    }

    /// What the record says of an expert's times, and how many executions it has.
    fn fit(&self, expert: &PhysicalExpert) -> Result<(Option<ResidualPredictor>, usize)> {
        let recorded = self.last_recorded(MOST_LINES).map_err(|error| RelataError::NoRuntime(error.to_string()))?;
        if recorded.len() < FEWEST_QUERIES {
            return Ok((None, recorded.len()));
        }
        let predictor = ResidualPredictor::fit(expert, self.predictor()?.as_ref(), &recorded)?;
        Ok((predictor, recorded.len()))
    }
}

#[cfg(test)]
mod tests;
