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
    t.until_shown("four planets");
    t.until_shown("\\d lists tables and views");
    t.enter("select name from planets;");
    t.until_shown("Mars\n(4 rows)");
    t.enter("select moons from planets limit 1;");
    t.until_shown("moons\n0\n(1 row)");
    t.press(UP);
    t.until("the last statement", |t| t.line() == "hud> select moons from planets limit 1;");
    t.press(UP);
    t.until("the one before", |t| t.line() == "hud> select name from planets;");
    t.press(CTRL_C);
    t.prompt();
    // A search.
    t.press("\x12moons");
    t.until("the search", |t| t.line().contains("(search moons) select moons from planets limit 1;"));
    t.press("\r");
    t.until("the statement found", |t| t.line() == "hud> select moons from planets limit 1;");
    t.press(CTRL_C);
    t.prompt();
    t.press(CTRL_D);
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
    t.until_shown("name\nMercury\nVenus\n(2 rows)");
    // A command does not end the statement that it is in.
    t.submit("select name");
    t.until("another line", |t| t.line() == "hud->");
    t.submit("\\timing");
    t.until("a continued prompt", |t| t.text().contains("timing is on\nhud->") && t.line() == "hud->");
    t.enter("from moonless;");
    t.until_shown("Venus\n(2 rows)\ntook ");
    // Several statements in a line.
    t.enter("select name from planets limit 1; show width;");
    t.until_shown("width\n80\n(1 row)");
}

#[test]
fn tab_completes_and_shows_a_menu() {
    let mut t = Terminal::start(&[]);
    t.press("select moons from plan\t");
    t.until("the table", |t| t.line() == "hud> select moons from planets");
    t.enter(" limit 1;");
    t.until_shown("moons\n0\n(1 row)");
    t.press("select * from pla\t");
    t.until_shown("a planet, from the sun outwards");
    t.until_shown("plain_numbers");
    t.until("the first one chosen", |t| t.reversed().starts_with("plain_numbers"));
    t.press("\t");
    t.until("the second one chosen", |t| t.reversed().starts_with("planets"));
    t.press("\r");
    t.until("the second of the menu", |t| t.line() == "hud> select * from planets" && t.reversed().is_empty());
    t.press(CTRL_C);
    t.prompt();
    t.press("\\tim\t");
    t.until("the command", |t| t.line() == "hud> \\timing");
    t.press("on\r");
    t.until_shown("timing is on");
    t.prompt();
    t.press("select 1, mo\t");
    t.until("the column of a table that is not named yet", |t| t.line() == "hud> select 1, moons");
}

#[test]
fn commands_describe_relations_and_set_options() {
    let mut t = Terminal::start(&[]);
    t.enter("\\d");
    t.until_shown("endless        table  a number, slowly");
    t.until_shown("moonless       view   a planet without moons");
    t.enter("\\d planets");
    t.until_shown("table planets: a planet, from the sun outwards");
    t.until_shown("moons   count  its moons");
    t.enter("\\d plnets");
    t.until_shown("error: there is no table or view plnets; \\d lists them");
    t.enter("\\timng");
    t.until_shown("error: there is no command \\timng; \\? lists the commands");
    t.enter("\\df");
    t.until_shown("brightness(name) -> Float64");
    t.enter("\\x");
    t.until_shown("expanded is on");
    t.enter("select * from planets limit 1;");
    t.until_shown("name: Mercury\nmoons: 0\n(1 row)");
    t.enter("\\pset format csv");
    t.enter("select * from planets limit 1;");
    t.until_shown("name,moons\nMercury,0\nhud>");
    t.enter("select * from nowhere;");
    t.until_shown("error: there is no table nowhere");
    t.enter("\\?");
    t.until_shown("\\df [TEXT]            list functions, or those whose name contains TEXT");
    t.enter("set x = 1;");
    t.until_shown("done");
    t.submit("\\q");
    assert!(t.end().success());
}

#[test]
fn ctrl_c_cancels_the_statement_and_not_the_shell() {
    let mut t = Terminal::start(&[]);
    t.submit("select * from endless;");
    t.until_shown("reading endless, ");
    t.until_shown(" of 1,000,000 rows (");
    t.press(CTRL_C);
    t.until_shown("cancelled after ");
    t.prompt();
    assert!(!t.text().contains("reading endless"), "the progress stays:\n{}", t.text());
    t.enter("select name from planets limit 1;");
    t.until_shown("Mercury\n(1 row)");
    // At the prompt it discards the input.
    t.press("select 'abc");
    t.until("the typed text", |t| t.line() == "hud> select 'abc");
    t.press(CTRL_C);
    t.prompt();
    t.enter("select name from planets limit 2;");
    t.until_shown("Venus\n(2 rows)");
    // Earlier lines of the statement too.
    t.submit("select name");
    t.until("another line", |t| t.line() == "hud->");
    t.submit("\\timing");
    t.until("a continued prompt", |t| t.line() == "hud->" && t.text().contains("timing is on\nhud->"));
    t.press(CTRL_C);
    t.prompt();
    t.press(CTRL_D);
    assert!(t.end().success());
}

#[test]
fn sends_output_longer_than_the_screen_to_the_pager() {
    let mut t = Terminal::start(&[("PAGER", "sed s/^/paged:/")]);
    t.enter("select n from plain_numbers limit 20;");
    t.until_shown("\n19\n(20 rows)");
    assert!(!t.text().contains("paged:"));
    t.enter("select n from plain_numbers limit 50;");
    t.until_shown("paged:49\npaged:(50 rows)");
    drop(t);
    let mut t = Terminal::start(&[("PAGER", "")]);
    t.enter("select n from plain_numbers limit 60;");
    t.until_shown("\n59\n(60 rows)");
}

#[test]
fn the_pager_may_end_early() {
    let mut t = Terminal::start(&[("PAGER", "cat")]);
    t.enter("select n from plain_numbers;");
    t.until_shown("99999\n(100000 rows)");
    drop(t);
    let mut t = Terminal::start(&[("PAGER", "head -n 2")]);
    t.enter("select n from plain_numbers;");
    t.until("two lines and no error", |t| t.text().contains("plain_numbers;\nn\n0\nhud>"));
}

#[test]
fn the_shell_follows_the_size_of_the_terminal() {
    let mut t = Terminal::start(&[]);
    t.press("show wid");
    t.until("half a statement", |t| t.line() == "hud> show wid");
    t.resize((40, 10));
    t.press("th;");
    t.until("the rest of it", |t| t.line() == "hud> show width;");
    t.press("\r");
    t.until_shown("width\n40\n(1 row)");
    t.prompt();
    t.enter("select name from planets limit 3;");
    t.until_shown("Earth\n(3 rows)");
}

#[test]
fn a_signal_ends_the_shell_and_restores_the_terminal() {
    let home = tempfile::tempdir().unwrap();
    for during_query in [false, true] {
        let mut t = Terminal::start_in(&home, &[]);
        t.prompt();
        t.until("raw mode", |t| t.is_raw());
        if during_query {
            t.submit("select n from endless;");
            t.until_shown("reading endless");
        }
        t.signal(Signal::TERM);
        t.until_shown("ended by signal 15");
        assert_eq!(t.end().code(), Some(143));
    }
    // The history is saved, readable by its owner only.
    let history = home.path().join("state/hud/sql_history");
    assert_eq!(fs::read_to_string(&history).unwrap(), "select n from endless;\n");
    assert_eq!(fs::metadata(&history).unwrap().permissions().mode() & 0o777, 0o600);
    let mut t = Terminal::start_in(&home, &[]);
    t.prompt();
    t.press(UP);
    t.until("the statement of another shell", |t| t.line() == "hud> select n from endless;");
}

#[test]
fn an_empty_hud_history_disables_the_history() {
    let home = tempfile::tempdir().unwrap();
    let mut t = Terminal::start_in(&home, &[("HUD_HISTORY", "")]);
    t.prompt();
    t.enter("select name from planets;");
    t.press(CTRL_D);
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
    t.press("\x1b[200~select '\x07\u{9b}2Jx' from planets;\x1b[201~");
    t.until("replacements", |t| t.line().contains("select '?¿2Jx' from planets;"));
    t.press("\r");
    t.until_shown("error: there is no column '\\x07\\u{9b}2jx'");
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
    t.until("a screenful", |t| t.line() == ":" && t.text().contains("\n20\n"));
    t.press(" ");
    t.until_shown("\n43\n");
    t.press("q");
    t.prompt();
    t.enter("show width;");
    t.until_shown("width\n80\n(1 row)");
}

#[test]
fn a_dumb_terminal_is_read_like_a_pipe() {
    let home = tempfile::tempdir().unwrap();
    let mut t = Terminal::start_in(&home, &[("TERM", "dumb")]);
    t.press("select name from planets limit 1;\n");
    t.until_shown("Mercury\n(1 row)");
    assert!(!t.is_raw());
    t.press("\\q\n");
    assert!(t.end().success());
}
