//! What the prior promises, on small databases.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Float64Type, Int32Type, Int64Type};
use arrow::row::{RowConverter, SortField};

use super::*;

mod variety;

fn small() -> PriorConfig {
    PriorConfig { rows: 50..=1_000, ..PriorConfig::default() }
}

fn column<'a>(database: &'a SyntheticDatabase, table: &str, column: &str) -> &'a ArrayRef {
    database.table(table).unwrap().batch.column_by_name(column).unwrap()
}

fn integers(array: &ArrayRef) -> Vec<Option<i64>> {
    cast(array, &DataType::Int64).unwrap().as_primitive::<Int64Type>().iter().collect()
}

/// The rows of some columns as comparable bytes; None where one of them is NULL.
fn tuples(batch: &RecordBatch, columns: &[String]) -> Vec<Option<Vec<u8>>> {
    let arrays: Vec<ArrayRef> = columns.iter().map(|name| batch.column_by_name(name).unwrap()).cloned().collect();
    let fields = arrays.iter().map(|array| SortField::new(array.data_type().clone())).collect();
    let rows = RowConverter::new(fields).unwrap().convert_columns(&arrays).unwrap();
    let complete = |row: usize| arrays.iter().all(|array| array.is_valid(row));
    rows.iter().enumerate().map(|(i, row)| complete(i).then(|| row.as_ref().to_vec())).collect()
}

fn counts<T: Ord>(values: impl IntoIterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    values.into_iter().for_each(|value| *counts.entry(value).or_default() += 1);
    counts
}

/// Share of the rows that the most frequent `top` values have.
fn share_of_top(counts: &BTreeMap<i64, usize>, top: usize) -> f64 {
    let mut sizes: Vec<usize> = counts.values().copied().collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    sizes.iter().take(top).sum::<usize>() as f64 / sizes.iter().sum::<usize>() as f64
}

/// Correlation of the ranks.
fn rank_correlation(pairs: &[(f64, f64)]) -> f64 {
    let ranks = |values: Vec<f64>| {
        let mut sorted = values.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        // The middle of the ranks that equal values share.
        let rank = |v: f64| (sorted.partition_point(|&s| s < v) + sorted.partition_point(|&s| s <= v)) as f64 / 2.0;
        values.into_iter().map(rank).collect::<Vec<f64>>()
    };
    let (x, y) = (ranks(pairs.iter().map(|p| p.0).collect()), ranks(pairs.iter().map(|p| p.1).collect()));
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (mx, my) = (mean(&x), mean(&y));
    let sum = |f: &dyn Fn(f64, f64) -> f64| x.iter().zip(&y).map(|(&a, &b)| f(a - mx, b - my)).sum::<f64>();
    sum(&|a, b| a * b) / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt().max(1e-9)
}

/// Names and values of the numeric columns that are no keys.
fn numeric_columns(table: &SyntheticTable) -> Vec<Vec<Option<f64>>> {
    let schema = table.batch.schema();
    let is_key = |name: &String| {
        table.primary_key.contains(name) || table.foreign_keys.iter().any(|key| key.columns.contains(name))
    };
    let fields = schema.fields().iter().enumerate();
    fields
        .filter(|(_, field)| field.data_type().is_numeric() && !is_key(field.name()))
        .map(|(i, _)| cast(table.batch.column(i), &DataType::Float64).unwrap())
        .map(|array| array.as_primitive::<Float64Type>().iter().collect())
        .collect()
}

#[test]
fn the_same_seed_gives_the_same_database() {
    for seed in 0..5 {
        assert_eq!(generate(&small(), seed).unwrap(), generate(&small(), seed).unwrap());
        assert_ne!(generate(&small(), seed).unwrap().tables, generate(&small(), seed + 1).unwrap().tables);
    }
    assert_eq!(demo_database(1, 3_000).unwrap(), demo_database(1, 3_000).unwrap());
    assert_ne!(demo_database(1, 3_000).unwrap(), demo_database(2, 3_000).unwrap());
}

#[test]
fn a_seed_means_the_same_on_every_machine() {
    // Computed once. A change to the prior changes it; a change of machine, compiler or dependency must not.
    fn digest(database: &SyntheticDatabase) -> u64 {
        let mut digest = 0xcbf2_9ce4_8422_2325u64;
        let mut add = |bytes: &[u8]| {
            bytes.iter().for_each(|&byte| digest = (digest ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        };
        for array in database.tables.iter().flat_map(|table| table.batch.columns()) {
            match array.data_type() {
                DataType::Utf8 => array.as_string::<i32>().iter().for_each(|text| add(text.unwrap_or("\0").as_bytes())),
                DataType::Float64 => array
                    .as_primitive::<Float64Type>()
                    .iter()
                    .for_each(|number| add(&number.map_or(1, f64::to_bits).to_le_bytes())),
                _ => integers(array).into_iter().for_each(|number| add(&number.unwrap_or(i64::MIN).to_le_bytes())),
            }
        }
        digest
    }
    assert_eq!(digest(&generate(&small(), 12).unwrap()), 13_312_997_186_859_195_906);
    assert_eq!(digest(&demo_database(12, 3_000).unwrap()), 8_121_456_809_380_838_438);
}

#[test]
fn keys_identify_and_references_match_as_declared() {
    let mut databases: Vec<SyntheticDatabase> = (0..60).map(|seed| generate(&small(), seed).unwrap()).collect();
    databases.push(demo_database(3, 20_000).unwrap());
    let (mut composite, mut itself, mut optional, mut dangling, mut all) = (0, 0, 0, 0, 0);
    for database in &databases {
        for table in &database.tables {
            if !table.primary_key.is_empty() {
                let keys = tuples(&table.batch, &table.primary_key);
                let distinct: BTreeSet<_> = keys.iter().flatten().collect();
                assert_eq!(distinct.len(), keys.len(), "{}.{}: {:?}", database.name, table.name, table.primary_key);
            }
            for key in &table.foreign_keys {
                let context = format!("{}.{}: {key:?}", database.name, table.name);
                let parent = database.table(&key.references_table).expect(&context);
                assert_eq!(key.references_columns, parent.primary_key, "{context}");
                let known: BTreeSet<_> = tuples(&parent.batch, &key.references_columns).into_iter().flatten().collect();
                let values = tuples(&table.batch, &key.columns);
                let present: Vec<_> = values.iter().flatten().collect();
                let matched = present.iter().filter(|value| known.contains(**value)).count();
                let match_fraction = if present.is_empty() { 1.0 } else { matched as f64 / present.len() as f64 };
                assert!((match_fraction - key.match_fraction).abs() < 1e-9, "{context}: {match_fraction}");
                let null_fraction = 1.0 - present.len() as f64 / values.len() as f64;
                assert!((null_fraction - key.null_fraction).abs() < 1e-9, "{context}: {null_fraction}");
                all += 1;
                composite += usize::from(key.columns.len() > 1);
                itself += usize::from(key.references_table == table.name);
                optional += usize::from(null_fraction > 0.0);
                dangling += usize::from(match_fraction < 1.0);
            }
        }
    }
    assert!(composite > 3 && itself > 3, "{composite} composite references, {itself} self references of {all}");
    assert!(optional * 20 > all && optional * 4 < all, "{optional} of {all} references are optional");
    assert!(dangling > 0 && dangling * 10 < all, "{dangling} of {all} references dangle");
}

#[test]
fn every_database_is_connected() {
    for seed in 0..60 {
        let database = generate(&small(), seed).unwrap();
        let mut reached = BTreeSet::from([database.tables[0].name.as_str()]);
        for _ in 0..database.tables.len() {
            for table in &database.tables {
                for key in &table.foreign_keys {
                    if reached.contains(table.name.as_str()) || reached.contains(key.references_table.as_str()) {
                        reached.extend([table.name.as_str(), key.references_table.as_str()]);
                    }
                }
            }
        }
        assert_eq!(reached.len(), database.tables.len(), "{}", database.name);
    }
}

#[test]
fn all_types_and_nulls_occur() {
    let mut types: BTreeMap<String, usize> = BTreeMap::new();
    let (mut columns, mut nullable, mut mostly_null) = (0, 0, 0);
    for seed in 0..60 {
        for table in generate(&small(), seed).unwrap().tables {
            for array in table.batch.columns() {
                *types.entry(array.data_type().to_string()).or_default() += 1;
                columns += 1;
                nullable += usize::from(array.null_count() > 0);
                mostly_null += usize::from(array.null_count() * 2 > array.len());
            }
        }
    }
    for expected in ["Int64", "Int32", "Float64", "Utf8", "Date32", "Timestamp(µs)", "Boolean"] {
        assert!(types.get(expected).is_some_and(|&count| count >= 5), "{expected}: {types:?}");
    }
    assert_eq!(types.len(), 7, "{types:?}");
    assert!(nullable * 7 > columns && nullable * 2 < columns, "{nullable} of {columns} columns have NULLs");
    assert!(mostly_null * 60 > columns, "{mostly_null} of {columns} columns are mostly NULL");
}

#[test]
fn columns_depend_on_each_other_within_and_across_tables() {
    let config = PriorConfig { rows: 1_000..=2_000, ..PriorConfig::default() };
    let (mut within, mut across) = (vec![], vec![]);
    for seed in 0..60 {
        let database = generate(&config, seed).unwrap();
        for table in &database.tables {
            let columns = numeric_columns(table);
            for (i, a) in columns.iter().enumerate() {
                for b in &columns[..i] {
                    let pairs: Vec<(f64, f64)> = a.iter().zip(b).filter_map(|(a, b)| a.zip(*b)).collect();
                    if pairs.len() > 100 {
                        within.push(rank_correlation(&pairs).abs());
                    }
                }
            }
            for key in table.foreign_keys.iter().filter(|key| key.references_table != table.name) {
                let parent = database.table(&key.references_table).unwrap();
                let rows: BTreeMap<_, usize> = tuples(&parent.batch, &key.references_columns)
                    .into_iter()
                    .enumerate()
                    .map(|(i, k)| (k, i))
                    .collect();
                let chosen: Vec<Option<usize>> = tuples(&table.batch, &key.columns)
                    .into_iter()
                    .map(|value| rows.get(&value).copied().filter(|_| value.is_some()))
                    .collect();
                for theirs in numeric_columns(parent) {
                    for ours in &columns {
                        let pairs: Vec<(f64, f64)> =
                            ours.iter().zip(&chosen).filter_map(|(x, row)| Some(((*x)?, theirs[(*row)?]?))).collect();
                        // Chance alone correlates the children of few parents.
                        if pairs.len() > 100 && parent.batch.num_rows() > 40 {
                            across.push(rank_correlation(&pairs).abs());
                        }
                    }
                }
            }
        }
    }
    let share = |of: &[f64], over: f64| of.iter().filter(|&&r| r > over).count() as f64 / of.len() as f64;
    assert!(within.len() > 100 && across.len() > 100, "{} {}", within.len(), across.len());
    assert!((0.2..0.8).contains(&share(&within, 0.3)), "within tables: {}", share(&within, 0.3));
    assert!((0.05..0.6).contains(&share(&across, 0.3)), "across tables: {}", share(&across, 0.3));
}

#[test]
fn children_of_one_parent_are_popular_together() {
    let config = PriorConfig { tables: 4..=6, ..small() };
    let mut correlations = vec![];
    for seed in 0..60 {
        let database = generate(&config, seed).unwrap();
        for parent in database.tables.iter().filter(|table| table.batch.num_rows() > 30) {
            let fanouts: Vec<BTreeMap<_, usize>> = database
                .tables
                .iter()
                .flat_map(|child| child.foreign_keys.iter().map(move |key| (child, key)))
                .filter(|(child, key)| key.references_table == parent.name && child.name != parent.name)
                .map(|(child, key)| counts(tuples(&child.batch, &key.columns).into_iter().flatten()))
                .collect();
            let keys: Vec<_> = tuples(&parent.batch, &parent.primary_key).into_iter().flatten().collect();
            for (i, a) in fanouts.iter().enumerate() {
                for b in &fanouts[..i] {
                    let count = |of: &BTreeMap<_, usize>, key| of.get(key).copied().unwrap_or(0) as f64;
                    let pairs: Vec<(f64, f64)> = keys.iter().map(|key| (count(a, key), count(b, key))).collect();
                    correlations.push(rank_correlation(&pairs));
                }
            }
        }
    }
    let strong = correlations.iter().filter(|&&r| r > 0.3).count();
    let opposite = correlations.iter().filter(|&&r| r < -0.3).count();
    assert!(
        strong * 6 > correlations.len() && opposite * 5 < strong,
        "{strong} and {opposite} of {}",
        correlations.len()
    );
}

#[test]
fn fanouts_range_from_even_to_heavy() {
    let config = PriorConfig { rows: 500..=4_000, ..PriorConfig::default() };
    let mut spreads = vec![];
    for seed in 0..40 {
        for table in generate(&config, seed).unwrap().tables {
            for key in table.foreign_keys.iter().filter(|key| key.null_fraction < 0.5) {
                let sizes: Vec<usize> =
                    counts(tuples(&table.batch, &key.columns).into_iter().flatten()).into_values().collect();
                let mean = sizes.iter().sum::<usize>() as f64 / sizes.len() as f64;
                if mean > 3.0 && sizes.len() > 10 {
                    spreads.push(*sizes.iter().max().unwrap() as f64 / mean);
                }
            }
        }
    }
    let share = |test: &dyn Fn(f64) -> bool| spreads.iter().filter(|&&s| test(s)).count() as f64 / spreads.len() as f64;
    assert!(share(&|s| s < 1.5) > 0.05, "{spreads:?}");
    assert!(share(&|s| s > 8.0) > 0.1, "{spreads:?}");
}

#[test]
fn extreme_configurations_work() {
    for seed in 0..100 {
        let tiny =
            PriorConfig { tables: 1..=12, rows: 1..=3, max_columns: 1, max_references: 1, ..PriorConfig::default() };
        assert!(generate(&tiny, seed).unwrap().tables.iter().all(|table| table.batch.num_rows() > 0));
        let everything = PriorConfig {
            tables: 6..=6,
            rows: 20..=40,
            max_columns: 60,
            nullable_columns: 1.0,
            optional_references: 1.0,
            dangling_references: 1.0,
            ..PriorConfig::default()
        };
        assert_eq!(generate(&everything, seed).unwrap().tables.len(), 6);
    }
}

#[test]
#[expect(clippy::reversed_empty_ranges, reason = "an empty range is what is tested")]
fn contradictions_are_refused() {
    let default = PriorConfig::default;
    for config in [
        PriorConfig { tables: 0..=3, ..default() },
        PriorConfig { rows: 9..=3, ..default() },
        PriorConfig { max_columns: 0, ..default() },
        PriorConfig { max_references: 0, ..default() },
        PriorConfig { nullable_columns: 1.5, ..default() },
        PriorConfig { optional_references: f64::NAN, ..default() },
        PriorConfig { zipf_exponent: -1.0..=1.0, ..default() },
    ] {
        assert!(matches!(generate(&config, 1), Err(PriorError::InvalidConfig(_))), "{config:?}");
    }
    assert!(matches!(demo_database(1, 10), Err(PriorError::InvalidConfig(_))));
}

#[test]
fn schema_json_names_everything() {
    let demo = demo_database(5, 3_000).unwrap();
    for database in [generate(&small(), 8).unwrap(), demo] {
        let text = serde_json::to_string(&database.schema_json()).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["name"], database.name.as_str());
        let strings = |value: &serde_json::Value| -> Vec<String> {
            value.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
        };
        let mut references = json["foreign_keys"].as_array().unwrap().iter();
        for (table, described) in database.tables.iter().zip(json["tables"].as_array().unwrap()) {
            assert_eq!(described["name"], table.name.as_str());
            assert_eq!(described["file"], format!("{}.parquet", table.name));
            assert_eq!(described["rows"], table.batch.num_rows());
            assert_eq!(strings(&described["primary_key"]), table.primary_key);
            let schema = table.batch.schema();
            for (field, column) in schema.fields().iter().zip(described["columns"].as_array().unwrap()) {
                assert_eq!(column["name"], field.name().as_str());
                let known = ["bool", "int32", "int64", "double", "string", "date32[day]", "timestamp[us]"];
                assert!(known.contains(&column["type"].as_str().unwrap()), "{column}");
            }
            for key in &table.foreign_keys {
                let described = references.next().unwrap();
                assert_eq!(described["table"], table.name.as_str());
                assert_eq!(described["references"], key.references_table.as_str());
                assert_eq!(strings(&described["columns"]), key.columns);
                assert_eq!(strings(&described["ref_columns"]), key.references_columns);
            }
        }
        assert!(references.next().is_none());
    }
}

#[test]
fn the_demo_is_as_large_as_asked_and_skewed() {
    let demo = demo_database(1, 60_000).unwrap();
    assert_eq!(demo.tables.len(), 10);
    assert!((48_000..72_000).contains(&demo.rows()), "{} rows", demo.rows());

    let products = demo.table("products").unwrap().batch.num_rows();
    let customers = demo.table("customers").unwrap().batch.num_rows();
    let sold = counts(integers(column(&demo, "order_items", "product_id")).into_iter().flatten());
    let reviewed = counts(integers(column(&demo, "reviews", "product_id")).into_iter().flatten());
    let bought = counts(integers(column(&demo, "orders", "customer_id")).into_iter().flatten());
    assert!(share_of_top(&sold, products / 100) > 0.25, "products sold: {}", share_of_top(&sold, products / 100));
    assert!(share_of_top(&reviewed, products / 100) > 0.3, "reviewed: {}", share_of_top(&reviewed, products / 100));
    assert!(share_of_top(&bought, customers / 100) > 0.2, "customers: {}", share_of_top(&bought, customers / 100));

    // The many-to-many join over products, exactly and under uniformity.
    let joined: usize = sold.iter().map(|(product, items)| items * reviewed.get(product).unwrap_or(&0)).sum();
    let rows = |table| demo.table(table).unwrap().batch.num_rows() as f64;
    let uniform = rows("order_items") * rows("reviews") / products as f64;
    assert!(joined as f64 > 6.0 * uniform, "{joined} rows where uniformity expects {uniform}");
}

#[test]
fn the_demo_is_correlated() {
    let demo = demo_database(2, 60_000).unwrap();
    // Country and segment.
    let code = column(&demo, "customers", "country_code").as_string::<i32>();
    let segment = column(&demo, "customers", "segment").as_string::<i32>();
    let share = |country: &str, wanted: &str| {
        let there: Vec<usize> = (0..code.len()).filter(|&row| code.value(row) == country).collect();
        there.iter().filter(|&&row| segment.value(row) == wanted).count() as f64 / there.len() as f64
    };
    assert!(share("IN", "budget") > 2.0 * share("US", "budget"));
    assert!(share("US", "premium") > 2.0 * share("IN", "premium"));
    // A city decides the country.
    let city = integers(column(&demo, "customers", "city_id"));
    let pairs: BTreeSet<(i64, &str)> = city.iter().flatten().copied().zip(code.iter().flatten()).collect();
    assert_eq!(pairs.len(), city.iter().flatten().collect::<BTreeSet<_>>().len());
    // Segment and price, over four joins.
    let segment_of: Vec<&str> = segment.iter().flatten().collect();
    let customer_of = integers(column(&demo, "orders", "customer_id"));
    let price = column(&demo, "order_items", "unit_price").as_primitive::<Float64Type>();
    let mut paid: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (order, price) in integers(column(&demo, "order_items", "order_id")).into_iter().flatten().zip(price.values()) {
        if let Some(customer) = customer_of[order as usize - 1] {
            paid.entry(segment_of[customer as usize - 1]).or_default().push(*price);
        }
    }
    let mean = |segment| paid[segment].iter().sum::<f64>() / paid[segment].len() as f64;
    assert!(mean("premium") > 2.5 * mean("budget"), "{} and {}", mean("premium"), mean("budget"));
    // Date and status; status and shipment.
    let status = column(&demo, "orders", "status").as_string::<i32>();
    let open = |row: usize| ["pending", "processing"].contains(&status.value(row));
    let last = status.len() * 98 / 100;
    assert!((0..last).all(|row| !open(row)) && (last..status.len()).any(open));
    let shipped: BTreeSet<i64> = integers(column(&demo, "shipments", "order_id")).into_iter().flatten().collect();
    for row in 0..status.len() {
        let expected = !open(row) && status.value(row) != "cancelled";
        assert_eq!(shipped.contains(&(row as i64 + 1)), expected, "order {row}: {}", status.value(row));
    }
}

#[test]
fn the_demo_has_nulls_dates_and_words() {
    let demo = demo_database(4, 30_000).unwrap();
    for (table, name) in [
        ("customers", "birth_date"),
        ("customers", "phone"),
        ("categories", "parent_category_id"),
        ("products", "color"),
        ("suppliers", "rating"),
        ("orders", "customer_id"),
        ("orders", "coupon_code"),
        ("shipments", "delivered_on"),
        ("reviews", "title"),
    ] {
        let array = column(&demo, table, name);
        assert!(array.null_count() > 0 && array.null_count() < array.len(), "{table}.{name}");
    }
    // Firms have no date of birth: NULL depends on another column.
    let segment = column(&demo, "customers", "segment").as_string::<i32>();
    let birth = column(&demo, "customers", "birth_date").as_primitive::<Date32Type>();
    let unknown = |firm: bool| {
        let rows: Vec<usize> = (0..segment.len()).filter(|&row| (segment.value(row) == "business") == firm).collect();
        rows.iter().filter(|&&row| birth.is_null(row)).count() as f64 / rows.len() as f64
    };
    assert!(unknown(true) > 0.8 && unknown(false) < 0.2);
    // LIKE 'San %' and LIKE '%Headphones%' select something, and not everything.
    let share = |table: &str, name: &str, test: &dyn Fn(&str) -> bool| {
        let texts = column(&demo, table, name).as_string::<i32>();
        texts.iter().flatten().filter(|text| test(text)).count() as f64 / texts.len() as f64
    };
    assert!((0.05..0.4).contains(&share("cities", "name", &|text| text.starts_with("San "))));
    let ultra = share("products", "name", &|text| text.contains(" Ultra "));
    assert!((0.02..0.3).contains(&ultra), "{ultra}");
    assert!((0.01..0.5).contains(&share("orders", "coupon_code", &|text| text.starts_with("BLACKFRIDAY"))));
    // The lines of an order are numbered from one.
    let lines = column(&demo, "order_items", "line_number").as_primitive::<Int32Type>();
    let orders = demo.table("orders").unwrap().batch.num_rows();
    assert_eq!(lines.values().iter().filter(|&&line| line == 1).count(), orders);
}
