//! The SQL shell of hud-analyze, independent of the database that executes its statements.
//!
//! [`run`] takes statements from the command line, from files or from standard input, or prompts for them on a
//! terminal; a [`Database`] executes them. The modules, in the order that a statement passes them: `editor` (input,
//! with `history`, `complete` and `highlight`), `splitter` over `lexer` (ends of statements), `command` (backslash
//! commands), `run` (one statement, with `progress` and `signals` beside it), `pager` (output).

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
