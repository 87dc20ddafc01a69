//! Two tables, the three lines that switch relata on, a query, and what relata says about its plan.
#![expect(clippy::print_stdout, reason = "an example shows its results")]

use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use relata::Relata;

const QUERY: &str = "
    SELECT c.town, COUNT(*) AS orders, SUM(o.amount) AS amount
    FROM customer c JOIN orders o ON o.customer = c.id
    WHERE c.town = 'Bonn' AND o.amount > 50
    GROUP BY c.town";

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let relata = Relata::pretrained()?;
    let state = relata.install(SessionStateBuilder::new_with_default_features()).build();
    let ctx = SessionContext::new_with_state(state);

    let directory = tempfile::tempdir()?;
    write_tables(&ctx, directory.path()).await?;
    relata.profile(&ctx).await?; // or lazily, when the first query over a table is planned

    ctx.sql(QUERY).await?.show().await?;
    println!("{}", relata.explain(&ctx, QUERY).await?);
    Ok(())
}

/// 100 customers in 4 towns and 2000 orders of theirs, as Parquet files.
async fn write_tables(ctx: &SessionContext, directory: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let customers = "SELECT value AS id,
            CASE value % 4 WHEN 0 THEN 'Aachen' WHEN 1 THEN 'Bonn' WHEN 2 THEN 'Celle' ELSE 'Dessau' END AS town
        FROM generate_series(1, 100)";
    let orders = "SELECT value AS id, 1 + value * value % 100 AS customer, value % 89 AS amount
        FROM generate_series(1, 2000)";
    for (name, rows) in [("customer", customers), ("orders", orders)] {
        let file = directory.join(format!("{name}.parquet")).display().to_string();
        ctx.sql(&format!("COPY ({rows}) TO '{file}' STORED AS PARQUET")).await?.collect().await?;
        ctx.register_parquet(name, file, ParquetReadOptions::default()).await?;
    }
    Ok(())
}
