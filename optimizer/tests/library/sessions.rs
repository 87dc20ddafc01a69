//! Views, prepared statements, and several sessions with one `Relata`.

use std::sync::Arc;

use datafusion::datasource::MemTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::scalar::ScalarValue;

use crate::sources::SlowTable;
use crate::{Sessions, pretrained, rows, sources};

const JOIN: &str = "FROM orders o JOIN customer c ON o.customer = c.id JOIN town t ON c.town = t.id";

async fn shop() -> Sessions {
    let sessions = Sessions::new(pretrained());
    sources::memory(&sessions);
    sessions
}

async fn execute(sessions: &Sessions, statement: &str) {
    for ctx in sessions.both() {
        ctx.sql(statement).await.unwrap().collect().await.unwrap();
    }
}

#[tokio::test]
async fn views() {
    let sessions = shop().await;
    execute(&sessions, &format!("CREATE VIEW sold AS SELECT o.id, o.amount, c.age, t.region {JOIN}")).await;
    execute(&sessions, "CREATE VIEW per_region AS SELECT region, COUNT(*) AS n FROM sold GROUP BY region").await;
    for sql in [
        "SELECT s.id, r.label FROM sold s JOIN region r ON s.region = r.id WHERE s.age > 30",
        "SELECT a.id, b.id, r.label FROM sold a JOIN sold b ON a.age = b.age JOIN region r ON b.region = r.id
         WHERE a.amount < 5 AND b.amount > 30",
        "SELECT s.id, p.n FROM per_region p JOIN sold s ON s.region = p.region JOIN region r ON r.id = p.region",
    ] {
        assert!(sessions.same(sql).await > 0, "{sql}");
    }
    sessions.assert_untroubled();
    assert!(sessions.relata.counters().reordered >= 3, "{:?}", sessions.relata.counters());
    // They are planned as their queries: a profile of theirs would be read by nobody.
    let reports = sessions.relata.profile(&sessions.learned).await.unwrap();
    assert_eq!(reports.len(), 5, "{reports:?}");
}

#[tokio::test]
async fn what_is_inserted_is_estimated() {
    let sessions = shop().await;
    execute(&sessions, "CREATE TABLE added (id BIGINT)").await;
    let sql = "SELECT a.id, c.name FROM added a JOIN customer c ON a.id = c.id";
    assert_eq!(sessions.same(sql).await, 0);
    for times in 1..3 {
        execute(&sessions, "INSERT INTO added SELECT id FROM orders").await;
        assert_eq!(sessions.same(sql).await, 60 * times);
        let estimate = sessions.relata.estimate_sql(&sessions.learned, "SELECT * FROM added").await.unwrap();
        assert!((estimate.estimate - 300.0 * times as f64).abs() < 1e-6, "{estimate:?}");
    }
    sessions.assert_untroubled();
}

#[tokio::test]
async fn tables_of_one_query_are_not_profiled() {
    let sessions = shop().await;
    for _ in 0..2 {
        let sql = "SELECT t.name, g.value FROM town t JOIN generate_series(1, 5) g ON g.value = t.id";
        assert_eq!(sessions.same(sql).await, 5);
    }
    assert_eq!((sessions.relata.counters().profiled, sessions.relata.counters().planned), (1, 2));
}

#[tokio::test]
async fn a_table_that_takes_long_is_profiled_once() {
    let mut config = crate::every_region();
    config.profile_budget_ms = 20;
    let sessions = Sessions::new(pretrained().with_config(config));
    sources::memory(&sessions);
    let slow = Arc::new(SlowTable::new(sources::shop()[2].1.clone()));
    for ctx in sessions.both() {
        ctx.register_table("slow", Arc::<SlowTable>::clone(&slow)).unwrap();
    }
    let sql = "SELECT s.id, t.name FROM town t JOIN slow s ON s.town = t.id";
    for _ in 0..3 {
        assert!(sessions.same(sql).await > 0);
    }
    let counters = sessions.relata.counters();
    assert_eq!((slow.profiled(), counters.profiled, counters.postponed), (1, 1, 3), "{counters:?}");
    slow.go_on();
    while sessions.relata.counters().profiled < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(sessions.same(sql).await > 0);
    assert_eq!((slow.profiled(), sessions.relata.counters().postponed), (1, 3));
}

#[tokio::test]
async fn prepared_statements() {
    let sessions = shop().await;
    let query = format!("SELECT o.id, t.name {JOIN} WHERE o.amount > $1 AND t.name < $2");
    execute(&sessions, &format!("PREPARE expensive(BIGINT, VARCHAR) AS {query}")).await;
    for values in ["20, 'town 03'", "5, 'town 10'"] {
        assert!(sessions.same(&format!("EXECUTE expensive({values})")).await > 0);
    }
    assert_eq!(sessions.same("EXECUTE expensive(1000, 'town 10')").await, 0);
    assert_eq!(sessions.relata.counters().reordered, 3);

    let mut counts = Vec::new();
    for ctx in sessions.both() {
        let values = vec![ScalarValue::from(20_i64), ScalarValue::from("town 03")];
        let data = ctx.sql(&query).await.unwrap().with_param_values(values).unwrap();
        counts.push(data.count().await.unwrap());
    }
    assert!(counts[0] > 0 && counts[0] == counts[1], "{counts:?}");
    // Without its values a query can be estimated, though not run.
    let estimate = sessions.relata.estimate_sql(&sessions.learned, &query).await.unwrap();
    assert!(estimate.estimate.is_finite(), "{estimate:?}");
    sessions.assert_untroubled();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sessions_share_one_relata() {
    let relata = pretrained();
    let tables: Vec<_> = sources::shop()
        .into_iter()
        .map(|(name, batch)| (name, Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap())))
        .collect();
    let session = |builder: SessionStateBuilder| {
        let ctx = SessionContext::new_with_state(builder.with_config(SessionConfig::new()).build());
        for (name, table) in &tables {
            ctx.register_table(*name, Arc::<MemTable>::clone(table)).unwrap();
        }
        ctx
    };
    let queries: Vec<String> =
        (0..6).map(|i| format!("SELECT o.id, t.name {JOIN} WHERE o.amount > {} ORDER BY o.id", 5 * i)).collect();
    let default = session(SessionStateBuilder::new_with_default_features());
    let mut expected = Vec::new();
    for sql in &queries {
        expected.push(rows(&default, sql).await.unwrap());
    }
    let tasks: Vec<_> = (0..4)
        .map(|start: usize| {
            let ctx = session(relata.install(SessionStateBuilder::new_with_default_features()));
            let (queries, expected) = (queries.clone(), expected.clone());
            tokio::spawn(async move {
                for i in (0..queries.len()).map(|i| (start + i) % queries.len()) {
                    assert_eq!(rows(&ctx, &queries[i]).await.unwrap(), expected[i], "{}", queries[i]);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let counters = relata.counters();
    assert_eq!((counters.planned, counters.reordered), (24, 24), "{counters:?}");
    // Sessions that start at the same moment profile a table once.
    assert_eq!(counters.profiled, 3, "{counters:?}");
    assert_eq!((counters.failures, counters.rejected, counters.unprofiled), (0, 0, 0), "{counters:?}");
}

#[tokio::test]
async fn the_logical_rule_orders_joins_without_the_query_planner() {
    let sessions = shop().await;
    sessions.relata.profile(&sessions.learned).await.unwrap();
    let state = sessions.learned.state();
    let default = SessionStateBuilder::new_from_existing(sessions.default.state());
    let mut rules = sessions.default.state().optimizers().to_vec();
    rules.push(sessions.relata.optimizer_rule());
    let mut physical = sessions.default.state().physical_optimizers().to_vec();
    let before = format!("{physical:?}");
    relata::Relata::check_dynamic_filters(&mut physical);
    assert_ne!(format!("{physical:?}"), before);
    let ruled = SessionContext::new_with_state(
        default.with_optimizer_rules(rules).with_physical_optimizer_rules(physical).build(),
    );
    for table in ["orders", "customer", "town", "region", "item"] {
        let provider = state.schema_for_ref(table).unwrap().table(table).await.unwrap().unwrap();
        ruled.deregister_table(table).unwrap();
        ruled.register_table(table, provider).unwrap();
    }
    let sql =
        "SELECT o.id, c.name, r.label FROM orders o JOIN customer c ON o.customer = c.id JOIN town t ON c.town = t.id
        JOIN region r ON t.region = r.id WHERE t.name < 'town 03'";
    let before = sessions.relata.counters();
    let found = rows(&ruled, sql).await.unwrap();
    let after = sessions.relata.counters();
    assert_eq!(found, rows(&sessions.default, sql).await.unwrap());
    assert!(after.reordered > before.reordered && after.planned == before.planned, "{after:?}");
    assert_eq!(after.failures, 0);
}
