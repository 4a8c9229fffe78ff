//! Query results as text or bytes.
//!
//! ```text
//! write, timeline ──▶ table ──▶ stdout
//! ```

pub(crate) mod stdout;
pub(crate) mod table;
pub(crate) mod timeline;
pub(crate) mod wrap;
pub(crate) mod write;
