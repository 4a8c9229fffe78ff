//! The target's process, through /proc.

use std::{
    fs, io,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// A running process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its pid: the id of its thread group.
    pub pid: u32,
    /// The path of its binary in its own mount namespace.
    pub exe: PathBuf,
    /// The shared library with tokio, if tokio is not in the binary.
    pub library: Option<Mapping>,
}

/// A file mapped into the process with code in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// Address past it.
    pub end: u64,
    /// Offset in the file.
    pub offset: u64,
    /// Device (`major:minor`) and inode of the file; inode 0 if there is none.
    pub file: (String, u64),
    /// Path in the process's mount namespace; `[vdso]` and the like for the kernel's own.
    pub path: String,
}

impl Process {
    /// The process with this pid, or the one whose thread has this id.
    pub fn by_pid(pid: u32) -> Result<Self> {
        let status = read_text(format!("/proc/{pid}/status")).map_err(|e| match e.kind() {
            io::ErrorKind::PermissionDenied => Error::Denied { pid, source: e },
            _ => Error::NoSuchPid(pid),
        })?;
        let tgid =
            status.lines().find_map(|l| l.strip_prefix("Tgid:")).and_then(|v| v.trim().parse().ok()).unwrap_or(pid);
        if tgid == std::process::id() {
            return Err(Error::Myself(tgid));
        }
        let exe = fs::read_link(format!("/proc/{tgid}/exe")).map_err(|e| match e.kind() {
            io::ErrorKind::PermissionDenied => Error::Denied { pid: tgid, source: e },
            // A zombie or a kernel thread: no binary.
            _ if status.contains("\nState:\tZ") => Error::Exited(tgid),
            _ => Error::NotSupported { path: PathBuf::from(format!("pid {tgid}")), what: "a kernel thread".into() },
        })?;
        Ok(Process { pid: tgid, exe, library: None })
    }

    /// The only process whose binary or main thread has this name.
    pub fn by_name(name: &str) -> Result<Self> {
        let entries = fs::read_dir("/proc").map_err(|source| Error::Io { action: "list /proc", source })?;
        let mut found: Vec<_> = entries
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok())
            .filter(|&pid| pid != std::process::id() && is_named(pid, name))
            .collect();
        found.sort_unstable();
        match found[..] {
            [] => Err(Error::NoSuchName(name.into())),
            [pid] => Self::by_pid(pid),
            _ => Err(Error::ManyProcesses {
                name: name.into(),
                found: found.into_iter().map(|pid| (pid, command(pid))).collect(),
            }),
        }
    }

    /// A path by which hud can open the running binary, even if the file was deleted or replaced, or is in another
    /// mount namespace.
    pub fn exe_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/exe", self.pid))
    }

    /// A path by which hud can open the file with tokio: the binary, or a library.
    pub(crate) fn tokio_path(&self) -> PathBuf {
        self.library.as_ref().map_or_else(|| self.exe_path(), |library| self.mapped_file(library))
    }

    /// The path of the file with tokio in the process's mount namespace, without the suffix of a deleted file.
    pub(crate) fn tokio_file(&self) -> PathBuf {
        let path = self.library.as_ref().map_or_else(|| self.exe.to_string_lossy(), |l| l.path.as_str().into());
        bare(&path).into()
    }

    /// The mappings with code of the file with tokio.
    pub(crate) fn tokio_mappings(&self) -> Result<Vec<Mapping>> {
        let file = self.tokio_file();
        Ok(self.mappings()?.into_iter().filter(|m| Path::new(bare(&m.path)) == file).collect())
    }

    /// A path by which hud can open the mapped file itself, even if its path has another file now.
    pub fn mapped_file(&self, mapping: &Mapping) -> PathBuf {
        PathBuf::from(format!("/proc/{}/map_files/{:x}-{:x}", self.pid, mapping.start, mapping.end))
    }

    /// Opens a mapping's file. At its path may be another build by now, or a FIFO without a writer. The executable can
    /// be opened with fewer rights than other files.
    pub fn open_mapped(&self, mapping: &Mapping) -> io::Result<fs::File> {
        let exe = self.exe_path();
        let is_exe =
            fs::metadata(&exe).is_ok_and(|m| m.ino() == mapping.file.1) && Path::new(&mapping.path) == self.exe;
        let path = if is_exe { exe } else { self.mapped_file(mapping) };
        let file = fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("no regular file"));
        }
        Ok(file)
    }

    /// The memory at an address, at most `size` bytes.
    pub fn memory(&self, address: u64, size: usize) -> io::Result<Vec<u8>> {
        let memory = fs::File::open(format!("/proc/{}/mem", self.pid))?;
        let mut bytes = vec![0; size];
        memory.read_exact_at(&mut bytes, address)?;
        Ok(bytes)
    }

    /// Its threads.
    pub fn threads(&self) -> Vec<u32> {
        let Ok(entries) = fs::read_dir(format!("/proc/{}/task", self.pid)) else {
            return Vec::new();
        };
        entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
    }

    /// A thread's name.
    pub fn thread_name(&self, tid: u32) -> Option<String> {
        let comm = read_text(format!("/proc/{}/task/{tid}/comm", self.pid)).ok()?;
        Some(comm.trim_end_matches('\n').to_string())
    }

    /// The mappings with code and a name.
    pub fn mappings(&self) -> Result<Vec<Mapping>> {
        Ok(self.code()?.into_iter().filter(|m| !m.path.is_empty()).collect())
    }

    /// All mappings with code; code from a just-in-time compiler has no name.
    pub fn code(&self) -> Result<Vec<Mapping>> {
        mappings(&PathBuf::from(format!("/proc/{}/maps", self.pid))).map_err(|e| match e.kind() {
            io::ErrorKind::PermissionDenied => Error::Denied { pid: self.pid, source: e },
            _ => Error::Exited(self.pid),
        })
    }

    /// The name of its binary, sanitised.
    pub(crate) fn name(&self) -> String {
        binary_name(&self.exe)
    }
}

/// A file of /proc as text. Names in it may be any bytes; a thread's name is cut at the 15th, even inside a character.
pub(crate) fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

/// The sanitised name of a process's binary, from the link `/proc/PID/exe`.
pub(crate) fn binary_name(exe: &Path) -> String {
    super::clean(bare(&exe.file_name().unwrap_or_default().to_string_lossy()))
}

/// A path without the kernel's suffix for deleted files.
pub(crate) fn bare(path: &str) -> &str {
    path.strip_suffix(" (deleted)").unwrap_or(path)
}

/// The executable mappings in a `maps` file.
pub(crate) fn mappings(maps: &Path) -> io::Result<Vec<Mapping>> {
    Ok(read_text(maps)?.lines().filter_map(mapping).collect())
}

/// `start-end perms offset dev inode path`; `None` without execute permission.
fn mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    let offset = fields.next()?;
    let file = (fields.next()?.into(), fields.next()?.parse().ok()?);
    let path = fields.next().unwrap_or_default().trim_start();
    if !permissions.contains('x') {
        return None;
    }
    let hex = |text| u64::from_str_radix(text, 16).ok();
    Some(Mapping { start: hex(start)?, end: hex(end)?, offset: hex(offset)?, file, path: path.into() })
}

/// Whether a process's binary or main thread has this name.
pub(super) fn is_named(pid: u32, name: &str) -> bool {
    if let Ok(exe) = fs::read_link(format!("/proc/{pid}/exe"))
        && let Some(file) = exe.file_name().and_then(|f| f.to_str())
    {
        return bare(file) == name;
    }
    // Another user's process: its exe may be unreadable, but its comm (15 bytes) is not.
    read_text(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name.get(..15).unwrap_or(name))
        && fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| !c.is_empty())
}

fn command(pid: u32) -> String {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    let command = super::demangle::clean(command.trim());
    match command.char_indices().nth(60) {
        Some((cut, _)) => format!("{}…", &command[..cut]),
        None => command,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mappings_with_code_count() {
        let line = "55d0c0a00000-55d0c0b00000 r-xp 00010000 fe:00 1234                       /srv/my app (deleted)";
        let m = mapping(line).unwrap();
        assert_eq!((m.start, m.offset, m.path.as_str()), (0x55d0c0a00000, 0x10000, "/srv/my app (deleted)"));
        assert_eq!(mapping("7f00-7f10 rw-p 00000000 00:00 0"), None);
        assert_eq!(m.file, ("fe:00".into(), 1234));
        assert_eq!(mapping("7f00-7f10 r-xp 00000000 00:00 0").unwrap().path, "");
        assert_eq!(mapping("garbage"), None);
    }

    #[test]
    fn a_thread_id_finds_its_process() {
        let child = std::process::Command::new("sleep").arg("5").spawn();
        let mut child = child.unwrap();
        // Until it has become `sleep`, the child is a fork of this test.
        while Process::by_pid(child.id()).is_ok_and(|p| p.exe == std::env::current_exe().unwrap()) {
            std::thread::yield_now();
        }
        assert_eq!(Process::by_pid(child.id()).unwrap().pid, child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(Process::by_pid(child.id()), Err(Error::NoSuchPid(_))));
        assert!(matches!(Process::by_pid(std::process::id()), Err(Error::Myself(_))));
    }
}
