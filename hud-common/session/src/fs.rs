//! Opening and writing the files in a session's folders.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Write as _},
    path::Path,
};

use hud_files::{Folder, OutputFile};

use super::error::{Error, Result};

/// Suffix of a file that is being written.
pub(super) const TMP: &str = ".tmp";

/// Opens the regular file at `path` for reading.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Folder::open(folder)?.file(name(path))
}

/// A file's name in its folder.
pub(super) fn name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}

/// Writes a file into `folder` durably and atomically: on failure the previous file is unchanged. Errors name it `path`.
pub(super) fn write_whole(folder: &Folder, path: &Path, data: &[u8]) -> Result<()> {
    let target = name(path);
    let mut temporary = target.to_os_string();
    temporary.push(TMP);
    let mut file = OutputFile::create_in(folder, target, &temporary).map_err(Error::io("create", path))?;
    file.write_all(data).map_err(Error::io("write", path))?;
    file.persist_durably().map_err(Error::io("write", path))
}
