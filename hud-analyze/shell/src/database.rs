//! The interface between the shell and the database that executes its statements.

use std::io::Write;

use crate::{control::Control, error::Result, settings::Settings};

/// Executes statements, and lists relations and functions. It is called on the thread that runs the shell.
pub trait Database {
    /// All current tables and views. Called before each prompt and for `\d`, so it must be fast.
    fn relations(&self) -> Vec<Relation>;

    /// All functions, table functions included. Called before each prompt and for `\df`.
    fn functions(&self) -> Vec<Function>;

    /// Runs one statement and writes its result to `out`, in the format and width of `settings`.
    ///
    /// It ends soon after `control` is cancelled, with [`ShellError::Cancelled`](crate::ShellError::Cancelled), and
    /// reports its progress there. `out` fails if the reader has closed it; the statement then ends with any
    /// error. If `settings.format` is for people, the text written to `out` is safe for a terminal.
    fn run(&self, sql: &str, settings: &Settings, out: &mut dyn Write, control: &Control) -> Result<Summary>;
}

/// The outcome of a statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows that were written; `None` if the statement has no result, such as `CREATE VIEW`.
    pub rows: Option<u64>,
}

/// The kind of a relation.
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
    /// The schema if it has to be written; none for the default schema.
    pub schema: Option<String>,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: RelationKind,
    /// Description of a row, in a line; may be empty.
    pub doc: String,
    /// Its columns, in their order.
    pub columns: Vec<Column>,
}

impl Relation {
    /// Its name in a statement.
    pub fn qualified(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{schema}.{}", self.name),
            None => self.name.clone(),
        }
    }

    /// Whether `name`, with its schema or without, is this one's.
    pub fn is_called(&self, name: &str) -> bool {
        let name = name.replace(['"', '`'], "");
        self.qualified().eq_ignore_ascii_case(&name) || self.name.eq_ignore_ascii_case(&name)
    }
}

/// A column of a table or view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type: `ns`, `Int64`, `text`.
    pub data_type: String,
    /// Description, in a line; may be empty.
    pub doc: String,
}

/// The kind of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionKind {
    /// A value for each row.
    Scalar,
    /// A value for a group of rows.
    Aggregate,
    /// A value for each row, from the rows around it.
    Window,
    /// Rows; it is used as a table.
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
    /// Its signature: `human(dur) -> text`. It begins with the name.
    pub signature: String,
    /// Its kind.
    pub kind: FunctionKind,
    /// Description, in a line; may be empty.
    pub doc: String,
}

/// Relations and functions, as of the last prompt.
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

    /// The relation of that name, in the default schema first.
    pub(crate) fn relation(&self, name: &str) -> Option<&Relation> {
        self.relations.iter().find(|relation| relation.is_called(name))
    }
}
