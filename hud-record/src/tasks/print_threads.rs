//! Threads of a dump as text and JSON. Threads with equal stacks are grouped.

use std::{collections::BTreeMap, fmt::Write as _};

use hud_common::clean_name;
use serde_json::{Value, json};

use super::{
    dump::Dump,
    frames::{Selection, task_name},
    threads::{CodeFrame, Role, Thread},
};

/// Threads that are listed for a group.
const MOST_LISTED: usize = 16;
/// Frames of a stack without own code that are shown.
const MOST_FRAMES: usize = 12;

fn selected<'a>(dump: &'a Dump, selection: &Selection) -> impl Iterator<Item = &'a Thread> {
    let (task, is_of_type) = (selection.task, selection.of_type.clone());
    dump.threads.iter().flatten().filter(move |thread| {
        let of = thread.task.and_then(|id| dump.tasks.iter().find(|t| t.thread.is_none() && t.id == id));
        task.is_none_or(|task| thread.task == Some(task))
            && is_of_type.as_ref().is_none_or(|part| of.is_some_and(|of| task_name(dump, of).contains(part.as_str())))
    })
}

fn role(thread: &Thread) -> String {
    match thread.role {
        Role::Worker(Some(number)) => format!("worker {number}"),
        Role::Worker(None) => "worker".into(),
        Role::Pool => "blocking pool".into(),
        Role::Other => "other".into(),
    }
}

/// The task that a thread is polling.
fn polls(dump: &Dump, thread: &Thread) -> Option<String> {
    let id = thread.task?;
    let of = dump.tasks.iter().find(|task| task.thread.is_none() && task.id == id);
    Some(format!("task {id}{}", of.map(|of| format!(" {}", task_name(dump, of))).unwrap_or_default()))
}

/// The threads as text.
pub(super) fn text(out: &mut String, dump: &Dump, selection: &Selection) -> std::fmt::Result {
    let threads: Vec<&Thread> = selected(dump, selection).collect();
    writeln!(out, "\nThreads: {}", threads.len())?;
    let mut groups: BTreeMap<(&[CodeFrame], bool, bool), Vec<&Thread>> = BTreeMap::new();
    for thread in threads {
        groups.entry((&thread.stack, thread.is_complete, thread.is_asleep)).or_default().push(thread);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    // Threads in a task first.
    let rank = |threads: &[&Thread]| (threads.iter().all(|t| t.task.is_none()), threads.first().map(|t| t.tid));
    groups.sort_by_key(|(_, threads)| rank(threads));
    for ((stack, is_complete, is_asleep), threads) in groups {
        let count = if threads.len() == 1 { "1 thread".into() } else { format!("{} threads", threads.len()) };
        writeln!(out, "\n{count}, {}", if is_asleep { "asleep" } else { "running, whose stack cannot be read" })?;
        let has_own = stack.iter().any(|f| f.origin == Some("own"));
        let is_shown = |f: &&CodeFrame| f.origin == Some("own") || selection.all_frames || !has_own;
        let most = if has_own || selection.all_frames { usize::MAX } else { MOST_FRAMES };
        let shown: Vec<&CodeFrame> = stack.iter().filter(is_shown).collect();
        let width = shown.iter().take(most).map(|f| f.function.chars().count()).max().unwrap_or(0).min(60);
        for frame in shown.iter().take(most) {
            let at = match (&frame.file, frame.line) {
                (Some(file), Some(line)) => format!("  {}:{line}", clean_name(file)),
                _ => String::new(),
            };
            let line = format!("    {:width$}{at}", clean_name(&frame.function));
            writeln!(out, "{}", line.trim_end())?;
        }
        if shown.len() > most {
            writeln!(out, "    and {} more frames (--all-frames)", shown.len() - most)?;
        }
        if !stack.is_empty() && !is_complete {
            writeln!(out, "    the stack is incomplete: frames further out are missing")?;
        }
        for thread in threads.iter().take(MOST_LISTED) {
            let polls = polls(dump, thread).map(|task| format!(", polling {task}")).unwrap_or_default();
            writeln!(out, "  {} {}, {}{polls}", thread.tid, thread.name, role(thread))?;
        }
        if threads.len() > MOST_LISTED {
            writeln!(out, "  and {} more", threads.len() - MOST_LISTED)?;
        }
    }
    Ok(())
}

/// The threads as JSON.
pub(super) fn json(dump: &Dump, selection: &Selection) -> Value {
    let frame = |f: &CodeFrame| {
        json!({
            "function": clean_name(&f.function), "file": f.file.as_deref().map(clean_name), "line": f.line,
            "origin": f.origin,
        })
    };
    let thread = |thread: &Thread| {
        let (role, worker) = match thread.role {
            Role::Worker(number) => ("worker", number),
            Role::Pool => ("blocking", None),
            Role::Other => ("other", None),
        };
        json!({
            "tid": thread.tid, "name": thread.name, "role": role, "worker": worker,
            "state": if thread.is_asleep { "asleep" } else { "running" }, "task": thread.task,
            "complete": thread.is_complete, "stack": thread.stack.iter().map(frame).collect::<Vec<_>>(),
        })
    };
    selected(dump, selection).map(thread).collect()
}
