//! A dump as text: tasks that wait at the same place are grouped, deadlocks come first.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use hud_common::clean_name;

use super::{
    chain::Step,
    dump::{Detail, Dump, Is, Task},
    frames::{Frame, Selection, frames, own, task_name, who},
    layout::{GuardKind, Line},
    print_threads,
    waits::Resources,
};
use crate::inspect::TaskKind;

/// Task ids that are listed for a group.
const MOST_IDS: usize = 10;
/// Different resources that are listed for a group.
const MOST_WAITS: usize = 4;
/// Holders that are listed for one resource.
const MOST_HOLDERS: usize = 4;

/// The key of a group: the type's name, the state, the thread of a `block_on` future, and the chain.
type Alike<'a> = (&'a str, Is, Option<u32>, Option<&'a [Step]>);

/// Tasks that differ in their resources only.
struct Group<'a> {
    tasks: Vec<&'a Task>,
}

/// A dump as text.
pub(crate) fn text(dump: &Dump, selection: &Selection) -> String {
    let resources = Resources::of(dump);
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = head(&mut out, dump);
    for cycle in resources.cycles() {
        let _ = deadlock(&mut out, dump, &resources, &cycle);
    }
    let mut groups: HashMap<Alike<'_>, Group<'_>> = HashMap::new();
    for task in dump.tasks.iter().filter(|task| selection.has(dump, task)) {
        let name = dump.types.get(task.of).map_or("", |t| t.name.as_str());
        let thread = task.thread.as_ref().map(|(tid, _)| *tid);
        let key = (name, task.is, thread, task.chain.as_ref().map(|c| c.steps.as_slice()));
        groups.entry(key).or_insert_with(|| Group { tasks: Vec::new() }).tasks.push(task);
    }
    let mut groups: Vec<Group<'_>> = groups.into_values().collect();
    groups.sort_by_key(|g| (std::cmp::Reverse(g.tasks.len()), g.tasks.first().map(|t| t.id)));
    let is_work =
        |g: &Group<'_>| g.tasks.first().and_then(|t| dump.types.get(t.of)).is_some_and(|t| t.kind != TaskKind::Task);
    let (work, others): (Vec<_>, Vec<_>) = groups.into_iter().partition(is_work);
    let is_root = |g: &Group<'_>| g.tasks.first().is_some_and(|t| t.thread.is_some());
    let (roots, tasks): (Vec<_>, Vec<_>) = others.into_iter().partition(is_root);
    for group in &tasks {
        let _ = show(&mut out, dump, &resources, group, selection);
    }
    if !roots.is_empty() {
        out.push_str("\nFutures run by block_on:\n");
    }
    for group in &roots {
        let _ = show(&mut out, dump, &resources, group, selection);
    }
    if !work.is_empty() {
        out.push_str("\nBlocking pool (worker threads included):\n");
    }
    for group in &work {
        let _ = show(&mut out, dump, &resources, group, selection);
    }
    if tasks.is_empty() && roots.is_empty() && work.is_empty() {
        out.push_str("\nno such task\n");
    }
    if dump.threads.is_some() {
        let _ = print_threads::text(&mut out, dump, selection);
    }
    out
}

fn head(out: &mut String, dump: &Dump) -> std::fmt::Result {
    let spawned = || dump.tasks.iter().filter(|t| t.thread.is_none());
    let futures = || spawned().filter(|t| dump.types.get(t.of).is_some_and(|t| t.kind == TaskKind::Task));
    let states: Vec<String> = Is::ALL
        .iter()
        .map(|is| (futures().filter(|t| t.is == *is).count(), is.name()))
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    let name = dump.process.exe.file_name().unwrap_or_default().to_string_lossy();
    let count = futures().count();
    writeln!(
        out,
        "{} (pid {}): {}{}{}",
        clean_name(&name),
        dump.process.pid,
        tasks(count),
        if count > 0 { ": " } else { "" },
        states.join(", ")
    )?;
    let searched = hud_common::units::size(dump.searched);
    writeln!(out, "read {searched} of its memory in {:.2} s, without stopping it", dump.took.as_secs_f64())?;
    match dump.detail {
        Detail::Chains => {}
        Detail::Types => writeln!(
            out,
            "no await stacks: the binary has no type information. Build it with `debug = true` in its profile (the code stays \
             the same), or install its debug file"
        )?,
    }
    dump.notes.iter().try_for_each(|note| writeln!(out, "note: {note}"))
}

fn tasks(count: usize) -> String {
    if count == 1 { "1 task".into() } else { format!("{count} tasks") }
}

fn deadlock(out: &mut String, dump: &Dump, resources: &Resources<'_>, cycle: &[usize]) -> std::fmt::Result {
    writeln!(out, "\nDEADLOCK of {}:", tasks(cycle.len()))?;
    for task in cycle.iter().filter_map(|&index| dump.tasks.get(index)) {
        for wait in task.chain.iter().flat_map(|c| &c.waits) {
            let at = task.chain.as_ref().and_then(|c| own(dump, c)).map(|l| format!(" at {}", place(&l)));
            writeln!(
                out,
                "  {} {}{} waits for {}",
                who(task),
                task_name(dump, task),
                at.unwrap_or_default(),
                resources.words(task, wait)
            )?;
            holders(out, dump, resources, wait, "    ")?;
        }
    }
    Ok(())
}

fn place(line: &Line) -> String {
    format!("{}:{}", line.file, line.line)
}

fn holders(
    out: &mut String,
    dump: &Dump,
    resources: &Resources<'_>,
    wait: &super::chain::Wait,
    indent: &str,
) -> std::fmt::Result {
    let found = resources.holders(wait);
    for holder in found.iter().take(MOST_HOLDERS) {
        let Some(task) = dump.tasks.get(holder.task) else { continue };
        let mut local = holder.local.as_ref().map_or("a temporary".into(), |l| format!("`{l}`"));
        if holder.kind == GuardKind::Unpolled {
            local += ", a future that is not polled and was given the lock,";
        }
        let held = match (holder.kind, holder.is_certain) {
            (GuardKind::Receiver, true) => "received by",
            (GuardKind::Receiver, false) => "may be received by",
            (_, true) => "held by",
            (_, false) => "may be held by",
        };
        let at = holder
            .at
            .as_ref()
            .map(|(function, file, line)| format!(" of {}, at {}:{line}", clean_name(function), clean_name(file)));
        writeln!(out, "{indent}{held} {} {} ({local}{})", who(task), task_name(dump, task), at.unwrap_or_default())?;
    }
    if found.len() > MOST_HOLDERS {
        writeln!(out, "{indent}and {} more", found.len() - MOST_HOLDERS)?;
    }
    if found.is_empty() && resources.is_held(wait) {
        writeln!(out, "{indent}holder unknown: no suspended task has it in a local variable")?;
    }
    Ok(())
}

fn show(
    out: &mut String,
    dump: &Dump,
    resources: &Resources<'_>,
    group: &Group<'_>,
    selection: &Selection,
) -> std::fmt::Result {
    let Some(first) = group.tasks.first() else { return Ok(()) };
    match &first.thread {
        Some(_) => writeln!(
            out,
            "\nblock_on: {}{}",
            task_name(dump, first),
            if first.chain.is_none() { ", not found on the thread's stack" } else { "" }
        )?,
        None => writeln!(out, "\n{}: {}, {}", tasks(group.tasks.len()), task_name(dump, first), first.is.name())?,
    }
    if let Some(chain) = &first.chain {
        let frames = frames(dump, chain);
        let has_own = frames.iter().any(|f| f.is_own);
        let is_shown = |f: &&Frame| f.kind == "await" && (f.is_own || selection.all_frames || !has_own);
        let width = frames.iter().filter(is_shown).map(|f| f.name.chars().count()).max().unwrap_or(0).min(60);
        for frame in frames.iter().filter(|f| f.times > 0) {
            let indent = "  ".repeat(frame.indent + 2);
            if frame.times > 1 {
                writeln!(out, "{indent}{} times:", frame.times)?;
            }
            if is_shown(&frame) {
                let at = frame.line.as_ref().map(place).unwrap_or_default();
                writeln!(out, "{indent}{:width$}  {at}", frame.name)?;
            } else if frame.kind != "await" {
                leaf(out, dump, resources, group, frame, &indent)?;
            }
        }
    }
    let written = dump.types.get(first.of).and_then(|t| t.written_at.as_ref()).filter(|_| first.chain.is_none());
    if let Some((file, line)) = written.filter(|_| !task_name(dump, first).starts_with("future at ")) {
        writeln!(out, "    written at {}:{line}", clean_name(file))?;
    }
    if let Some((file, line)) = &first.spawned_at {
        writeln!(out, "    spawned at {}:{line}", clean_name(file))?;
    }
    if let Some((tid, name)) = &first.thread {
        return writeln!(out, "  thread {tid} {name}");
    }
    let ids: Vec<String> = group.tasks.iter().take(MOST_IDS).map(|t| t.id.to_string()).collect();
    let more = group.tasks.len().saturating_sub(MOST_IDS);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    writeln!(out, "  id{} {}{more}", if group.tasks.len() == 1 { "" } else { "s" }, ids.join(", "))
}

/// The resources that a group's tasks wait for at one leaf, the most frequent first.
fn leaf(
    out: &mut String,
    dump: &Dump,
    resources: &Resources<'_>,
    group: &Group<'_>,
    frame: &Frame,
    indent: &str,
) -> std::fmt::Result {
    let waits = |task: &Task| task.chain.as_ref()?.wait_at(frame.step).copied();
    let timers = resources.timers(group.tasks.iter().filter_map(|task| waits(task)));
    if let (Some(timers), true) = (timers, group.tasks.iter().any(|task| waits(task).is_some())) {
        return writeln!(out, "{indent}waits for {timers}");
    }
    let mut found: BTreeMap<String, (usize, super::chain::Wait)> = BTreeMap::new();
    for task in &group.tasks {
        if let Some(wait) = waits(task) {
            found.entry(resources.words(task, &wait)).or_insert((0, wait)).0 += 1;
        }
    }
    if found.is_empty() {
        return match frame.kind {
            "leaf" => writeln!(out, "{indent}waits for {}", frame.name),
            "more" => writeln!(out, "{indent}and {}", frame.name),
            _ => {
                let at = frame.line.as_ref().map(place).unwrap_or_default();
                writeln!(out, "{indent}{}  {at} ({})", frame.name, frame.kind)
            }
        };
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    for (words, (count, wait)) in found.iter().take(MOST_WAITS) {
        let times = if group.tasks.len() > 1 { format!(" ({})", tasks(*count)) } else { String::new() };
        writeln!(out, "{indent}waits for {words}{times}")?;
        holders(out, dump, resources, wait, &format!("{indent}  "))?;
    }
    if found.len() > MOST_WAITS {
        writeln!(out, "{indent}and {} more", found.len() - MOST_WAITS)?;
    }
    Ok(())
}
