//! Programs with one fault each: the findings name the rule and the code of the program's own account. `cargo xtask truth`
//! does so for all of them; these few hold for every change.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use rustix::process::Signal;
use serde_json::Value;
use support::{Target, analyze, may_trace, program, record};

/// The program's own account, and the findings about it.
fn truth(fault: &str) -> (Value, Vec<Value>) {
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session");
    let mut target = Target::start(&program("faults"), &[fault]);
    record(target.pid(), &session, &["--duration", "3", "--polls", "exact"]);
    target.signal(Signal::USR1);
    let account = serde_json::from_str(&target.line()).unwrap();
    target.stop();
    (account, analyze(&["findings"], &session).as_array().unwrap().clone())
}

fn assert_found(fault: &str) {
    let (account, found) = truth(fault);
    let rules = account["rules"].as_array().unwrap();
    let finding = found.iter().find(|f| rules.contains(&f["rule"])).unwrap_or_else(|| panic!("{fault}: {found:#?}"));
    let last =
        |name: &Value| name.as_str().unwrap().rsplit("::").find(|part| !part.starts_with('{')).unwrap().to_owned();
    let of = if account["names"] == "task" { &finding["task_type"] } else { &finding["function"] };
    let sites: Vec<String> = account["sites"].as_array().unwrap().iter().map(|site| last(&site["function"])).collect();
    assert!(sites.contains(&last(of)), "{fault}: {sites:?}, {finding:#}");
}

#[test]
fn faults_are_found_with_their_code() {
    if may_trace() {
        ["thread-sleep", "std-deadlock", "panics"].into_iter().for_each(assert_found);
    }
}

#[test]
fn nothing_is_found_about_a_healthy_program() {
    if may_trace() {
        let (_, found) = truth("moderate");
        // Its CPUs may be taken by other tests.
        let of_machine = |f: &&Value| f["rule"] == "cpu_starved" || f["rule"] == "wake_delay";
        let found: Vec<_> = found.iter().filter(|f| !of_machine(f)).collect();
        assert!(found.is_empty(), "{found:#?}");
    }
}
