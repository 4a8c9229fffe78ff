//! A folder that is open: what is in it is opened, created, renamed and removed relative to its descriptor.
//!
//! Invariant: no symbolic link in it is followed, and no file but a regular one is opened. So nobody who may change what
//! lies in the folder can lead a reader or a writer out of it, at whatever moment they do it; and whatever becomes of the
//! folder's own name, it stays the same folder.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    vec::Vec,
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, mkdirat, openat, renameat, statat, unlinkat},
    io::Errno,
};

use super::FOLDER;

/// Of files that are created: readable by their owner only.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// An open folder.
#[derive(Debug)]
pub struct Folder(pub(super) OwnedFd);

impl Folder {
    /// Opens the folder at `path`, to read what is in it. Links on the way are followed, whoever made them; for one who
    /// writes there is [`super::open_folder`].
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = FOLDER | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Folder(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Opens a folder in it.
    pub fn folder(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let flags = FOLDER | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&self.0, name.as_ref(), flags, Mode::empty()) {
            Ok(folder) => Ok(Folder(folder)),
            // What a link gives depends on the kernel.
            Err(Errno::NOTDIR | Errno::LOOP) => Err(io::Error::new(io::ErrorKind::NotADirectory, "it is no folder")),
            Err(e) => Err(e.into()),
        }
    }

    /// Creates a folder in it, accessible to its owner only. [`io::ErrorKind::AlreadyExists`] where something is there.
    pub fn create_folder(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        mkdirat(&self.0, name.as_ref(), Mode::RWXU)?;
        self.folder(name)
    }

    /// Opens a file for reading.
    pub fn file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.open_with(name.as_ref(), OFlags::RDONLY)
    }

    /// Opens a file for reading and writing, and creates it where it is not there.
    pub fn file_or_new(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.open_with(name.as_ref(), OFlags::RDWR | OFlags::CREATE)
    }

    /// Creates a file that only its owner can read. What is there, a link for example, is not written into.
    pub fn new_file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.open_with(name.as_ref(), OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)
    }

    /// The same, of which every write goes to the end.
    pub fn new_log(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.open_with(name.as_ref(), OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL)
    }

    fn open_with(&self, name: &OsStr, flags: OFlags) -> io::Result<File> {
        match statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            // A device is not even opened, as that alone can have an effect.
            Ok(stat) if !flags.contains(OFlags::EXCL) => check_regular(&stat)?,
            Err(e) if !flags.contains(OFlags::CREATE) => return Err(e.into()),
            _ => {}
        }
        // A pipe that takes its place now does not block.
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

    /// Whether something has this name, be it a link that leads nowhere.
    pub fn has(&self, name: impl AsRef<OsStr>) -> bool {
        statat(&self.0, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// The names of all that is in it, in no order.
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

    /// Gives a file in it another name, in the place of what may have that name.
    pub fn rename(&self, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(renameat(&self.0, from.as_ref(), &self.0, to.as_ref())?)
    }

    /// Removes a file, or a link, and not what it leads to.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(unlinkat(&self.0, name.as_ref(), AtFlags::empty())?)
    }

    /// Makes renames and removals in it durable.
    pub fn sync(&self) -> io::Result<()> {
        sync(&self.0)
    }
}

/// Makes renames and removals in a folder durable, which may be open to be walked through only.
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

/// The folders in `parent` whose names begin with `prefix`, in order; none where there is no such folder.
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
