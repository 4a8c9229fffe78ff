//! The shell in a real terminal: typed input and the screen.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail it")]

mod support;

use std::{fs, os::unix::fs::PermissionsExt as _};

use rustix::process::Signal;
use support::Terminal;

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const UP: &str = "\x1b[A";

#[test]
fn runs_statements_and_recalls_them_from_the_history() {
    let mut t = Terminal::start(&[]);
    t.shows("four planets");
    t.shows("\\d lists tables and views");
    t.enter("select name from planets;");
    t.shows("Mars\n(4 rows)");
    t.enter("select moons from planets limit 1;");
    t.shows("moons\n0\n(1 row)");
    t.type_in(UP);
    t.until("the last statement", |t| t.line() == "hud> select moons from planets limit 1;");
    t.type_in(UP);
    t.until("the one before", |t| t.line() == "hud> select name from planets;");
    t.type_in(CTRL_C);
    t.prompt();
    // A search.
    t.type_in("\x12moons");
    t.until("what was searched", |t| t.line().contains("(search moons) select moons from planets limit 1;"));
    t.type_in("\r");
    t.until("what was found", |t| t.line() == "hud> select moons from planets limit 1;");
    t.type_in(CTRL_C);
    t.prompt();
    t.type_in(CTRL_D);
    assert!(t.end().success());
}

#[test]
fn a_statement_may_span_lines() {
    let mut t = Terminal::start(&[]);
    t.submit("select name -- one;");
    t.until("another line", |t| t.line() == "hud->");
    t.submit("from planets");
    t.until("another line", |t| t.line() == "hud->");
    t.enter("limit 2;");
    t.shows("name\nMercury\nVenus\n(2 rows)");
    // A command does not end the statement that it is in.
    t.submit("select name");
    t.until("another line", |t| t.line() == "hud->");
    t.submit("\\timing");
    t.until("a continued prompt", |t| t.screen().contains("timing is on\nhud->") && t.line() == "hud->");
    t.enter("from moonless;");
    t.shows("Venus\n(2 rows)\ntook ");
    // Several statements in a line.
    t.enter("select name from planets limit 1; show width;");
    t.shows("width\n80\n(1 row)");
}

#[test]
fn tab_completes_and_shows_a_menu() {
    let mut t = Terminal::start(&[]);
    t.type_in("select moons from plan\t");
    t.until("the table", |t| t.line() == "hud> select moons from planets");
    t.enter(" limit 1;");
    t.shows("moons\n0\n(1 row)");
    t.type_in("select * from pla\t");
    t.shows("a planet, from the sun outwards");
    t.shows("plain_numbers");
    t.until("the first one chosen", |t| t.chosen().starts_with("plain_numbers"));
    t.type_in("\t");
    t.until("the second one chosen", |t| t.chosen().starts_with("planets"));
    t.type_in("\r");
    t.until("the second of the menu", |t| t.line() == "hud> select * from planets" && t.chosen().is_empty());
    t.type_in(CTRL_C);
    t.prompt();
    t.type_in("\\tim\t");
    t.until("the command", |t| t.line() == "hud> \\timing");
    t.type_in("on\r");
    t.shows("timing is on");
    t.prompt();
    t.type_in("select 1, mo\t");
    t.until("the column of a table that is not named yet", |t| t.line() == "hud> select 1, moons");
}

#[test]
fn commands_describe_relations_and_set_options() {
    let mut t = Terminal::start(&[]);
    t.enter("\\d");
    t.shows("endless        table  a number, slowly");
    t.shows("moonless       view   a planet without moons");
    t.enter("\\d planets");
    t.shows("table planets: a planet, from the sun outwards");
    t.shows("moons   count  its moons");
    t.enter("\\d plnets");
    t.shows("error: there is no table or view plnets; \\d lists them");
    t.enter("\\timng");
    t.shows("error: there is no command \\timng; \\? lists the commands");
    t.enter("\\df");
    t.shows("brightness(name) -> Float64");
    t.enter("\\x");
    t.shows("expanded is on");
    t.enter("select * from planets limit 1;");
    t.shows("name: Mercury\nmoons: 0\n(1 row)");
    t.enter("\\pset format csv");
    t.enter("select * from planets limit 1;");
    t.shows("name,moons\nMercury,0\nhud>");
    t.enter("select * from nowhere;");
    t.shows("error: there is no table nowhere");
    t.enter("\\?");
    t.shows("\\df [TEXT]            list functions, or those whose name contains TEXT");
    t.enter("set x = 1;");
    t.shows("done");
    t.submit("\\q");
    assert!(t.end().success());
}

#[test]
fn ctrl_c_cancels_the_statement_and_not_the_shell() {
    let mut t = Terminal::start(&[]);
    t.submit("select * from endless;");
    t.shows("reading endless, ");
    t.shows(" of 1,000,000 rows (");
    t.type_in(CTRL_C);
    t.shows("cancelled after ");
    t.prompt();
    assert!(!t.screen().contains("reading endless"), "the progress stays:\n{}", t.screen());
    t.enter("select name from planets limit 1;");
    t.shows("Mercury\n(1 row)");
    // At the prompt it discards the input.
    t.type_in("select 'abc");
    t.until("what was typed", |t| t.line() == "hud> select 'abc");
    t.type_in(CTRL_C);
    t.prompt();
    t.enter("select name from planets limit 2;");
    t.shows("Venus\n(2 rows)");
    // Earlier lines of the statement too.
    t.submit("select name");
    t.until("another line", |t| t.line() == "hud->");
    t.submit("\\timing");
    t.until("a continued prompt", |t| t.line() == "hud->" && t.screen().contains("timing is on\nhud->"));
    t.type_in(CTRL_C);
    t.prompt();
    t.type_in(CTRL_D);
    assert!(t.end().success());
}

#[test]
fn sends_output_longer_than_the_screen_to_the_pager() {
    let mut t = Terminal::start(&[("PAGER", "sed s/^/paged:/")]);
    t.enter("select n from plain_numbers limit 20;");
    t.shows("\n19\n(20 rows)");
    assert!(!t.screen().contains("paged:"));
    t.enter("select n from plain_numbers limit 50;");
    t.shows("paged:49\npaged:(50 rows)");
    drop(t);
    let mut t = Terminal::start(&[("PAGER", "")]);
    t.enter("select n from plain_numbers limit 60;");
    t.shows("\n59\n(60 rows)");
}

#[test]
fn the_pager_may_end_early() {
    let mut t = Terminal::start(&[("PAGER", "cat")]);
    t.enter("select n from plain_numbers;");
    t.shows("99999\n(100000 rows)");
    drop(t);
    let mut t = Terminal::start(&[("PAGER", "head -n 2")]);
    t.enter("select n from plain_numbers;");
    t.until("two lines and no error", |t| t.screen().contains("plain_numbers;\nn\n0\nhud>"));
}

#[test]
fn the_shell_follows_the_size_of_the_terminal() {
    let mut t = Terminal::start(&[]);
    t.type_in("show wid");
    t.until("half a statement", |t| t.line() == "hud> show wid");
    t.resize(10, 40);
    t.type_in("th;");
    t.until("the rest of it", |t| t.line() == "hud> show width;");
    t.type_in("\r");
    t.shows("width\n40\n(1 row)");
    t.prompt();
    t.enter("select name from planets limit 3;");
    t.shows("Earth\n(3 rows)");
}

#[test]
fn a_signal_ends_the_shell_and_restores_the_terminal() {
    let home = tempfile::tempdir().unwrap();
    for during_query in [false, true] {
        let mut t = Terminal::start_in(&home, &[]);
        t.prompt();
        assert!(t.is_raw());
        if during_query {
            t.submit("select n from endless;");
            t.shows("reading endless");
        }
        t.signal(Signal::TERM);
        t.shows("ended by signal 15");
        assert_eq!(t.end().code(), Some(143));
    }
    // The history is saved, readable by its owner only.
    let history = home.path().join("state/hud/sql_history");
    assert_eq!(fs::read_to_string(&history).unwrap(), "select n from endless;\n");
    assert_eq!(fs::metadata(&history).unwrap().permissions().mode() & 0o777, 0o600);
    let mut t = Terminal::start_in(&home, &[]);
    t.prompt();
    t.type_in(UP);
    t.until("the statement of another shell", |t| t.line() == "hud> select n from endless;");
}

#[test]
fn an_empty_hud_history_disables_the_history() {
    let home = tempfile::tempdir().unwrap();
    let mut t = Terminal::start_in(&home, &[("HUD_HISTORY", "")]);
    t.prompt();
    t.enter("select name from planets;");
    t.type_in(CTRL_D);
    assert!(t.end().success());
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn no_color_disables_colours() {
    let is_colour = |raw: &[u8]| raw.windows(4).any(|bytes| bytes == b"\x1b[32" || bytes == b"\x1b[1;");
    for (variables, wanted) in [(&[][..], true), (&[("NO_COLOR", "1")][..], false)] {
        let mut t = Terminal::start(variables);
        t.enter("select name from planets limit 1; -- 'x'");
        assert_eq!(is_colour(&t.raw), wanted);
    }
}

#[test]
fn replaces_pasted_control_characters() {
    let mut t = Terminal::start(&[]);
    t.type_in("\x1b[200~select '\x07\u{9b}2Jx' from planets;\x1b[201~");
    t.until("replacements", |t| t.line().contains("select '?¿2Jx' from planets;"));
    t.type_in("\r");
    t.shows("error: there is no column '\\x07\\u{9b}2jx'");
    assert!(!t.raw.contains(&7));
}

#[test]
fn less_is_the_default_pager() {
    let path = std::env::var_os("PATH").unwrap();
    if !std::env::split_paths(&path).any(|folder| folder.join("less").is_file()) {
        eprintln!("skipped: there is no less here");
        return;
    }
    let mut t = Terminal::start(&[]);
    t.submit("select n from plain_numbers limit 50;");
    t.until("a screenful", |t| t.line() == ":" && t.screen().contains("\n20\n"));
    t.type_in(" ");
    t.shows("\n43\n");
    t.type_in("q");
    t.prompt();
    t.enter("show width;");
    t.shows("width\n80\n(1 row)");
}

#[test]
fn a_dumb_terminal_is_read_like_a_pipe() {
    let home = tempfile::tempdir().unwrap();
    let mut t = Terminal::start_in(&home, &[("TERM", "dumb")]);
    t.type_in("select name from planets limit 1;\n");
    t.shows("Mercury\n(1 row)");
    assert!(!t.is_raw());
    t.type_in("\\q\n");
    assert!(t.end().success());
}
