use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, col, lit};
use relata_featurize::resources::Resources;
use tempfile::TempDir;

use super::*;

/// `sales` of 400,000 rows in a file in order of `id`, with a scattered `day`, and a small `shop`.
async fn session() -> (SessionContext, Relata, TempDir) {
    let machine = Resources::reference(2, 1.5);
    let relata = Relata::pretrained().unwrap().with_machine(machine);
    let builder =
        SessionStateBuilder::new_with_default_features().with_config(SessionConfig::new().with_target_partitions(2));
    let ctx = SessionContext::new_with_state(relata.install(builder).build());
    let folder = TempDir::new().unwrap();
    let ids =
        |rows: i64, value: fn(i64) -> i64| Arc::new(Int64Array::from_iter_values((0..rows).map(value))) as ArrayRef;
    for (table, columns) in [
        (
            "sales",
            vec![
                ("id", ids(400_000, |id| id)),
                ("day", ids(400_000, |id| id * 7919 % 1000)),
                ("shop", ids(400_000, |id| id % 50)),
            ],
        ),
        ("shop", vec![("id", ids(50, |id| id)), ("town", ids(50, |id| id % 7))]),
    ] {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let path = folder.path().join(format!("{table}.parquet"));
        let path = path.to_str().unwrap();
        let rows = ctx.read_batch(batch).unwrap();
        rows.write_parquet(path, DataFrameWriteOptions::new(), None).await.unwrap();
        ctx.register_parquet(table, path, ParquetReadOptions::default()).await.unwrap();
    }
    relata.profile(&ctx).await.unwrap();
    (ctx, relata, folder)
}

#[tokio::test]
async fn a_scattered_column_that_is_filtered_is_the_one_to_sort_by() {
    let (ctx, relata, _folder) = session().await;
    let queries = [
        "SELECT count(*) FROM sales WHERE day = 17",
        "SELECT count(*) FROM sales s JOIN shop ON s.shop = shop.id WHERE s.day BETWEEN 3 AND 5 AND shop.town < 3",
        "SELECT count(*) FROM sales WHERE id < 1000",
        "SELECT count(*) FROM sales WHERE shop > 1 AND day + shop > 40",
        "SELECT nothing",
    ]
    .map(str::to_owned);
    let advice = relata.advise_layout(&ctx, &queries).await.unwrap();
    let first = &advice[0];
    assert_eq!((first.table.table(), first.column.as_str(), first.queries), ("sales", "day", 2), "{advice:?}");
    assert!(first.after.as_secs_f64() < 0.7 * first.before.as_secs_f64(), "{first:?}");
    // The file is in the order of its ids already, and a condition that most rows meet saves next to nothing.
    for one in &advice[1..] {
        assert!(one.after.as_secs_f64() > 0.9 * one.before.as_secs_f64(), "{one:?}");
    }
    assert!(relata.advise_layout(&ctx, &[]).await.unwrap().is_empty());
    assert!(Relata::new(None).advise_layout(&ctx, &queries).await.is_err());
}

#[test]
fn conditions_that_pages_can_be_left_out_by() {
    let day = || col("day");
    for (condition, column) in [
        (day().eq(lit(3)), Some("day")),
        (lit(3).lt(day()), Some("day")),
        (day().between(lit(1), lit(2)).or(day().in_list(vec![lit(9)], false)), Some("day")),
        (day().eq(lit(3)).or(col("shop").eq(lit(1))), None),
        (day().not_eq(lit(3)), None),
        ((day() + lit(1)).eq(lit(3)), None),
        (day().eq(col("shop")), None),
        (day().in_list(vec![lit(9)], true), None),
    ] {
        assert_eq!(compared(&condition), column, "{condition}");
    }
}
