//! Output files and folders that no other user's symbolic link can redirect.
//!
//! A path is walked folder by folder, each opened relative to the one before. A symbolic link on the way is followed
//! only if it belongs to root or to the user who writes. In the folder where the walk ends, an output is written under a
//! name that did not exist (`O_EXCL`, `O_NOFOLLOW`) and renamed when it is complete. A link that someone planted at the
//! output's name, or at a temporary name that could be guessed, is therefore never written through. What lies in a folder
//! that others may change is reached by its descriptor ([`Folder`]).

use std::{
    borrow::ToOwned as _,
    collections::VecDeque,
    ffi::{OsStr, OsString},
    format,
    fs::File,
    hash::{BuildHasher as _, RandomState},
    io::{self, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Component, Path, PathBuf},
    vec::Vec,
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, mkdirat, openat, readlinkat, renameat, statat, unlinkat},
    io::Errno,
};

mod folder;

pub use folder::{Folder, folders_in};

/// Links on the way at most, as in the kernel (`MAXSYMLINKS`).
const MOST_LINKS: usize = 40;
/// Names that are tried for a temporary file.
const ATTEMPTS: usize = 100;

/// To walk through a folder takes no right to read it.
#[cfg(target_os = "linux")]
const FOLDER: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const FOLDER: OFlags = OFlags::RDONLY;

/// Opens the folder at `path`. A link of another user's on the way is refused.
pub fn open_folder(path: &Path) -> io::Result<Folder> {
    let mut links = 0;
    walk(None, path, false, &mut links).map(Folder)
}

/// Opens the folder at `path` and makes what of it is missing, accessible to its owner only. A link of another user's on
/// the way is refused.
pub fn create_folder(path: &Path) -> io::Result<Folder> {
    let mut links = 0;
    walk(None, path, true, &mut links).map(Folder)
}

/// Opens the file at `path` for reading and writing, and creates it, readable by its owner only, where it is not there. A
/// link of another user's is refused, on the way and at the end, and so is what is no regular file.
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

/// A file that is being written, readable by its owner only. It has its name once [`OutputFile::persist`] succeeds; if it
/// is dropped before, it is removed, and what was at its name is as before.
#[derive(Debug)]
pub struct OutputFile {
    file: File,
    /// Where it is, under which name, and which name it will have; none for a device or a pipe, which is written directly.
    temporary: Option<Temporary>,
}

#[derive(Debug)]
struct Temporary {
    folder: OwnedFd,
    name: OsString,
    target: OsString,
}

impl OutputFile {
    /// Begins a file that will be at `path`.
    ///
    /// A regular file that is there will be replaced. A link of root's or of this user's is followed; any other is an
    /// error. A device or a pipe (`/dev/stdout`) is written directly.
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
                // The user who made a pipe reads what is written to it.
                FileType::Fifo if is_trusted(stat.st_uid) => return Self::direct(&folder, &name, OFlags::NOFOLLOW),
                _ => return Err(io::Error::other("it is no regular file")),
            }
        }
    }

    /// Begins the file `target` of a folder, which is called `temporary` until then. What a writer left under that name who
    /// was killed is removed.
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

    /// Gives it its name.
    pub fn persist(mut self) -> io::Result<()> {
        self.place()
    }

    /// The same, durably: it is there whole after a crash, or what was there before.
    pub fn persist_durably(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        let folder = self.temporary.as_ref().map(|temporary| temporary.folder.try_clone()).transpose()?;
        self.place()?;
        folder.as_ref().map_or(Ok(()), folder::sync)
    }

    /// Gives it its name now, to be written under it: for output that is read while it grows, or whose writer is about to
    /// lose the right to rename it.
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

/// The folder that a path's last name is in, and that name.
fn parent(base: Option<OwnedFd>, path: &Path, links: &mut usize) -> io::Result<(OwnedFd, OsString)> {
    // A name with a slash behind it can only be a folder's.
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
            // What it is of these depends on the kernel.
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
                    // Someone else was faster; what it is shows when it is opened.
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

/// The names that a path consists of, the first one `/` if it is absolute.
fn names(path: &Path) -> impl Iterator<Item = OsString> {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    parts.map(|part| part.as_os_str().to_owned())
}

/// Where a link leads, if it may be followed.
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

/// Whether links and pipes of this user can be relied on: they are root's, or of the user as whom this thread works on
/// files.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || file_system_uid() == Some(uid)
}

/// The user as whom this thread works on files. The system has no call that only asks for it.
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
        string::ToString as _,
    };

    use super::*;

    const NOBODY: u32 = 65_534;

    /// A link of another user's, where the tests may make one.
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
    fn an_output_appears_whole_and_replaces_what_was_there() {
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
    fn links_planted_by_another_user_are_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("shadow"), "kept").unwrap();
        fs::create_dir(at("private")).unwrap();
        let may_plant = plant(&at("shadow"), &at("out")) && plant(&at("private"), &at("folder"));
        // The name of the temporary file as it once was.
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
    fn own_links_are_followed() {
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
    fn devices_and_open_files_are_written_directly() {
        write(Path::new("/dev/null")).unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("open");
        let open = File::create(&path).unwrap();
        write(Path::new(&format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open)))).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
