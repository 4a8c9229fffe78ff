//! Where a binary's debug files are, and how they are opened.
//!
//! The target's builder decides these paths, so they are untrusted. They are resolved inside the target's root or
//! inside hud's own, and no link leads out of either. A file is opened only once it is known to be regular: opening a
//! device can have effects, and a FIFO blocks. Only ELF programs and objects, no core dumps, are passed to the child:
//! that another file is readable for root stays in this process.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::{
            ffi::OsStrExt as _,
            fs::{FileExt as _, MetadataExt as _},
        },
    },
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};

use super::module_info::Role;

/// The roots of the file systems to search.
pub(super) struct Roots(Vec<OwnedFd>);

impl Roots {
    /// The roots of a process and of hud itself.
    pub(super) fn of(pid: Option<u32>) -> Self {
        let open =
            |path: &str| rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let mut roots = Vec::new();
        if let Some(Ok(root)) = pid.map(|pid| open(&format!("/proc/{pid}/root"))) {
            roots.push(root);
        }
        if let Ok(root) = open("/") {
            let identity = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|s| (s.st_dev, s.st_ino)).ok();
            if roots.first().is_none_or(|first| identity(first) != identity(&root)) {
                roots.push(root);
            }
        }
        Roots(roots)
    }

    /// Opens the file at a path in each root that has it.
    pub(super) fn open<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = File> + 'a {
        self.0.iter().filter_map(move |root| {
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            let at = rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).ok()?;
            open_regular(&at).ok()
        })
    }
}

/// Opens the file at a path of /proc or at a path that the user gave.
pub(super) fn open(path: &Path) -> io::Result<File> {
    open_regular(&rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

fn open_regular(at: &impl AsFd) -> io::Result<File> {
    if FileType::from_raw_mode(rustix::fs::fstat(at)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("not a regular file"));
    }
    // Reopens the file that was checked, not the path.
    let path = format!("/proc/self/fd/{}", at.as_fd().as_raw_fd());
    let file = File::from(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?);
    // The magic number and, at 16, the type: 4 is a core dump.
    let mut head = [0; 18];
    file.read_exact_at(&mut head, 0)?;
    match head {
        [0x7f, b'E', b'L', b'F', .., kind, 0] if kind != 4 => Ok(file),
        _ => Err(io::Error::other("not an ELF file")),
    }
}

/// Identity of a file's content: device, inode, size and times.
pub(super) fn identity(file: &File) -> io::Result<[i64; 6]> {
    let m = file.metadata()?;
    let signed = u64::cast_signed;
    let nanos = |s: i64, ns: i64| s.saturating_mul(1_000_000_000).saturating_add(ns);
    Ok([
        signed(m.dev()),
        signed(m.ino()),
        signed(m.size()),
        m.uid().into(),
        nanos(m.mtime(), m.mtime_nsec()),
        nanos(m.ctime(), m.ctime_nsec()),
    ])
}

/// Where a binary's separate debug file may be, the most likely first.
pub(super) fn debug_files(binary: &Path, build_id: Option<&[u8]>, link: Option<&[u8]>) -> Vec<(Role, PathBuf)> {
    const STORE: &str = "/usr/lib/debug";
    let mut found = Vec::new();
    if let Some((first, rest)) = build_id.and_then(|id| id.split_first()).filter(|(_, rest)| !rest.is_empty()) {
        let rest: String = rest.iter().take(64).map(|b| format!("{b:02x}")).collect();
        found.push((Role::DebugById, format!("{STORE}/.build-id/{first:02x}/{rest}.debug").into()));
    }
    if let (Some(name), Some(folder)) = (link.and_then(file_name), binary.parent()) {
        found.push((Role::DebugByLink, folder.join(name)));
        found.push((Role::DebugByLink, folder.join(".debug").join(name)));
        let below = folder.strip_prefix("/").unwrap_or(folder);
        found.push((Role::DebugByLink, Path::new(STORE).join(below).join(name)));
    }
    found
}

/// Where the debug information that a debug file shares with others may be. Its path is absolute or relative to the
/// file's.
pub(super) fn supplements(binary: &Path, path: &[u8], build_id: &[u8]) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = debug_files(binary, Some(build_id), None).into_iter().map(|(_, path)| path).collect();
    if let (Some(path), Some(folder)) = (bytes_path(path), binary.parent()) {
        found.push(folder.join(path));
    }
    found
}

/// Where a package of split debug information may be.
pub(super) fn package(binary: &Path) -> PathBuf {
    let mut name = binary.as_os_str().to_os_string();
    name.push(".dwp");
    name.into()
}

/// Where an object of split debug information may be: where the compiler wrote it, or beside the binary.
pub(super) fn objects(binary: &Path, folder: &[u8], path: &[u8]) -> Vec<PathBuf> {
    let Some(path) = bytes_path(path) else { return Vec::new() };
    let mut found = vec![bytes_path(folder).unwrap_or(Path::new("/")).join(path)];
    if let (Some(name), Some(beside)) = (path.file_name(), binary.parent()) {
        found.push(beside.join(name));
    }
    found
}

fn bytes_path(bytes: &[u8]) -> Option<&Path> {
    (!bytes.is_empty() && !bytes.contains(&0)).then(|| Path::new(std::ffi::OsStr::from_bytes(bytes)))
}

/// A file name without a path.
fn file_name(bytes: &[u8]) -> Option<&Path> {
    bytes_path(bytes).filter(|p| !bytes.contains(&b'/') && p.file_name() == Some(p.as_os_str()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_programs_and_objects_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        assert!(open(Path::new("/proc/self/exe")).is_ok());
        assert!(open(Path::new("/etc/passwd")).is_err());
        assert!(open(Path::new("/dev/null")).is_err());
        assert!(open(dir.path()).is_err());
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        // It must not wait for a writer.
        assert!(open(&pipe).is_err());
        let core = dir.path().join("core");
        std::fs::write(&core, b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x04\0\x3e\0").unwrap();
        assert!(open(&core).is_err());
    }

    #[test]
    fn no_link_leads_out_of_a_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("bin")).unwrap();
        let exe = std::fs::canonicalize("/proc/self/exe").unwrap();
        std::fs::copy("/bin/true", root.join("bin/inside")).unwrap();
        symlink(&exe, root.join("absolute")).unwrap();
        symlink("/bin/inside", root.join("inside")).unwrap();
        symlink("/proc/self/exe", root.join("magic")).unwrap();
        std::fs::copy("/bin/true", dir.path().join("beside")).unwrap();
        symlink("../beside", root.join("up")).unwrap();
        let roots = Roots(vec![OwnedFd::from(File::open(&root).unwrap())]);
        assert_eq!(roots.open(Path::new("/inside")).count(), 1);
        for out in ["/absolute", "/magic", "/up", "/../beside"] {
            assert_eq!(roots.open(Path::new(out)).count(), 0, "{out}");
        }
    }

    #[test]
    fn searches_debug_files_where_debuggers_do() {
        let paths = |link: &[u8]| -> Vec<String> {
            debug_files(Path::new("/srv/app"), Some(&[0xab, 0xcd, 0xef]), Some(link))
                .into_iter()
                .map(|(_, path)| path.to_str().unwrap().into())
                .collect()
        };
        let by_id = "/usr/lib/debug/.build-id/ab/cdef.debug";
        assert_eq!(
            paths(b"app.debug"),
            [by_id, "/srv/app.debug", "/srv/.debug/app.debug", "/usr/lib/debug/srv/app.debug"]
        );
        for not_a_name in [&b"../../etc/shadow"[..], b"", b"..", b".", b"a\0b", b"/etc/shadow"] {
            assert_eq!(paths(not_a_name), [by_id], "{not_a_name:?}");
        }
    }
}
