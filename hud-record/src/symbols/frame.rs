//! The functions at an address, as symbols and debug information give them.

use serde::{Deserialize, Serialize};

/// Functions at one address, inlined ones included. Real code goes to about 40.
pub(crate) const MOST_FRAMES: usize = 128;

/// Bytes of a name that are handed on, before it is cleaned and cut to what the session takes.
pub(crate) const LONGEST_NAME: usize = 16 << 10;

/// The functions at an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedAddress {
    /// In the file's own address space.
    pub address: u64,
    /// The code behind it is that to which a signal handler returns: its caller was interrupted, it did not call.
    pub is_signal_return: bool,
    /// Innermost first; none where nothing is known.
    pub frames: Vec<ResolvedFrame>,
}

/// A function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedFrame {
    /// Its name, as people write it.
    pub function: Option<String>,
    /// The source file.
    pub file: Option<String>,
    /// The line in it.
    pub line: Option<u32>,
    /// The column in the line, from 1.
    pub column: Option<u32>,
    /// Origin code it is, where that is sure.
    pub whose: Option<Origin>,
}

/// Origin code a function of the target's own binaries is.
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
