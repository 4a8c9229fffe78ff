//! The program to watch: its process, its binary, and tokio inside it.

mod binary;
mod demangle;
mod functions;
mod image;
mod inspection;
mod legacy_symbols;
mod probe_site;
mod process;
mod stripped;
mod tokio;
mod tokio_dwarf;

pub use binary::Binary;
pub(crate) use tokio_dwarf::{PollType, local, poll_types};
pub use image::Image;
pub use inspection::NoTokio;
pub(crate) use inspection::{Inspection, Place, TaskVtables};
pub use demangle::clean;
pub(crate) use demangle::{FunctionName, crate_with_main, function, generic_arguments, type_name};
pub(crate) use process::mappings;
pub(crate) use process::read_text;
pub use process::{Mapping, Process};
pub(crate) use stripped::TaskVtable;
pub(crate) use tokio::VTABLE_ID_OFFSET;
pub use tokio::{PollFn, Scheduler, TaskKind, Tokio};
pub(crate) use tokio::{future, kind};
