//! What the recorder and the sandboxed child exchange about a mapped file and the files that belong to it.

use serde::{Deserialize, Serialize};

/// A mapped file that the child has opened, for as long as that child lives.
pub(crate) type ModuleId = u32;

/// What a file is to a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Its separate debug file, found by build id: whether it is the right one is checked.
    DebugById,
    /// Its separate debug file, found by `.gnu_debuglink`: whether its checksum is the right one is checked.
    DebugByLink,
    /// What its debug file shares with others (`.gnu_debugaltlink`).
    Supplement,
    /// A package of split debug information (`.dwp`).
    Package,
    /// An object of split debug information (`.dwo`), by its id.
    Object(u64),
}

/// A module, as far as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ModuleInfo {
    pub(crate) module: ModuleId,
    pub(crate) build_id: Option<Vec<u8>>,
    /// Its debug information, wherever it lies, is at hand.
    pub(crate) has_debug: bool,
    /// The name and checksum of a separate debug file.
    pub(crate) debug_link: Option<(Vec<u8>, u32)>,
    /// The path and build id of what the debug file shares with others.
    pub(crate) supplement: Option<(Vec<u8>, Vec<u8>)>,
}

/// An object of split debug information that a lookup needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WantedObject {
    /// Its id.
    pub(crate) id: u64,
    /// Where the compiler wrote it; relative to `folder`.
    pub(crate) path: Vec<u8>,
    pub(crate) folder: Vec<u8>,
}
