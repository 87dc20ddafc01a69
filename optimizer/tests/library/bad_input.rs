//! Odd data, odd predicates and odd plans: DataFusion's own plan or the same answer, never a panic or a failed query.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use datafusion::arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, DurationSecondArray, Float64Array, Int64Array, Int64Builder,
    ListArray, MapBuilder, NullArray, RecordBatch, StringArray, StringBuilder, StructArray, TimestampNanosecondArray,
    new_null_array,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::exec_err;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{ScalarUDF, Volatility, create_udf};
use datafusion::physical_plan::collect;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;

use relata::CounterValues;

use crate::sources::CustomTable;
use crate::{Sessions, batch, pretrained, sources};

fn numbers(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(Int64Array::from_iter(values))
}

/// 20 rows with a key and 5 values of a number.
fn usual() -> RecordBatch {
    batch([("k", numbers((0..20).map(Some))), ("v", numbers((0..20).map(|i| Some(i % 5))))])
}

/// Joins and filters over the columns `k` and `v` of `odd`, with the table `usual` on both sides.
async fn check_odd(odd: &RecordBatch) {
    let sessions = Sessions::new(pretrained());
    sessions.register("usual", &usual());
    sessions.register("odd", odd);
    let reports = sessions.relata.profile(&sessions.learned).await.unwrap();
    assert!(reports.iter().all(|report| report.error.is_none()), "{reports:?}");
    for sql in [
        "SELECT * FROM odd o JOIN usual a ON o.k = a.k JOIN usual b ON b.v = a.v WHERE b.k > 3",
        "SELECT o.k FROM usual a JOIN usual b ON b.k = a.v JOIN odd o ON o.k = b.k WHERE o.v IS NOT NULL",
        "SELECT o.v, COUNT(*) FROM usual a JOIN odd o ON o.k = a.k JOIN usual b ON b.k = o.k GROUP BY o.v",
        "SELECT a.k FROM usual a LEFT JOIN odd o ON o.k = a.k JOIN usual b ON b.k = a.v",
        "SELECT a.k FROM odd a JOIN odd b ON a.v = b.v AND a.k = b.k JOIN usual c ON c.k = b.k",
        "SELECT a.k FROM usual a JOIN usual b ON a.k = b.k JOIN usual c ON c.k = b.v
         WHERE a.k NOT IN (SELECT k FROM odd WHERE k IS NOT NULL)",
    ] {
        sessions.same(sql).await;
        sessions.relata.explain(&sessions.learned, sql).await.unwrap();
    }
    sessions.assert_untroubled();
    assert!(sessions.relata.counters().reordered >= 4, "{:?}", sessions.relata.counters());
}

#[tokio::test]
async fn no_rows() {
    check_odd(&usual().slice(0, 0)).await;
}

#[tokio::test]
async fn one_row() {
    check_odd(&usual().slice(7, 1)).await;
}

#[tokio::test]
async fn nothing_but_nulls() {
    check_odd(&batch([("k", new_null_array(&DataType::Int64, 9)), ("v", new_null_array(&DataType::Utf8, 9))])).await;
}

#[tokio::test]
async fn one_distinct_value() {
    let words: ArrayRef = Arc::new(StringArray::from(vec!["same"; 9]));
    check_odd(&batch([("k", numbers([Some(4); 9])), ("v", words)])).await;
}

#[tokio::test]
async fn numbers_that_are_not_finite() {
    let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.0, f64::MAX, f64::MIN_POSITIVE, 3.0, -f64::NAN];
    let floats: ArrayRef = Arc::new(Float64Array::from_iter(values.into_iter().map(Some).chain([None, Some(4.0)])));
    check_odd(&batch([("k", Arc::clone(&floats)), ("v", floats)])).await;
}

#[tokio::test]
async fn extreme_integers_and_decimals() {
    let keys = numbers([Some(i64::MIN), Some(i64::MAX), Some(0), None, Some(3)]);
    let decimals = Decimal128Array::from_iter_values([i128::MAX / 10, 0, -1, 5, 7]).with_precision_and_scale(38, 4);
    check_odd(&batch([("k", keys), ("v", Arc::new(decimals.unwrap()))])).await;
    let times: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![i64::MIN, i64::MAX, 0, 1, -1]));
    check_odd(&batch([("k", numbers((0..5).map(Some))), ("v", times)])).await;
}

#[tokio::test]
async fn nested_and_binary_columns() {
    let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(
        (0..6).map(|i| (i != 2).then(|| (0..i).map(Some).collect::<Vec<_>>())),
    ));
    let fields = batch([("number", numbers((0..6).map(Some))), ("flag", numbers([None; 6]))]);
    let nested: ArrayRef = Arc::new(StructArray::from(fields));
    let binary: ArrayRef = Arc::new(BinaryArray::from_iter((0..6u8).map(|i| (i != 4).then_some([i, 255, 0]))));
    let flags: ArrayRef = Arc::new(BooleanArray::from_iter((0..6).map(|i| (i != 1).then_some(i > 3))));
    for values in [list, nested, binary, flags] {
        check_odd(&batch([("k", numbers((0..6).map(Some))), ("v", values)])).await;
    }
}

#[tokio::test]
async fn encoded_words_and_spans_of_time() {
    let words: ArrayRef = Arc::new(StringArray::from_iter((0..6).map(|i| (i != 3).then(|| format!("word {}", i % 4)))));
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    for encoded in [dictionary, DataType::Utf8View, DataType::LargeUtf8] {
        let values = cast(&words, &encoded).unwrap();
        check_odd(&batch([("k", numbers((0..6).map(Some))), ("v", values)])).await;
    }
    let seconds: ArrayRef = Arc::new(DurationSecondArray::from_iter((0..6).map(|i| (i != 0).then_some(i % 2))));
    check_odd(&batch([("k", numbers((0..6).map(Some))), ("v", seconds)])).await;
}

#[tokio::test]
async fn a_column_that_cannot_be_compared() {
    let mut maps = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    for row in 0..6 {
        maps.keys().append_value("key");
        maps.values().append_value(row);
        maps.append(row != 4).unwrap();
    }
    let sessions = Sessions::new(pretrained());
    sessions.register("usual", &usual());
    sessions.register("odd", &batch([("k", numbers((0..6).map(Some))), ("v", Arc::new(maps.finish()))]));
    let reports = sessions.relata.profile(&sessions.learned).await.unwrap();
    assert!(reports.iter().all(|report| report.error.is_none()), "{reports:?}");
    sessions.same("SELECT * FROM odd o JOIN usual a ON o.k = a.k JOIN usual b ON b.v = a.v").await;
    sessions.same_outcome("SELECT a.k FROM odd o JOIN odd p ON o.v = p.v JOIN usual a ON p.k = a.k").await;
    sessions.same_outcome("SELECT o.v, COUNT(*) FROM odd o JOIN usual a ON p.k = a.k GROUP BY o.v").await;
    sessions.assert_untroubled();
}

#[tokio::test]
async fn a_column_of_the_null_type() {
    let sessions = Sessions::new(pretrained());
    sessions.register("usual", &usual());
    sessions.register("odd", &batch([("k", numbers((0..6).map(Some))), ("v", Arc::new(NullArray::new(6)))]));
    sessions.same("SELECT * FROM odd o JOIN usual a ON o.k = a.k JOIN usual b ON b.v = a.v").await;
    sessions.same_outcome("SELECT * FROM odd o JOIN usual a ON o.v = a.k JOIN usual b ON b.v = a.v").await;
    sessions.assert_untroubled();
}

#[tokio::test]
async fn five_hundred_columns() {
    let sessions = Sessions::new(pretrained());
    let columns =
        (0..500).map(|c| (format!("c{c}"), numbers((0..6).map(|i| (i != c % 7).then_some(i * c % 11))), true));
    sessions.register("wide", &RecordBatch::try_from_iter_with_nullable(columns).unwrap());
    sessions.register("usual", &usual());
    sessions
        .same("SELECT * FROM wide w JOIN usual a ON w.c1 = a.k JOIN usual b ON b.v = w.c499 WHERE w.c250 > 1")
        .await;
    let counters = sessions.relata.counters();
    assert_eq!((counters.profiled, counters.reordered, counters.unprofiled), (2, 1, 0), "{counters:?}");
    sessions.assert_untroubled();
}

#[tokio::test]
async fn tables_without_a_profile() {
    let sessions = Sessions::new(pretrained());
    sources::memory(&sessions);
    sessions.learned.sql("SET relata.lazy_profiling = false").await.unwrap().collect().await.unwrap();
    let sql = "SELECT c.id, r.label FROM customer c JOIN town t ON c.town = t.id JOIN region r ON t.region = r.id";
    sessions.same(sql).await;
    // One of the three is known now, which is not enough.
    sessions.relata.profile_table(&sessions.learned, "town".into()).await.unwrap();
    sessions.same(sql).await;
    let counters = sessions.relata.counters();
    assert_eq!((counters.profiled, counters.unestimated, counters.reordered), (1, 2, 0), "{counters:?}");
    assert!(sessions.relata.explain(&sessions.learned, sql).await.unwrap().contains("fallback: no profile"));
    assert!(sessions.relata.profile_table(&sessions.learned, "nowhere".into()).await.is_err());
}

#[tokio::test]
async fn a_table_that_cannot_be_profiled() {
    let sessions = Sessions::new(pretrained());
    sources::memory(&sessions);
    let table = Arc::new(CustomTable::new(usual()));
    for ctx in sessions.both() {
        ctx.register_table("broken", Arc::<CustomTable>::clone(&table)).unwrap();
    }
    table.broken.store(true, Ordering::Relaxed);
    let reports = sessions.relata.profile(&sessions.learned).await.unwrap();
    let failed: Vec<_> = reports.iter().filter(|report| report.error.is_some()).collect();
    assert_eq!(failed.len(), 1, "{reports:?}");
    assert!(failed[0].error.as_deref().is_some_and(|error| error.contains("the table is broken")), "{failed:?}");
    assert_eq!(sessions.relata.counters().unprofiled, 1);

    let sql = "SELECT c.id, b.v FROM broken b JOIN customer c ON c.id = b.k JOIN town t ON c.town = t.id";
    sessions.same_outcome(sql).await;
    table.broken.store(false, Ordering::Relaxed);
    assert!(sessions.same(sql).await > 0);
    assert_eq!(sessions.relata.counters().reordered, 1);
}

/// `picky(x)` is `x > 3`, and an error while the switch is off.
fn picky(works: Arc<AtomicBool>) -> ScalarUDF {
    let function = move |arguments: &[datafusion::logical_expr::ColumnarValue]| {
        if !works.load(Ordering::Relaxed) {
            return exec_err!("picky refuses");
        }
        let numbers = arguments[0].to_array(1)?;
        let three = Int64Array::new_scalar(3);
        Ok((Arc::new(datafusion::arrow::compute::kernels::cmp::gt(&numbers, &three)?) as ArrayRef).into())
    };
    create_udf("picky", vec![DataType::Int64], DataType::Boolean, Volatility::Immutable, Arc::new(function))
}

#[tokio::test]
async fn a_predicate_that_fails_on_the_sample() {
    let sessions = Sessions::new(pretrained());
    sources::memory(&sessions);
    let works = Arc::new(AtomicBool::new(true));
    for ctx in sessions.both() {
        ctx.register_udf(picky(Arc::clone(&works)));
    }
    let sql = "SELECT o.id FROM orders o JOIN customer c ON o.customer = c.id JOIN town t ON c.town = t.id
        WHERE picky(o.amount) AND t.name > 'town 03'";
    let expected = crate::rows(&sessions.default, sql).await.unwrap().len() - 1;

    works.store(false, Ordering::Relaxed);
    let plan = sessions.learned.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
    let estimate = sessions.relata.estimate_sql(&sessions.learned, sql).await.unwrap();
    assert!(estimate.estimate.is_finite() && estimate.estimate >= 0.0, "{estimate:?}");
    sessions.same_outcome(sql).await;
    works.store(true, Ordering::Relaxed);
    let batches = collect(plan, sessions.learned.task_ctx()).await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), expected);
    sessions.assert_untroubled();
}

#[tokio::test]
async fn predicates_beyond_the_sample() {
    let sessions = Sessions::new(pretrained());
    sources::memory(&sessions);
    for predicate in [
        "CASE WHEN o.amount > 20 THEN c.age ELSE t.region END > 10",
        "CASE o.amount % 3 WHEN 0 THEN TRUE WHEN 1 THEN NULL ELSE FALSE END",
        "o.amount > (SELECT MIN(price) FROM item)",
        "o.item IN (SELECT id FROM item WHERE kind = 'toy') OR c.age IS NULL",
        "(o.amount > 10) IS NOT TRUE",
        "regexp_like(t.name, 'town 0[1-5]') AND c.name SIMILAR TO '%1%'",
        "o.amount / 2 * 2 = o.amount AND abs(o.amount - 20) < sqrt(c.id)",
        "CAST(o.day AS VARCHAR) LIKE '2022-0_-1%'",
        "random() < 2.0",
        "o.id BETWEEN c.id AND c.id * 5",
        "NULL",
        "FALSE",
        "o.id = 7 AND o.id = 8",
        "10 / o.amount > 1",
        "10 / (o.amount - o.amount) = 1",
        "CAST(t.name AS BIGINT) = 1",
    ] {
        let sql = format!(
            "SELECT o.id, t.name FROM orders o JOIN customer c ON o.customer = c.id JOIN town t ON c.town = t.id
             WHERE {predicate}"
        );
        sessions.same_outcome(&sql).await;
    }
    sessions.assert_untroubled();
}

/// `tables` tables of a few rows, in one query; `condition` says what the one at an index is joined with.
async fn many_joins(tables: usize, condition: impl Fn(usize) -> String) -> CounterValues {
    let sessions = Sessions::new(pretrained());
    for table in 0..tables {
        let rows = 3 + table as i64 % 4;
        let columns = [("k", numbers((0..rows).map(Some))), ("v", numbers((0..rows).map(|i| Some(i % 3))))];
        sessions.register(&format!("t{table}"), &batch(columns));
    }
    let mut sql = "SELECT COUNT(*), SUM(t0.v) FROM t0".to_owned();
    for table in 1..tables {
        let _ = write!(sql, " JOIN t{table} ON {}", condition(table));
    }
    sessions.same_outcome(&sql).await;
    sessions.assert_untroubled();
    let counters = sessions.relata.counters();
    assert_eq!((counters.planned, counters.profiled, counters.postponed), (1, tables as u64, 0), "{counters:?}");
    counters
}

#[tokio::test]
async fn sixty_joins_in_a_chain() {
    let counters = many_joins(61, |table| format!("t{}.v = t{table}.k", table - 1)).await;
    assert_eq!((counters.reordered, counters.kept), (1, 0), "{counters:?}");
}

#[tokio::test]
async fn sixty_joins_in_a_star() {
    let counters = many_joins(61, |table| format!("t0.{} = t{table}.k", ["k", "v"][table % 2])).await;
    assert_eq!((counters.reordered, counters.kept), (1, 0), "{counters:?}");
}

/// A few rows and then nothing, of which nobody knows before.
#[derive(Debug)]
struct Rows(RecordBatch, AtomicUsize);

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        self.0.schema_ref()
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        // Those that were read are gone.
        let first = self.1.fetch_add(1, Ordering::Relaxed) == 0;
        let rows = first.then(|| Ok(self.0.clone()));
        Box::pin(RecordBatchStreamAdapter::new(self.0.schema(), futures::stream::iter(rows)))
    }
}

#[tokio::test]
async fn streams_are_left_to_their_queries() {
    let sessions = Sessions::new(pretrained());
    sources::memory(&sessions);
    let streams = [(); 2].map(|()| Arc::new(Rows(usual(), AtomicUsize::new(0))));
    for (ctx, stream) in sessions.both().into_iter().zip(&streams) {
        let partitions = vec![Arc::<Rows>::clone(stream) as _];
        let table = StreamingTable::try_new(usual().schema(), partitions).unwrap().with_infinite_table(true);
        ctx.register_table("stream", Arc::new(table)).unwrap();
    }
    let report = sessions.relata.profile_table(&sessions.learned, "stream".into()).await.unwrap();
    assert!(report.error.is_some_and(|error| error.contains("unbounded")));
    let sql = "SELECT s.v, c.name, t.name FROM stream s JOIN customer c ON c.id = s.k JOIN town t ON t.id = c.town";
    assert!(sessions.same(sql).await > 0);
    assert_eq!(streams.map(|stream| stream.1.load(Ordering::Relaxed)), [1, 1]);
}
