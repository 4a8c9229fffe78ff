//! Where a session's files lie, and that only their owner may read them.

use std::{
    ffi::OsStr,
    fmt, format,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    string::String,
    sync::Arc,
    vec::Vec,
};

use super::{
    InflightReader, ReadAt, Table, VerifiedFile,
    error::{Error, Result},
    lock::SessionLock,
    manifest::{MANIFEST_FILE, Manifest},
};
use crate::{
    clean::clean,
    files::{self, Folder, OutputFile},
};

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
    /// The folder itself, for one who writes: whatever becomes of its name, nothing is written elsewhere.
    held: Option<Arc<Folder>>,
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
        let folder = folder.create_folder(name).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => Error::Exists(root.to_path_buf()),
            _ => Error::Io { action: "create", path: root.to_path_buf(), source: e },
        })?;
        let session = SessionDir { held: Some(Arc::new(folder)), ..SessionDir::at(root).with_id(manifest) };
        let lock = session
            .lock()
            .and_then(|lock| session.write_manifest(manifest).map(|()| lock))
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
        SessionDir { root: root.to_path_buf(), held: None, elsewhere: None, id: None }
    }

    /// The session whose files are `files`; errors and names speak of `root`.
    pub fn elsewhere(root: &Path, files: Arc<dyn Elsewhere>) -> Self {
        SessionDir { root: root.to_path_buf(), held: None, elsewhere: Some(files), id: None }
    }

    /// The same, with its folder open for as long as this is kept, for one who writes. A link of another user's on the way
    /// to it is refused.
    pub fn held(&self) -> Result<Self> {
        if self.held.is_some() {
            return Ok(self.clone());
        }
        let folder = files::open_folder(&self.root).map_err(Error::io("open", &self.root))?;
        Ok(SessionDir { held: Some(Arc::new(folder)), ..self.clone() })
    }

    /// The session's folder, open: what is done in it by its methods is led nowhere else.
    pub fn folder(&self) -> io::Result<Arc<Folder>> {
        match &self.held {
            Some(folder) => Ok(Arc::clone(folder)),
            None => Folder::open(&self.root).map(Arc::new),
        }
    }

    /// The same, of the session whose manifest this is: segments of others are then rejected.
    pub fn with_id(self, manifest: &Manifest) -> Self {
        SessionDir { id: (!manifest.id.is_empty()).then(|| manifest.id.as_str().into()), ..self }
    }

    /// What a segment's footer, and a log's schema, say of where it belongs.
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

    /// Opens a sealed segment. One of another session, table or number is [`Error::Foreign`].
    pub fn open_sealed(&self, table: Table, number: u32) -> Result<VerifiedFile> {
        let path = self.segment(table, number);
        let file = match &self.elsewhere {
            None => {
                let file = self.open_table(table)?.file(name(&path)).map_err(Error::io("open", &path))?;
                VerifiedFile::of_file(file, &path)?
            }
            Some(files) => VerifiedFile::over(files.open(table, number).map_err(Error::io("open", &path))?, &path)?,
        };
        match (self.place(table, number), file.place()) {
            (Some(here), Some(there)) if here != there => {
                let why = format!("it is another segment: {}", clean(there));
                Err(Error::Foreign { path, why })
            }
            _ => Ok(file),
        }
    }

    /// Opens an in-flight log. One of another session, table or number gives [`Error::Foreign`] in place of rows.
    pub fn open_log(&self, table: Table, number: u32) -> Result<InflightReader> {
        let path = self.log(table, number);
        let file = self.open_table(table)?.file(name(&path)).map_err(Error::io("open", &path))?;
        Ok(InflightReader::of_file(table, file, &path).at(self.place(table, number)))
    }

    /// The size of a sealed segment (bytes).
    pub fn size_of(&self, table: Table, number: u32) -> Result<u64> {
        let path = self.segment(table, number);
        match &self.elsewhere {
            None => self.open_table(table)?.size(name(&path)),
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

    /// A table's folder. What is at its place and is no folder, a link for example, is damage.
    pub(super) fn open_table(&self, table: Table) -> Result<Folder> {
        let path = self.table(table);
        let folder = self.folder().and_then(|session| session.folder(table.name()));
        folder.map_err(|e| match e.kind() {
            io::ErrorKind::NotADirectory => Error::Damaged { path, why: "it is no folder".into() },
            _ => Error::Io { action: "open", path, source: e },
        })
    }

    /// The same, where it is there.
    pub(super) fn find_table(&self, table: Table) -> Result<Option<Folder>> {
        match self.open_table(table) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            folder => folder.map(Some),
        }
    }

    /// Makes a table's folder if it is not there.
    pub(super) fn create_table(&self, table: Table) -> Result<Folder> {
        match self.folder().and_then(|session| session.create_folder(table.name())) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                Err(Error::Io { action: "create", path: self.table(table), source: e })
            }
            Err(_) => self.open_table(table),
            Ok(folder) => Ok(folder),
        }
    }

    /// Writes a segment, so that it is there whole and durably, or not at all: what was there before is then still.
    pub(super) fn write_segment(&self, table: Table, number: u32, data: &[u8]) -> Result<PathBuf> {
        let path = self.segment(table, number);
        write_whole(&self.open_table(table)?, &path, data)?;
        Ok(path)
    }

    /// Removes a sealed segment.
    pub fn remove_segment(&self, table: Table, number: u32) -> Result<()> {
        self.remove(table, &self.segment(table, number))
    }

    /// Removes a log.
    pub fn remove_log(&self, table: Table, number: u32) -> Result<()> {
        self.remove(table, &self.log(table, number))
    }

    fn remove(&self, table: Table, path: &Path) -> Result<()> {
        self.open_table(table)?.remove(name(path)).map_err(Error::io("remove", path))
    }

    /// Whether there is a sealed segment of this number, or something in its place.
    pub fn has_segment(&self, table: Table, number: u32) -> bool {
        self.open_table(table).is_ok_and(|folder| folder.has(name(&self.segment(table, number))))
    }

    /// Whether there is a log of this number, or something in its place.
    pub fn has_log(&self, table: Table, number: u32) -> bool {
        self.open_table(table).is_ok_and(|folder| folder.has(name(&self.log(table, number))))
    }

    /// Reads what was recorded, where, when and how.
    pub fn manifest(&self) -> Result<Manifest> {
        Manifest::of(self)
    }

    /// Writes the manifest so that a reader sees the old one or the new one, never a part.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        let path = self.root.join(MANIFEST_FILE);
        let folder = self.folder().map_err(Error::io("open", &self.root))?;
        write_whole(&folder, &path, manifest.signed_text()?.as_bytes())
    }

    fn numbered(&self, table: Table, suffix: &str) -> Result<Vec<(u32, PathBuf)>> {
        if let Some(files) = &self.elsewhere {
            let numbers = if suffix == SEALED { files.sealed(table) } else { Vec::new() };
            return Ok(numbers.into_iter().map(|number| (number, self.segment(table, number))).collect());
        }
        let dir = self.table(table);
        let Some(folder) = self.find_table(table)? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for name in folder.names().map_err(Error::io("list", &dir))? {
            // As it is written, so that no two files have one number.
            let digits = name.to_str().and_then(|n| n.strip_suffix(suffix));
            let number: Option<u32> = digits.and_then(|d| d.parse().ok().filter(|n| format!("{n:06}") == d));
            if let Some(number) = number {
                found.push((number, dir.join(name)));
            }
        }
        found.sort();
        Ok(found)
    }
}

/// Opens the file at `path` for reading, if it is a regular one.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Folder::open(folder)?.file(name(path))
}

/// What a file is called in its folder.
pub(super) fn name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}

/// Puts a file into `folder` that is there whole and durably, or not at all: what was there before is then still. Errors
/// call it `path`.
fn write_whole(folder: &Folder, path: &Path, data: &[u8]) -> Result<()> {
    let target = name(path);
    let mut temporary = target.to_os_string();
    temporary.push(TMP);
    let mut file = OutputFile::create_in(folder, target, &temporary).map_err(Error::io("create", path))?;
    file.write_all(data).map_err(Error::io("write", path))?;
    file.persist_durably().map_err(Error::io("write", path))
}
