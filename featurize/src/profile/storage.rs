//! Profiles on disk: one file each, a checksum and, compressed, the sketches in the format of postcard and the samples as an
//! Arrow IPC stream. It is written aside and renamed; a damaged file is reported and never trusted.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::OnceLock;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::Schema;
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::error::DataFusionError;

use super::TableProfile;
use crate::key_sample::KeySample;
use crate::row_groups::RowGroups;
use crate::sketch::ColumnSketch;
use crate::{FeaturizeError, Result};

/// Version of the stored form.
const STORED_VERSION: u32 = 3;
const MAGIC: &[u8; 8] = b"RELATAP1";

/// Compression of what is stored, zstd's own default.
const COMPRESSION: i32 = 3;

/// Largest profile that is read, in bytes before compression.
const LARGEST: u64 = 1 << 30;

impl TableProfile {
    /// Writes the profile to `path`, atomically.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let bytes = self.to_bytes().map_err(|error| damaged(path, error))?;
        let io = |source| FeaturizeError::Io { path: path.display().to_string(), source };
        let partial = path.with_extension(format!("partial-{}", std::process::id()));
        let mut file = BufWriter::new(File::create(&partial).map_err(io)?);
        file.write_all(&bytes).map_err(io)?;
        file.into_inner().map_err(|e| io(e.into_error()))?.sync_all().map_err(io)?;
        std::fs::rename(&partial, path).map_err(io)
    }

    /// What [`Self::save`] writes.
    ///
    /// # Errors
    /// When Arrow cannot write the samples.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let merged = (self.appended, &self.files);
        let stored =
            (STORED_VERSION, self.rows, self.row_bytes, merged, &self.columns, &self.key_samples, &self.groups);
        let mut sketches = postcard::to_stdvec(&stored).map_err(unstored)?;
        let mut body = (sketches.len() as u64).to_le_bytes().to_vec();
        body.append(&mut sketches);
        let own = self.key_samples.iter().filter_map(|(_, sample)| sample.own.as_ref());
        write_rows(std::iter::once(&self.sample).chain(own), &self.schema(), &mut body)?;
        let compressed = zstd::bulk::compress(&body, COMPRESSION).map_err(unstored)?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend(xxhash_rust::xxh3::xxh3_64(&compressed).to_le_bytes());
        bytes.extend((body.len() as u64).to_le_bytes());
        bytes.extend(compressed);
        Ok(bytes)
    }

    /// Bytes that the sketches and the groups of rows take when they are stored.
    pub(super) fn sketch_bytes(&self) -> Result<usize> {
        let sketches = postcard::to_stdvec(&(&self.columns, &self.groups)).map_err(unstored)?;
        zstd::bulk::compress(&sketches, COMPRESSION).map(|bytes| bytes.len()).map_err(unstored)
    }

    /// Reads a profile that [`Self::save`] wrote.
    ///
    /// # Errors
    /// When the file is missing, damaged or of another version.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes =
            std::fs::read(path).map_err(|source| FeaturizeError::Io { path: path.display().to_string(), source })?;
        Self::from_bytes(&bytes, path)
    }

    /// Reads the bytes of a stored profile; `path` names them in errors.
    ///
    /// # Errors
    /// When they are damaged or of another version.
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self> {
        let body = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged(path, "not a profile, or of another version"))?;
        let truncated = || damaged(path, "truncated");
        let (sum, body) = body.split_first_chunk::<8>().ok_or_else(truncated)?;
        let (length, body) = body.split_first_chunk::<8>().ok_or_else(truncated)?;
        let length = u64::from_le_bytes(*length);
        if xxhash_rust::xxh3::xxh3_64(body) != u64::from_le_bytes(*sum) || length > LARGEST {
            return Err(damaged(path, "checksum differs"));
        }
        let body = zstd::bulk::decompress(body, length as usize).map_err(|error| damaged(path, error))?;
        Self::from_body(&body, path)
    }

    fn from_body(body: &[u8], path: &Path) -> Result<Self> {
        let truncated = || damaged(path, "truncated");
        let (length, body) = body.split_first_chunk::<8>().ok_or_else(truncated)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|e| damaged(path, e))?;
        let (sketches, sample) = body.split_at_checked(length).ok_or_else(truncated)?;
        let stored: Stored = postcard::from_bytes(sketches).map_err(|e| damaged(path, e))?;
        let (version, rows, row_bytes, (appended, files), columns, mut key_samples, groups) = stored;
        let reader = StreamReader::try_new(sample, None).map_err(|e| damaged(path, e))?;
        let schema = reader.schema();
        if version != STORED_VERSION || columns.len() != schema.fields().len() || !groups.is_valid(columns.len()) {
            return Err(damaged(path, "of another version"));
        }
        if !columns.iter().all(|column| column.degrees.sequence.is_valid()) {
            return Err(damaged(path, "a degree sequence does not fall"));
        }
        let mut batches = reader.collect::<Result<Vec<_>, _>>().map_err(|e| damaged(path, e))?.into_iter();
        let sample = batches.next().ok_or_else(truncated)?;
        for (column, sample) in &mut key_samples {
            let own = batches.next().ok_or_else(truncated)?;
            if *column >= columns.len() || !sample.is_valid(own.num_rows()) {
                return Err(damaged(path, "a sample by key does not fit its rows"));
            }
            sample.own = Some(own);
        }
        let derived = columns.iter().map(|_| OnceLock::new()).collect();
        Ok(Self { rows, sample, columns, row_bytes, appended, files, groups, key_samples, derived })
    }
}

/// What precedes the samples in a stored profile: version, rows, bytes of a row, rows appended and files, sketches, samples
/// by key, groups of rows.
type Stored = (u32, f64, f64, (f64, Vec<u64>), Vec<ColumnSketch>, Vec<(usize, KeySample)>, RowGroups);

fn damaged(path: &Path, reason: impl std::fmt::Display) -> FeaturizeError {
    FeaturizeError::Stored { path: path.display().to_string(), reason: reason.to_string() }
}

fn unstored(error: impl std::fmt::Display) -> FeaturizeError {
    FeaturizeError::Unsupported(format!("storing a profile: {error}"))
}

/// Bytes that some sampled rows take when they are stored.
pub(super) fn stored_bytes(rows: &RecordBatch) -> Result<usize> {
    let mut body = vec![];
    write_rows(std::iter::once(rows), &rows.schema(), &mut body)?;
    zstd::bulk::compress(&body, COMPRESSION).map(|bytes| bytes.len()).map_err(unstored)
}

/// Appends rows to `body` as an Arrow IPC stream.
fn write_rows<'a>(
    batches: impl Iterator<Item = &'a RecordBatch>,
    schema: &Schema,
    body: &mut Vec<u8>,
) -> Result<(), DataFusionError> {
    let mut writer = StreamWriter::try_new(body, schema)?;
    for batch in batches {
        writer.write(batch)?;
    }
    Ok(writer.finish()?)
}
