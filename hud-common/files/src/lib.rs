//! Output files and folders that no other user's symbolic link can redirect; `viewer` gives up root, and [`clean()`]
//! sanitizes names.
//!
//! A path is walked folder by folder, each opened relative to the one before. A symbolic link on the path is followed only
//! if it belongs to root or to the writing user. In the last folder, an output is written under a new name (`O_EXCL`,
//! `O_NOFOLLOW`) and renamed when it is complete. So a link planted at the output's name, or at a guessed temporary name, is
//! never written through. Files in a folder that others may change are accessed by its descriptor ([`Folder`]).

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs::File,
    hash::{BuildHasher as _, RandomState},
    io::{self, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, mkdirat, openat, readlinkat, renameat, statat, unlinkat},
    io::Errno,
};

mod clean;
mod folder;
#[cfg(target_os = "linux")]
pub mod viewer;

pub use clean::{clean, clean_bytes, clean_name};
use folder::FOLDER;
pub use folder::{Folder, folders_in};

/// Maximum number of links on a path, as in the kernel (`MAXSYMLINKS`).
const MOST_LINKS: usize = 40;
/// Number of names tried for a temporary file.
const ATTEMPTS: usize = 100;

/// Opens the folder at `path`. Fails if a link of another user is on the path.
pub fn open_folder(path: &Path) -> io::Result<Folder> {
    let mut links = 0;
    walk(None, path, false, &mut links).map(Folder)
}

/// Opens the folder at `path` and creates missing folders, accessible to their owner only. Fails if a link of another user is
/// on the path.
pub fn create_folder(path: &Path) -> io::Result<Folder> {
    let mut links = 0;
    walk(None, path, true, &mut links).map(Folder)
}

/// Opens the regular file at `path` for reading and writing, or creates it, readable by its owner only. Fails if a link of
/// another user is on the path or at its end.
pub fn open_or_create(path: &Path) -> io::Result<File> {
    let mut links = 0;
    let (mut folder, mut name) = parent(None, path, &mut links)?;
    loop {
        match look(&folder, &name)? {
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                let target = follow(&folder, &name, &stat, &mut links)?;
                (folder, name) = parent(Some(folder), &target, &mut links)?;
            }
            _ => return Folder(folder).file_or_new(name),
        }
    }
}

/// A file that is being written, readable by its owner only. [`OutputFile::persist`] gives it its name. If it is dropped
/// before, it is removed, and a previous file of that name is unchanged.
#[derive(Debug)]
pub struct OutputFile {
    file: File,
    /// Its folder, its temporary name and its final name; `None` for a device or a pipe, which is written directly.
    temporary: Option<Temporary>,
}

#[derive(Debug)]
struct Temporary {
    folder: OwnedFd,
    name: OsString,
    target: OsString,
}

impl OutputFile {
    /// Creates a file that will be at `path`.
    ///
    /// An existing regular file will be replaced. A link of root or of this user is followed; any other is an error. A device or a pipe (`/dev/stdout`) is written directly.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut links = 0;
        let (mut folder, mut name) = parent(None, path, &mut links)?;
        loop {
            let Some(stat) = look(&folder, &name)? else { return Self::temporary(folder, name) };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => return Self::temporary(folder, name),
                FileType::Directory => return Err(Errno::ISDIR.into()),
                // `/dev/stdout` ends in a link of procfs, whose target is an open file and not a path.
                FileType::Symlink if is_procfs(&folder)? => {
                    return Self::direct(&folder, &name, OFlags::empty());
                }
                FileType::Symlink => {
                    let target = follow(&folder, &name, &stat, &mut links)?;
                    (folder, name) = parent(Some(folder), &target, &mut links)?;
                }
                FileType::CharacterDevice => return Self::direct(&folder, &name, OFlags::NOFOLLOW),
                // The owner of a pipe can read the output.
                FileType::Fifo if is_trusted(stat.st_uid) => return Self::direct(&folder, &name, OFlags::NOFOLLOW),
                _ => return Err(io::Error::other("it is no regular file")),
            }
        }
    }

    /// Creates the file `target` of a folder under the name `temporary`. A file of that name, left by a killed writer, is
    /// removed.
    pub fn create_in(folder: &Folder, target: &OsStr, temporary: &OsStr) -> io::Result<Self> {
        match folder.remove(temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = folder.new_file(temporary)?;
        let folder = folder.0.try_clone()?;
        let temporary = Temporary { folder, name: temporary.to_owned(), target: target.to_owned() };
        Ok(OutputFile { file, temporary: Some(temporary) })
    }

    fn temporary(folder: OwnedFd, target: OsString) -> io::Result<Self> {
        let folder = Folder(folder);
        for attempt in 0..ATTEMPTS {
            let name = OsString::from(format!(".hud-{:016x}.part", RandomState::new().hash_one(attempt)));
            match folder.new_file(&name) {
                Ok(file) => {
                    let temporary = Temporary { folder: folder.0, name, target };
                    return Ok(OutputFile { file, temporary: Some(temporary) });
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn direct(folder: &OwnedFd, name: &OsStr, flags: OFlags) -> io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::CLOEXEC | flags;
        let file = openat(folder, name, flags, Mode::empty())?;
        Ok(OutputFile { file: file.into(), temporary: None })
    }

    /// Renames it to its final name.
    pub fn persist(mut self) -> io::Result<()> {
        self.place()
    }

    /// The same, durably: after a crash, either the complete file or the previous one has the name.
    pub fn persist_durably(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        let folder = self.temporary.as_ref().map(|temporary| temporary.folder.try_clone()).transpose()?;
        self.place()?;
        folder.as_ref().map_or(Ok(()), folder::sync)
    }

    /// Renames it before it is complete: for output that is read while it grows, or whose writer is about to lose the right to
    /// rename it.
    pub fn place(&mut self) -> io::Result<()> {
        if let Some(Temporary { folder, name, target }) = &self.temporary {
            renameat(folder, name.as_os_str(), folder, target.as_os_str())?;
            self.temporary = None;
        }
        Ok(())
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some(Temporary { folder, name, .. }) = &self.temporary {
            let _ = unlinkat(folder, name.as_os_str(), AtFlags::empty());
        }
    }
}

/// The folder of a path's last name, and that name.
fn parent(base: Option<OwnedFd>, path: &Path, links: &mut usize) -> io::Result<(OwnedFd, OsString)> {
    // A trailing slash means a folder.
    let name = path.file_name().filter(|name| path.as_os_str().as_bytes().ends_with(name.as_bytes()));
    let name = name.ok_or(Errno::ISDIR)?.to_owned();
    let folder = walk(base, path.parent().unwrap_or(Path::new("")), false, links)?;
    Ok((folder, name))
}

/// Opens a folder, relative to `base` or to the current one.
fn walk(base: Option<OwnedFd>, path: &Path, create: bool, links: &mut usize) -> io::Result<OwnedFd> {
    let flags = FOLDER | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &str| openat(CWD, path, flags, Mode::empty());
    let mut folder = base.map_or_else(|| open("."), Ok)?;
    let mut names: VecDeque<OsString> = names(path).collect();
    while let Some(name) = names.pop_front() {
        if name == "/" {
            folder = open("/")?;
            continue;
        }
        folder = match openat(&folder, &name, flags | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(next) => next,
            // The error for a link depends on the kernel.
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let stat = look(&folder, &name)?.ok_or(Errno::NOENT)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                    return Err(Errno::NOTDIR.into());
                }
                let target = follow(&folder, &name, &stat, links)?;
                for name in self::names(&target).collect::<Vec<_>>().into_iter().rev() {
                    names.push_front(name);
                }
                folder
            }
            Err(Errno::NOENT) if create => {
                match mkdirat(&folder, &name, Mode::RWXU) {
                    // If it was created meanwhile, opening it checks that it is a folder.
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                openat(&folder, &name, flags | OFlags::NOFOLLOW, Mode::empty())?
            }
            Err(e) => return Err(e.into()),
        };
    }
    Ok(folder)
}

/// The components of a path; the first one is `/` if it is absolute.
fn names(path: &Path) -> impl Iterator<Item = OsString> {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    parts.map(|part| part.as_os_str().to_owned())
}

/// The target of a link, if it may be followed.
fn follow(folder: &OwnedFd, name: &OsStr, stat: &Stat, links: &mut usize) -> io::Result<PathBuf> {
    *links += 1;
    if *links > MOST_LINKS {
        return Err(Errno::LOOP.into());
    }
    if !is_trusted(stat.st_uid) {
        let name = name.to_string_lossy();
        let why = format!("{} is a symbolic link of user {}", crate::clean(&name), stat.st_uid);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    let target = readlinkat(folder, name, Vec::new())?;
    Ok(PathBuf::from(OsStr::from_bytes(target.as_bytes())))
}

fn look(folder: &OwnedFd, name: &OsStr) -> io::Result<Option<Stat>> {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Whether links and pipes of this user are trusted: it is root, or the file system user of this thread.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || file_system_uid() == Some(uid)
}

/// The file system user of this thread. There is no system call that only reads it.
#[cfg(target_os = "linux")]
fn file_system_uid() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    uids.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(not(target_os = "linux"))]
fn file_system_uid() -> Option<u32> {
    Some(rustix::process::geteuid().as_raw())
}

#[cfg(target_os = "linux")]
fn is_procfs(folder: &OwnedFd) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(folder)?.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

#[cfg(not(target_os = "linux"))]
fn is_procfs(_: &OwnedFd) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, lchown, symlink},
    };

    use super::*;

    const NOBODY: u32 = 65_534;

    /// Creates a link of another user, if the tests have the right to.
    fn plant(target: &Path, link: &Path) -> bool {
        symlink(target, link).unwrap();
        lchown(link, Some(NOBODY), Some(NOBODY)).is_ok()
    }

    fn write(path: &Path) -> io::Result<()> {
        let mut file = OutputFile::create(path)?;
        file.write_all(b"new")?;
        file.persist()
    }

    fn entries(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn replaces_a_file_only_by_a_complete_output() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        fs::write(&path, "old").unwrap();
        let mut file = OutputFile::create(&path).unwrap();
        file.write_all(b"ne").unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), entries(folder.path())), (&b"old"[..], 2));
        drop(file);
        assert_eq!((fs::read(&path).unwrap().as_slice(), entries(folder.path())), (&b"old"[..], 1));
        write(&path).unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), entries(folder.path())), (&b"new"[..], 1));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut placed = OutputFile::create(&path).unwrap();
        placed.place().unwrap();
        placed.write_all(b"placed").unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), entries(folder.path())), (&b"placed"[..], 1));
        assert!(OutputFile::create(folder.path()).is_err());
        assert!(OutputFile::create(&folder.path().join("missing/out")).is_err());
        assert!(OutputFile::create(&folder.path().join("out/")).is_err());
    }

    #[test]
    fn rejects_links_of_another_user() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("shadow"), "kept").unwrap();
        fs::create_dir(at("private")).unwrap();
        let may_plant = plant(&at("shadow"), &at("out")) && plant(&at("private"), &at("folder"));
        // A former name of the temporary file.
        symlink(at("shadow"), at("svg.tmp")).unwrap();
        write(&at("svg")).unwrap();
        assert_eq!(fs::read(at("shadow")).unwrap(), b"kept");
        if !may_plant {
            return;
        }
        for path in ["out", "folder/out"] {
            let error = write(&at(path)).unwrap_err();
            assert!(error.to_string().contains("is a symbolic link of user 65534"), "{path}: {error}");
        }
        for path in ["folder", "folder/deep/er"] {
            assert_eq!(create_folder(&at(path)).unwrap_err().kind(), io::ErrorKind::PermissionDenied, "{path}");
        }
        assert_eq!((fs::read(at("shadow")).unwrap().as_slice(), entries(&at("private"))), (&b"kept"[..], 0));
    }

    #[test]
    fn follows_own_links() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("private")).unwrap();
        symlink("private/out", at("out")).unwrap();
        symlink(at("private"), at("folder")).unwrap();
        symlink("loop", at("loop")).unwrap();
        write(&at("out")).unwrap();
        assert!(fs::symlink_metadata(at("out")).unwrap().is_symlink());
        assert_eq!(fs::read(at("private/out")).unwrap(), b"new");
        write(&at("folder/./deep/../other")).unwrap_err();
        create_folder(&at("folder/deep")).unwrap();
        write(&at("folder/./deep/../other")).unwrap();
        assert_eq!(fs::read(at("private/other")).unwrap(), b"new");
        assert!(write(&at("loop")).is_err() && open_folder(&at("loop")).is_err());
    }

    #[test]
    fn writes_directly_to_devices_and_open_files() {
        write(Path::new("/dev/null")).unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("open");
        let open = File::create(&path).unwrap();
        write(Path::new(&format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open)))).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
