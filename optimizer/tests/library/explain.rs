//! EXPLAIN with relata's estimates, in every format, and EXPLAIN ANALYZE beside what was returned.

use datafusion::arrow::array::StringArray;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::displayable;
use datafusion::prelude::SessionContext;
use insta::assert_snapshot;
use relata::{Relata, Resources};
use serde_json::Value;
use tempfile::tempdir;

use crate::{Sessions, pretrained, sources};

const JOIN: &str = "SELECT t.name, COUNT(*) FROM orders o JOIN customer c ON o.customer = c.id JOIN town t ON c.town = t.id \
                    WHERE o.amount > 20 GROUP BY t.name";
const TABLE: &str = "SELECT amount, COUNT(*) FROM orders WHERE amount > 20 GROUP BY amount ORDER BY amount LIMIT 5";

async fn shop(relata: Relata) -> Sessions {
    let sessions = Sessions::new(relata);
    sources::memory(&sessions);
    sessions.relata.profile(&sessions.learned).await.unwrap();
    sessions
}

/// What a statement answers in its second column.
async fn plans(ctx: &SessionContext, sql: &str) -> Vec<String> {
    let mut plans = vec![];
    for batch in ctx.sql(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}")).collect().await.unwrap() {
        let column = cast(batch.column(1), &DataType::Utf8).unwrap();
        let texts = column.as_any().downcast_ref::<StringArray>().unwrap();
        plans.extend(texts.iter().flatten().map(str::to_owned));
    }
    plans
}

/// The physical plan that a statement shows.
async fn explained(ctx: &SessionContext, sql: &str) -> String {
    plans(ctx, sql).await.pop().unwrap()
}

async fn set(ctx: &SessionContext, setting: &str) {
    ctx.sql(&format!("SET {setting}")).await.unwrap().collect().await.unwrap();
}

/// A plan without relata's estimates.
fn stripped(plan: &str) -> String {
    let line = |line: &str| {
        let (node, rest) = line.split_once(", relata_").unwrap_or((line, ""));
        let metrics = rest.find(", metrics=").map_or("", |start| &rest[start..]);
        let mut line = format!("{node}{metrics}");
        for metric in ["relata_rows", "relata_q_error"] {
            while let Some(start) = line.find(metric) {
                let end = start + line[start..].find([',', ']']).unwrap();
                let start = start - if line[..start].ends_with(", ") { 2 } else { 0 };
                line.replace_range(start..end, "");
            }
        }
        line
    };
    plan.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// A text with `#` for every number.
fn without_numbers(text: &str) -> String {
    let mut redacted = String::new();
    for character in text.chars() {
        match character {
            '0'..='9' if redacted.ends_with('#') => {}
            '0'..='9' => redacted.push('#'),
            _ => redacted.push(character),
        }
    }
    redacted
}

#[tokio::test]
async fn text_has_rows_interval_and_origin() {
    let sessions = shop(Relata::new(None)).await;
    assert_snapshot!(without_numbers(&explained(&sessions.learned, &format!("EXPLAIN {TABLE}")).await), @r"
    SortPreservingMergeExec: [amount@# ASC NULLS LAST], fetch=#, relata_rows=# [#, #] analytical
      ProjectionExec: expr=[amount@# as amount, count(Int#(#))@# as count(*)], relata_rows=# [#, #] analytical
        SortExec: TopK(fetch=#), expr=[amount@# ASC NULLS LAST], preserve_partitioning=[true], relata_rows=# [#, #] analytical
          AggregateExec: mode=FinalPartitioned, gby=[amount@# as amount], aggr=[count(Int#(#))], relata_rows=# [#, #] analytical
            RepartitionExec: partitioning=Hash([amount@#], #), input_partitions=#
              AggregateExec: mode=Partial, gby=[amount@# as amount], aggr=[count(Int#(#))]
                RepartitionExec: partitioning=RoundRobinBatch(#), input_partitions=#, relata_rows=# [#, #] exact
                  FilterExec: amount@# > #, relata_rows=# [#, #] exact
                    DataSourceExec: partitions=#, partition_sizes=[#], relata_rows=# [#, #] exact
    ");
}

#[tokio::test]
async fn trees_have_rows_interval_and_origin() {
    let sessions = shop(Relata::new(None)).await;
    let sql = "EXPLAIN FORMAT TREE SELECT id FROM orders WHERE amount > 20";
    assert_snapshot!(without_numbers(&explained(&sessions.learned, sql).await), @r"
    ┌───────────────────────────┐
    │         FilterExec        │
    │    --------------------   │
    │         predicate:        │
    │        amount > #        │
    │                           │
    │    relata_origin: exact   │
    │                           │
    │        relata_rows:       │
    │       # [#, #]      │
    └─────────────┬─────────────┘
    ┌─────────────┴─────────────┐
    │       DataSourceExec      │
    │    --------------------   │
    │        bytes: #       │
    │       format: memory      │
    │    relata_origin: exact   │
    │                           │
    │        relata_rows:       │
    │       # [#, #]      │
    │                           │
    │          rows: #          │
    └───────────────────────────┘
    ");
    let tree = explained(&sessions.learned, &format!("EXPLAIN FORMAT TREE {JOIN}")).await;
    assert!(tree.matches("relata_rows").count() >= 6, "{tree}");
}

#[tokio::test]
async fn json_has_rows_interval_and_origin() {
    fn nodes(plan: &Value) -> Vec<&Value> {
        let inputs = plan["Plans"].as_array().unwrap().iter();
        std::iter::once(plan).chain(inputs.flat_map(nodes)).collect()
    }
    let sessions = shop(pretrained()).await;
    for sql in [JOIN, TABLE, "SELECT id FROM orders WHERE amount < (SELECT AVG(amount) FROM orders)"] {
        let text = explained(&sessions.learned, &format!("EXPLAIN FORMAT PGJSON {sql}")).await;
        let json: Value = serde_json::from_str(&text).unwrap();
        for node in nodes(&json[0]["Plan"]) {
            let origin = node["Plan Rows Origin"].as_str().unwrap();
            let [rows, lower, upper] =
                ["Plan Rows", "Plan Rows Lower", "Plan Rows Upper"].map(|name| node[name].as_f64());
            assert!(origin.starts_with("fallback") || (lower <= rows && rows <= upper && rows.is_some()), "{node}");
        }
        let text = explained(&sessions.learned, &format!("EXPLAIN ANALYZE FORMAT PGJSON {sql}")).await;
        let json: Value = serde_json::from_str(&text).unwrap();
        let all = nodes(&json[0]["Plan"]);
        let scored = all.iter().filter(|node| node["Extras"]["relata_q_error"].is_string());
        assert!(scored.clone().count() >= 1, "{text}");
        for node in scored {
            assert!(node["Extras"]["relata_rows"].is_u64() && node["Actual Rows"].is_u64(), "{node}");
        }
    }
}

#[tokio::test]
async fn the_plan_that_is_shown_is_the_one_that_runs() {
    let sessions = shop(pretrained()).await;
    for sql in [JOIN, TABLE] {
        let query = sessions.learned.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        let runs = displayable(query.as_ref()).indent(false).to_string();
        let shown = explained(&sessions.learned, &format!("EXPLAIN {sql}")).await;
        assert_eq!(stripped(&shown).trim_end(), runs.trim_end());
        assert!(!runs.contains("relata"), "{runs}");
    }
}

#[tokio::test]
async fn analyzing_runs_the_same_plan_with_the_same_dynamic_filters() {
    let directory = tempdir().unwrap();
    let sessions = Sessions::new(pretrained());
    sources::parquet(&sessions, directory.path()).await;
    let ctx = &sessions.learned;
    set(ctx, "datafusion.execution.target_partitions = 1").await;
    set(ctx, "datafusion.execution.parquet.pushdown_filters = true").await;
    set(ctx, "datafusion.explain.analyze_categories = 'rows'").await;
    for sql in
        [JOIN, "SELECT o.id FROM orders o JOIN customer c ON o.customer = c.id WHERE c.age < 25 ORDER BY o.id LIMIT 7"]
    {
        set(ctx, "relata.explain = true").await;
        let analyzed = explained(ctx, &format!("EXPLAIN ANALYZE {sql}")).await;
        set(ctx, "relata.explain = false").await;
        let plain = explained(ctx, &format!("EXPLAIN ANALYZE {sql}")).await;
        assert!(plain.contains("DynamicFilter") && !plain.contains("relata"), "{plain}");
        assert_eq!(stripped(&analyzed), plain.trim_end());
        assert!(analyzed.contains("relata_q_error="), "{analyzed}");
        // A scan that leaves out what joins do not need has at most its own rows.
        let scan = analyzed.lines().find(|line| line.contains("DynamicFilter")).unwrap();
        assert!(scan.contains(" bound"), "{analyzed}");
    }
}

#[tokio::test]
async fn every_scan_has_its_own_estimate_wherever_it_is() {
    let directory = tempdir().unwrap();
    let sessions = Sessions::new(pretrained());
    sources::parquet(&sessions, directory.path()).await;
    let sql = "SELECT o.id, r.label FROM orders o, customer c, town t, region r \
               WHERE o.customer = c.id AND c.town = t.id AND t.region = r.id";
    let plan = explained(&sessions.learned, &format!("EXPLAIN {sql}")).await;
    for (table, rows) in [("orders", 300), ("customer", 60), ("town", 12), ("region", 4)] {
        let scan = plan.lines().find(|line| line.contains(&format!("/{table}.parquet"))).unwrap();
        assert!(scan.contains(&format!("relata_rows={rows} ")), "{plan}");
    }
    // A filter that the files do not apply to every row is no estimate of what the scan returns.
    let plan = explained(&sessions.learned, "EXPLAIN SELECT id FROM orders WHERE amount > 20").await;
    let line = |node: &str| plan.lines().find(|line| line.trim_start().starts_with(node)).unwrap();
    assert!(line("DataSourceExec").contains("relata_rows=300 [145, 300] bound"), "{plan}");
    assert!(line("FilterExec").contains("relata_rows=145 [145, 145] exact"), "{plan}");
}

#[tokio::test]
async fn limits_hold() {
    let sessions = shop(pretrained()).await;
    let sql = "SELECT o.id FROM orders o JOIN customer c ON o.customer = c.id LIMIT 9 OFFSET 2";
    let plan = explained(&sessions.learned, &format!("EXPLAIN {sql}")).await;
    let limit = plan.lines().find(|line| line.contains("GlobalLimitExec")).unwrap();
    assert!(limit.contains("relata_rows=9 [9, 9]"), "{plan}");
    let plan = explained(&sessions.learned, "EXPLAIN SELECT id FROM orders ORDER BY amount LIMIT 4").await;
    assert!(plan.lines().next().unwrap().contains("relata_rows=4 [4, 4] exact"), "{plan}");
}

#[tokio::test]
async fn what_is_unknown_says_why() {
    let sessions = Sessions::new(pretrained());
    sources::memory(&sessions);
    set(&sessions.learned, "relata.lazy_profiling = false").await;
    let plan = explained(&sessions.learned, &format!("EXPLAIN {JOIN}")).await;
    assert!(plan.contains("relata_rows=unknown fallback: no profile"), "{plan}");
    assert!(!plan.contains("relata_q_error"), "{plan}");
    let analyzed = explained(&sessions.learned, &format!("EXPLAIN ANALYZE {JOIN}")).await;
    assert!(!analyzed.contains("relata_q_error"), "{analyzed}");
    let sessions = shop(pretrained()).await;
    // A guess does not pass for what is known.
    let sql =
        "SELECT * FROM (SELECT id, ROW_NUMBER() OVER (PARTITION BY customer ORDER BY id) AS n FROM orders) WHERE n < 3";
    let plan = explained(&sessions.learned, &format!("EXPLAIN {sql}")).await;
    let filter = plan.lines().find(|line| line.contains("FilterExec")).unwrap();
    assert!(filter.contains("relata_rows=60 [0, 300] analytical"), "{plan}");
    let plan = explained(&sessions.learned, "EXPLAIN SELECT COUNT(*) FROM orders").await;
    assert!(plan.contains("PlaceholderRowExec, relata_rows=1 [1, 1] exact"), "{plan}");
    // Rows of a part of an aggregation, and of subqueries, are nobody's.
    let sql = "SELECT id FROM orders WHERE amount < (SELECT AVG(amount) FROM orders)";
    let plan = explained(&sessions.learned, &format!("EXPLAIN {sql}")).await;
    let subquery: Vec<&str> = plan.lines().skip_while(|line| !line.contains("AggregateExec")).collect();
    assert!(!subquery.is_empty() && subquery.iter().all(|line| !line.contains("relata_rows")), "{plan}");
    let plan = explained(&sessions.learned, &format!("EXPLAIN {JOIN}")).await;
    assert!(!plan.lines().any(|line| line.contains("mode=Partial") && line.contains("relata_rows")), "{plan}");
}

#[tokio::test]
async fn estimates_are_shown_where_they_are_wanted() {
    let sessions = shop(pretrained()).await;
    let ctx = &sessions.learned;
    for setting in ["relata.explain", "relata.enabled"] {
        set(ctx, &format!("{setting} = false")).await;
        for verb in ["EXPLAIN", "EXPLAIN ANALYZE", "EXPLAIN FORMAT TREE", "EXPLAIN FORMAT PGJSON"] {
            let plan = explained(ctx, &format!("{verb} {JOIN}")).await;
            assert!(!plan.contains("relata") && !plan.contains("Plan Rows"), "{setting} {verb}: {plan}");
        }
        set(ctx, &format!("{setting} = true")).await;
    }
    set(ctx, "relata.statistics = false").await;
    assert!(explained(ctx, &format!("EXPLAIN {JOIN}")).await.contains("relata_rows="));
    assert!(plans(ctx, &format!("EXPLAIN VERBOSE {JOIN}")).await.iter().any(|plan| plan.contains("relata_rows=")));
}

#[tokio::test]
async fn estimated_rows_are_next_to_actual_ones() {
    let sessions = shop(pretrained()).await;
    let text = sessions.relata.explain_analyze(&sessions.learned, JOIN).await.unwrap();
    let filter = text.lines().find(|line| line.contains("FilterExec")).unwrap();
    assert!(filter.ends_with("  rows=145 [145, 145] exact, actual=145, q_error=1.00"), "{text}");
    assert!(text.lines().filter(|line| line.contains("HashJoin")).all(|line| line.contains("q_error=")), "{text}");
    for sql in ["CREATE TABLE x AS SELECT 1", "SELECT FROM WHERE", "SELECT 1 FROM nowhere"] {
        assert!(sessions.relata.explain_analyze(&sessions.learned, sql).await.is_err(), "{sql}");
    }
}

#[tokio::test]
async fn the_chosen_plan_is_drawn() {
    let sessions = shop(pretrained()).await;
    let svg = sessions.relata.explain_svg(&sessions.learned, &format!("{JOIN} HAVING COUNT(*) < 1000")).await.unwrap();
    for part in ["TableScan", "Inner Join", "Aggregate", "] exact", "orders.amount &gt; Int64(20)", "&lt; Int64(1000)"]
    {
        assert!(svg.contains(part), "{part}: {svg}");
    }
}

/// A machine that nobody has to measure.
fn machine() -> Resources {
    Resources::reference(2, 1.5)
}

#[tokio::test]
async fn plans_show_how_long_they_take() {
    let pretrained = || Relata::pretrained().unwrap();
    let sessions = shop(pretrained().with_machine(machine())).await;
    let plan = explained(&sessions.learned, &format!("EXPLAIN {JOIN}")).await;
    assert!(plan.lines().all(|line| line.contains("relata_time=")), "{plan}");
    let root = plan.lines().next().unwrap();
    assert!(root.contains("relata_memory=") && root.contains(" [at most "), "{plan}");
    let runtime = sessions.relata.estimate_runtime(&sessions.learned, JOIN).await.unwrap();
    assert_eq!(runtime.operators.len(), plan.lines().count());
    let [lower, median, upper] = runtime.elapsed;
    assert!(lower <= median && median <= upper && upper < std::time::Duration::from_secs(60), "{runtime:?}");
    assert!(runtime.peak_bytes.is_sorted());
    // Ten times slower in everything is ten times longer.
    let slow = shop(pretrained().with_machine(machine().slowed(10.0))).await;
    let slow = slow.relata.estimate_runtime(&slow.learned, JOIN).await.unwrap().elapsed[1];
    let ratio = slow.as_secs_f64() / median.as_secs_f64();
    assert!((9.9..10.1).contains(&ratio), "{ratio}");
    // Without the expert nothing is predicted, and nothing fails.
    let without = shop(pretrained().without_experts()).await;
    assert!(without.relata.estimate_runtime(&without.learned, JOIN).await.is_err());
    assert!(!explained(&without.learned, &format!("EXPLAIN {JOIN}")).await.contains("relata_time"));
}

#[tokio::test]
async fn a_plan_knows_the_memory_that_it_may_hold() {
    let relata = Relata::pretrained().unwrap().with_machine(machine());
    let environment = RuntimeEnvBuilder::new().with_memory_limit(1 << 30, 1.0).build_arc().unwrap();
    let builder = SessionStateBuilder::new_with_default_features().with_runtime_env(environment);
    let limited = SessionContext::new_with_state(relata.install(builder).build());
    let builder = SessionStateBuilder::new_with_default_features();
    let unlimited = SessionContext::new_with_state(relata.install(builder).build());
    for (ctx, limit) in [(limited, 1 << 30), (unlimited, 0)] {
        ctx.sql("CREATE TABLE t AS SELECT value FROM generate_series(1, 10)").await.unwrap().collect().await.unwrap();
        let plan = relata.estimated_plan(&ctx.state(), "SELECT value FROM t ORDER BY value").await.unwrap();
        assert_eq!(plan.graph.memory_limit, limit);
        assert!(explained(&ctx, "EXPLAIN SELECT value FROM t ORDER BY value").await.contains("relata_time="));
    }
}
