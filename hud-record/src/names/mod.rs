//! Names: from an address to functions, with the place in the source and whose code it is.
//!
//! Half of it (`module`, `whose`) runs in the confined child that [`crate::intake`] starts; the other half (`resolver`,
//! `files`, `cache`) runs in the recorder, opens what the child is to read, and believes nothing. The kernel's own names
//! (`kernel`) are the kernel's to tell, and need no child.

mod cache;
mod files;
mod kernel;
mod module;
mod resolver;
mod whose;

pub use cache::Cache;
pub use kernel::{KernelSymbols, is_kernel};
pub(crate) use module::{Found, ModuleFile};
pub use resolver::{BinaryId, Resolver, Sources};

pub use crate::intake::protocol::{Located, Named, TokioDebug, Whose};

/// What the confined child does to learn of tokio, and what the recorder makes of the answer, in one process. For
/// hud-record/fuzz.
pub fn learn_tokio(file: &std::fs::File, binary: &crate::target::Binary, tokio: &mut crate::target::Tokio) {
    if let Ok(mut module) = ModuleFile::open(file) {
        let told = module.tokio(&tokio.poll_addresses());
        tokio.learn(binary, &told);
    }
}
