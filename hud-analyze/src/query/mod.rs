//! Sessions as a database: tables over their segments, the views, and what DataFusion needs to plan and prune well.
//!
//! ```text
//! catalog ──▶ schema ──▶ view ──▶ materialize ──▶ single_partition ──▶ segment_table ──▶ pruning
//!                          ├─▶ defaults ──▶ header
//!                          └─▶ window ──▶ opened ──▶ context ──▶ session ──────────────▶┘
//! units       units of any query's columns, from tables and views
//! limits      refuses statements that would take all memory, never end, or write files
//! ```

pub mod catalog;
pub(crate) mod context;
pub(crate) mod defaults;
pub(crate) mod header;
pub(crate) mod limits;
pub(crate) mod materialize;
pub(crate) mod opened;
pub(crate) mod pruning;
pub(crate) mod schema;
pub(crate) mod segment_table;
pub(crate) mod session;
pub(crate) mod single_partition;
pub(crate) mod units;
pub mod view;
pub mod window;
