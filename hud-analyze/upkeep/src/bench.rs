//! The working folder beside a session, in which its successor is built, and which is exchanged for the session.
//!
//! ```text
//! PARENT/NAME                        the session
//! PARENT/.NAME.hud-upkeep/mark       marks a working folder
//! PARENT/.NAME.hud-upkeep/session/   the successor; after the exchange, the old session
//! PARENT/.NAME.hud-upkeep/runs/      temporary files of merging
//! ```
//! Invariants: `PARENT/NAME` is a complete session at any time, before the exchange the old one, afterwards the new one; a file
//! that both share by a hard link is never written to. A working folder that exists at the start was left by a killed process
//! and is removed, whichever of the two sessions it contains. The process holds the session's lock, whose file is linked into the
//! successor, so that no other process can take either.

use std::{
    cell::RefCell,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use hud_common::{
    files,
    session::{Manifest, SessionDir, SessionLock, Table},
};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::error::{Error, Result};

/// Called after each change on disk. If it fails, the work ends there, as if the process were killed.
pub(crate) type Killer<'a> = dyn FnMut() -> Result<()> + 'a;

const MARK: &str = "mark";
const MARK_TEXT: &str = "hud is compacting or repairing the session beside this folder. If it was killed, its next run removes this folder.\n";
const SESSION: &str = "session";
const RUNS: &str = "runs";
const LOCK: &str = "lock";
/// The folder for damaged files in a session.
const DAMAGED: &str = "damaged";
/// Maximum depth of folders in a session, besides its tables.
const DEEPEST: u32 = 16;

/// Location of the result.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// There is none: nothing had to be done, or it was a dry run.
    Nowhere,
    /// It replaced the session atomically.
    Exchanged,
    /// In the folder of `--output`. The session is unchanged.
    Output(PathBuf),
    /// Beside the session, which is unchanged: its file system cannot exchange two folders.
    Beside(PathBuf),
}

/// Owner and mode of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rights {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Rights {
    fn of(path: &Path) -> Result<Self> {
        let metadata = fs::symlink_metadata(path).map_err(Error::io("stat", path))?;
        Ok(Rights { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.permissions().mode() & 0o777 })
    }

    fn with_mode(self, mode: u32) -> Self {
        Rights { mode, ..self }
    }
}

/// A working folder.
pub(crate) struct Bench {
    /// The session's canonical path.
    session: PathBuf,
    /// The working folder's path.
    root: PathBuf,
    /// Owner and mode of the session's folder.
    rights: Rights,
    /// The session's id, once it is known: then segments of other sessions are rejected, and new ones contain it.
    id: RefCell<String>,
    /// Exchanges two folders.
    pub(crate) exchange: fn(&Path, &Path) -> rustix::io::Result<()>,
    /// The locked mark, by which another process recognizes that the folder is in use.
    mark: RefCell<Option<File>>,
    /// The session's lock.
    _lock: SessionLock,
}

fn exchange(a: &Path, b: &Path) -> rustix::io::Result<()> {
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)
}

impl Bench {
    /// Locks the session for writing.
    ///
    /// Fails with [`hud_common::session::Error::InUse`] if another process holds the lock. `output` is the location of the
    /// result, if it does not replace the session.
    pub(crate) fn take(session: &Path, output: Option<&Path>) -> Result<Self> {
        let session = fs::canonicalize(session).map_err(Error::io("open", session))?;
        let at = match output {
            None => session.clone(),
            Some(output) => {
                if fs::symlink_metadata(output).is_ok() {
                    return Err(Error::Exists(output.into()));
                }
                let name = output.file_name().ok_or_else(|| Error::NoParent(output.into()))?;
                let parent = output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                // Not through another user's symbolic link, which could lead anywhere.
                files::open_folder(parent).map_err(Error::io("open", parent))?;
                fs::canonicalize(parent).map_err(Error::io("open", parent))?.join(name)
            }
        };
        let (Some(parent), Some(name)) = (at.parent(), at.file_name()) else { return Err(Error::NoParent(at)) };
        let mut folder = std::ffi::OsString::from(".");
        folder.push(name);
        folder.push(".hud-upkeep");
        let root = parent.join(folder);
        let lock = SessionDir::at(&session).lock()?;
        let rights = Rights::of(&session)?;
        Ok(Bench { session, root, rights, id: RefCell::default(), exchange, mark: RefCell::default(), _lock: lock })
    }

    /// Removes the working folder of a killed process. Returns whether there was one.
    pub(crate) fn clear(&self) -> Result<bool> {
        let metadata = match fs::symlink_metadata(&self.root) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other.map_err(Error::io("stat", &self.root))?,
        };
        if !metadata.is_dir() {
            return Err(Error::InTheWay(self.root.clone()));
        }
        let mark = self.root.join(MARK);
        let is_marked = fs::symlink_metadata(&mark).is_ok_and(|m| m.is_file());
        let is_empty = fs::read_dir(&self.root).map_err(Error::io("list", &self.root))?.next().is_none();
        if !is_marked && !is_empty {
            return Err(Error::InTheWay(self.root.clone()));
        }
        // Another session may be being written to the same output.
        if self.mark.take().is_none()
            && let Ok(file) = File::open(&mark)
            && let Err(TryLockError::WouldBlock) = file.try_lock()
        {
            return Err(Error::InTheWay(self.root.clone()));
        }
        // The mark is removed last, so that the folder is still recognized after a kill.
        for name in [SESSION, RUNS] {
            remove_all(&self.root.join(name))?;
        }
        remove_all(&self.root)?;
        Ok(true)
    }

    /// Creates the working folder, with an empty successor.
    pub(crate) fn set_up(&self, step: &mut Killer<'_>) -> Result<()> {
        let parent = self.parent();
        // Private until it is complete.
        make_dir(&self.root, self.rights.with_mode(0o700))?;
        step()?;
        let mark = self.root.join(MARK);
        write(&mark, MARK_TEXT.as_bytes(), self.rights.with_mode(0o600))?;
        let mark = File::open(&mark).map_err(Error::io("open", &mark))?;
        // If the file system has no locks, the session's lock must suffice.
        let _ = mark.try_lock();
        self.mark.replace(Some(mark));
        sync_dir(&self.root)?;
        sync_dir(parent)?;
        step()?;
        for name in [SESSION, RUNS] {
            make_dir(
                &self.root.join(name),
                self.rights.with_mode(if name == SESSION { self.rights.mode } else { 0o700 }),
            )?;
        }
        step()
    }

    /// The parent folder, on the disk of the result.
    pub(crate) fn parent(&self) -> &Path {
        self.root.parent().unwrap_or(Path::new("/"))
    }

    /// Sets the session's id.
    pub(crate) fn is_of(&self, id: &str) {
        self.id.replace(id.into());
    }

    fn at(&self, path: &Path) -> SessionDir {
        SessionDir::at(path).with_id(&Manifest { id: self.id.borrow().clone(), ..Manifest::default() })
    }

    /// The session.
    pub(crate) fn session(&self) -> SessionDir {
        self.at(&self.session)
    }

    /// Its successor.
    pub(crate) fn successor(&self) -> SessionDir {
        self.at(&self.root.join(SESSION))
    }

    /// The folder for temporary files of merging.
    pub(crate) fn runs(&self) -> PathBuf {
        self.root.join(RUNS)
    }

    /// Checks the free space on the disk.
    pub(crate) fn has_room(&self, needed: u64) -> Result<()> {
        let path = self.parent();
        let disk = rustix::fs::statvfs(path).map_err(Error::os("read the free space of", path))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if needed > free { Err(Error::NoRoom { path: path.into(), needed, free }) } else { Ok(()) }
    }

    /// Links all files of the session into its successor, or copies them if the file system has no hard links, except the lock and
    /// paths for which `leave_out` is true.
    pub(crate) fn adopt(&self, leave_out: &dyn Fn(&Path) -> bool, step: &mut Killer<'_>) -> Result<()> {
        self.adopt_folder(Path::new(""), leave_out, 0)?;
        step()
    }

    fn adopt_folder(&self, folder: &Path, leave_out: &dyn Fn(&Path) -> bool, depth: u32) -> Result<()> {
        let from = self.session.join(folder);
        let successor = self.successor();
        for entry in fs::read_dir(&from).map_err(Error::io("list", &from))? {
            let entry = entry.map_err(Error::io("list", &from))?;
            let name = folder.join(entry.file_name());
            if name == Path::new(LOCK) || leave_out(&name) {
                continue;
            }
            let (path, to) = (entry.path(), successor.path().join(&name));
            let kind = entry.file_type().map_err(Error::io("stat", &path))?;
            if kind.is_dir() {
                if depth == DEEPEST {
                    return Err(Error::Strange(path));
                }
                make_dir(&to, Rights::of(&path)?)?;
                self.adopt_folder(&name, leave_out, depth + 1)?;
            } else if kind.is_file() {
                link(&path, &to)?;
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).map_err(Error::io("read", &path))?;
                std::os::unix::fs::symlink(target, &to).map_err(Error::io("link", &to))?;
            } else {
                return Err(Error::Strange(path));
            }
        }
        Ok(())
    }

    /// Creates a table's folder in the successor, if it does not exist, with the mode that it has in the session.
    pub(crate) fn make_table(&self, table: Table) -> Result<()> {
        let to = self.successor().table(table);
        if to.is_dir() {
            return Ok(());
        }
        let from = self.session().table(table);
        make_dir(&to, Rights::of(&from).unwrap_or(self.rights.with_mode(0o700)))
    }

    /// Writes a segment of the successor, with the session's owner.
    pub(crate) fn put(&self, table: Table, number: u32, data: &[u8], step: &mut Killer<'_>) -> Result<PathBuf> {
        self.make_table(table)?;
        let path = self.successor().segment(table, number);
        write(&path, data, self.file_rights())?;
        step()?;
        Ok(path)
    }

    /// Moves a file of the successor to the folder of damaged files, with a name that no engine reads as a segment.
    pub(crate) fn set_aside(&self, name: &Path, step: &mut Killer<'_>) -> Result<()> {
        let root = self.successor().path().to_path_buf();
        let folder = root.join(DAMAGED);
        match fs::symlink_metadata(&folder) {
            Ok(m) if m.is_dir() => {}
            Ok(_) => return Err(Error::InTheWay(self.session.join(DAMAGED))),
            Err(_) => make_dir(&folder, self.rights.with_mode(0o700))?,
        }
        let flat = name.to_string_lossy().replace('/', "-");
        for n in 1..10_000_u32 {
            let number = if n == 1 { String::new() } else { format!(".{n}") };
            match rename_new(&root.join(name), &folder.join(format!("{flat}.damaged{number}"))) {
                Err(Error::Exists(_)) => {}
                other => return other.and_then(|()| step()),
            }
        }
        Err(Error::Exists(folder.join(flat)))
    }

    /// Owner and mode of new files.
    pub(crate) fn file_rights(&self) -> Rights {
        // Users who may enter the folder may read them.
        self.rights.with_mode(0o600 | self.rights.mode & 0o044)
    }

    /// Changes the owner of the successor's new files to the session's: files made by hud_common belong to this process.
    pub(crate) fn hand_over(&self) -> Result<()> {
        self.hand_over_folder(self.successor().path(), 0)
    }

    fn hand_over_folder(&self, folder: &Path, depth: u32) -> Result<()> {
        for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
            let entry = entry.map_err(Error::io("list", folder))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(Error::io("stat", &path))?;
            // Linked files keep their owner.
            let metadata = fs::symlink_metadata(&path).map_err(Error::io("stat", &path))?;
            if kind.is_dir() && depth < DEEPEST {
                self.hand_over_folder(&path, depth + 1)?;
                give(&path, &metadata, self.rights)?;
            } else if kind.is_file() && metadata.nlink() == 1 {
                give(&path, &metadata, self.rights)?;
            }
        }
        Ok(())
    }

    /// Replaces the session by the successor, or moves the successor to the output, and removes the working folder.
    pub(crate) fn finish(&self, output: Option<&Path>, suffix: &str, step: &mut Killer<'_>) -> Result<Place> {
        let successor = self.successor();
        self.hand_over()?;
        if output.is_none() {
            let (lock, to) = (self.session.join(LOCK), successor.path().join(LOCK));
            remove_file(&to)?;
            link(&lock, &to)?;
        }
        sync_tree(successor.path(), 0)?;
        sync_dir(&self.root)?;
        step()?;
        let place = match output {
            Some(output) => {
                rename_new(successor.path(), output)?;
                Place::Output(output.into())
            }
            None => match (self.exchange)(successor.path(), &self.session) {
                Ok(()) => Place::Exchanged,
                // A session that is a mount point cannot be renamed either.
                Err(e) if is_unsupported(e) || e == rustix::io::Errno::XDEV || e == rustix::io::Errno::BUSY => {
                    // The lock stays with the session.
                    remove_file(&successor.path().join(LOCK))?;
                    Place::Beside(self.put_beside(suffix)?)
                }
                Err(e) => return Err(Error::os("exchange", &self.session)(e)),
            },
        };
        sync_dir(self.parent())?;
        sync_dir(&self.root)?;
        step()?;
        self.clear()?;
        step()?;
        Ok(place)
    }

    fn put_beside(&self, suffix: &str) -> Result<PathBuf> {
        let name = self.session.file_name().unwrap_or_default();
        for n in 1..1000_u32 {
            let mut beside = name.to_os_string();
            beside.push(if n == 1 { format!(".{suffix}") } else { format!(".{suffix}-{n}") });
            let beside = self.parent().join(beside);
            match rename_new(self.successor().path(), &beside) {
                Err(Error::Exists(_)) => {}
                other => return other.map(|()| beside),
            }
        }
        Err(Error::Exists(self.parent().join(name)))
    }
}

/// Changes the owner of a file.
fn give(path: &Path, is: &fs::Metadata, to: Rights) -> Result<()> {
    if (is.uid(), is.gid()) == (to.uid, to.gid) {
        return Ok(());
    }
    let only = |new: u32, old: u32| (new != old).then_some(new);
    std::os::unix::fs::lchown(path, only(to.uid, is.uid()), only(to.gid, is.gid()))
        .map_err(Error::io("change the owner of", path))
}

fn make_dir(path: &Path, rights: Rights) -> Result<()> {
    DirBuilder::new().mode(rights.mode).create(path).map_err(Error::io("create", path))?;
    // Regardless of the umask.
    fs::set_permissions(path, fs::Permissions::from_mode(rights.mode)).map_err(Error::io("create", path))?;
    give(path, &fs::symlink_metadata(path).map_err(Error::io("stat", path))?, rights)
}

/// Writes a new file, durably.
pub(crate) fn write(path: &Path, data: &[u8], rights: Rights) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(rights.mode)
        .open(path)
        .map_err(Error::io("create", path))?;
    file.set_permissions(fs::Permissions::from_mode(rights.mode)).map_err(Error::io("create", path))?;
    file.write_all(data).map_err(Error::io("write", path))?;
    give(path, &file.metadata().map_err(Error::io("stat", path))?, rights)?;
    file.sync_all().map_err(Error::io("sync", path))
}

/// Hard-links a file, which is never written to; copies it if the file system has no hard links.
pub(crate) fn link(from: &Path, to: &Path) -> Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            Err(Error::Io { action: "link", path: to.into(), source: e })
        }
        // Another disk, no hard links, too many of them, or not the owner (`fs.protected_hardlinks`).
        Err(_) => {
            let rights = Rights::of(from)?;
            let mut source = File::open(from).map_err(Error::io("read", from))?;
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(rights.mode)
                .open(to)
                .map_err(Error::io("create", to))?;
            io::copy(&mut source, &mut file).map_err(Error::io("copy", from))?;
            file.set_permissions(fs::Permissions::from_mode(rights.mode)).map_err(Error::io("create", to))?;
            give(to, &file.metadata().map_err(Error::io("stat", to))?, rights)?;
            file.sync_all().map_err(Error::io("sync", to))
        }
    }
}

/// Renames to a name that nothing has.
fn rename_new(from: &Path, to: &Path) -> Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::EXIST) => Err(Error::Exists(to.into())),
        Err(e) if is_unsupported(e) => match fs::symlink_metadata(to) {
            Ok(_) => Err(Error::Exists(to.into())),
            Err(_) => fs::rename(from, to).map_err(Error::io("rename", from)),
        },
        Err(e) => Err(Error::os("rename", from)(e)),
    }
}

fn is_unsupported(errno: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    // ENOTSUP and EOPNOTSUPP are one number on Linux, and two elsewhere.
    errno == Errno::INVAL || errno == Errno::NOSYS || errno == Errno::OPNOTSUPP || errno == Errno::NOTSUP
}

/// Removes a file, if it is there.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::Io { action: "remove", path: path.into(), source: e })
        }
        _ => Ok(()),
    }
}

fn remove_all(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::Io { action: "remove", path: path.into(), source: e })
        }
        _ => Ok(()),
    }
}

fn sync_tree(folder: &Path, depth: u32) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let entry = entry.map_err(Error::io("list", folder))?;
        if depth < DEEPEST && entry.file_type().is_ok_and(|t| t.is_dir()) {
            sync_tree(&entry.path(), depth + 1)?;
        }
    }
    sync_dir(folder)
}

/// Makes renames, links and removals in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io("sync", dir))
}
