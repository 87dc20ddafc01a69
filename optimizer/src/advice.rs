//! Settings of a session for one query on this machine: how many partitions, how large a batch, how much memory.

use datafusion::prelude::SessionContext;

use crate::runtime::RuntimeEstimate;
use crate::{Relata, RelataError, Result};

/// Rows of a batch that are compared, beside those of the session.
const BATCH_SIZES: [usize; 3] = [1024, 8192, 65_536];

/// A setting for a query, and what the query is predicted to take with it.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingAdvice {
    /// `datafusion.execution.target_partitions`.
    pub target_partitions: usize,
    /// `datafusion.execution.batch_size`, in rows.
    pub batch_size: usize,
    /// The prediction; the upper end of its memory is a limit that the query should do with.
    pub runtime: RuntimeEstimate,
    /// Whether it is the session's own setting.
    pub current: bool,
}

impl Relata {
    /// Settings for a query in a session that relata is installed in, the one that is predicted to be the fastest first; the query
    /// is planned with each, and not run.
    ///
    /// # Errors
    /// As [`Self::estimate_runtime`].
    pub async fn advise(&self, ctx: &SessionContext, sql: &str) -> Result<Vec<SettingAdvice>> {
        let missing = || RelataError::NoRuntime("no expert or no machine".to_owned());
        let threads = self.machine().await.ok_or_else(missing)?.threads;
        let clock = self.clock().await.ok_or_else(missing)?;
        let residual = clock.residual(&self.estimated_plan(&ctx.state(), sql).await?);
        let own = ctx.state().config_options().execution.clone();
        let powers = std::iter::successors(Some(1), |partitions: &usize| partitions.checked_mul(2));
        let mut partitions: Vec<usize> = powers.take_while(|&partitions| partitions <= threads).collect();
        partitions.extend([threads, own.target_partitions]);
        let mut batch_sizes = BATCH_SIZES.to_vec();
        batch_sizes.push(own.batch_size.get());
        for values in [&mut partitions, &mut batch_sizes] {
            values.sort_unstable();
            values.dedup();
        }
        let mut advice = vec![];
        for &target_partitions in &partitions {
            for &batch_size in &batch_sizes {
                let mut state = ctx.state();
                let config = state.config_mut();
                *config = config.clone().with_target_partitions(target_partitions).with_batch_size(batch_size);
                let runtime = clock.corrected(&self.estimated_plan(&state, sql).await?, residual);
                let runtime =
                    runtime.ok_or_else(|| RelataError::NoRuntime("the expert refuses the plan".to_owned()))?;
                let current = target_partitions == own.target_partitions && batch_size == own.batch_size.get();
                advice.push(SettingAdvice { target_partitions, batch_size, runtime, current });
            }
        }
        advice.sort_by_key(|one| one.runtime.elapsed[1]);
        Ok(advice)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::SessionStateBuilder;
    use datafusion::prelude::SessionConfig;
    use relata_featurize::resources::Resources;

    use super::*;

    #[tokio::test]
    async fn every_setting_is_predicted_and_the_fastest_comes_first() {
        let machine = Resources::reference(4, 1.8);
        let relata = Relata::pretrained().unwrap().with_machine(machine);
        let builder = SessionStateBuilder::new_with_default_features()
            .with_config(SessionConfig::new().with_target_partitions(3).with_batch_size(2000));
        let ctx = SessionContext::new_with_state(relata.install(builder).build());
        let sql = "CREATE TABLE t AS SELECT value AS id, value % 100 AS kind FROM generate_series(1, 200000)";
        ctx.sql(sql).await.unwrap().collect().await.unwrap();
        let sql = "SELECT kind, count(*) FROM t GROUP BY kind";
        let advice = relata.advise(&ctx, sql).await.unwrap();
        assert_eq!(advice.len(), 4 * 4, "{advice:?}");
        assert!(advice.is_sorted_by_key(|one| one.runtime.elapsed[1]));
        let current: Vec<_> = advice.iter().filter(|one| one.current).collect();
        assert!(matches!(current[..], [one] if (one.target_partitions, one.batch_size) == (3, 2000)), "{current:?}");
        assert_eq!(current[0].runtime, relata.estimate_runtime(&ctx, sql).await.unwrap());
        assert!(relata.advise(&ctx, "SELECT nothing FROM t").await.is_err());
        assert!(Relata::new(None).advise(&ctx, sql).await.is_err());
    }
}
