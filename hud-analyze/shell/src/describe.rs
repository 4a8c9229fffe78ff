//! Output of `\d`, `\df`, `\h`, `\?` and `\pset`.

use crate::{
    command::{COMMANDS, nearest},
    database::{Catalogue, Function, Relation, RelationKind},
    error::{Result, ShellError},
    settings::{OPTIONS, Settings},
    sql::TOPICS,
    text,
};

/// Tables, views or both.
pub(crate) fn relations(catalogue: &Catalogue, kind: Option<RelationKind>, width: Option<usize>) -> String {
    let mut rows = vec![["name", "kind", "a row is"].map(str::to_owned)];
    // A relation with a shorter name is listed by that.
    let is_listed = |relation: &Relation| {
        relation.schema.is_none()
            || !catalogue
                .relations
                .iter()
                .any(|other| other.schema.is_none() && other.name == relation.name && other.columns == relation.columns)
    };
    let fitting = catalogue.relations.iter().filter(|relation| kind.is_none_or(|kind| relation.kind == kind));
    for relation in fitting.filter(|relation| is_listed(relation)) {
        rows.push([relation.qualified(), kind_of(relation).to_owned(), relation.doc.clone()]);
    }
    match rows.len() {
        1 => "there is none\n".to_owned(),
        _ => text::columns(&rows, "", width),
    }
}

/// A relation's columns; or all relations of a pattern.
pub(crate) fn relation(catalogue: &Catalogue, name: &str, width: Option<usize>) -> Result<String> {
    if name.contains('*') {
        let fitting = catalogue.relations.iter().filter(|r| fits(&r.name, name) || fits(&r.qualified(), name));
        let catalogue = Catalogue { relations: fitting.cloned().collect(), functions: Vec::new() };
        return Ok(relations(&catalogue, None, width));
    }
    let found = catalogue.relation(name).ok_or_else(|| no_relation(catalogue, name))?;
    let title = format!("{} {}", kind_of(found), found.qualified());
    let title = if found.doc.is_empty() { title } else { format!("{title}: {}", found.doc) };
    let mut rows = vec![["column", "type", "what it holds"].map(str::to_owned)];
    rows.extend(found.columns.iter().map(|c| [c.name.clone(), c.data_type.clone(), c.doc.clone()]));
    Ok(format!("{}\n{}", hud_common::clean(&title), text::columns(&rows, "  ", width)))
}

fn kind_of(relation: &Relation) -> &'static str {
    match relation.kind {
        RelationKind::Table => "table",
        RelationKind::View => "view",
    }
}

fn no_relation(catalogue: &Catalogue, name: &str) -> ShellError {
    let all = catalogue.relations.iter().map(|relation| relation.name.as_str());
    let hint = match nearest(name, all) {
        Some(near) => format!("did you mean {near}?"),
        None => "\\d lists them".to_owned(),
    };
    ShellError::usage(format!("there is no table or view {name}"), hint)
}

/// Functions; those of a name or a pattern, if given.
pub(crate) fn functions(catalogue: &Catalogue, pattern: Option<&str>, width: Option<usize>) -> Result<String> {
    let fitting: Vec<&Function> =
        catalogue.functions.iter().filter(|function| pattern.is_none_or(|p| fits(&function.name, p))).collect();
    if fitting.is_empty() {
        let name = pattern.unwrap_or_default();
        let hint = match nearest(name, catalogue.functions.iter().map(|function| function.name.as_str())) {
            Some(near) => format!("did you mean {near}?"),
            None => "\\df lists them".to_owned(),
        };
        return Err(ShellError::usage(format!("there is no function {name}"), hint));
    }
    let mut rows = vec![["function", "kind", "what it gives"].map(str::to_owned)];
    rows.extend(fitting.iter().map(|f| [f.signature.clone(), f.kind.name().to_owned(), f.doc.clone()]));
    Ok(text::columns(&rows, "", width))
}

/// Whether a name matches a pattern in which `*` stands for any text.
fn fits(name: &str, pattern: &str) -> bool {
    let (name, pattern) = (name.to_lowercase(), pattern.to_lowercase());
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Help on SQL: on a statement, a function, a table or view; without a name, the list of topics.
pub(crate) fn sql_help(catalogue: &Catalogue, name: &str, width: Option<usize>) -> Result<String> {
    if name.is_empty() {
        let rows: Vec<_> = TOPICS.iter().map(|(topic, _, about)| [(*topic).to_owned(), (*about).to_owned()]).collect();
        return Ok(format!(
            "{}\\h NAME tells how one is written. \\d lists tables and views, \\df functions.\n",
            text::columns(&rows, "", width)
        ));
    }
    let word = name.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    if let Some((_, usage, about)) = TOPICS.iter().find(|(topic, ..)| *topic == word) {
        let usage = text::wrap(usage, width.unwrap_or(usize::MAX).saturating_sub(2));
        return Ok(format!("{about}\n  {}\n", usage.join("\n  ")));
    }
    if catalogue.functions.iter().any(|function| fits(&function.name, &word)) {
        return functions(catalogue, Some(&word), width);
    }
    relation(catalogue, name, width).map_err(|_| {
        let names = TOPICS.iter().map(|(topic, ..)| *topic);
        let known = names
            .chain(catalogue.functions.iter().map(|function| function.name.as_str()))
            .chain(catalogue.relations.iter().map(|relation| relation.name.as_str()));
        let hint = match nearest(&word, known) {
            Some(near) => format!("did you mean {near}?"),
            None => "\\h lists what there is".to_owned(),
        };
        ShellError::usage(format!("there is no help on {name}"), hint)
    })
}

/// The commands.
pub(crate) fn help(width: Option<usize>) -> String {
    let shown = COMMANDS.iter().filter(|(name, ..)| !matches!(*name, "\\quit" | "\\help"));
    let rows: Vec<_> = shown.map(|(_, usage, _, about)| [(*usage).to_owned(), (*about).to_owned()]).collect();
    let keys = [
        ["Tab", "completes, or shows what may stand there"],
        ["Up, Down", "statements before and after"],
        ["Ctrl-R", "searches them"],
        ["Alt-Enter", "a new line"],
        ["Ctrl-O", "edits what is typed in $EDITOR"],
        ["Ctrl-C", "forgets what is typed; cancels a query"],
        ["Ctrl-D", "leaves"],
    ]
    .map(|row| row.map(str::to_owned));
    format!(
        "A statement ends with `;` and may have many lines.\n{}keys\n{}",
        text::columns(&rows, "  ", width),
        text::columns(&keys, "  ", width)
    )
}

/// All options with their values.
pub(crate) fn options(settings: &Settings, width: Option<usize>) -> String {
    let rows: Vec<_> =
        OPTIONS.iter().map(|(name, about)| [(*name).to_owned(), settings.get(name), (*about).to_owned()]).collect();
    text::columns(&rows, "", width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Column;

    #[test]
    fn what_has_two_names_is_listed_once() {
        let relation = |schema: Option<&str>, name: &str, column: &str| Relation {
            schema: schema.map(str::to_owned),
            name: name.into(),
            kind: RelationKind::View,
            doc: String::new(),
            columns: vec![Column { name: column.into(), ..Column::default() }],
        };
        let listed = |all: Vec<Relation>| relations(&Catalogue { relations: all, functions: Vec::new() }, None, None);
        let both = vec![relation(None, "blocking", "a"), relation(Some("views"), "blocking", "a")];
        assert_eq!(listed(both), "name      kind  a row is\nblocking  view\n");
        let two = vec![relation(None, "polls", "a"), relation(Some("views"), "polls", "b")];
        assert_eq!(listed(two).lines().count(), 3);
    }

    #[test]
    fn patterns_fit() {
        for (name, pattern, wanted) in [
            ("human", "human", true),
            ("human", "HUM*", true),
            ("human", "*man", true),
            ("human", "h*m*n", true),
            ("human", "*", true),
            ("human", "hum", false),
            ("human", "*hum", false),
            ("aa", "a*a*a", false),
        ] {
            assert_eq!(fits(name, pattern), wanted, "{name} {pattern}");
        }
    }
}
