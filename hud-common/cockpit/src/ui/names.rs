//! Tasks, types, code and threads as a line of text. Names are raw: `text.rs` sanitizes them.

use std::borrow::Cow;

use crate::{Name, Now, Place, PollState, RuntimeId, Snapshot, Spawned, TaskRef, Tid, TypeRef, Waiter, Waker, Worker};

/// A type's name.
pub(super) fn type_of(of: Option<&TypeRef>) -> Cow<'static, str> {
    of.map_or(Cow::Borrowed("<unknown type>"), |of| Cow::Owned(of.name.to_string()))
}

/// A type's name; none is code outside tasks.
pub(super) fn type_or_outside(of: Option<&TypeRef>) -> Cow<'static, str> {
    of.map_or(Cow::Borrowed("<outside tasks, or not known>"), |of| Cow::Owned(of.name.to_string()))
}

/// A task: its type and id.
pub(super) fn task(task: &TaskRef) -> String {
    format!("{} #{}", type_of(task.task_type.as_ref()), task.id)
}

/// A task, or the future of a thread.
pub(super) fn waiter(who: &Waiter) -> String {
    match who {
        Waiter::Task(of) => task(of),
        Waiter::Thread(tid) => format!("block_on of thread {tid}"),
    }
}

/// `main.rs:12`; empty if unknown.
pub(super) fn file_line(file: Option<&Name>, line: Option<i32>) -> String {
    match (file, line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        (Some(file), None) => file.to_string(),
        (None, _) => String::new(),
    }
}

/// A function's name as in source code: the body of an async function, a closure in debug information, has the name of that
/// function.
pub(super) fn function(name: &str) -> &str {
    let mut name = name;
    while let Some((before, last)) = name.rsplit_once("::") {
        let is_body = last == "{{closure}}"
            || last == "{closure}"
            || last.starts_with("{async_fn#")
            || last.starts_with("{async_fn_env#");
        if !is_body || before.is_empty() {
            break;
        }
        name = before;
    }
    name
}

/// A function and the line in it.
pub(super) fn place(place: &Place) -> String {
    let at = file_line(place.file.as_ref(), place.line);
    let name = function(&place.function);
    if at.is_empty() { name.into() } else { format!("{name} {at}") }
}

/// A worker by its number, and its runtime where there is more than one.
pub(super) fn seat(snapshot: &Snapshot, runtime: Option<RuntimeId>, worker: Option<i32>, tid: Tid) -> String {
    let worker = worker.map_or_else(|| format!("t{tid}"), |n| format!("w{n}"));
    match runtime {
        _ if snapshot.workers.runtimes.len() < 2 => worker,
        Some(id) => format!("r{id} {worker}"),
        None => format!("r? {worker}"),
    }
}

/// A thread: a worker's number, else its id.
pub(super) fn thread(snapshot: &Snapshot, tid: Tid) -> String {
    for runtime in &snapshot.workers.runtimes {
        if let Some(worker) = runtime.workers.iter().find(|worker| worker.tid == tid) {
            return seat(snapshot, runtime.id, worker.worker, tid);
        }
    }
    match snapshot.workers.pool.workers.iter().any(|worker| worker.tid == tid) {
        true => format!("pool {tid}"),
        false => format!("t{tid}"),
    }
}

/// A waker.
pub(super) fn waker(snapshot: &Snapshot, waker: &Waker) -> String {
    match (&waker.task, waker.tid, &waker.thread) {
        (Some(by), Some(tid), _) => format!("{} on {}", task(by), thread(snapshot, tid)),
        (Some(by), None, _) => task(by),
        (None, Some(tid), Some(name)) => format!("{name} ({tid})"),
        (None, Some(tid), None) => format!("thread {tid} of another process"),
        (None, None, _) => "unknown".into(),
    }
}

/// The spawner of a task.
pub(super) fn spawned(snapshot: &Snapshot, spawned: &Spawned) -> String {
    match &spawned.parent {
        Some(parent) => task(parent),
        None => format!("outside tasks, on {}", thread(snapshot, spawned.by.tid)),
    }
}

/// The current activity of a worker.
pub(super) fn now(snapshot: &Snapshot, worker: &Worker) -> String {
    let since = |ts: i64| super::format::nanos(snapshot.at.saturating_sub(ts).max(0));
    match &worker.now {
        Now::InProgress { task: of, lasted, state } => {
            let does = match state {
                PollState::Blocked => "asleep",
                PollState::Runnable => "waiting",
                PollState::Running => "computing",
            };
            format!("{does} {}+ in {}", super::format::nanos(*lasted), task(of))
        }
        Now::Polling { task: of, since: ts } => format!("{} for {}", task(of), since(*ts)),
        Now::Running { since: ts } => format!("running for {}", since(*ts)),
        Now::Quiet { since: ts } => format!("idle {}", since(*ts)),
        Now::Unseen => "unseen".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_bodies_of_async_functions_by_their_functions() {
        assert_eq!(function("app::db::query::{async_fn#0}"), "app::db::query");
        assert_eq!(function("app::db::query::{{closure}}"), "app::db::query");
        assert_eq!(function("app::db::query::{closure#1}"), "app::db::query::{closure#1}");
        assert_eq!(function("app::main::{closure}::{closure}"), "app::main");
        assert_eq!(function("{{closure}}"), "{{closure}}");
    }
}
