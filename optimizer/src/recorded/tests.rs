use std::io::Write as _;

use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use relata_featurize::resources::Resources;
use tempfile::TempDir;

use super::*;
use crate::RelataConfig;

fn machine() -> Resources {
    Resources::reference(2, 1.5)
}

/// A session with two tables that records so many queries.
async fn session(record: usize) -> (SessionContext, Relata, TempDir) {
    let folder = TempDir::new().unwrap();
    let config = RelataConfig { record, ..RelataConfig::default() };
    let relata = Relata::new(None).with_config(config).with_machine(machine()).with_profile_directory(folder.path());
    let builder =
        SessionStateBuilder::new_with_default_features().with_config(SessionConfig::new().with_target_partitions(2));
    let ctx = SessionContext::new_with_state(relata.install(builder).build());
    for table in ["a", "b"] {
        let sql =
            format!("CREATE TABLE {table} AS SELECT value AS id, value % 7 AS kind FROM generate_series(1, 1000)");
        ctx.sql(&sql).await.unwrap().collect().await.unwrap();
    }
    (ctx, relata, folder)
}

async fn run(ctx: &SessionContext, sql: &str) {
    ctx.sql(sql).await.unwrap().collect().await.unwrap();
}

const JOIN: &str = "SELECT count(*) FROM a JOIN b ON a.id = b.id WHERE a.kind = 3";

#[tokio::test]
async fn executed_queries_are_recorded_with_what_their_operators_gave() {
    let (ctx, relata, _folder) = session(100).await;
    let before = relata.recorded().unwrap().len();
    run(&ctx, JOIN).await;
    run(&ctx, "SELECT kind FROM b ORDER BY id LIMIT 3").await;
    run(&ctx, JOIN).await;
    run(&ctx, &format!("EXPLAIN ANALYZE {JOIN}")).await;
    let recorded = relata.recorded().unwrap().split_off(before);
    assert_eq!(recorded.len(), 3, "{recorded:?}");
    assert_eq!(recorded[0].query, recorded[2].query);
    assert_ne!(recorded[0].query, recorded[1].query);
    let join = &recorded[0];
    assert!(join.execution_us[0] > 0.0 && join.machine == machine());
    let joins = join.graph.operators.iter().position(|operator| operator.kind.joins()).unwrap();
    assert_eq!(join.observed[joins].rows, Some(143.0));
    assert!(join.estimated.iter().any(Option::is_some));
    // Nothing of the data or its names is in it.
    let text = serde_json::to_string(join).unwrap();
    assert!(!text.contains("kind = ") && !text.contains("\"id\""), "{text}");
}

#[tokio::test]
async fn nothing_is_recorded_that_was_not_asked_for_or_not_read_to_its_end() {
    let (ctx, relata, folder) = session(0).await;
    run(&ctx, JOIN).await;
    assert!(relata.recorded().unwrap().is_empty() && !folder.path().join(RECORD_FILE).exists());
    ctx.sql("SET relata.record = 10").await.unwrap();
    // The stream is dropped before its end.
    let mut stream = ctx.sql("SELECT a.id FROM a, b").await.unwrap().execute_stream().await.unwrap();
    assert!(stream.next().await.is_some());
    drop(stream);
    assert!(ctx.sql("SELECT 1 / (id - 5) FROM a").await.unwrap().collect().await.is_err());
    assert!(relata.recorded().unwrap().is_empty());
    run(&ctx, JOIN).await;
    assert_eq!(relata.recorded().unwrap().len(), 1);
}

#[tokio::test]
async fn the_last_are_kept_and_damage_is_left_out() {
    let (ctx, relata, folder) = session(4).await;
    for _ in 0..9 {
        run(&ctx, JOIN).await;
    }
    let kept = relata.recorded().unwrap().len();
    assert!((4..8).contains(&kept), "{kept}");
    let mut file = OpenOptions::new().append(true).open(folder.path().join(RECORD_FILE)).unwrap();
    file.write_all(b"{\"query\":1\n\xff\n").unwrap();
    assert_eq!(relata.recorded().unwrap().len(), kept);
    run(&ctx, JOIN).await;
    assert!(!relata.recorded().unwrap().is_empty());
}
