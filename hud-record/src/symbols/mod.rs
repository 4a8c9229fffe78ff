//! Names: from an address to functions, with the place in the source and whose code it is.
//!
//! Half of it (`module`, `bare`, `whose`) runs in the confined child that [`crate::sandbox`] starts; the other half (`resolver`,
//! `files`, `cache`) runs in the recorder, opens what the child is to read, and believes nothing. The kernel's own names
//! (`kernel`) are the kernel's to tell, and need no child.

mod cache;
mod debug_files;
mod file_map;
mod frame;
mod kallsyms;
mod line_tables;
mod lookup;
mod module;
mod module_info;
mod origin;
mod resolver;
mod symbol_table;

pub use cache::Cache;
pub use frame::{Origin, ResolvedAddress, ResolvedFrame};
pub use kallsyms::{KernelSymbols, is_kernel};
pub(crate) use module::{Found, ModuleFile};
pub(crate) use module_info::{ModuleId, ModuleInfo, Role, WantedObject};
pub(crate) use origin::by_path as file_origin;
pub use resolver::{BinaryId, Resolver, Sources};

/// What the confined child does with a file: names the places at these offsets. Gives the names. For hud-record/fuzz.
#[doc(hidden)]
pub fn read(file: &std::fs::File, offsets: &[u64]) -> Vec<ResolvedAddress> {
    let Ok(mut module) = ModuleFile::open(file) else { return Vec::new() };
    let _ = module.info();
    let mut located = Vec::new();
    for &offset in offsets {
        match module.find(offset) {
            Found::Resolved(found) => located.push(found),
            // Nothing to be had.
            Found::Wants(_) => {}
        }
    }
    located
}

/// What the confined child does to learn of tokio, and what the recorder makes of the answer, in one process. For
/// hud-record/fuzz and tests.
#[doc(hidden)]
pub fn learn_tokio(file: &std::fs::File, tokio: &mut crate::inspect::Tokio) {
    if let Ok(mut module) = ModuleFile::open(file) {
        let polls = tokio.poll_addresses();
        let places: Vec<(u64, u64)> = polls.iter().map(|&poll| (poll, 40)).collect();
        std::hint::black_box(module.layouts(&places, &polls, &polls));
        let told = module.tokio(&polls);
        tokio.learn(&told);
    }
}
