//! Paths of a session's files. Only their owner may read them.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use hud_files::Folder;

use super::{
    Table,
    error::{Error, Result},
    fs::{name, write_whole},
    read_at::{OnDisk, ReadAt},
};

/// Suffix of a sealed segment.
const SEALED: &str = ".parquet";
/// Suffix of a log.
const INFLIGHT: &str = ".arrows.inflight";

/// A session's folder, or its files elsewhere.
#[derive(Clone, Debug)]
pub struct SessionDir {
    root: PathBuf,
    /// The open folder, for writers: if its path is exchanged, nothing is written elsewhere.
    held: Option<Arc<Folder>>,
    elsewhere: Option<Arc<dyn Elsewhere>>,
    /// The session's id, if its manifest was read.
    id: Option<Arc<str>>,
}

/// The sealed segments of a session in an archive or at an object store. It can only be read.
pub trait Elsewhere: fmt::Debug + Send + Sync {
    /// The numbers of a table's sealed segments, in order.
    fn sealed(&self, table: Table) -> Vec<u32>;

    /// Opens one.
    fn open(&self, table: Table, number: u32) -> io::Result<Arc<dyn ReadAt>>;
}

/// A segment that exists as a log only.
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
    /// The session at `root`, to be locked before anything of it is read.
    pub fn at(root: &Path) -> Self {
        SessionDir { root: root.to_path_buf(), held: None, elsewhere: None, id: None }
    }

    /// The session with these files; errors and names use `root`.
    pub fn elsewhere(root: &Path, files: Arc<dyn Elsewhere>) -> Self {
        SessionDir { root: root.to_path_buf(), held: None, elsewhere: Some(files), id: None }
    }

    /// The same, with its folder held open, for writers. Fails if a link of another user is on the path.
    pub fn held(&self) -> Result<Self> {
        if self.held.is_some() {
            return Ok(self.clone());
        }
        let folder = hud_files::open_folder(&self.root).map_err(Error::io("open", &self.root))?;
        Ok(self.clone().with_folder(folder))
    }

    /// The session's open folder: its methods follow no links.
    pub fn folder(&self) -> io::Result<Arc<Folder>> {
        match &self.held {
            Some(folder) => Ok(Arc::clone(folder)),
            None => Folder::open(&self.root).map(Arc::new),
        }
    }

    /// The same, with the session's id: segments of other sessions are then rejected. An empty id is none.
    pub(super) fn with_session_id(self, id: &str) -> Self {
        SessionDir { id: (!id.is_empty()).then(|| id.into()), ..self }
    }

    /// The same, with its folder open.
    pub(super) fn with_folder(self, folder: Folder) -> Self {
        SessionDir { held: Some(Arc::new(folder)), ..self }
    }

    /// The place of a segment or log, as in a segment's footer and a log's schema.
    pub(super) fn place(&self, table: Table, number: u32) -> Option<String> {
        self.id.as_ref().map(|id| format!("{}/{number:06}/{id}", table.name()))
    }

    /// Whether it is a folder, and so can be written, locked and recovered.
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

    /// All in-flight logs.
    pub fn unsealed(&self) -> Result<Vec<Unsealed>> {
        let mut all = Vec::new();
        for &table in Table::ALL {
            for (number, log) in self.numbered(table, INFLIGHT)? {
                all.push(Unsealed { table, number, log });
            }
        }
        Ok(all)
    }

    /// The number for the table's next segment: one past all numbers in use.
    pub fn next_number(&self, table: Table) -> Result<u32> {
        let sealed = self.numbered(table, SEALED)?;
        let open = self.numbered(table, INFLIGHT)?;
        let last = sealed.iter().chain(&open).map(|(n, _)| *n).max();
        Ok(last.unwrap_or(0).saturating_add(1))
    }

    /// The bytes of a sealed segment.
    pub(super) fn segment_bytes(&self, table: Table, number: u32) -> Result<Arc<dyn ReadAt>> {
        let path = self.segment(table, number);
        match &self.elsewhere {
            None => {
                let file = self.open_table(table)?.file(name(&path)).map_err(Error::io("open", &path))?;
                Ok(Arc::new(OnDisk::new(file).map_err(Error::io("stat", &path))?))
            }
            Some(files) => files.open(table, number).map_err(Error::io("open", &path)),
        }
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

    /// A table's folder. [`Error::Damaged`] if its path is not a folder but a link, for example.
    pub(super) fn open_table(&self, table: Table) -> Result<Folder> {
        let path = self.table(table);
        let folder = self.folder().and_then(|session| session.folder(table.name()));
        folder.map_err(|e| match e.kind() {
            io::ErrorKind::NotADirectory => Error::Damaged { path, why: "it is no folder".into() },
            _ => Error::Io { action: "open", path, source: e },
        })
    }

    /// The same; `None` if there is none.
    pub(super) fn find_table(&self, table: Table) -> Result<Option<Folder>> {
        match self.open_table(table) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            folder => folder.map(Some),
        }
    }

    /// Creates a table's folder if there is none.
    pub(super) fn create_table(&self, table: Table) -> Result<Folder> {
        match self.folder().and_then(|session| session.create_folder(table.name())) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                Err(Error::Io { action: "create", path: self.table(table), source: e })
            }
            Err(_) => self.open_table(table),
            Ok(folder) => Ok(folder),
        }
    }

    /// Writes a segment durably and atomically: on failure the previous file is unchanged.
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

    /// Whether anything exists at the path of the sealed segment.
    pub fn has_segment(&self, table: Table, number: u32) -> bool {
        self.open_table(table).is_ok_and(|folder| folder.has(name(&self.segment(table, number))))
    }

    /// Whether anything exists at the path of the log.
    pub fn has_log(&self, table: Table, number: u32) -> bool {
        self.open_table(table).is_ok_and(|folder| folder.has(name(&self.log(table, number))))
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
            // Only the canonical form, so that no two files have one number.
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
