//! The layouts of a program's futures, from its debug information.
//!
//! This runs in the sandboxed child, see [`crate::sandbox`]. `dies` reads entries, `bodies` finds the lines of macros, `ways`
//! what a future waits for and what it holds, `types` makes layouts of it all; each uses the ones before it. What rustc writes,
//! as of 1.95: a coroutine is a structure with a variant part over `__state`, whose variants 0 to 2 are `Unresumed`,
//! `Returned` and `Panicked`; each later one is a suspension, declared at the line of its `.await`, with the member `__awaitee`.

mod bodies;
mod dies;
mod types;
mod ways;

use gimli::{Dwarf, EndianSlice, LittleEndian};

use super::layout::Layouts;

/// Debug information that has been opened, and what was read of it so far.
pub(crate) struct DebugInfo(dies::Dies);

impl DebugInfo {
    pub(crate) fn new(dwarf: Dwarf<EndianSlice<'static, LittleEndian>>) -> Self {
        DebugInfo(dies::Dies::new(dwarf))
    }

    /// The layouts of the tasks of some poll functions, with where the task's id lies in each, and of what is behind some
    /// tables of trait objects, and what the calls of `block_on` run that some places in the code are in: all by their
    /// addresses in the file.
    pub(crate) fn layouts(&mut self, polls: &[(u64, u64)], objects: &[u64], callers: &[u64]) -> Layouts {
        types::Reader::new(&mut self.0).read(polls, objects, callers)
    }
}
