//! What `\d`, `\df`, `\h`, `\?` and `\pset` show.

use crate::{
    command::{COMMANDS, nearest},
    database::{Catalogue, Function, Relation, RelationKind},
    error::{Result, ShellError},
    settings::{OPTIONS, Settings},
    sql::TOPICS,
    text,
};

/// Tables, views or both.
pub(crate) fn relations(catalogue: &Catalogue, kind: Option<RelationKind>) -> String {
    let mut rows = vec![["name", "kind", "a row is"].map(str::to_owned)];
    for relation in catalogue.relations.iter().filter(|relation| kind.is_none_or(|kind| relation.kind == kind)) {
        rows.push([relation.qualified(), kind_of(relation).to_owned(), relation.doc.clone()]);
    }
    match rows.len() {
        1 => "there is none\n".to_owned(),
        _ => text::columns(&rows, ""),
    }
}

/// A relation's columns; or all relations of a pattern.
pub(crate) fn relation(catalogue: &Catalogue, name: &str) -> Result<String> {
    if name.contains('*') {
        let fitting = catalogue.relations.iter().filter(|r| fits(&r.name, name) || fits(&r.qualified(), name));
        let catalogue = Catalogue { relations: fitting.cloned().collect(), functions: Vec::new() };
        return Ok(relations(&catalogue, None));
    }
    let found = catalogue.relation(name).ok_or_else(|| no_relation(catalogue, name))?;
    let title = format!("{} {}", kind_of(found), found.qualified());
    let title = if found.doc.is_empty() { title } else { format!("{title}: {}", found.doc) };
    let mut rows = vec![["column", "type", "what it holds"].map(str::to_owned)];
    rows.extend(found.columns.iter().map(|c| [c.name.clone(), c.data_type.clone(), c.doc.clone()]));
    Ok(format!("{}\n{}", hud_common::clean(&title), text::columns(&rows, "  ")))
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

/// Functions; those of a name or a pattern, where one is given.
pub(crate) fn functions(catalogue: &Catalogue, pattern: Option<&str>) -> Result<String> {
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
    Ok(text::columns(&rows, ""))
}

/// Whether a name fits a pattern in which `*` stands for anything.
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

/// Help on SQL: on a statement, a function, a table or view; without a name, what there is help on.
pub(crate) fn sql_help(catalogue: &Catalogue, name: &str) -> Result<String> {
    if name.is_empty() {
        let rows: Vec<_> = TOPICS.iter().map(|(topic, _, about)| [(*topic).to_owned(), (*about).to_owned()]).collect();
        return Ok(format!(
            "{}\\h NAME tells how one is written. \\d lists tables and views, \\df functions.\n",
            text::columns(&rows, "")
        ));
    }
    let word = name.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    if let Some((_, usage, about)) = TOPICS.iter().find(|(topic, ..)| *topic == word) {
        return Ok(format!("{about}\n  {usage}\n"));
    }
    if catalogue.functions.iter().any(|function| fits(&function.name, &word)) {
        return functions(catalogue, Some(&word));
    }
    relation(catalogue, name).map_err(|_| {
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
pub(crate) fn help() -> String {
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
        text::columns(&rows, "  "),
        text::columns(&keys, "  ")
    )
}

/// All options as they are set.
pub(crate) fn options(settings: &Settings) -> String {
    let rows: Vec<_> =
        OPTIONS.iter().map(|(name, about)| [(*name).to_owned(), settings.get(name), (*about).to_owned()]).collect();
    text::columns(&rows, "")
}

#[cfg(test)]
mod tests {
    use super::*;

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
