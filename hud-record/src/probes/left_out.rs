//! The programs in the target's code, and the data that is missing without each of them.

use hud_common::wire::Stream;

/// Data that is not recorded because this kernel does not accept the program or does not let hud attach it.
#[derive(Clone, Debug)]
pub(crate) struct LeftOut {
    /// The missing stream, if it is a whole one.
    pub(crate) stream: Option<Stream>,
    /// Message: the missing data and the reason.
    pub(crate) what: String,
}

/// The programs for probes in the target's code.
pub(super) const PROBED: [&str; 5] = ["poll_return", "poll_enter", "panicked", "task_spawn", "task_wake"];

/// What is not recorded if the kernel refuses a program; `None` if nothing is recorded then.
pub(crate) fn lost_without(program: &str) -> Option<(Option<Stream>, &'static str)> {
    match program {
        "sample_cpu" => Some((Some(Stream::Samples), "CPU samples are not recorded")),
        program if PROBED.contains(&program) => Some(lost_with(program)),
        _ => None,
    }
}

/// Whether recording is possible without a program.
pub(super) fn is_optional(program: &str) -> bool {
    !matches!(program, "poll_return" | "poll_enter")
}

/// The data that is not recorded without a program.
pub(super) fn lost_with(program: &str) -> (Option<Stream>, &'static str) {
    match program {
        "panicked" => (None, "tasks that panic are recorded as completed"),
        "task_spawn" => (Some(Stream::Spawns), "spawns are not recorded"),
        "task_wake" => (Some(Stream::Wakes), "wakes are not recorded"),
        _ => (Some(Stream::Polls), "polls are not recorded"),
    }
}
