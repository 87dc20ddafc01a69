//! Profiles are renewed, listed and forgotten, by the library and in SQL.

use std::fs;

use datafusion::prelude::ParquetReadOptions;
use relata::{ProfileSource, Relata};
use tempfile::tempdir;

use crate::{Sessions, rows, sources};

/// The rows of a query that has no error, without the header.
async fn answer(sessions: &Sessions, sql: &str) -> Vec<String> {
    let rows = rows(&sessions.learned, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    rows[1..].iter().map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

async fn error(sessions: &Sessions, sql: &str) -> String {
    rows(&sessions.learned, sql).await.unwrap_err().to_string()
}

fn shop() -> Sessions {
    let sessions = Sessions::new(Relata::new(None));
    sources::memory(&sessions);
    sessions
}

#[tokio::test]
async fn tables_are_analyzed_listed_and_forgotten() {
    let sessions = shop();
    let list = "SELECT table_name, rows, columns, bytes > 0, source, stored, made <= now() FROM relata_profiles()";
    assert!(answer(&sessions, list).await.is_empty());

    let analyze = "SELECT table_name, rows, columns, bytes > 0, milliseconds >= 0, source, error FROM";
    let town = "datafusion.public.town";
    assert_eq!(
        answer(&sessions, &format!("{analyze} relata_analyze('town')")).await,
        [format!("| {town} | 12 | 3 | true | true | built | |")]
    );
    assert_eq!(answer(&sessions, list).await, [format!("| {town} | 12 | 3 | true | built | false | true |")]);
    assert_eq!(answer(&sessions, &format!("{analyze} relata_analyze() ORDER BY rows")).await.len(), 5);
    // A table that has a profile gets another one.
    assert_eq!(sessions.relata.counters().profiled, 6);
    assert_eq!(answer(&sessions, "SELECT value FROM relata_counters() WHERE counter = 'profiled'").await, ["| 6 |"]);
    assert_eq!(answer(&sessions, list).await.len(), 5);

    let dropped = "SELECT table_name, rows FROM";
    assert_eq!(answer(&sessions, &format!("{dropped} relata_drop('public.town')")).await, [format!("| {town} | 12 |")]);
    assert!(answer(&sessions, &format!("{dropped} relata_drop('town')")).await.is_empty());
    assert_eq!(answer(&sessions, &format!("{dropped} relata_drop() LIMIT 9")).await.len(), 4);
    assert!(answer(&sessions, list).await.is_empty());
}

#[tokio::test]
async fn a_table_keeps_its_estimates_while_it_is_analyzed_and_gets_the_new_ones() {
    let sessions = shop();
    let sql = "SELECT id FROM orders WHERE amount > 20";
    let estimate = async || sessions.relata.estimate_sql(&sessions.learned, sql).await.unwrap().estimate;
    let profiled = sessions.relata.profile(&sessions.learned).await.unwrap();
    assert!(profiled.iter().all(|report| report.source == ProfileSource::Built));
    let before = estimate().await;
    let ctx = &sessions.learned;
    let (reports, during) = futures::join!(sessions.relata.analyze(ctx, None), estimate());
    assert!(reports.unwrap().iter().all(|report| report.error.is_none() && report.source == ProfileSource::Built));
    let after = estimate().await;
    assert!((during - before).abs() < 1e-9 && (after - before).abs() < 1e-9, "{before} {during} {after}");
}

#[tokio::test]
async fn stored_profiles_go_with_their_files() {
    let (data, profiles) = (tempdir().unwrap(), tempdir().unwrap());
    let files = || {
        let files = fs::read_dir(profiles.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        files.collect::<Vec<_>>()
    };
    let open = async || {
        let sessions = Sessions::new(Relata::new(None).with_profile_directory(profiles.path()));
        for table in ["region", "town", "customer", "item", "orders"] {
            let file = data.path().join(format!("{table}.parquet")).display().to_string();
            sessions.learned.register_parquet(table, &file, ParquetReadOptions::default()).await.unwrap();
        }
        sessions
    };
    sources::parquet(&Sessions::new(Relata::new(None)), data.path()).await;

    let sessions = open().await;
    assert_eq!(answer(&sessions, "SELECT source FROM relata_analyze('town')").await, ["| built |"]);
    // A query has it profiled under the name that it has there.
    answer(&sessions, "SELECT COUNT(*) FROM customer c JOIN town t ON c.town = t.id").await;
    assert_eq!(files().iter().filter(|file| file.ends_with("profile")).count(), 2);
    drop(sessions);

    let sessions = open().await;
    let list = "SELECT table_name, rows, source, stored, made <= now() FROM relata_profiles()";
    let [customer, town] = ["customer", "town"].map(|table| format!("datafusion.public.{table}"));
    assert_eq!(answer(&sessions, list).await, [&customer, &town].map(|name| format!("| {name} | | | true | true |")));
    answer(&sessions, "SELECT COUNT(*) FROM customer c JOIN region r ON c.id = r.id").await;
    assert_eq!(
        answer(&sessions, &format!("{list} WHERE rows = 60")).await,
        [format!("| {customer} | 60 | loaded | true | true |")]
    );
    assert_eq!(answer(&sessions, "SELECT source, error FROM relata_analyze('customer')").await, ["| built | |"]);
    sessions.relata.profile(&sessions.learned).await.unwrap();
    assert!(files().len() > 5, "profiles and synopses");
    assert_eq!(answer(&sessions, "SELECT stored FROM relata_drop('customer')").await, ["| true |"]);
    assert!(files().iter().all(|file| !file.contains("customer")), "{:?}", files());
    answer(&sessions, "SELECT * FROM relata_drop()").await;
    assert!(files().is_empty(), "{:?}", files());
}

#[tokio::test]
async fn explaining_and_planning_do_nothing() {
    let sessions = shop();
    sessions.relata.profile(&sessions.learned).await.unwrap();
    let sql = "SELECT * FROM relata_drop() d JOIN relata_analyze() a ON d.table_name = a.table_name";
    answer(&sessions, &format!("EXPLAIN {sql}")).await;
    sessions.learned.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
    assert_eq!(answer(&sessions, "SELECT COUNT(*) FROM relata_profiles()").await, ["| 5 |"]);
    assert_eq!(sessions.relata.counters().profiled, 5);
}

#[tokio::test]
async fn wrong_arguments_have_clear_errors() {
    let sessions = shop();
    for argument in ["1", "'town', 'region'", "NULL"] {
        for function in ["relata_analyze", "relata_drop"] {
            let text = error(&sessions, &format!("SELECT * FROM {function}({argument})")).await;
            assert!(text.contains(&format!("{function}('table')")), "{text}");
        }
    }
    for function in ["relata_profiles", "relata_counters"] {
        let text = error(&sessions, &format!("SELECT * FROM {function}('town')")).await;
        assert!(text.contains(&format!("{function} takes no argument")), "{text}");
    }
    for function in ["relata_analyze", "relata_drop"] {
        let text = error(&sessions, &format!("SELECT * FROM {function}('nowhere')")).await;
        assert!(text.contains("no table nowhere"), "{text}");
    }
}

#[tokio::test]
async fn the_orders_of_a_query_are_listed_with_their_costs() {
    let sessions = shop();
    answer(&sessions, "SET relata.minimum_cost = 0").await;
    let sql = "SELECT COUNT(*) FROM orders o JOIN customer c ON o.customer = c.id JOIN town t ON c.town = t.id WHERE t.name < ''z''";
    let of = |rest: &str| format!("SELECT {rest}");
    let from = format!("FROM relata_explain('{sql}')");
    let sets = answer(&sessions, &of(&format!("relations {from} WHERE kind = 'sub-plan' ORDER BY relations"))).await;
    // Every connected set of the chain, and each once.
    let mut nodes: Vec<Vec<&str>> =
        sets.iter().map(|set| set.split(['|', ',', ' ']).filter(|n| !n.is_empty()).collect()).collect();
    nodes.iter_mut().for_each(|set| set.sort_unstable());
    nodes.sort();
    assert_eq!(nodes, [vec!["c"], vec!["c", "o"], vec!["c", "o", "t"], vec!["c", "t"], vec!["o"], vec!["t"]]);
    let wrong = "rows IS NULL OR lower > rows OR upper < rows OR origin LIKE 'fallback%' OR region <> 1";
    assert_eq!(answer(&sessions, &of(&format!("COUNT(*) {from} WHERE {wrong}"))).await, ["| 0 |"]);
    // Of the two orders one is chosen, and the cheapest is not more expensive than the query's.
    let orders = "COUNT(*), SUM(CAST(chosen AS INT)), \
        MIN(CASE kind WHEN 'cheapest order' THEN cost END) <= MIN(CASE kind WHEN 'order of the query' THEN cost END)";
    assert_eq!(
        answer(&sessions, &of(&format!("{orders} {from} WHERE kind <> 'sub-plan'"))).await,
        ["| 2 | 1 | true |"]
    );
    let chosen = of(&format!("COUNT(*), COUNT(cost) {from} WHERE kind = 'sub-plan' AND chosen"));
    assert_eq!(answer(&sessions, &chosen).await, ["| 5 | 5 |"]);
    let counters = sessions.relata.counters();
    assert_eq!((counters.reordered, counters.kept, counters.planned), (0, 0, 0), "{counters:?}");

    assert!(answer(&sessions, "SELECT * FROM relata_explain('SELECT 1')").await.is_empty());
    for argument in ["", "1", "'SELECT 1', 'SELECT 2'"] {
        let text = error(&sessions, &format!("SELECT * FROM relata_explain({argument})")).await;
        assert!(text.contains("relata_explain('SELECT ...')"), "{text}");
    }
    for query in ["SELECT FROM WHERE", "SELECT 1 FROM nowhere", "DROP TABLE town"] {
        error(&sessions, &format!("SELECT * FROM relata_explain('{query}')")).await;
    }
}
