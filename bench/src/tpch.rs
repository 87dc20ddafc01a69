//! TPC-H: data by `tpchgen`, written once, and the 22 queries with the specification's validation parameters.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use datafusion::parquet::arrow::ArrowWriter;
use relata::cli::open::cache_directory;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};
use tpchgen::q_and_a::queries::query;
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RegionArrow, SupplierArrow,
};

/// The tables with their keys (TPC-H specification, clause 1.4).
const SCHEMA: &str = include_str!("tpch/schema.json");

/// Values of `:1`, `:2`, .. of each query (clause 2.4.N.3); that of query 11 depends on the scale.
const PARAMETERS: [&[&str]; 22] = [
    &["90"],
    &["15", "BRASS", "EUROPE"],
    &["BUILDING", "1995-03-15"],
    &["1993-07-01"],
    &["ASIA", "1994-01-01"],
    &["1994-01-01", "0.06", "24"],
    &["FRANCE", "GERMANY"],
    &["BRAZIL", "AMERICA", "ECONOMY ANODIZED STEEL"],
    &["green"],
    &["1993-10-01"],
    &["GERMANY"],
    &["MAIL", "SHIP", "1994-01-01"],
    &["special", "requests"],
    &["1995-09-01"],
    &["1996-01-01"],
    &["Brand#45", "MEDIUM POLISHED", "49", "14", "23", "45", "19", "3", "36", "9"],
    &["Brand#23", "MED BOX"],
    &["300"],
    &["Brand#12", "Brand#23", "Brand#34", "1", "10", "20"],
    &["forest", "1994-01-01", "CANADA"],
    &["SAUDI ARABIA"],
    &["13", "31", "23", "29", "30", "18", "17"],
];

/// Rows that a query returns at most (clause 2.4.N.1).
const LIMITS: [(usize, usize); 5] = [(2, 100), (3, 10), (10, 20), (18, 100), (21, 100)];

/// The folder of the tables at a scale factor, in the user's cache, with the queries beside them in `queries.jsonl`.
///
/// # Errors
/// When the tables or the queries cannot be written.
pub fn tables(scale: f64) -> Result<PathBuf> {
    ensure!(scale > 0.0 && scale.is_finite(), "the scale factor must be positive");
    let folder = cache_directory().join("tpch").join(format!("sf{scale}"));
    if !folder.join("schema.json").is_file() {
        write(scale, &folder)?;
    }
    let line =
        |(id, sql): (String, String)| serde_json::json!({"id": id, "kind": "tpch", "sql": sql}).to_string() + "\n";
    let file = folder.join("queries.jsonl");
    std::fs::write(&file, queries(scale).into_iter().map(line).collect::<String>())
        .with_context(|| file.display().to_string())?;
    Ok(folder)
}

/// The queries by name, in the text that DataFusion reads.
pub fn queries(scale: f64) -> Vec<(String, String)> {
    (1..=22).filter_map(|number| Some((format!("tpch-q{number:02}"), sql(number, scale)?))).collect()
}

fn sql(number: usize, scale: f64) -> Option<String> {
    let template = query(i32::try_from(number).ok()?)?;
    let mut parameters: Vec<String> = PARAMETERS.get(number - 1)?.iter().map(|&value| value.to_owned()).collect();
    if number == 11 {
        parameters.push(format!("{:.10}", 0.0001 / scale));
    }
    let mut sql = template.trim().replace("day (3)", "day");
    if number == 15 {
        // The view as a common table expression.
        let (view, rest) = sql.split_once(';')?;
        let body = view.split_once(" as")?.1;
        let rest = rest.split_once(';')?.0;
        sql = format!("with revenue (supplier_no, total_revenue) as ({body}) {rest};").replace("revenue:s", "revenue");
    }
    for (place, value) in parameters.iter().enumerate().rev() {
        sql = sql.replace(&format!(":{}", place + 1), value);
    }
    let sql = sql.trim_end().trim_end_matches(';');
    let limit = LIMITS.iter().find(|(limited, _)| *limited == number);
    Some(limit.map_or_else(|| sql.to_owned(), |(_, rows)| format!("{sql}\nlimit {rows}")))
}

/// Writes the tables as Parquet; the folder appears when it is complete.
fn write(scale: f64, folder: &Path) -> Result<()> {
    let partial = folder.with_extension("partial");
    if partial.exists() {
        std::fs::remove_dir_all(&partial).with_context(|| partial.display().to_string())?;
    }
    std::fs::create_dir_all(&partial).with_context(|| partial.display().to_string())?;
    let file = |name: &str| partial.join(format!("{name}.parquet"));
    /// One table: its name, its Arrow iterator and its generator.
    macro_rules! table {
        ($name:literal, $arrow:ident, $generator:ident) => {
            write_table(&file($name), $arrow::schema_ref(), $arrow::new($generator::new(scale, 1, 1)))?
        };
    }
    table!("nation", NationArrow, NationGenerator);
    table!("region", RegionArrow, RegionGenerator);
    table!("part", PartArrow, PartGenerator);
    table!("supplier", SupplierArrow, SupplierGenerator);
    table!("partsupp", PartSuppArrow, PartSuppGenerator);
    table!("customer", CustomerArrow, CustomerGenerator);
    table!("orders", OrderArrow, OrderGenerator);
    table!("lineitem", LineItemArrow, LineItemGenerator);
    std::fs::write(partial.join("schema.json"), SCHEMA).with_context(|| partial.display().to_string())?;
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    std::fs::rename(&partial, folder).with_context(|| folder.display().to_string())
}

fn write_table(
    path: &Path,
    schema: SchemaRef,
    batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
) -> Result<()> {
    let write = || -> Result<()> {
        let mut writer = ArrowWriter::try_new(std::fs::File::create(path)?, schema, None)?;
        for batch in batches {
            writer.write(&batch?)?;
        }
        writer.close()?;
        Ok(())
    };
    write().with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use relata::cli::database::Database;
    use relata::cli::measure::measure;
    use relata::cli::session::SessionOptions;
    use relata::{RandomRows, Relata, RelataConfig};

    use super::*;

    async fn database(scale: f64, folder: &Path) -> Database {
        let folder = folder.join("tpch");
        write(scale, &folder).unwrap();
        Database::open(&folder, &SessionOptions::default()).await.unwrap()
    }

    #[tokio::test]
    async fn every_query_can_be_planned() {
        let folder = tempfile::tempdir().unwrap();
        let database = database(0.001, folder.path()).await;
        assert_eq!((database.tables.len(), database.notes.len()), (8, 0));
        let context = database.context(None).unwrap();
        for number in 1..=22 {
            let sql = sql(number, 0.001).unwrap();
            assert!(!sql.contains(':'), "{sql}");
            let planned = context.sql(&sql).await.unwrap_or_else(|error| panic!("query {number}: {error}"));
            planned.create_physical_plan().await.unwrap_or_else(|error| panic!("query {number}: {error}"));
        }
        let rows = context.sql("SELECT * FROM lineitem").await.unwrap().count().await.unwrap();
        assert_eq!(rows, 6005);
    }

    #[tokio::test]
    async fn every_query_has_one_answer_whatever_the_estimates() {
        const SCALE: f64 = 0.01;
        let folder = tempfile::tempdir().unwrap();
        let database = database(SCALE, folder.path()).await;
        let mut config = RelataConfig::default();
        (config.minimum_gain, config.minimum_cost, config.partition_cost) = (0.0, 0.0, 0.0);
        let relata = Relata::pretrained().unwrap().with_foreign_keys(database.foreign_keys()).with_config(config);
        let misled = relata.clone().with_known_rows(Arc::new(RandomRows::new(1)));
        let default = database.context(None).unwrap();
        let others = [&relata, &misled].map(|relata| database.context(Some(relata)).unwrap());
        relata.profile(&others[0]).await.unwrap();
        let mut rows = 0;
        for (name, sql) in queries(SCALE) {
            let expected = measure(&default, &sql, None).await.unwrap_or_else(|error| panic!("{name}: {error}")).digest;
            rows += expected.rows();
            for other in &others {
                let found = measure(other, &sql, None).await.unwrap_or_else(|error| panic!("{name}: {error}")).digest;
                assert_eq!(found, expected, "{name}");
            }
        }
        assert!(rows > 100);
        let counters = relata.counters();
        assert_eq!((counters.failures, counters.rejected), (0, 0), "{counters:?}");
        assert!(counters.reordered >= 20, "{counters:?}");
    }
}
