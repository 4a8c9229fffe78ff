//! Sessions of many segments: opening and reading them takes time in proportion to their number.

#![allow(clippy::unwrap_used)]

mod support;

use std::{fs, process::Command};

use hud_common::session::{Columns as _, PollColumns, StackColumns, StackRow, Table, encode_for};
use support::*;

/// A session with this number of segments of polls, which all overlap or follow each other, and as many of stacks.
fn session(segments: u32, overlap: bool) -> Session {
    let session = Session::with_cast();
    let dir = session.dir();
    let first = dir.next_number(Table::Stacks).unwrap();
    fs::create_dir_all(dir.table(Table::Polls)).unwrap();
    for n in 0..segments {
        let ns = i64::from(n) * 1_000;
        let mut polls = PollColumns::default();
        for ms in if overlap { [1, 8_000] } else { [1, 1] } {
            polls.push(poll(at(ms) + ns, W0, SLEEPER, 2, 100));
        }
        // Not by sealing, which waits for the disk.
        let put = |table, number, batch| {
            let encoded = encode_for(dir, table, number, &[batch]).unwrap().unwrap();
            fs::write(dir.segment(table, number), encoded.data).unwrap();
        };
        put(Table::Polls, n + 1, polls.finish());
        let mut stacks = StackColumns::default();
        stacks.push(StackRow { stack_id: 1_000_000 + i64::from(n), frame_ids: vec![1], unwind: "complete".into() });
        put(Table::Stacks, first + n, stacks.finish());
    }
    session
}

/// CPU time of this process's children so far, in the ticks of the kernel's account.
fn ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[13].parse::<u64>().unwrap() + fields[14].parse::<u64>().unwrap()
}

/// CPU time that a command takes.
fn cost(session: &Session, command: &[&str]) -> u64 {
    let before = ticks();
    let (name, options) = command.split_first().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_hud-analyze")).arg(name).arg(&session.path).args(options).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ticks() - before
}

/// Overlapping segments were compared pair by pair, each time that a view reads the table: 20,000
/// of them took a minute.
#[test]
fn opening_takes_time_in_proportion_to_segments() {
    const FEW: u32 = 200;
    const TIMES: u32 = 10;
    for overlap in [true, false] {
        let (few, many) = (session(FEW, overlap), session(FEW * TIMES, overlap));
        let commands: [&[&str]; 4] = [
            &["info"],
            &["workers", "--to", "+100ms"],
            &["replay", "--measure", "1"],
            &["sql", "-c", "SELECT fold(1000001) AS f FROM polls LIMIT 1"],
        ];
        for command in commands {
            let (small, large) = (cost(&few, command), cost(&many, command));
            eprintln!("{overlap} {command:?}: {small} {large}");
            // What a command costs without any segment is in both.
            assert!(large < (small + 5) * u64::from(TIMES) * 2, "{command:?}, overlap {overlap}: {small} and {large}");
        }
    }
}
