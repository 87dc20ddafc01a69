//! Which column a table had better be sorted by: a workload's predicted time with a table's file in another order.
//!
//! A filter on the column that a Parquet file is sorted by lets a scan leave out the pages without a match. The queries are planned
//! as they are; where a scan reads such a table, the rows and bytes that it reads are lowered to the share that is left, and the
//! physical-plan expert predicts the plan anew. Nothing is run or rewritten. What filters on other columns lose with the order that the
//! file has now is not counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::TableProvider;
use datafusion::catalog::memory::DataSourceExec;
use datafusion::common::TableReference;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::listing::ListingTable;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Operator, TableScan};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use relata_featurize::physical::{OperatorKind, OperatorRows};

use crate::optimizer::optimized;
use crate::runtime::EstimatedPlan;
use crate::{Relata, RelataError, Result, estimate};

/// Rows of a Parquet page, which is read or left out as a whole.
const PAGE_ROWS: f64 = 20_000.0;

/// A column to sort a table by, and what it is predicted to do to a workload.
#[derive(Debug, Clone, PartialEq)]
pub struct LayoutAdvice {
    /// The table.
    pub table: TableReference,
    /// The column.
    pub column: String,
    /// Queries that filter the column.
    pub queries: usize,
    /// Predicted time of those queries as the table is,
    pub before: Duration,
    /// and sorted by the column.
    pub after: Duration,
}

/// A column that a query filters: the share of what its scan reads that is left in a sorted table.
struct Filtered {
    table: TableReference,
    provider: Arc<dyn TableProvider>,
    column: String,
    left: f64,
}

impl Relata {
    /// The columns that tables of files had better be sorted by for a workload of `queries`, in a session that relata is installed
    /// in; the one that saves most comes first. Queries that cannot be planned are left out.
    ///
    /// # Errors
    /// Nothing predicts runtimes.
    pub async fn advise_layout(&self, ctx: &SessionContext, queries: &[String]) -> Result<Vec<LayoutAdvice>> {
        let clock = self.clock().await.ok_or_else(|| RelataError::NoRuntime("no expert or no machine".to_owned()))?;
        let state = ctx.state();
        let mut found: BTreeMap<(String, String), LayoutAdvice> = BTreeMap::new();
        for sql in queries {
            let Ok(plan) = optimized(&state, sql).await else { continue };
            let Ok(planned) = self.estimated_plan(&state, sql).await else { continue };
            let residual = clock.residual(&planned);
            let time = |planned: &EstimatedPlan| Some(clock.corrected(planned, residual)?.elapsed[1]);
            let Some(before) = time(&planned) else { continue };
            for filtered in self.filtered(&plan) {
                let Some(after) = sorted(&planned, &filtered).as_ref().and_then(time) else { continue };
                let key = (filtered.table.to_string(), filtered.column.clone());
                let advice = found.entry(key).or_insert_with(|| LayoutAdvice {
                    table: filtered.table,
                    column: filtered.column,
                    queries: 0,
                    before: Duration::ZERO,
                    after: Duration::ZERO,
                });
                advice.queries += 1;
                advice.before += before;
                // A shorter scan never costs.
                advice.after += after.min(before);
            }
        }
        let mut advice: Vec<LayoutAdvice> = found.into_values().filter(|one| one.after < one.before).collect();
        advice.sort_by_key(|one| std::cmp::Reverse(one.before - one.after));
        Ok(advice)
    }

    /// The columns of tables of files that a query compares with constants.
    fn filtered(&self, plan: &LogicalPlan) -> Vec<Filtered> {
        let mut found: Vec<Filtered> = vec![];
        let _ = plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && let Ok(provider) = source_as_provider(&scan.source)
                && provider.is::<ListingTable>()
            {
                let mut by_column: BTreeMap<String, Vec<Expr>> = BTreeMap::new();
                for filter in scan.filters.iter().flat_map(split_conjunction) {
                    if let Some(column) = compared(filter) {
                        by_column.entry(column.to_owned()).or_default().push(filter.clone());
                    }
                }
                for (column, filters) in by_column {
                    // A table that is scanned twice is sorted once.
                    let known = |one: &Filtered| one.column == column && Arc::ptr_eq(&one.provider, &provider);
                    if !found.iter().any(known)
                        && let Some(left) = self.left(scan, &provider, &column, filters)
                    {
                        let (table, provider) = (scan.table_name.clone(), Arc::clone(&provider));
                        found.push(Filtered { table, provider, column, left });
                    }
                }
            }
            Ok(TreeNodeRecursion::Continue)
        });
        found
    }

    /// The share of the pages read now that are read of a sorted table.
    fn left(
        &self,
        scan: &TableScan,
        provider: &Arc<dyn TableProvider>,
        column: &str,
        filters: Vec<Expr>,
    ) -> Option<f64> {
        let table = self.profiles.get(provider)?;
        let sketch = &table.profile.columns[provider.schema().index_of(column).ok()?];
        let builder = LogicalPlanBuilder::scan(scan.table_name.clone(), Arc::clone(&scan.source), None).ok()?;
        let filtered = builder.filter(conjunction(filters)?).ok()?.build().ok()?;
        let rows = table.profile.rows.max(1.0);
        let kept = (estimate::rows(&self.estimator(), &filtered).rows / rows).clamp(0.0, 1.0);
        let read = |unsorted: f64| (kept + unsorted + PAGE_ROWS / rows).min(1.0);
        Some(read(0.0) / read(1.0 - sketch.order.clustering))
    }
}

/// The one column that a condition compares with constants.
fn compared(condition: &Expr) -> Option<&str> {
    use Operator::{Eq, Gt, GtEq, Lt, LtEq};
    let constant = |expr: &Expr| matches!(expr, Expr::Literal(..));
    match condition {
        Expr::BinaryExpr(binary) if matches!(binary.op, Operator::And | Operator::Or) => {
            let (left, right) = (compared(&binary.left)?, compared(&binary.right)?);
            (left == right).then_some(left)
        }
        Expr::BinaryExpr(binary) if matches!(binary.op, Eq | Lt | LtEq | Gt | GtEq) => {
            match (&*binary.left, &*binary.right) {
                (left, right) if constant(right) => name(left),
                (left, right) if constant(left) => name(right),
                _ => None,
            }
        }
        Expr::Between(between) if !between.negated && constant(&between.low) && constant(&between.high) => {
            name(&between.expr)
        }
        Expr::InList(list) if !list.negated && list.list.iter().all(constant) => name(&list.expr),
        _ => None,
    }
}

fn name(column: &Expr) -> Option<&str> {
    column.try_as_col().map(|column| column.name.as_str())
}

/// A plan whose scans of a table read only what is left; `None` where none does.
fn sorted(planned: &EstimatedPlan, filtered: &Filtered) -> Option<EstimatedPlan> {
    let mut leaves = vec![];
    scans(planned.plan.as_ref(), filtered, &mut 0, &mut leaves);
    if leaves.is_empty() {
        return None;
    }
    let mut sorted = planned.clone();
    let left = filtered.left as f32;
    let fewer = |rows: Option<OperatorRows>| {
        rows.map(|rows| OperatorRows { rows: rows.rows * left, upper: rows.upper * left, ..rows })
    };
    let graph = &mut sorted.graph;
    let mut shrinks = vec![false; graph.operators.len()];
    for (index, operator) in graph.operators.iter_mut().enumerate() {
        let passes = matches!(operator.kind, OperatorKind::Repartition | OperatorKind::Coalesce);
        let above = passes && operator.inputs.iter().all(|input| shrinks[*input as usize]);
        shrinks[index] = above || leaves.contains(&index);
        if leaves.contains(&index) {
            operator.facts.table_rows *= left;
            operator.facts.file_bytes *= left;
        }
        if shrinks[index] {
            sorted.rows[index] = fewer(sorted.rows[index]);
        }
    }
    Some(sorted)
}

/// The numbers of the operators that scan a table and filter its column, in the order of the graph.
fn scans(plan: &dyn ExecutionPlan, filtered: &Filtered, next: &mut usize, found: &mut Vec<usize>) {
    plan.children().into_iter().for_each(|input| scans(input.as_ref(), filtered, next, found));
    let scan =
        plan.downcast_ref::<DataSourceExec>().and_then(|scan| scan.data_source().downcast_ref::<FileScanConfig>());
    if let Some(scan) = scan
        && let Some(table) = filtered.provider.downcast_ref::<ListingTable>()
        && let Some(filter) = scan.file_source().filter()
    {
        let files = scan.file_groups.iter().flat_map(|group| group.iter());
        let mut locations = files.map(|file| &file.object_meta.location);
        let own = locations.all(|file| table.table_paths().iter().any(|url| url.contains(file, true)));
        let columns = datafusion::physical_expr::utils::collect_columns(&filter);
        if own && columns.iter().any(|column| column.name() == filtered.column) {
            found.push(*next);
        }
    }
    *next += 1;
}

#[cfg(test)]
mod tests;
