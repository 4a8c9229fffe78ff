//! Creating a session and opening one.

use std::{fs, io, path::Path};

use super::{
    SessionDir,
    error::{Error, Result},
    lock::SessionLock,
    manifest::Manifest,
};

impl SessionDir {
    /// Creates the folder of a new session, readable by its owner only, and locks it. Never writes into an existing folder, and
    /// follows no link of another user on the path.
    pub fn create(root: &Path, manifest: &Manifest) -> Result<(Self, SessionLock)> {
        let name = root.file_name().ok_or_else(|| Error::Exists(root.to_path_buf()))?;
        let parent = root.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = hud_files::create_folder(parent).map_err(Error::io("create", parent))?;
        let folder = folder.create_folder(name).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => Error::Exists(root.to_path_buf()),
            _ => Error::Io { action: "create", path: root.to_path_buf(), source: e },
        })?;
        let session = SessionDir::at(root).with_id(manifest).with_folder(folder);
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
}
