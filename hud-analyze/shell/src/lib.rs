//! The SQL shell of hud-analyze, independent of the database that executes its statements.
//!
//! [`run`] reads statements from the command line, from files, from standard input, or from a prompt on a terminal; a
//! [`Database`] executes them.
//!
//! ```text
//! run ──▶ editor ──▶ history, highlight, complete    input at the prompt
//!  ├─▶ splitter ──▶ sql                              ends of statements, by sqlparser's tokens
//!  ├─▶ command, describe                             backslash commands
//!  └─▶ pager ──▶ progress ──▶ control                output; signals cancel the running statement
//! ```

mod command;
mod complete;
mod control;
mod database;
mod describe;
mod editor;
mod error;
mod highlight;
mod history;
mod note;
mod pager;
mod progress;
mod run;
mod settings;
mod signals;
mod splitter;
mod sql;

pub use control::{Control, Reached};
pub use database::{Column, Database, Function, FunctionKind, Relation, RelationKind, Summary};
pub use error::{Result, ShellError};
pub use run::{Input, Options, Outcome, run};
pub use settings::{Format, Settings};
