//! Every view of hud-analyze, held to a slow and obvious reading of the same rows (`plain`), on random sessions and on a
//! recorded one; to golden files of the recorded one; and its documentation to its header.
//!
//! The plain readings are written from the headers of `queries/*.sql`, not from their text. One binary, because each one
//! that links DataFusion takes a quarter of a gigabyte.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::type_complexity,
    clippy::unwrap_used,
    reason = "tests, of rows that are tuples"
)]

mod data;
mod docs;
mod golden;
mod made_up;
mod plain;
mod random;
