//! Views, prepared statements, and several sessions with one `Relata`.

use std::sync::Arc;

use datafusion::datasource::MemTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::scalar::ScalarValue;

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
    // Sessions that start at the same moment may each profile a table.
    assert!((3..=12).contains(&counters.profiled), "{counters:?}");
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
    let ruled = SessionContext::new_with_state(default.with_optimizer_rules(rules).build());
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
