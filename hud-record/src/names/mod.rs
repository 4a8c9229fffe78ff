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
