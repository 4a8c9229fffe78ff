//! Messages beside results.

use std::io::{self, Write as _};

/// Prints a message on standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
