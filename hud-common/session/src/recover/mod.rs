//! Recovery: completes the session of a killed recorder, and records the losses in the manifest.
//!
//! First everything is read and the result is written into the manifest; then logs are sealed, ids without a row get a
//! placeholder, and the manifest is written again, with the session's end. If it is killed at any point, it starts again
//! with the same result, as the result of the first attempt is in the manifest. The session is locked throughout.
//!
//! A session that was closed on a full disk only has logs left to be sealed, and is complete then.

mod contents;
#[cfg(test)]
mod tests;

use std::path::Path;

use arrow::array::RecordBatch;
use hud_files::Folder;

use self::contents::Contents;
use crate::{
    CoverageColumns, Manifest, Recovery, SessionDir, Table, Unsealed,
    error::{Error, Result},
    fs::TMP,
    placeholder::{rows, unnamed},
    recover_coverage::not_covered,
    segment::{encode_for, seal_log},
};

/// Maximum number of files of one name that are set aside.
const MOST_ASIDE: u32 = 1000;

/// Reason for the end of a recovered session.
const KILLED: &str = "the recorder was killed";

/// Recovers a session whose recorder was killed or could not seal all of it; `None` if there is nothing to do.
/// [`Error::InUse`] if its recorder is alive, or another process recovers it.
pub fn recover(session: &SessionDir) -> Result<Option<Recovery>> {
    if !is_needed(session, &session.manifest()?)? {
        return Ok(None);
    }
    // If the folder's path is exchanged from here on, nothing is written elsewhere.
    let session = session.held()?;
    let _lock = session.lock()?;
    // Another process may have done it meanwhile.
    let manifest = session.manifest()?;
    if !is_needed(&session, &manifest)? {
        return Ok(None);
    }
    run(&session.with_id(&manifest), manifest, &mut || Ok(())).map(Some)
}

/// Whether a session was neither closed nor completely recovered. Its recorder may be alive.
fn is_needed(session: &SessionDir, manifest: &Manifest) -> Result<bool> {
    if manifest.complete {
        return Ok(false);
    }
    Ok(manifest.recovery.is_none() || manifest.end_reason.is_none() || !session.unsealed()?.is_empty())
}

/// `step` is called after each change on disk; if it fails, so does this function, as if killed there.
fn run(session: &SessionDir, mut manifest: Manifest, step: &mut dyn FnMut() -> Result<()>) -> Result<Recovery> {
    Table::ALL.iter().try_for_each(|table| session.find_table(*table).map(drop))?;
    tidy(session, &manifest, step)?;
    let found = Contents::read(session, &manifest)?;
    if is_closed(&manifest) && found.is_whole(&manifest) {
        let recovery = Recovery { lost_after: manifest.end.unwrap_or(manifest.start), ..found.recovery(&manifest) };
        seal_logs(session, step)?;
        manifest.complete = true;
        session.write_manifest(&manifest)?;
        step()?;
        return Ok(recovery);
    }
    let recovery = match manifest.recovery.clone() {
        // From the first attempt, which read everything.
        Some(recovery) if manifest.end_reason.is_none() => recovery,
        _ => {
            let mut recovery = found.recovery(&manifest);
            if is_closed(&manifest) {
                recovery.ended = manifest.end_reason.take();
            } else {
                manifest.end = Some(found.newest.unwrap_or(manifest.start));
                manifest.end_reason = None;
            }
            manifest.recovery = Some(recovery.clone());
            session.write_manifest(&manifest)?;
            step()?;
            recovery
        }
    };

    for (table, name) in &found.foreign {
        set_aside(session, *table, name, step)?;
    }
    seal_logs(session, step)?;
    for (table, ids) in &found.unnamed {
        put(session, *table, unnamed(*table, ids.iter().copied()), step)?;
    }
    if let (None, Some(end)) = (&recovery.ended, manifest.end) {
        // Damaged segments are listed in the result already.
        let missing = not_covered(session, end, KILLED, &mut |_, _, e| match e {
            Error::Damaged { .. } | Error::Foreign { .. } => Ok(()),
            other => Err(other),
        })?;
        put(session, Table::Coverage, rows::<CoverageColumns>(missing.into_iter()), step)?;
    }

    manifest.streams = found.accounts(&manifest).0;
    manifest.end_reason = Some(recovery.ended.clone().unwrap_or_else(|| KILLED.into()));
    if let (Some(range), Some(end)) = (&mut manifest.range, manifest.end) {
        range.to = end;
    }
    session.write_manifest(&manifest)?;
    step()?;
    Ok(recovery)
}

/// Adds a segment.
fn put(session: &SessionDir, table: Table, batch: RecordBatch, step: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    let number = session.next_number(table)?;
    let encoded = encode_for(session, table, number, &[batch]).map_err(Error::damaged(&session.table(table)))?;
    let Some(encoded) = encoded else { return Ok(()) };
    session.create_table(table)?;
    session.write_segment(table, number, &encoded.data)?;
    step()
}

/// Renames a file of another session, table or number, so that no reader takes it for a segment or a log.
fn set_aside(session: &SessionDir, table: Table, name: &str, step: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    let folder = session.open_table(table)?;
    let names = (1..MOST_ASIDE).map(|n| if n == 1 { format!("{name}.foreign") } else { format!("{name}.foreign.{n}") });
    let mut free = names.filter(|aside| !folder.has(aside));
    let path = session.table(table).join(name);
    let aside =
        free.next().ok_or_else(|| Error::Damaged { path: path.clone(), why: "it is not of this session".into() })?;
    folder.rename(name, &aside).map_err(Error::io("rename", &path))?;
    step()
}

/// Whether its recorder closed it, but could not seal all of it.
fn is_closed(manifest: &Manifest) -> bool {
    manifest.end.is_some() && manifest.end_reason.is_some() && manifest.recovery.is_none()
}

fn seal_logs(session: &SessionDir, step: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    for log in session.unsealed()? {
        seal_log(session, log.table, log.number, true)?;
        step()?;
    }
    Ok(())
}

/// Removes temporary files, expired segments, and logs of sealed segments.
fn tidy(session: &SessionDir, manifest: &Manifest, step: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    let mut remove_temporary = |folder: &Folder, path: &Path| -> Result<()> {
        for name in folder.names().map_err(Error::io("list", path))? {
            if name.as_encoded_bytes().ends_with(TMP.as_bytes()) {
                folder.remove(&name).map_err(Error::io("remove", &path.join(&name)))?;
                step()?;
            }
        }
        Ok(())
    };
    remove_temporary(&*session.folder().map_err(Error::io("open", session.path()))?, session.path())?;
    for &table in Table::ALL {
        if let Some(folder) = session.find_table(table)? {
            remove_temporary(&folder, &session.table(table))?;
        }
    }
    for &table in Table::ALL {
        let first = manifest.first_segment(table);
        for (number, _) in session.sealed(table)? {
            if number < first {
                session.remove_segment(table, number)?;
                step()?;
            }
        }
    }
    for Unsealed { table, number, .. } in session.unsealed()? {
        let has_expired = number < manifest.first_segment(table);
        // If the segment is damaged or foreign, it is made again from the log.
        let is_sealed = || session.open_sealed(table, number).and_then(|file| file.check_all()).is_ok();
        if has_expired || is_sealed() {
            session.remove_log(table, number)?;
            step()?;
        }
    }
    Ok(())
}
