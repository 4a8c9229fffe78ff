//! Repair: from a damaged session to one that is proven, with its loss stated.

mod accounts;
mod manifest;
mod mend;
mod names;
mod salvage;
mod segments;

pub use mend::{Repair, RepairOptions, repair};

#[cfg(test)]
pub(crate) use mend::run;
