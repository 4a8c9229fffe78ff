//! What was typed before: in a file of the user's own, that nobody else may read.
//!
//! The file is opened once, not through a link of another user's, and reached by its descriptor from then on.

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
pub(crate) struct Kept {
    history: FileBackedHistory,
    /// Open for as long as the history is, which writes it as it is dropped.
    _file: Option<File>,
}

/// Where this process finds a file that is open.
fn by_descriptor(file: &File) -> PathBuf {
    let folder = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };
    Path::new(folder).join(file.as_raw_fd().to_string())
}

impl Kept {
    /// Opens the file, or makes it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = |path: &Path| ShellError::io(format!("keep a history in {}", path.display()));
        let no_history = |why: String| {
            ShellError::usage(why, "remove it, or set HUD_HISTORY to another file, or to nothing for none")
        };
        // /dev/null is how many ask for none.
        if std::fs::metadata(path).is_ok_and(|file| file.file_type().is_char_device()) {
            return Ok(Kept::default());
        }
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            files::create_folder(folder).map_err(failed(path))?;
        }
        let file = files::open_or_create(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidInput | std::io::ErrorKind::IsADirectory => {
                no_history(format!("{} is no history of hud's: {error}", path.display()))
            }
            _ => failed(path)(error),
        })?;
        let metadata = file.metadata().map_err(failed(path))?;
        if metadata.len() > LARGEST {
            return Err(no_history(format!("{} is no history of hud's", path.display())));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            file.set_permissions(Permissions::from_mode(0o600)).map_err(failed(path))?;
        }
        let history = FileBackedHistory::with_file(MOST, by_descriptor(&file));
        let history =
            history.map_err(|error| no_history(format!("cannot read the history in {}: {error}", path.display())))?;
        Ok(Kept { history, _file: Some(file) })
    }
}

impl History for Kept {
    fn save(&mut self, item: HistoryItem) -> ReedlineResult<HistoryItem> {
        // A search shows what it finds as it is: nothing that a terminal would act on is kept.
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
    fn it_is_kept_through_own_links_and_through_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("shadow"), "kept\n").unwrap();
        fs::set_permissions(at("shadow"), fs::Permissions::from_mode(0o644)).unwrap();
        symlink("own", at("link")).unwrap();
        let mut history = Kept::open(&at("link")).unwrap();
        history.save(HistoryItem::from_command_line("select 1;")).unwrap();
        // Whatever takes its place meanwhile is not written into.
        fs::rename(at("own"), at("moved")).unwrap();
        symlink("shadow", at("own")).unwrap();
        drop(history);
        assert_eq!(fs::read(at("moved")).unwrap(), b"select 1;\n");
        symlink(at("shadow"), at("planted")).unwrap();
        if lchown(at("planted"), Some(65_534), None).is_ok() {
            let error = Kept::open(&at("planted")).unwrap_err().line();
            assert!(error.contains("planted is a symbolic link of user 65534"), "{error}");
        }
        let shadow = fs::metadata(at("shadow")).unwrap();
        assert_eq!(
            (fs::read(at("shadow")).unwrap().as_slice(), shadow.permissions().mode() & 0o777),
            (&b"kept\n"[..], 0o644)
        );
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
