//! The store: sessions of several hosts in one place, `ROOT/host=<host>/session=<id>/`.
//!
//! A recorder maintains its own host's sessions only: it recovers those whose recorder was killed, and removes whole
//! ones, oldest first, to keep the store within bounds. A session that another process records, recovers or reads under
//! its lock is left alone.

use std::{
    collections::HashMap,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hud_common::session::{self, Manifest, SessionDir};

use crate::{
    error::Result,
    privilege::{Owner, create_as, is_controlled_by_root},
};

/// Interval of measuring the store: several recorders share its bound, and each may write some seconds' worth before
/// the others notice.
const MEASURE_EVERY: Duration = Duration::from_secs(5);
/// Prefix of a session that is being removed, so that no reader opens a part of one.
const REMOVED: &str = ".removed-";

/// A store.
#[derive(Clone, Debug)]
pub struct Store {
    host: PathBuf,
    owner: Option<Owner>,
}

impl Store {
    /// Opens the part of the store at `root` for this host, and creates it if needed. It belongs to `owner`, or to root
    /// if only root may write there.
    pub fn open(root: &Path, owner: Option<Owner>) -> Result<Self> {
        // Absolute, as its users may change their working directory.
        let root = std::path::absolute(root).map_err(session::Error::io("find", root))?;
        let host = root.join(format!("host={}", path_part(&host_name())));
        let create = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&host)?;
            // It may have existed before; a link is followed only with the rights of the user that it could harm.
            fs::metadata(&host)
        };
        let is_denied = |e: &io::Error| e.kind() == io::ErrorKind::PermissionDenied;
        let (metadata, owner) =
            create_as(owner, &host, is_denied, create).map_err(session::Error::io("create", &host))?;
        // A folder that root created earlier stays root's.
        let owner = owner.filter(|_| metadata.uid() != 0 || !is_controlled_by_root(&host));
        Ok(Store { host, owner })
    }

    /// The actual owner of its files.
    pub fn owner(&self) -> Option<Owner> {
        self.owner
    }

    /// The folder of this host's sessions.
    pub fn path(&self) -> &Path {
        &self.host
    }

    /// The folder of a new session.
    pub fn session(&self, id: &str) -> PathBuf {
        self.host.join(format!("session={id}"))
    }

    /// Recovers every session whose recorder was killed, and completes interrupted removals.
    pub fn recover(&self) {
        Owner::act(self.owner, || self.recover_all());
    }

    fn recover_all(&self) {
        for path in self.entries(REMOVED) {
            remove_logged(&path);
        }
        for path in self.entries("session=") {
            let Ok((dir, manifest)) = SessionDir::open(&path) else {
                // Not a session, or one whose recorder was killed at once: nothing to recover.
                continue;
            };
            if manifest.complete || dir.is_locked().unwrap_or(true) {
                continue;
            }
            match session::recover(&dir) {
                Ok(Some(r)) => tracing::info!(
                    session = %path.display(),
                    "recovered: {} rows salvaged, {} bytes truncated, {} unnamed stacks",
                    r.rows_salvaged,
                    r.bytes_cut,
                    r.unnamed_stacks
                ),
                Ok(None) => {}
                Err(session::Error::InUse(_)) => {}
                Err(e) => tracing::warn!("cannot recover {}: {e}", path.display()),
            }
        }
    }

    fn entries(&self, prefix: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.host) else { return Vec::new() };
        let is_ours = |e: &fs::DirEntry| {
            e.file_name().to_str().is_some_and(|n| n.starts_with(prefix)) && e.file_type().is_ok_and(|t| t.is_dir())
        };
        entries.flatten().filter(is_ours).map(|e| e.path()).collect()
    }
}

/// This host's name.
pub(super) fn host_name() -> String {
    crate::inspect::clean(&rustix::system::uname().nodename().to_string_lossy())
}

/// The id of a session, and the name of its folder in a store: `my-server-20261129T195446.123Z-4711`, of the program's name,
/// the start (ns since the Unix epoch, UTC) and the pid.
pub(super) fn session_id(program: &str, start: i64, pid: u32) -> String {
    let name = path_part(program);
    let start = jiff::Timestamp::from_nanosecond(start.into()).unwrap_or_default();
    format!("{name}-{}-{pid}", start.strftime("%Y%m%dT%H%M%S%.3fZ"))
}

/// A name as a path component, also in the form `key=value`.
fn path_part(name: &str) -> String {
    let safe = |c: char| if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let part: String = name.chars().map(safe).take(128).collect();
    if part.trim_matches('.').is_empty() { "unknown".into() } else { part }
}

/// Another session of the store.
#[derive(Debug)]
struct Other {
    path: PathBuf,
    bytes: u64,
    /// Its end, or the best estimate (ns since the epoch).
    end: i64,
    /// The begin of its data, without expired data (ns since the epoch).
    from: i64,
    /// Whether it may still change; only others may be removed, as a whole.
    is_open: bool,
}

/// The other sessions of a store, seen from the session at `own`.
pub(super) struct HostStore {
    store: Store,
    own: PathBuf,
    others: Vec<Other>,
    measured: Option<Instant>,
}

impl HostStore {
    pub(super) fn new(store: Store, own: PathBuf) -> Self {
        HostStore { store, own, others: Vec::new(), measured: None }
    }

    /// Removes sessions that ended before `horizon`.
    pub(super) fn remove_older(&mut self, horizon: i64) {
        self.measure();
        // Sessions that could not be removed, such as those in use, continue to count.
        self.others.retain(|other| other.is_open || other.end >= horizon || !remove(&other.path));
    }

    /// Removes the oldest sessions until they and `own` bytes are at most `most`. Returns the remaining size.
    pub(super) fn shrink(&mut self, own: u64, most: u64) -> u64 {
        self.measure();
        let mut size = own + self.others.iter().map(|o| o.bytes).sum::<u64>();
        let mut kept = Vec::new();
        for other in std::mem::take(&mut self.others) {
            if size > most && !other.is_open && remove(&other.path) {
                size = size.saturating_sub(other.bytes);
            } else {
                kept.push(other);
            }
        }
        self.others = kept;
        size
    }

    /// The begin of the oldest session that another recorder records (ns since the epoch).
    pub(super) fn oldest_recorded(&self) -> Option<i64> {
        self.others.iter().filter(|o| o.is_open).map(|o| o.from).min()
    }

    fn measure(&mut self) {
        if self.measured.is_some_and(|at| at.elapsed() < MEASURE_EVERY) {
            return;
        }
        self.measured = Some(Instant::now());
        // Closed sessions do not change, so only new and open ones are read.
        let mut closed: HashMap<PathBuf, Other> =
            self.others.drain(..).filter(|o| !o.is_open).map(|o| (o.path.clone(), o)).collect();
        let others = self.store.entries("session=").into_iter().filter(|p| *p != self.own);
        self.others = others.filter_map(|path| closed.remove(&path).or_else(|| Other::measure(path))).collect();
        self.others.sort_by_key(|o| o.end);
    }
}

impl Other {
    fn measure(path: PathBuf) -> Option<Self> {
        let manifest = match Manifest::read(&path) {
            Ok(manifest) => Some(manifest),
            Err(_) if is_young(&path) => return None,
            Err(session::Error::NotASession { .. }) => None,
            Err(e) => {
                tracing::warn!("a session of the store is never removed while it cannot be read: {e}");
                None
            }
        };
        let modified = || {
            let at = path.metadata().and_then(|m| m.modified()).ok()?;
            i64::try_from(at.duration_since(std::time::UNIX_EPOCH).ok()?.as_nanos()).ok()
        };
        let end = manifest.as_ref().and_then(|m| m.end.or(Some(m.start))).or_else(modified).unwrap_or(0);
        let from = manifest.as_ref().map_or(end, |m| m.range.map_or(m.start, |range| range.from));
        let is_open = SessionDir::at(&path).is_locked().unwrap_or(false);
        Some(Other { bytes: tree_size(&path), end, from, is_open, path })
    }
}

/// Whether a folder without a manifest may be a session that another recorder is about to begin.
fn is_young(path: &Path) -> bool {
    let modified = path.metadata().and_then(|m| m.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < Duration::from_secs(600)))
}

/// Removes a session, unless it is in use. Returns whether it is removed.
fn remove(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|n| n.to_str()) else { return false };
    if path.try_exists().is_ok_and(|is_there| !is_there) {
        // Another recorder of the store was faster.
        return true;
    }
    // Held until it is removed, so that no process begins to recover it.
    let lock = match SessionDir::at(path).lock() {
        Ok(lock) => Some(lock),
        Err(session::Error::InUse(_)) => return false,
        Err(_) => None,
    };
    match Manifest::read(path) {
        Ok(_) if lock.is_some() => {}
        // Neither a session nor in use.
        Err(session::Error::NotASession { .. }) if path.join("manifest.json").try_exists().is_ok_and(|is| !is) => {}
        // Damaged, a newer hud's, or temporarily unreadable: not to be removed.
        Ok(_) | Err(_) => {
            tracing::debug!("{} is left: it cannot be locked or read", path.display());
            return false;
        }
    }
    let away = path.with_file_name(format!("{REMOVED}{name}"));
    if let Err(e) = fs::rename(path, &away) {
        tracing::warn!("cannot remove {}: {e}", path.display());
        return false;
    }
    tracing::info!(session = %path.display(), "removed: the store exceeds its limits");
    remove_logged(&away);
    drop(lock);
    true
}

fn remove_logged(path: &Path) {
    if let Err(e) = fs::remove_dir_all(path) {
        tracing::warn!("cannot remove {}: {e}", path.display());
    }
}

fn tree_size(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|e| match e.metadata() {
            Ok(m) if m.is_dir() => tree_size(&e.path()),
            Ok(m) => m.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hud_common::session::FORMAT_VERSION;

    use super::*;
    use crate::inspect::binary_name;

    #[test]
    fn ids_say_the_program_and_the_start() {
        let id = |exe: &str| session_id(&binary_name(Path::new(exe)), 1_795_982_083_117_828_321, 4711);
        assert_eq!(id("/opt/my-server (deleted)"), "my-server-20261129T195443.117Z-4711");
        assert_eq!(id("/opt/a b=c"), "a_b_c-20261129T195443.117Z-4711");
        assert_eq!(id("/"), "unknown-20261129T195443.117Z-4711");
    }

    #[test]
    fn keeps_sessions_that_are_unreadable_or_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let session = |name: &str| dir.path().join(format!("session={name}"));
        let manifest = Manifest { format_version: FORMAT_VERSION, ..Manifest::default() };
        let begun = |name: &str| SessionDir::create(&session(name), &manifest).unwrap().1;

        let lock = begun("live");
        assert!(!remove(&session("live")));
        // Not even without its manifest.
        fs::remove_file(session("live").join("manifest.json")).unwrap();
        assert!(!remove(&session("live")) && session("live").exists());
        drop(lock);
        assert!(remove(&session("live")) && !session("live").exists(), "it is no session");

        drop(begun("whole"));
        assert!(remove(&session("whole")) && !session("whole").exists());

        drop(begun("damaged"));
        fs::write(session("damaged").join("manifest.json"), "{}").unwrap();
        assert!(!remove(&session("damaged")) && session("damaged").exists());

        let newer = Manifest { format_version: FORMAT_VERSION + 1, ..Manifest::default() };
        drop(SessionDir::create(&session("newer"), &newer).unwrap());
        assert!(!remove(&session("newer")) && session("newer").exists());
    }
}
