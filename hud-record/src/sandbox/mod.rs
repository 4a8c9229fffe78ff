//! The sandbox: a child process without rights parses all bytes that the target controls.
//!
//! The recorder runs as root beside production, while symbols come from ELF, DWARF and mangled names, which may hold
//! anything. So hud starts itself again (`host`) over a socket pair, and that process gives up its rights (`confine`)
//! before it reads a byte. The recorder opens the files and passes their descriptors. A child that crashes, loops or is
//! killed costs symbols only: another one is started, and a file that ended two children is not asked about again. The
//! recorder trusts the answers no more than the files: their number and length are bounded, they are decoded with
//! checks, and names in them are sanitised like any others.
//!
//! To have another kind of data parsed here, add a variant to [`protocol::Request`] and one to [`protocol::Answer`], an
//! arm to `child`, and a call of [`Sandbox::ask`](host::Sandbox::ask).

mod child;
mod confine;
mod framing;
mod host;
pub(crate) mod protocol;

pub use child::divert;
pub use confine::Confinement;
pub use host::Sandbox;
pub(crate) use host::{AskError, Generation};
