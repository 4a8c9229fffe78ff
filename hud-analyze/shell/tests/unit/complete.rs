//! Candidates by position.

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
        assert!(candidate.span.start <= cursor && text.is_char_boundary(candidate.span.start));
    }
    found.into_iter().map(|candidate| candidate.value).collect()
}

#[test]
fn offers_tables_after_from_and_join() {
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
fn offers_columns_of_the_tables_in_the_statement() {
    for (text, wanted) in [
        ("select | from polls", vec!["ts", "dur", "task_id", "\"Odd Name\"", "polls"]),
        ("select ta| from polls", vec!["task_id", "table", "tables"]),
        ("select t| from blocking", vec!["total", "table", "tables", "then", "timestamp", "true"]),
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
fn offers_keywords_in_the_case_of_the_statement() {
    for (text, wanted) in [
        ("sel|", vec!["select"]),
        ("SEL|", vec!["SELECT"]),
        ("Ex|", vec!["explain"]),
        ("select * from polls gr|", vec!["group"]),
        ("SELECT * FROM polls GR|", vec!["GROUP"]),
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
        ("\\d|", vec!["\\d", "\\df"]),
        ("\\d po|", vec!["polls"]),
        ("\\d views.|", vec!["views.polls"]),
        ("\\df hu|", vec!["human"]),
        ("\\timing |", vec!["on", "off"]),
        ("\\pset f|", vec!["format"]),
        ("\\pset format n|", vec!["ndjson"]),
        ("\\pset format csv |", vec![]),
        ("\\q |", vec![]),
        ("select 1\n\\ti|", vec!["\\timing"]),
        ("\\x on\nselect du| from polls", vec!["dur"]),
        ("select '\n\\ti|", vec![]),
    ] {
        assert_eq!(offered(text), wanted, "{text}");
    }
}

#[test]
fn offers_no_names_with_control_characters() {
    let mut catalogue = catalogue();
    catalogue.relations[0].name = "p\x1b[2J".into();
    catalogue.relations[1].doc = "a\x1b[2J".into();
    let found = complete(&catalogue, "select * from p", 15);
    assert!(found.iter().all(|c| !format!("{}{:?}", c.value, c.description).contains('\x1b')));
    assert_eq!(found.len(), 2);
}

#[test]
fn any_text_and_cursor_have_valid_candidates() {
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
        let mut state = seed;
        let mut below = |limit: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % limit
        };
        let text: String = (0..below(20)).map(|_| words[below(words.len())]).collect();
        let cursor = below(text.len() + 2);
        for candidate in complete(&catalogue, &text, cursor) {
            assert!(candidate.span.start <= cursor && text.is_char_boundary(candidate.span.start), "{text:?}");
        }
    }
}
