//! The unwind tables, as user space writes them and the kernel program reads them.
//!
//! A table says of every address of a file's code how to find the caller's frame: what `.eh_frame` says, computed. It is a
//! sorted list of [`Row`]s, each of which holds from its address to the next one's, and an index of it by [`BUCKET`]s of
//! 256 bytes, so that a search takes a few steps whatever the size. All tables of a process lie in one map of rows and
//! one of index entries; its [`Mapping`]s say which part is whose.
//!
//! Addresses: x86_64 only. The *canonical frame address* (CFA) is the value of `rsp` in the caller, before its call; the
//! return address lies at CFA - 8 (System V ABI, AMD64 supplement, 3.7).

use bytemuck::{Pod, Zeroable};

/// Bits of an address below the index's resolution.
pub const BUCKET_BITS: u32 = 8;
/// Bytes of code that an entry of the index stands for.
pub const BUCKET: u64 = 1 << BUCKET_BITS;
/// Steps in which a row is found: an entry's rows are at most one a byte, and the one that holds at its first byte.
pub const ROW_STEPS: u32 = BUCKET_BITS + 1;
/// Executable mappings of a process that are known to the kernel program.
pub const MAX_MAPPINGS: u32 = 1024;
/// Steps in which a mapping is found.
pub const MAPPING_STEPS: u32 = 10;

/// How to find the caller's frame from an address on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Row {
    /// First address at which it holds, from the table's [`Mapping::base`].
    pub address: u32,
    /// Distance of the CFA, in words of 8 bytes; see [`Rule`].
    pub cfa: i16,
    /// Where the caller's `rbp` lies, in words from the CFA; 0 = it is still in `rbp`.
    pub rbp: i8,
    /// [`Rule`]
    pub rule: u8,
}

/// What a [`Row`] says.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Nothing is known: code without unwind information. There may be a frame pointer.
    Unknown = 0,
    /// CFA = rsp + distance.
    Rsp = 1,
    /// CFA = rbp + distance.
    Rbp = 2,
    /// CFA = the word at rbp + distance, and the caller's rbp is the word at rbp (a stack that GCC realigned).
    AtRbp = 3,
    /// In a procedure linkage table: CFA = rsp + distance, and 8 more from byte `rbp` of a 16-byte entry on.
    Plt = 4,
    /// The return from a signal handler: rsp points to the `ucontext` of what it interrupted.
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
    /// What addresses in its table are counted from.
    pub base: u64,
    /// Its first row.
    pub rows: u32,
    /// Its first index entry.
    pub index: u32,
    /// How many: entry `n` is the row that holds at `base + n * BUCKET`, and one past the last closes it. 0 = no table.
    pub buckets: u32,
    /// Padding, zero.
    pub reserved: u32,
}

/// Where the mappings in force lie: `count` of them from `first`. Two halves of one map take turns, so that the kernel
/// program always sees a whole list.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Active {
    /// Index of the first.
    pub first: u32,
    /// How many, sorted by address.
    pub count: u32,
}

/// How a walk up a stack ended.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// At the thread's first function.
    Complete = 0,
    /// At the most frames that a stack can hold.
    Truncated = 1,
    /// Where nothing told of the caller, or what was told made no sense: frames further out are missing.
    Failed = 2,
    /// By frame pointers alone, which don't tell why they end.
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
