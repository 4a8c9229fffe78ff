//! What was typed before: in a file of the user's own, that nobody else may read.

use std::{
    env, fs,
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use reedline::{
    FileBackedHistory, History, HistoryItem, HistoryItemId, HistorySessionId, Result as ReedlineResult, SearchQuery,
};

use crate::error::{Result, ShellError};

/// Statements that are kept.
const MOST: usize = 5_000;
/// The longest statement that is kept, in bytes; longer ones come from files.
const LONGEST: usize = 64 << 10;
/// A history file larger than this is not ours.
const LARGEST: u64 = 64 << 20;

/// Where the history is kept: `$HUD_HISTORY`, else the user's folder for state; none where that variable is empty, or
/// where there is no such folder.
pub(crate) fn place() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).map(PathBuf::from);
    if let Some(path) = set("HUD_HISTORY") {
        return Some(path).filter(|path| !path.as_os_str().is_empty());
    }
    // The specification says that a relative one does not count.
    let state = set("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let state = state.or_else(|| set("HOME").filter(|home| home.is_absolute()).map(|home| home.join(".local/state")));
    state.map(|state| state.join("hud/sql_history"))
}

/// A history within bounds.
#[derive(Debug, Default)]
pub(crate) struct Kept(FileBackedHistory);

impl Kept {
    /// Opens the file, or makes it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = |path: &Path| ShellError::io(format!("keep a history in {}", path.display()));
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed(path))?;
        }
        match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            other => drop(other.map_err(failed(path))?),
        }
        let file = fs::metadata(path).map_err(failed(path))?;
        if file.file_type().is_char_device() {
            // /dev/null is how many ask for none.
            return Ok(Kept::default());
        }
        if !file.is_file() || file.len() > LARGEST {
            return Err(ShellError::usage(
                format!("{} is no history of hud's", path.display()),
                "remove it, or set HUD_HISTORY to another file, or to nothing for none",
            ));
        }
        if file.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed(path))?;
        }
        let history = FileBackedHistory::with_file(MOST, path.to_owned());
        Ok(Kept(history.map_err(|error| {
            ShellError::usage(
                format!("cannot read the history in {}: {error}", path.display()),
                "remove it, or set HUD_HISTORY to another file",
            )
        })?))
    }
}

impl History for Kept {
    fn save(&mut self, item: HistoryItem) -> ReedlineResult<HistoryItem> {
        // A search shows what it finds as it is: nothing that a terminal would act on is kept.
        let harmful = item.command_line.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t'));
        if item.command_line.len() > LONGEST || harmful {
            return Ok(item);
        }
        self.0.save(item)
    }

    fn load(&self, id: HistoryItemId) -> ReedlineResult<HistoryItem> {
        self.0.load(id)
    }

    fn count(&self, query: SearchQuery) -> ReedlineResult<i64> {
        self.0.count(query)
    }

    fn search(&self, query: SearchQuery) -> ReedlineResult<Vec<HistoryItem>> {
        self.0.search(query)
    }

    fn update(&mut self, id: HistoryItemId, updater: &dyn Fn(HistoryItem) -> HistoryItem) -> ReedlineResult<()> {
        self.0.update(id, updater)
    }

    fn clear(&mut self) -> ReedlineResult<()> {
        self.0.clear()
    }

    fn delete(&mut self, id: HistoryItemId) -> ReedlineResult<()> {
        self.0.delete(id)
    }

    fn sync(&mut self) -> std::io::Result<()> {
        self.0.sync()
    }

    fn session(&self) -> Option<HistorySessionId> {
        self.0.session()
    }
}

#[cfg(test)]
mod tests {
    use reedline::{SearchDirection, SearchQuery};

    use super::*;

    fn all(history: &Kept) -> Vec<String> {
        let found = history.search(SearchQuery::everything(SearchDirection::Forward, None)).unwrap();
        found.into_iter().map(|item| item.command_line).collect()
    }

    #[test]
    fn it_is_the_users_own_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/hud/sql_history");
        let mut history = Kept::open(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        for n in 0..MOST + 10 {
            history.save(HistoryItem::from_command_line(format!("select\n{n};"))).unwrap();
        }
        history.save(HistoryItem::from_command_line("select '\x1b[2J';")).unwrap();
        history.save(HistoryItem::from_command_line("x".repeat(LONGEST + 1))).unwrap();
        drop(history);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let history = Kept::open(&path).unwrap();
        let kept = all(&history);
        assert_eq!((kept.len(), kept[0].as_str()), (MOST, "select\n10;"));
        assert_eq!(kept.last().unwrap(), &format!("select\n{};", MOST + 9));
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn what_is_no_history_is_left_alone() {
        assert!(all(&Kept::open(Path::new("/dev/null")).unwrap()).is_empty());
        let folder = tempfile::tempdir().unwrap();
        assert!(Kept::open(folder.path()).unwrap_err().line().contains("is no history"));
        let path = folder.path().join("binary");
        fs::write(&path, [0xff, 0xfe, b'\n']).unwrap();
        assert!(Kept::open(&path).unwrap_err().line().contains("cannot read the history"));
        assert_eq!(fs::read(&path).unwrap(), [0xff, 0xfe, b'\n']);
    }
}
