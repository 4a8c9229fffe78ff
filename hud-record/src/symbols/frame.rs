//! The functions at an address, as symbols and debug information give them.

use serde::{Deserialize, Serialize};

/// Functions at one address, inlined ones included. Real code has up to about 40.
pub(crate) const MOST_FRAMES: usize = 128;

/// Bytes of a name in an answer, before it is sanitised and cut to the session's limit.
pub(crate) const LONGEST_NAME: usize = 16 << 10;

/// The functions at an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedAddress {
    /// In the file's own address space.
    pub address: u64,
    /// Whether a signal handler returns here: then the frame above was interrupted and did not call.
    pub is_signal_return: bool,
    /// Innermost first; empty if nothing is known.
    pub frames: Vec<ResolvedFrame>,
}

/// A function, with its source line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedFrame {
    /// Demangled name.
    pub function: Option<String>,
    /// The source file.
    pub file: Option<String>,
    /// Line in it.
    pub line: Option<u32>,
    /// Column in the line, from 1.
    pub column: Option<u32>,
    /// Whose code it is; `None` if not certain.
    pub origin: Option<Origin>,
}

/// Whose code a function in the target's own binaries is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// The user's.
    Own,
    /// A crate that the user's code depends on.
    Dependency,
    /// Tokio.
    Tokio,
    /// The standard library.
    Std,
}
