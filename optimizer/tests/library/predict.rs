//! Columns predicted from examples: the same from Rust and SQL, composable, and without leaks. The predictions themselves are up to
//! the weights.

use datafusion::arrow::array::{Array, AsArray, Float64Array, Int64Array, StringArray, TimestampSecondArray};
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::common::{Column, ScalarValue, TableReference};
use relata::{ForeignKey, PredictTask, Predictions, RelataError};

use super::*;

const DAY: i64 = 86_400;

/// What tests change of the shop.
struct Shop {
    customers: i64,
    /// Whether the label of customer 50 and later ones is another one.
    other_labels: bool,
    /// Factor on the amounts of orders from day 60 on.
    late: f64,
    declared: bool,
}

impl Default for Shop {
    fn default() -> Self {
        Self { customers: 60, other_labels: false, late: 1.0, declared: true }
    }
}

impl Shop {
    /// Cities with customers, of whom those from 50 on are asked about, and their orders on 100 days.
    fn open(&self) -> Sessions {
        let mut relata = pretrained();
        if self.declared {
            let key = |table: &str, column: &str, references: &str| ForeignKey {
                table: TableReference::bare(table),
                columns: vec![column.to_owned()],
                references: TableReference::bare(references),
                referenced: vec!["id".to_owned()],
            };
            relata = relata
                .with_foreign_keys(vec![key("customers", "city", "cities"), key("orders", "customer", "customers")]);
        }
        let sessions = Sessions::new(relata);
        let ids = || 1000..1000 + self.customers;
        let place = |id: i64| id - 1000;
        let text = |value: fn(i64) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(ids().map(move |id| value(id - 1000))))
        };
        let label = |id: i64| {
            let asked = place(id) >= 50;
            let plain = if asked { None } else { Some(if place(id) % 3 == 0 { "gone" } else { "there" }) };
            if asked && self.other_labels { Some("never") } else { plain }
        };
        let number = |value: fn(i64) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(ids().map(value))) };
        sessions.register(
            "customers",
            &batch([
                ("id", number(|id| id)),
                ("city", number(|id| 7000 + id % 4)),
                ("age", number(|id| 20 + id % 50)),
                ("label", Arc::new(StringArray::from_iter(ids().map(label)))),
                ("rating", number(|id| id % 5)),
                ("points", number(|id| id * 37 % 101)),
                ("kind", text(|id| format!("kind {:02}", id % 14))),
                ("spent", Arc::new(Float64Array::from_iter_values(ids().map(|id| (id % 17) as f64 * 1.5)))),
            ]),
        );
        let count = self.customers * 4;
        let days = TimestampSecondArray::from_iter_values((0..count).map(|row| row * 7 % 100 * DAY));
        let amount = |row: i64| (row % 23) as f64 * if row * 7 % 100 >= 60 { self.late } else { 1.0 };
        sessions.register(
            "orders",
            &batch([
                ("id", Arc::new(Int64Array::from_iter_values(50_000..50_000 + count))),
                ("customer", Arc::new(Int64Array::from_iter_values((0..count).map(|row| 1000 + row % self.customers)))),
                ("amount", Arc::new(Float64Array::from_iter_values((0..count).map(amount)))),
                ("day", Arc::new(days)),
            ]),
        );
        let towns = StringArray::from(vec!["Aachen", "Bonn", "Celle", "Dessau"]);
        let cities: [(&str, ArrayRef); 2] =
            [("id", Arc::new(Int64Array::from_iter_values(7000..7004))), ("name", Arc::new(towns))];
        sessions.register("cities", &batch(cities));
        sessions
    }
}

const TARGET: &str = "SELECT id, label FROM customers WHERE id < 1050";
const ENTITIES: &str = "SELECT id FROM customers WHERE id >= 1050";

/// Few features: without optimizations they take their time.
fn small(target: &str, entities: &str) -> PredictTask {
    PredictTask { features: 8, ..PredictTask::new(target, entities) }
}

/// Few examples and all the features.
fn wide(target: &str, entities: &str) -> PredictTask {
    PredictTask { context: 12, ..PredictTask::new(target, entities) }
}

async fn predict(sessions: &Sessions, task: &PredictTask) -> relata::Result<Predictions> {
    sessions.relata.predict(&sessions.learned, task).await
}

async fn reason(sessions: &Sessions, task: &PredictTask) -> String {
    match predict(sessions, task).await {
        Err(error @ RelataError::NoPrediction(_)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

fn shown(predictions: &Predictions) -> Vec<String> {
    let text = pretty_format_batches(&predictions.batches).unwrap().to_string();
    let mut lines: Vec<String> = text.lines().filter(|line| line.starts_with('|')).skip(1).map(str::to_owned).collect();
    lines.sort();
    lines
}

async fn sql(sessions: &Sessions, sql: &str) -> Vec<String> {
    let mut rows = rows(&sessions.learned, sql).await.unwrap_or_else(|error| panic!("{sql}\n{error}"));
    rows.remove(0);
    rows.sort();
    rows
}

fn floats(predictions: &Predictions, name: &str) -> Vec<f64> {
    let batch = &predictions.batches[0];
    batch.column_by_name(name).unwrap().as_primitive::<Float64Type>().values().to_vec()
}

#[tokio::test]
async fn classes_from_rust_and_sql() {
    let sessions = Shop::default().open();
    let found = predict(&sessions, &small(TARGET, ENTITIES)).await.unwrap();
    assert_eq!(found.classes, ["there", "gone"]);
    assert_eq!(found.examples, 50);
    assert!(found.features.iter().any(|name| name.starts_with("customers.orders.")), "{:?}", found.features);
    assert!(!found.features.iter().any(|name| name.contains("label")), "{:?}", found.features);
    let names: Vec<&str> = found.schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["id", "prediction", "probability", "probabilities", "examples", "features"]);
    assert_eq!(found.schema, found.batches[0].schema());
    assert_eq!(found.batches[0].num_rows(), 10);
    assert!(floats(&found, "probability").iter().all(|share| (0.5..=1.0).contains(share)));
    let again = predict(&sessions, &small(TARGET, ENTITIES)).await.unwrap();
    assert_eq!(shown(&found), shown(&again));
    let relation = format!("SELECT * FROM PREDICT(target => ({TARGET}), entities => ({ENTITIES}), features => 8)");
    assert_eq!(sql(&sessions, &relation).await, shown(&found));
    sessions.learned.sql("SET relata.enabled = false").await.unwrap().collect().await.unwrap();
    assert_eq!(sql(&sessions, &relation).await, shown(&found));
}

#[tokio::test]
async fn the_relation_composes() {
    let sessions = Shop::default().open();
    let relation = format!("PREDICT(target => ({TARGET}), entities => ({ENTITIES}), features => 8, depth => 1)");
    let all = format!("SELECT id, prediction, probabilities['gone'] AS gone FROM {relation} p");
    let found = rows(&sessions.learned, &all).await.unwrap();
    assert_eq!(found[0], "id Int64, prediction Utf8, gone Float64");
    assert_eq!(found.len(), 11);
    let joined = format!(
        "SELECT c.id, t.name, p.prediction FROM {relation} AS p JOIN customers c ON p.id = c.id JOIN cities t ON t.id = c.city \
         WHERE c.age > 0 AND p.probability >= 0.5 AND p.id < 1055"
    );
    assert_eq!(sql(&sessions, &joined).await.len(), 5);
    assert_eq!(sql(&sessions, &format!("SELECT examples FROM {relation} LIMIT 3")).await, ["| 50       |"; 3]);
    assert_eq!(sql(&sessions, &format!("SELECT count(*) AS n FROM {relation}")).await, ["| 10 |"]);
    let with = format!(
        "WITH asked AS ({ENTITIES}), known AS ({TARGET}) \
         SELECT * FROM predict(target => (SELECT * FROM known), entities => (SELECT * FROM asked WHERE id < 1052), features => 8)"
    );
    assert_eq!(sql(&sessions, &with).await.len(), 2);
    let view = format!("CREATE VIEW gone AS SELECT id, probability FROM {relation} WHERE prediction IS NOT NULL");
    sessions.learned.sql(&view).await.unwrap();
    assert_eq!(sql(&sessions, "SELECT id FROM gone WHERE id % 2 = 0").await.len(), 5);
    let empty =
        format!("SELECT * FROM PREDICT(target => ({TARGET}), entities => ({ENTITIES} AND id < 0), features => 8)");
    assert_eq!(sql(&sessions, &empty).await.len(), 0);
}

#[tokio::test]
async fn labels_of_the_entities_change_nothing() {
    let (plain, other) = (Shop::default(), Shop { other_labels: true, ..Shop::default() });
    for target in [
        TARGET,
        "SELECT id, label = 'gone' AS gone FROM customers WHERE id < 1050",
        "SELECT k, CASE WHEN upper(l) = 'GONE' THEN 'a' ELSE 'b' END FROM (SELECT id AS k, label AS l FROM customers) c WHERE k < 1050",
        "SELECT id, (SELECT max(o.label) FROM customers o WHERE o.id = customers.id) FROM customers WHERE id < 1050",
    ] {
        let task = small(target, ENTITIES);
        let found = predict(&plain.open(), &task).await.unwrap();
        assert!(!found.features.iter().any(|name| name.contains("label")), "{target}: {:?}", found.features);
        assert_eq!(shown(&found), shown(&predict(&other.open(), &task).await.unwrap()), "{target}");
    }
}

#[tokio::test]
async fn what_a_label_is_computed_from_is_hidden_with_the_rows_it_counts() {
    let sessions = Shop::default().open();
    let counted = "SELECT c.id, COUNT(o.id) > 3 AND SUM(o.amount) > 40.0 AS many FROM customers c \
                   LEFT JOIN orders o ON o.customer = c.id WHERE c.id < 1050 GROUP BY c.id";
    let found = predict(&sessions, &wide(counted, ENTITIES)).await.unwrap();
    assert!(found.features.iter().all(|name| !name.contains("orders")), "{:?}", found.features);
    let grouped = "SELECT customer, SUM(amount) FROM orders WHERE customer < 1050 GROUP BY customer";
    let found = predict(&sessions, &wide(grouped, ENTITIES)).await.unwrap();
    assert!(found.features.contains(&"customers.age".to_owned()), "{:?}", found.features);
    assert!(found.features.iter().all(|name| !name.contains("orders")), "{:?}", found.features);
    let task = PredictTask { hide: vec![Column::from_qualified_name("customers.age")], ..wide(TARGET, ENTITIES) };
    let found = predict(&sessions, &task).await.unwrap();
    assert!(!found.features.contains(&"customers.age".to_owned()), "{:?}", found.features);
}

#[tokio::test]
async fn only_what_was_before_the_time_is_seen() {
    let (plain, late) = (Shop::default().open(), Shop { late: 100.0, ..Shop::default() }.open());
    let at = |day: i64| Some(ScalarValue::TimestampSecond(Some(day * DAY), None));
    let timed = "SELECT id, to_timestamp_seconds((id % 20 + 30) * 86400) AS t, label FROM customers WHERE id < 1050";
    let with_times = "SELECT id, to_timestamp_seconds(60 * 86400) AS t FROM customers WHERE id >= 1050";
    for (target, entities, at) in [(TARGET, ENTITIES, at(60)), (timed, ENTITIES, at(60)), (timed, with_times, None)] {
        let task = PredictTask { at, ..wide(target, entities) };
        let found = predict(&plain, &task).await.unwrap();
        assert!(found.features.iter().any(|name| name.contains("orders")), "{:?}", found.features);
        assert_eq!(shown(&found), shown(&predict(&late, &task).await.unwrap()), "{target}");
        assert_eq!(found.schema.index_of("t").is_ok(), entities == with_times);
    }
    let mut task = PredictTask { at: at(99), ..wide(TARGET, ENTITIES) };
    assert_ne!(shown(&predict(&plain, &task).await.unwrap()), shown(&predict(&late, &task).await.unwrap()));
    let relation = format!(
        "SELECT * FROM PREDICT(target => ({TARGET}), entities => ({ENTITIES}), features => 30, context => 12, at => TIMESTAMP '1970-03-01' + INTERVAL '1 day')"
    );
    task.at = Some(ScalarValue::from("1970-03-02"));
    assert_eq!(sql(&plain, &relation).await, shown(&predict(&plain, &task).await.unwrap()));
    task.timeless = vec![TableReference::bare("orders")];
    assert_ne!(shown(&predict(&plain, &task).await.unwrap()), shown(&predict(&late, &task).await.unwrap()));
    (task.timeless, task.time) = (vec![], vec![Column::from_qualified_name("orders.day")]);
    assert_eq!(sql(&plain, &relation).await, shown(&predict(&plain, &task).await.unwrap()));
}

#[tokio::test]
async fn many_classes_and_few_integers() {
    let sessions = Shop::default().open();
    let target = "SELECT id, kind FROM customers WHERE id < 1050";
    let found = predict(&sessions, &small(target, ENTITIES)).await.unwrap();
    assert_eq!((found.classes.len(), found.classes.last().map(String::as_str)), (10, Some("other")));
    let target = "SELECT id, rating FROM customers WHERE id < 1050";
    let task = small(target, ENTITIES);
    let found = predict(&sessions, &task).await.unwrap();
    assert_eq!(found.classes.len(), 5);
    let relation = |classes: &str| {
        format!("SELECT * FROM PREDICT(target => ({target}), entities => ({ENTITIES}), features => 8{classes})")
    };
    assert_eq!(sql(&sessions, &relation(", classes => true")).await, shown(&found));
    let numbers = predict(&sessions, &PredictTask { classes: Some(false), ..task }).await.unwrap();
    assert!(numbers.classes.is_empty());
    assert_eq!(sql(&sessions, &relation("")).await, shown(&numbers));
    let points = small("SELECT id, points FROM customers WHERE id < 1050", ENTITIES);
    assert!(predict(&sessions, &points).await.unwrap().classes.is_empty());
}

#[tokio::test]
async fn numbers_have_ascending_quantiles() {
    let sessions = Shop::default().open();
    let task = small("SELECT id, spent FROM customers WHERE id < 1050", ENTITIES);
    let found = predict(&sessions, &task).await.unwrap();
    let batch = &found.batches[0];
    let quantiles = batch.column_by_name("quantiles").unwrap().as_list::<i32>();
    assert_eq!(quantiles.len(), 10);
    let (lower, upper) = (floats(&found, "lower"), floats(&found, "upper"));
    for row in 0..10 {
        let quantiles = quantiles.value(row);
        let quantiles = quantiles.as_primitive::<Float64Type>().values();
        assert_eq!(quantiles.len(), 19);
        assert!(quantiles.is_sorted() && quantiles.iter().all(|value| value.is_finite()), "{quantiles:?}");
        assert_eq!((quantiles[0], quantiles[18]), (lower[row], upper[row]));
    }
    assert!(floats(&found, "prediction").iter().all(|value| value.is_finite()));
}

#[tokio::test]
async fn examples_are_drawn_and_unlabelled_rows_are_none() {
    let sessions = Shop { customers: 400, ..Shop::default() }.open();
    // Customers from 50 on have no label.
    let all = small("SELECT id, label FROM customers", ENTITIES);
    assert_eq!(predict(&sessions, &all).await.unwrap().examples, 50);
    let rare = "SELECT id, CASE WHEN id = 1399 THEN 'rare' ELSE 'common' END FROM customers";
    let task = PredictTask { context: 20, features: 5, ..small(rare, "VALUES (1399), (1001), (1399), (NULL)") };
    let task = PredictTask { entity: Some(TableReference::bare("customers")), ..task };
    let found = predict(&sessions, &task).await.unwrap();
    assert_eq!((found.examples, found.classes.as_slice()), (20, &["common".to_owned(), "rare".to_owned()][..]));
    assert!(found.features.len() <= 5);
    let batch = &found.batches[0];
    assert_eq!(batch.num_rows(), 4);
    let ids = batch.column(0).as_primitive::<Int64Type>();
    assert_eq!((ids.null_count(), batch.schema().field(0).data_type()), (1, &DataType::Int64));
    let probability = floats(&found, "probability");
    assert!((probability[0] - probability[2]).abs() < 1e-9);
    let seeded = PredictTask { seed: 1, ..task.clone() };
    assert_ne!(floats(&predict(&sessions, &seeded).await.unwrap(), "probability"), probability);
}

#[tokio::test]
async fn keys_are_inferred_where_none_are_declared() {
    let sessions = Shop { declared: false, ..Shop::default() }.open();
    let found = predict(&sessions, &small(TARGET, ENTITIES)).await.unwrap();
    assert!(found.features.iter().any(|name| name.starts_with("customers.orders.")), "{:?}", found.features);
    // A declared key to what is not unique is no harm.
    let key = ForeignKey {
        table: TableReference::bare("orders"),
        columns: vec!["amount".to_owned()],
        references: TableReference::bare("customers"),
        referenced: vec!["age".to_owned()],
    };
    let relata = sessions.relata.clone().with_foreign_keys(vec![key]);
    let by_age = small("SELECT age, label FROM customers WHERE id < 1050", "SELECT DISTINCT age FROM customers");
    let found = relata.predict(&sessions.learned, &by_age).await.unwrap();
    assert_eq!(found.batches[0].num_rows(), 50);
}

#[tokio::test]
async fn explain_shows_the_features() {
    let sessions = Shop::default().open();
    let relation = format!(
        "PREDICT(target => ({TARGET}), entities => ({ENTITIES}), features => 8, depth => 1, hide => [customers.age])"
    );
    let plan = sql(&sessions, &format!("EXPLAIN FORMAT INDENT SELECT id FROM {relation} LIMIT 2")).await.join("\n");
    for part in [
        "PredictExec: entities=customers(id)",
        "customers.age, ",
        "limit=2",
        "customers.label",
        "customers.orders.MEAN(amount)",
    ] {
        assert!(plan.contains(part), "{part}: {plan}");
    }
    let tree = sql(&sessions, &format!("EXPLAIN FORMAT TREE SELECT id FROM {relation}")).await.join("\n");
    assert!(tree.contains("PredictExec"), "{tree}");
    let analyzed = sql(&sessions, &format!("EXPLAIN ANALYZE SELECT id FROM {relation}")).await.join("\n");
    assert!(analyzed.contains("PredictExec"), "{analyzed}");
}

#[tokio::test]
async fn tasks_that_cannot_be_say_why() {
    let sessions = Shop::default().open();
    let plain = || small(TARGET, ENTITIES);
    let target = |target: &str| small(target, ENTITIES);
    let at = Some(ScalarValue::TimestampSecond(Some(60 * DAY), None));
    let keyed = PredictTask { entity: Some(TableReference::bare("cities")), ..plain() };
    for (task, part) in [
        (target("SELECT id, label FROM customers WHERE id < 0"), "no examples"),
        (target("SELECT id, label FROM customers WHERE label IS NULL"), "no examples"),
        (target("SELECT id, 'one' FROM customers"), "one class"),
        (target("SELECT label FROM customers"), "selects no key"),
        (target("SELECT id, age, label FROM customers"), "2 key columns"),
        (target("SELECT id, now(), today(), label FROM customers"), "2 times"),
        (target("SELECT id, now() FROM customers"), "neither classes nor numbers"),
        (target("SELECT id, now(), label FROM customers"), "which time to predict at"),
        (target("SELECT id + 1, label FROM customers"), "do not belong to one table"),
        (target("SELECT * FROM (VALUES (1, 'a'), (2, 'b')) t"), "do not belong to one table"),
        (small(TARGET, "SELECT id, now() FROM customers"), "the examples have none"),
        (small(TARGET, "SELECT id AS prediction FROM customers"), "two columns prediction"),
        (small(TARGET, "SELECT 'x' FROM customers"), "does not fit"),
        (PredictTask { classes: Some(false), ..plain() }, "no numbers"),
        (PredictTask { depth: 4, ..plain() }, "depth is 4"),
        (PredictTask { context: 1025, ..plain() }, "context is 1025"),
        (PredictTask { features: 0, ..plain() }, "features is 0"),
        (PredictTask { hide: vec![Column::from_qualified_name("customers.nothing")], ..plain() }, "no column nothing"),
        (PredictTask { hide: vec![Column::from_name("age")], ..plain() }, "without its table"),
        (PredictTask { at: Some(ScalarValue::Utf8(None)), ..plain() }, "at is NULL"),
        (PredictTask { at, ..small("SELECT id, amount FROM orders", "SELECT id FROM orders") }, "are events"),
    ] {
        let found = reason(&sessions, &task).await;
        assert!(found.starts_with("no prediction: ") && found.contains(part), "{part}: {found}");
    }
    assert!(predict(&sessions, &keyed).await.is_ok(), "id is a column of cities as well");
    let unknown = PredictTask { entity: Some(TableReference::bare("nowhere")), ..plain() };
    assert!(matches!(predict(&sessions, &unknown).await, Err(RelataError::NoTable(_))));
    assert!(matches!(
        predict(&sessions, &target("SELECT nothing FROM customers")).await,
        Err(RelataError::DataFusion(_))
    ));
    assert!(matches!(predict(&sessions, &target("DROP TABLE customers")).await, Err(RelataError::NoQuery(_))));
}

#[tokio::test]
async fn relations_that_cannot_be_say_why() {
    let sessions = Shop::default().open();
    let queries = format!("target => ({TARGET}), entities => ({ENTITIES})");
    for (arguments, part) in [
        (String::new(), "takes target"),
        (format!("target => ({TARGET})"), "takes target"),
        (format!("({TARGET})"), "by name"),
        (format!("target => 'x', entities => ({ENTITIES})"), "query in parentheses"),
        (format!("{queries}, deep => 2"), "no argument deep"),
        (format!("{queries}, depth => 'x'"), "whole number"),
        (format!("{queries}, depth => 1 + 6"), "depth is 7"),
        (format!("{queries}, seed => -1"), "whole number"),
        (format!("{queries}, classes => 1"), "true or false"),
        (format!("{queries}, hide => [age]"), "with their tables"),
        (format!("{queries}, hide => ['customers.nothing']"), "no column nothing"),
        (format!("{queries}, timeless => (customers, elsewhere)"), "no table elsewhere"),
        (format!("{queries}, entity => public.nowhere"), "no table"),
        (format!("{queries}, at => random()"), "constant"),
        (format!("{queries}, at => 'yesterday'"), "yesterday"),
        (format!("{queries}, at => 5"), "at is 5, a Int64"),
    ] {
        let query = format!("SELECT * FROM PREDICT({arguments})");
        let error = rows(&sessions.learned, &query).await.unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
    let beside = "SELECT * FROM customers c, PREDICT(target => (SELECT id, label FROM customers o WHERE o.city = c.city), \
                  entities => (SELECT 1)) p";
    assert!(rows(&sessions.learned, beside).await.is_err());
    let named = format!(
        "SELECT id FROM PREDICT({queries}, entity => customers, hide => customers.age, at => now(), time => orders.day, \
         timeless => [customers, public.cities], context => 10, features => 4) p LIMIT 1"
    );
    assert_eq!(sql(&sessions, &named).await.len(), 1);
}
