//! The selection of a dump's tasks, and the frames of a chain: functions with their lines, outermost first. Names come
//! from the target and are sanitised here.

use hud_common::clean_name;

use super::{
    chain::{Chain, Step, What},
    dump::{Dump, Task},
    layout::{Line, Shape},
    waits::is_own,
};
use crate::inspect::type_name;

/// The tasks and frames to show.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Only this task.
    pub(crate) task: Option<u64>,
    /// Only tasks whose type's name contains this.
    pub(crate) of_type: Option<String>,
    /// Also library frames.
    pub(crate) all_frames: bool,
}

impl Selection {
    pub(super) fn has(&self, dump: &Dump, task: &Task) -> bool {
        let name = dump.types.get(task.of).map_or("", |t| t.name.as_str());
        self.task.is_none_or(|id| id == task.id && task.thread.is_none())
            && self.of_type.as_ref().is_none_or(|part| name.contains(part.as_str()))
    }
}

/// A frame of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Nesting level of branches.
    pub(super) indent: usize,
    /// Number of equal branches; 0 if it is shown with an earlier one.
    pub(super) times: usize,
    /// Its step.
    pub(super) step: usize,
    /// The function, or the type of a leaf.
    pub(super) name: String,
    pub(super) line: Option<Line>,
    pub(super) kind: &'static str,
    /// Whether it is the program's own code.
    pub(super) is_own: bool,
}

/// The frames of a chain, outermost first.
pub(super) fn frames(dump: &Dump, chain: &Chain) -> Vec<Frame> {
    let mut frames = Vec::new();
    // Depth of each open step, with the nesting level inside it.
    let mut open: Vec<(usize, usize)> = Vec::new();
    for (step, Step { depth, what }) in chain.steps.iter().enumerate() {
        while open.last().is_some_and(|(other, _)| other >= depth) {
            open.pop();
        }
        let indent = open.last().map_or(0, |(_, indent)| *indent);
        let inside = chain.steps.get(step + 1..).unwrap_or_default().iter();
        let branches = inside.take_while(|s| s.depth > *depth).filter(|s| s.depth == depth + 1).count();
        open.push((*depth, if branches > 1 { indent + 1 } else { indent }));
        let name = |of| dump.layouts.get(of).map_or_else(String::new, |t| type_name(&t.name));
        let (name, line, kind) = match *what {
            What::Await(of, _) => {
                let at = dump.await_point(&chain.steps[step]).and_then(|(_, state)| state.at.clone());
                (name(of), at, "await")
            }
            What::Unresumed(of) => {
                let begin = dump.layouts.get(of).and_then(|t| match &t.shape {
                    Shape::Coroutine { begin, .. } => begin.clone(),
                    _ => None,
                });
                (name(of), begin, "not polled yet")
            }
            What::Leaf(of) => (name(of), None, "leaf"),
            What::Object => ("a future behind a trait object of an unknown type".into(), None, "leaf"),
            What::More(0) => ("more futures".into(), None, "more"),
            What::More(count) => (format!("{count} more futures"), None, "more"),
        };
        let line = line.map(|l| Line { file: clean_name(&l.file), line: l.line });
        let is_own = line.as_ref().is_some_and(|l| is_own(&l.file));
        frames.push(Frame { indent, times: 1, step, name, line, kind, is_own });
    }
    merge(chain, &mut frames);
    frames
}

/// Marks branches that equal the one before.
fn merge(chain: &Chain, frames: &mut [Frame]) {
    // The end of a step's subtree.
    let end = |step: usize| {
        let depth = chain.steps.get(step).map_or(0, |s| s.depth);
        let inside = chain.steps.get(step + 1..).unwrap_or_default().iter().take_while(|s| s.depth > depth);
        step + 1 + inside.count()
    };
    let mut step = 0;
    while step < chain.steps.len() {
        let this = step..end(step);
        let mut next = this.end;
        while let (Some(one), Some(other)) = (chain.steps.get(this.clone()), chain.steps.get(next..end(next)))
            && one == other
        {
            next += other.len();
        }
        let times = (next - step) / this.len().max(1);
        for frame in frames.get_mut(this.end..next).unwrap_or_default() {
            frame.times = 0;
        }
        if let Some(frame) = frames.get_mut(step) {
            frame.times = times;
        }
        // Steps inside the first may repeat as well; merged ones are not shown.
        step += 1;
        while frames.get(step).is_some_and(|f| f.times == 0) {
            step += 1;
        }
    }
}

/// Where the innermost own code waits.
pub(super) fn own(dump: &Dump, chain: &Chain) -> Option<Line> {
    frames(dump, chain).into_iter().rev().find(|f| f.is_own).and_then(|f| f.line)
}

/// A task by its id, or a future by the thread that runs it.
pub(super) fn who(task: &Task) -> String {
    match &task.thread {
        Some((tid, _)) => format!("block_on of thread {tid}"),
        None => format!("task {}", task.id),
    }
}

/// The name of a task's type.
pub(super) fn task_name(dump: &Dump, task: &Task) -> String {
    dump.types.get(task.of).map_or_else(String::new, |t| clean_name(&t.name))
}
