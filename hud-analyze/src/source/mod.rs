//! Sessions as files: where they lie, which segments they have at one instant, and how a segment's rows are read.
//!
//! ```text
//! location ──▶ archive, object_store ──▶ bucket      a path, a store, a zip archive or a URL
//! recovery ──▶ location                              sessions whose recorder was killed
//! snapshot                                           segments and in-flight logs at one instant
//! segment_cache, zone_map, page_reader               open segments, their statistics, their rows
//! ```

pub(crate) mod archive;
pub(crate) mod bucket;
pub(crate) mod location;
pub(crate) mod object_store;
pub(crate) mod page_reader;
pub(crate) mod recovery;
pub(crate) mod segment_cache;
pub mod snapshot;
pub(crate) mod zone_map;
