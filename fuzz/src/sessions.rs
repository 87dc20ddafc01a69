//! The same tables under DataFusion alone, under relata, and under relata with random estimates.
//!
//! DataFusion 55.2 itself has wrong answers where it pushes filters down a physical plan: the one on `r2.q` of
//! `t0 AS r2 RIGHT JOIN t3 AS r3 ON r2.p = r3.p AND r2.q = r3.q WHERE r2.q IS NULL AND r3.s = 'a'` becomes one on `r3.q`. So the
//! sessions that are compared strictly go without those rules, and two that have them are compared for information.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::util::pretty::pretty_format_batches_with_schema;
use datafusion::datasource::MemTable;
use datafusion::error::Result;
use datafusion::execution::SessionStateBuilder;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::{SessionConfig, SessionContext};
use relata::{CounterValues, RandomRows, Relata, RelataConfig};

use crate::queries;

/// Seeds of the random estimates.
const SEEDS: u64 = 2;

/// One session.
struct Contender {
    name: String,
    context: SessionContext,
    relata: Option<Relata>,
    /// Whether it must have the answers of the first one.
    strict: bool,
}

/// What came of a comparison that found no fault with relata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every session has the same rows; how many.
    Same(usize),
    /// DataFusion alone does not answer the query.
    Refused,
    /// The same, but for a session that pushes filters down the physical plan.
    Unstable,
}

/// Regions of joins that relata has given another order so far, in any session.
pub fn reordered() -> u64 {
    counters().reordered
}

/// Runs a query in every session. A limit without an order of all columns may pick any rows: then only their number is compared.
///
/// # Panics
/// When DataFusion alone has an answer and relata has another one, or none.
pub fn compare(sql: &str, any_rows: bool) -> Outcome {
    let outcome = RUNTIME.with(|runtime| runtime.block_on(compared(sql, any_rows)));
    let counters = counters();
    assert_eq!((counters.failures, counters.rejected), (0, 0), "{sql}\n{counters:?}");
    outcome
}

/// The counters, which all of relata's sessions share.
fn counters() -> CounterValues {
    CONTENDERS.iter().find_map(|one| one.relata.as_ref()).map(Relata::counters).unwrap_or_default()
}

async fn compared(sql: &str, any_rows: bool) -> Outcome {
    let Ok(expected) = rows(&CONTENDERS[0].context, sql, any_rows).await else { return Outcome::Refused };
    let mut stable = true;
    for Contender { name, context, strict, .. } in &CONTENDERS[1..] {
        match rows(context, sql, any_rows).await {
            Ok(found) if found == expected => {}
            _ if !strict => stable = false,
            Ok(found) => panic!("{name}: {sql}\nexpected {expected:#?}\nfound {found:#?}"),
            Err(error) => panic!("{name}: {sql}\n{error}"),
        }
    }
    // The first line is the header.
    if stable { Outcome::Same(expected.len() - usize::from(!any_rows)) } else { Outcome::Unstable }
}

thread_local! {
    static RUNTIME: tokio::runtime::Runtime = runtime();
}

#[expect(clippy::expect_used, reason = "a fuzz body may die when the machine gives it no thread")]
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[expect(clippy::expect_used, reason = "a fuzz body may die when its own set-up fails")]
static CONTENDERS: LazyLock<Vec<Contender>> = LazyLock::new(|| contenders().expect("tables and weights"));

/// DataFusion, relata with its own and with random estimates, and both as they come; relata leaves the query's order whatever
/// the gain, so that every region of joins goes through the rewrite.
fn contenders() -> std::result::Result<Vec<Contender>, Box<dyn std::error::Error>> {
    let mut config = RelataConfig::default();
    (config.minimum_gain, config.minimum_cost) = (0.0, 0.0);
    let adaptive = config.clone();
    // Small plans would run in one partition otherwise.
    config.partition_cost = 0.0;
    let relata = Relata::pretrained()?.with_config(config);
    let misled = |seed| {
        let relata = relata.clone().with_known_rows(Arc::new(RandomRows::new(seed)));
        (format!("estimates {seed}"), Some(relata), true)
    };
    let mut all = vec![("DataFusion".to_owned(), None, true), ("relata".to_owned(), Some(relata.clone()), true)];
    all.extend((0..SEEDS).map(misled));
    all.push(("few partitions".to_owned(), Some(relata.clone().with_config(adaptive.clone())), true));
    all.push(("DataFusion as it comes".to_owned(), None, false));
    all.push(("relata as it comes".to_owned(), Some(relata.clone().with_config(adaptive.clone())), false));
    let tables: Vec<(String, Arc<MemTable>)> = queries::tables()?
        .into_iter()
        .chain(two_tables()?)
        .map(|(name, batch)| Ok((name, Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?))))
        .collect::<Result<_>>()?;
    let mut contenders = vec![];
    for (place, (name, relata, strict)) in all.into_iter().enumerate() {
        let config = SessionConfig::new().with_target_partitions(1 + 2 * place % 5);
        let mut builder = SessionStateBuilder::new_with_default_features().with_config(config);
        if strict {
            let rules =
                PhysicalOptimizer::new().rules.into_iter().filter(|rule| !rule.name().contains("FilterPushdown"));
            builder = builder.with_physical_optimizer_rules(rules.collect());
        }
        if let Some(relata) = &relata {
            builder = relata.install(builder);
        }
        let context = SessionContext::new_with_state(builder.build());
        for (name, table) in &tables {
            context.register_table(name, Arc::<MemTable>::clone(table))?;
        }
        contenders.push(Contender { name, context, relata, strict });
    }
    Ok(contenders)
}

/// The tables `a` and `b` that the seeds in `seeds/sql` name.
fn two_tables() -> Result<Vec<(String, RecordBatch)>> {
    let table = |(name, rows): (&str, i64)| {
        let ids = Int64Array::from_iter((0..rows).map(|i| (i % 13 != 5).then_some(i * i % 17)));
        let words = StringArray::from_iter_values((0..rows).map(|i| format!("w{}", i % 7)));
        let columns = [("x", Arc::new(ids) as ArrayRef), ("y", Arc::new(words) as ArrayRef)];
        Ok((name.to_owned(), RecordBatch::try_from_iter(columns)?))
    };
    [("a", 40), ("b", 90)].into_iter().map(table).collect()
}

/// The rows of a query in a fixed order, or their number.
async fn rows(context: &SessionContext, sql: &str, any_rows: bool) -> Result<Vec<String>> {
    let data = context.sql(sql).await?;
    let schema = Arc::clone(data.schema().inner());
    let batches = data.collect().await?;
    if any_rows {
        return Ok(vec!["a row".to_owned(); batches.iter().map(RecordBatch::num_rows).sum()]);
    }
    let text = pretty_format_batches_with_schema(schema, &batches)?.to_string();
    let mut lines: Vec<String> = text.lines().filter(|line| line.starts_with('|')).map(str::to_owned).collect();
    // The header is the same where the schema is.
    lines.sort();
    Ok(lines)
}
