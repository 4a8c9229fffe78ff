//! Publishes the rollups of a session in a store.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray as _, RecordBatch, StringArray, new_null_array},
    compute::{concat_batches, sort_to_indices, take_record_batch},
    datatypes::{DataType, Int64Type},
};
use hud_common::session::{self, Manifest, SessionDir, Table, scan_verified};
use serde::Serialize;

use super::{
    files::{self, Part, write_json},
    partition::{DAY, Partition, date_of},
    store::{Selection, Store, VERSION},
};
use crate::{
    error::{Error, Result},
    replay::Replay,
    source::location::Found,
};

/// How the rows of a session are labelled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Labels {
    /// The service; `None` for the name of the binary.
    pub(crate) service: Option<String>,
    /// The service's version.
    pub(crate) version: Option<String>,
    /// Further labels: `key=value`, separated by commas.
    pub(crate) labels: String,
}

/// What was published.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published {
    pub(crate) days: usize,
    pub(crate) minutes: u64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// Days that are not written, as they are compacted already.
    pub(crate) compacted: Vec<String>,
    /// Whether the rows are those of the recorder.
    pub(crate) is_recorded: bool,
}

/// The manifest of a session's day in a store.
#[derive(Serialize)]
struct DayManifest<'a> {
    version: u32,
    session: &'a str,
    host: &'a str,
    service: &'a str,
    /// Rows, by table.
    rows: BTreeMap<&'static str, u64>,
}

/// The rows of each day, by table.
type Days = BTreeMap<i64, BTreeMap<Table, Vec<RecordBatch>>>;

/// Publishes a session: the recorder's rollups, or if it wrote none, those of its events.
pub(crate) fn publish(found: Found, store: &Store, labels: &Labels) -> Result<Published> {
    let dir = found.dir.clone();
    // Recovers a session whose recorder was killed.
    let mut replay = Replay::of(found)?;
    let manifest = replay.manifest().clone();
    let mut days = Days::new();
    recorded(&dir, &manifest, |table, rows| add(&mut days, table, &rows))?;
    let is_recorded = !days.is_empty();
    if !is_recorded {
        replay.rollups(|tables| tables.into_iter().try_for_each(|(table, rows)| add(&mut days, table, &rows)))?;
    }
    let mut done = Published { is_recorded, ..Published::default() };
    let name = manifest.exe.rsplit('/').next().unwrap_or_default();
    let service = labels.service.as_deref().filter(|name| !name.is_empty()).unwrap_or(name).to_owned();
    for (day, tables) in days {
        let of = Partition {
            date: date_of(day.saturating_mul(DAY)),
            service: service.clone(),
            host: manifest.host.clone(),
            session: manifest.id.clone(),
        };
        write_day(store, &of, &manifest, labels, tables, &mut done)?;
    }
    Ok(done)
}

/// The rollups that the recorder wrote. Logs are opened before segments are listed: a log that is sealed meanwhile is read as
/// one of both.
fn recorded(
    dir: &SessionDir,
    manifest: &Manifest,
    mut each: impl FnMut(Table, RecordBatch) -> Result<()>,
) -> Result<()> {
    for table in Table::ROLLUPS {
        let mut logs = BTreeMap::new();
        for (number, _) in if dir.is_folder() { dir.unsealed_of(table)? } else { Vec::new() } {
            match dir.open_log(table, number) {
                Ok(log) => drop(logs.insert(number, log)),
                Err(session::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        let columns: Vec<_> = table.columns().iter().map(|column| column.name).collect();
        for (number, _) in dir.sealed(table)? {
            if number < manifest.first_segment(table) {
                continue;
            }
            logs.remove(&number);
            let mut failed = Ok(());
            scan_verified(table, dir.open_sealed(table, number)?, &columns, |batch| {
                if failed.is_ok() {
                    failed = each(table, batch.clone());
                }
                Ok(())
            })?;
            failed?;
        }
        for log in logs.into_values() {
            for batch in log {
                each(table, batch?)?;
            }
        }
    }
    Ok(())
}

fn add(days: &mut Days, table: Table, rows: &RecordBatch) -> Result<()> {
    let wrong = || Error::Query(format!("{} has no column minute", table.name()));
    let minutes = rows.column_by_name("minute").and_then(|of| of.as_primitive_opt::<Int64Type>()).ok_or_else(wrong)?;
    let minutes = minutes.values();
    let mut from = 0;
    while let Some(first) = minutes.get(from) {
        let day = first.div_euclid(DAY);
        let same = minutes.iter().skip(from).take_while(|minute| minute.div_euclid(DAY) == day).count();
        days.entry(day).or_default().entry(table).or_default().push(rows.slice(from, same));
        from += same;
    }
    Ok(())
}

fn write_day(
    store: &Store,
    of: &Partition,
    manifest: &Manifest,
    labels: &Labels,
    tables: BTreeMap<Table, Vec<RecordBatch>>,
    done: &mut Published,
) -> Result<()> {
    let index = store.index(&of.date)?;
    let is_same = |(host, session): &(String, String)| *host == of.host && *session == of.session;
    if index.compacted.iter().any(|known| known.service == of.service && known.sessions.iter().any(is_same)) {
        done.compacted.push(of.date.clone());
        return Ok(());
    }
    let mut rows = BTreeMap::new();
    for (table, batches) in tables {
        let all = labelled(table, &batches, of, manifest, labels)?;
        let mut part = Part::create(table, &store.part(table, of))?;
        part.write(&all)?;
        let (count, bytes) = part.finish()?;
        rows.insert(table.name(), count);
        done.rows += count;
        done.bytes += bytes;
        if table == Table::RollupProcess {
            done.minutes += count;
        }
    }
    done.days += 1;
    let Partition { service, host, session, .. } = of;
    write_json(&store.manifest(of), &DayManifest { version: VERSION, session, host, service, rows })
}

/// The rows of a day in order of time, with the columns of labels.
fn labelled(
    table: Table,
    batches: &[RecordBatch],
    of: &Partition,
    manifest: &Manifest,
    labels: &Labels,
) -> Result<RecordBatch> {
    let all = concat_batches(
        &table.schema(),
        batches.iter().map(|batch| conformed(table, batch)).collect::<Vec<_>>().iter(),
    )?;
    let minutes =
        all.column_by_name("minute").ok_or_else(|| Error::Query(format!("{} has no minute", table.name())))?;
    let all = take_record_batch(&all, &sort_to_indices(minutes, None, None)?)?;
    let text = |value: Option<&str>| -> ArrayRef {
        match value {
            Some(value) => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, all.num_rows()))),
            None => new_null_array(&DataType::Utf8, all.num_rows()),
        }
    };
    let mut columns: Vec<ArrayRef> = [
        Some(of.host.as_str()),
        Some(of.service.as_str()),
        manifest.build_id.as_deref(),
        labels.version.as_deref(),
        Some(of.session.as_str()),
        manifest.tokio_version.as_deref(),
        Some(labels.labels.as_str()),
    ]
    .into_iter()
    .map(text)
    .collect();
    columns.extend(all.columns().iter().cloned());
    Ok(RecordBatch::try_new(files::schema(table), columns)?)
}

/// A batch with all columns of its table: an older hud may have written fewer.
fn conformed(table: Table, batch: &RecordBatch) -> RecordBatch {
    let schema = table.schema();
    let column = |field: &arrow::datatypes::FieldRef| match batch.column_by_name(field.name()) {
        Some(column) => Arc::clone(column),
        None => new_null_array(field.data_type(), batch.num_rows()),
    };
    let columns = schema.fields().iter().map(column).collect();
    RecordBatch::try_new(Arc::clone(&schema), columns).unwrap_or_else(|_| RecordBatch::new_empty(schema))
}

/// The whole of a store.
pub(crate) fn everything() -> Selection {
    Selection { from: i64::MIN, to: i64::MAX, ..Selection::default() }
}

/// Whether a path is where a store may be created: not the folder of a session.
pub(crate) fn check_place(path: &Path) -> Result<()> {
    if path.join(session::MANIFEST_FILE).exists() {
        return Err(Error::Usage {
            message: format!("{} is a session", path.display()),
            hint: "--store names another folder, in which a store is made".into(),
        });
    }
    Ok(())
}
