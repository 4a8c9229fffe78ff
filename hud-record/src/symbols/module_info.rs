//! What the recorder and the sandboxed child exchange about a mapped file and the files that belong to it.

use serde::{Deserialize, Serialize};

/// A mapped file that the child has opened, valid while that child lives.
pub(crate) type ModuleId = u32;

/// The relation of a file to a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Separate debug file, found by build id, which is compared.
    DebugById,
    /// Separate debug file, found by `.gnu_debuglink`, whose checksum is compared.
    DebugByLink,
    /// Debug information that the debug file shares with others (`.gnu_debugaltlink`).
    Supplement,
    /// A package of split debug information (`.dwp`).
    Package,
    /// An object of split debug information (`.dwo`), by its id.
    Object(u64),
}

/// A module, as far as it has been read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ModuleInfo {
    pub(crate) module: ModuleId,
    pub(crate) build_id: Option<Vec<u8>>,
    /// Whether its debug information is available, in the file itself or in a separate one.
    pub(crate) has_debug: bool,
    /// The name and checksum of a separate debug file.
    pub(crate) debug_link: Option<(Vec<u8>, u32)>,
    /// Path and build id of the debug information that the debug file shares with others.
    pub(crate) supplement: Option<(Vec<u8>, Vec<u8>)>,
}

/// An object of split debug information that a lookup needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WantedObject {
    /// Its id.
    pub(crate) id: u64,
    /// The path where the compiler wrote it, relative to `folder`.
    pub(crate) path: Vec<u8>,
    pub(crate) folder: Vec<u8>,
}
