//! The history of input, in a file that only its owner can read. The file is opened once, not through another user's symbolic
//! link, and accessed by its descriptor afterwards.

use std::{
    env,
    fs::{File, Permissions},
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileTypeExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use hud_common::files;
use reedline::{
    FileBackedHistory, History, HistoryItem, HistoryItemId, HistorySessionId, Result as ReedlineResult, SearchQuery,
};

use crate::error::{Result, ShellError};

/// Maximum number of entries.
const MOST: usize = 5_000;
/// Maximum size of an entry, in bytes.
const LONGEST: usize = 64 << 10;
/// Maximum size of the file: a larger one is no history.
const LARGEST: u64 = 64 << 20;

/// The history file: `$HUD_HISTORY` (empty for none), otherwise one in the user's state folder.
pub(crate) fn path() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).map(PathBuf::from);
    if let Some(path) = set("HUD_HISTORY") {
        return Some(path).filter(|path| !path.as_os_str().is_empty());
    }
    // By the XDG specification, a relative path is ignored.
    let state = set("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let state = state.or_else(|| set("HOME").filter(|home| home.is_absolute()).map(|home| home.join(".local/state")));
    state.map(|state| state.join("hud/sql_history"))
}

/// A bounded history.
#[derive(Debug, Default)]
pub(crate) struct BoundedHistory {
    history: FileBackedHistory,
    /// Open until the history is dropped, which writes it.
    _file: Option<File>,
}

/// The path of an open file.
fn by_descriptor(file: &File) -> PathBuf {
    let folder = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };
    Path::new(folder).join(file.as_raw_fd().to_string())
}

impl BoundedHistory {
    /// Opens the file, or creates it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = |path: &Path| ShellError::io(format!("write the history {}", path.display()));
        let no_history = |why: String| {
            ShellError::usage(why, "remove it, or set HUD_HISTORY to another file, or to the empty string for none")
        };
        // /dev/null means none.
        if std::fs::metadata(path).is_ok_and(|file| file.file_type().is_char_device()) {
            return Ok(BoundedHistory::default());
        }
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            files::create_folder(folder).map_err(failed(path))?;
        }
        let file = files::open_or_create(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidInput | std::io::ErrorKind::IsADirectory => {
                no_history(format!("{} is not a history file: {error}", path.display()))
            }
            _ => failed(path)(error),
        })?;
        let metadata = file.metadata().map_err(failed(path))?;
        if metadata.len() > LARGEST {
            return Err(no_history(format!("{} is not a history file", path.display())));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            file.set_permissions(Permissions::from_mode(0o600)).map_err(failed(path))?;
        }
        let history = FileBackedHistory::with_file(MOST, by_descriptor(&file));
        let history =
            history.map_err(|error| no_history(format!("cannot read the history in {}: {error}", path.display())))?;
        Ok(BoundedHistory { history, _file: Some(file) })
    }
}

impl History for BoundedHistory {
    fn save(&mut self, item: HistoryItem) -> ReedlineResult<HistoryItem> {
        // The history search shows entries unchanged, so those with control characters are not saved.
        let harmful = item.command_line.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t'));
        if item.command_line.len() > LONGEST || harmful {
            return Ok(item);
        }
        self.history.save(item)
    }

    fn load(&self, id: HistoryItemId) -> ReedlineResult<HistoryItem> {
        self.history.load(id)
    }

    fn count(&self, query: SearchQuery) -> ReedlineResult<i64> {
        self.history.count(query)
    }

    fn search(&self, query: SearchQuery) -> ReedlineResult<Vec<HistoryItem>> {
        self.history.search(query)
    }

    fn update(&mut self, id: HistoryItemId, updater: &dyn Fn(HistoryItem) -> HistoryItem) -> ReedlineResult<()> {
        self.history.update(id, updater)
    }

    fn clear(&mut self) -> ReedlineResult<()> {
        self.history.clear()
    }

    fn delete(&mut self, id: HistoryItemId) -> ReedlineResult<()> {
        self.history.delete(id)
    }

    fn sync(&mut self) -> std::io::Result<()> {
        self.history.sync()
    }

    fn session(&self) -> Option<HistorySessionId> {
        self.history.session()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{lchown, symlink},
    };

    use reedline::{SearchDirection, SearchQuery};

    use super::*;

    fn all(history: &BoundedHistory) -> Vec<String> {
        let found = history.search(SearchQuery::everything(SearchDirection::Forward, None)).unwrap();
        found.into_iter().map(|item| item.command_line).collect()
    }

    #[test]
    fn the_file_is_private_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/hud/sql_history");
        let mut history = BoundedHistory::open(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        for n in 0..MOST + 10 {
            history.save(HistoryItem::from_command_line(format!("select\n{n};"))).unwrap();
        }
        history.save(HistoryItem::from_command_line("select '\x1b[2J';")).unwrap();
        history.save(HistoryItem::from_command_line("x".repeat(LONGEST + 1))).unwrap();
        drop(history);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let history = BoundedHistory::open(&path).unwrap();
        let kept = all(&history);
        assert_eq!((kept.len(), kept[0].as_str()), (MOST, "select\n10;"));
        assert_eq!(kept.last().unwrap(), &format!("select\n{};", MOST + 9));
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn follows_links_of_the_user_only() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("shadow"), "kept\n").unwrap();
        fs::set_permissions(at("shadow"), fs::Permissions::from_mode(0o644)).unwrap();
        symlink("own", at("link")).unwrap();
        let mut history = BoundedHistory::open(&at("link")).unwrap();
        history.save(HistoryItem::from_command_line("select 1;")).unwrap();
        // The open file is written, not the one that now has its name.
        fs::rename(at("own"), at("moved")).unwrap();
        symlink("shadow", at("own")).unwrap();
        drop(history);
        assert_eq!(fs::read(at("moved")).unwrap(), b"select 1;\n");
        symlink(at("shadow"), at("planted")).unwrap();
        if lchown(at("planted"), Some(65_534), None).is_ok() {
            let error = BoundedHistory::open(&at("planted")).unwrap_err().line();
            assert!(error.contains("planted is a symbolic link of user 65534"), "{error}");
        }
        let shadow = fs::metadata(at("shadow")).unwrap();
        assert_eq!(
            (fs::read(at("shadow")).unwrap().as_slice(), shadow.permissions().mode() & 0o777),
            (&b"kept\n"[..], 0o644)
        );
    }

    #[test]
    fn a_file_that_is_no_history_is_not_changed() {
        assert!(all(&BoundedHistory::open(Path::new("/dev/null")).unwrap()).is_empty());
        let folder = tempfile::tempdir().unwrap();
        assert!(BoundedHistory::open(folder.path()).unwrap_err().line().contains("is not a history file"));
        let path = folder.path().join("binary");
        fs::write(&path, [0xff, 0xfe, b'\n']).unwrap();
        assert!(BoundedHistory::open(&path).unwrap_err().line().contains("cannot read the history"));
        assert_eq!(fs::read(&path).unwrap(), [0xff, 0xfe, b'\n']);
    }
}
