//! The lock of a session's writer: the recorder while it records, later a process that recovers the session.
//!
//! It is a lock of the kernel (`flock`), so it ends with its holder. The file stays: if it were removed, two processes could
//! hold two locks of one name.

use std::{
    fs::{File, TryLockError},
    io,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use super::{
    SessionDir,
    error::{Error, Result},
};

/// The file's name.
const LOCK: &str = "lock";
/// Time to wait for a process that only checks whether the session is locked.
const PATIENCE: Duration = Duration::from_millis(100);

/// The right to write a session; dropping it unlocks the session.
#[derive(Debug)]
pub struct SessionLock {
    _file: File,
}

impl SessionDir {
    /// Locks the session. [`Error::InUse`] if another process has locked it.
    pub fn lock(&self) -> Result<SessionLock> {
        let path = self.lock_path();
        let file = self.folder().and_then(|folder| folder.file_or_new(LOCK)).map_err(Error::io("create", &path))?;
        let since = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(SessionLock { _file: file }),
                Err(TryLockError::WouldBlock) if since.elapsed() < PATIENCE => {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(TryLockError::WouldBlock) => return Err(Error::InUse(self.path().to_path_buf())),
                Err(TryLockError::Error(source)) => return Err(Error::Io { action: "lock", path, source }),
            }
        }
    }

    /// Whether a process records or recovers it.
    pub fn is_locked(&self) -> Result<bool> {
        let path = self.lock_path();
        let file = match self.folder().and_then(|folder| folder.file(LOCK)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(Error::Io { action: "open", path, source }),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(source)) => Err(Error::Io { action: "lock", path, source }),
        }
    }

    fn lock_path(&self) -> PathBuf {
        self.path().join(LOCK)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::process::Command;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn rejects_a_pipe_or_a_link_in_place_of_the_lock() {
        let folder = TempDir::new().unwrap();
        let session = SessionDir::at(folder.path());
        assert!(Command::new("mkfifo").arg(session.lock_path()).status().unwrap().success());
        assert!(session.lock().unwrap_err().to_string().ends_with("not a regular file"));
        assert!(session.is_locked().unwrap_err().to_string().ends_with("not a regular file"));
        std::fs::remove_file(session.lock_path()).unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), session.lock_path()).unwrap();
        assert!(session.lock().is_err());
        assert!(!folder.path().join("elsewhere").exists());
    }
}
