//! Profiles and synopses in a directory: found again, rebuilt when damaged, not found when a table has changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::Int64Array;
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::prelude::ParquetReadOptions;
use relata::{CounterValues, ForeignKey};
use tempfile::{TempDir, tempdir};

use crate::{Sessions, batch, pretrained, sources};

const SQL: &str = "SELECT c.id, r.label FROM customer c JOIN town t ON c.town = t.id JOIN region r ON t.region = r.id";

struct Folders {
    data: TempDir,
    profiles: TempDir,
}

impl Folders {
    async fn new() -> Self {
        let folders = Self { data: tempdir().unwrap(), profiles: tempdir().unwrap() };
        let sessions = Sessions::new(relata::Relata::new(None));
        sources::parquet(&sessions, folders.data.path()).await;
        folders
    }

    /// The stored profiles.
    fn stored(&self) -> Vec<PathBuf> {
        self.files("profile")
    }

    fn files(&self, extension: &str) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.directory()).unwrap().map(|e| e.unwrap().path()).collect();
        assert!(
            files.iter().all(|file| file.extension().is_some_and(|e| e == "profile" || e == "synopsis")),
            "{files:?}"
        );
        files.retain(|file| file.extension().is_some_and(|e| e == extension));
        files.sort();
        files
    }

    fn directory(&self) -> PathBuf {
        self.profiles.path().join("made/on demand")
    }

    /// What a new process does: profiles the tables and runs a query; returns what it counted on top of `before`.
    async fn process(&self) -> (CounterValues, Sessions) {
        let relata = relata::Relata::new(None).with_config(crate::every_region());
        let relata = relata.with_profile_directory(self.directory()).with_foreign_keys(foreign_keys());
        let sessions = Sessions::new(relata);
        for table in ["region", "town", "customer", "item", "orders"] {
            let file = self.data.path().join(format!("{table}.parquet")).display().to_string();
            for ctx in sessions.both() {
                ctx.register_parquet(table, &file, ParquetReadOptions::default()).await.unwrap();
            }
        }
        let reports = sessions.relata.profile(&sessions.learned).await.unwrap();
        assert!(reports.iter().all(|report| report.error.is_none()), "{reports:?}");
        assert!(sessions.same(SQL).await > 0);
        sessions.assert_untroubled();
        assert_eq!(sessions.relata.counters().reordered, 1);
        (sessions.relata.counters(), sessions)
    }
}

/// Customers live in towns, towns lie in regions, and two hints that are wrong.
fn foreign_keys() -> Vec<ForeignKey> {
    let key = |table: &str, column: &str, references: &str, referenced: &str| ForeignKey {
        table: table.into(),
        columns: vec![column.to_owned()],
        references: references.into(),
        referenced: vec![referenced.to_owned()],
    };
    vec![
        key("customer", "town", "town", "id"),
        key("town", "region", "region", "id"),
        key("town", "region", "nowhere", "id"),
        key("town", "nothing", "region", "id"),
    ]
}

fn garbage(file: &Path, bytes: &[u8]) {
    fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn profiles_are_found_again() {
    let folders = Folders::new().await;
    let (first, _) = folders.process().await;
    assert_eq!((first.profiled, first.loaded, first.damaged), (5, 0, 0));
    assert_eq!(folders.stored().len(), 5);
    let (second, _) = folders.process().await;
    assert_eq!((second.profiled, second.loaded, second.damaged), (0, 5, 0));
}

#[tokio::test]
async fn damaged_profiles_are_rebuilt() {
    let folders = Folders::new().await;
    folders.process().await;
    let files = folders.stored();
    let whole = fs::read(&files[0]).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x55;
    garbage(&files[0], b"");
    garbage(&files[1], b"no profile at all");
    garbage(&files[2], &whole[..whole.len() / 2]);
    garbage(&files[3], &vec![0xff; 10_000]);
    let (counters, _) = folders.process().await;
    assert_eq!((counters.profiled, counters.loaded, counters.damaged), (4, 1, 4));
    assert_eq!(fs::read(&files[0]).unwrap(), whole);

    garbage(&files[0], &flipped);
    let (counters, _) = folders.process().await;
    assert_eq!((counters.profiled, counters.loaded, counters.damaged), (1, 4, 1), "a flipped bit");
    let (counters, _) = folders.process().await;
    assert_eq!((counters.profiled, counters.loaded, counters.damaged), (0, 5, 0));
}

#[tokio::test]
async fn a_profile_of_another_table_is_not_used() {
    let folders = Folders::new().await;
    folders.process().await;
    let files = folders.stored();
    fs::copy(&files[0], &files[1]).unwrap();
    let (counters, _) = folders.process().await;
    assert_eq!((counters.profiled, counters.loaded, counters.damaged), (1, 4, 1));
}

#[tokio::test]
async fn a_changed_table_is_profiled_anew_and_its_stale_profile_deleted() {
    let folders = Folders::new().await;
    let (_, sessions) = folders.process().await;
    let before = folders.stored();
    let town = sources::shop().into_iter().find(|(name, _)| *name == "town").unwrap().1.slice(0, 5);
    sources::write_parquet(&sessions, folders.data.path(), "town", &town).await;
    let (counters, sessions) = folders.process().await;
    assert_eq!((counters.profiled, counters.loaded, counters.damaged, counters.stale), (1, 4, 0, 1));
    let estimate = sessions.relata.estimate_sql(&sessions.learned, "SELECT * FROM town").await.unwrap();
    assert!((estimate.estimate - 5.0).abs() < 1e-6, "{estimate:?}");

    let after = folders.stored();
    let gone: Vec<&PathBuf> = before.iter().filter(|file| !after.contains(file)).collect();
    assert_eq!((after.len(), gone.len()), (5, 1), "{after:?}");
    assert!(gone[0].to_string_lossy().contains(".town-"), "{gone:?}");
    let (counters, _) = folders.process().await;
    assert_eq!((counters.profiled, counters.loaded, counters.stale), (0, 5, 0));
}

#[tokio::test]
async fn files_that_are_added_to_a_table_are_profiled_alone() {
    let folders = Folders::new().await;
    let table = folders.data.path().join("growing");
    fs::create_dir(&table).unwrap();
    let item = sources::shop().into_iter().find(|(name, _)| *name == "item").unwrap().1;
    let rows = item.num_rows() as u64;
    // The names of the files are no patterns.
    let expect = async |part: &str, expected: (u64, u64, u64), times: u64| {
        let sessions = Sessions::new(relata::Relata::new(None).with_profile_directory(folders.directory()));
        let file = sources::write_parquet(&sessions, &table, part, &item).await;
        fs::rename(&file, table.join(format!("{part}[1]*.parquet"))).unwrap();
        let directory = table.display().to_string();
        sessions.learned.register_parquet("growing", &directory, ParquetReadOptions::default()).await.unwrap();
        let reports = sessions.relata.profile(&sessions.learned).await.unwrap();
        let counters = sessions.relata.counters();
        assert_eq!((counters.profiled, counters.updated, counters.stale), expected, "{part}");
        assert!(reports.iter().all(|report| report.error.is_none() && report.rows == times * rows));
        assert_eq!(folders.stored().len(), 1);
    };
    expect("a", (1, 0, 0), 1).await;
    // As many rows as there were: half of the table is new.
    expect("b", (0, 1, 1), 2).await;
    // Two thirds of it: scanned anew, and from then on brought up to date again.
    expect("c", (1, 0, 1), 3).await;
    expect("d", (0, 1, 1), 4).await;
    // A file that changed is no file that was added.
    expect("a", (1, 0, 1), 4).await;
}

#[tokio::test]
async fn synopses_are_found_again_until_one_of_their_tables_changes() {
    let folders = Folders::new().await;
    let counted = |c: CounterValues| (c.synopses_built, c.synopses_loaded, c.synopses_damaged);
    let (first, sessions) = folders.process().await;
    assert_eq!(counted(first), (2, 0, 0));
    let again = sessions.relata.join_samples(&sessions.learned).await.unwrap();
    assert!(again.errors.is_empty() && again.scanned == 0 && again.synopses.iter().all(|s| s.loaded), "{again:?}");
    let [customers, towns] = &again.synopses[..] else { panic!("{again:?}") };
    let parents = |report: &relata::SynopsisReport| -> Vec<String> {
        report.parents.iter().map(|(name, _)| name.table().to_owned()).collect()
    };
    assert_eq!((parents(customers), parents(towns)), (vec!["town".into(), "region".into()], vec!["region".into()]));
    let files = folders.files("synopsis");
    assert_eq!((files.len(), counted(folders.process().await.0)), (2, (0, 2, 0)));

    let whole = fs::read(&files[0]).unwrap();
    garbage(&files[0], &whole[..whole.len() / 2]);
    garbage(&files[1], b"no synopsis at all");
    assert_eq!(counted(folders.process().await.0), (2, 0, 2));
    assert_eq!(fs::read(&files[0]).unwrap(), whole);

    // Both synopses hold rows of regions; the stale ones are deleted.
    let region = sources::shop().into_iter().find(|(name, _)| *name == "region").unwrap().1.slice(0, 2);
    sources::write_parquet(&sessions, folders.data.path(), "region", &region).await;
    assert_eq!(counted(folders.process().await.0), (2, 0, 0));
    let after = folders.files("synopsis");
    assert!(after.len() == 2 && after.iter().all(|file| !files.contains(file)), "{after:?}");
}

/// Gives every table the same version.
#[derive(Debug)]
struct Version(&'static str);

impl relata::DataVersions for Version {
    fn version(&self, table: &TableReference, _provider: &dyn TableProvider) -> Option<String> {
        (table.table() != "unversioned").then(|| self.0.to_owned())
    }
}

#[tokio::test]
async fn tables_without_files_are_kept_by_their_version() {
    let folders = Folders::new().await;
    let item = sources::shop().into_iter().find(|(name, _)| *name == "item").unwrap().1;
    let expect = async |version: &'static str, expected: (u64, u64, u64)| {
        let relata = relata::Relata::new(None).with_data_versions(Arc::new(Version(version)));
        let sessions = Sessions::new(relata.with_profile_directory(folders.directory()));
        sessions.learned.register_batch("item", item.clone()).unwrap();
        sessions.learned.register_batch("unversioned", item.clone()).unwrap();
        sessions.relata.profile(&sessions.learned).await.unwrap();
        let counters = sessions.relata.counters();
        assert_eq!((counters.profiled, counters.loaded, counters.stale), expected, "{version}");
        assert_eq!(folders.stored().len(), 1);
    };
    expect("first", (2, 0, 0)).await;
    expect("first", (1, 1, 0)).await;
    expect("second", (2, 0, 1)).await;
}

#[tokio::test]
async fn profiles_with_other_settings_live_side_by_side() {
    let folders = Folders::new().await;
    folders.process().await;
    let config = relata::ProfileConfig { sample_rows: 7, ..relata::ProfileConfig::default() };
    let other = relata::Relata::new(None).with_profile_directory(folders.directory()).with_profile_config(config);
    let sessions = Sessions::new(other);
    let file = folders.data.path().join("town.parquet").display().to_string();
    sessions.learned.register_parquet("town", &file, ParquetReadOptions::default()).await.unwrap();
    sessions.relata.profile(&sessions.learned).await.unwrap();
    let counters = sessions.relata.counters();
    assert_eq!((counters.profiled, counters.loaded, counters.stale), (1, 0, 0));
    assert_eq!(folders.stored().len(), 6);
}

#[tokio::test]
async fn a_profile_directory_that_cannot_be_written() {
    let folders = Folders::new().await;
    let file = folders.profiles.path().join("a file");
    garbage(&file, b"in the way");
    let sessions = Sessions::new(pretrained().with_profile_directory(file.join("below")));
    sources::parquet(&sessions, folders.data.path()).await;
    let reports = sessions.relata.profile(&sessions.learned).await.unwrap();
    let in_memory = |error: &Option<String>| error.as_deref().is_some_and(|e| e.contains("in memory only"));
    assert!(reports.iter().all(|report| report.rows > 0 && in_memory(&report.error)), "{reports:?}");
    assert!(sessions.same(SQL).await > 0);
    assert_eq!(sessions.relata.counters().reordered, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_table_of_many_files_has_one_profile() {
    let files = tempdir().unwrap();
    for file in 0..12 {
        let rows = (0..4000).map(|i| i * 12 + file);
        let rows = batch([("id", Arc::new(Int64Array::from_iter_values(rows)))]);
        sources::write_parquet(&Sessions::new(pretrained()), files.path(), &format!("part {file}"), &rows).await;
    }
    let stored = async || {
        let directory = tempdir().unwrap();
        let sessions = Sessions::new(pretrained().with_profile_directory(directory.path()));
        let path = files.path().display().to_string();
        sessions.learned.register_parquet("t", &path, ParquetReadOptions::default()).await.unwrap();
        sessions.relata.profile(&sessions.learned).await.unwrap();
        let mut contents: Vec<(String, Vec<u8>)> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.file_name().unwrap().display().to_string(), fs::read(path).unwrap()))
            .collect();
        contents.sort();
        contents
    };
    let first = stored().await;
    assert!(!first.is_empty());
    for _ in 0..8 {
        assert!(stored().await == first, "another sample of the same files");
    }
}
