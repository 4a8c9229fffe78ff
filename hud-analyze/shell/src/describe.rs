//! Output of `\d`, `\df`, `\?` and `\pset`.

use std::time::Duration;

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets::NOTHING};

use crate::{
    command::COMMANDS,
    database::{Catalogue, Relation, RelationKind},
    error::{Result, ShellError},
    settings::{OPTIONS, Settings},
};

/// All tables and views.
pub(crate) fn relations(catalogue: &Catalogue, width: Option<usize>) -> String {
    let mut rows = vec![["name", "kind", "description"].map(str::to_owned)];
    // A relation that also has a name without schema is listed once.
    let has_short_name = |relation: &Relation| {
        let same = |other: &Relation| other.name == relation.name && other.columns == relation.columns;
        relation.schema.is_some() && catalogue.relations.iter().any(|other| other.schema.is_none() && same(other))
    };
    for relation in catalogue.relations.iter().filter(|relation| !has_short_name(relation)) {
        rows.push([relation.qualified(), kind(relation).to_owned(), relation.doc.clone()]);
    }
    columns(&rows, width)
}

/// The columns of a relation.
pub(crate) fn relation(catalogue: &Catalogue, name: &str, width: Option<usize>) -> Result<String> {
    let missing = || ShellError::usage(format!("there is no table or view {name}"), "\\d lists them");
    let found = catalogue.relation(name).ok_or_else(missing)?;
    let doc = if found.doc.is_empty() { String::new() } else { format!(": {}", found.doc) };
    let title = format!("{} {}{doc}", kind(found), found.qualified());
    let mut rows = vec![["column", "type", "description"].map(str::to_owned)];
    rows.extend(found.columns.iter().map(|c| [c.name.clone(), c.data_type.clone(), c.doc.clone()]));
    Ok(format!("{}\n{}", hud_common::clean(&title), columns(&rows, width)))
}

fn kind(relation: &Relation) -> &'static str {
    match relation.kind {
        RelationKind::Table => "table",
        RelationKind::View => "view",
    }
}

/// Functions whose name contains `part`.
pub(crate) fn functions(catalogue: &Catalogue, part: &str, width: Option<usize>) -> Result<String> {
    let part = part.to_lowercase();
    let found = catalogue.functions.iter().filter(|function| function.name.to_lowercase().contains(&part));
    let mut rows = vec![["function", "kind", "description"].map(str::to_owned)];
    rows.extend(found.map(|f| [f.signature.clone(), f.kind.name().to_owned(), f.doc.clone()]));
    match rows.len() {
        1 => Err(ShellError::usage(format!("there is no function {part}"), "\\df lists them")),
        _ => Ok(columns(&rows, width)),
    }
}

/// Commands and keys.
pub(crate) fn help(width: Option<usize>) -> String {
    let keys = [
        ("Tab", "complete, or show the candidates"),
        ("Up, Down", "previous and next statement"),
        ("Ctrl-R", "search the history"),
        ("Alt-Enter", "insert a new line"),
        ("Ctrl-C", "discard the input, or cancel the running statement"),
        ("Ctrl-D", "quit"),
    ];
    let commands = COMMANDS.iter().map(|(_, usage, about)| (*usage, *about));
    let rows: Vec<_> = commands.chain(keys).map(|(name, about)| [name.to_owned(), about.to_owned()]).collect();
    format!("A statement ends with `;` and may span lines.\n{}", columns(&rows, width))
}

/// All options with their values.
pub(crate) fn options(settings: &Settings, width: Option<usize>) -> String {
    let rows = OPTIONS.map(|(name, about)| [name.to_owned(), settings.get(name), about.to_owned()]);
    columns(&rows, width)
}

/// Rows of cells in aligned columns, without control characters. The last column is wrapped to `width`.
fn columns<const N: usize>(rows: &[[String; N]], width: Option<usize>) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).force_no_tty().set_content_arrangement(ContentArrangement::Disabled);
    if let Some(width) = width.and_then(|width| u16::try_from(width).ok()) {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    for row in rows {
        table.add_row(row.iter().map(|cell| hud_common::clean(cell)));
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if at + 1 == N { 0 } else { 2 }));
        if at + 1 < N {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// A duration.
pub(crate) fn duration(time: Duration) -> String {
    hud_common::units::duration(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Column;

    #[test]
    fn a_relation_with_two_names_is_listed_once() {
        let relation = |schema: Option<&str>, name: &str, column: &str| Relation {
            schema: schema.map(str::to_owned),
            name: name.into(),
            kind: RelationKind::View,
            doc: String::new(),
            columns: vec![Column { name: column.into(), ..Column::default() }],
        };
        let listed = |all: Vec<Relation>| relations(&Catalogue { relations: all, functions: Vec::new() }, None);
        let both = vec![relation(None, "blocking", "a"), relation(Some("views"), "blocking", "a")];
        assert_eq!(listed(both), "name      kind  description\nblocking  view\n");
        let two = vec![relation(None, "polls", "a"), relation(Some("views"), "polls", "b")];
        assert_eq!(listed(two).lines().count(), 3);
    }

    #[test]
    fn columns_are_aligned_wrapped_and_clean() {
        let rows = [["日本".to_owned(), "x".to_owned()], ["a".to_owned(), "\x1b[2J".to_owned()]];
        assert_eq!(columns(&rows, None), "日本  x\na     \\x1b[2J\n");
        let rows = [["a".to_owned(), "words that are more than fit a line".to_owned()]];
        assert_eq!(columns(&rows, Some(25)), "a  words that are more\n   than fit a line\n");
        assert_eq!(duration(Duration::from_micros(12_480)), "12.5 ms");
    }
}
