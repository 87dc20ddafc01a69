//! Counting against plain execution.

use datafusion::arrow::array::{AsArray, Int32Array, Int64Array, StringArray};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::catalog::MemTable;
use datafusion::common::ToDFSchema;
use datafusion::prelude::SessionContext;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::subsets::{holds, inside, members};
use super::*;

/// Column names and kinds of the random tables: two integer keys of different width, a string key, a filter column.
const COLUMNS: [&str; 4] = ["a", "b", "s", "f"];

fn random_table(random: &mut StdRng) -> RecordBatch {
    let rows = random.random_range(0..25);
    let keys = random.random_range(1..6);
    let mut key = || (!random.random_bool(0.15)).then(|| random.random_range(0..keys));
    let a: Vec<Option<i64>> = (0..rows).map(|_| key()).collect();
    let b: Vec<Option<i32>> = (0..rows).map(|_| key().map(|k| k as i32)).collect();
    let s: Vec<Option<String>> = (0..rows).map(|_| key().map(|k| format!("k{k}"))).collect();
    let f: Vec<Option<i64>> = (0..rows).map(|_| key()).collect();
    RecordBatch::try_from_iter_with_nullable([
        ("a", Arc::new(Int64Array::from(a)) as ArrayRef, true),
        ("b", Arc::new(Int32Array::from(b)) as ArrayRef, true),
        ("s", Arc::new(StringArray::from(s)) as ArrayRef, true),
        ("f", Arc::new(Int64Array::from(f)) as ArrayRef, true),
    ])
    .unwrap()
}

/// Integer columns join with integer columns, the string with the string.
fn random_keys(random: &mut StdRng) -> Vec<(usize, usize)> {
    match random.random_range(0..6) {
        0 => vec![(2, 2)],
        1 => vec![(0, 1), (2, 2)],
        2 => vec![(0, 0), (1, 1)],
        _ => vec![(random.random_range(0..2), random.random_range(0..2))],
    }
}

fn random_edges(random: &mut StdRng, relations: usize) -> Vec<Edge> {
    let mut edges: Vec<Edge> = (1..relations)
        .map(|right| Edge { left: random.random_range(0..right), right, keys: random_keys(random) })
        .collect();
    if relations > 2 && random.random_bool(0.4) {
        let left = random.random_range(0..relations - 1);
        edges.push(Edge { left, right: random.random_range(left + 1..relations), keys: random_keys(random) });
    }
    edges
}

async fn single_number(context: &SessionContext, sql: &str) -> f64 {
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
    batches[0].column(0).as_primitive::<Int64Type>().value(0) as f64
}

/// `FROM ... WHERE ...` of a subset.
fn from_where(subset: u128, tables: &[usize], edges: &[Edge], bounds: &[Option<i64>]) -> String {
    let relations: Vec<usize> = members(subset).collect();
    let from: Vec<String> = relations.iter().map(|&r| format!("t{} AS r{r}", tables[r])).collect();
    let mut conditions: Vec<String> = edges
        .iter()
        .filter(|edge| inside(subset, edge))
        .flat_map(|e| {
            e.keys.iter().map(move |&(l, r)| format!("r{}.{} = r{}.{}", e.left, COLUMNS[l], e.right, COLUMNS[r]))
        })
        .collect();
    conditions.extend(relations.iter().filter_map(|&r| bounds[r].map(|bound| format!("r{r}.f < {bound}"))));
    let filter = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    format!("FROM {}{filter}", from.join(", "))
}

#[tokio::test]
async fn counts_equal_execution() {
    let mut random = StdRng::seed_from_u64(7);
    let (mut counted, mut cyclic, mut grouped) = (0, 0, 0);
    for _ in 0..20 {
        let context = SessionContext::new();
        let batches: Vec<RecordBatch> = (0..3).map(|_| random_table(&mut random)).collect();
        for (index, batch) in batches.iter().enumerate() {
            let table = MemTable::try_new(batch.schema(), vec![vec![batch.clone()]]).unwrap();
            context.register_table(format!("t{index}"), Arc::new(table)).unwrap();
        }
        let mut keys = KeyCodes::default();
        for _ in 0..2 {
            // Several relations over one table are self joins.
            let tables: Vec<usize> = (0..random.random_range(1..6)).map(|_| random.random_range(0..3)).collect();
            let edges = random_edges(&mut random, tables.len());
            let bounds: Vec<Option<i64>> =
                tables.iter().map(|_| random.random_bool(0.5).then(|| random.random_range(0..6))).collect();
            let relations: Vec<Relation> = tables
                .iter()
                .zip(&bounds)
                .map(|(&table, &bound)| {
                    let batch = batches[table].clone();
                    let schema = batch.schema().to_dfschema().unwrap();
                    let filters: Vec<_> = bound
                        .map(|bound| context.parse_sql_expr(&format!("f < {bound}"), &schema).unwrap())
                        .into_iter()
                        .collect();
                    let mask = filter_mask(&context, &batch, &schema, &filters).unwrap();
                    Relation { batch, mask }
                })
                .collect();
            let mut counter = Counter::new(&relations, &edges, &mut keys);
            for subset in connected_subsets(relations.len(), &edges, 40) {
                let source = from_where(subset, &tables, &edges, &bounds);
                let Some(count) = counter.count(subset) else {
                    cyclic += 1;
                    continue;
                };
                let truth = single_number(&context, &format!("SELECT COUNT(*) {source}")).await;
                assert!((count - truth).abs() < 0.5, "{count} is not {truth}: {source}");
                counted += 1;

                let relation = subset.trailing_zeros() as usize;
                let columns = [(relation, 0), (relation, 2)];
                let groups = count_groups(&mut counter, subset, &columns).unwrap().unwrap();
                let inner =
                    format!("SELECT r{relation}.a, r{relation}.s {source} GROUP BY r{relation}.a, r{relation}.s");
                let truth = single_number(&context, &format!("SELECT COUNT(*) FROM ({inner}) AS g")).await;
                assert!((groups - truth).abs() < 0.5, "{groups} is not {truth}: {inner}");
                grouped += usize::from(holds(subset, relation));
            }
        }
    }
    assert!(counted > 120 && grouped == counted, "{counted} {grouped}");
    assert!(cyclic < counted / 10, "{cyclic} of {counted}");
}

#[test]
fn counts_beyond_what_could_be_enumerated() {
    // Every row of one relation matches every row of the others: 300^8 results.
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1; 300]));
    let relation = Relation { batch: RecordBatch::try_from_iter([("k", column)]).unwrap(), mask: None };
    let relations = vec![relation; 8];
    let edges: Vec<Edge> = (1..8).map(|right| Edge { left: right / 2, right, keys: vec![(0, 0)] }).collect();
    let counts = count_connected_subsets(&relations, &edges, 1000);
    let whole = counts.last().unwrap();
    assert_eq!(whole.0, 0xff);
    assert!((whole.1.unwrap() / 300_f64.powi(8) - 1.0).abs() < 1e-12);
}

#[test]
fn keys_that_cannot_be_equal_are_not_counted() {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["1", "2"]));
    let relation = |column| Relation { batch: RecordBatch::try_from_iter([("k", column)]).unwrap(), mask: None };
    let edges = [Edge { left: 0, right: 1, keys: vec![(0, 0)] }];
    let counts = count_connected_subsets(&[relation(numbers), relation(texts)], &edges, 10);
    assert_eq!(counts[2], (0b11, None));
}
