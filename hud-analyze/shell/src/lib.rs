//! The SQL shell of hud-analyze, over anything that answers statements.
//!
//! [`run`] takes statements from the command line, from files or from standard input, or prompts for them on a
//! terminal; a [`Database`] answers them. The rooms, in the order that a statement passes them: `editor` (typing, with
//! `history`, `complete` and `highlight`), `splitter` over `lexer` (where a statement ends), `command` (what a backslash
//! means), `run` (one statement, with `progress` and `signals` beside it), `pager` (where the answer goes).

mod command;
mod commands;
mod complete;
mod control;
mod database;
mod describe;
mod editor;
mod error;
mod highlight;
mod history;
mod interactive;
mod lexer;
mod pager;
mod progress;
#[cfg(test)]
mod random;
mod run;
mod script;
mod settings;
mod signals;
mod splitter;
mod sql;
mod text;

pub use control::{Control, Reached};
pub use database::{Column, Database, Function, FunctionKind, Relation, RelationKind, Summary};
pub use error::{Result, ShellError};
pub use run::{Input, Options, Outcome, run};
pub use settings::{Expanded, Format, Settings};
