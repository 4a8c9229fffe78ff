//! Rollups of many hosts as one data set: a fleet store.
//!
//! ```text
//! STORE/<table>/date=D/service=S/host=H/session=ID/part.parquet   rows of one session and day (UTC)
//! STORE/manifest/date=D/service=S/host=H/session=ID.json          written last: the session's files of that day are complete
//! STORE/<table>/date=D/service=S/compact-NNNNNN.parquet           rows of many sessions
//! STORE/index/date=D.json                                         the compact files, and the sessions whose rows they have
//! ```
//! A session's files of a day are part of the store once its manifest exists, and until an index lists the session. So a reader
//! that lists manifests first and reads the indexes then finds each session's rows once, whatever is written meanwhile.
//! Publishing a session again writes the same names. Each layer imports only those above it: `partition`, `store`, `view`,
//! `publish`, `compact`, `upload`.

pub(crate) mod compact;
mod files;
mod partition;
pub(crate) mod publish;
pub(crate) mod store;
pub(crate) mod upload;
pub(crate) mod view;
