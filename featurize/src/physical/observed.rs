//! What was measured of the operators of a plan that ran.

use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::MetricValue;
use serde::{Deserialize, Serialize};

/// What was measured of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Observed {
    /// Rows it gave.
    pub rows: Option<f32>,
    /// Time it computed, in microseconds, over all partitions.
    pub elapsed_us: Option<f32>,
}

/// Time that scans of files spend on decoding, which is not part of `elapsed_compute`.
const DECODING: &str = "time_elapsed_processing";

/// What was measured of every operator, in the order of [`super::PhysicalGraph::operators`].
pub fn observe(plan: &dyn ExecutionPlan) -> Vec<Observed> {
    fn read(plan: &dyn ExecutionPlan, observed: &mut Vec<Observed>) {
        plan.children().into_iter().for_each(|input| read(input.as_ref(), observed));
        let metrics = plan.metrics();
        let nanoseconds = metrics.as_ref().map(|metrics| {
            let decoding =
                metrics.sum(|metric| matches!(metric.value(), MetricValue::Time { name, .. } if name == DECODING));
            let decoding = decoding.map_or(0, |decoding| decoding.as_usize());
            metrics.elapsed_compute().unwrap_or(0).max(decoding)
        });
        observed.push(Observed {
            rows: metrics.as_ref().and_then(|metrics| metrics.output_rows()).map(|rows| rows as f32),
            elapsed_us: nanoseconds.filter(|nanoseconds| *nanoseconds > 0).map(|nanoseconds| nanoseconds as f32 / 1e3),
        });
    }
    let mut observed = vec![];
    read(plan, &mut observed);
    observed
}
