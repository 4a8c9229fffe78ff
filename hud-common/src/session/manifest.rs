//! `manifest.json`: what was recorded, where, when and how.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::Path,
    string::{String, ToString},
};

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};

/// The version that this code writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// The name of the file.
pub(super) const FILE: &str = "manifest.json";

/// What was recorded, where, when and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// The session's id: unique among sessions.
    pub id: String,
    /// The hud that wrote it.
    pub hud_version: String,
    /// Host name.
    pub host: String,
    /// Kernel release.
    pub kernel: String,
    /// CPUs online.
    pub cpus: u32,
    /// The target's process id.
    pub pid: u32,
    /// Its binary, as it sees it.
    pub exe: String,
    /// GNU build id of the binary, hexadecimal.
    pub build_id: Option<String>,
    /// Tokio's version, where the binary tells.
    pub tokio_version: Option<String>,
    /// When recording began (ns since the Unix epoch).
    pub start: i64,
    /// When it ended; absent while it goes on, and after a crash.
    pub end: Option<i64>,
    /// Why it ended.
    pub end_reason: Option<String>,
    /// How it was recorded.
    pub options: Options,
    /// `ts = clock.real + (monotonic - clock.mono)`, all over the session.
    pub clock: Clock,
    /// What each stream produced, stored and lost. `produced = stored + dropped` once the session is complete.
    #[serde(default)]
    pub streams: BTreeMap<String, StreamAccount>,
    /// What could not be watched, and why; in words for people.
    #[serde(default)]
    pub notes: std::vec::Vec<String>,
    /// Whether the recorder closed it in order.
    pub complete: bool,
}

/// How a session was recorded.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Options {
    /// CPU samples a second and CPU.
    pub freq: u32,
    /// `auto`, `exact` or `off`.
    pub polls: String,
    /// Anything that a later version adds.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// The two clocks at one instant, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Clock {
    /// CLOCK_MONOTONIC.
    pub mono: i64,
    /// CLOCK_REALTIME.
    pub real: i64,
}

impl Clock {
    /// The epoch time of a monotonic instant.
    pub fn epoch(&self, mono: u64) -> i64 {
        let mono = i64::try_from(mono).unwrap_or(i64::MAX);
        self.real.saturating_add(mono.saturating_sub(self.mono))
    }
}

/// The account of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamAccount {
    /// Events that came to be in the kernel.
    pub produced: u64,
    /// Rows in the session.
    pub stored: u64,
    /// Events lost on the way; `drops` says when and where.
    pub dropped: u64,
}

impl Manifest {
    /// Reads the manifest of the session at `session`.
    pub fn read(session: &Path) -> Result<Self> {
        let path = session.join(FILE);
        let not = |why: String| Error::NotASession { path: session.to_path_buf(), why };
        let text = fs::read_to_string(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound if session.is_dir() => not("it has no manifest.json".into()),
            io::ErrorKind::NotFound => not("there is no such folder".into()),
            io::ErrorKind::NotADirectory => not("it is no folder".into()),
            _ => Error::Io { action: "read", path: path.clone(), source: e },
        })?;
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let version: Version =
            serde_json::from_str(&text).map_err(|e| not(std::format!("its manifest.json does not parse: {e}")))?;
        if version.format_version > FORMAT_VERSION {
            return Err(Error::Newer {
                path: session.to_path_buf(),
                found: version.format_version,
                known: FORMAT_VERSION,
            });
        }
        serde_json::from_str(&text).map_err(Error::damaged(&path))
    }

    /// Writes the manifest so that a reader sees the old one or the new one, never a part.
    pub fn write(&self, session: &Path) -> Result<()> {
        let path = session.join(FILE);
        let tmp = session.join("manifest.json.tmp");
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| Error::Damaged { path: path.clone(), why: e.to_string() })?;
        let mut file = super::layout::create(&tmp)?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.write_all(b"\n"))
            .and_then(|()| file.sync_all())
            .map_err(Error::io("write", &tmp))?;
        fs::rename(&tmp, &path).map_err(Error::io("rename", &tmp))?;
        super::layout::sync_dir(session)
    }
}
