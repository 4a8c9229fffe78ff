//! `manifest.json`: what was recorded, where, when and how. Its last field, `crc32`, is the checksum of all before it.

use std::{
    collections::BTreeMap,
    format,
    io::{self, Read as _},
    path::Path,
    string::{String, ToString as _},
    vec::Vec,
};

use serde::{Deserialize, Serialize};

use super::{
    SessionDir, Table,
    error::{Error, Result},
};

/// The version that this code writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// The name of the file.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Notes and options are few.
const MAX_SIZE: u64 = 16 << 20;

/// What was recorded, where, when and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// What each stream produced, stored, lost and let go. `produced = stored + dropped + expired`, exactly, once the
    /// session is complete; of one that was recovered, as far as is known.
    #[serde(default)]
    pub streams: BTreeMap<String, StreamAccount>,
    /// What the tables of events still hold, where their oldest segments have expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<Range>,
    /// The number of the oldest segment that has not expired, of each table of which one has. Written before the files
    /// go: what has a lower number is no part of the session.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub first_segment: BTreeMap<String, u32>,
    /// The id of the session before: of the target before it was started again, or of the day before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// How it was recovered, where its recorder was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// What could not be watched, and why; in words for people.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Whether the recorder closed it in order.
    pub complete: bool,
}

/// How a session was recorded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// CPU samples a second and CPU.
    pub freq: u32,
    /// `auto`, `exact` or `off`.
    pub polls: String,
    /// How stacks were walked: `auto`, `eh-frame` or `fp`.
    #[serde(default)]
    pub unwind: String,
    /// Anything that a later version adds.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// The two clocks at one instant, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Rows that retention has removed.
    #[serde(default)]
    pub expired: u64,
}

/// A stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Its start (ns since the Unix epoch).
    pub from: i64,
    /// Its end.
    pub to: i64,
}

/// What recovery found in a session whose recorder was killed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Rows that were in logs, not in sealed segments.
    pub rows_salvaged: u64,
    /// Bytes of logs that were not whole frames.
    pub bytes_cut: u64,
    /// Stacks that rows refer to and of which nothing but their id is known.
    pub unnamed_stacks: u64,
    /// Frames, modules and task types of which the same is true.
    #[serde(default)]
    pub unnamed_others: u64,
    /// Events that ended after it (ns since the Unix epoch) may be missing: at most the last 100 ms of each table
    /// before the kill, and what was still in the ring.
    pub lost_after: i64,
    /// Events of a stream that the last account knows to have come to be, and that are nowhere: at least so many were
    /// lost by the kill.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lost: BTreeMap<String, u64>,
    /// Numbers of logs of which no row was whole, by table: there is no such segment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub empty_segments: BTreeMap<String, Vec<u32>>,
    /// Numbers of sealed segments that are damaged, by table: what is in them is not told here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub damaged_segments: BTreeMap<String, Vec<u32>>,
    /// Segments and logs of another session, table or number, by their path in the session. They are set aside there, under
    /// that name and `.foreign`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_files: Vec<String>,
    /// Why the recorder ended the session, where it did so in order and its files did not last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

impl Manifest {
    /// The number of a table's oldest segment that has not expired.
    pub fn first_segment(&self, table: Table) -> u32 {
        self.first_segment.get(table.name()).copied().unwrap_or(1)
    }

    /// Reads the manifest of the session at `session`.
    pub fn read(session: &Path) -> Result<Self> {
        Self::of(&SessionDir::at(session))
    }

    /// Reads the manifest of a session.
    pub(super) fn of(session: &SessionDir) -> Result<Self> {
        let path = session.path();
        let not = |why: String| Error::NotASession { path: path.to_path_buf(), why };
        let failed = |e: io::Error| Error::Io { action: "read", path: path.join(MANIFEST_FILE), source: e };
        let folder = session.folder().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => not("there is no such folder".into()),
            io::ErrorKind::NotADirectory => not("it is no folder".into()),
            _ => failed(e),
        })?;
        let file = folder.file(MANIFEST_FILE).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => not("it has no manifest.json".into()),
            _ => failed(e),
        })?;
        let mut text = Vec::new();
        file.take(MAX_SIZE + 1).read_to_end(&mut text).map_err(failed)?;
        Self::parse(path, &text)
    }

    /// Reads the manifest that is `text`, of the session at `session`.
    pub fn parse(session: &Path, text: &[u8]) -> Result<Self> {
        let path = session.join(MANIFEST_FILE);
        let not = |why: String| Error::NotASession { path: session.to_path_buf(), why };
        if text.len() as u64 > MAX_SIZE {
            return Err(not("its manifest.json is too large to be one".into()));
        }
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let version: Version =
            serde_json::from_slice(text).map_err(|e| not(format!("its manifest.json does not parse: {e}")))?;
        if version.format_version > FORMAT_VERSION {
            return Err(Error::Newer {
                path: session.to_path_buf(),
                found: version.format_version,
                known: FORMAT_VERSION,
            });
        }
        if !is_signed(text) {
            return Err(Error::Damaged { path, why: "its checksum does not match".into() });
        }
        serde_json::from_slice(text).map_err(Error::damaged(&path))
    }

    /// The file's text, with its checksum.
    pub fn signed_text(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| Error::Damaged { path: MANIFEST_FILE.into(), why: e.to_string() })?;
        let text = text.strip_suffix("\n}").unwrap_or(&text);
        Ok(format!("{text}{}", signature(text.as_bytes())))
    }

    /// Writes the manifest so that a reader sees the old one or the new one, never a part.
    pub fn write(&self, session: &Path) -> Result<()> {
        SessionDir::at(session).write_manifest(self)
    }
}

/// What stands after the other fields: the CRC32 of all before, and the end of the object.
fn signature(text: &[u8]) -> String {
    format!(",\n  \"crc32\": \"{:08x}\"\n}}\n", crc32fast::hash(text))
}

fn is_signed(text: &[u8]) -> bool {
    let len = signature(&[]).len();
    text.len()
        .checked_sub(len)
        .and_then(|at| text.split_at_checked(at))
        .is_some_and(|(text, s)| s == signature(text).as_bytes())
}
