//! The properties of a target's binary that attaching requires.
//!
//! The target controls the file, so the sandboxed child reads it ([`crate::sandbox`]) and answers with this.

use std::{fs::File, path::Path};

use serde::{Deserialize, Serialize};

use super::{
    binary::Binary,
    image::Image,
    task_vtable::{self, TaskVtable},
    tokio::{NoTokio, Tokio},
};
use crate::error::{Error, Result};

/// Mappings of one file that are reported. A binary has one with code; patched ones have more.
pub(super) const MOST_MAPPINGS: usize = 1024;

/// The result of an inspection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Inspection {
    /// GNU build id, hexadecimal.
    pub(crate) build_id: Option<String>,
    /// The address range of the loaded binary, before the load bias.
    pub(crate) image: (u64, u64),
    /// The distance between addresses in the file and in the process; `None` if no mapping is the binary's.
    pub(crate) load_bias: Option<u64>,
    /// Tokio in the binary.
    pub(crate) tokio: std::result::Result<Tokio, NoTokio>,
}

/// How the file that is inspected is loaded in the process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Loaded {
    pub(crate) at: LoadAddress,
    /// Whether it is a shared library.
    pub(crate) is_library: bool,
}

/// Where the binary is loaded in the process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum LoadAddress {
    /// By its mappings: address, and offset in the file.
    Mappings(Vec<(u64, u64)>),
    /// By the load bias of the running build, for a file with that build's symbols.
    Bias(u64),
}

impl Inspection {
    /// In the child: inspects a file, and the process's memory if its descriptor was passed.
    pub(crate) fn new(file: &File, memory: Option<&File>, loaded: &Loaded) -> std::result::Result<Self, String> {
        let mut binary = Binary::read(file)?;
        let load_bias = match &loaded.at {
            LoadAddress::Bias(bias) => Some(*bias),
            LoadAddress::Mappings(mappings) => binary.load_bias(mappings),
        };
        if loaded.is_library {
            binary.find_tls(memory.zip(load_bias));
        }
        let binary = binary;
        let image = || match (memory, load_bias) {
            (Some(memory), Some(bias)) => Image::of_memory(&binary, memory, bias),
            _ => Image::of_file(&binary),
        };
        let tokio = Tokio::find(&binary, image).map(|mut tokio| {
            tokio.guess(&binary, image);
            tokio
        });
        Ok(Inspection { build_id: binary.build_id().map(str::to_string), image: binary.image(), load_bias, tokio })
    }

    /// Its tokio, or why there is none.
    pub(crate) fn into_tokio(self, path: &Path) -> Result<Tokio> {
        let path = path.to_path_buf();
        self.tokio.map_err(|why| match why {
            NoTokio::NotTokio => Error::NotTokio { path },
            NoTokio::Stripped => Error::Stripped { path },
        })
    }
}

/// The task vtables of a binary that is mapped into a process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct TaskVtables {
    /// The distance between its addresses in its file and in the process.
    pub(crate) load_bias: u64,
    /// Its vtables.
    pub(crate) tables: Vec<TaskVtable>,
    /// Address, file offset and file size of each segment without code.
    pub(crate) data: Vec<[u64; 3]>,
}

impl TaskVtables {
    /// In the child: finds them in a file and the process's memory.
    pub(crate) fn new(file: &File, memory: &File, at: &LoadAddress) -> std::result::Result<Self, String> {
        let binary = Binary::read(file)?;
        let load_bias = match at {
            LoadAddress::Bias(bias) => *bias,
            LoadAddress::Mappings(mappings) => binary.load_bias(mappings).ok_or("not mapped")?,
        };
        let tables = task_vtable::find(&binary, &Image::of_memory(&binary, memory, load_bias));
        let data = binary.data_places().take(MOST_MAPPINGS).collect();
        Ok(TaskVtables { load_bias, tables, data })
    }
}
