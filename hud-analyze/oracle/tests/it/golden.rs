//! What the views say of a recorded session, kept in files: a change of an answer is seen in review.
//! To renew them: `HUD_BLESS=1 cargo test -p hud-oracle`.

use std::{env, fs, path::Path};

use hud_analyze::view::ALL;
use serde_json::Value;

use crate::data::{Args, Data, ask, recording};

/// Rows that are kept of a view: the first, and a count of all.
const KEPT: usize = 12;

/// The file's text, or what it shall be from now on.
pub fn hold(path: &Path, text: &str) {
    if env::var_os("HUD_BLESS").is_some_and(|v| v == "1") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        return;
    }
    let kept = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(kept == text, "{} is not what it was; to renew it: HUD_BLESS=1\n{text}", path.display());
}

#[test]
fn of_a_recording_every_view_says_what_it_always_said() {
    let args = Args::whole(&Data::read(&recording()));
    for view in ALL {
        let rows = ask(&recording(), *view, &args);
        let lines = rows.iter().take(KEPT).map(|row| Value::Object(row.clone()).to_string());
        let head = format!("{} rows", rows.len());
        let text: String = [head].into_iter().chain(lines).map(|line| line + "\n").collect();
        let file = format!("tests/golden/{}.txt", view.name);
        hold(&Path::new(env!("CARGO_MANIFEST_DIR")).join(file), &text);
    }
}
