//! The predictions of `PREDICT(...)` as a table.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::not_impl_err;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream,
};
use futures::StreamExt;

use crate::predict::{Prepared, Shape};
use crate::{PredictTask, Relata};

/// The predictions of a task, made when they are scanned.
pub(super) struct PredictedTable {
    pub(super) relata: Relata,
    pub(super) task: PredictTask,
    pub(super) target: LogicalPlan,
    pub(super) entities: LogicalPlan,
    pub(super) shape: Shape,
    pub(super) schema: SchemaRef,
}

impl fmt::Debug for PredictedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PredictedTable").field("task", &self.task).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for PredictedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(session) = session.as_any().downcast_ref::<SessionState>() else {
            return not_impl_err!("PREDICT in a session that is no SessionState");
        };
        let Self { relata, task, target, entities, shape, .. } = self;
        let prepared = Prepared::new(relata, session, task, target.clone(), entities.clone(), shape.clone()).await?;
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Ok(Arc::new(PredictExec {
            relata: relata.clone(),
            session: session.clone(),
            prepared,
            projection: projection.cloned(),
            limit,
            properties: Arc::new(properties),
        }))
    }
}

/// Runs a task's queries, describes their rows and predicts.
struct PredictExec {
    relata: Relata,
    session: SessionState,
    prepared: Prepared,
    projection: Option<Vec<usize>>,
    /// Entities that are predicted at most.
    limit: Option<usize>,
    properties: Arc<PlanProperties>,
}

impl fmt::Debug for PredictExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PredictExec").field("prepared", &self.prepared).finish_non_exhaustive()
    }
}

impl DisplayAs for PredictExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (summary, features) = (self.prepared.summary(), self.prepared.features());
        let count = features.len();
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "PredictExec: {}", summary.join(", "))?;
                self.limit.map_or(Ok(()), |limit| write!(f, ", limit={limit}"))?;
                write!(f, ", computed={count} [{}]", features.join(", "))
            }
            DisplayFormatType::TreeRender => {
                summary.iter().try_for_each(|line| writeln!(f, "{line}"))?;
                writeln!(f, "computed={count}")
            }
        }
    }
}

impl ExecutionPlan for PredictExec {
    fn name(&self) -> &str {
        "PredictExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (relata, session, prepared) = (self.relata.clone(), self.session.clone(), self.prepared.clone());
        let (projection, limit) = (self.projection.clone(), self.limit);
        let batches = async move {
            let predictions = prepared.run(&relata, &session, limit).await?;
            let projected = predictions.batches.into_iter().map(move |batch| match &projection {
                Some(columns) => batch.project(columns).map_err(DataFusionError::from),
                None => Ok(batch),
            });
            Ok::<_, DataFusionError>(futures::stream::iter(projected))
        };
        let stream = futures::TryStreamExt::try_flatten(futures::stream::once(batches)).boxed();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }
}
