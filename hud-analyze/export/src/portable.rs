//! A session in one file, `.hud.zip`: its segments and its manifest, stored unchanged.
//!
//! Entries are not compressed again, so that a reader can read any part of a segment in place. Unpacked into a folder
//! they are the session. In-flight logs are included as the segments that sealing would have made of them. The same
//! session gives the same bytes: entries are in the order of tables and numbers, and have no time.

use std::io::{self, Write};

use zip::{CompressionMethod, DateTime, ZipWriter, result::ZipError, write::SimpleFileOptions};

use crate::{Error, Format, Options, Result, Rows, Summary, out::Out};

/// Entries from this size on have sizes of 64 bits.
const LARGE: u64 = u32::MAX as u64;

fn failed(error: ZipError) -> Error {
    match error {
        ZipError::Io(error) => Error::Write(error),
        other => Error::Write(io::Error::other(other)),
    }
}

fn entry(size: u64) -> SimpleFileOptions {
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::DEFAULT)
        // As in a session's folder: for its owner only.
        .unix_permissions(0o600)
        .large_file(size >= LARGE)
}

pub(crate) fn write(
    rows: &dyn Rows,
    options: &Options,
    out: &mut dyn Write,
    progress: &dyn Fn(u64, u64),
) -> Result<Summary> {
    let asked =
        [("window", options.window.is_some()), ("task", options.task.is_some()), ("thread", options.thread.is_some())];
    if let Some((option, _)) = asked.into_iter().find(|(_, is_asked)| *is_asked) {
        return Err(Error::Option { format: Format::Zip, option, why: "it is the whole session, as it lies on disk" });
    }
    let mut total = 0;
    for table in hud_common::session::Table::ALL {
        total += rows.count(*table)?;
    }
    progress(0, total);

    let manifest = rows.manifest_json()?;
    let mut out = Out::new(out);
    let mut zip = ZipWriter::new_stream(&mut out);
    let mut summary = Summary { entries: 1, ..Summary::default() };
    zip.start_file("manifest.json", entry(manifest.len() as u64)).map_err(failed)?;
    zip.write_all(&manifest)?;
    let (mut done, mut before) = (0, None);
    rows.segments(&mut |table, number, size, data| {
        zip.start_file(format!("{}/{number:06}.parquet", table.name()), entry(size)).map_err(failed)?;
        let copied = io::copy(data, &mut zip)?;
        if copied != size {
            let why = format!("segment {number} of {} has {copied} bytes, not {size}", table.name());
            return Err(Error::rows(why));
        }
        summary.entries += 1;
        // Bytes of the tables before this one.
        if before != Some(table) {
            done += before.map_or(Ok(0), |before| rows.count(before))?;
            before = Some(table);
        }
        progress(done.min(total), total);
        Ok(())
    })?;
    zip.finish().map_err(failed)?;
    progress(total, total);
    summary.bytes = out.finish()?;
    if !rows.manifest().complete {
        summary.notes.push("the session was still being recorded: later events are not in the file".into());
    }
    Ok(summary)
}
