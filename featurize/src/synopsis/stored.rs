//! A synopsis as a file: a checksum, the links as postcard and the parents' rows as Arrow IPC streams. A damaged file is reported
//! and never trusted.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::error::DataFusionError;
use serde::{Deserialize, Serialize};

use super::plan::SynopsisPlan;
use super::{JoinSynopsis, NO_PARTNER, SynopsisParent};
use crate::profile::TableProfile;
use crate::{FeaturizeError, Result};

const MAGIC: &[u8; 8] = b"RELATAJ1";

/// What precedes the parents' rows.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    /// Hash of the plan and of the profiles it was built over.
    signature: u64,
    rows: u64,
    parents: Vec<StoredParent>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredParent {
    from: Option<usize>,
    columns: Vec<usize>,
    referenced: Vec<usize>,
    /// Which of the plan's tables it is.
    table: usize,
    links: Vec<u32>,
    /// Bytes of the stream of its rows; 0 where they are its table's sample.
    bytes: u64,
}

impl JoinSynopsis {
    /// Writes the synopsis that was built by `plan` over `tables` to `path`, atomically.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, plan: &SynopsisPlan, tables: &[Arc<TableProfile>], path: &Path) -> Result<()> {
        let members = plan.tables();
        let mut streams: Vec<u8> = vec![];
        let mut parents = Vec::with_capacity(self.parents.len());
        for parent in &self.parents {
            let start = streams.len();
            if let Some(own) = &parent.own {
                let mut writer = StreamWriter::try_new(&mut streams, &own.schema()).map_err(DataFusionError::from)?;
                writer.write(own).map_err(DataFusionError::from)?;
                writer.finish().map_err(DataFusionError::from)?;
            }
            let table = members.iter().position(|member| Arc::ptr_eq(&tables[*member], &parent.table));
            parents.push(StoredParent {
                from: parent.from,
                columns: parent.columns.clone(),
                referenced: parent.referenced.clone(),
                table: table.ok_or_else(|| damaged(path, "a parent is of another database"))?,
                links: parent.links.clone(),
                bytes: (streams.len() - start) as u64,
            });
        }
        let header = Header { signature: plan.signature(tables), rows: self.rows as u64, parents };
        let mut links = postcard::to_stdvec(&header).map_err(|e| damaged(path, e))?;
        let mut body = (links.len() as u64).to_le_bytes().to_vec();
        body.append(&mut links);
        body.append(&mut streams);

        let io = |source| FeaturizeError::Io { path: path.display().to_string(), source };
        let partial = path.with_extension(format!("partial-{}", std::process::id()));
        let mut file = BufWriter::new(File::create(&partial).map_err(io)?);
        file.write_all(MAGIC).map_err(io)?;
        file.write_all(&xxhash_rust::xxh3::xxh3_64(&body).to_le_bytes()).map_err(io)?;
        file.write_all(&body).map_err(io)?;
        file.into_inner().map_err(|e| io(e.into_error()))?.sync_all().map_err(io)?;
        std::fs::rename(&partial, path).map_err(io)
    }

    /// Reads a synopsis that [`Self::save`] wrote for the same plan over the same profiles.
    ///
    /// # Errors
    /// When the file is missing, damaged, of another version, or made from other plans or profiles.
    pub fn load(plan: &SynopsisPlan, tables: &[Arc<TableProfile>], path: &Path) -> Result<Self> {
        let io = |source| FeaturizeError::Io { path: path.display().to_string(), source };
        Self::from_bytes(plan, tables, &std::fs::read(path).map_err(io)?, path)
    }

    /// Reads the bytes of a stored synopsis; `path` names them in errors.
    ///
    /// # Errors
    /// When they are damaged, of another version, or made from other plans or profiles.
    pub fn from_bytes(plan: &SynopsisPlan, tables: &[Arc<TableProfile>], bytes: &[u8], path: &Path) -> Result<Self> {
        let truncated = || damaged(path, "truncated");
        let body = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged(path, "not a synopsis, or of another version"))?;
        let (sum, body) = body.split_first_chunk::<8>().ok_or_else(truncated)?;
        if xxhash_rust::xxh3::xxh3_64(body) != u64::from_le_bytes(*sum) {
            return Err(damaged(path, "checksum differs"));
        }
        let (length, body) = body.split_first_chunk::<8>().ok_or_else(truncated)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|e| damaged(path, e))?;
        let (links, mut streams) = body.split_at_checked(length).ok_or_else(truncated)?;
        let header: Header = postcard::from_bytes(links).map_err(|e| damaged(path, e))?;
        if header.signature != plan.signature(tables) || header.rows != plan.rows as u64 {
            return Err(damaged(path, "made from other plans or profiles"));
        }
        let members = plan.tables();
        let mut parents: Vec<SynopsisParent> = Vec::with_capacity(header.parents.len());
        for stored in header.parents {
            let length = usize::try_from(stored.bytes).map_err(|e| damaged(path, e))?;
            let (stream, rest) = streams.split_at_checked(length).ok_or_else(truncated)?;
            streams = rest;
            let own = if stream.is_empty() { None } else { Some(read(stream, path)?) };
            let table = members.get(stored.table).map(|member| Arc::clone(&tables[*member])).ok_or_else(truncated)?;
            let StoredParent { from, columns, referenced, links, .. } = stored;
            let parent = SynopsisParent { table, from, columns, referenced, own, links };
            let known = |links: &[u32]| {
                let rows = parent.rows().num_rows();
                links.iter().all(|link| *link == NO_PARTNER || (*link as usize) < rows)
            };
            let columns = parent.table.columns.len();
            let fits = parent.links.len() == plan.rows
                && known(&parent.links)
                && parent.from.is_none_or(|from| from < parents.len())
                && parent.columns.len() == parent.referenced.len()
                && parent.referenced.iter().all(|column| *column < columns)
                && parent.rows().schema().fields() == parent.table.schema().fields();
            if !fits {
                return Err(damaged(path, "a parent does not fit its links"));
            }
            parents.push(parent);
        }
        Ok(Self { root: Arc::clone(&tables[plan.root]), rows: plan.rows, parents })
    }
}

fn read(stream: &[u8], path: &Path) -> Result<RecordBatch> {
    let mut batches = StreamReader::try_new(stream, None).map_err(|e| damaged(path, e))?;
    let first = batches.next().ok_or_else(|| damaged(path, "truncated"))?;
    first.map_err(|e| damaged(path, e))
}

fn damaged(path: &Path, reason: impl std::fmt::Display) -> FeaturizeError {
    FeaturizeError::Stored { path: path.display().to_string(), reason: reason.to_string() }
}
