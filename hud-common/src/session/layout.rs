//! Where a session's files lie, and that only their owner may read them.

use std::{
    fmt, format,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    string::String,
    sync::Arc,
    vec::Vec,
};

use rustix::fs::{Mode, mkdirat};

use super::{
    ReadAt, Table, VerifiedFile,
    error::{Error, Result},
    lock::SessionLock,
    manifest::Manifest,
};
use crate::{clean::clean, files};

/// How the name of a sealed segment ends.
const SEALED: &str = ".parquet";
/// How the name of a log ends.
const INFLIGHT: &str = ".arrows.inflight";
/// How the name of a file ends that is not whole yet.
pub(super) const TMP: &str = ".tmp";

/// A session's folder, or what stands for one.
#[derive(Clone, Debug)]
pub struct SessionDir {
    root: PathBuf,
    elsewhere: Option<Arc<dyn Elsewhere>>,
    /// The session's id, where its manifest was read.
    id: Option<Arc<str>>,
}

/// The sealed segments of a session that is no folder: of one in an archive, or at an object store. It can only be read.
pub trait Elsewhere: fmt::Debug + Send + Sync {
    /// The numbers of a table's sealed segments, in order.
    fn sealed(&self, table: Table) -> Vec<u32>;

    /// The bytes of one.
    fn open(&self, table: Table, number: u32) -> io::Result<Arc<dyn ReadAt>>;
}

/// A segment that was being written when its recorder stopped.
#[derive(Clone, Debug)]
pub struct Unsealed {
    /// Its table.
    pub table: Table,
    /// Its number.
    pub number: u32,
    /// Its log.
    pub log: PathBuf,
}

impl SessionDir {
    /// Makes the folder of a new session, readable by its owner only, and takes it for writing. What exists is never
    /// written into, and no link of another user's is followed on the way.
    pub fn create(root: &Path, manifest: &Manifest) -> Result<(Self, SessionLock)> {
        let name = root.file_name().ok_or_else(|| Error::Exists(root.to_path_buf()))?;
        let parent = root.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = files::create_folder(parent).map_err(Error::io("create", parent))?;
        mkdirat(&folder, name, Mode::RWXU).map_err(|e| match io::Error::from(e) {
            e if e.kind() == io::ErrorKind::AlreadyExists => Error::Exists(root.to_path_buf()),
            source => Error::Io { action: "create", path: root.to_path_buf(), source },
        })?;
        let session = SessionDir::at(root).with_id(manifest);
        let lock = session
            .lock()
            .and_then(|lock| manifest.write(root).map(|()| lock))
            .inspect_err(|_| drop(fs::remove_dir_all(root)))?;
        Ok((session, lock))
    }

    /// Opens an existing session.
    pub fn open(root: &Path) -> Result<(Self, Manifest)> {
        let manifest = Manifest::read(root)?;
        Ok((SessionDir::at(root).with_id(&manifest), manifest))
    }

    /// The session at `root`, to be locked before anything of it is read.
    pub fn at(root: &Path) -> Self {
        SessionDir { root: root.to_path_buf(), elsewhere: None, id: None }
    }

    /// The session whose files are `files`; errors and names speak of `root`.
    pub fn elsewhere(root: &Path, files: Arc<dyn Elsewhere>) -> Self {
        SessionDir { root: root.to_path_buf(), elsewhere: Some(files), id: None }
    }

    /// The same, of the session whose manifest this is: segments of others are then rejected.
    pub fn with_id(self, manifest: &Manifest) -> Self {
        SessionDir { id: (!manifest.id.is_empty()).then(|| manifest.id.as_str().into()), ..self }
    }

    /// What a segment's footer says of where it belongs.
    pub(super) fn place(&self, table: Table, number: u32) -> Option<String> {
        self.id.as_ref().map(|id| format!("{}/{number:06}/{id}", table.name()))
    }

    /// Whether it is a folder, which can be written, locked and recovered.
    pub fn is_folder(&self) -> bool {
        self.elsewhere.is_none()
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// A table's folder.
    pub fn table(&self, table: Table) -> PathBuf {
        self.root.join(table.name())
    }

    /// A table's sealed segments, in order.
    pub fn segments(&self, table: Table) -> Result<Vec<PathBuf>> {
        Ok(self.sealed(table)?.into_iter().map(|(_, path)| path).collect())
    }

    /// A table's sealed segments with their numbers, in order.
    pub fn sealed(&self, table: Table) -> Result<Vec<(u32, PathBuf)>> {
        self.numbered(table, SEALED)
    }

    /// A table's in-flight logs with their numbers, in order.
    pub fn unsealed_of(&self, table: Table) -> Result<Vec<(u32, PathBuf)>> {
        self.numbered(table, INFLIGHT)
    }

    /// Segments that are in flight, or were when the recorder was killed.
    pub fn unsealed(&self) -> Result<Vec<Unsealed>> {
        let mut all = Vec::new();
        for &table in Table::ALL {
            for (number, log) in self.numbered(table, INFLIGHT)? {
                all.push(Unsealed { table, number, log });
            }
        }
        Ok(all)
    }

    /// The number for the table's next segment: one past every number in use.
    pub fn next_number(&self, table: Table) -> Result<u32> {
        let sealed = self.numbered(table, SEALED)?;
        let open = self.numbered(table, INFLIGHT)?;
        let last = sealed.iter().chain(&open).map(|(n, _)| *n).max();
        Ok(last.unwrap_or(0).saturating_add(1))
    }

    /// Opens a sealed segment.
    pub fn open_sealed(&self, table: Table, number: u32) -> Result<VerifiedFile> {
        let path = self.segment(table, number);
        let file = match &self.elsewhere {
            None => VerifiedFile::open(&path)?,
            Some(files) => VerifiedFile::over(files.open(table, number).map_err(Error::io("open", &path))?, &path)?,
        };
        match (self.place(table, number), file.place()) {
            (Some(here), Some(there)) if here != there => {
                let why = format!("it is another segment: {}", clean(there));
                Err(Error::Damaged { path, why })
            }
            _ => Ok(file),
        }
    }

    /// The size of a sealed segment (bytes).
    pub fn size_of(&self, table: Table, number: u32) -> Result<u64> {
        let path = self.segment(table, number);
        match &self.elsewhere {
            None => fs::metadata(&path).map(|m| m.len()),
            Some(files) => files.open(table, number).map(|file| file.size()),
        }
        .map_err(Error::io("stat", &path))
    }

    /// A sealed segment's path.
    pub fn segment(&self, table: Table, number: u32) -> PathBuf {
        self.table(table).join(format!("{number:06}{SEALED}"))
    }

    /// An in-flight log's path.
    pub fn log(&self, table: Table, number: u32) -> PathBuf {
        self.table(table).join(format!("{number:06}{INFLIGHT}"))
    }

    /// Makes a table's folder if it is not there.
    pub(super) fn create_table(&self, table: Table) -> Result<()> {
        let dir = self.table(table);
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                Err(Error::Io { action: "create", path: dir, source: e })
            }
            Err(_) => self.check_table(table),
            Ok(()) => Ok(()),
        }
    }

    /// That a table's folder, where there is one, is a folder of this session: through a link, files would be written
    /// or removed elsewhere.
    pub(super) fn check_table(&self, table: Table) -> Result<()> {
        let dir = self.table(table);
        match fs::symlink_metadata(&dir) {
            Ok(m) if !m.is_dir() => Err(Error::Damaged { path: dir, why: "it is no folder".into() }),
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::Io { action: "stat", path: dir, source: e }),
            _ => Ok(()),
        }
    }

    fn numbered(&self, table: Table, suffix: &str) -> Result<Vec<(u32, PathBuf)>> {
        if let Some(files) = &self.elsewhere {
            let numbers = if suffix == SEALED { files.sealed(table) } else { Vec::new() };
            return Ok(numbers.into_iter().map(|number| (number, self.segment(table, number))).collect());
        }
        let dir = self.table(table);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::Io { action: "list", path: dir, source: e }),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(Error::io("list", &dir))?.path();
            let digits = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(suffix));
            // As it is written, so that no two files have one number.
            let number: Option<u32> = digits.and_then(|d| d.parse().ok().filter(|n| format!("{n:06}") == d));
            if let Some(number) = number {
                found.push((number, path));
            }
        }
        found.sort();
        Ok(found)
    }
}

/// Creates a file that only its owner can read. What is there, a link for example, is not written into.
fn create(path: &Path) -> Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(Error::io("create", path))
}

/// Opens a file for reading, if it is a regular one. Others are not opened, as that alone can have an effect; a pipe that took
/// its place meanwhile does not block.
pub(super) fn open(path: &Path) -> io::Result<File> {
    check_regular(&fs::metadata(path)?)?;
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).and_then(regular)
}

/// The file, if it is a regular one.
pub(super) fn regular(file: File) -> io::Result<File> {
    check_regular(&file.metadata()?).map(|()| file)
}

fn check_regular(metadata: &fs::Metadata) -> io::Result<()> {
    match metadata.is_file() {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
    }
}

/// Creates a file that only its owner can read, of which every write goes to the end.
pub(super) fn create_appending(path: &Path) -> Result<File> {
    OpenOptions::new().append(true).create_new(true).mode(0o600).open(path).map_err(Error::io("create", path))
}

/// Puts a file at `path` so that it is there whole and durably, or not at all: what was there before is then still.
pub(super) fn write_whole(path: &Path, parts: &[&[u8]]) -> Result<()> {
    let mut tmp = path.as_os_str().to_os_string();
    tmp.push(TMP);
    let tmp = PathBuf::from(tmp);
    let write = || {
        // What a recorder left that was killed here.
        match fs::remove_file(&tmp) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Io { action: "remove", path: tmp.clone(), source: e });
            }
            _ => {}
        }
        let mut file = create(&tmp)?;
        parts.iter().try_for_each(|part| file.write_all(part)).map_err(Error::io("write", &tmp))?;
        file.sync_all().map_err(Error::io("sync", &tmp))?;
        fs::rename(&tmp, path).map_err(Error::io("rename", &tmp))
    };
    // The room that a part takes is the first that is needed elsewhere.
    write().inspect_err(|_| drop(fs::remove_file(&tmp)))?;
    match path.parent() {
        Some(dir) => sync_dir(dir),
        None => Ok(()),
    }
}

/// Makes renames and removals in a folder durable.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io("sync", dir))
}
