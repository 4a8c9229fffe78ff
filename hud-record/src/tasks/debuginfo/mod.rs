//! The layouts of a program's futures, from its debug information.
//!
//! This runs in the sandboxed child, see [`crate::sandbox`]. `dies` reads entries, `bodies` finds the lines of macros,
//! `ways` the paths to resources and guards, `types` combines them into layouts; each uses the ones before it. rustc's
//! DWARF as of 1.95: a coroutine is a structure with a variant part over `__state`, whose variants 0 to 2 are
//! `Unresumed`, `Returned` and `Panicked`; each later one is a suspension, declared at the line of its `.await`, with
//! the member `__awaitee`.

mod bodies;
mod dies;
mod types;
mod ways;

use gimli::{Dwarf, EndianSlice, LittleEndian};

use super::layout::Layouts;

/// Opened debug information, and the entries read so far.
pub(crate) struct DebugInfo(dies::Dies);

impl DebugInfo {
    pub(crate) fn new(dwarf: Dwarf<EndianSlice<'static, LittleEndian>>) -> Self {
        DebugInfo(dies::Dies::new(dwarf))
    }

    /// The layouts of the tasks of poll functions (each with the offset of the task's id), of the types behind vtables
    /// of trait objects, and of the futures that calls of `block_on` run at return addresses. All addresses are those
    /// of the file.
    pub(crate) fn layouts(&mut self, polls: &[(u64, u64)], objects: &[u64], callers: &[u64]) -> Layouts {
        types::Reader::new(&mut self.0).read(polls, objects, callers)
    }
}
