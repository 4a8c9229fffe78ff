//! Ids, names, and the buckets that time is counted in.

use core::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! ids {
    ($($(#[doc = $about:literal])+ $name:ident($of:ty);)+) => { $(
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $of);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+ };
}

ids! {
    /// Tokio's task id.
    TaskId(i64);
    /// A row of `task_types`.
    TypeId(i64);
    /// A row of `stacks`.
    StackId(i64);
    /// A row of `frames`.
    FrameId(i64);
    /// A runtime, counted from 0.
    RuntimeId(i64);
    /// A thread.
    Tid(i32);
}

/// A time range of [`Bucket::NANOS`]: `Bucket(n)` contains the instants `n * NANOS <= ts < (n + 1) * NANOS`, ns since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bucket(pub i64);

impl Bucket {
    /// The length of a bucket (ns): 100 ms, the interval between frames.
    pub const NANOS: i64 = 100_000_000;

    /// The bucket that contains an instant (ns since the epoch). In SQL `ts / 100000000`, as no session is older than 1970.
    pub const fn of(ts: i64) -> Self {
        Bucket(ts.div_euclid(Self::NANOS))
    }

    /// Its first instant (ns since the epoch).
    pub const fn start(self) -> i64 {
        self.0.saturating_mul(Self::NANOS)
    }

    /// The first instant past it (ns since the epoch).
    pub const fn end(self) -> i64 {
        self.0.saturating_add(1).saturating_mul(Self::NANOS)
    }

    /// The bucket after it.
    pub const fn next(self) -> Self {
        Bucket(self.0.saturating_add(1))
    }
}

/// A range of buckets, from `from` on and before `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The first bucket.
    pub from: Bucket,
    /// The bucket past the last.
    pub to: Bucket,
}

impl Window {
    /// The window of `dur` ns, rounded up to whole buckets and at least one, that ends with the bucket of the instant just
    /// before `at`: at 12.34 s a window of one second is 11.4 s to 12.4 s.
    pub fn ending(at: i64, dur: i64) -> Self {
        let to = Bucket::of(at.saturating_sub(1)).next();
        let buckets = dur.max(1).saturating_add(Bucket::NANOS - 1) / Bucket::NANOS;
        Window { from: Bucket(to.0.saturating_sub(buckets)), to }
    }

    /// Its first instant (ns since the epoch).
    pub const fn start(self) -> i64 {
        self.from.start()
    }

    /// The first instant past it (ns since the epoch).
    pub const fn end(self) -> i64 {
        self.to.start()
    }

    /// Its length (ns).
    pub const fn dur(self) -> i64 {
        self.end().saturating_sub(self.start())
    }

    /// Whether a bucket is in it.
    pub fn holds(self, bucket: Bucket) -> bool {
        self.from <= bucket && bucket < self.to
    }
}

/// A name that many rows share: cloning costs a count.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// Its raw text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl core::ops::Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl core::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Name(text.into())
    }
}

impl From<String> for Name {
    fn from(text: String) -> Self {
        Name(text.into())
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Name::from)
    }
}
