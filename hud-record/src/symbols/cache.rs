//! Cache of symbols for later sessions: by build id, in memory and in a folder of hud's own.
//!
//! A cache file holds the symbols of one binary, with a checksum; it is written under another name and renamed. The
//! folder is used only if it belongs to hud's user alone. Its content is bounded, and sanitised again when read.
//!
//! A build id is untrusted. So that one user's program cannot name another's functions, the file's owner and size
//! belong to the key, and the set of debug files found is compared: once debug files are installed, symbols are looked
//! up again.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use super::frame::ResolvedAddress;

/// To be increased if the symbols of the same binary would change: their form, or their origin.
const FORMAT: u32 = 2;
const MAGIC: &[u8; 8] = b"hudnames";
/// Bytes of one binary's cache file.
const LARGEST_FILE: u64 = 32 << 20;
/// Bytes of all; the least recently used are removed first.
const LARGEST_FOLDER: u64 = 256 << 20;
/// Addresses of one binary: about 100 bytes each.
const MOST_LOCATIONS: usize = 200_000;

/// The environment variable that sets the folder; empty disables the cache.
const VARIABLE: &str = "HUD_CACHE_DIR";

/// Symbols of all binaries seen.
#[derive(Default)]
pub struct Cache {
    folder: Option<PathBuf>,
    entries: Mutex<HashMap<String, Arc<Mutex<Entry>>>>,
}

/// The known symbols of one binary.
#[derive(Default)]
pub(super) struct Entry {
    stored: Stored,
    is_new: bool,
}

#[derive(Default, Serialize, Deserialize)]
struct Stored {
    /// Identifies the set of debug files found.
    debug: u32,
    /// By offset in the file.
    locations: HashMap<u64, ResolvedAddress>,
}

impl Entry {
    pub(super) fn get(&self, offset: u64) -> Option<&ResolvedAddress> {
        self.stored.locations.get(&offset)
    }

    pub(super) fn insert(&mut self, offset: u64, located: ResolvedAddress) {
        if self.stored.locations.len() < MOST_LOCATIONS {
            self.stored.locations.insert(offset, located);
            self.is_new = true;
        }
    }
}

impl Cache {
    /// The cache shared by this user's sessions: `$HUD_CACHE_DIR`, else systemd's cache directory, else
    /// `/var/cache/hud` for root and `$XDG_CACHE_HOME/hud` for others.
    pub fn shared() -> Self {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let absolute = |path: PathBuf| path.is_absolute().then_some(path);
        let folder = match variable(VARIABLE) {
            Some(given) => absolute(given),
            None => variable("CACHE_DIRECTORY").and_then(absolute).or_else(|| {
                if rustix::process::geteuid().is_root() {
                    return Some("/var/cache/hud".into());
                }
                let home = variable("XDG_CACHE_HOME").and_then(absolute);
                let home = home.or_else(|| Some(variable("HOME").and_then(absolute)?.join(".cache")));
                Some(home?.join("hud"))
            }),
        };
        Cache { folder, ..Cache::default() }
    }

    /// A cache in a folder, which is created when something is stored.
    pub fn in_folder(folder: &Path) -> Self {
        Cache { folder: Some(folder.into()), ..Cache::default() }
    }

    /// The entry of a binary.
    pub(super) fn entry(&self, key: &str, debug: u32) -> Arc<Mutex<Entry>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry(key.into()).or_insert_with(|| {
            let stored = self.folder.as_deref().and_then(|folder| read(folder, key)).unwrap_or_default();
            Arc::new(Mutex::new(Entry { stored, is_new: false }))
        });
        let mut known = entry.lock().unwrap_or_else(PoisonError::into_inner);
        if known.stored.debug != debug {
            *known = Entry { stored: Stored { debug, ..Stored::default() }, is_new: false };
        }
        drop(known);
        Arc::clone(entry)
    }

    /// Writes new symbols.
    pub(super) fn save(&self) {
        let Some(folder) = &self.folder else { return };
        let entries: Vec<_> = {
            let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.iter().map(|(key, entry)| (key.clone(), Arc::clone(entry))).collect()
        };
        let mut saved = 0;
        for (key, entry) in entries {
            let mut entry = entry.lock().unwrap_or_else(PoisonError::into_inner);
            if !entry.is_new {
                continue;
            }
            // Another hud may have stored other addresses since.
            if let Some(theirs) = read(folder, &key)
                && theirs.debug == entry.stored.debug
            {
                for (offset, located) in theirs.locations {
                    if entry.stored.locations.len() < MOST_LOCATIONS {
                        entry.stored.locations.entry(offset).or_insert(located);
                    }
                }
            }
            match write(folder, &key, &entry.stored) {
                Ok(()) => saved += 1,
                // The session has its symbols; only the next one must look them up again.
                Err(e) => tracing::debug!("names are not kept in {}: {e}", folder.display()),
            }
            entry.is_new = false;
        }
        if saved > 0 {
            shrink(folder);
        }
    }
}

/// Whether a folder belongs to hud's user alone.
fn is_private(folder: &Path) -> bool {
    let Ok(m) = fs::symlink_metadata(folder) else { return false };
    m.is_dir() && m.uid() == rustix::process::geteuid().as_raw() && m.mode() & 0o077 == 0
}

fn file(folder: &Path, key: &str) -> PathBuf {
    folder.join(format!("{key}.names"))
}

fn read(folder: &Path, key: &str) -> Option<Stored> {
    if !is_private(folder) {
        return None;
    }
    let mut options = File::options();
    let opened = options.read(true).custom_flags(libc::O_NOFOLLOW).open(file(folder, key)).ok()?;
    let mut bytes = Vec::new();
    (&opened).take(LARGEST_FILE).read_to_end(&mut bytes).ok()?;
    let stored = decode(&bytes)?;
    // Marks it as recently used.
    let _ = opened.set_modified(SystemTime::now());
    Some(stored)
}

fn decode(bytes: &[u8]) -> Option<Stored> {
    let (magic, rest) = bytes.split_first_chunk::<8>()?;
    let (format, rest) = rest.split_first_chunk::<4>()?;
    let (crc, body) = rest.split_first_chunk::<4>()?;
    let is_whole =
        magic == MAGIC && u32::from_le_bytes(*format) == FORMAT && u32::from_le_bytes(*crc) == crc32fast::hash(body);
    postcard::from_bytes(body).ok().filter(|_| is_whole)
}

fn write(folder: &Path, key: &str, stored: &Stored) -> io::Result<()> {
    let body = postcard::to_allocvec(stored).map_err(io::Error::other)?;
    if u64::try_from(body.len()).is_ok_and(|length| length + 16 > LARGEST_FILE) {
        return Err(io::Error::other("too many"));
    }
    if fs::symlink_metadata(folder).is_err() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    if !is_private(folder) {
        return Err(io::Error::other("the folder is not this user's alone"));
    }
    // Two sessions may end at once.
    let part = folder.join(format!("{key}.{}.part", std::process::id()));
    let _ = fs::remove_file(&part);
    let mut options = File::options();
    let mut to = options.write(true).create_new(true).mode(0o600).open(&part)?;
    let written = [&MAGIC[..], &FORMAT.to_le_bytes(), &crc32fast::hash(&body).to_le_bytes(), &body]
        .into_iter()
        .try_for_each(|bytes| to.write_all(bytes))
        .and_then(|()| fs::rename(&part, file(folder, key)));
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}

/// Removes the least recently used files beyond the bound, and leftovers of a killed hud.
fn shrink(folder: &Path) {
    let Ok(files) = fs::read_dir(folder) else { return };
    let mut files: Vec<(SystemTime, u64, PathBuf)> = files
        .flatten()
        .filter_map(|f| {
            let m = f.metadata().ok().filter(fs::Metadata::is_file)?;
            Some((m.modified().ok()?, m.len(), f.path()))
        })
        .collect();
    files.sort_by(|a, b| b.cmp(a));
    let mut total = 0_u64;
    for (age, size, path) in files {
        total = total.saturating_add(size);
        let is_left = path.extension().is_some_and(|e| e == "part") && age.elapsed().is_ok_and(|a| a.as_secs() > 3600);
        if total > LARGEST_FOLDER || is_left {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::symbols::frame::ResolvedFrame;

    fn located(name: &str) -> ResolvedAddress {
        let named = ResolvedFrame { function: Some(name.into()), ..ResolvedFrame::default() };
        ResolvedAddress { address: 7, is_signal_return: false, frames: vec![named] }
    }

    fn known(cache: &Cache, debug: u32) -> Option<ResolvedAddress> {
        cache.entry("key", debug).lock().unwrap().get(1).cloned()
    }

    #[test]
    fn keeps_symbols_for_the_next_session() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("cache");
        let cache = Cache::in_folder(&folder);
        cache.entry("key", 5).lock().unwrap().insert(1, located("f"));
        cache.save();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(file(&folder, "key")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(known(&Cache::in_folder(&folder), 5), Some(located("f")));
        // Debug files were added or removed.
        assert_eq!(known(&Cache::in_folder(&folder), 6), None);
        // Two caches with different entries.
        let (one, other) = (Cache::in_folder(&folder), Cache::in_folder(&folder));
        one.entry("key", 5).lock().unwrap().insert(2, located("g"));
        other.entry("key", 5).lock().unwrap().insert(3, located("h"));
        one.save();
        other.save();
        let last = Cache::in_folder(&folder);
        let entry = last.entry("key", 5);
        assert!((1..=3).all(|offset| entry.lock().unwrap().get(offset).is_some()));
    }

    #[test]
    fn ignores_damaged_files() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("cache");
        let cache = Cache::in_folder(&folder);
        cache.entry("key", 0).lock().unwrap().insert(1, located("f"));
        cache.save();
        let whole = fs::read(file(&folder, "key")).unwrap();
        for i in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[i] ^= 0x40;
            fs::write(file(&folder, "key"), &bytes).unwrap();
            assert_eq!(known(&Cache::in_folder(&folder), 0), None, "byte {i}");
            fs::write(file(&folder, "key"), &whole[..i]).unwrap();
            assert_eq!(known(&Cache::in_folder(&folder), 0), None, "cut at {i}");
        }
    }

    #[test]
    fn rejects_a_folder_that_others_may_write_to() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::in_folder(dir.path());
        cache.entry("key", 0).lock().unwrap().insert(1, located("f"));
        cache.save();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(known(&Cache::in_folder(dir.path()), 0), None);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert_eq!(known(&Cache::in_folder(&link), 0), None);
    }
}
