//! What ids stand for.

use hud_common::session::{FrameRow, OffCpuRow, TaskTypeRow, ThreadRow};

use crate::data::{Args, Data};

/// Where code is.
pub(super) type Place = (String, Option<String>, Option<i32>);

/// An own frame, or another one, or none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) struct Blamed {
    pub(super) frame: Option<i64>,
    pub(super) is_own: bool,
}

impl Data {
    /// A task's type, as recorded when it was first seen or spawned.
    pub(super) fn type_id(&self, task: Option<i64>) -> Option<i64> {
        let task = task?;
        let met = self.tasks.iter().filter(|t| t.task_id == task).filter_map(|t| t.type_id);
        met.chain(self.spawns.iter().filter(|s| s.task_id == task).filter_map(|s| s.type_id)).min()
    }

    /// The same, also from its polls in the window.
    pub(super) fn type_id_by_polls(&self, task: Option<i64>, args: &Args) -> Option<i64> {
        let polls = self.polls.iter().filter(|p| Some(p.task_id) == task && args.holds(p.ts));
        polls.filter_map(|p| p.type_id).chain(self.type_id(task)).min()
    }

    pub(super) fn task_type(&self, type_id: Option<i64>) -> Option<&TaskTypeRow> {
        self.task_types.iter().find(|t| Some(t.type_id) == type_id)
    }

    pub(super) fn type_of(&self, task: Option<i64>) -> Option<&TaskTypeRow> {
        self.task_type(self.type_id(task))
    }

    /// The type of a task that is no worker's own loop.
    pub(super) fn shown_type(&self, task: Option<i64>) -> Option<&TaskTypeRow> {
        self.type_of(task).filter(|t| t.kind != "worker")
    }

    /// Whether a thread that was polling this task was inside a task.
    pub(super) fn is_in_task(&self, task: Option<i64>) -> bool {
        task.is_some() && self.type_of(task).is_none_or(|t| t.kind != "worker")
    }

    /// Whether a thread is or was a worker's.
    pub(super) fn was_worker(&self, tid: i32) -> bool {
        self.threads.iter().any(|t| t.tid == tid && t.role == "worker")
    }

    /// Whether a worker's thread had handed its core over by the end of an interval, or of the window.
    pub(super) fn is_handed(&self, args: &Args, tid: i32, end: i64) -> bool {
        let at = end.min(args.to - 1);
        let known = self.threads.iter().filter(|t| t.tid == tid && t.role != "other" && t.ts <= at);
        let last = known.max_by_key(|t| (t.ts, t.role == "blocking"));
        self.was_worker(tid) && last.is_some_and(|t| t.role == "blocking")
    }

    fn tokio_frame(&self, stack: Option<i64>, is_it: impl Fn(&str) -> bool) -> Option<usize> {
        self.frames_of(stack).iter().position(|id| {
            let frame = self.frame(Some(*id)).filter(|f| f.origin.as_deref() == Some("tokio"));
            frame.and_then(|f| f.function.as_deref()).is_some_and(&is_it)
        })
    }

    /// Whether the innermost task on a stack has called block_in_place.
    pub(super) fn is_in_place(&self, stack: Option<i64>) -> bool {
        let call = self.tokio_frame(stack, |f| f.contains("block_in_place"));
        let of_task = |f: &str| f.strip_prefix("tokio::runtime::task::").is_some_and(|rest| rest.contains("poll"));
        call.is_some_and(|call| self.tokio_frame(stack, of_task).is_none_or(|poll| call < poll))
    }

    /// Whether what a thread did up to `end` kept a worker from other tasks; `is_code`: own code, or a recorded poll.
    pub(super) fn keeps_worker(
        &self,
        args: &Args,
        of: Option<&TaskTypeRow>,
        tid: i32,
        end: i64,
        is_code: bool,
    ) -> bool {
        let is_task = of.map_or(is_code && self.was_worker(tid), |t| t.kind == "task");
        is_task && !self.is_handed(args, tid, end)
    }

    /// A thread's row: one with a role rather than without, and the last.
    pub(super) fn thread(&self, tid: i32) -> Option<&ThreadRow> {
        let rows = self.threads.iter().filter(|t| t.tid == tid);
        rows.min_by_key(|t| (t.role == "other", -t.ts, std::cmp::Reverse(t.role.clone()), t.name.clone()))
    }

    /// A thread's last name.
    pub(super) fn thread_name(&self, tid: i32) -> Option<String> {
        let rows = self.threads.iter().filter(|t| t.tid == tid);
        rows.min_by_key(|t| (-t.ts, t.name.clone())).map(|t| t.name.to_string())
    }

    pub(super) fn frame(&self, id: Option<i64>) -> Option<&FrameRow> {
        self.frames.iter().find(|f| Some(f.frame_id) == id)
    }

    /// A stack's frames, from the leaf.
    pub(super) fn frames_of(&self, stack: Option<i64>) -> &[i64] {
        self.stacks.iter().find(|s| Some(s.stack_id) == stack).map_or(&[][..], |s| s.frame_ids.as_slice())
    }

    /// A function, or the module that it is in.
    pub(super) fn function(&self, frame: &FrameRow) -> String {
        let modules = self.modules.iter().filter(|m| Some(m.module_id) == frame.module_id);
        let module = modules.map(|m| m.path.to_string()).min();
        let module = module.map(|path| format!("<{}>", path.rsplit('/').next().unwrap_or(&path)));
        frame.function.as_ref().map(ToString::to_string).or(module).unwrap_or_else(|| "<unknown>".into())
    }

    /// The frame that a stack is attributed to: the first own one, else of a dependency or tokio, else the leaf.
    pub(super) fn attribute(&self, stack: Option<i64>) -> Blamed {
        let frames = self.frames_of(stack);
        let first = |origins: &[&str]| {
            frames.iter().copied().find(|id| {
                self.frame(Some(*id)).is_some_and(|f| {
                    f.function.is_some() && f.origin.as_ref().is_some_and(|o| origins.contains(&o.as_ref()))
                })
            })
        };
        match first(&["own"]) {
            Some(frame) => Blamed { frame: Some(frame), is_own: true },
            None => Blamed { frame: first(&["dependency", "tokio"]).or(frames.first().copied()), is_own: false },
        }
    }

    /// File and line of that frame; of the type where the frame is not own or has no line.
    fn file_and_line(&self, blamed: Blamed, of: Option<&TaskTypeRow>) -> (Option<String>, Option<i32>) {
        let frame = self.frame(blamed.frame);
        let text = |t: &Option<hud_common::session::Text>| t.as_ref().map(ToString::to_string);
        let by_frame = || (frame.and_then(|f| text(&f.file)), frame.and_then(|f| f.line));
        match of {
            Some(of) if !blamed.is_own => (text(&of.file), of.line),
            Some(of) if frame.is_none_or(|f| f.line.is_none()) && of.line.is_some() => (text(&of.file), of.line),
            _ => by_frame(),
        }
    }

    /// The code that CPU time is attributed to.
    pub(super) fn cpu_place(&self, stack: Option<i64>, of: Option<&TaskTypeRow>) -> Place {
        let blamed = self.attribute(stack);
        let function = self.frame(blamed.frame).map(|f| self.function(f));
        let function = match of {
            Some(of) if !blamed.is_own => of.name.to_string(),
            _ => function.unwrap_or_else(|| "<no stack>".into()),
        };
        let (file, line) = self.file_and_line(blamed, of);
        (function, file, line)
    }

    /// The code that an interval that held a worker, or a wait, is attributed to.
    pub(super) fn interval_place(&self, blamed: Blamed, of: Option<&TaskTypeRow>) -> Place {
        let function = self.frame(blamed.frame).and_then(|f| f.function.as_ref()).map(ToString::to_string);
        let function = match of {
            Some(of) if !blamed.is_own => of.name.to_string(),
            _ => function.unwrap_or_else(|| "<unknown>".into()),
        };
        let (file, line) = self.file_and_line(blamed, of);
        (function, file, line)
    }

    /// Whether polls were watched in some of the window.
    pub(super) fn polls_watched(&self, args: &Args) -> bool {
        self.coverage.iter().any(|c| c.stream == "polls" && args.touches(c.ts, c.dur))
    }

    /// Whether polls were watched at this moment.
    pub(super) fn polls_on(&self, ts: i64) -> bool {
        self.coverage.iter().any(|c| c.stream == "polls" && c.ts <= ts && ts < c.ts + c.dur)
    }
}

/// When a thread could run again.
pub(super) fn ready(o: &OffCpuRow) -> i64 {
    if o.state == "R" { o.ts } else { o.ts + o.dur - o.run_queue.unwrap_or(0) }
}

/// How long it was asleep.
pub(super) fn asleep(o: &OffCpuRow) -> i64 {
    ready(o) - o.ts
}

pub(super) fn is_sleep(o: &OffCpuRow) -> bool {
    o.state == "S" || o.state == "D"
}
