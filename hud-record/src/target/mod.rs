//! The program to watch: its process, its binary, and tokio inside it.

mod binary;
mod code;
mod dwarf;
mod glue;
mod image;
mod look;
mod names;
mod process;
mod shape;
mod site;
mod task_id;
mod tokio;

pub use binary::Binary;
pub(crate) use dwarf::{PollType, local, poll_types};
pub use image::Image;
pub use look::NoTokio;
pub(crate) use look::{Looked, Place, TaskVtables};
pub use names::clean;
pub(crate) use names::{FunctionName, crate_with_main, function, generic_arguments, type_name};
pub(crate) use process::mappings;
pub(crate) use process::read_text;
pub use process::{Mapping, Process};
pub(crate) use shape::TaskVtable;
pub(crate) use tokio::VTABLE_ID_OFFSET;
pub use tokio::{PollFn, Scheduler, TaskKind, Tokio};
pub(crate) use tokio::{future, kind};
