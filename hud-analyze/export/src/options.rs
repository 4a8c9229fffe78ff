//! Options of an export, and its result.

use std::{fmt, str::FromStr};

/// A format of another tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Perfetto's protobuf trace: <https://ui.perfetto.dev>, `trace_processor`.
    Perfetto,
    /// The Firefox Profiler's processed profile: <https://profiler.firefox.com>.
    Firefox,
    /// pprof's gzipped protobuf: `go tool pprof`, Pyroscope, Speedscope.
    Pprof,
    /// Folded stacks, a line each: `flamegraph.pl`, inferno, Speedscope.
    Folded,
    /// A flame graph.
    Svg,
    /// Chrome's trace JSON, for small windows: `chrome://tracing`, Perfetto, Speedscope.
    Chrome,
    /// The session itself in one file, which hud opens and any `unzip` unpacks into a session's folder.
    Zip,
}

impl Format {
    /// Every format.
    pub const ALL: &'static [Format] =
        &[Format::Perfetto, Format::Firefox, Format::Pprof, Format::Folded, Format::Svg, Format::Chrome, Format::Zip];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Perfetto => "perfetto",
            Format::Firefox => "firefox",
            Format::Pprof => "pprof",
            Format::Folded => "folded",
            Format::Svg => "svg",
            Format::Chrome => "chrome",
            Format::Zip => "zip",
        }
    }

    /// How the names of its files end, as its readers expect.
    pub const fn extension(self) -> &'static str {
        match self {
            Format::Perfetto => "pftrace",
            Format::Firefox => "profile.json",
            Format::Pprof => "pb.gz",
            Format::Folded => "folded",
            Format::Svg => "svg",
            Format::Chrome => "trace.json",
            Format::Zip => "hud.zip",
        }
    }

    /// The format that a file's name, or its end, implies, if any: `profile.json`, `a.profile.json`.
    pub fn of_file(name: &str) -> Option<Format> {
        let name = name.to_ascii_lowercase();
        let ends = |format: &Format| {
            name.strip_suffix(format.extension()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let of_perfetto = [".perfetto-trace", ".perfetto"].iter().any(|end| name.ends_with(end));
        Format::ALL.iter().copied().find(ends).or_else(|| of_perfetto.then_some(Format::Perfetto))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = || Format::ALL.iter().map(|f| f.name()).collect::<Vec<_>>().join(", ");
        Format::ALL.iter().copied().find(|f| f.name() == text).ok_or_else(|| format!("it is none of {}", all()))
    }
}

/// The time that stacks are weighted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// On a CPU: the samples.
    #[default]
    Cpu,
    /// Off CPU: the off-CPU intervals, each with the stack at its start.
    OffCpu,
    /// Suspended tasks: the await stacks that snapshots of all tasks found, each until the next snapshot.
    Await,
}

/// Options of an export.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// From and to (ns since the Unix epoch, `to` excluded); time ranges that cross either are clipped. None:
    /// everything.
    pub window: Option<(i64, i64)>,
    /// Only of this task.
    pub task: Option<i64>,
    /// Only of this thread.
    pub thread: Option<i32>,
    /// `folded` and `svg`: which time.
    pub kind: Kind,
    /// `folded` and `svg`: the outermost frame is the type of the task, or the thread outside tasks.
    pub by_task: bool,
    /// `chrome` and `firefox`: most events, as their readers hold all of them in memory.
    pub limit: Option<u64>,
    /// `perfetto`: tasks that get a track of their own, the first seen. The polls of the others are on the threads.
    pub task_tracks: usize,
    /// `firefox`: polls from this long on become markers (ns).
    pub long_poll: i64,
    /// `firefox`: sleeps inside tasks from this long on become markers (ns).
    pub asleep: i64,
    /// `svg`: its title.
    pub title: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            window: None,
            task: None,
            thread: None,
            kind: Kind::Cpu,
            by_task: true,
            limit: None,
            task_tracks: 1000,
            long_poll: 10_000_000,
            asleep: 1_000_000,
            title: None,
        }
    }
}

/// The result of an export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Time ranges: polls, off-CPU intervals, coverage.
    pub slices: u64,
    /// Moments: wakes, spawns.
    pub instants: u64,
    /// CPU samples included.
    pub samples: u64,
    /// Arrows from a wake to its poll: wakes that have one.
    pub flows: u64,
    /// Values of counters.
    pub counters: u64,
    /// Distinct stacks of an aggregated format, or files of `zip`.
    pub entries: u64,
    /// Size (bytes).
    pub bytes: u64,
    /// Missing or incomplete data, in words for people: streams not observed, events lost, time ranges clipped.
    pub notes: Vec<String>,
}
