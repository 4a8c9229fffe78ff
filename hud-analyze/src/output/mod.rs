//! Query results as text or bytes.
//!
//! ```text
//! write, timeline ──▶ table ──▶ names, stdout
//! ```

pub(crate) mod names;
pub(crate) mod stdout;
pub(crate) mod table;
pub(crate) mod timeline;
pub(crate) mod wrap;
pub(crate) mod write;
