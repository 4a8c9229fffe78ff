//! The target: its process, its binary, and tokio inside it.
//!
//! `process` reads /proc in the recorder, `arrivals` detects new processes, `container` names the container, `executor` other executors than tokio, `search` finds the mapped files with tokio, and `request` has the sandboxed child
//! inspect them. The rest runs in
//! the child: `binary`, `image` and `functions` read the file and the memory, `tokio` finds tokio by its symbols
//! (`tokio_symbols`), by debug information (`tokio_dwarf`), by legacy symbols (`legacy_symbols`) or, in a stripped
//! binary, by the shape of its code (`stripped`). `task_id` finds the thread-local with the current task's id.

mod arrivals;
mod binary;
pub(crate) mod container;
mod demangle;
pub(crate) mod executor;
mod functions;
mod image;
mod inspection;
mod legacy_symbols;
mod probe_site;
mod process;
mod request;
pub(crate) mod search;
mod stripped;
mod task_id;
mod task_type;
mod task_vtable;
mod tokio;
mod tokio_dwarf;
mod tokio_symbols;

pub(crate) use arrivals::Arrivals;
pub use binary::Binary;
pub use demangle::clean;
pub(crate) use demangle::{FunctionName, crate_with_main, function, generic_arguments, type_name};
pub use image::Image;
pub(crate) use inspection::{Inspection, LoadAddress, Loaded, TaskVtables};
#[cfg(test)]
pub(crate) use process::binary_name;
pub use process::{Mapping, Process};
pub(crate) use process::{bare, mappings, read_text};
pub use task_type::{Scheduler, TaskKind};
pub(crate) use task_type::{future, kind};
pub(crate) use task_vtable::TaskVtable;
pub(crate) use tokio::VTABLE_ID_OFFSET;
pub use tokio::{NoTokio, PollFn, Tokio};
pub(crate) use tokio_dwarf::{TokioDebug, local, poll_types};
