//! Symbols: from an address to its functions, with source lines and whose code they are.
//!
//! `module`, `lookup`, `line_tables` and `origin` run in the sandboxed child ([`crate::sandbox`]). `resolver`,
//! `debug_files` and `cache` run in the recorder: it opens the files that the child is to read, and checks the answers.
//! The kernel's functions (`kallsyms`), and whose code a file is by its path (`module_kind`), need no child.

mod cache;
mod debug_files;
mod file_map;
mod frame;
mod kallsyms;
mod line_tables;
mod lookup;
mod module;
mod module_info;
mod module_kind;
mod origin;
mod resolver;
mod symbol_table;

pub use cache::Cache;
pub use frame::{Origin, ResolvedAddress, ResolvedFrame};
pub use kallsyms::{KernelSymbols, is_kernel};
pub(crate) use module::{Found, ModuleFile};
pub(crate) use module_info::{ModuleId, ModuleInfo, Role, WantedObject};
pub(crate) use module_kind::ModuleKind;
pub(crate) use origin::by_path as file_origin;
pub use resolver::{BinaryId, Resolver, Sources};

/// Resolves offsets of a file as the sandboxed child does. For hud-record/fuzz.
#[doc(hidden)]
pub fn read(file: &std::fs::File, offsets: &[u64]) -> Vec<ResolvedAddress> {
    let Ok(mut module) = ModuleFile::open(file) else { return Vec::new() };
    let _ = module.info();
    let mut located = Vec::new();
    for &offset in offsets {
        match module.find(offset) {
            Found::Resolved(found) => located.push(found),
            // Not available here.
            Found::Wants(_) => {}
        }
    }
    located
}

/// Reads debug information about tokio as the sandboxed child does, and applies it as the recorder does. For
/// hud-record/fuzz and tests.
#[doc(hidden)]
pub fn learn_tokio(file: &std::fs::File, tokio: &mut crate::inspect::Tokio) {
    if let Ok(mut module) = ModuleFile::open(file) {
        let polls = tokio.poll_addresses();
        let places: Vec<(u64, u64)> = polls.iter().map(|&poll| (poll, 40)).collect();
        std::hint::black_box(module.layouts(&places, &polls, &polls));
        let debug = module.tokio(&polls);
        tokio.learn(&debug);
    }
}
