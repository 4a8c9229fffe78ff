//! The requests of the recorder to its sandboxed child, and the answers.

use hud_common::unwind::Row;
use serde::{Deserialize, Serialize};

use super::confine::Confinement;
use crate::{
    inspect::{Inspection, LoadAddress, TaskVtables, TokioDebug},
    symbols::{ModuleId, ModuleInfo, ResolvedAddress, Role, WantedObject},
    tasks::Layouts,
    unwind::table::{Segment, Table},
};

/// The one argument by which hud starts itself as its sandboxed child.
pub(super) const ARGUMENT: &str = "--sandbox";

/// Addresses that one request may ask for.
pub(crate) const MOST_ADDRESSES: usize = 256;
/// What the recorder asks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Open a mapped file. With its descriptor. Answered by `Opened`.
    Open,
    /// Another file that belongs to a module. With its descriptor, or none where there is no such file. Answered by
    /// `Opened` again.
    Give {
        /// The module.
        module: ModuleId,
        /// What it is to it.
        role: Role,
    },
    /// The functions at offsets of the file, inlined ones included. Answered by `Frames` or `Wants`.
    Frames {
        /// The module.
        module: ModuleId,
        /// At most [`MOST_ADDRESSES`].
        offsets: Vec<u64>,
    },
    /// What debug information tells of tokio. Answered by `Tokio`. Takes seconds where it is hundreds of megabytes.
    Tokio {
        /// The module.
        module: ModuleId,
        /// The addresses of its poll functions.
        polls: Vec<u64>,
    },
    /// The unwind table of a file. With its descriptor. Answered by `Unwind`.
    Unwind,
    /// A first look at the target's binary. With its descriptor, and one of the process's memory where that is to be had.
    /// Answered by `Inspected`.
    Inspect(LoadAddress),
    /// The task vtables of a mapped binary. With its descriptor, and one of the process's memory. Answered by `Vtables`.
    Vtables(LoadAddress),
    /// How the futures of tasks lie in memory, and what is behind trait objects. Answered by `Layouts`.
    Layouts {
        /// The module.
        module: ModuleId,
        /// Addresses of poll functions, and where in their tasks the id lies.
        polls: Vec<(u64, u64)>,
        /// Addresses of the vtables of trait objects.
        objects: Vec<u64>,
        /// Places in the code that may be in `block_on`.
        callers: Vec<u64>,
    },
}

/// What the child answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Said unasked, once, when it starts.
    Hello(Confinement),
    /// What is known of a module by now.
    Opened(ModuleInfo),
    /// The functions at the first of the offsets asked for: at least one offset, not always all.
    Frames(Vec<ResolvedAddress>),
    /// What debug information tells of tokio.
    Tokio(TokioDebug),
    /// A file's unwind table.
    Unwind(PackedTable),
    /// What attaching takes of a binary.
    Inspected(Box<Inspection>),
    /// A binary's task vtables.
    Vtables(TaskVtables),
    /// How futures lie in memory.
    Layouts(Layouts),
    /// This first, then ask again.
    Wants(WantedObject),
    /// It is no file of the kind that hud can read, or the request made no sense.
    Refused(String),
}

/// A [`Table`], its rows and its index as bytes: there are millions.
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

    /// The table; `None` where it makes no sense. (The kernel program takes any, but others' tables lie beside it.)
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
