//! The requests of the recorder to its sandboxed child, and the answers.

use hud_common::unwind::Row;
use serde::{Deserialize, Serialize};

use super::confine::Confinement;
use crate::{
    inspect::{Inspection, LoadAddress, Loaded, TaskVtables, TokioDebug},
    symbols::{ModuleId, ModuleInfo, ResolvedAddress, Role, WantedObject},
    tasks::Layouts,
    unwind::table::{Segment, Table},
};

/// The one argument by which hud starts itself as its sandboxed child.
pub(super) const ARGUMENT: &str = "--sandbox";

/// Offsets in one request.
pub(crate) const MOST_ADDRESSES: usize = 256;
/// A request of the recorder.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Opens a mapped file, whose descriptor comes with it. Answered by `Opened`.
    Open,
    /// Adds a file to a module, with its descriptor, or without one if there is no such file. Answered by `Opened`.
    Give {
        /// The module.
        module: ModuleId,
        /// The file's relation to the module.
        role: Role,
    },
    /// Asks for the functions at offsets of the file, inlined ones included. Answered by `Frames` or `Wants`.
    Frames {
        /// The module.
        module: ModuleId,
        /// At most [`MOST_ADDRESSES`].
        offsets: Vec<u64>,
    },
    /// Asks for debug information about tokio. Answered by `Tokio`. Takes seconds for hundreds of megabytes.
    Tokio {
        /// The module.
        module: ModuleId,
        /// The addresses of its poll functions.
        polls: Vec<u64>,
    },
    /// Asks for the unwind table of a file, whose descriptor comes with it. Answered by `Unwind`.
    Unwind,
    /// Inspects the target's binary: with its descriptor, and one of the process's memory if available. Answered by
    /// `Inspected`.
    Inspect(Loaded),
    /// Asks for the task vtables of a mapped binary: with its descriptor and one of the process's memory. Answered by
    /// `Vtables`.
    Vtables(LoadAddress),
    /// Asks for the memory layout of tasks' futures and of trait objects. Answered by `Layouts`.
    Layouts {
        /// The module.
        module: ModuleId,
        /// Addresses of poll functions, each with the offset of the id in its tasks.
        polls: Vec<(u64, u64)>,
        /// Addresses of trait objects' vtables.
        objects: Vec<u64>,
        /// Return addresses that may be in `block_on`.
        callers: Vec<u64>,
    },
}

/// An answer of the child.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Sent once, unasked, at the start.
    Hello(Confinement),
    /// The state of a module.
    Opened(ModuleInfo),
    /// The functions at the first of the requested offsets: at least one offset, possibly not all.
    Frames(Vec<ResolvedAddress>),
    /// Debug information about tokio.
    Tokio(TokioDebug),
    /// A file's unwind table.
    Unwind(PackedTable),
    /// The inspection of a binary.
    Inspected(Box<Inspection>),
    /// A binary's task vtables.
    Vtables(TaskVtables),
    /// How futures lie in memory.
    Layouts(Layouts),
    /// An object that is needed first; then the request is to be sent again.
    Wants(WantedObject),
    /// The file is of a kind that hud cannot read, or the request is invalid.
    Refused(String),
}

/// A [`Table`] with its rows and index as bytes, as there are millions of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackedTable {
    base: u64,
    rows: Vec<u8>,
    index: Vec<u8>,
    segments: Vec<[u64; 3]>,
}

impl PackedTable {
    pub(crate) fn of(table: &Table) -> Self {
        PackedTable {
            base: table.base,
            rows: bytemuck::cast_slice(&table.rows).to_vec(),
            index: bytemuck::cast_slice(&table.index).to_vec(),
            segments: table.segments.iter().map(|s| [s.offset, s.vaddr, s.size]).collect(),
        }
    }

    /// The table; `None` if it is inconsistent. (The kernel program tolerates any, but other files' tables lie beside
    /// it.)
    pub(crate) fn unpack(&self) -> Option<Table> {
        let rows: Vec<Row> = self.rows.chunks_exact(size_of::<Row>()).map(bytemuck::pod_read_unaligned).collect();
        let index: Vec<u32> = self.index.chunks_exact(size_of::<u32>()).map(bytemuck::pod_read_unaligned).collect();
        let segments =
            self.segments.iter().map(|&[offset, vaddr, size]| Segment { offset, vaddr, size }).collect::<Vec<_>>();
        let is_inside = index.iter().all(|&row| usize::try_from(row).is_ok_and(|row| row < rows.len()));
        let is_sorted = index.is_sorted() && rows.is_sorted_by_key(|row| row.address);
        (is_inside && is_sorted && !segments.is_empty()).then_some(Table { base: self.base, rows, index, segments })
    }
}
