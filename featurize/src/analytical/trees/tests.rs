use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_expr::{LogicalPlan, TableScan};
use proptest::prelude::*;

use super::*;
use crate::foreign_key::{ForeignKey, foreign_keys};
use crate::join_graph::JoinGraph;
use crate::profile::{ProfileConfig, TableProfile};
use crate::synopsis::{SynopsisBuilder, SynopsisPlan};

struct Database {
    ctx: SessionContext,
    names: Vec<&'static str>,
    profiles: Vec<Arc<TableProfile>>,
    synopses: Vec<Arc<JoinSynopsis>>,
}

impl Profiles for Database {
    fn profile(&self, scan: &TableScan) -> Option<Arc<TableProfile>> {
        let table = self.names.iter().position(|name| *name == scan.table_name.table())?;
        Some(Arc::clone(&self.profiles[table]))
    }

    fn synopsis(&self, scan: &TableScan) -> Option<Arc<JoinSynopsis>> {
        let profile = self.profile(scan)?;
        self.synopses.iter().find(|synopsis| Arc::ptr_eq(synopsis.root(), &profile)).cloned()
    }
}

impl Database {
    fn new(
        tables: Vec<(&'static str, Vec<(&str, ArrayRef)>)>,
        declared: &[ForeignKey],
        config: &ProfileConfig,
    ) -> Self {
        let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let (mut names, mut profiles, mut batches) = (vec![], vec![], vec![]);
        for (name, columns) in tables {
            let batch = RecordBatch::try_from_iter(columns).unwrap();
            let profile = TableProfile::of_batches(batch.schema(), std::slice::from_ref(&batch), config).unwrap();
            ctx.register_batch(name, batch.clone()).unwrap();
            names.push(name);
            profiles.push(Arc::new(profile));
            batches.push(batch);
        }
        let keys = foreign_keys(&profiles, declared);
        let plans = SynopsisPlan::of_tables(&profiles, &keys, &config.synopsis);
        let batches: Vec<&[RecordBatch]> = batches.iter().map(std::slice::from_ref).collect();
        let builder = SynopsisBuilder::new(profiles.clone(), plans.into_iter().flatten());
        let synopses = builder.of_batches(&batches).unwrap().into_iter().map(Arc::new).collect();
        Self { ctx, names, profiles, synopses }
    }

    /// Makes it forget the synopses.
    fn without_synopses(self) -> Self {
        Self { synopses: vec![], ..self }
    }

    async fn estimate(&self, sql: &str) -> SetEstimate {
        let plan = self.ctx.sql(sql).await.unwrap().into_optimized_plan().unwrap();
        let mut node = &plan;
        while !matches!(node, LogicalPlan::Aggregate(_)) {
            node = node.inputs()[0];
        }
        let graph = JoinGraph::from_plan(node.inputs()[0]).unwrap();
        JoinEstimator::new(&graph, self).canonical(graph.all())
    }

    async fn exact(&self, sql: &str) -> f64 {
        let batches = self.ctx.sql(sql).await.unwrap().collect().await.unwrap();
        batches[0].column(0).as_primitive::<Int64Type>().value(0) as f64
    }
}

fn numbers(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(Int64Array::from_iter(values))
}

/// A fact table over two dimensions whose digits are the same in 19 of 20 facts, an attribute above the second one, and a
/// table of notes below the first. Some facts have no first dimension, some a missing one.
fn star(facts: i64, dimensions: i64, declared: &[ForeignKey], config: &ProfileConfig) -> Database {
    let near = move |i: i64| (i * 7 + i / 13) % dimensions;
    let one = move |i: i64| match i % 23 {
        0 => None,
        1 => Some(dimensions + i),
        _ => Some(near(i)),
    };
    let other =
        move |i: i64| Some(if i % 20 == 0 { (i * 31) % dimensions } else { (near(i) + 10 * (i % 50)) % dimensions });
    let ids = |n: i64| numbers((0..n).map(Some));
    Database::new(
        vec![
            ("groups", vec![("id", ids(10)), ("kind", numbers((0..10).map(|i| Some(i % 5))))]),
            ("one", vec![("id", ids(dimensions)), ("digit", numbers((0..dimensions).map(|i| Some(i % 10))))]),
            (
                "other",
                vec![
                    ("id", ids(dimensions)),
                    ("digit", numbers((0..dimensions).map(|i| Some(i % 10)))),
                    ("grp", { numbers((0..dimensions).map(|i| Some(i % 10))) }),
                ],
            ),
            (
                "facts",
                vec![
                    ("one", numbers((0..facts).map(one))),
                    ("other", numbers((0..facts).map(other))),
                    ("size", { numbers((0..facts).map(|i| Some(i % 100))) }),
                ],
            ),
            (
                "notes",
                vec![
                    ("one", numbers((0..dimensions * 2).map(|i| Some(i / 3 % dimensions)))),
                    ("stars", { numbers((0..dimensions * 2).map(|i| Some(i % 5))) }),
                ],
            ),
        ],
        declared,
        config,
    )
}

fn key(table: usize, column: usize, references: usize, referenced: usize) -> ForeignKey {
    ForeignKey { table, columns: vec![column], references, referenced: vec![referenced] }
}

fn star_keys() -> [ForeignKey; 4] {
    [key(3, 0, 1, 0), key(3, 1, 2, 0), key(2, 2, 0, 0), key(4, 0, 1, 0)]
}

const STAR: &str = "SELECT COUNT(*) FROM facts f JOIN one a ON f.one = a.id JOIN other b ON f.other = b.id";

fn q_error(estimate: f64, exact: f64) -> f64 {
    let (estimate, exact) = (estimate.max(1.0), exact.max(1.0));
    (estimate / exact).max(exact / estimate)
}

#[tokio::test]
async fn filters_on_two_dimensions_are_seen_together() {
    let config = ProfileConfig { sample_rows: 4000, ..ProfileConfig::default() };
    let with = star(60_000, 5000, &star_keys(), &config);
    let without = star(60_000, 5000, &star_keys(), &config).without_synopses();
    let chain = format!("{STAR} JOIN groups g ON b.grp = g.id");
    for (sql, apart) in [
        (format!("{STAR} WHERE a.digit = 3 AND b.digit = 3"), 5.0),
        (format!("{STAR} WHERE a.digit = 3 AND b.digit = 3 AND f.size < 50"), 5.0),
        (format!("{chain} WHERE a.digit = 3 AND g.kind = 3"), 3.0),
    ] {
        let exact = with.exact(&sql).await;
        let (with, without) = (with.estimate(&sql).await, without.estimate(&sql).await);
        assert!(q_error(with.rows, exact) < 1.5, "{sql}: {} for {exact}", with.rows);
        assert!(q_error(without.rows, exact) > apart, "{sql}: {} for {exact} without", without.rows);
        assert!(with.rows <= with.bound && with.bound == without.bound);
    }
    // Something that no synopsis covers on top.
    let sql = format!("{STAR} JOIN notes n ON n.one = a.id WHERE a.digit = 3 AND b.digit = 3 AND n.stars < 2");
    let (exact, estimate) = (with.exact(&sql).await, with.estimate(&sql).await);
    assert!(q_error(estimate.rows, exact) < 1.6, "{} for {exact}", estimate.rows);
}

#[tokio::test]
async fn complete_samples_are_counted_whatever_keys_are_declared() {
    let wrong = [key(3, 2, 1, 0), key(3, 0, 2, 1), key(3, 1, 1, 0), key(0, 1, 2, 0), key(4, 1, 4, 0)];
    let config = ProfileConfig::default();
    let right = star(3000, 400, &star_keys(), &config);
    let misled = star(3000, 400, &wrong, &config);
    let without = star(3000, 400, &wrong, &config).without_synopses();
    assert!(!misled.synopses.is_empty());
    for (is_tree, sql) in [
        (true, format!("{STAR} WHERE a.digit = 3 AND b.digit = 3")),
        (true, format!("{STAR} JOIN groups g ON b.grp = g.id WHERE a.digit < 3 AND g.kind = 2 AND f.size > 10")),
        (true, "SELECT COUNT(*) FROM notes n JOIN one a ON n.one = a.id WHERE a.digit = 3 AND n.stars = 1".to_string()),
        // A condition that is no edge of the tree.
        (false, format!("{STAR} AND a.digit = b.digit")),
        (false, format!("{STAR} WHERE a.digit > b.digit")),
        // The same dimension under two names.
        (
            true,
            "SELECT COUNT(*) FROM facts f JOIN one a ON f.one = a.id JOIN one b ON f.one = b.id WHERE a.digit = 3"
                .into(),
        ),
        // Two children of one parent.
        (false, format!("{STAR} JOIN notes n ON n.one = a.id WHERE b.digit = 3")),
    ]
    .iter()
    {
        let exact = right.exact(sql).await;
        let [right, misled, without] =
            [right.estimate(sql).await, misled.estimate(sql).await, without.estimate(sql).await];
        assert!(right.rows <= right.bound && exact <= right.bound, "{sql}: {right:?} for {exact}");
        assert!(!is_tree || right.rows == exact, "{sql}: {right:?}");
        assert_eq!(misled, without, "{sql}");
    }
}

#[tokio::test]
async fn a_filter_on_a_key_counts_once() {
    let config = ProfileConfig { sample_rows: 1000, key_sample_rows: 100, ..ProfileConfig::default() };
    let database = star(60_000, 5000, &star_keys(), &config);
    let join = "SELECT COUNT(*) FROM facts f JOIN one a ON f.one = a.id JOIN notes n ON n.one = a.id";
    for sql in [
        format!("{STAR} WHERE a.id = 77"),
        format!("{STAR} WHERE f.one IN (5, 77, 205, 1200)"),
        format!("{join} WHERE n.one = 77"),
        format!("{join} WHERE n.one IN (5, 77, 205, 1200) AND f.size < 90"),
        format!("{join} WHERE a.id BETWEEN 100 AND 130"),
        "SELECT COUNT(*) FROM facts f, facts g, one a WHERE f.one = a.id AND g.one = a.id AND f.one = 77".to_string(),
    ] {
        let (exact, estimate) = (database.exact(&sql).await, database.estimate(&sql).await);
        assert!(exact > 5.0 && q_error(estimate.rows, exact) < 4.0, "{sql}: {estimate:?} for {exact}");
        assert!(exact <= estimate.bound && estimate.rows <= estimate.bound);
    }
}

#[tokio::test]
async fn a_key_that_another_one_determines_selects_nothing() {
    let games = |n: i64| ("game", numbers((0..n).map(|i| Some(i % 2000))));
    let seasons = |n: i64| ("season", numbers((0..n).map(|i| Some(i % 2000 / 100))));
    let config = ProfileConfig { sample_rows: 1500, ..ProfileConfig::default() };
    let tables = vec![("a", vec![games(8000), seasons(8000)]), ("b", vec![games(6000), seasons(6000)])];
    let database = Database::new(tables, &[], &config);
    let sql = "SELECT COUNT(*) FROM a JOIN b ON a.game = b.game AND a.season = b.season";
    let (exact, estimate) = (database.exact(sql).await, database.estimate(sql).await);
    assert!(q_error(estimate.rows, exact) < 1.3, "{estimate:?} for {exact}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn estimates_keep_below_bounds_and_do_not_depend_on_the_order_of_joins(
        one in 0i64..10, other in 0i64..10, kind in 0i64..6, size in 0i64..110, rows in 100usize..3000, notes in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let config = ProfileConfig { sample_rows: rows, key_sample_rows: 200, ..ProfileConfig::default() };
            let database = star(4000, 600, &star_keys(), &config);
            let filters = format!("a.digit = {one} AND b.digit <> {other} AND g.kind < {kind} AND f.size < {size}");
            let (more, on) = if notes { (", notes n", " AND n.one = a.id") } else { ("", "") };
            let forms = [
                format!(
                    "SELECT COUNT(*) FROM facts f, one a, other b, groups g{more} WHERE f.one = a.id AND f.other = b.id AND \
                     b.grp = g.id{on} AND {filters}"
                ),
                format!(
                    "SELECT COUNT(*) FROM groups g{more}, other b, one a, facts f WHERE {filters}{on} AND b.grp = g.id AND \
                     a.id = f.one AND b.id = f.other"
                ),
                format!(
                    "SELECT COUNT(*) FROM (facts f JOIN other b ON f.other = b.id JOIN groups g ON b.grp = g.id) JOIN one a \
                     ON f.one = a.id{more} WHERE {filters}{on}"
                ),
            ];
            let exact = database.exact(&forms[0]).await;
            let first = database.estimate(&forms[0]).await;
            prop_assert!(first.rows.is_finite() && first.rows >= 0.0 && first.rows <= first.bound, "{:?}", first);
            prop_assert!(exact <= first.bound, "{} above {:?}", exact, first);
            for form in &forms[1..] {
                prop_assert_eq!(database.estimate(form).await, first);
            }
            Ok(())
        })?;
    }
}
