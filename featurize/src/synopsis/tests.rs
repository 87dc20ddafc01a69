use std::path::Path;

use datafusion::arrow::array::{ArrayRef, Int64Array, StringArray};
use datafusion_expr::{col, lit};

use super::*;
use crate::foreign_key::{ForeignKey, foreign_keys};
use crate::profile::ProfileConfig;

/// Tables with their rows and profiles.
struct Tables {
    batches: Vec<RecordBatch>,
    profiles: Vec<Arc<TableProfile>>,
}

impl Tables {
    fn new(batches: Vec<RecordBatch>, config: &ProfileConfig) -> Self {
        let profile = |batch: &RecordBatch| {
            Arc::new(TableProfile::of_batches(batch.schema(), std::slice::from_ref(batch), config).unwrap())
        };
        Self { profiles: batches.iter().map(profile).collect(), batches }
    }

    fn plans(&self, declared: &[ForeignKey], config: &SynopsisConfig) -> Vec<Option<SynopsisPlan>> {
        SynopsisPlan::of_tables(&self.profiles, &foreign_keys(&self.profiles, declared), config)
    }

    fn build(&self, plan: &SynopsisPlan) -> Option<JoinSynopsis> {
        let builder = SynopsisBuilder::new(self.profiles.clone(), [plan.clone()]);
        let halves: Vec<Vec<RecordBatch>> = self.batches.iter().map(halves).collect();
        let halves: Vec<&[RecordBatch]> = halves.iter().map(Vec::as_slice).collect();
        builder.of_batches(&halves).unwrap().pop()
    }
}

fn halves(batch: &RecordBatch) -> Vec<RecordBatch> {
    let half = batch.num_rows() / 2;
    vec![batch.slice(0, half), batch.slice(half, batch.num_rows() - half)]
}

fn numbers(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(Int64Array::from_iter(values))
}

fn texts(values: impl Iterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

const REGIONS: i64 = 9;
const CUSTOMERS: i64 = 3000;
const ORDERS: i64 = 9000;

/// Regions, customers that refer to them and orders that refer to customers; one order in seven has no customer, one in
/// eleven of the others refers to a customer who does not exist.
fn shop(config: &ProfileConfig) -> Tables {
    let region = |i: i64| (i * i) % REGIONS;
    let customer = |i: i64| (i % 7 != 0).then_some(if i % 11 == 0 { 1_000_000 + i } else { (i * 31) % CUSTOMERS });
    let regions =
        [("id", numbers((0..REGIONS).map(Some))), ("name", texts((0..REGIONS).map(|i| format!("region {}", i % 3))))];
    let customers = [
        ("id", numbers((0..CUSTOMERS).map(Some))),
        ("region", numbers((0..CUSTOMERS).map(|i| Some(region(i))))),
        ("name", texts((0..CUSTOMERS).map(|i| format!("customer {i}")))),
    ];
    let orders =
        [("customer", numbers((0..ORDERS).map(customer))), ("total", numbers((0..ORDERS).map(|i| Some(i % 100))))];
    let batches = [RecordBatch::try_from_iter(regions), RecordBatch::try_from_iter(customers), {
        RecordBatch::try_from_iter(orders)
    }];
    Tables::new(batches.map(Result::unwrap).into(), config)
}

fn small() -> ProfileConfig {
    ProfileConfig { sample_rows: 2000, key_sample_rows: 300, ..ProfileConfig::default() }
}

fn key(table: usize, column: usize, references: usize, referenced: usize) -> ForeignKey {
    ForeignKey { table, columns: vec![column], references, referenced: vec![referenced] }
}

const SHOP: [(usize, usize, usize, usize); 2] = [(2, 0, 1, 0), (1, 1, 0, 0)];

fn shop_keys() -> Vec<ForeignKey> {
    SHOP.map(|(table, column, references, referenced)| key(table, column, references, referenced)).into()
}

/// The numbers of a column.
fn column(rows: &RecordBatch, column: usize) -> Vec<Option<i64>> {
    use datafusion::arrow::array::AsArray;
    use datafusion::arrow::datatypes::Int64Type;
    rows.column(column).as_primitive::<Int64Type>().iter().collect()
}

#[test]
fn every_sampled_row_finds_its_own_partners() {
    let tables = shop(&small());
    let plans = tables.plans(&shop_keys(), &SynopsisConfig::default());
    assert!(plans[0].is_none());
    let plan = plans[2].as_ref().unwrap();
    let synopsis = tables.build(plan).unwrap();
    let [customers, regions] = synopsis.parents() else { panic!("{:?}", synopsis.parents().len()) };
    assert_eq!((synopsis.rows(), synopsis.scale(), regions.from), (2000, 4.5, Some(0)));
    assert!(!customers.is_whole_table() && regions.is_whole_table() && !synopsis.is_complete());
    let keys = column(&synopsis.root().sample, 0);
    let (ids, of_region) = (column(customers.rows(), 0), column(customers.rows(), 1));
    let region_ids = column(regions.rows(), 0);
    for (row, key) in keys.iter().enumerate() {
        match key.filter(|key| *key < 1_000_000) {
            None => assert_eq!((customers.links()[row], regions.links()[row]), (NO_PARTNER, NO_PARTNER)),
            Some(key) => {
                let partner = customers.links()[row] as usize;
                assert_eq!(ids[partner], Some(key));
                assert_eq!(region_ids[regions.links()[row] as usize], of_region[partner]);
            }
        }
    }
    // 6/7 * 10/11 of the orders.
    assert!((customers.partner_share() - 0.78).abs() < 0.03, "{}", customers.partner_share());
    assert_eq!(tables.build(plan).unwrap(), synopsis, "the same each time");
}

#[test]
fn the_joined_rows_are_a_sample_of_the_join() {
    let tables = shop(&small());
    let plan = tables.plans(&shop_keys(), &SynopsisConfig::default())[2].clone().unwrap();
    let synopsis = tables.build(&plan).unwrap();
    let joined = synopsis.joined("o", &[(0, "c".into()), (1, "r".into())]).unwrap();
    assert_eq!(joined.rows.num_columns(), 7);
    let filter = col("o.total").lt(lit(50i64)).and(col("r.name").eq(lit("region 0")));
    let estimate = joined.passing(&filter).unwrap().true_count() as f64 * joined.scale;
    let exact = (0..ORDERS)
        .filter(|i| i % 7 != 0 && i % 11 != 0 && i % 100 < 50)
        .filter(|i| {
            let customer = (i * 31) % CUSTOMERS;
            (customer * customer) % REGIONS % 3 == 0
        })
        .count() as f64;
    assert!((estimate / exact - 1.0).abs() < 0.15, "{estimate} of {exact}");
    assert_eq!(joined.evaluate(&(col("o.total") + col("c.id"))).unwrap().len(), joined.rows.num_rows());
    assert!(joined.passing(&col("c.id")).is_err() && joined.evaluate(&col("c.nothing")).is_err());
    assert!(synopsis.joined("o", &[(7, "c".into())]).is_err());
    assert!(synopsis.joined("o", &[(0, "x".into()), (1, "x".into())]).is_err());
}

#[test]
fn keys_are_inferred_from_the_profiles() {
    let tables = shop(&small());
    let found = foreign_keys(&tables.profiles, &[]);
    assert!(found.contains(&key(1, 1, 0, 0)), "{found:?}");
    // A tenth of the referring customers are missing: that reference has to be declared.
    assert!(!found.contains(&key(2, 0, 1, 0)), "{found:?}");
    assert!(found.iter().all(|key| key.is_usable(&tables.profiles)));
}

#[test]
fn keys_far_from_zero_may_be_few() {
    let days = |from: i64| RecordBatch::try_from_iter([("id", numbers((0..20_000).map(|i| Some(from + i))))]).unwrap();
    let shifts =
        |from: i64| RecordBatch::try_from_iter([("day", numbers((0..9000).map(|i| Some(from + i % 50))))]).unwrap();
    let found = |from: i64, first: i64| {
        let tables = Tables::new(vec![days(from), shifts(first)], &small());
        foreign_keys(&tables.profiles, &[])
    };
    assert_eq!(found(90_000, 100_000), [key(1, 0, 0, 0)]);
    // Any small numbers are among those that are counted from 0; and one beyond the last is none of them.
    assert_eq!(found(0, 100), []);
    assert_eq!(found(90_000, 109_990), []);
}

#[test]
fn wrong_keys_are_harmless() {
    let tables = shop(&small());
    let wrong = [
        // To a column that repeats, to other types, to nowhere.
        key(2, 0, 1, 1),
        key(2, 0, 1, 2),
        key(2, 0, 9, 0),
        key(2, 5, 1, 0),
        ForeignKey { columns: vec![0, 1], ..key(2, 0, 1, 0) },
        ForeignKey { columns: vec![], referenced: vec![], ..key(2, 0, 1, 0) },
        key(2, 0, 2, 0),
    ];
    let usable = foreign_keys(&tables.profiles, &wrong);
    assert!(wrong.iter().all(|wrong| !usable.contains(wrong)), "{usable:?}");
    // A key between columns that have little to do with each other: the synopsis says how little.
    let strange = key(1, 0, 0, 0);
    let synopsis = tables.build(&SynopsisPlan { root: 1, rows: 2000, keys: vec![(None, strange)] }).unwrap();
    assert!(synopsis.parents()[0].partner_share() < 0.02, "nine customers have the number of a region");
    // Two columns that repeat together are found out by the look-up.
    let repeating = ForeignKey { table: 2, columns: vec![1, 1], references: 1, referenced: vec![1, 1] };
    let plan = SynopsisPlan { root: 2, rows: 2000, keys: vec![(None, repeating)] };
    assert!(tables.build(&plan).is_none());
}

#[test]
fn composite_and_circular_keys_are_followed() {
    let grid = |n: i64| (0..n).flat_map(move |x| (0..n).map(move |y| (x, y)));
    let cells = RecordBatch::try_from_iter([
        ("x", numbers(grid(60).map(|(x, _)| Some(x)))),
        ("y", numbers(grid(60).map(|(_, y)| Some(y)))),
        ("boss", numbers((0..3600).map(|i| Some(i / 2)))),
        ("id", numbers((0..3600).map(Some))),
    ]);
    let visits = RecordBatch::try_from_iter([
        ("x", numbers((0..8000).map(|i| Some(i % 60)))),
        ("y", numbers((0..8000).map(|i| (i % 5 > 0).then_some(i % 61)))),
    ]);
    let tables = Tables::new(vec![cells.unwrap(), visits.unwrap()], &small());
    let pair = ForeignKey { table: 1, columns: vec![0, 1], references: 0, referenced: vec![0, 1] };
    let declared = [pair, key(0, 2, 0, 3)];
    let plans = tables.plans(&declared, &SynopsisConfig::default());
    let visits = tables.build(plans[1].as_ref().unwrap()).unwrap();
    let cells = &visits.parents()[0];
    let (x, y) = (column(&visits.root().sample, 0), column(&visits.root().sample, 1));
    let (cell_x, cell_y) = (column(cells.rows(), 0), column(cells.rows(), 1));
    for (row, link) in cells.links().iter().enumerate() {
        match y[row].filter(|y| *y < 60) {
            None => assert_eq!(*link, NO_PARTNER),
            Some(y) => assert_eq!((x[row], Some(y)), (cell_x[*link as usize], cell_y[*link as usize])),
        }
    }
    let own = tables.build(plans[0].as_ref().unwrap()).unwrap();
    assert_eq!((own.parents().len(), own.parents()[0].partner_share()), (1, 1.0), "once, not in circles");
    let boss = column(&own.root().sample, 2);
    let ids = column(own.parents()[0].rows(), 3);
    assert!(boss.iter().zip(own.parents()[0].links()).all(|(boss, link)| ids[*link as usize] == *boss));
}

#[test]
fn a_budget_shortens_the_sample_then_the_tree() {
    let tables = shop(&small());
    let plan = |bytes| {
        let config = SynopsisConfig { bytes, share: 0.0, ..SynopsisConfig::default() };
        tables.plans(&shop_keys(), &config)[2].clone().unwrap()
    };
    let (all, fewer) = (plan(1 << 20), plan(40_000));
    assert_eq!((all.rows, all.keys.len()), (2000, 2));
    assert!(fewer.rows < 1900 && fewer.rows > 512 && fewer.keys.len() == 2, "{}", fewer.rows);
    let synopsis = tables.build(&fewer).unwrap();
    assert_eq!((synopsis.rows(), synopsis.parents().len()), (fewer.rows, 2));
    let config = SynopsisConfig { bytes: 100, share: 0.0, ..SynopsisConfig::default() };
    assert!(tables.plans(&shop_keys(), &config)[2].is_none(), "customers do not fit, nor do their regions");
    let off = SynopsisConfig { depth: 0, ..SynopsisConfig::default() };
    assert!(tables.plans(&shop_keys(), &off).iter().all(Option::is_none));
    let near = SynopsisConfig { depth: 1, ..SynopsisConfig::default() };
    assert_eq!(tables.plans(&shop_keys(), &near)[2].as_ref().unwrap().keys.len(), 1);
}

#[test]
fn survives_a_round_trip_and_nothing_else() {
    let tables = shop(&small());
    let plan = tables.plans(&shop_keys(), &SynopsisConfig::default())[2].clone().unwrap();
    let synopsis = tables.build(&plan).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("orders.synopsis");
    synopsis.save(&plan, &tables.profiles, &path).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no partial file is left");
    let load = |tables: &Tables, bytes: &[u8]| JoinSynopsis::from_bytes(&plan, &tables.profiles, bytes, Path::new("s"));
    let good = std::fs::read(&path).unwrap();
    let loaded = JoinSynopsis::load(&plan, &tables.profiles, &path).unwrap();
    assert_eq!(loaded, synopsis);
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for bad in [&good[..good.len() / 2], &flipped[..], b"", b"RELATAJ1", b"something else entirely"] {
        assert!(matches!(load(&tables, bad), Err(FeaturizeError::Stored { .. })));
    }
    // Another sample of the same data, then other data.
    assert!(load(&shop(&ProfileConfig { seed: 1, ..small() }), &good).is_err());
    let mut changed = shop(&small());
    let half = changed.batches[0].slice(0, 8);
    changed.profiles[0] =
        Arc::new(TableProfile::of_batches(half.schema(), std::slice::from_ref(&half), &small()).unwrap());
    assert!(load(&changed, &good).is_err());
}
