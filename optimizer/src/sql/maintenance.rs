//! `relata_analyze()`, `relata_profiles()` and `relata_drop()`: what [`Relata`] does to its profiles, as tables;
//! `relata_counters()` and `relata_explain('SELECT ...')`: what it does to queries.
//!
//! The work is done when the plan runs, so that EXPLAIN does none of it.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt64Array,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{TableReference, not_impl_err, plan_err};
use datafusion::datasource::TableType;
use datafusion::error::Result;
use datafusion::execution::session_state::SessionState;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::SessionContext;

use crate::estimate::Estimate;
use crate::join_order::Considered;
use crate::profiles::{ProfileSource, TableReport};
use crate::{CounterValues, ProfileReport, Relata};

/// What a function does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Analyze,
    Profiles,
    Drop,
    Counters,
    Explain,
}

impl Action {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Analyze => "relata_analyze",
            Self::Profiles => "relata_profiles",
            Self::Drop => "relata_drop",
            Self::Counters => "relata_counters",
            Self::Explain => "relata_explain",
        }
    }

    fn schema(self) -> SchemaRef {
        let text = |name| Field::new(name, DataType::Utf8, true);
        let number = |name| Field::new(name, DataType::UInt64, true);
        let fields = match self {
            Self::Analyze => vec![
                text("table_name"),
                number("rows"),
                number("columns"),
                number("bytes"),
                Field::new("milliseconds", DataType::Float64, true),
                text("source"),
                text("error"),
            ],
            Self::Profiles | Self::Drop => vec![
                text("table_name"),
                number("rows"),
                number("columns"),
                number("bytes"),
                text("source"),
                Field::new("stored", DataType::Boolean, true),
                Field::new("made", DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into())), true),
            ],
            Self::Counters => vec![text("counter"), number("value")],
            Self::Explain => vec![
                number("region"),
                text("kind"),
                text("relations"),
                Field::new("rows", DataType::Float64, true),
                Field::new("lower", DataType::Float64, true),
                Field::new("upper", DataType::Float64, true),
                text("origin"),
                Field::new("cost", DataType::Float64, true),
                Field::new("chosen", DataType::Boolean, true),
            ],
        };
        Arc::new(Schema::new(fields))
    }
}

/// The table function of an action.
#[derive(Debug)]
pub(super) struct Maintenance {
    pub(super) relata: Relata,
    pub(super) action: Action,
}

impl TableFunctionImpl for Maintenance {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let name = self.action.name();
        let text = match args.exprs() {
            [Expr::Literal(value, _)] => value.try_as_str().flatten(),
            _ => None,
        };
        let argument = match (self.action, args.exprs().len(), text) {
            (Action::Analyze | Action::Drop | Action::Explain, 1, Some(text)) => Some(text.to_owned()),
            (Action::Analyze | Action::Drop | Action::Profiles | Action::Counters, 0, _) => None,
            (Action::Analyze | Action::Drop, ..) => {
                return plan_err!(
                    "{name} takes the name of a table as a string, {name}('table'), or nothing for all tables"
                );
            }
            (Action::Explain, ..) => return plan_err!("{name} takes one query as a string: {name}('SELECT ...')"),
            (Action::Profiles | Action::Counters, ..) => return plan_err!("{name} takes no argument"),
        };
        let Some(state) = args.session().as_any().downcast_ref::<SessionState>() else {
            return not_impl_err!("{name} in a session that is no SessionState");
        };
        let ctx = SessionContext::new_with_state(state.clone());
        let (relata, action, schema) = (self.relata.clone(), self.action, self.action.schema());
        let rows = Arc::new(ActionRows { relata, action, argument, ctx, schema: Arc::clone(&schema) });
        Ok(Arc::new(ActionTable(StreamingTable::try_new(schema, vec![rows])?)))
    }
}

/// What a function returns.
#[derive(Debug)]
pub(super) struct ActionTable(StreamingTable);

#[async_trait]
impl TableProvider for ActionTable {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
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
        self.0.scan(session, projection, filters, limit).await
    }
}

/// Does the work when its rows are asked for.
struct ActionRows {
    relata: Relata,
    action: Action,
    argument: Option<String>,
    ctx: SessionContext,
    schema: SchemaRef,
}

impl fmt::Debug for ActionRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActionRows")
            .field("action", &self.action)
            .field("argument", &self.argument)
            .finish_non_exhaustive()
    }
}

impl PartitionStream for ActionRows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (relata, action, argument) = (self.relata.clone(), self.action, self.argument.clone());
        let (ctx, schema) = (self.ctx.clone(), Arc::clone(&self.schema));
        let rows = async move {
            let table = argument.as_deref().filter(|_| action != Action::Explain).map(TableReference::from);
            let columns = match action {
                Action::Analyze => analyzed(&relata.analyze(&ctx, table).await?),
                Action::Profiles => profiles(&relata.profiles(&ctx).await?),
                Action::Drop => profiles(&relata.forget(&ctx, table).await?),
                Action::Counters => counters(relata.counters()),
                Action::Explain => {
                    considered(&relata.considered(&ctx.state(), argument.as_deref().unwrap_or_default()).await?)
                }
            };
            Ok(RecordBatch::try_new(schema, columns)?)
        };
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), futures::stream::once(rows)))
    }
}

fn analyzed(reports: &[TableReport]) -> Vec<ArrayRef> {
    vec![
        Arc::new(StringArray::from_iter_values(reports.iter().map(|report| report.table.to_string()))),
        Arc::new(UInt64Array::from_iter_values(reports.iter().map(|report| report.rows))),
        Arc::new(UInt64Array::from_iter_values(reports.iter().map(|report| report.columns as u64))),
        Arc::new(UInt64Array::from_iter_values(reports.iter().map(|report| report.bytes as u64))),
        Arc::new(Float64Array::from_iter_values(reports.iter().map(|report| report.elapsed.as_secs_f64() * 1e3))),
        Arc::new(StringArray::from_iter_values(reports.iter().map(|report| source(report.source)))),
        Arc::new(StringArray::from_iter(reports.iter().map(|report| report.error.as_deref()))),
    ]
}

fn profiles(reports: &[ProfileReport]) -> Vec<ArrayRef> {
    let loaded = || reports.iter().map(|report| report.loaded);
    let made = reports.iter().map(|report| milliseconds(report.made?));
    vec![
        Arc::new(StringArray::from_iter_values(reports.iter().map(|report| report.table.to_string()))),
        Arc::new(UInt64Array::from_iter(loaded().map(|loaded| Some(loaded?.rows)))),
        Arc::new(UInt64Array::from_iter(loaded().map(|loaded| Some(loaded?.columns as u64)))),
        Arc::new(UInt64Array::from_iter(loaded().map(|loaded| Some(loaded?.bytes as u64)))),
        Arc::new(StringArray::from_iter(loaded().map(|loaded| Some(source(loaded?.source))))),
        Arc::new(BooleanArray::from_iter(reports.iter().map(|report| Some(report.stored)))),
        Arc::new(TimestampMillisecondArray::from_iter(made).with_timezone("+00:00")),
    ]
}

fn counters(values: CounterValues) -> Vec<ArrayRef> {
    let values = values.named();
    vec![
        Arc::new(StringArray::from_iter_values(values.iter().map(|(name, _)| name))),
        Arc::new(UInt64Array::from_iter_values(values.iter().map(|(_, value)| *value))),
    ]
}

fn considered(rows: &[Considered]) -> Vec<ArrayRef> {
    let known = |number: fn(&Estimate) -> f64| {
        let estimates = rows.iter().map(|row| row.estimate);
        let numbers = estimates.map(|estimate| estimate.is_known().then(|| number(&estimate)));
        Arc::new(Float64Array::from_iter(numbers)) as ArrayRef
    };
    vec![
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.region as u64))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.kind))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.relations))),
        known(|estimate| estimate.rows),
        known(|estimate| estimate.lower),
        known(|estimate| estimate.upper),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.estimate.origin.to_string()))),
        Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.cost))),
        Arc::new(BooleanArray::from_iter(rows.iter().map(|row| Some(row.chosen)))),
    ]
}

fn source(source: ProfileSource) -> &'static str {
    match source {
        ProfileSource::Built => "built",
        ProfileSource::Updated => "updated",
        ProfileSource::Loaded => "loaded",
    }
}

fn milliseconds(time: SystemTime) -> Option<i64> {
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}
