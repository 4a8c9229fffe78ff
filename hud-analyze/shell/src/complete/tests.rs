//! Candidates by position.

use std::fs;

use super::*;
use crate::{Column, Function, RelationKind};

fn catalogue() -> Catalogue {
    let relation = |schema: Option<&str>, name: &str, kind, columns: &[&str]| Relation {
        schema: schema.map(str::to_owned),
        name: name.into(),
        kind,
        doc: format!("about {name}"),
        columns: columns
            .iter()
            .map(|name| Column { name: (*name).into(), data_type: "Int64".into(), doc: format!("its {name}") })
            .collect(),
    };
    let function =
        |name: &str, kind| Function { name: name.into(), signature: format!("{name}(x)"), kind, doc: String::new() };
    Catalogue {
        relations: vec![
            relation(None, "blocking", RelationKind::View, &["cause", "total"]),
            relation(None, "polls", RelationKind::Table, &["ts", "dur", "task_id", "Odd Name"]),
            relation(None, "process", RelationKind::Table, &["ts", "rss"]),
            relation(Some("views"), "polls", RelationKind::View, &["busy"]),
        ],
        functions: vec![
            function("human", FunctionKind::Scalar),
            function("hotspots_of", FunctionKind::Table),
            function("percentile", FunctionKind::Aggregate),
        ],
    }
}

/// The candidates at the `|` in `text`.
fn offered(text: &str) -> Vec<String> {
    let cursor = text.find('|').unwrap();
    let text = text.replace('|', "");
    let found = complete(&catalogue(), &text, cursor);
    for candidate in &found {
        assert!(candidate.start <= cursor && text.is_char_boundary(candidate.start));
    }
    found.into_iter().map(|candidate| candidate.value).collect()
}

#[test]
fn tables_stand_behind_from_and_join() {
    for (text, wanted) in [
        ("select * from p|", vec!["polls", "process"]),
        ("select * from P|", vec!["polls", "process"]),
        ("select * from polls p join pr|", vec!["process"]),
        ("select * from polls, pr|", vec!["process"]),
        ("select * from polls p,\n pr|", vec!["process"]),
        ("select * from h|", vec!["hotspots_of("]),
        ("select * from v|", vec!["views.polls"]),
        ("select * from views.|", vec!["polls"]),
        ("with mine as (select 1) select * from m|", vec!["mine"]),
        ("describe pol|", vec!["polls"]),
        ("select * from (select * from pro|)", vec!["process"]),
        ("select 1; select * from bl|; select 2", vec!["blocking"]),
        ("select * from |", vec!["blocking", "polls", "process", "hotspots_of("]),
    ] {
        assert_eq!(offered(text), wanted, "{text}");
    }
}

#[test]
fn columns_are_those_of_the_tables_that_are_named() {
    for (text, wanted) in [
        ("select | from polls", vec!["ts", "dur", "task_id", "\"Odd Name\"", "polls"]),
        ("select ta| from polls", vec!["task_id", "table", "tables"]),
        ("select t| from blocking", vec!["total", "table", "tables", "then", "timestamp", "to", "true"]),
        ("select p.| from polls p", vec!["ts", "dur", "task_id", "\"Odd Name\""]),
        ("select P.d| from polls as p", vec!["dur"]),
        ("select polls.t| from polls", vec!["ts", "task_id"]),
        ("select x.b| from views.polls x", vec!["busy"]),
        ("select * from polls where du|", vec!["dur"]),
        ("select * from polls p join process q on q.|", vec!["ts", "rss"]),
        ("select rs| from polls, process", vec!["rss"]),
        ("select rs| from (select * from process) s", vec!["rss"]),
        ("select busy|", vec!["busy"]),
        ("select \"Od| from polls", vec![]),
        ("select rs| ; select * from polls", vec!["rss"]),
        ("select n.| from nowhere n", vec![]),
    ] {
        let found = offered(text);
        if text.contains("\"Od") {
            // An open quote swallows the FROM: any column is possible.
            assert_eq!(found, ["\"Odd Name\""]);
        } else {
            assert_eq!(found, wanted, "{text}");
        }
    }
}

#[test]
fn keywords_and_functions_follow_the_case_and_the_place() {
    for (text, wanted) in [
        ("sel|", vec!["select"]),
        ("SEL|", vec!["SELECT"]),
        ("Ex|", vec!["explain"]),
        ("select * from polls gr|", vec!["group", "grouping"]),
        ("SELECT * FROM polls GR|", vec!["GROUP", "GROUPING"]),
        ("select hu|", vec!["human("]),
        ("select perc| from polls", vec!["percentile("]),
        ("select 'from |", vec![]),
        ("select 1 -- from |", vec![]),
        ("select /* from | */ 1", vec![]),
        ("select 12|", vec![]),
    ] {
        assert_eq!(offered(text), wanted, "{text}");
    }
    assert!(offered("|").contains(&"SELECT".to_owned()));
}

#[test]
fn commands_and_their_arguments() {
    for (text, wanted) in [
        ("\\ti|", vec!["\\timing"]),
        ("\\d|", vec!["\\d", "\\dt", "\\dv", "\\df"]),
        ("\\d po|", vec!["polls"]),
        ("\\d views.|", vec!["views.polls"]),
        ("\\df hu|", vec!["human"]),
        ("\\timing |", vec!["on", "off"]),
        ("\\x a|", vec!["auto"]),
        ("\\pset f|", vec!["format", "footer"]),
        ("\\pset format n|", vec!["ndjson"]),
        ("\\pset pager |", vec!["on", "off"]),
        ("\\pset format csv |", vec![]),
        ("\\h cre|", vec!["create view"]),
        ("\\q |", vec![]),
        ("select 1 \\g|", vec!["\\g", "\\gx"]),
        ("\\x on\nselect du| from polls", vec!["dur"]),
    ] {
        assert_eq!(offered(text), wanted, "{text}");
    }
}

#[test]
fn file_names_follow_their_commands() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["one.sql", "only two.sql", ".hidden", "on\x1b.sql"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    fs::create_dir(folder.path().join("onwards")).unwrap();
    let at = folder.path().to_str().unwrap();
    for command in ["\\i", "\\ir", "\\o", "\\g", "\\e"] {
        let wanted = [format!("'{at}/only two.sql'"), format!("{at}/one.sql"), format!("{at}/onwards/")];
        assert_eq!(offered(&format!("{command} {at}/on|")), wanted, "{command}");
    }
    assert_eq!(offered(&format!("\\i '{at}/only t|")), [format!("'{at}/only two.sql'")]);
    assert_eq!(offered(&format!("\\i {at}/.h|")), [format!("{at}/.hidden")]);
    assert_eq!(offered(&format!("\\i {at}/nowhere/|")), Vec::<String>::new());
    assert_eq!(offered("\\o |gzip -|".replacen('|', "¦", 1).as_str()), Vec::<String>::new());
}

#[test]
fn names_with_escapes_are_not_offered() {
    let mut catalogue = catalogue();
    catalogue.relations[0].name = "p\x1b[2J".into();
    catalogue.relations[1].doc = "a\x1b[2J".into();
    let found = complete(&catalogue, "select * from p", 15);
    assert!(found.iter().all(|c| !c.value.contains('\x1b') && !c.about.contains('\x1b')));
    assert_eq!(found.len(), 2);
}

#[test]
fn any_text_and_cursor_are_answered() {
    let words = [
        "select ",
        "from ",
        "polls",
        " p",
        ".",
        ",",
        "(",
        ")",
        "'",
        "\"",
        ";",
        "\\i ",
        "\\d ",
        "--",
        "\n",
        "/*",
        "*/",
        "é",
        "日",
        " as ",
        "$a$",
        "1",
        "with ",
        "join ",
        "\\pset format ",
        "`",
    ];
    let catalogue = catalogue();
    for seed in 1..3000_u64 {
        let mut random = crate::random::Random::new(seed);
        let text: String = (0..random.below(20)).map(|_| words[random.below(words.len())]).collect();
        let cursor = random.below(text.len() + 2);
        for candidate in complete(&catalogue, &text, cursor) {
            assert!(candidate.start <= cursor && text.is_char_boundary(candidate.start), "{text:?}");
        }
    }
}
