//! P-error: what the join order chosen from a contender's estimates costs, over what the best one costs.
//!
//! After Han et al., "Cardinality Estimation in DBMS: A Comprehensive Benchmark Evaluation" (VLDB 2022, section 7): the plan
//! is chosen from the estimates of all connected sub-joins by exact dynamic programming over bushy trees, and costed with
//! their true cardinalities under a cost of rows handled. Rows of single tables are exact for everyone, because the anchors have
//! none: this is about joins. A query of whose sub-joins the corpus lists too few to build any tree is left out. [`WRITTEN`] is the order in which the query names its tables, left-deep.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::{self, BinaryOperator, SetExpr, Statement, TableFactor};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::Estimated;
use super::figures::{short, table, tables};
use crate::corpus::{SUBPLAN, Workload};
use crate::database::Database;
use crate::metrics::{percentile, sorted};
use crate::planned::labelling_context;

/// Cost of a hash join in rows handled: a row of the build side is hashed, copied and inserted, one of the probe side hashed
/// and looked up, one of the output gathered.
fn join_cost(build: f64, probe: f64, output: f64) -> f64 {
    2.0 * build + probe + output
}

/// The order of the query itself, among the contenders.
pub const WRITTEN: &str = "as written";

/// The costs of one query's join orders, in rows handled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanChoice {
    /// The hard query.
    pub id: String,
    /// Its database.
    pub database: String,
    /// Number of joined tables.
    pub tables: usize,
    /// Cost of the best order.
    pub best: f64,
    /// Cost of the order that each contender's estimates choose.
    pub costs: BTreeMap<String, f64>,
}

/// The P-errors of one contender.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanFigure {
    /// The number of tables; `all` for all.
    pub group: String,
    /// Whose estimates choose.
    pub contender: String,
    /// Number of queries.
    pub n: usize,
    /// The 50th percentile,
    pub median: f64,
    /// the 90th,
    pub p90: f64,
    /// the 95th,
    pub p95: f64,
    /// the 99th
    pub p99: f64,
    /// and the largest.
    pub max: f64,
    /// Geometric mean.
    pub geometric_mean: f64,
    /// Share of the queries whose order costs more than 1.1 times the best.
    pub worse: f64,
    /// Sum of all costs over the sum of the best.
    pub total: f64,
}

/// P-errors by number of tables and over all.
pub fn figures(plans: &[PlanChoice], contenders: &[String]) -> Vec<PlanFigure> {
    let most = plans.iter().map(|plan| plan.tables).max().unwrap_or(0);
    let groups = (1..=most).map(Some).chain([None]);
    let mut figures = vec![];
    for group in groups {
        let here: Vec<&PlanChoice> =
            plans.iter().filter(|plan| group.is_none_or(|tables| plan.tables == tables)).collect();
        for contender in [WRITTEN].into_iter().chain(contenders.iter().map(String::as_str)) {
            let costs: Vec<(f64, f64)> =
                here.iter().filter_map(|plan| Some((*plan.costs.get(contender)?, plan.best))).collect();
            if costs.is_empty() {
                continue;
            }
            let errors = sorted(costs.iter().map(|(cost, best)| ratio(*cost, *best)).collect());
            let n = errors.len();
            figures.push(PlanFigure {
                group: group.map_or_else(|| "all".to_owned(), tables),
                contender: contender.to_owned(),
                n,
                median: percentile(&errors, 50.0),
                p90: percentile(&errors, 90.0),
                p95: percentile(&errors, 95.0),
                p99: percentile(&errors, 99.0),
                max: percentile(&errors, 100.0),
                geometric_mean: (errors.iter().map(|error| error.ln()).sum::<f64>() / n as f64).exp(),
                worse: errors.iter().filter(|error| **error > 1.1).count() as f64 / n as f64,
                total: ratio(costs.iter().map(|cost| cost.0).sum(), costs.iter().map(|cost| cost.1).sum()),
            });
        }
    }
    figures
}

/// The columns of the table of P-errors.
pub const COLUMNS: [&str; 11] =
    ["queries", "contender", "n", "median", "90%", "95%", "99%", "max", "geo-mean", "> 1.1", "total"];

/// The cells of a figure under [`COLUMNS`].
pub fn cells(figure: &PlanFigure) -> Vec<String> {
    let PlanFigure { group, contender, n, median, p90, p95, p99, max, geometric_mean, worse, total } = figure;
    let mut row = vec![group.clone(), contender.clone(), n.to_string()];
    row.extend([median, p90, p95, p99, max, geometric_mean].map(|value| short(*value)));
    row.extend([format!("{:.0}%", 100.0 * worse), short(*total)]);
    row
}

/// The figures as a table.
pub fn print(figures: &[PlanFigure]) -> String {
    if figures.is_empty() {
        return String::new();
    }
    format!("P-error\n{}\n\n", table(&[&COLUMNS], figures.iter().map(cells).collect()))
}

/// The P-error of a cost; 1 where nothing costs anything.
pub fn ratio(cost: f64, best: f64) -> f64 {
    if best > 0.0 { cost / best } else { 1.0 }
}

/// The join orders of the hard queries whose sub-joins were estimated.
///
/// # Errors
/// When a sub-join cannot be parsed, or the rows of a table cannot be counted.
pub async fn choose(workload: &Workload, estimates: &[Estimated], contenders: &[String]) -> Result<Vec<PlanChoice>> {
    let mut queries: BTreeMap<&str, Vec<SubJoin<'_>>> = BTreeMap::new();
    for (query, estimated) in workload.queries.iter().zip(estimates).filter(|(query, _)| query.kind == SUBPLAN) {
        let (whole, _) = query.id.rsplit_once('.').with_context(|| format!("{} is no part of a query", query.id))?;
        let parts = parse(&query.sql).with_context(|| query.sql.clone())?;
        queries.entry(whole).or_default().push(SubJoin { estimated, parts });
    }
    if queries.is_empty() {
        return Ok(vec![]);
    }
    let context = labelling_context();
    Database::from_folder(&workload.folder)?.register(&context)?;
    let mut counted: HashMap<String, f64> = HashMap::new();
    let mut plans = vec![];
    for (id, mut joins) in queries {
        joins.sort_by_key(|join| join.parts.len());
        let Some(whole) = joins.last() else { continue };
        let mut singles = vec![];
        for (_, sql) in &whole.parts {
            if !counted.contains_key(sql) {
                counted.insert(sql.clone(), count(&context, sql).await?);
            }
            singles.push(counted[sql]);
        }
        let aliases: Vec<&str> = whole.parts.iter().map(|(alias, _)| alias.as_str()).collect();
        let truth = |join: &SubJoin<'_>| Some(join.estimated.truth);
        let Some(exact) = Cardinalities::new(&aliases, &singles, &joins, truth) else { continue };
        let mut costs: BTreeMap<String, f64> = BTreeMap::new();
        costs.extend(exact.written().map(|tree| (WRITTEN.to_owned(), exact.cost(&tree))));
        for contender in contenders {
            let predicted = |join: &SubJoin<'_>| Some(join.estimated.predictions.get(contender)?.rows.max(1.0));
            let cardinalities = Cardinalities::new(&aliases, &singles, &joins, predicted);
            let tree = cardinalities.and_then(|cardinalities| cardinalities.cheapest());
            costs.extend(tree.map(|tree| (contender.clone(), exact.cost(&tree))));
        }
        let Some(best) = exact.cheapest() else { continue };
        plans.push(PlanChoice {
            id: id.to_owned(),
            database: workload.database.clone(),
            tables: aliases.len(),
            best: exact.cost(&best),
            costs,
        });
    }
    Ok(plans)
}

/// A connected sub-join: its estimates, and the alias of each table with the query that counts its rows alone.
struct SubJoin<'a> {
    estimated: &'a Estimated,
    parts: Vec<(String, String)>,
}

async fn count(context: &SessionContext, sql: &str) -> Result<f64> {
    let batches = context.sql(sql).await?.collect().await?;
    let rows = batches.iter().find_map(|batch| batch.columns().first()?.as_primitive_opt::<Int64Type>());
    Ok(rows.filter(|rows| !rows.is_empty()).with_context(|| format!("no count: {sql}"))?.value(0) as f64)
}

/// Reads `SELECT COUNT(*) FROM a AS x, b AS y WHERE ..`: every alias with the query of its table under its own conditions.
fn parse(sql: &str) -> Result<Vec<(String, String)>> {
    let statements = Parser::parse_sql(&GenericDialect {}, sql)?;
    let Some(Statement::Query(query)) = statements.first() else { anyhow::bail!("no query") };
    let SetExpr::Select(select) = query.body.as_ref() else { anyhow::bail!("no SELECT") };
    let mut conditions = vec![];
    if let Some(selection) = &select.selection {
        conjuncts(selection, &mut conditions);
    }
    let read: Vec<Vec<String>> = conditions.iter().map(|condition| qualifiers(condition)).collect();
    let mut parts = vec![];
    for table in &select.from {
        ensure!(table.joins.is_empty(), "a join in FROM");
        let TableFactor::Table { name, alias, .. } = &table.relation else { anyhow::bail!("no table") };
        let alias = alias.as_ref().map_or_else(|| name.to_string(), |alias| alias.name.value.clone());
        let own: Vec<String> = conditions
            .iter()
            .zip(&read)
            .filter(|(_, read)| read.iter().all(|name| *name == alias))
            .map(|(condition, _)| format!("({condition})"))
            .collect();
        let filter = if own.is_empty() { String::new() } else { format!(" WHERE {}", own.join(" AND ")) };
        parts.push((alias, format!("SELECT COUNT(*) FROM {}{filter}", table.relation)));
    }
    Ok(parts)
}

fn conjuncts<'a>(expr: &'a ast::Expr, all: &mut Vec<&'a ast::Expr>) {
    match expr {
        ast::Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            conjuncts(left, all);
            conjuncts(right, all);
        }
        other => all.push(other),
    }
}

/// The tables that an expression names.
fn qualifiers(expr: &ast::Expr) -> Vec<String> {
    let mut names = vec![];
    let _ = ast::visit_expressions(expr, |part| {
        if let ast::Expr::CompoundIdentifier(path) = part
            && let [table, _] = path.as_slice()
        {
            names.push(table.value.clone());
        }
        std::ops::ControlFlow::<()>::Continue(())
    });
    names
}

/// Rows of every connected set of a query's tables, as bit sets in the order of FROM.
struct Cardinalities(BTreeMap<(u32, u64), f64>);

/// A join tree.
#[derive(Debug, Clone, PartialEq)]
enum Tree {
    Table(u64),
    /// Build side and probe side.
    Join(Box<(Tree, Tree)>),
}

impl Tree {
    fn set(&self) -> u64 {
        match self {
            Tree::Table(set) => *set,
            Tree::Join(sides) => sides.0.set() | sides.1.set(),
        }
    }
}

impl Cardinalities {
    /// `None` where `rows` has no answer for a sub-join, or a sub-join names a table that the query does not.
    fn new<'a>(
        aliases: &[&str],
        singles: &[f64],
        joins: &[SubJoin<'a>],
        rows: impl Fn(&SubJoin<'a>) -> Option<f64>,
    ) -> Option<Self> {
        let mut sets: BTreeMap<(u32, u64), f64> =
            singles.iter().enumerate().map(|(index, rows)| ((1, 1 << index), *rows)).collect();
        for join in joins {
            let mut set = 0u64;
            for (alias, _) in &join.parts {
                set |= 1 << aliases.iter().position(|known| known == alias)?;
            }
            sets.insert((set.count_ones(), set), rows(join)?);
        }
        Some(Self(sets))
    }

    fn rows(&self, set: u64) -> Option<f64> {
        self.0.get(&(set.count_ones(), set)).copied()
    }

    /// The sum over the joins of a tree, whose build sides are given.
    fn cost(&self, tree: &Tree) -> f64 {
        let rows = |tree: &Tree| self.rows(tree.set()).unwrap_or(f64::INFINITY);
        match tree {
            Tree::Table(_) => 0.0,
            Tree::Join(sides) => {
                let (build, probe) = sides.as_ref();
                self.cost(build) + self.cost(probe) + join_cost(rows(build), rows(probe), rows(tree))
            }
        }
    }

    /// The smaller side builds.
    fn join(&self, left: Tree, right: Tree) -> Tree {
        let swap = self.rows(left.set()) > self.rows(right.set());
        Tree::Join(Box::new(if swap { (right, left) } else { (left, right) }))
    }

    /// The cheapest bushy tree without cross products (DPsub).
    fn cheapest(&self) -> Option<Tree> {
        let mut best: HashMap<u64, (f64, Tree)> = HashMap::new();
        for &(size, set) in self.0.keys() {
            if size == 1 {
                best.insert(set, (0.0, Tree::Table(set)));
                continue;
            }
            let mut found: Option<(f64, u64)> = None;
            let mut part = (set - 1) & set;
            while part > set & !part {
                if let (Some(left), Some(right)) = (best.get(&part), best.get(&(set & !part))) {
                    let (a, b) = (self.rows(part)?, self.rows(set & !part)?);
                    let cost = left.0 + right.0 + join_cost(a.min(b), a.max(b), self.rows(set)?);
                    if found.is_none_or(|(least, _)| cost < least) {
                        found = Some((cost, part));
                    }
                }
                part = (part - 1) & set;
            }
            let (cost, part) = found?;
            let tree = self.join(best.get(&part)?.1.clone(), best.get(&(set & !part))?.1.clone());
            best.insert(set, (cost, tree));
        }
        let whole = self.0.keys().next_back()?.1;
        Some(best.remove(&whole)?.1)
    }

    /// Joins the tables left-deep in the order of FROM, each as soon as it is connected.
    fn written(&self) -> Option<Tree> {
        let mut left: Vec<u64> = self.0.keys().filter(|(size, _)| *size == 1).map(|(_, set)| *set).collect();
        let mut tree = Tree::Table(left.remove(0));
        while !left.is_empty() {
            let next = left.iter().position(|table| self.rows(tree.set() | table).is_some())?;
            tree = self.join(tree, Tree::Table(left.remove(next)));
        }
        Some(tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_tables_keep_their_own_conditions() {
        let sql = "SELECT COUNT(*) FROM t AS a, \"T 2\" AS b WHERE a.x = b.y AND a.z > 1 AND (b.y = 2 OR b.w IS NULL)";
        let parts = parse(sql).unwrap();
        assert_eq!(parts[0], ("a".to_owned(), "SELECT COUNT(*) FROM t AS a WHERE (a.z > 1)".to_owned()));
        let second = "SELECT COUNT(*) FROM \"T 2\" AS b WHERE ((b.y = 2 OR b.w IS NULL))";
        assert_eq!(parts[1], ("b".to_owned(), second.to_owned()));
    }

    /// A chain a - b - c - d: connected sets with their rows.
    fn chain(rows: [f64; 10]) -> Cardinalities {
        let sets = [0b1, 0b10, 0b100, 0b1000, 0b11, 0b110, 0b1100, 0b111, 0b1110, 0b1111u64];
        Cardinalities(sets.into_iter().map(|set| (set.count_ones(), set)).zip(rows).collect())
    }

    #[test]
    fn the_cheapest_tree_can_be_bushy() {
        let exact = chain([100.0, 100.0, 100.0, 100.0, 10.0, 1e6, 10.0, 1e5, 1e5, 5.0]);
        let best = exact.cheapest().unwrap();
        // (a b) (c d): twice 200 + 100 + 10, then 20 + 10 + 5.
        assert!((exact.cost(&best) - 655.0).abs() < 1e-9, "{best:?}");
        let written = exact.written().unwrap();
        assert!((exact.cost(&written) - (310.0 + (20.0 + 100.0 + 1e5) + (200.0 + 1e5 + 5.0))).abs() < 1e-9);
        // Whoever takes the middle join for small pays for it.
        let wrong = chain([100.0, 100.0, 100.0, 100.0, 1e5, 1.0, 1e5, 1e3, 1e3, 5.0]).cheapest().unwrap();
        assert!(exact.cost(&wrong) > 1e6);
    }

    #[test]
    fn figures_are_per_number_of_tables() {
        let plan = |tables, cost| PlanChoice {
            id: String::new(),
            database: String::new(),
            tables,
            best: 10.0,
            costs: BTreeMap::from([("relata".to_owned(), cost)]),
        };
        let figures = figures(&[plan(3, 10.0), plan(4, 40.0)], &["relata".to_owned()]);
        let groups: Vec<(&str, f64)> = figures.iter().map(|figure| (figure.group.as_str(), figure.max)).collect();
        assert_eq!(groups, [("3 tables", 1.0), ("4 tables", 4.0), ("all", 4.0)]);
        assert!((figures[2].total - 2.5).abs() < 1e-12 && (figures[2].worse - 0.5).abs() < 1e-12);
    }
}
