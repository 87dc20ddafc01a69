//! Approximate answers, by the library and in SQL.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, AsArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray, UInt64Array,
};
use datafusion::arrow::datatypes::Float64Type;
use datafusion::prelude::SessionContext;
use relata::{ProfileConfig, Relata, RelataError};

use crate::{Sessions, rows};

/// A table larger than its sample and one that it refers to.
fn shop(rows: i64) -> Sessions {
    let sessions = Sessions::new(Relata::pretrained().unwrap());
    let numbers = |of: fn(i64) -> i64| Arc::new(Int64Array::from_iter_values((0..rows).map(of))) as ArrayRef;
    let price = Float64Array::from_iter((0..rows).map(|i| (i % 9 > 0).then_some(((i * 7919) % 10_007) as f64 / 10.0)));
    let day = Date32Array::from_iter_values((0..rows).map(|i| 19_000 + (i % 365) as i32));
    let names = ["ash", "oak", "elm", "fir"];
    let kinds = StringArray::from_iter_values((0..rows).map(|i| names[(i * i % 4) as usize]));
    let sales: [(&str, ArrayRef); 5] = [
        ("shop", numbers(|i| (i * 31) % 40)),
        ("price", Arc::new(price)),
        ("amount", numbers(|i| 1 + (i * 13) % 17)),
        ("day", Arc::new(day)),
        ("kind", Arc::new(kinds)),
    ];
    let shops: [(&str, ArrayRef); 2] = [
        ("id", Arc::new(Int64Array::from_iter_values(0..40))),
        ("town", Arc::new(StringArray::from_iter_values((0..40).map(|i| format!("town {}", i % 5))))),
    ];
    for ctx in [&sessions.default, &sessions.learned] {
        ctx.register_batch("sales", RecordBatch::try_from_iter(sales.clone()).unwrap()).unwrap();
        ctx.register_batch("shops", RecordBatch::try_from_iter(shops.clone()).unwrap()).unwrap();
    }
    sessions
}

/// The numbers of the first column, and of the interval beside it.
fn numbers(batches: &[RecordBatch], column: usize) -> Vec<f64> {
    let cast = |batch: &RecordBatch| {
        let array = batch.column(column);
        datafusion::arrow::compute::cast(array, &datafusion::arrow::datatypes::DataType::Float64).unwrap()
    };
    batches.iter().flat_map(|batch| cast(batch).as_primitive::<Float64Type>().values().to_vec()).collect()
}

async fn exact(ctx: &SessionContext, sql: &str) -> Vec<f64> {
    numbers(&ctx.sql(sql).await.unwrap().collect().await.unwrap(), 0)
}

const AGGREGATES: [&str; 6] =
    ["AVG(s.price)", "SUM(s.price)", "MIN(s.price)", "MAX(s.price)", "SUM(s.amount * s.price)", "COUNT(s.price)"];

#[tokio::test]
async fn answers_of_tables_that_are_known_whole_are_exact() {
    let sessions = shop(700);
    for aggregate in AGGREGATES.into_iter().chain(["COUNT(*)", "MAX(s.amount) - MIN(s.amount)"]) {
        for condition in ["s.amount > 3", "s.kind = 'oak' AND s.price > 200", "s.price > 2000"] {
            let sql = format!("SELECT {aggregate} FROM sales s WHERE {condition}");
            let answer = sessions.relata.answer(&sessions.learned, &sql).await.unwrap();
            let found = &answer[0];
            let truth = sessions.default.sql(&sql).await.unwrap().collect().await.unwrap();
            assert_eq!(found.column(0).is_null(0), truth[0].column(0).is_null(0), "{sql}");
            let (found, truth) = (numbers(&answer, 0)[0], numbers(&truth, 0)[0]);
            assert!((found - truth).abs() <= 1e-6 * truth.abs().max(1.0), "{sql}: {found}, not {truth}");
        }
    }
}

#[tokio::test]
async fn answers_of_large_tables_come_close_and_know_how_close() {
    let sessions = shop(60_000);
    let mut inside = 0;
    let mut all = 0;
    for aggregate in AGGREGATES {
        for (from, condition) in [
            ("sales s", "s.amount BETWEEN 3 AND 12"),
            ("sales s", "s.kind = 'oak' AND s.shop < 20"),
            ("sales s JOIN shops h ON s.shop = h.id", "h.town = 'town 3'"),
            ("sales s, shops h", "s.shop = h.id AND h.town <> 'town 1' AND s.price < 400"),
        ] {
            let sql = format!("SELECT {aggregate} FROM {from} WHERE {condition}");
            let answer = sessions.relata.answer(&sessions.learned, &sql).await.unwrap();
            let [value, lower, upper] = [0, 1, 2].map(|column| numbers(&answer, column)[0]);
            let truth = exact(&sessions.default, &sql).await[0];
            assert!(lower <= value && value <= upper, "{sql}: {lower} {value} {upper}");
            assert!((value - truth).abs() <= 0.25 * truth.abs().max(20.0), "{sql}: {value}, not {truth}");
            all += 1;
            inside += usize::from(lower <= truth + 1e-9 && truth <= upper + 1e-9);
        }
    }
    assert!(inside * 10 >= all * 8, "{inside} of {all} intervals hold the truth");
    // The sample is there in the planner as well: nothing was scanned for the answers after the profiles.
    assert_eq!(sessions.relata.counters().profiled, 2);
}

#[tokio::test]
async fn groups_are_answered_each() {
    let sessions = shop(60_000);
    let sql = "SELECT h.town, COUNT(*) AS n, AVG(s.price) AS price, SUM(s.amount) FILTER (WHERE s.kind = 'elm') AS elms \
               FROM sales s JOIN shops h ON s.shop = h.id WHERE s.amount > 2 \
               GROUP BY h.town HAVING COUNT(*) > 10 ORDER BY h.town LIMIT 4";
    let answer = sessions.relata.answer(&sessions.learned, sql).await.unwrap();
    let truth = sessions.default.sql(sql).await.unwrap().collect().await.unwrap();
    let schema = answer[0].schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let expected =
        ["town", "n", "n_lower", "n_upper", "price", "price_lower", "price_upper", "elms", "elms_lower", "elms_upper"];
    assert_eq!(names.iter().filter(|name| expected.contains(name)).count(), expected.len(), "{names:?}");
    let column = |name: &str| numbers(&answer, names.iter().position(|other| *other == name).unwrap());
    assert_eq!(answer.iter().map(RecordBatch::num_rows).sum::<usize>(), 4);
    for (name, place) in [("n", 1), ("price", 2)] {
        for (found, truth) in column(name).iter().zip(numbers(&truth, place)) {
            assert!((found / truth - 1.0).abs() < 0.2, "{name}: {found}, not {truth}");
        }
    }
    assert!(column("elms").iter().all(|elms| elms.abs() < 1.0), "no square is 2 modulo 4");
}

#[tokio::test]
async fn the_table_function_composes() {
    let sessions = shop(60_000);
    let sql = "SELECT a.town, a.m, a.m_lower <= a.m AND a.m <= a.m_upper AS inside, h.shops \
               FROM approx_answer('SELECT h.town AS town, MAX(s.amount) AS m FROM sales s, shops h \
                                   WHERE s.shop = h.id GROUP BY h.town') a \
               JOIN (SELECT town, COUNT(*) AS shops FROM shops GROUP BY town) h ON a.town = h.town ORDER BY a.town LIMIT 3";
    let rows = sessions.learned.sql(sql).await.unwrap().collect().await.unwrap();
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
    assert_eq!(numbers(&rows, 1), [17.0; 3]);
    assert_eq!(numbers(&rows, 3), [8.0; 3]);
    let day = "SELECT arrow_typeof(d) AS t, d FROM approx_answer('SELECT MIN(s.day) AS d FROM sales s')";
    let rows = sessions.learned.sql(day).await.unwrap().collect().await.unwrap();
    let rows = datafusion::arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
    assert!(rows.contains("Date32") && rows.contains("2022-01-08"), "{rows}");
}

#[tokio::test]
async fn what_has_no_approximate_answer_says_so() {
    let sessions = shop(700);
    let answer = async |sql: &str| sessions.relata.answer(&sessions.learned, sql).await;
    for (sql, reason) in [
        ("SELECT s.price FROM sales s", "aggregate"),
        ("SELECT stddev(s.price) FROM sales s", "stddev"),
        ("SELECT SUM(DISTINCT s.amount) FROM sales s", "DISTINCT"),
        ("SELECT MIN(s.kind) FROM sales s", "numbers"),
        ("SELECT AVG(s.price) FROM sales s LEFT JOIN shops h ON s.shop = h.id", "inner joins"),
        ("SELECT MAX(s.amount) OVER () FROM sales s", "aggregate"),
        ("SELECT COUNT(*) FROM sales s WHERE s.amount > $1", "parameters"),
    ] {
        let error = answer(sql).await.unwrap_err();
        assert!(matches!(error, RelataError::NoAnswer(_)) && error.to_string().contains(reason), "{sql}: {error}");
    }
    assert!(matches!(answer("SELECT AVG(nothing) FROM sales").await, Err(RelataError::DataFusion(_))));
    for call in ["approx_answer()", "approx_answer(1)", "approx_answer('SELECT s.price FROM sales s')"] {
        let error = sessions.learned.sql(&format!("SELECT * FROM {call}")).await.unwrap_err();
        assert!(error.to_string().contains("approx"), "{call}: {error}");
    }
}

#[tokio::test]
async fn numbers_that_no_float_holds_are_within_their_intervals() {
    let sessions = Sessions::new(Relata::pretrained().unwrap());
    let large = UInt64Array::from(vec![u64::MAX, u64::MAX - 5, 1]);
    let odd = Int64Array::from(vec![(1 << 60) + 1, (1 << 60) + 3, (1 << 60) + 9]);
    let digits = [12_345_678_901_234_567_890_123, 99_999_999_999_999_999_999_999, 5].map(Some);
    let decimals = Decimal128Array::from_iter(digits).with_precision_and_scale(38, 5).unwrap();
    let columns: [(&str, ArrayRef); 3] = [("u", Arc::new(large)), ("i", Arc::new(odd)), ("d", Arc::new(decimals))];
    sessions.register("wide", &RecordBatch::try_from_iter(columns).unwrap());
    for column in ["u", "i", "d"] {
        for aggregate in ["MIN", "MAX"] {
            let call = format!("SELECT {aggregate}({column}) AS a FROM wide");
            let sql = format!(
                "SELECT t.a >= x.a_lower AND t.a <= x.a_upper AS within FROM approx_answer('{call}') x, ({call}) t"
            );
            assert!(rows(&sessions.learned, &sql).await.unwrap()[1].contains("true"), "{call}");
        }
    }
}

#[tokio::test]
async fn odd_values_are_no_trouble() {
    let relata = Relata::pretrained().unwrap().with_profile_config(ProfileConfig::default());
    let sessions = Sessions::new(relata);
    let odd = [Some(f64::NAN), Some(f64::INFINITY), None, Some(1.0), Some(f64::NEG_INFINITY)];
    let values = Float64Array::from_iter(odd.into_iter().cycle().take(20_000));
    let nothing = Float64Array::from_iter(std::iter::repeat_n(None::<f64>, 20_000));
    let keys = Int64Array::from_iter_values((0..20_000).map(|i| i % 7));
    let columns: [(&str, ArrayRef); 3] = [("x", Arc::new(values)), ("none", Arc::new(nothing)), ("k", Arc::new(keys))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    sessions.learned.register_batch("odd", batch.clone()).unwrap();
    sessions.learned.register_batch("empty", batch.slice(0, 0)).unwrap();
    for table in ["odd", "empty"] {
        for aggregate in ["AVG(o.x)", "SUM(o.x)", "MIN(o.none)", "MAX(o.x)", "COUNT(o.none)", "COUNT(DISTINCT o.k)"] {
            let sql = format!("SELECT {aggregate} FROM {table} o WHERE o.k < 3");
            match sessions.relata.answer(&sessions.learned, &sql).await {
                Ok(rows) => assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 1, "{sql}"),
                Err(error) => assert!(matches!(error, RelataError::NoAnswer(_)), "{sql}: {error}"),
            }
        }
    }
}
