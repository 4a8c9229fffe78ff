//! Reconstructs a lost or damaged manifest from the segments and the remains of its text.

use std::{collections::BTreeMap, io::Read as _, path::Path};

use hud_common::session::{Clock, FORMAT_VERSION, Manifest, SessionDir, Table, integers, scan_verified, verified_info};
use serde::de::DeserializeOwned;

use crate::error::Result;

/// Maximum size of a manifest.
const MAX_SIZE: u64 = 16 << 20;
/// Maximum distance of the manifest's start from that of the rows (ns).
const NEAR: u64 = 60_000_000_000;

/// A manifest for a session whose segments are repaired, as after a kill: recovery completes it. `place` is the session's path,
/// which may contain its host and id.
pub(super) fn rebuild(dir: &SessionDir, place: &Path) -> Result<Manifest> {
    let text = text(dir);
    let mut manifest: Manifest = serde_json::from_str(&text).unwrap_or_else(|_| by_line(&text));
    manifest.format_version = FORMAT_VERSION;
    // Counts are taken from the rows: a flipped bit may have changed those of the manifest.
    for account in manifest.streams.values_mut() {
        (account.produced, account.stored, account.dropped) = (0, 0, 0);
    }
    (manifest.complete, manifest.end, manifest.recovery, manifest.range) = (false, None, None, None);
    manifest.first_segment.clear();
    let mut least: Option<i64> = None;
    for &table in Table::ALL {
        if let Some((number, _)) = dir.sealed(table)?.first().filter(|(number, _)| *number > 1) {
            manifest.first_segment.insert(table.name().into(), *number);
        }
        for (number, _) in dir.sealed(table)?.into_iter().filter(|_| table.expires()) {
            let first = verified_info(table, dir.open_sealed(table, number)?)?.first_ts;
            least = Some(least.map_or(first, |least| least.min(first)));
        }
    }
    let anchor = first_anchor(dir)?;
    manifest.clock = anchor.unwrap_or(manifest.clock);
    // The anchor is recorded at the start.
    if let Some(about) = anchor.map(|clock| clock.real).or(least)
        && manifest.start.abs_diff(about) > NEAR
    {
        manifest.start = about;
    }
    let in_path = |place: Option<&Path>, key: &str| {
        place?.file_name()?.to_str()?.strip_prefix(key).filter(|s| !s.is_empty()).map(String::from)
    };
    // Segments contain the id; that of the manifest may be damaged.
    if let Some(id) = claimed_id(dir)? {
        manifest.id = id;
    }
    if manifest.id.is_empty() {
        manifest.id = in_path(Some(place), "session=").unwrap_or_else(|| format!("repaired-{}", manifest.start));
    }
    if manifest.host.is_empty() {
        manifest.host = in_path(place.parent(), "host=").unwrap_or_else(|| "unknown".into());
    }
    if manifest.hud_version.is_empty() {
        manifest.hud_version = env!("CARGO_PKG_VERSION").into();
    }
    Ok(manifest)
}

/// The session id in most of the segments.
pub(super) fn claimed_id(dir: &SessionDir) -> Result<Option<String>> {
    let mut claims: BTreeMap<String, usize> = BTreeMap::new();
    for &table in Table::ALL {
        for (number, _) in dir.sealed(table)? {
            // A damaged one has no id.
            if let Ok(file) = dir.open_sealed(table, number)
                && let Some(id) = file.session_id()
            {
                *claims.entry(id.to_owned()).or_default() += 1;
            }
        }
    }
    Ok(claims.into_iter().max_by_key(|(_, count)| *count).map(|(id, _)| id))
}

fn text(dir: &SessionDir) -> String {
    let mut text = Vec::new();
    if let Ok(file) = dir.folder().and_then(|folder| folder.file("manifest.json")) {
        // An unreadable manifest is treated as empty.
        let _ = file.take(MAX_SIZE).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Fields in lines of their own, of a text that does not parse.
fn by_line(text: &str) -> Manifest {
    fn field<T: DeserializeOwned + Default>(text: &str, name: &str) -> T {
        let start = format!("  \"{name}\": ");
        let value = text.lines().find_map(|line| line.strip_prefix(&start));
        value.and_then(|v| serde_json::from_str(v.strip_suffix(',').unwrap_or(v)).ok()).unwrap_or_default()
    }
    Manifest {
        id: field(text, "id"),
        hud_version: field(text, "hud_version"),
        host: field(text, "host"),
        kernel: field(text, "kernel"),
        cpus: field(text, "cpus"),
        pid: field(text, "pid"),
        exe: field(text, "exe"),
        build_id: field(text, "build_id"),
        tokio_version: field(text, "tokio_version"),
        executor: field(text, "executor"),
        start: field(text, "start"),
        end_reason: field(text, "end_reason"),
        previous: field(text, "previous"),
        ..Manifest::default()
    }
}

/// The clock's first row is the anchor of the session's times.
fn first_anchor(dir: &SessionDir) -> Result<Option<Clock>> {
    let mut first = None;
    if let Some((number, _)) = dir.sealed(Table::Clock)?.first() {
        scan_verified(Table::Clock, dir.open_sealed(Table::Clock, *number)?, &["mono", "real"], |batch| {
            let anchor = integers(batch, "mono").first().copied().zip(integers(batch, "real").first().copied());
            first = first.or(anchor.map(|(mono, real)| Clock { mono, real }));
            Ok(())
        })?;
    }
    Ok(first)
}
