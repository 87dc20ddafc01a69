//! What a physical operator says of itself.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::JoinType;
use datafusion::common::stats::Precision;
use datafusion::datasource::memory::DataSourceExec;
use datafusion::datasource::physical_plan::{FileScanConfig, FileSource};
use datafusion::physical_expr::expressions::{Column, LikeExpr};
use datafusion::physical_expr::{Partitioning, PhysicalExpr};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode, SortMergeJoinExec,
};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::{InterleaveExec, UnionExec};
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, StatisticsArgs, StatisticsContext};

use super::{Facts, OperatorKind, row_width};

/// What an operator does, and what it says of itself.
pub(super) fn of(plan: &dyn ExecutionPlan) -> (OperatorKind, Facts) {
    let schema = plan.schema();
    let mut facts = Facts {
        partitions: plan.output_partitioning().partition_count() as f32,
        width: width(&schema),
        columns: schema.fields().len() as f32,
        variable: schema.fields().iter().filter(|field| is_variable(field.data_type())).count() as f32,
        fetch: plan.fetch().unwrap_or(0) as f32,
        ..Facts::default()
    };
    let kind = facts.read(plan);
    (kind, facts)
}

fn width(schema: &Schema) -> f32 {
    row_width(schema) as f32
}

fn is_variable(data_type: &DataType) -> bool {
    data_type.primitive_width().is_none() && *data_type != DataType::Boolean
}

impl Facts {
    fn read(&mut self, plan: &dyn ExecutionPlan) -> OperatorKind {
        if let Some(scan) = plan.downcast_ref::<DataSourceExec>() {
            self.scan(scan);
            return OperatorKind::Scan;
        }
        if let Some(filter) = plan.downcast_ref::<FilterExec>() {
            self.expression(filter.predicate());
            return OperatorKind::Filter;
        }
        if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
            projection.expr().iter().for_each(|projected| self.expression(&projected.expr));
            return OperatorKind::Projection;
        }
        if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
            let schema = join.left().schema();
            join.on().iter().for_each(|(left, _)| self.key(left, &schema));
            self.mode = flag(*join.partition_mode() == PartitionMode::CollectLeft);
            self.join(*join.join_type(), join.filter().is_some());
            return OperatorKind::HashJoin;
        }
        if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
            self.join(*join.join_type(), join.filter().is_some());
            return OperatorKind::NestedLoopJoin;
        }
        if let Some(join) = plan.downcast_ref::<SortMergeJoinExec>() {
            self.keys = join.on().len() as f32;
            self.join(join.join_type(), join.filter().is_some());
            return OperatorKind::SortMergeJoin;
        }
        if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
            let schema = aggregate.input().schema();
            aggregate.group_expr().expr().iter().for_each(|(key, _)| self.key(key, &schema));
            self.mode = flag(*aggregate.mode() == AggregateMode::Partial);
            for function in aggregate.aggr_expr() {
                self.expressions += 1.0 + f32::from(u8::from(function.is_distinct()));
                function.expressions().iter().for_each(|argument| self.expression(argument));
            }
            // Every grouping set is a pass over the rows.
            let sets = aggregate.group_expr().groups().len().max(1) as f32;
            for all in [&mut self.expressions, &mut self.text, &mut self.keys, &mut self.variable_keys] {
                *all *= sets;
            }
            return OperatorKind::Aggregate;
        }
        if let Some(sort) = plan.downcast_ref::<SortExec>() {
            let schema = sort.input().schema();
            sort.expr().iter().for_each(|key| self.key(&key.expr, &schema));
            return OperatorKind::Sort;
        }
        if let Some(repartition) = plan.downcast_ref::<RepartitionExec>() {
            if let Partitioning::Hash(keys, _) = repartition.partitioning() {
                self.mode = 1.0;
                keys.iter().for_each(|key| self.key(key, &plan.schema()));
            }
            return OperatorKind::Repartition;
        }
        let windows = plan.downcast_ref::<WindowAggExec>().map(WindowAggExec::window_expr);
        let windows =
            windows.or_else(|| plan.downcast_ref::<BoundedWindowAggExec>().map(BoundedWindowAggExec::window_expr));
        if let Some(windows) = windows {
            for window in windows {
                self.expressions += 1.0;
                window.expressions().iter().for_each(|argument| self.expression(argument));
            }
            if let Some(window) = windows.first() {
                let schema = plan.schema();
                window.partition_by().iter().for_each(|key| self.key(key, &schema));
                window.order_by().iter().for_each(|key| self.key(&key.expr, &schema));
            }
            return OperatorKind::Window;
        }
        match plan {
            _ if plan.is::<CrossJoinExec>() => OperatorKind::NestedLoopJoin,
            _ if plan.is::<SortPreservingMergeExec>() => OperatorKind::Merge,
            _ if plan.is::<CoalescePartitionsExec>() => OperatorKind::Coalesce,
            _ if plan.is::<GlobalLimitExec>() || plan.is::<LocalLimitExec>() => OperatorKind::Limit,
            _ if plan.is::<UnionExec>() || plan.is::<InterleaveExec>() => OperatorKind::Union,
            _ => OperatorKind::Other,
        }
    }

    fn join(&mut self, join_type: JoinType, filtered: bool) {
        self.filtered = flag(filtered);
        self.outer = match join_type {
            JoinType::Inner => 0.0,
            JoinType::Left | JoinType::Right | JoinType::Full => 2.0,
            _ => 1.0,
        };
    }

    fn key(&mut self, key: &Arc<dyn PhysicalExpr>, schema: &Schema) {
        self.keys += 1.0;
        let variable = key.data_type(schema).is_ok_and(|data_type| is_variable(&data_type));
        self.variable_keys += flag(variable);
        self.expression(key);
    }

    /// Counts the nodes of an expression; a column is free.
    fn expression(&mut self, expression: &Arc<dyn PhysicalExpr>) {
        self.expressions += flag(!expression.is::<Column>());
        self.text += flag(expression.is::<LikeExpr>());
        expression.children().into_iter().for_each(|child| self.expression(child));
    }

    fn scan(&mut self, scan: &DataSourceExec) {
        self.share = 1.0;
        let Some(config) = scan.data_source().downcast_ref::<FileScanConfig>() else {
            let statistics = StatisticsContext::new().compute(scan, &StatisticsArgs::new());
            self.table_rows = statistics.map_or(0.0, |statistics| rows(statistics.num_rows));
            return;
        };
        let source: &dyn FileSource = config.file_source().as_ref();
        self.parquet = flag(source.file_type() == "parquet");
        if let Some(filter) = source.filter() {
            self.filtered = 1.0;
            self.expression(&filter);
        }
        let table = source.table_schema().table_schema();
        self.share = self.columns / (table.fields().len() as f32).max(1.0);
        for file in config.file_groups.iter().flat_map(|group| group.iter()) {
            let size = file.object_meta.size as f32;
            let read = file.range.as_ref().map_or(size, |range| (range.end - range.start).max(0) as f32);
            self.file_bytes += read;
            let of_file = file.statistics.as_ref().map_or(0.0, |statistics| rows(statistics.num_rows));
            self.table_rows += of_file * read / size.max(1.0);
        }
        // Wide columns are a larger share of a file than narrow ones.
        self.file_bytes *= (self.width / width(table).max(1.0)).min(1.0);
    }
}

fn flag(value: bool) -> f32 {
    f32::from(u8::from(value))
}

fn rows(rows: Precision<usize>) -> f32 {
    match rows {
        Precision::Exact(rows) | Precision::Inexact(rows) => rows as f32,
        Precision::Absent => 0.0,
    }
}
