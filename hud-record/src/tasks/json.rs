//! A dump as JSON, with every task separately.

use hud_common::clean_name;
use serde_json::{Value, json};

use super::{
    dump::{Detail, Dump, Task},
    frames::{Selection, frames, task_name},
    print_threads,
    waits::Resources,
};
use crate::inspect::TaskKind;

/// A dump as JSON.
pub(crate) fn json(dump: &Dump, selection: &Selection) -> Value {
    let resources = Resources::of(dump);
    let id = |index: usize| dump.tasks.get(index).filter(|t| t.thread.is_none()).map(|t| t.id);
    let task = |task: &Task| {
        let kind = dump.types.get(task.of).map_or(TaskKind::Task, |t| t.kind);
        let scheduler = dump.types.get(task.of).and_then(|t| t.scheduler).map(|s| s.name());
        let frames = task.chain.as_ref().map(|chain| frames(dump, chain)).unwrap_or_default();
        let stack: Vec<Value> = frames
            .iter()
            .map(|f| {
                json!({
                    "function": f.name, "kind": f.kind, "depth": task.chain.as_ref().and_then(|c| Some(c.steps.get(f.step)?.depth)),
                    "file": f.line.as_ref().map(|l| &l.file), "line": f.line.as_ref().map(|l| l.line), "own": f.is_own,
                })
            })
            .collect();
        let waits: Vec<Value> = task
            .chain
            .iter()
            .flat_map(|c| &c.waits)
            .map(|wait| {
                let held: Vec<Value> = resources
                    .holders(wait)
                    .iter()
                    .map(|h| {
                        let (function, file, line) = h.at.clone().unwrap_or_default();
                        json!({
                            "task": id(h.task), "local": h.local, "certain": h.is_certain, "function": clean_name(&function),
                            "file": clean_name(&file), "line": line,
                        })
                    })
                    .collect();
                json!({
                    "frame": wait.step, "kind": format!("{:?}", wait.kind).to_lowercase(), "for": resources.words(task, wait),
                    "address": format!("{:#x}", wait.at), "held_by": held, "task": resources.awaited(wait).and_then(id),
                })
            })
            .collect();
        json!({
            "id": task.thread.is_none().then_some(task.id), "type": task_name(dump, task),
            "kind": if task.thread.is_some() { "block_on" } else { kind.name() },
            "thread": task.thread.as_ref().map(|(tid, name)| json!({ "tid": tid, "name": name })), "scheduler": scheduler, "state": task.is.name(),
            "owner": task.owner, "address": format!("{:#x}", task.at), "stack": stack, "waits": waits,
            "spawned_at": task.spawned_at.as_ref().map(|(f, l)| format!("{}:{l}", clean_name(f))),
        })
    };
    let cycles: Vec<Vec<Option<u64>>> =
        resources.cycles().iter().map(|cycle| cycle.iter().map(|&index| id(index)).collect()).collect();
    let mut all = json!({
        "pid": dump.process.pid, "program": clean_name(&dump.process.exe.to_string_lossy()),
        "detail": match dump.detail { Detail::Chains => "await stacks", Detail::Types => "types" },
        "notes": dump.notes, "searched_bytes": dump.searched, "seconds": dump.took.as_secs_f64(), "deadlocks": cycles,
        "tasks": dump.tasks.iter().filter(|t| selection.has(dump, t)).map(task).collect::<Vec<_>>(),
    });
    if let (Some(_), Some(all)) = (&dump.threads, all.as_object_mut()) {
        all.insert("threads".into(), print_threads::json(dump, selection));
    }
    all
}
