//! Which columns of tables an output column of a query comes from.

use std::collections::BTreeSet;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ResolvedTableReference};
use datafusion::error::Result;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Aggregate, Distinct, Expr, Join, JoinType, LogicalPlan, TableScan, Window};

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BaseColumn {
    pub(super) table: ResolvedTableReference,
    pub(super) column: String,
}

/// Where the values of an output column come from.
#[derive(Debug, Clone, Default)]
pub(super) struct Lineage {
    /// The column that it is, value for value; `None` where it is computed.
    pub(super) direct: Option<BaseColumn>,
    /// The columns that its values are computed from.
    pub(super) columns: BTreeSet<BaseColumn>,
    /// The columns that decide which rows its values are computed from: those that are grouped by, joined on and filtered
    /// by below an aggregate, a window or an outer join.
    pub(super) selecting: BTreeSet<BaseColumn>,
}

impl Lineage {
    fn merge(&mut self, other: Self) {
        self.columns.extend(other.columns);
        self.selecting.extend(other.selecting);
    }

    /// All of its columns.
    fn all(self) -> BTreeSet<BaseColumn> {
        self.columns.into_iter().chain(self.selecting).collect()
    }
}

/// Walks plans, which may be optimized or not. Views are looked into.
pub(super) struct Walk<'a> {
    pub(super) session: &'a SessionState,
}

impl Walk<'_> {
    /// Where an output column of a plan comes from. Below nodes that are not known it is everything that they mention.
    pub(super) fn output(&self, plan: &LogicalPlan, index: usize) -> Result<Lineage> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan, index),
            LogicalPlan::Projection(node) => self.expression(&node.expr[index], &[&node.input]),
            LogicalPlan::SubqueryAlias(node) => self.output(&node.input, index),
            LogicalPlan::Subquery(node) => self.output(&node.subquery, index),
            LogicalPlan::Filter(node) => self.output(&node.input, index),
            LogicalPlan::Sort(node) => self.output(&node.input, index),
            LogicalPlan::Limit(node) => self.output(&node.input, index),
            LogicalPlan::Repartition(node) => self.output(&node.input, index),
            LogicalPlan::Distinct(Distinct::All(input)) => self.output(input, index),
            LogicalPlan::Distinct(Distinct::On(node)) => self.expression(&node.select_expr[index], &[&node.input]),
            LogicalPlan::Aggregate(node) => self.aggregate(node, index),
            LogicalPlan::Window(node) => self.window(node, index),
            LogicalPlan::Join(node) => self.join(node, index),
            LogicalPlan::Union(node) => {
                let mut inputs = node.inputs.iter().map(|input| self.output(input, index));
                let mut lineage = inputs.next().transpose()?.unwrap_or_default();
                for input in inputs {
                    let input = input?;
                    lineage.direct = lineage.direct.filter(|direct| Some(direct) == input.direct.as_ref());
                    lineage.merge(Lineage { direct: None, ..input });
                }
                Ok(lineage)
            }
            LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => Ok(Lineage::default()),
            other => Ok(Lineage { columns: self.mentioned(other)?, ..Lineage::default() }),
        }
    }

    fn scan(&self, scan: &TableScan, index: usize) -> Result<Lineage> {
        let index = scan.projection.as_ref().map_or(index, |columns| columns[index]);
        if let Some(view) = scan.source.get_logical_plan() {
            return self.output(&view, index);
        }
        let column = scan.source.schema().field(index).name().clone();
        let base = self.base(scan, column);
        Ok(Lineage { direct: Some(base.clone()), columns: BTreeSet::from([base]), selecting: BTreeSet::new() })
    }

    fn base(&self, scan: &TableScan, column: String) -> BaseColumn {
        let catalog = &self.session.config_options().catalog;
        let table = scan.table_name.clone().resolve(&catalog.default_catalog, &catalog.default_schema);
        BaseColumn { table, column }
    }

    /// Columns that a scan filters by.
    fn filtered(&self, scan: &TableScan) -> impl Iterator<Item = BaseColumn> {
        let filters = scan.filters.iter().flat_map(Expr::column_refs);
        filters.map(|column| self.base(scan, column.name.clone()))
    }

    fn aggregate(&self, node: &Aggregate, index: usize) -> Result<Lineage> {
        if let Some(Expr::GroupingSet(_)) = node.group_expr.first() {
            let columns = self.mentioned(&LogicalPlan::Aggregate(node.clone()))?;
            return Ok(Lineage { columns, ..Lineage::default() });
        }
        let groups = node.group_expr.len();
        if index < groups {
            return self.expression(&node.group_expr[index], &[&node.input]);
        }
        let mut lineage = self.expression(&node.aggr_expr[index - groups], &[&node.input])?;
        for group in &node.group_expr {
            lineage.selecting.extend(self.expression(group, &[&node.input])?.all());
        }
        lineage.selecting.extend(self.selecting(&node.input)?);
        Ok(Lineage { direct: None, ..lineage })
    }

    fn window(&self, node: &Window, index: usize) -> Result<Lineage> {
        let inputs = node.input.schema().fields().len();
        if index < inputs {
            return self.output(&node.input, index);
        }
        let mut lineage = self.expression(&node.window_expr[index - inputs], &[&node.input])?;
        lineage.selecting.extend(self.selecting(&node.input)?);
        Ok(Lineage { direct: None, ..lineage })
    }

    fn join(&self, node: &Join, index: usize) -> Result<Lineage> {
        let left = node.left.schema().fields().len();
        let (is_left, place) = match node.join_type {
            JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
                if index < left {
                    (true, index)
                } else {
                    (false, index - left)
                }
            }
            JoinType::LeftSemi | JoinType::LeftAnti => (true, index),
            JoinType::RightSemi | JoinType::RightAnti => (false, index),
            JoinType::LeftMark if index < left => (true, index),
            JoinType::RightMark if index < node.right.schema().fields().len() => (false, index),
            JoinType::LeftMark | JoinType::RightMark => {
                let mut columns = self.condition(node)?;
                columns.extend(self.selecting(&node.left)?);
                columns.extend(self.selecting(&node.right)?);
                return Ok(Lineage { columns, ..Lineage::default() });
            }
        };
        let input = if is_left { &node.left } else { &node.right };
        let may_be_missing = match node.join_type {
            JoinType::Left => !is_left,
            JoinType::Right => is_left,
            join_type => join_type == JoinType::Full,
        };
        let mut lineage = self.output(input, place)?;
        if may_be_missing {
            // Whether there is a value at all is up to the condition.
            lineage.selecting.extend(self.condition(node)?);
            lineage.selecting.extend(self.selecting(input)?);
        }
        Ok(lineage)
    }

    /// Columns that the rows of a join are matched by.
    fn condition(&self, node: &Join) -> Result<BTreeSet<BaseColumn>> {
        let sides = [node.left.as_ref(), node.right.as_ref()];
        let mut columns = BTreeSet::new();
        for expr in node.on.iter().flat_map(|(left, right)| [left, right]).chain(&node.filter) {
            columns.extend(self.expression(expr, &sides)?.all());
        }
        Ok(columns)
    }

    /// Columns that decide which rows a plan has: of the conditions of its joins and filters.
    fn selecting(&self, plan: &LogicalPlan) -> Result<BTreeSet<BaseColumn>> {
        let mut columns = BTreeSet::new();
        plan.apply(|node| {
            match node {
                LogicalPlan::Join(join) => columns.extend(self.condition(join)?),
                LogicalPlan::Filter(filter) => {
                    columns.extend(self.expression(&filter.predicate, &[filter.input.as_ref()])?.all());
                }
                LogicalPlan::TableScan(scan) => {
                    if let Some(view) = scan.source.get_logical_plan() {
                        columns.extend(self.selecting(&view)?);
                    }
                    columns.extend(self.filtered(scan));
                }
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(columns)
    }

    /// Where the value of an expression over some inputs comes from.
    fn expression(&self, expr: &Expr, inputs: &[&LogicalPlan]) -> Result<Lineage> {
        let mut stripped = expr;
        while let Expr::Alias(_) | Expr::Cast(_) = stripped {
            stripped = match stripped {
                Expr::Alias(alias) => &alias.expr,
                Expr::Cast(cast) => &cast.expr,
                other => other,
            };
        }
        if let Expr::Column(column) = stripped {
            return self.column(column, inputs);
        }
        let mut lineage = Lineage::default();
        expr.apply(|part| {
            let (subquery, is_read) = match part {
                Expr::Column(column) => {
                    lineage.merge(self.column(column, inputs)?);
                    return Ok(TreeNodeRecursion::Continue);
                }
                Expr::ScalarSubquery(subquery) => (&subquery.subquery, true),
                Expr::Exists(exists) => (&exists.subquery.subquery, false),
                Expr::InSubquery(within) => (&within.subquery.subquery, true),
                Expr::SetComparison(comparison) => (&comparison.subquery.subquery, true),
                _ => return Ok(TreeNodeRecursion::Continue),
            };
            lineage.columns.extend(self.mentioned(subquery)?);
            for index in 0..if is_read { subquery.schema().fields().len() } else { 0 } {
                lineage.columns.extend(self.output(subquery, index)?.all());
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(lineage)
    }

    fn column(&self, column: &Column, inputs: &[&LogicalPlan]) -> Result<Lineage> {
        for input in inputs {
            if let Some(index) = input.schema().maybe_index_of_column(column) {
                return self.output(input, index);
            }
        }
        Ok(Lineage::default())
    }

    /// Every column that a plan's expressions and outputs mention.
    fn mentioned(&self, plan: &LogicalPlan) -> Result<BTreeSet<BaseColumn>> {
        let mut columns = BTreeSet::new();
        plan.apply(|node| {
            let inputs = node.inputs();
            node.apply_expressions(|expr| {
                columns.extend(self.expression(expr, &inputs)?.all());
                Ok(TreeNodeRecursion::Continue)
            })?;
            if let LogicalPlan::TableScan(scan) = node {
                if let Some(view) = scan.source.get_logical_plan() {
                    columns.extend(self.mentioned(&view)?);
                }
                columns.extend(self.filtered(scan));
            }
            if let LogicalPlan::Extension(_) | LogicalPlan::Unnest(_) | LogicalPlan::RecursiveQuery(_) = node {
                for input in inputs {
                    for index in 0..input.schema().fields().len() {
                        columns.extend(self.output(input, index)?.all());
                    }
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(columns)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::*;

    #[tokio::test]
    async fn labels_come_from_columns() {
        let ctx = SessionContext::new();
        for table in ["c (id INT, x INT, y INT)", "o (id INT, k INT, n INT)"] {
            ctx.sql(&format!("CREATE TABLE {table}")).await.unwrap();
        }
        ctx.sql("CREATE VIEW v AS SELECT id AS k, x + y AS s FROM c").await.unwrap();
        // The last column of a query, what it is, what it is computed from, and what decides over that.
        for (sql, direct, columns, selecting) in [
            ("SELECT x FROM c WHERE y > 0", "c.x", "c.x", ""),
            ("SELECT CAST(a.z AS BIGINT) AS w FROM (SELECT x AS z FROM c ORDER BY x LIMIT 3) a", "c.x", "c.x", ""),
            ("SELECT s > 1 FROM v", "", "c.x c.y", ""),
            ("SELECT k FROM v", "c.id", "c.id", ""),
            ("SELECT c.id, o.n FROM c JOIN o ON o.k = c.id", "o.n", "o.n", ""),
            ("SELECT o.n IS NULL FROM c LEFT JOIN o ON o.k = c.id AND o.id > 1", "", "o.n", "c.id o.id o.k"),
            ("SELECT o.n FROM o RIGHT JOIN c ON o.k = c.id", "o.n", "o.n", "c.id o.k"),
            ("SELECT c.x FROM c LEFT JOIN o ON o.k = c.id", "c.x", "c.x", ""),
            ("SELECT k, COUNT(*) FROM o WHERE n > 2 GROUP BY k", "", "", "o.k o.n"),
            ("SELECT COUNT(*), k FROM o GROUP BY k", "o.k", "o.k", ""),
            ("SELECT sum(n) OVER (PARTITION BY k) FROM o WHERE id > 1", "", "o.k o.n", "o.id"),
            ("SELECT x FROM c UNION ALL SELECT n FROM o", "", "c.x o.n", ""),
            ("SELECT x FROM c UNION ALL SELECT x FROM c WHERE y > 1", "c.x", "c.x", ""),
            ("SELECT DISTINCT ON (x) x, y FROM c ORDER BY x, id", "c.y", "c.y", ""),
            ("SELECT (SELECT max(n) FROM o WHERE o.k = c.id) > 1 FROM c", "", "o.k o.n", ""),
            ("SELECT EXISTS (SELECT 1 FROM o WHERE o.k = c.id AND o.n > 1) FROM c", "", "o.k o.n", ""),
            ("SELECT id IN (SELECT k FROM o) FROM c", "", "c.id o.k", ""),
            ("SELECT x FROM c WHERE id IN (SELECT k FROM o)", "c.x", "c.x", ""),
            ("SELECT unnest(make_array(x, y)) FROM c", "", "c.x c.y", ""),
            ("SELECT sum(x) FROM c GROUP BY ROLLUP (y)", "", "c.x c.y", ""),
            ("SELECT 1", "", "", ""),
        ] {
            let session = ctx.state();
            let plan = session.create_logical_plan(sql).await.unwrap();
            let last = plan.schema().fields().len() - 1;
            let name = |base: &BaseColumn| format!("{}.{}", base.table.table, base.column);
            let names = |bases: &BTreeSet<BaseColumn>| bases.iter().map(name).collect::<Vec<_>>().join(" ");
            let found = Walk { session: &session }.output(&plan, last).unwrap();
            assert_eq!(found.direct.as_ref().map(name).unwrap_or_default(), direct, "{sql}\n{plan}");
            assert_eq!([names(&found.columns), names(&found.selecting)], [columns, selecting], "{sql}\n{plan}");
            // Optimized plans may read what decides over a value as a part of it, but forget none.
            let optimized = session.optimize(&plan).unwrap();
            let all = Walk { session: &session }.output(&optimized, last).unwrap().all();
            assert!(all.is_superset(&found.all()), "{sql}\n{optimized}\n{all:?}");
        }
    }
}
