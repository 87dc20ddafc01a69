use std::io::Write as _;
use std::path::Path;

use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use relata_featurize::resources::Resources;
use relata_featurize::trace::Execution;

use super::*;
use crate::RelataConfig;

/// How many times longer than predicted everything takes.
const FACTOR: f64 = 20.0;

fn machine() -> Resources {
    Resources::reference(2, 1.5)
}

fn relata(folder: &Path) -> Relata {
    let config = RelataConfig { record: 100, ..RelataConfig::default() };
    let relata = Relata::new(None).with_config(config).with_machine(machine()).with_profile_directory(folder);
    relata.with_physical(PhysicalExpert::pretrained().unwrap())
}

async fn session(relata: &Relata) -> SessionContext {
    let builder =
        SessionStateBuilder::new_with_default_features().with_config(SessionConfig::new().with_target_partitions(2));
    let ctx = SessionContext::new_with_state(relata.install(builder).build());
    ctx.sql("SET relata.record = 0").await.unwrap();
    for table in ["a", "b"] {
        let sql =
            format!("CREATE TABLE {table} AS SELECT value AS id, value % 7 AS kind FROM generate_series(1, 1000)");
        ctx.sql(&sql).await.unwrap().collect().await.unwrap();
    }
    ctx.sql("SET relata.record = 100").await.unwrap();
    ctx
}

fn query(number: usize) -> String {
    match number % 2 {
        0 => format!("SELECT count(*) FROM a JOIN b ON a.id = b.id WHERE a.id > {number}"),
        _ => format!("SELECT kind, count(*) FROM a WHERE id > {number} GROUP BY kind"),
    }
}

/// Runs queries, and writes to the record that each took so many times as long as predicted.
async fn execute(relata: &Relata, ctx: &SessionContext, folder: &Path, numbers: std::ops::Range<usize>) {
    for number in numbers {
        ctx.sql(&query(number)).await.unwrap().collect().await.unwrap();
    }
    let expert = relata.physical.as_ref().unwrap();
    let mut text = String::new();
    for execution in relata.recorded().unwrap() {
        let rows = execution.graph.filled(&execution.estimated);
        let predicted = expert.runtime(&execution.graph, &rows, &execution.machine).unwrap().elapsed_us[1];
        let execution = Execution { execution_us: vec![(FACTOR * predicted) as f32], ..execution };
        text += &serde_json::to_string(&execution).unwrap();
        text += "\n";
    }
    std::fs::write(folder.join("executions.jsonl"), text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_executions_correct_what_is_predicted() {
    let folder = tempfile::tempdir().unwrap();
    let plain = relata(tempfile::tempdir().unwrap().path());
    let plain = plain.estimate_runtime(&session(&plain).await, &query(50)).await.unwrap();
    assert_eq!(plain.executions, 0);
    let corrected = |estimate: &crate::RuntimeEstimate| {
        let ratio = |place: usize| estimate.elapsed[place].as_secs_f64() / plain.elapsed[1].as_secs_f64() / FACTOR;
        estimate.peak_bytes == plain.peak_bytes && [0, 1, 2].into_iter().all(|place| (ratio(place) - 1.0).abs() < 0.05)
    };

    let first = relata(folder.path());
    let ctx = session(&first).await;
    execute(&first, &ctx, folder.path(), 0..20).await;
    let estimate = first.estimate_runtime(&ctx, &query(50)).await.unwrap();
    assert!(estimate.executions == 20 && corrected(&estimate), "{estimate:?} for {plain:?}");
    let advice = first.advise(&ctx, &query(50)).await.unwrap();
    assert!(advice.iter().any(|one| one.current && one.runtime == estimate), "{advice:?}");
    let explained = ctx.sql(&format!("EXPLAIN {}", query(50))).await.unwrap().to_string().await.unwrap();
    assert_eq!(explained.matches("corrected by 20 executions").count(), 1, "{explained}");

    // A few more are no reason to read them again, a quarter more are.
    execute(&first, &ctx, folder.path(), 20..24).await;
    assert_eq!(first.estimate_runtime(&ctx, &query(50)).await.unwrap().executions, 20);
    execute(&first, &ctx, folder.path(), 24..25).await;
    let estimate = first.estimate_runtime(&ctx, &query(50)).await.unwrap();
    assert!(estimate.executions == 25 && corrected(&estimate), "{estimate:?}");

    // Another process reads the same, whatever else is in the file.
    let path = folder.path().join("executions.jsonl");
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"query\":1\n\xff\nnull\n").unwrap();
    let second = relata(folder.path());
    let ctx = session(&second).await;
    assert_eq!(second.estimate_runtime(&ctx, &query(50)).await.unwrap(), estimate);
    std::fs::write(&path, b"nothing\n".repeat(100)).unwrap();
    let third = relata(folder.path());
    assert_eq!(third.estimate_runtime(&session(&third).await, &query(50)).await.unwrap(), plain);
    assert_eq!(third.counters().failures, 0);
    // What cannot be read at all is counted.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let fourth = relata(folder.path());
    assert_eq!(fourth.estimate_runtime(&session(&fourth).await, &query(50)).await.unwrap(), plain);
    assert_eq!(fourth.counters().failures, 1);
}
