//! `approx_answer('SELECT ...')`: the approximate answer of an aggregating query as a table.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{MemTable, Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{not_impl_err, plan_err};
use datafusion::datasource::TableType;
use datafusion::error::Result;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use futures::FutureExt;

use crate::Relata;
use crate::answer::Split;

/// The table function.
#[derive(Debug)]
pub(crate) struct ApproxAnswer {
    pub(crate) relata: Relata,
}

impl TableFunctionImpl for ApproxAnswer {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let sql = match args.exprs() {
            [Expr::Literal(value, _)] => value.try_as_str().flatten(),
            _ => None,
        };
        let Some(sql) = sql else {
            return plan_err!("approx_answer takes one query as a string: approx_answer('SELECT ...')");
        };
        let Some(state) = args.session().as_any().downcast_ref::<SessionState>() else {
            return not_impl_err!("approx_answer in a session that is no SessionState");
        };
        // Catalogs in memory and on disk answer at once; a table function cannot wait for others.
        let Some(plan) = state.create_logical_plan(sql).now_or_never() else {
            return not_impl_err!("approx_answer over a catalog that has to be waited for; Relata::answer can");
        };
        let split = Split::new(state, &plan?)?;
        Ok(Arc::new(ApproxAnswerTable { relata: self.relata.clone(), state: state.clone(), split }))
    }
}

/// The answer of one query; it is estimated when it is scanned.
struct ApproxAnswerTable {
    relata: Relata,
    state: SessionState,
    split: Split,
}

impl std::fmt::Debug for ApproxAnswerTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApproxAnswerTable").field("schema", &self.split.schema()).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for ApproxAnswerTable {
    fn schema(&self) -> datafusion::arrow::datatypes::SchemaRef {
        self.split.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let batches = self.relata.answer_split(&self.state, &self.split).await?;
        let schema = batches.first().map_or_else(|| self.schema(), |batch| batch.schema());
        MemTable::try_new(schema, vec![batches])?.scan(session, projection, filters, limit).await
    }
}
