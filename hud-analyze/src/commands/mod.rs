//! The commands, a file for each or for a few that belong together, with their arguments.

pub(crate) mod args;
pub(crate) mod diff;
pub(crate) mod export;
pub(crate) mod findings;
pub(crate) mod fleet;
pub(crate) mod generated;
pub(crate) mod info;
pub(crate) mod maintenance;
pub(crate) mod recorded;
pub(crate) mod replay;
pub(crate) mod rollup;
pub(crate) mod sort;
pub(crate) mod sql;
pub(crate) mod task_tree;
pub mod verify;
pub(crate) mod views;
