//! `manifest.json`: target, host, time, options and accounts of a recording. Its last field, `crc32`, is the checksum of all
//! bytes before it.

use std::{
    collections::BTreeMap,
    io::{self, Read as _},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{
    SessionDir, Table,
    error::{Error, Result},
    fs::write_whole,
};

/// The version that this code writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// The name of the file.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Maximum size of the file: notes and options are few.
const MAX_SIZE: u64 = 16 << 20;

/// Target, host, time, options and accounts of a recording.
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
    /// Path of its binary, in its mount namespace.
    pub exe: String,
    /// GNU build id of the binary, hexadecimal.
    pub build_id: Option<String>,
    /// Tokio's version, if the binary contains it.
    pub tokio_version: Option<String>,
    /// Name and version of the executor that the binary contains instead of tokio, if hud recognizes it. Its tasks are not
    /// recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor: Option<String>,
    /// The container that the target runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// When recording began (ns since the Unix epoch).
    pub start: i64,
    /// When it ended; absent during recording and after a crash.
    pub end: Option<i64>,
    /// Reason for its end.
    pub end_reason: Option<String>,
    /// Options of the recording.
    pub options: Options,
    /// `ts = clock.real + (monotonic - clock.mono)` throughout the session.
    pub clock: Clock,
    /// The account of each stream. `produced = stored + dropped + expired`, exactly, once the session is complete; in a
    /// recovered session, as far as is known.
    #[serde(default)]
    pub streams: BTreeMap<String, StreamAccount>,
    /// The time range left in the tables of events, if their oldest segments have expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<Range>,
    /// For each table with expired segments, the number of the oldest one left. Written before the files are deleted: segments
    /// with lower numbers are not part of the session.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub first_segment: BTreeMap<String, u32>,
    /// The id of the previous session: before the target was restarted, or of the day before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// The result of its recovery, if its recorder was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// Parts that could not be recorded, and the reasons, as text.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Whether the recorder closed it.
    pub complete: bool,
}

/// A container, by its control group and by the environment of the program in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// What runs it, as its control group says: `docker`, `cri-containerd`, `crio`, `libpod`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// The unique id of its Kubernetes pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// The pod's name: `POD_NAME`, `K8S_POD_NAME`, `MY_POD_NAME` or `HOSTNAME` in the program's environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The pod's namespace: `POD_NAMESPACE`, `K8S_NAMESPACE` or `MY_POD_NAMESPACE` there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Options of a recording.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Sampling frequency per CPU (Hz).
    pub freq: u32,
    /// `auto`, `exact` or `off`.
    pub polls: String,
    /// Method of stack walks: `auto`, `eh-frame` or `fp`.
    #[serde(default)]
    pub unwind: String,
    /// Options of later versions.
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
    /// Events produced by the kernel programs.
    pub produced: u64,
    /// Rows in the session.
    pub stored: u64,
    /// Lost events; `drops` has times and stages.
    pub dropped: u64,
    /// Rows that retention has removed.
    #[serde(default)]
    pub expired: u64,
}

/// A time range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Its start (ns since the Unix epoch).
    pub from: i64,
    /// Its end.
    pub to: i64,
}

/// The result of recovering a session whose recorder was killed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Rows that were in logs instead of sealed segments.
    pub rows_salvaged: u64,
    /// Bytes of incomplete frames in logs.
    pub bytes_cut: u64,
    /// Stacks without a row, although other rows refer to them.
    pub unnamed_stacks: u64,
    /// The same for frames, modules and task types.
    #[serde(default)]
    pub unnamed_others: u64,
    /// Events that ended later (ns since the Unix epoch) may be missing: at most the last 100 ms of each table before the kill,
    /// and the events in the ring.
    pub lost_after: i64,
    /// Minimum number of events of each stream that were lost by the kill: the last account counts them, and they are missing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lost: BTreeMap<String, u64>,
    /// Numbers of logs without a complete row, by table: there are no such segments.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub empty_segments: BTreeMap<String, Vec<u32>>,
    /// Numbers of damaged sealed segments, by table. Their rows are not counted here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub damaged_segments: BTreeMap<String, Vec<u32>>,
    /// Paths in the session of segments and logs that belong to another session, table or number. They were renamed to
    /// `NAME.foreign`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_files: Vec<String>,
    /// The reason for the session's end, if the recorder closed it and its files were damaged later.
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

    /// Replaces the manifest atomically.
    pub fn write(&self, session: &Path) -> Result<()> {
        SessionDir::at(session).write_manifest(self)
    }
}

impl SessionDir {
    /// The same, with the id in this manifest: segments of other sessions are then rejected.
    pub fn with_id(self, manifest: &Manifest) -> Self {
        self.with_session_id(&manifest.id)
    }

    /// Reads the manifest.
    pub fn manifest(&self) -> Result<Manifest> {
        Manifest::of(self)
    }

    /// Replaces the manifest atomically.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        let path = self.path().join(MANIFEST_FILE);
        let folder = self.folder().map_err(Error::io("open", self.path()))?;
        write_whole(&folder, &path, manifest.signed_text()?.as_bytes())
    }
}

/// The end of the file, after the other fields: the CRC32 of all bytes before, and the end of the object.
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
