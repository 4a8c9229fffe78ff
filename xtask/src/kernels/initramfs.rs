//! The guest's root file system: an archive in the format `newc` of cpio, which the kernel unpacks into memory.
//!
//! Not compressed: an emulated CPU unpacks slowly.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::debian;
use crate::sh::{command, succeeds};

const INIT: &str = include_str!("init.sh");
/// For programs that look up their user.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\n";
const GROUP: &str = "root:x:0:\nuser:x:1000:\n";

const FOLDER: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const READABLE: u32 = 0o100_644;

/// A program of the guest.
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    /// Its name in the guest.
    pub(crate) name: &'static str,
    /// Whether its debug information can be removed: hud-record reads that of the recorded program.
    pub(crate) is_stripped: bool,
}

/// Writes an initramfs with busybox, setpriv, `programs` and the shared libraries that they need, into `folder`.
pub(crate) fn build(programs: &[Program], folder: &Path) -> Result<PathBuf> {
    let busybox = find_or_install("busybox", "busybox-static")?;
    let setpriv = find_or_install("setpriv", "util-linux")?;
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).with_context(|| format!("failed to write {}", folder.display()))?;

    let path = folder.join("initramfs");
    let file = fs::File::create(&path).with_context(|| format!("failed to write {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    archive.file("init", EXECUTABLE, INIT.as_bytes())?;
    archive.file("etc/passwd", READABLE, PASSWD.as_bytes())?;
    archive.file("etc/group", READABLE, GROUP.as_bytes())?;
    for name in ["dev", "proc", "root", "sys", "tmp"] {
        archive.folder(name)?;
    }
    let mut libraries = BTreeSet::new();
    let mut add = |place: &str, from: &Path| -> Result<()> {
        libraries.extend(libraries_of(from));
        archive.file(place, EXECUTABLE, &read(from)?)
    };
    add("bin/busybox", &busybox)?;
    add("usr/bin/setpriv", &setpriv)?;
    for program in programs {
        let stripped = folder.join(program.name);
        let strip = || succeeds(command("strip").arg("--strip-debug").arg("-o").arg(&stripped).arg(&program.path));
        let from = if program.is_stripped && strip() { &stripped } else { &program.path };
        add(&format!("hud/{}", program.name), from)?;
    }
    for library in libraries {
        archive.file(library.trim_start_matches('/'), EXECUTABLE, &read(Path::new(&library))?)?;
    }
    archive.finish()?;
    Ok(path)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("failed to read {}", path.display()))
}

fn find_or_install(program: &str, package: &str) -> Result<PathBuf> {
    if let Some(found) = find(program) {
        return Ok(found);
    }
    debian::install(&[package])?;
    find(program).with_context(|| format!("the package {package} provides no {program}"))
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// The shared libraries of a program, and its loader; none of a static one.
fn libraries_of(program: &Path) -> Vec<String> {
    let output = command("ldd").arg(program).output();
    output.map(|output| library_paths(&String::from_utf8_lossy(&output.stdout))).unwrap_or_default()
}

/// The files that `ldd` names, each by its absolute path.
fn library_paths(ldd: &str) -> Vec<String> {
    let paths = ldd.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    // A line that ends in a colon would be the program itself.
    paths.filter(|path| !path.ends_with(':')).map(str::to_owned).collect()
}

/// An archive being written.
struct Archive<W> {
    out: W,
    written: usize,
    folders: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    fn new(out: W) -> Self {
        Self { out, written: 0, folders: BTreeSet::new() }
    }

    /// Adds a folder, and those above it, unless they are there.
    fn folder(&mut self, name: &str) -> Result<()> {
        let ends = name.match_indices('/').map(|(at, _)| at).chain([name.len()]);
        for folder in ends.filter_map(|end| name.get(..end)) {
            if self.folders.insert(folder.to_owned()) {
                self.entry(folder, FOLDER, &[])?;
            }
        }
        Ok(())
    }

    /// Adds a file, and the folders above it.
    fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        if let Some((folder, _)) = name.rsplit_once('/') {
            self.folder(folder)?;
        }
        self.entry(name, mode, content)
    }

    fn finish(mut self) -> Result<()> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.out.flush()?)
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len()).with_context(|| format!("{name} is larger than 4 GiB"))?;
        let name_size = u32::try_from(name.len() + 1)?;
        // inode, mode, uid, gid, links, time, size, device (2 fields), device number (2 fields), length of the name,
        // checksum
        let fields = [0, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.write(header.as_bytes())?;
        self.write(name.as_bytes())?;
        self.write(&[0])?;
        self.pad()?;
        self.write(content)?;
        self.pad()
    }

    /// Names and contents start at multiples of 4 bytes.
    fn pad(&mut self) -> Result<()> {
        let missing = self.written.next_multiple_of(4) - self.written;
        self.write(&[0; 3][..missing])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).context("failed to write the initramfs")?;
        self.written += bytes.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_library_paths_from_ldd() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(library_paths(ldd), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert!(library_paths("\tnot a dynamic executable\n").is_empty());
    }

    #[test]
    fn writes_each_folder_once_and_before_its_files() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.file("a/b/one", READABLE, b"12345").unwrap();
        archive.file("a/b/two", READABLE, b"").unwrap();
        archive.finish().unwrap();
        assert_eq!(names(&bytes), ["a", "a/b", "a/b/one", "a/b/two", "TRAILER!!!"]);
    }

    /// The names in an archive, by the offsets that its headers give.
    fn names(archive: &[u8]) -> Vec<String> {
        let mut names = Vec::new();
        let mut rest = archive;
        while !rest.is_empty() {
            assert_eq!(&rest[..6], b"070701");
            let field = |at: usize| {
                let digits = std::str::from_utf8(&rest[6 + 8 * at..14 + 8 * at]).unwrap();
                usize::from_str_radix(digits, 16).unwrap()
            };
            let name_end = 110 + field(11);
            names.push(String::from_utf8(rest[110..name_end - 1].to_vec()).unwrap());
            let content = name_end.next_multiple_of(4);
            rest = &rest[(content + field(6)).next_multiple_of(4)..];
        }
        names
    }
}
