//! The sandbox: all bytes that the target controls are read in a child process that may do nothing else.
//!
//! The recorder runs as root beside production, and what names take (ELF, DWARF, mangled symbols) is whatever somebody
//! built. So hud starts itself once more (`host`), over a socket pair; that process gives up every right that it has
//! (`confine`) before it looks at a byte. Files are opened by the recorder, which has the right to, and handed over as
//! descriptors. A child that crashes, loops or is killed costs names only: another one is started, and a file that did it
//! twice is not asked about again. The recorder trusts the answers no more than the files: they are bounded in count and
//! length, decoded with checks, and names in them are cleaned like any others.
//!
//! To have another thing read here: a variant of [`protocol::Request`] and one of [`protocol::Answer`], an arm in
//! [`child`], and a method of [`host::Sandbox`] or of the caller's own.

mod child;
mod confine;
mod framing;
mod host;
pub(crate) mod protocol;

pub use child::divert;
pub use confine::Confinement;
pub use host::Sandbox;
pub(crate) use host::{AskError, Generation};
