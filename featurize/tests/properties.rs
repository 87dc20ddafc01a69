//! Properties of featurization on generated tables and queries.
#![expect(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test stops at the first surprise; one group is exactly one"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_expr::{LogicalPlan, TableScan};
use proptest::prelude::*;
use relata_featurize::analytical::{JoinEstimator, Profiles, SetEstimate};
use relata_featurize::answer::{ANSWER_FEATURES, AnswerForm};
use relata_featurize::graph::FeatureGraph;
use relata_featurize::groups::{GroupColumn, estimate_groups};
use relata_featurize::join_graph::{JoinGraph, Relation, RelationSet};
use relata_featurize::logical::{Tables, log_rows, query_graph};
use relata_featurize::physical::{Observed, OperatorRows, PhysicalGraph};
use relata_featurize::profile::{ProfileConfig, TableProfile};
use relata_featurize::relative::TableInput;
use relata_featurize::resources::Resources;
use relata_featurize::trace::{DatabaseTrace, Execution, LabelledAnswer, LabelledGraph, TracedQuery, read_all};

struct Database {
    ctx: SessionContext,
    profiles: BTreeMap<String, Arc<TableProfile>>,
}

impl Profiles for Database {
    fn profile(&self, scan: &TableScan) -> Option<Arc<TableProfile>> {
        self.profiles.get(scan.table_name.table()).cloned()
    }
}

impl Database {
    fn new(tables: Vec<(&str, Vec<(&str, ArrayRef)>)>, config: &ProfileConfig) -> Self {
        let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let mut profiles = BTreeMap::new();
        for (name, columns) in tables {
            let batch = RecordBatch::try_from_iter(columns).unwrap();
            let profile = TableProfile::of_batches(batch.schema(), std::slice::from_ref(&batch), config).unwrap();
            ctx.register_batch(name, batch).unwrap();
            profiles.insert(name.to_string(), Arc::new(profile));
        }
        Self { ctx, profiles }
    }

    /// A customer table, orders with a skewed foreign key, and items of orders.
    fn shop(config: &ProfileConfig) -> Self {
        let customers = 500;
        let orders = 8000;
        let items = 20_000;
        let city = |i: i64| format!("city {:02}", (i * i) % 37);
        let of_customer = |i: i64| (i * i / 16_000) % customers;
        Self::new(
            vec![
                (
                    "customers",
                    vec![
                        ("id", Arc::new(Int64Array::from_iter_values(0..customers)) as ArrayRef),
                        ("city", Arc::new(StringArray::from_iter_values((0..customers).map(city)))),
                        (
                            "age",
                            Arc::new(Int64Array::from_iter(
                                (0..customers).map(|i| (i % 11 != 0).then_some(18 + i % 60)),
                            )),
                        ),
                    ],
                ),
                (
                    "orders",
                    vec![
                        ("id", Arc::new(Int64Array::from_iter_values(0..orders)) as ArrayRef),
                        ("customer", Arc::new(Int64Array::from_iter_values((0..orders).map(of_customer)))),
                        (
                            "total",
                            Arc::new(Float64Array::from_iter_values((0..orders).map(|i| (i % 997) as f64 / 3.0))),
                        ),
                        ("day", Arc::new(Date32Array::from_iter_values((0..orders).map(|i| (18_000 + i / 10) as i32)))),
                    ],
                ),
                (
                    "items",
                    vec![
                        (
                            "order_id",
                            Arc::new(Int64Array::from_iter_values((0..items).map(|i| (i * 7) % orders))) as ArrayRef,
                        ),
                        ("product", Arc::new(Int64Array::from_iter_values((0..items).map(|i| (i * i) % 300)))),
                    ],
                ),
            ],
            config,
        )
    }

    async fn plan(&self, sql: &str) -> LogicalPlan {
        self.ctx.sql(sql).await.unwrap().into_optimized_plan().unwrap()
    }

    /// The join region below the aggregate of `SELECT COUNT(*)`.
    async fn graph(&self, sql: &str) -> JoinGraph {
        let plan = self.plan(sql).await;
        let mut node = &plan;
        while !matches!(node, LogicalPlan::Aggregate(_)) {
            node = node.inputs()[0];
        }
        JoinGraph::from_plan(node.inputs()[0]).unwrap()
    }

    async fn rows(&self, sql: &str) -> f64 {
        let graph = self.graph(sql).await;
        estimate(&JoinEstimator::new(&graph, self), graph.all()).rows
    }

    async fn exact(&self, sql: &str) -> f64 {
        let batches = self.ctx.sql(sql).await.unwrap().collect().await.unwrap();
        use datafusion::arrow::array::AsArray;
        batches[0].column(0).as_primitive::<datafusion::arrow::datatypes::Int64Type>().value(0) as f64
    }
}

fn estimate(estimator: &JoinEstimator<'_>, set: RelationSet) -> SetEstimate {
    if set.len() == 1 {
        return estimator.single(set.iter().next().unwrap());
    }
    let relation = estimator.graph.last(set);
    let rest = set.minus(RelationSet::single(relation));
    estimator.extend(rest, &estimate(estimator, rest), relation).0
}

const JOIN: &str =
    "SELECT COUNT(*) FROM customers c JOIN orders o ON o.customer = c.id JOIN items i ON i.order_id = o.id";

#[tokio::test]
async fn equivalent_queries_have_one_estimate() {
    let database = Database::shop(&ProfileConfig { sample_rows: 1000, ..ProfileConfig::default() });
    let forms = [
        format!("{JOIN} WHERE c.city = 'city 04' AND o.total < 100 AND i.product <> 3"),
        format!("{JOIN} WHERE i.product <> 3 AND o.total < 100 AND c.city = 'city 04'"),
        "SELECT COUNT(*) FROM items a, customers b, orders d WHERE d.id = a.order_id AND a.product <> 3 AND b.id = d.customer \
         AND 100 > d.total AND b.city = 'city 04'"
            .to_string(),
        "SELECT COUNT(*) FROM (SELECT * FROM orders WHERE total < 100) x JOIN items y ON x.id = y.order_id JOIN customers z \
         ON z.id = x.customer WHERE z.city = 'city 04' AND y.product <> 3"
            .to_string(),
    ];
    let mut estimates = Vec::new();
    for sql in &forms {
        estimates.push(database.rows(sql).await);
    }
    assert!(estimates.iter().all(|e| e.to_bits() == estimates[0].to_bits()), "{estimates:?}");
}

#[tokio::test]
async fn foreign_keys_and_complete_samples_are_exact() {
    let database = Database::shop(&ProfileConfig { sample_rows: 50_000, ..ProfileConfig::default() });
    for sql in [
        JOIN.to_string(),
        "SELECT COUNT(*) FROM orders o WHERE o.total < 50 AND o.day > DATE '2019-06-01'".to_string(),
        "SELECT COUNT(*) FROM customers c WHERE c.city LIKE '%0%' OR c.age IS NULL".to_string(),
        // The optimizer computes the common sub-expression in a projection below the filter.
        "SELECT COUNT(*) FROM orders o WHERE o.id % 7 < 2 OR o.id % 7 = 5 AND o.total > 50".to_string(),
        format!("{JOIN} WHERE i.product % 10 > 7 OR i.product % 10 = 2"),
    ] {
        let (exact, rows) = (database.exact(&sql).await, database.rows(&sql).await);
        assert!((rows / exact - 1.0).abs() < 0.02, "{sql}: {rows} for {exact}");
    }
}

#[tokio::test]
async fn sampled_estimates_are_near_and_below_the_bound() {
    let database = Database::shop(&ProfileConfig { sample_rows: 500, ..ProfileConfig::default() });
    for sql in [
        "SELECT COUNT(*) FROM orders o WHERE o.total BETWEEN 20 AND 40".to_string(),
        "SELECT COUNT(*) FROM orders o WHERE o.id BETWEEN 4000 AND 4010".to_string(),
        "SELECT COUNT(*) FROM items i WHERE i.product IN (4, 9, 16)".to_string(),
        "SELECT COUNT(*) FROM items i WHERE i.order_id = 77".to_string(),
        // One condition follows from the other.
        "SELECT COUNT(*) FROM items i WHERE i.product = 16 AND i.product IN (4, 9, 16, 25)".to_string(),
        "SELECT COUNT(*) FROM items i WHERE i.product < 10 AND i.product IN (4, 9, 16, 25)".to_string(),
        format!("{JOIN} WHERE o.total < 30 AND c.city IN ('city 01', 'city 04')"),
        "SELECT COUNT(*) FROM orders a JOIN orders b ON a.customer = b.customer WHERE a.total < 50".to_string(),
    ] {
        let graph = database.graph(&sql).await;
        let estimator = JoinEstimator::new(&graph, &database);
        let estimate = estimate(&estimator, graph.all());
        let exact = database.exact(&sql).await;
        let error = (estimate.rows.max(1.0) / exact.max(1.0)).max(exact.max(1.0) / estimate.rows.max(1.0));
        assert!(error < 2.0, "{sql}: {} for {exact}", estimate.rows);
        assert!(estimate.rows <= estimate.bound && exact <= estimate.bound, "{sql}: {exact} > {}", estimate.bound);
    }
    let nothing = database.rows("SELECT COUNT(*) FROM orders o WHERE o.id < 100 AND o.id > 7000").await;
    assert!(nothing < 0.5, "{nothing}");
}

/// Days of which few were worked, and shifts: the samples by day are short, but those of the rows tell which days matter.
#[tokio::test]
async fn a_column_without_a_sample_of_its_own_is_known_from_the_rows() {
    let day = |i: i64| 100_000 + (i * i) % 1000;
    let number = |values: Vec<i64>| -> ArrayRef { Arc::new(Int64Array::from(values)) };
    let days: Vec<i64> = (0..20_000).map(|i| 90_000 + i).collect();
    let years = days.iter().map(|day| day / 1000).collect();
    let shifts = (0..30_000).map(day).collect();
    let tables = vec![
        ("days", vec![("id", number(days)), ("year", number(years))]),
        ("shifts", vec![("day", number(shifts)), ("id", number((0..30_000).collect()))]),
    ];
    // The only sample by key of the shifts is by their number.
    let config = ProfileConfig { sample_rows: 4000, key_samples: 1, ..ProfileConfig::default() };
    let database = Database::new(tables, &config);
    for (year, expected) in [(100, 30_000.0), (92, 0.0)] {
        let sql = format!("SELECT COUNT(*) FROM shifts s JOIN days d ON d.id = s.day WHERE d.year = {year}");
        let graph = database.graph(&sql).await;
        let rows = estimate(&JoinEstimator::new(&graph, &database), graph.all()).rows;
        assert!((rows - expected).abs() < 9000.0, "{rows} for {expected}");
    }
}

#[tokio::test]
async fn groups_are_counted() {
    let database = Database::shop(&ProfileConfig { sample_rows: 2000, ..ProfileConfig::default() });
    let graph = database.graph("SELECT COUNT(*) FROM customers c JOIN orders o ON o.customer = c.id").await;
    let estimator = JoinEstimator::new(&graph, &database);
    let rows = estimate(&estimator, graph.all()).rows;
    let relation =
        graph.relations.iter().position(|r| r.scan.as_ref().unwrap().table_name.table() == "customers").unwrap();
    let city = GroupColumn { relation, column: 1 };
    let age = GroupColumn { relation, column: 2 };
    assert!((estimate_groups(&estimator, rows, &[city]).rows - 19.0).abs() < 1.0);
    let both = estimate_groups(&estimator, rows, &[city, age, city]);
    let exact = database
        .exact("SELECT COUNT(*) FROM (SELECT DISTINCT city, age FROM customers c JOIN orders o ON o.customer = c.id)")
        .await;
    assert!(both.rows / exact < 1.3 && exact / both.rows < 1.3, "{} for {exact}", both.rows);
    assert_eq!(estimate_groups(&estimator, rows, &[]).rows, 1.0);
}

#[tokio::test]
async fn groups_by_constants_and_keys_are_those_of_the_other_columns() {
    let database = Database::shop(&ProfileConfig { sample_rows: 2000, ..ProfileConfig::default() });
    let join = "FROM customers c JOIN orders o ON o.customer = c.id WHERE c.city = 'city 01' AND c.age > 20";
    let graph = database.graph(&format!("SELECT COUNT(*) {join}")).await;
    let estimator = JoinEstimator::new(&graph, &database);
    let rows = estimate(&estimator, graph.all()).rows;
    let column = |table: &str, name: &str| {
        let is_table = |r: &Relation| r.scan.as_ref().unwrap().table_name.table() == table;
        let relation = graph.relations.iter().position(is_table).unwrap();
        let schema = graph.relations[relation].scan.as_ref().unwrap().source.schema();
        GroupColumn { relation, column: schema.index_of(name).unwrap() }
    };
    let groups = |columns: &[GroupColumn]| estimate_groups(&estimator, rows, columns).rows;
    let customer = column("orders", "customer");
    // One city is left, which has few customers; each has one age.
    assert_eq!(groups(&[column("customers", "city")]), 1.0);
    let exact = database.exact(&format!("SELECT COUNT(*) FROM (SELECT DISTINCT o.customer {join})")).await;
    let few = groups(&[customer]);
    assert!(few / exact < 1.3 && exact / few < 1.3, "{few} for {exact}");
    for more in [column("customers", "age"), column("customers", "city"), column("customers", "id")] {
        assert!((groups(&[customer, more]) / few - 1.0).abs() < 1e-9, "{more:?}");
    }
}

async fn full_graph(database: &Database, sql: &str) -> (FeatureGraph, Tables) {
    let graph = database.graph(sql).await;
    let estimator = JoinEstimator::new(&graph, database);
    let sets = graph.connected_sets(1000).unwrap();
    let mut tables = Tables::default();
    let query = query_graph(&estimator, &sets, None, &mut tables).unwrap();
    assert_eq!(query.sets.len(), sets.len());
    (query.graph, tables)
}

#[tokio::test]
async fn graphs_are_valid_and_traces_survive_the_disk() {
    let database = Database::shop(&ProfileConfig::default());
    let (graph, tables) =
        full_graph(&database, &format!("{JOIN} WHERE c.age > 30 AND o.total < 100 AND c.city LIKE 'c%'")).await;
    assert!(graph.is_valid());
    // 3 tables, 3 filters, 3 predicates, 3 filtered and 4 key columns, 3 joins; the graph is a chain of three.
    assert_eq!(graph.levels().iter().max(), Some(&4));
    let inputs: Vec<TableInput> = tables.profiles.iter().map(|p| TableInput::new(p)).collect();
    assert!(inputs.iter().all(|input| input.cells.iter().all(|v| (-3.0..=1.0).contains(v))));
    let plan = database.ctx.sql("SELECT COUNT(*) FROM orders").await.unwrap().create_physical_plan().await.unwrap();
    let plan = PhysicalGraph::new(plan.as_ref(), 1, 8192);
    let labels = graph.nodes.iter().map(|n| n.base.map(|base| base + 1.0)).collect();
    let trace = DatabaseTrace {
        name: "shop".into(),
        tables: inputs,
        graphs: vec![LabelledGraph { graph, labels, relations: 3 }; 3],
        queries: [None, Some(2.5), None]
            .map(|answer| TracedQuery { kind: "seed".into(), sql: "SELECT 1".into(), joined: 4.0, rows: 3.0, answer })
            .into(),
        answers: vec![LabelledAnswer {
            query: 1,
            node: 2,
            form: AnswerForm::Largest,
            columns: vec![(0, 1), (1, 0)],
            features: vec![0.5; ANSWER_FEATURES],
            residual: -1.5,
        }],
        executions: vec![Execution {
            query: 2,
            machine: machine(),
            planning_us: vec![3.0, 4.0],
            execution_us: vec![5.0, 6.5],
            peak_bytes: 1 << 40,
            estimated: vec![Some(OperatorRows::exact(7.0)); plan.operators.len()],
            observed: vec![Observed { rows: None, elapsed_us: Some(1.5) }; plan.operators.len()],
            graph: plan,
        }],
    };
    let dir = tempfile::tempdir().unwrap();
    trace.write(&dir.path().join("shop")).unwrap();
    let read = read_all(dir.path()).unwrap();
    assert_eq!(read, vec![trace]);
    let file = dir.path().join("shop/graphs.arrow");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    assert!(read_all(dir.path()).is_err());
}

fn machine() -> Resources {
    let [scan, filter, build, probe, aggregate, sort, copy, startup, speedup] = [1.5; 9];
    Resources { scan, filter, build, probe, aggregate, sort, copy, startup, threads: 2, speedup }
}

/// A table of one numeric, one text and one date column.
fn table(values: &[(i64, u8)], scale: f64, shift: f64, order: &[usize]) -> RecordBatch {
    let of = |i: &usize| values[*i];
    RecordBatch::try_from_iter(vec![
        (
            "n",
            Arc::new(Float64Array::from_iter(
                order.iter().map(|i| (of(i).1 != 0).then_some(of(i).0 as f64 * scale + shift)),
            )) as ArrayRef,
        ),
        ("t", Arc::new(StringArray::from_iter_values(order.iter().map(|i| format!("v{:03}", of(i).1))))),
        ("d", Arc::new(Date32Array::from_iter_values(order.iter().map(|i| of(i).0 as i32)))),
    ])
    .unwrap()
}

fn input(batch: &RecordBatch) -> TableInput {
    let config = ProfileConfig::default();
    TableInput::new(&TableProfile::of_batches(batch.schema(), std::slice::from_ref(batch), &config).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn encoding_ignores_row_order_and_scale(
        values in prop::collection::vec((-500i64..500, 0u8..20), 2..200),
        shuffle in any::<u64>(),
        power in -3i32..6,
    ) {
        let straight: Vec<usize> = (0..values.len()).collect();
        let mut shuffled = straight.clone();
        shuffled.sort_by_key(|&i| (i as u64 ^ shuffle).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let original = input(&table(&values, 1.0, 0.0, &straight));
        let changed = input(&table(&values, 2f64.powi(power), 64.0, &shuffled));
        prop_assert_eq!((original.rows, &original.shares), (changed.rows, &changed.shares));
        let numbers = |input: &TableInput| [input.cells.clone(), input.column_statistics.clone()].concat();
        for (a, b) in numbers(&original).iter().zip(numbers(&changed)) {
            prop_assert!((a - b).abs() < 1e-5, "{} {}", a, b);
        }
    }

    #[test]
    fn a_further_filter_never_raises_the_estimate(low in 0i64..300, width in 0i64..300, product in 0i64..400) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let database = SHOP.with(Arc::clone);
            let one = format!("SELECT COUNT(*) FROM items i WHERE i.product >= {low}");
            let two = format!("{one} AND i.product <= {}", low + width);
            let three = format!("{two} AND i.order_id <> {product}");
            let rows = [database.rows(&one).await, database.rows(&two).await, database.rows(&three).await];
            prop_assert!(rows[1] <= rows[0] * 1.001 + 0.5 && rows[2] <= rows[1] * 1.02 + 0.5, "{:?}", rows);
            prop_assert!(rows.iter().all(|r| (0.0..=20_000.0).contains(r)));
            Ok(())
        })?;
    }
}

thread_local! {
    static SHOP: Arc<Database> =
        Arc::new(Database::shop(&ProfileConfig { sample_rows: 700, ..ProfileConfig::default() }));
}

#[test]
fn rows_are_logarithmic() {
    assert_eq!(log_rows(0.0), 0.0);
    assert!((log_rows(1000.0) - 6.9078).abs() < 1e-3);
}
