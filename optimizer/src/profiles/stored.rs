//! Profiles in the profile directory.
//!
//! The file of a profile is named after the table, its paths with the profile's settings, and the names, sizes and times of
//! its files or the version that the caller gives its data, so that a stale profile is not found; once the new one is saved the
//! stale one is deleted. A stale profile whose files are all there still is brought up to date by profiling the files that
//! were added.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use datafusion::catalog::{Session, TableProvider};
use datafusion::common::TableReference;
use datafusion::datasource::listing::{ListingTable, ListingTableConfig, ListingTableUrl};
use relata_featurize::profile::{ProfileConfig, TableProfile};
use xxhash_rust::xxh3::xxh3_64;

/// Extension of the files of profiles.
const EXTENSION: &str = "profile";

/// The place of one table's profile on disk.
#[derive(Debug)]
pub(crate) struct StoredProfile {
    pub(crate) file: PathBuf,
    /// What the names of all profiles of this table begin with.
    pub(crate) prefix: String,
    /// The table's files.
    paths: Vec<PathBuf>,
    /// A hash of the name, size and time of each, or of the version of the data.
    pub(super) files: Vec<u64>,
}

impl StoredProfile {
    /// Where the profile of a table is kept in `directory`; `None` for data that has no local files.
    pub(super) fn of(
        directory: &Path,
        name: &TableReference,
        provider: &Arc<dyn TableProvider>,
        config: &ProfileConfig,
    ) -> Option<Self> {
        let mut identity = format!("{config:?}");
        let mut paths = vec![];
        for url in provider.downcast_ref::<ListingTable>()?.table_paths() {
            if url.scheme() != "file" {
                return None;
            }
            let path = url.get_url().to_file_path().ok()?;
            identity.push_str(&format!("|{}", path.display()));
            collect(&path, &mut paths)?;
        }
        let files = paths.iter().map(|path| fingerprint(path)).collect::<Option<_>>()?;
        Some(Self::new(directory, name, &identity, paths, files))
    }

    /// Where the profile of a table is kept in `directory` whose data has this version.
    pub(super) fn of_version(directory: &Path, name: &TableReference, version: &str, config: &ProfileConfig) -> Self {
        Self::new(directory, name, &format!("{config:?}"), vec![], vec![xxh3_64(version.as_bytes())])
    }

    fn new(directory: &Path, name: &TableReference, identity: &str, paths: Vec<PathBuf>, files: Vec<u64>) -> Self {
        let mut prefix = String::new();
        for character in name.to_string().chars() {
            match character {
                '_' | '.' => prefix.push(character),
                _ if character.is_ascii_alphanumeric() => prefix.push(character),
                _ => prefix.push_str(&format!("%{:x}", u32::from(character))),
            }
        }
        prefix.push_str(&format!("-{:016x}-", xxh3_64(identity.as_bytes())));
        let all: Vec<u8> = files.iter().flat_map(|file| file.to_le_bytes()).collect();
        let file = directory.join(format!("{prefix}{:016x}.{EXTENSION}", xxh3_64(&all)));
        Self { file, prefix, paths, files }
    }

    /// Every file that is kept of this table.
    pub(crate) fn all(&self) -> Vec<PathBuf> {
        files(self.file.parent(), &self.prefix).collect()
    }

    /// When the file was written.
    pub(crate) fn made(&self) -> Option<SystemTime> {
        self.file.metadata().and_then(|metadata| metadata.modified()).ok()
    }

    /// The profiles of this table as it was before its files changed.
    pub(super) fn stale(&self) -> Vec<PathBuf> {
        others(&self.file, &self.prefix)
    }

    /// A stale profile of files that are all there still, with the files that were added since; `None` where there is none, or
    /// where so much was added since the last full scan that another one is due.
    pub(super) async fn with_appended(
        &self,
        session: &dyn Session,
        provider: &Arc<dyn TableProvider>,
        config: &ProfileConfig,
    ) -> Option<TableProfile> {
        let table = provider.downcast_ref::<ListingTable>()?;
        // Columns made of paths are not in the files.
        if !table.options().table_partition_cols.is_empty() {
            return None;
        }
        let is_part = |profile: &TableProfile| {
            !profile.files.is_empty() && profile.files.iter().all(|file| self.files.contains(file))
        };
        let profiles = self.stale().into_iter().filter_map(|file| TableProfile::load(&file).ok());
        let old = profiles.filter(is_part).max_by(|a, b| a.rows.total_cmp(&b.rows))?;
        let extension = table.options().file_extension.as_str();
        let added = self.paths.iter().zip(&self.files).filter(|(_, file)| !old.files.contains(file));
        let added = added.filter(|(path, _)| path.to_str().is_some_and(|path| path.ends_with(extension)));
        let urls = added.map(|(path, _)| file_url(path)).collect::<Option<Vec<_>>>()?;
        let schema = provider.schema();
        if urls.is_empty() || *old.schema().fields() != *schema.fields() {
            return None;
        }
        let listing = ListingTableConfig::new_with_multi_paths(urls)
            .with_listing_options(table.options().clone())
            .with_schema(schema);
        let new = TableProfile::build(session, &ListingTable::try_new(listing).ok()?, config).await.ok()?;
        let merged = old.merge(&new, config).ok()?;
        (merged.appended <= 0.5 * merged.rows).then_some(merged)
    }

    /// Writes the profile of the table.
    pub(super) fn save(&self, profile: &TableProfile) -> Result<(), String> {
        if let Some(directory) = self.file.parent() {
            std::fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        }
        profile.save(&self.file).map_err(|error| error.to_string())
    }
}

/// The other files beside `file` with its extension whose names begin with `prefix`.
pub(crate) fn others(file: &Path, prefix: &str) -> Vec<PathBuf> {
    files(file.parent(), prefix).filter(|other| *other != file && other.extension() == file.extension()).collect()
}

fn files(directory: Option<&Path>, prefix: &str) -> impl Iterator<Item = PathBuf> {
    let entries = directory.and_then(|directory| directory.read_dir().ok());
    let files = entries.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    files.filter(move |file| {
        file.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
    })
}

/// The files in `path`, itself one or a directory, in a fixed order.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Option<()> {
    if !path.metadata().ok()?.is_dir() {
        files.push(path.to_owned());
        return Some(());
    }
    let mut inside: Vec<PathBuf> = path.read_dir().ok()?.map(|e| Some(e.ok()?.path())).collect::<Option<_>>()?;
    inside.sort();
    inside.iter().try_for_each(|path| collect(path, files))
}

/// The file as a URL; `None` where its path is not valid Unicode. Paths given to DataFusion as text would have `*`, `?` and `[`
/// taken for patterns.
pub(crate) fn file_url(path: &Path) -> Option<ListingTableUrl> {
    let path = std::path::absolute(path).ok()?;
    let text = path.to_str()?;
    let mut url = String::from(if text.starts_with('/') { "file://" } else { "file:///" });
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' | b':' => url.push(byte.into()),
            b'\\' if cfg!(windows) => url.push('/'),
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
    ListingTableUrl::parse(url).ok()
}

/// A hash of the name, size and time of a file.
fn fingerprint(path: &Path) -> Option<u64> {
    let metadata = path.metadata().ok()?;
    let text = format!("{} {} {:?}", path.display(), metadata.len(), metadata.modified().ok()?);
    Some(xxh3_64(text.as_bytes()))
}
