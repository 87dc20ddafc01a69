//! Exact features of tiny databases; `leakage` holds the properties.

mod leakage;

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int64Array,
    RecordBatch, StringArray, StringViewArray, TimestampNanosecondArray, TimestampSecondArray,
};
use datafusion::arrow::datatypes::Int32Type;
use datafusion::catalog::MemTable;
use datafusion::datasource::provider_as_source;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_expr::LogicalPlanBuilder;

use super::*;

const DAY: i64 = 86_400;

pub(super) fn ints<const N: usize>(values: [Option<i64>; N]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn whole<const N: usize>(values: [i64; N]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn floats<const N: usize>(values: [Option<f64>; N]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

fn texts<const N: usize>(values: [Option<&str>; N]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// Days since 1970-01-01.
fn times<const N: usize>(values: [Option<i64>; N]) -> ArrayRef {
    Arc::new(TimestampSecondArray::from(values.map(|day| day.map(|day| day * DAY)).to_vec()))
}

/// A relation of columns.
pub(super) fn relation(name: &str, columns: Vec<(&str, ArrayRef)>, key: &[&str], time: Option<&str>) -> Relation {
    Relation {
        reference: TableReference::bare(name),
        source: source(columns),
        key: key.iter().map(|name| name.to_string()).collect(),
        time: time.map(str::to_string),
    }
}

fn source(columns: Vec<(&str, ArrayRef)>) -> Arc<dyn TableSource> {
    let nullable = columns.into_iter().map(|(name, array)| (name, array, true));
    let batch = RecordBatch::try_from_iter_with_nullable(nullable).unwrap();
    provider_as_source(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap()))
}

pub(super) fn refers(table: usize, columns: &[&str], references: usize, referenced: &[&str]) -> Reference {
    let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    Reference { table, columns: owned(columns), references, referenced: owned(referenced) }
}

pub(super) fn entities(columns: Vec<(&str, ArrayRef)>, keys: &[&str], at: Option<&str>) -> Entities {
    Entities {
        plan: LogicalPlanBuilder::scan("entities", source(columns), None).unwrap().build().unwrap(),
        row: "row".to_string(),
        keys: keys.iter().map(|name| name.to_string()).collect(),
        at: at.map(str::to_string),
    }
}

pub(super) fn task(entity: usize, key: &[&str], hidden: &[(usize, &str)]) -> Task {
    Task {
        entity,
        entity_key: key.iter().map(|name| name.to_string()).collect(),
        hidden: hidden.iter().map(|(table, name)| (*table, name.to_string())).collect(),
    }
}

/// What a test compares: texts, and numbers as written, both `-` where missing.
pub(super) type Table = BTreeMap<String, Vec<String>>;

pub(super) fn depth(depth: usize) -> SynthesisConfig {
    SynthesisConfig { depth, max_features: 1000 }
}

pub(super) fn run(relations: &Relations, task: &Task, entities: &Entities, config: SynthesisConfig) -> Table {
    let table = table(relations, task, entities, config);
    let mut found = Table::new();
    for column in table.columns {
        let values = match column.values {
            FeatureValues::Number(values) => values
                .into_iter()
                .map(|value| if value.is_nan() { "-".to_string() } else { format!("{value}") })
                .collect(),
            FeatureValues::Category { codes, levels } => codes
                .into_iter()
                .map(|code| code.map_or("-".to_string(), |code| levels[code as usize].clone()))
                .collect(),
        };
        assert!(found.insert(column.name.clone(), values).is_none(), "{} twice", column.name);
    }
    found
}

fn table(relations: &Relations, task: &Task, entities: &Entities, config: SynthesisConfig) -> FeatureTable {
    let plan = synthesize(relations, task, entities, &config).unwrap();
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let batches =
        runtime.block_on(async { context.execute_logical_plan(plan.plan.clone()).await?.collect().await }).unwrap();
    FeatureTable::read(&plan, &batches).unwrap()
}

/// Customers of cities, with orders of theirs.
fn shop() -> Relations {
    Relations {
        tables: vec![
            relation(
                "customers",
                vec![
                    ("id", whole([1, 2, 3, 4])),
                    ("city", ints([Some(10), Some(10), None, Some(99)])),
                    ("age", floats([Some(30.0), Some(f64::NAN), Some(f64::INFINITY), None])),
                    ("name", texts([Some("ann"), None, Some("çé"), Some("")])),
                ],
                &["id"],
                None,
            ),
            relation(
                "orders",
                vec![
                    ("id", whole([1, 2, 3, 4, 5, 6])),
                    ("customer", ints([Some(1), Some(1), Some(1), Some(2), None, Some(1)])),
                    ("amount", floats([Some(1.0), Some(2.0), Some(6.0), Some(5.0), Some(100.0), None])),
                    ("how", texts([Some("b"), Some("a"), Some("b"), None, Some("c"), Some("a")])),
                    ("day", times([Some(5), Some(3), Some(4), Some(1), Some(1), Some(2)])),
                ],
                &["id"],
                Some("day"),
            ),
            relation(
                "cities",
                vec![("id", whole([10, 11])), ("people", whole([7, 8])), ("coast", texts([Some("yes"), Some("no")]))],
                &["id"],
                None,
            ),
        ],
        references: vec![refers(1, &["customer"], 0, &["id"]), refers(0, &["city"], 2, &["id"])],
    }
}

fn customers(ids: [i64; 5]) -> Entities {
    entities(vec![("row", whole([4, 3, 2, 1, 0])), ("customer", whole(ids))], &["customer"], None)
}

#[track_caller]
fn check(found: &Table, name: &str, expected: &[&str]) {
    let values = found.get(name).unwrap_or_else(|| panic!("no {name} among {:#?}", found.keys()));
    assert_eq!(values, expected, "{name}");
}

#[test]
fn every_aggregate_of_children_and_the_columns_of_parents() {
    // The last entity is no customer.
    let found = run(&shop(), &task(0, &["id"], &[]), &customers([5, 4, 3, 2, 1]), depth(1));
    check(&found, "customers.age", &["30", "-", "-", "-", "-"]);
    check(&found, "customers.name", &["ann", "-", "çé", "", "-"]);
    check(&found, "customers.LENGTH(name)", &["3", "-", "2", "0", "-"]);
    // A NULL key and a key that is not there.
    check(&found, "customers.cities.people", &["7", "7", "-", "-", "-"]);
    check(&found, "customers.cities.coast", &["yes", "yes", "-", "-", "-"]);
    check(&found, "customers.orders.COUNT(*)", &["4", "1", "0", "0", "0"]);
    check(&found, "customers.orders.MEAN(amount)", &["3", "5", "-", "-", "-"]);
    check(&found, "customers.orders.MIN(amount)", &["1", "5", "-", "-", "-"]);
    check(&found, "customers.orders.MAX(amount)", &["6", "5", "-", "-", "-"]);
    check(&found, "customers.orders.SUM(amount)", &["9", "5", "-", "-", "-"]);
    // Sample deviation of 1, 2, 6: the root of (4 + 1 + 9) / 2.
    check(&found, "customers.orders.STDDEV(amount)", &["2.6457512", "-", "-", "-", "-"]);
    check(&found, "customers.orders.LATEST(amount)", &["1", "5", "-", "-", "-"]);
    // Two of each: the least.
    check(&found, "customers.orders.MODE(how)", &["a", "-", "-", "-", "-"]);
    check(&found, "customers.orders.LATEST(how)", &["b", "-", "-", "-", "-"]);
    check(&found, "customers.orders.DISTINCT(how)", &["2", "0", "0", "0", "0"]);
    check(&found, "customers.orders.MEAN(LENGTH(how))", &["1", "-", "-", "-", "-"]);
    check(&found, "customers.orders.MAX(day)", &["5", "1", "-", "-", "-"]);
    check(&found, "customers.orders.MIN(day)", &["2", "1", "-", "-", "-"]);
    assert_eq!(found.len(), 3 + 3 + 13, "{:#?}", found.keys());
}

#[test]
fn a_cutoff_hides_what_comes_later_and_counts_days_back_from_itself() {
    let at = vec![
        ("row", whole([0, 1, 2, 3])),
        ("who", whole([1, 1, 1, 2])),
        ("at", times([Some(4), Some(2), None, Some(31)])),
    ];
    let found = run(&shop(), &task(0, &["id"], &[]), &entities(at, &["who"], Some("at")), depth(1));
    // Of days 5, 3, 4, 2: strictly before.
    check(&found, "customers.orders.COUNT(*)", &["2", "0", "0", "1"]);
    check(&found, "customers.orders.SUM(amount)", &["2", "-", "-", "5"]);
    check(&found, "customers.orders.LATEST(amount)", &["2", "-", "-", "5"]);
    check(&found, "customers.orders.MAX(day)", &["1", "-", "-", "30"]);
    check(&found, "customers.orders.MIN(day)", &["2", "-", "-", "30"]);
    check(&found, "customers.cities.people", &["7", "7", "7", "7"]);
    check(&found, "MONTH(at)", &["1", "1", "-", "2"]);
    // 1970-01-01 was a Thursday.
    check(&found, "DAY_OF_WEEK(at)", &["1", "6", "-", "0"]);
    check(&found, "HOUR(at)", &["0", "0", "-", "0"]);
    check(&found, "DAYS(at)", &["4", "2", "-", "31"]);
}

#[test]
fn two_steps_reach_siblings_without_the_row_itself() {
    let found = run(&shop(), &task(0, &["id"], &[]), &customers([5, 4, 3, 2, 1]), depth(2));
    check(&found, "customers.cities.customers.COUNT(*)", &["1", "1", "-", "-", "-"]);
    check(&found, "customers.cities.customers.MEAN(age)", &["-", "30", "-", "-", "-"]);
    check(&found, "customers.cities.customers.MODE(name)", &["-", "ann", "-", "-", "-"]);
    // Orders lead back to the customer alone.
    assert!(found.keys().all(|name| !name.contains("orders.customers")), "{:#?}", found.keys());
}

#[test]
fn aggregates_of_aggregates_and_of_parents() {
    // Cities see the orders of their customers and customers of their orders.
    let cities = entities(vec![("row", whole([0, 1])), ("id", whole([10, 11]))], &["id"], None);
    let found = run(&shop(), &task(2, &["id"], &[]), &cities, depth(2));
    check(&found, "cities.customers.COUNT(*)", &["2", "0"]);
    check(&found, "cities.customers.SUM(orders.COUNT(*))", &["5", "-"]);
    check(&found, "cities.customers.MAX(orders.SUM(amount))", &["9", "-"]);
    check(&found, "cities.customers.MEAN(orders.MEAN(amount))", &["4", "-"]);
    check(&found, "cities.customers.MODE(orders.MODE(how))", &["a", "-"]);
    check(&found, "cities.customers.MAX(orders.MAX(day))", &["5", "-"]);
    let orders = entities(vec![("row", whole([0, 1])), ("id", whole([1, 5]))], &["id"], None);
    let found = run(&shop(), &task(1, &["id"], &[]), &orders, depth(2));
    check(&found, "orders.customers.age", &["30", "-"]);
    check(&found, "orders.customers.cities.people", &["7", "-"]);
    check(&found, "orders.customers.orders.COUNT(*)", &["3", "-"]);
    check(&found, "orders.customers.orders.SUM(amount)", &["8", "-"]);
    let found = run(&shop(), &task(2, &["id"], &[]), &cities, depth(3));
    check(&found, "cities.customers.SUM(orders.COUNT(*))", &["5", "-"]);
}

#[test]
fn rows_that_are_reached_twice_count_once() {
    // User 1 rated film 7 twice; all ratings of the films they rated are three.
    let relations = Relations {
        tables: vec![
            relation("users", vec![("id", whole([1, 2]))], &["id"], None),
            relation("films", vec![("id", whole([7, 8])), ("length", whole([90, 120]))], &["id"], None),
            relation(
                "ratings",
                vec![("user", whole([1, 1, 2])), ("film", whole([7, 7, 7])), ("stars", whole([1, 3, 5]))],
                &[],
                None,
            ),
        ],
        references: vec![refers(2, &["user"], 0, &["id"]), refers(2, &["film"], 1, &["id"])],
    };
    let users = entities(vec![("row", whole([0])), ("id", whole([1]))], &["id"], None);
    let found = run(&relations, &task(0, &["id"], &[]), &users, depth(3));
    check(&found, "users.ratings.MEAN(films.length)", &["90"]);
    check(&found, "users.ratings.MEAN(films.ratings.COUNT(*))", &["3"]);
    check(&found, "users.ratings.MEAN(films.ratings.MEAN(stars))", &["3"]);
    check(&found, "users.ratings.COUNT(*)", &["2"]);
}

#[test]
fn self_references_and_two_references_between_the_same_relations() {
    let staff = vec![
        ("id", whole([1, 2, 3, 4])),
        ("boss", ints([None, Some(1), Some(1), Some(2)])),
        ("pay", whole([9, 5, 4, 1])),
    ];
    let calls = vec![("from", whole([1, 2, 2])), ("to", whole([2, 1, 3])), ("minutes", whole([10, 20, 40]))];
    let relations = Relations {
        tables: vec![relation("staff", staff, &["id"], None), relation("calls", calls, &[], None)],
        references: vec![
            refers(0, &["boss"], 0, &["id"]),
            refers(1, &["from"], 0, &["id"]),
            refers(1, &["to"], 0, &["id"]),
        ],
    };
    let staff = entities(vec![("row", whole([1, 2, 3, 4])), ("id", whole([1, 2, 3, 4]))], &["id"], None);
    let found = run(&relations, &task(0, &["id"], &[]), &staff, depth(2));
    check(&found, "staff.staff[boss].pay", &["-", "9", "9", "5"]);
    check(&found, "staff.staff[boss].COUNT(*)", &["2", "1", "0", "0"]);
    check(&found, "staff.calls[from].SUM(minutes)", &["10", "60", "-", "-"]);
    check(&found, "staff.calls[to].SUM(minutes)", &["20", "10", "40", "-"]);
    check(&found, "staff.calls[from].MEAN(staff[to].pay)", &["5", "6.5", "-", "-"]);
}

#[test]
fn composite_keys() {
    let lines = vec![
        ("a", ints([Some(1), Some(1), Some(2), None])),
        ("b", texts([Some("x"), Some("x"), Some("x"), Some("x")])),
        ("n", whole([1, 2, 4, 8])),
    ];
    let heads = vec![("a", whole([1, 1, 2])), ("b", texts([Some("x"), Some("y"), Some("x")])), ("v", whole([5, 6, 7]))];
    let relations = Relations {
        tables: vec![relation("heads", heads, &["a", "b"], None), relation("lines", lines, &[], None)],
        references: vec![refers(1, &["a", "b"], 0, &["a", "b"])],
    };
    let columns =
        vec![("row", whole([0, 1, 2])), ("p", whole([1, 1, 2])), ("q", texts([Some("x"), Some("y"), Some("x")]))];
    let found = run(&relations, &task(0, &["a", "b"], &[]), &entities(columns, &["p", "q"], None), depth(2));
    check(&found, "heads.v", &["5", "6", "7"]);
    check(&found, "heads.lines.SUM(n)", &["3", "-", "4"]);
    check(&found, "heads.lines.COUNT(*)", &["2", "0", "1"]);
}

#[test]
fn empty_children_and_a_reference_to_what_is_not_unique() {
    let relations = Relations {
        tables: vec![
            relation("a", vec![("id", whole([1])), ("p", whole([5]))], &["id"], None),
            relation("b", vec![("a", whole([])), ("x", whole([])), ("t", texts([]))], &[], None),
            relation(
                "c",
                vec![("p", whole([5, 5])), ("v", whole([2, 1])), ("at", times([Some(1), Some(2)]))],
                &[],
                Some("at"),
            ),
        ],
        references: vec![refers(1, &["a"], 0, &["id"]), refers(0, &["p"], 2, &["p"])],
    };
    let one = entities(vec![("row", whole([0])), ("id", whole([1]))], &["id"], None);
    let found = run(&relations, &task(0, &["id"], &[]), &one, depth(1));
    check(&found, "a.b.COUNT(*)", &["0"]);
    check(&found, "a.b.MEAN(x)", &["-"]);
    check(&found, "a.b.MODE(t)", &["-"]);
    check(&found, "a.c.v", &["2"]);
}

/// Ratings of users that joined some day; items have the time of their rating.
fn rated() -> Relations {
    Relations {
        tables: vec![
            relation(
                "users",
                vec![("id", whole([1])), ("x", whole([3])), ("since", times([Some(5)]))],
                &["id"],
                Some("since"),
            ),
            relation(
                "ratings",
                vec![
                    ("id", whole([1, 2, 3])),
                    ("user", whole([1, 1, 1])),
                    ("stars", whole([1, 2, 4])),
                    ("day", times([Some(6), Some(7), Some(8)])),
                ],
                &["id"],
                Some("day"),
            ),
            relation(
                "notes",
                vec![("rating", ints([Some(1), Some(2), Some(3), Some(9), None])), ("n", whole([1, 2, 4, 8, 16]))],
                &[],
                None,
            ),
        ],
        references: vec![refers(1, &["user"], 0, &["id"]), refers(2, &["rating"], 1, &["id"])],
    }
}

#[test]
fn hidden_columns_are_history_only() {
    let at =
        |day| entities(vec![("row", whole([0])), ("id", whole([2])), ("at", times([Some(day)]))], &["id"], Some("at"));
    let hiding = task(1, &["id"], &[(1, "stars")]);
    let found = run(&rated(), &hiding, &at(8), depth(2));
    assert!(!found.contains_key("ratings.stars"));
    // Its own rating is from before day 8, and left out all the same.
    check(&found, "ratings.users.ratings.SUM(stars)", &["1"]);
    check(&found, "ratings.users.ratings.COUNT(*)", &["1"]);
    // The user joined on day 5.
    check(&found, "ratings.users.x", &["3"]);
    check(&run(&rated(), &hiding, &at(5), depth(2)), "ratings.users.x", &["-"]);
    let plain = entities(vec![("row", whole([0])), ("id", whole([2]))], &["id"], None);
    let found = run(&rated(), &hiding, &plain, depth(3));
    assert!(found.keys().all(|name| !name.contains("stars")), "{:#?}", found.keys());
    check(&found, "ratings.users.ratings.COUNT(*)", &["2"]);
}

#[test]
fn rows_without_a_time_have_that_of_the_rows_they_refer_to() {
    let users = entities(vec![("row", whole([0])), ("id", whole([1])), ("at", times([Some(8)]))], &["id"], Some("at"));
    let found = run(&rated(), &task(0, &["id"], &[]), &users, depth(2));
    check(&found, "users.ratings.COUNT(*)", &["2"]);
    check(&found, "users.ratings.SUM(notes.COUNT(*))", &["2"]);
    check(&found, "users.ratings.SUM(notes.SUM(n))", &["3"]);
    // Forward from notes: visible through the rating's own time.
    let ratings =
        entities(vec![("row", whole([0])), ("id", whole([1])), ("at", times([Some(7)]))], &["id"], Some("at"));
    let found = run(&rated(), &task(1, &["id"], &[]), &ratings, depth(2));
    check(&found, "ratings.notes.COUNT(*)", &["1"]);
    check(&found, "ratings.notes.LATEST_TIME", &["1"]);
    check(&found, "ratings.notes.LATEST(n)", &["1"]);
}

#[test]
fn a_row_that_a_later_one_may_displace_is_not_read() {
    let coded = |codes: ArrayRef, sizes: ArrayRef, batches: ArrayRef| Relations {
        tables: vec![
            relation("users", vec![("id", whole([1, 2])), ("code", whole([5, 6]))], &["id"], None),
            relation("codes", vec![("code", codes), ("size", sizes), ("batch", batches)], &[], None),
            relation("batches", vec![("id", whole([1, 2])), ("day", times([Some(1), Some(9)]))], &["id"], Some("day")),
        ],
        references: vec![refers(0, &["code"], 1, &["code"]), refers(1, &["batch"], 2, &["id"])],
    };
    let before = coded(whole([5, 6]), whole([7, 8]), whole([1, 1]));
    // Of the batch of day 9, in front of the others by their columns.
    let after = coded(whole([5, 6, 5, 6]), whole([7, 8, 0, 0]), whole([1, 1, 2, 2]));
    let users = |at: [Option<i64>; 2]| {
        entities(vec![("row", whole([0, 1])), ("id", whole([1, 2])), ("at", times(at))], &["id"], Some("at"))
    };
    let [before, after] =
        [before, after].map(|relations| run(&relations, &task(0, &["id"], &[]), &users([Some(5), Some(5)]), depth(3)));
    assert_eq!(before, after);
}

#[test]
fn columns_of_all_kinds_of_types() {
    let dictionary: DictionaryArray<Int32Type> = ["u", "v"].into_iter().collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", whole([1, 2])),
        ("flag", Arc::new(BooleanArray::from(vec![true, false]))),
        ("view", Arc::new(StringViewArray::from(vec!["aa", "b"]))),
        ("coded", Arc::new(dictionary)),
        ("price", Arc::new(Decimal128Array::from(vec![150, 275]).with_precision_and_scale(10, 2).unwrap())),
        ("born", Arc::new(Date32Array::from(vec![1, 3]))),
        ("seen", Arc::new(TimestampNanosecondArray::from(vec![DAY * 1_000_000_000; 2]).with_timezone("+05:00"))),
        ("bytes", Arc::new(BinaryArray::from(vec![&b"x"[..], b"y"]))),
    ];
    let relations = Relations { tables: vec![relation("t", columns, &["id"], None)], references: vec![] };
    let two = |at: bool| {
        let mut columns = vec![("row", whole([0, 1])), ("id", whole([1, 2]))];
        columns.extend(at.then(|| ("at", Arc::new(Date32Array::from(vec![10, 10])) as ArrayRef)));
        entities(columns, &["id"], at.then_some("at"))
    };
    let found = run(&relations, &task(0, &["id"], &[]), &two(false), depth(2));
    check(&found, "t.flag", &["true", "false"]);
    check(&found, "t.view", &["aa", "b"]);
    check(&found, "t.LENGTH(coded)", &["1", "1"]);
    check(&found, "t.price", &["1.5", "2.75"]);
    check(&found, "t.born", &["1", "3"]);
    check(&found, "t.seen", &["1", "1"]);
    assert_eq!(found.len(), 8, "{:#?}", found.keys());
    let found = run(&relations, &task(0, &["id"], &[]), &two(true), depth(2));
    check(&found, "t.born", &["9", "7"]);
    check(&found, "t.seen", &["9", "9"]);
}

#[test]
fn the_nearest_features_fit_the_budget() {
    let names = |most| {
        let config = SynthesisConfig { depth: 2, max_features: most };
        let plan = synthesize(&shop(), &task(0, &["id"], &[]), &customers([1, 2, 3, 4, 5]), &config).unwrap();
        plan.features.into_iter().map(|feature| feature.name).collect::<Vec<_>>()
    };
    assert_eq!(names(0), Vec::<String>::new());
    assert_eq!(names(4), ["customers.age", "customers.name", "customers.LENGTH(name)", "customers.cities.people"]);
    let some = names(8);
    assert_eq!(some.len(), 8);
    assert!(some.contains(&"customers.orders.COUNT(*)".to_string()), "{some:?}");
    assert!(some.contains(&"customers.cities.customers.COUNT(*)".to_string()), "{some:?}");
    let all = names(1000);
    assert!(some.iter().all(|name| all.contains(name)));
}

#[test]
fn what_does_not_fit_is_named() {
    let mut relations = shop();
    relations.references.push(refers(0, &["nowhere"], 2, &["id"]));
    let found = synthesize(&relations, &task(0, &["id"], &[]), &customers([1, 2, 3, 4, 5]), &depth(1)).unwrap_err();
    assert_eq!(found.to_string(), "relations: customers has no column nowhere");
    relations.references[2] = refers(0, &["city"], 7, &["id"]);
    let found = relations.validate().unwrap_err();
    assert_eq!(found.to_string(), "relations: there is no relation 7 of 3");
    relations.references[2] = refers(0, &["city"], 2, &["id", "people"]);
    assert_eq!(relations.validate().unwrap_err().to_string(), "relations: 1 columns refer to 2");
}

#[test]
fn the_time_of_a_relation_is_its_first() {
    let relations = shop();
    assert_eq!(infer_time(&relations.tables[1].source.schema()), Some("day".to_string()));
    assert_eq!(infer_time(&relations.tables[0].source.schema()), None);
}

#[test]
fn selection_keeps_what_tells_the_label() {
    let number = |name: &str, value: fn(usize) -> f32| FeatureColumn {
        name: name.to_string(),
        values: FeatureValues::Number((0..64).map(value).collect()),
    };
    let own = FeatureColumn {
        name: "own".to_string(),
        values: FeatureValues::Category {
            codes: (0..64).map(Some).collect(),
            levels: (0..64).map(|level| format!("{level:02}")).collect(),
        },
    };
    let columns = vec![
        number("constant", |_| 1.0),
        number("noise", |row| (row * 37 % 64) as f32),
        own,
        number("label", |row| (row % 2) as f32),
        number("again", |row| (row % 2) as f32),
        number("weak", |row| if row % 8 == 0 { f32::NAN } else { (row % 2) as f32 }),
    ];
    let table = FeatureTable { rows: (0..64).collect(), columns };
    let labels: Vec<(usize, u32)> = (0..64).map(|row| (row, (row % 2) as u32)).collect();
    let kept = |budget| {
        let mut table = table.clone();
        table.select(Labels::Classes(&labels), budget);
        table.columns.into_iter().map(|column| column.name).collect::<Vec<_>>()
    };
    assert_eq!(kept(10), ["noise", "label", "weak"]);
    assert_eq!(kept(2), ["label", "weak"]);
    assert_eq!(kept(1), ["label"]);
    let numbers: Vec<(usize, f32)> = (0..64).map(|row| (row, (row * 37 % 64) as f32)).collect();
    let mut by_number = table.clone();
    by_number.select(Labels::Numbers(&numbers), 1);
    assert_eq!(by_number.columns[0].name, "noise");
}
