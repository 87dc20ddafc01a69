//! Labelled features on disk: one file for the tasks of a database, in the format of postcard, compressed.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{FeatureTable, FeatureValues};
use crate::{FeaturizeError, Result};

/// Features of rows with their labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelledTable {
    /// Names the task in its database.
    pub name: String,
    /// The features.
    pub features: FeatureTable,
    /// The label of each row; a number that is NaN or a category that is `None` is missing. `[R]`
    pub label: FeatureValues,
}

/// Compression of what is stored, zstd's own default.
const COMPRESSION: i32 = 3;

/// Bytes of a file at most, before compression.
const MOST_BYTES: usize = 1 << 30;

impl LabelledTable {
    /// Writes tasks to a file; a crash while writing leaves none.
    ///
    /// # Errors
    /// [`FeaturizeError::Io`] or [`FeaturizeError::Stored`].
    pub fn write_all(tables: &[Self], path: &Path) -> Result<()> {
        let stored = |reason: String| FeaturizeError::Stored { path: path.display().to_string(), reason };
        let bytes = postcard::to_stdvec(tables).map_err(|error| stored(error.to_string()))?;
        let bytes = zstd::bulk::compress(&bytes, COMPRESSION).map_err(|error| stored(error.to_string()))?;
        let io = |source| FeaturizeError::Io { path: path.display().to_string(), source };
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, bytes).map_err(io)?;
        std::fs::rename(&temporary, path).map_err(io)
    }

    /// Reads the tasks of a file.
    ///
    /// # Errors
    /// [`FeaturizeError::Io`], or [`FeaturizeError::Stored`] for a damaged file.
    pub fn read_all(path: &Path) -> Result<Vec<Self>> {
        let stored = |reason: String| FeaturizeError::Stored { path: path.display().to_string(), reason };
        let bytes =
            std::fs::read(path).map_err(|source| FeaturizeError::Io { path: path.display().to_string(), source })?;
        let bytes = zstd::bulk::decompress(&bytes, MOST_BYTES).map_err(|error| stored(error.to_string()))?;
        let tables: Vec<Self> = postcard::from_bytes(&bytes).map_err(|error| stored(error.to_string()))?;
        match tables.iter().all(Self::is_whole) {
            true => Ok(tables),
            false => Err(stored("columns differ in length".to_owned())),
        }
    }

    fn is_whole(&self) -> bool {
        let rows = self.features.rows.len();
        let values = self.features.columns.iter().map(|column| &column.values).chain([&self.label]);
        values.into_iter().all(|values| values.len() == rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthesis::FeatureColumn;

    #[test]
    fn tasks_survive_the_disk_and_damage_is_told() {
        let column = |values| FeatureColumn { name: "a.b".to_owned(), values };
        let codes = FeatureValues::Category { codes: vec![Some(1), None], levels: vec!["x".into(), "y".into()] };
        let features = FeatureTable {
            rows: vec![3, 5],
            columns: vec![column(FeatureValues::Number(vec![1.0, 2.5])), column(codes.clone())],
        };
        let table = LabelledTable { name: "t".to_owned(), features, label: codes };
        let file = tempfile::NamedTempFile::new().unwrap();
        LabelledTable::write_all(std::slice::from_ref(&table), file.path()).unwrap();
        assert_eq!(LabelledTable::read_all(file.path()).unwrap(), std::slice::from_ref(&table));
        let broken = LabelledTable { label: FeatureValues::Number(vec![0.0]), ..table };
        LabelledTable::write_all(std::slice::from_ref(&broken), file.path()).unwrap();
        assert!(LabelledTable::read_all(file.path()).unwrap_err().to_string().contains("differ in length"));
        std::fs::write(file.path(), b"nonsense").unwrap();
        assert!(matches!(LabelledTable::read_all(file.path()), Err(FeaturizeError::Stored { .. })));
    }
}
