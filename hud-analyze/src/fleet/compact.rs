//! Merges the files of a store's sessions into one per table, day and service.
//!
//! Compact files are written first, then the index that names them and their sessions, in one step; then the sessions' own
//! files are removed. A reader takes rows from one of both, whichever it finds (see the module above). A file that an
//! interrupted run left behind has no entry in the index: it is never read, and the next run writes over it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use arrow::array::RecordBatch;
use datafusion::prelude::{ParquetReadOptions, SessionContext, col};
use futures::TryStreamExt as _;
use hud_common::session::Table;

use super::{
    files::{Part, schema, write_json},
    partition::Partition,
    publish::everything,
    store::{Compacted, Store, VERSION},
};
use crate::error::{Error, Result};

/// What was compacted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) sessions: u64,
    pub(crate) files: u64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// Compacts the days before `today` (as `2026-01-31`).
pub(crate) async fn compact(context: &SessionContext, store: &Store, today: &str) -> Result<Done> {
    let mut done = Done::default();
    let mut groups: BTreeMap<(String, String), Vec<Partition>> = BTreeMap::new();
    for of in store.content(&everything())?.sessions {
        if of.date.as_str() < today {
            groups.entry((of.date.clone(), of.service.clone())).or_default().push(of);
        }
    }
    for ((date, service), sessions) in groups {
        merge(context, store, &date, &service, &sessions, &mut done).await?;
    }
    Ok(done)
}

async fn merge(
    context: &SessionContext,
    store: &Store,
    date: &str,
    service: &str,
    sessions: &[Partition],
    done: &mut Done,
) -> Result<()> {
    let mut index = store.index(date)?;
    let of_service = index.compacted.iter().filter(|of| of.service == service);
    let number = of_service.map(|of| of.number).max().unwrap_or(0).saturating_add(1);
    let mut tables = Vec::new();
    let mut merged: Vec<PathBuf> = Vec::new();
    for table in Table::ROLLUPS {
        let paths: Vec<PathBuf> =
            sessions.iter().map(|of| store.part(table, of)).filter(|path| path.exists()).collect();
        if paths.is_empty() {
            continue;
        }
        let path = store.compact_file(table.name(), date, service, number);
        let (rows, bytes) = write(context, table, &paths, &path).await?;
        done.files += paths.len() as u64;
        done.rows += rows;
        done.bytes += bytes;
        merged.extend(paths);
        tables.push(table.name().to_owned());
    }
    let ids: BTreeSet<_> = sessions.iter().map(|of| (of.host.clone(), of.session.clone())).collect();
    done.sessions += ids.len() as u64;
    let sessions_of = ids.into_iter().collect();
    index.version = VERSION;
    index.compacted.push(Compacted { service: service.to_owned(), number, tables, sessions: sessions_of });
    write_json(&store.index_path(date), &index)?;
    let manifests = sessions.iter().map(|of| store.manifest(of));
    manifests.chain(merged).try_for_each(|path| remove(&path))
}

/// Writes the rows of these files in order of time. DataFusion sorts them, on disk if memory does not suffice.
async fn write(context: &SessionContext, table: Table, paths: &[PathBuf], to: &Path) -> Result<(u64, u64)> {
    let schema = schema(table);
    let paths: Vec<String> = paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let frame = context.read_parquet(paths, ParquetReadOptions::default().schema(&schema)).await?;
    let frame = frame.sort(vec![col("minute").sort(true, false), col("host").sort(true, false)])?;
    let mut rows = frame.execute_stream().await?;
    let mut part = Part::create(table, to)?;
    while let Some(batch) = rows.try_next().await? {
        part.write(&RecordBatch::try_new(schema.clone(), batch.columns().to_vec())?)?;
    }
    part.finish()
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::Io { action: format!("remove {}", path.display()), source: error });
        }
        _ => {}
    }
    // Its folders, as far as they are empty.
    for folder in path.ancestors().skip(1).take(3) {
        if fs::remove_dir(folder).is_err() {
            break;
        }
    }
    Ok(())
}
