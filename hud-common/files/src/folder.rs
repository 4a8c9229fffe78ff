//! An open folder: files in it are opened, created, renamed and removed relative to its descriptor.
//!
//! Invariant: no symbolic link in it is followed, and only regular files are opened. So a user who may change the folder's
//! content cannot redirect a reader or a writer out of it at any time; and if the folder's own path is exchanged, it is still
//! the same folder.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, mkdirat, openat, renameat, statat, unlinkat},
    io::Errno,
};

/// Walking through a folder needs no right to read it.
#[cfg(target_os = "linux")]
pub(super) const FOLDER: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
pub(super) const FOLDER: OFlags = OFlags::RDONLY;

/// Mode of created files: accessible to their owner only.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// An open folder.
#[derive(Debug)]
pub struct Folder(pub(super) OwnedFd);

impl Folder {
    /// Opens the folder at `path` for reading. All links on the path are followed; writers use
    /// [`super::open_folder`].
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = FOLDER | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Folder(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Opens a folder in it.
    pub fn folder(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let flags = FOLDER | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&self.0, name.as_ref(), flags, Mode::empty()) {
            Ok(folder) => Ok(Folder(folder)),
            // The error for a link depends on the kernel.
            Err(Errno::NOTDIR | Errno::LOOP) => Err(io::Error::new(io::ErrorKind::NotADirectory, "it is no folder")),
            Err(e) => Err(e.into()),
        }
    }

    /// Creates a folder in it, accessible to its owner only. [`io::ErrorKind::AlreadyExists`] if something has this name.
    pub fn create_folder(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        mkdirat(&self.0, name.as_ref(), Mode::RWXU)?;
        self.folder(name)
    }

    /// Opens a file for reading.
    pub fn file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.open_with(name.as_ref(), OFlags::RDONLY)
    }

    /// Opens a file for reading and writing, and creates it if it does not exist.
    pub fn file_or_new(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.open_with(name.as_ref(), OFlags::RDWR | OFlags::CREATE)
    }

    /// Creates a file that only its owner can read. Fails if something has this name, for example a link.
    pub fn new_file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.open_with(name.as_ref(), OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)
    }

    /// The same; every write appends.
    pub fn new_log(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.open_with(name.as_ref(), OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL)
    }

    fn open_with(&self, name: &OsStr, flags: OFlags) -> io::Result<File> {
        match statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            // A device is not opened, as opening alone can have an effect.
            Ok(stat) if !flags.contains(OFlags::EXCL) => check_regular(&stat)?,
            Err(e) if !flags.contains(OFlags::CREATE) => return Err(e.into()),
            _ => {}
        }
        // If it is replaced by a pipe now, opening that does not block.
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(&self.0, name, flags, PRIVATE)?);
        check_regular(&rustix::fs::fstat(&file)?)?;
        Ok(file)
    }

    /// The size of a regular file.
    pub fn size(&self, name: impl AsRef<OsStr>) -> io::Result<u64> {
        let stat = statat(&self.0, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW)?;
        check_regular(&stat)?;
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    }

    /// Whether something has this name, including a broken link.
    pub fn has(&self, name: impl AsRef<OsStr>) -> bool {
        statat(&self.0, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// The names of all entries, unordered.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::new(readable(&self.0)?)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                names.push(name.into());
            }
        }
        Ok(names)
    }

    /// Renames a file, replacing any file that has the new name.
    pub fn rename(&self, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(renameat(&self.0, from.as_ref(), &self.0, to.as_ref())?)
    }

    /// Removes a file, or a link itself.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(unlinkat(&self.0, name.as_ref(), AtFlags::empty())?)
    }

    /// Makes renames and removals durable.
    pub fn sync(&self) -> io::Result<()> {
        sync(&self.0)
    }
}

/// Makes renames and removals in a folder durable, even if it was opened for walking only.
pub(super) fn sync(folder: &OwnedFd) -> io::Result<()> {
    Ok(rustix::fs::fsync(readable(folder)?)?)
}

fn readable(folder: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(folder, ".", flags, Mode::empty())?)
}

fn check_regular(stat: &Stat) -> io::Result<()> {
    let is = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => return Ok(()),
        FileType::Symlink => "it is a symbolic link",
        _ => "it is not a regular file",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, is))
}

/// The folders in `parent` whose names begin with `prefix`, in order; none if `parent` is not a folder.
pub fn folders_in(parent: &Path, prefix: &str) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let is_named = path.file_name().is_some_and(|name| name.as_bytes().starts_with(prefix.as_bytes()));
        if is_named && path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
