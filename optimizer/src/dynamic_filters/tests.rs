use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::execution::SessionStateBuilder;
use datafusion::physical_plan::displayable;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use tempfile::TempDir;

use super::*;
use crate::{Relata, RelataConfig};

/// `films` and `words` of 1,000 rows with an `id` of their own from 0 and from 5,000, one word a film; `links` to words.
async fn session(learned: bool) -> (SessionContext, TempDir) {
    let config = SessionConfig::new().with_target_partitions(2);
    let config = config.set_bool("datafusion.optimizer.join_reordering", false);
    let mut builder = SessionStateBuilder::new_with_default_features().with_config(config);
    if learned {
        // The joins stay as they are written.
        let config = RelataConfig { join_reordering: false, statistics: false, ..RelataConfig::default() };
        builder = Relata::new(None).with_config(config).install(builder);
    }
    let session = SessionContext::new_with_state(builder.build());
    let folder = TempDir::new().unwrap();
    let ids = |from: i64| Arc::new(Int64Array::from_iter_values(from..from + 1000)) as ArrayRef;
    for (table, columns) in [
        ("films", vec![("id", ids(0)), ("word", ids(5000)), ("year", ids(1000))]),
        ("words", vec![("id", ids(5000))]),
        ("links", vec![("word", ids(5000))]),
    ] {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let path = folder.path().join(format!("{table}.parquet"));
        let path = path.to_str().unwrap();
        let rows = session.read_batch(batch).unwrap();
        rows.write_parquet(path, DataFrameWriteOptions::new(), None).await.unwrap();
        session.register_parquet(table, path, ParquetReadOptions::default()).await.unwrap();
    }
    (session, folder)
}

/// The rows counted by a query, and its plan.
async fn counted(session: &SessionContext, sql: &str) -> (i64, String) {
    let frame = session.sql(sql).await.unwrap();
    let plan = frame.clone().create_physical_plan().await.unwrap();
    let plan = displayable(plan.as_ref()).indent(false).to_string();
    let batches = frame.collect().await.unwrap();
    (batches[0].column(0).as_primitive::<Int64Type>().value(0), plan)
}

/// The outermost join is on `films.id`, two joins further down the `id` of `words` comes before it.
const TWO_IDS: &str = "SELECT count(*) FROM (SELECT id AS key FROM films WHERE year < 1010) AS few
    JOIN (SELECT films.id AS film FROM words JOIN films ON words.id = films.word JOIN links ON words.id = links.word) AS many
    ON few.key = many.film";

#[tokio::test]
async fn no_filter_lands_on_another_column_of_its_name() {
    let (session, _folder) = session(true).await;
    let (rows, plan) = counted(&session, TWO_IDS).await;
    assert_eq!(rows, 10, "{plan}");
}

#[tokio::test]
async fn the_pushdown_is_still_led_astray_without_relata() {
    // Where this fails, DataFusion finds columns by position and the rule can go.
    let (session, _folder) = session(false).await;
    let (rows, plan) = counted(&session, TWO_IDS).await;
    assert_eq!(rows, 0, "{plan}");
}

#[tokio::test]
async fn filters_that_arrive_stay() {
    let (session, _folder) = session(true).await;
    let (rows, plan) = counted(&session, TWO_IDS).await;
    assert!(rows == 10 && plan.contains("DynamicFilter"), "{plan}");
    for (sql, expected) in [
        ("SELECT count(*) FROM films JOIN links ON films.word = links.word WHERE films.year < 1010", 10),
        ("SELECT count(*) FROM films WHERE year < 1010 AND word IN (SELECT word FROM links)", 10),
        (
            "SELECT count(*) FROM (SELECT word FROM films WHERE year < 1010) AS few JOIN
            (SELECT id FROM words UNION ALL SELECT word FROM links) AS both ON few.word = both.id",
            20,
        ),
    ] {
        let (rows, plan) = counted(&session, sql).await;
        assert_eq!(rows, expected);
        assert!(plan.contains("DynamicFilter"), "{plan}");
    }
}
