//! Every kind of difficulty that the prior promises occurs, often enough and not everywhere.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{cast, is_null};
use arrow::datatypes::{DataType, Float64Type};

use super::{
    PriorConfig, SyntheticDatabase, SyntheticTable, Tables, counts, generate, integers, rank_correlation, tuples,
};
use crate::prior::calendar::{DAY, civil};

fn draws(seeds: std::ops::Range<u64>) -> impl Iterator<Item = SyntheticDatabase> {
    let config = PriorConfig { rows: 300..=1_000, ..PriorConfig::default() };
    seeds.map(move |seed| generate(&config, seed).unwrap())
}

fn is_key(table: &SyntheticTable, name: &String) -> bool {
    table.primary_key.contains(name) || table.foreign_keys.iter().any(|key| key.columns.contains(name))
}

/// Names and arrays of the columns that are no keys, of the tables with at least 200 rows.
fn plain_columns(database: &SyntheticDatabase) -> Vec<Vec<ArrayRef>> {
    let of = |table: &SyntheticTable| {
        let schema = table.batch.schema();
        let fields = schema.fields().iter().zip(table.batch.columns());
        fields.filter(|(field, _)| !is_key(table, field.name())).map(|(_, array)| ArrayRef::clone(array)).collect()
    };
    database.tables.iter().filter(|table| table.batch.num_rows() >= 200).map(of).collect()
}

/// Values that compare equal where the column's values do; None for NULL.
fn values(array: &ArrayRef) -> Vec<Option<String>> {
    let texts = cast(array, &DataType::Utf8).unwrap();
    texts.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}

fn numbers(array: &ArrayRef) -> Option<Vec<f64>> {
    let floats = cast(array, &DataType::Float64).ok().filter(|_| array.data_type().is_numeric())?;
    Some(floats.as_primitive::<Float64Type>().iter().map(|value| value.unwrap_or(f64::NAN)).collect())
}

#[test]
fn sizes_cover_the_range() {
    let mut sizes = BTreeSet::new();
    for seed in 0..400 {
        let tables = Tables::new(&PriorConfig::default(), seed).unwrap();
        sizes.insert(tables.size_hint().0);
    }
    assert!(sizes.iter().all(|size| (2..=20).contains(size)), "{sizes:?}");
    assert!(sizes.len() >= 17 && sizes.contains(&2), "{sizes:?}");
    for tables in [2, 20] {
        let config = PriorConfig { tables: tables..=tables, rows: 10..=10, ..PriorConfig::default() };
        for seed in 0..20 {
            let database = generate(&config, seed).unwrap();
            assert_eq!(database.tables.len(), tables);
            assert!(database.tables.iter().all(|table| (1..=10).contains(&table.batch.num_rows())));
        }
    }
    let config = PriorConfig { tables: 3..=3, rows: 100_000..=100_000, max_columns: 2, ..PriorConfig::default() };
    let largest = generate(&config, 1).unwrap().tables.iter().map(|table| table.batch.num_rows()).max();
    assert_eq!(largest, Some(100_000));
}

#[test]
fn tables_arrive_one_at_a_time_and_are_the_same() {
    let config = PriorConfig { rows: 50..=400, ..PriorConfig::default() };
    for seed in 0..10 {
        let tables: Vec<SyntheticTable> = Tables::new(&config, seed).unwrap().map(Result::unwrap).collect();
        assert_eq!(tables, generate(&config, seed).unwrap().tables);
    }
}

#[test]
fn link_tables_and_numbered_rows_occur() {
    let (mut tables, mut links, mut numbered, mut composite) = (0, 0, 0, 0);
    for database in draws(0..40) {
        for table in &database.tables {
            let inside: Vec<_> = table
                .foreign_keys
                .iter()
                .filter(|key| key.columns.iter().all(|column| table.primary_key.contains(column)))
                .collect();
            tables += 1;
            links += usize::from(inside.len() > 1);
            composite += table.foreign_keys.iter().filter(|key| key.columns.len() > 1).count();
            let [only] = inside[..] else { continue };
            if table.primary_key.len() == only.columns.len() + 1 {
                numbered += 1;
                // Every parent's rows are numbered from one without gaps.
                let parents = tuples(&table.batch, &only.columns);
                let number = table.primary_key.last().unwrap();
                let numbers = integers(table.batch.column_by_name(number).unwrap());
                let mut seen: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
                for (parent, number) in parents.into_iter().zip(numbers) {
                    let last = seen.entry(parent.unwrap()).or_default();
                    *last += 1;
                    assert_eq!(number, Some(*last), "{}.{}", database.name, table.name);
                }
            }
        }
    }
    assert!(links * 12 > tables && links * 4 < tables, "{links} links in {tables} tables");
    assert!(numbered * 15 > tables && numbered * 4 < tables, "{numbered} of {tables} tables are numbered");
    assert!(composite > 15, "{composite} composite references");
}

#[test]
fn some_parents_all_have_children_and_some_do_not() {
    let (mut full, mut gaps, mut all) = (0, 0, 0);
    for database in draws(0..40) {
        for table in &database.tables {
            for key in &table.foreign_keys {
                let parents = database.table(&key.references_table).unwrap().batch.num_rows();
                let children = tuples(&table.batch, &key.columns);
                if key.match_fraction > 0.999 && children.len() > 4 * parents {
                    let used = children.into_iter().flatten().collect::<BTreeSet<_>>().len();
                    all += 1;
                    full += usize::from(used == parents);
                    gaps += usize::from(used * 4 < parents * 3);
                }
            }
        }
    }
    assert!(full * 3 > all && gaps * 10 > all, "{full} without and {gaps} with many gaps of {all}");
}

#[test]
fn nulls_are_missing_at_random_and_not() {
    let (mut nullable, mut informative, mut unrelated) = (0, 0, 0);
    for database in draws(0..40) {
        for columns in plain_columns(&database) {
            let numeric: Vec<Vec<f64>> = columns.iter().filter_map(numbers).collect();
            for (index, array) in columns.iter().enumerate() {
                let share = array.null_count() as f64 / array.len() as f64;
                if !(0.05..0.95).contains(&share) {
                    continue;
                }
                let missing: Vec<f64> =
                    is_null(array).unwrap().values().iter().map(|n| f64::from(u8::from(n))).collect();
                let correlation = |other: &Vec<f64>| {
                    let pairs: Vec<(f64, f64)> =
                        missing.iter().copied().zip(other.iter().copied()).filter(|pair| !pair.1.is_nan()).collect();
                    if pairs.len() < 100 { 0.0 } else { rank_correlation(&pairs).abs() }
                };
                let others =
                    columns.iter().enumerate().filter(|(other, _)| *other != index).filter_map(|(_, o)| numbers(o));
                let strongest = others.map(|other| correlation(&other)).fold(0.0, f64::max);
                if numeric.len() > 1 {
                    nullable += 1;
                    informative += usize::from(strongest > 0.25);
                    unrelated += usize::from(strongest < 0.1);
                }
            }
        }
    }
    assert!(nullable > 25, "{nullable}");
    assert!(informative * 4 > nullable && unrelated * 5 > nullable, "{informative}, {unrelated} of {nullable}");
}

#[test]
fn columns_decide_and_repeat_each_other() {
    let config = PriorConfig { tables: 2..=6, rows: 300..=1_000, max_columns: 40, ..PriorConfig::default() };
    let (mut dependencies, mut duplicates, mut tables) = (0, 0, 0);
    for database in (0..80).map(|seed| generate(&config, seed).unwrap()) {
        for columns in plain_columns(&database).into_iter().filter(|columns| columns.len() > 4) {
            tables += 1;
            let numeric: Vec<Option<Vec<f64>>> = columns.iter().map(numbers).collect();
            let columns: Vec<Vec<Option<String>>> = columns.iter().map(values).collect();
            let (mut depends, mut repeats) = (false, false);
            for (a, b) in
                (0..columns.len()).flat_map(|a| (0..columns.len()).map(move |b| (a, b))).filter(|(a, b)| a != b)
            {
                let both = || columns[a].iter().zip(&columns[b]).filter_map(|(a, b)| a.as_ref().zip(b.as_ref()));
                let rows = both().count();
                let pairs: BTreeSet<_> = both().collect();
                let from = pairs.iter().map(|(a, _)| a).collect::<BTreeSet<_>>().len();
                let to = pairs.iter().map(|(_, b)| b).collect::<BTreeSet<_>>().len();
                // A class of one column decides that of another, which is coarser but not constant.
                depends |= rows > 100 && pairs.len() == from && to > 1 && to < from && from * 3 < rows;
                repeats |= rows > 100 && from > 3 && both().filter(|(a, b)| a == b).count() * 10 > 8 * rows;
                if let (Some(a), Some(b)) = (&numeric[a], &numeric[b]) {
                    let pairs = a.iter().copied().zip(b.iter().copied());
                    let pairs: Vec<(f64, f64)> = pairs.filter(|(a, b)| !a.is_nan() && !b.is_nan()).collect();
                    repeats |= from > 3 && pairs.len() > 100 && rank_correlation(&pairs) > 0.97;
                }
            }
            dependencies += usize::from(depends);
            duplicates += usize::from(repeats);
        }
    }
    assert!(dependencies * 8 > tables && dependencies * 4 < 3 * tables, "{dependencies} of {tables} tables");
    assert!(duplicates * 15 > tables && duplicates * 2 < tables, "{duplicates} of {tables} tables");
}

#[test]
fn patterns_select_something() {
    let (mut texts, mut prefixes, mut words) = (0, 0, 0);
    for database in draws(0..30) {
        for array in plain_columns(&database).into_iter().flatten().filter(|a| *a.data_type() == DataType::Utf8) {
            let rows: Vec<&str> = array.as_string::<i32>().iter().flatten().collect();
            let distinct = rows.iter().collect::<BTreeSet<_>>().len();
            if distinct < 30 {
                continue;
            }
            texts += 1;
            // LIKE 'abc%' and LIKE '%word%' find several values, and not all.
            let some = |count: usize| count > 2 && count * 2 < distinct;
            let unique: BTreeSet<&str> = rows.iter().copied().collect();
            prefixes += usize::from(counts(unique.iter().filter_map(|t| t.get(..3))).into_values().any(some));
            let split = unique.iter().flat_map(|text| text.split(' ').skip(1).collect::<BTreeSet<_>>());
            words += usize::from(counts(split).into_values().any(some));
        }
    }
    assert!(texts > 40 && prefixes * 2 > texts && words * 5 > texts, "{prefixes} and {words} of {texts}");
}

#[test]
fn times_have_seasons() {
    let config = PriorConfig { tables: 4..=6, rows: 1_000..=3_000, max_columns: 3, ..PriorConfig::default() };
    let (mut columns, mut seasonal) = (0, 0);
    for database in (0..80).map(|seed| generate(&config, seed).unwrap()) {
        for array in plain_columns(&database).into_iter().flatten() {
            if !matches!(array.data_type(), DataType::Timestamp(..)) {
                continue;
            }
            let days: Vec<i64> =
                integers(&array).into_iter().flatten().map(|instant| instant.div_euclid(DAY)).collect();
            let span = days.iter().max().unwrap_or(&0) - days.iter().min().unwrap_or(&0);
            if days.len() >= 800 && span > 730 {
                let months = counts(days.iter().map(|&day| civil(day).1));
                columns += 1;
                // Chance alone stays below 1.3 times the usual.
                seasonal += usize::from(months.into_values().max().unwrap_or(0) * 12 * 10 > 14 * days.len());
            }
        }
    }
    assert!(columns > 5 && seasonal * 3 > columns, "{seasonal} of {columns}");
}
