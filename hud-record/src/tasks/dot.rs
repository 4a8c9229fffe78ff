//! A dump as a graph in Graphviz's DOT language: tasks that wait for others, and the resources in between.

use std::{collections::BTreeSet, fmt::Write as _};

use hud_common::clean_name;

use super::{
    dump::Dump,
    frames::{Selection, own, task_name, who},
    waits::Resources,
};

/// A dump as a graph. An edge leads from a waiting task to the task that it waits for: a holder of its resource (dashed
/// if that is not certain), or the task of its `JoinHandle`. Deadlocks are red.
pub(crate) fn dot(dump: &Dump, selection: &Selection) -> String {
    let resources = Resources::of(dump);
    let locked: BTreeSet<usize> = resources.cycles().into_iter().flatten().collect();
    let (mut nodes, mut edges) = (BTreeSet::new(), String::new());
    for (index, task) in dump.tasks.iter().enumerate().filter(|(_, task)| selection.has(dump, task)) {
        for wait in task.chain.iter().flat_map(|chain| &chain.waits) {
            let holders = resources.holders(wait).into_iter().map(|holder| (holder.task, holder.is_certain));
            for (other, is_certain) in holders.chain(resources.awaited(wait).map(|other| (other, true))) {
                nodes.extend([index, other]);
                let color = if locked.contains(&index) && locked.contains(&other) { ", color=red" } else { "" };
                let style = if is_certain { "" } else { ", style=dashed" };
                // Writing to a String cannot fail.
                let _ = writeln!(
                    edges,
                    "  t{index} -> t{other} [label={}{style}{color}];",
                    quoted(&resources.words(task, wait))
                );
            }
        }
    }
    let name = dump.process.exe.file_name().unwrap_or_default().to_string_lossy();
    let mut out = format!("digraph {} {{\n  rankdir=LR;\n  node [shape=box];\n", quoted(&clean_name(&name)));
    for index in nodes {
        let Some(task) = dump.tasks.get(index) else { continue };
        let at = task.chain.as_ref().and_then(|chain| own(dump, chain));
        let at = at.map(|line| format!("\n{}:{}", line.file, line.line)).unwrap_or_default();
        let color = if locked.contains(&index) { ", color=red" } else { "" };
        let _ = writeln!(
            out,
            "  t{index} [label={}{color}];",
            quoted(&format!("{}\n{}{at}", who(task), task_name(dump, task)))
        );
    }
    out + &edges + "}\n"
}

/// A quoted string: names come from a stranger's binary.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_cannot_end_a_label() {
        assert_eq!(super::quoted("a\"]; x\\\nb"), "\"a\\\"]; x\\\\\\nb\"");
    }
}
