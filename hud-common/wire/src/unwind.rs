//! The unwind tables, written by user space and read by the kernel programs.
//!
//! A table gives, for every address of a file's code, the rule by which the caller's frame is found, computed from
//! `.eh_frame`. It is a sorted list of [`Row`]s, each valid from its address to the next one's, with an index by
//! [`BUCKET`]s of 256 bytes, so that a search takes a few steps at any size. All tables of a process lie in one map of rows
//! and one of index entries; each [`Mapping`] has its own part of both.
//!
//! Addresses: x86_64 only. The *canonical frame address* (CFA) is the value of `rsp` in the caller, before its call; the
//! return address lies at CFA - 8 (System V ABI, AMD64 supplement, 3.7).

use bytemuck::{Pod, Zeroable};

/// Bits of an address below the index's resolution.
pub const BUCKET_BITS: u32 = 8;
/// Bytes of code per entry of the index.
pub const BUCKET: u64 = 1 << BUCKET_BITS;
/// Maximum steps of a search for a row: an entry has at most one row per byte, and the one valid at its first byte.
pub const ROW_STEPS: u32 = BUCKET_BITS + 1;
/// Maximum number of executable mappings of a process that the kernel programs know.
pub const MAX_MAPPINGS: u32 = 1024;
/// Maximum steps of a search for a mapping.
pub const MAPPING_STEPS: u32 = 10;

/// The rule by which the caller's frame is found, from an address on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Row {
    /// First address at which it is valid, from the table's [`Mapping::base`].
    pub address: u32,
    /// Distance of the CFA, in words of 8 bytes; see [`Rule`].
    pub cfa: i16,
    /// Position of the caller's `rbp`, in words from the CFA; 0 = it is still in `rbp`.
    pub rbp: i8,
    /// [`Rule`]
    pub rule: u8,
}

/// The kind of a [`Row`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Code without unwind information. There may be a frame pointer.
    Unknown = 0,
    /// CFA = rsp + distance.
    Rsp = 1,
    /// CFA = rbp + distance.
    Rbp = 2,
    /// CFA = the word at rbp + distance, and the caller's rbp is the word at rbp (a stack that GCC realigned).
    AtRbp = 3,
    /// In a procedure linkage table: CFA = rsp + distance, and 8 more from byte `rbp` of a 16-byte entry on.
    Plt = 4,
    /// The return from a signal handler: rsp points to the `ucontext` of the interrupted code.
    Signal = 5,
    /// The thread's first function: it has no caller.
    Outermost = 6,
}

/// An executable mapping of the process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// Address past it.
    pub end: u64,
    /// Address from which the table's addresses are counted.
    pub base: u64,
    /// Its first row.
    pub rows: u32,
    /// Its first index entry.
    pub index: u32,
    /// Number of index entries: entry `n` is the row valid at `base + n * BUCKET`; one more closes the last. 0 = no table.
    pub buckets: u32,
    /// Padding, zero.
    pub reserved: u32,
}

/// The current list of mappings: `count` of them from `first`. Two halves of one map are used in turn, so that the kernel
/// programs always see a complete list.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Active {
    /// Index of the first.
    pub first: u32,
    /// Their number; they are sorted by address.
    pub count: u32,
}

/// How a stack walk ended.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// At the thread's first function.
    Complete = 0,
    /// At the maximum number of frames.
    Truncated = 1,
    /// At a frame whose caller could not be found: frames further out are missing.
    Failed = 2,
    /// Walked by frame pointers, which do not show why they end.
    Unknown = 3,
}

impl Outcome {
    /// The outcome that the kernel program wrote.
    pub const fn of(value: u16) -> Self {
        match value {
            0 => Outcome::Complete,
            1 => Outcome::Truncated,
            2 => Outcome::Failed,
            _ => Outcome::Unknown,
        }
    }
}
