//! The programs in the target's code, and what is not recorded without one of them.

use hud_common::wire::Stream;

/// What is not recorded because this kernel does not take the program for it, or does not let hud attach it.
#[derive(Clone, Debug)]
pub(crate) struct LeftOut {
    /// The stream that is missing, where it is a whole one.
    pub(crate) stream: Option<Stream>,
    /// What is missing, and why, in words.
    pub(crate) what: String,
}

/// The programs in the target's code.
pub(super) const PROBED: [&str; 5] = ["poll_return", "poll_enter", "panicked", "task_spawn", "task_wake"];

/// Whether there is something to record without a program.
pub(super) fn is_optional(program: &str) -> bool {
    !matches!(program, "poll_return" | "poll_enter")
}

/// What is not recorded without a program.
pub(super) fn lost_with(program: &str) -> (Option<Stream>, &'static str) {
    match program {
        "panicked" => (None, "tasks that panic are recorded as completed"),
        "task_spawn" => (Some(Stream::Spawns), "spawns are not recorded"),
        "task_wake" => (Some(Stream::Wakes), "wakes are not recorded"),
        _ => (Some(Stream::Polls), "polls are not recorded"),
    }
}
