//! A stack on one line, as flame graphs take it: `thread_start;app::main;app::handler`.

use std::borrow::Cow;

use hud_common::clean;

use super::names::Names;

/// A stack's functions, root first, inlined ones included; `None` if there is no such stack. An unknown frame is
/// `<unknown>`. In names `;` becomes `:`, and control characters are shown as their codes.
pub(super) fn fold(names: &Names, stack: i64) -> Option<String> {
    let ids = names.frame_ids(stack)?;
    let mut out = String::new();
    for id in ids.iter().rev() {
        if !out.is_empty() {
            out.push(';');
        }
        match names.frame(*id) {
            Some(frame) => out.push_str(&segment(&frame.function)),
            None => out.push_str("<unknown>"),
        }
    }
    Some(out)
}

/// A name that can stand between semicolons; never empty.
fn segment(name: &str) -> Cow<'_, str> {
    match clean(name) {
        cleaned if cleaned.is_empty() => Cow::Borrowed("<unknown>"),
        cleaned if cleaned.contains(';') => Cow::Owned(cleaned.replace(';', ":")),
        cleaned => cleaned,
    }
}
