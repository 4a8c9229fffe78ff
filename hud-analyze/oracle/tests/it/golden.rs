//! What the views say of a recorded session, kept in files: a change of an answer is seen in review.
//! To renew them: `SNAPSHOTS=overwrite cargo test -p hud-oracle`.

use std::path::Path;

use hud_analyze::view::ALL;
use serde_json::Value;
use snapbox::{Data as File, assert_data_eq, data::DataFormat};

use crate::data::{Args, Data, ask, recording};

/// Rows that are kept of a view: the first, and a count of all.
const KEPT: usize = 12;

#[test]
fn of_a_recording_every_view_says_what_it_always_said() {
    let args = Args::whole(&Data::read(&recording()));
    for view in ALL {
        let rows = ask(&recording(), *view, &args);
        let lines = rows.iter().take(KEPT).map(|row| Value::Object(row.clone()).to_string());
        let head = format!("{} rows", rows.len());
        let text: String = [head].into_iter().chain(lines).map(|line| line + "\n").collect();
        let file = format!("tests/golden/{}.txt", view.name);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        assert_data_eq!(text, File::read_from(&path, Some(DataFormat::Text)).raw());
    }
}
