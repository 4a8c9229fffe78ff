//! The header of a view's file: its parameters and columns.

/// The unit of a column or parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A duration in nanoseconds.
    Ns,
    /// Nanoseconds since the Unix epoch.
    EpochNs,
    /// A fraction of 1.
    Share,
    /// A size.
    Bytes,
    /// A number of things.
    Count,
    /// An identifier.
    Id,
    /// Text.
    Text,
    /// True or false.
    Flag,
}

impl Unit {
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "ns" => Unit::Ns,
            "epoch_ns" => Unit::EpochNs,
            "share" => Unit::Share,
            "bytes" => Unit::Bytes,
            "count" => Unit::Count,
            "id" => Unit::Id,
            "text" => Unit::Text,
            "flag" => Unit::Flag,
            _ => return None,
        })
    }
}

/// A line of a header: a parameter (its name without `$`) or a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its name.
    pub name: String,
    /// Its unit.
    pub unit: Unit,
    /// Its description, without the default.
    pub about: String,
    /// A parameter's default, as the header has it.
    pub default: Option<String>,
    /// A column that tables for people omit unless all are requested.
    pub is_further: bool,
}

/// A view's header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Parameters of the query.
    pub parameters: Vec<Item>,
    /// Columns of its rows.
    pub columns: Vec<Item>,
}
