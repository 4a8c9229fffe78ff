//! What the shell asks of whoever answers its statements.

use std::{io::Write, time::Duration};

use crate::{control::Control, error::Result, settings::Settings};

/// Answers statements, and says what there is to ask about. It is called on the thread that runs the shell.
pub trait Database {
    /// All tables and views as they are now. Asked for before each prompt and for `\d`, so it must take no time.
    fn relations(&self) -> Vec<Relation>;

    /// All functions, table functions among them. Asked for before each prompt and for `\df`.
    fn functions(&self) -> Vec<Function>;

    /// Runs one statement and writes its answer to `out`, in the format and to the width that `settings` say.
    ///
    /// It ends soon once `control` is cancelled, with [`ShellError::Cancelled`](crate::ShellError::Cancelled), and tells
    /// it how far it is. `out` fails where the reader of the output has gone; the statement ends then, and it does not
    /// matter with which error. What is written to `out` is fit for a terminal where `settings.format` is for people.
    fn run(&self, sql: &str, settings: &Settings, out: &mut dyn Write, control: &Control) -> Result<Summary>;
}

/// What a statement did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows of the answer that were written; none where the statement has no answer, such as `CREATE VIEW`.
    pub rows: Option<u64>,
    /// The time it took, from planning to the last row.
    pub elapsed: Duration,
    /// Whether there are more rows than [`Settings::limit`] let be shown.
    pub truncated: bool,
}

/// What kind of relation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelationKind {
    /// A table of the session.
    Table,
    /// A view over its tables.
    View,
}

/// A table or a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// The schema that it is in, where it has to be named; none for the default schema.
    pub schema: Option<String>,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: RelationKind,
    /// What a row of it is, in a line; empty where nobody said.
    pub doc: String,
    /// Its columns, in their order.
    pub columns: Vec<Column>,
}

impl Relation {
    /// Its name as a statement has it.
    pub fn qualified(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{schema}.{}", self.name),
            None => self.name.clone(),
        }
    }

    /// Whether `name`, with its schema or without, is this one's.
    pub fn is_called(&self, name: &str) -> bool {
        let plain = |name: &str| name.replace(['"', '`'], "");
        match name.rsplit_once('.') {
            Some((schema, name)) => {
                self.schema.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(&plain(schema)))
                    && self.name.eq_ignore_ascii_case(&plain(name))
            }
            None => self.name.eq_ignore_ascii_case(&plain(name)),
        }
    }
}

/// A column of a table or view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, as people write it: `ns`, `Int64`, `text`.
    pub data_type: String,
    /// What it holds, in a line; empty where nobody said.
    pub doc: String,
}

/// What kind of function it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionKind {
    /// A value for each row.
    Scalar,
    /// A value for a group of rows.
    Aggregate,
    /// A value for each row, from the rows around it.
    Window,
    /// Rows; it stands where a table would.
    Table,
}

impl FunctionKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            FunctionKind::Scalar => "scalar",
            FunctionKind::Aggregate => "aggregate",
            FunctionKind::Window => "window",
            FunctionKind::Table => "table",
        }
    }
}

/// A function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// How it is called: `human(dur) -> text`. It begins with the name.
    pub signature: String,
    /// What it is.
    pub kind: FunctionKind,
    /// What it gives, in a line; empty where nobody said.
    pub doc: String,
}

/// What there is to ask about, as it was at the last prompt.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalogue {
    pub(crate) relations: Vec<Relation>,
    pub(crate) functions: Vec<Function>,
}

impl Catalogue {
    pub(crate) fn of(database: &dyn Database) -> Self {
        let (mut relations, mut functions) = (database.relations(), database.functions());
        relations.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
        functions.sort_by(|a, b| a.name.cmp(&b.name));
        Catalogue { relations, functions }
    }

    /// The relation of that name: one of the default schema before any other.
    pub(crate) fn relation(&self, name: &str) -> Option<&Relation> {
        self.relations.iter().find(|relation| relation.is_called(name))
    }
}
