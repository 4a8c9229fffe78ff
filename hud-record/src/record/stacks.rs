//! Distinct stacks: from a list of addresses to an id.

use std::{
    collections::HashMap,
    sync::{Arc, mpsc::Sender},
};

use hud_common::unwind::Outcome;

use crate::{inspect::Mapping, tasks::AwaitStack};

/// Distinct stacks that are kept; one of 20 frames takes about 250 bytes here and as much in the namer. Events with
/// further ones are stored without a stack.
const MAX_STACKS: usize = 100_000;

/// A stack seen for the first time.
#[derive(Debug)]
pub(super) struct NewStack {
    pub(super) stack_id: i64,
    pub(super) frames: NewFrames,
    pub(super) unwind: Unwind,
}

/// The frames of a new stack, leaf first.
#[derive(Debug)]
pub(super) enum NewFrames {
    /// Runtime addresses, to be named.
    Addresses(Box<[u64]>),
    /// Functions with their names.
    Await(AwaitStack),
}

/// How far a walk reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unwind {
    Complete,
    Truncated,
    Failed,
}

impl Unwind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Unwind::Complete => "complete",
            Unwind::Truncated => "truncated",
            Unwind::Failed => "failed",
        }
    }
}

/// Gives each distinct stack an id and sends new ones to the namer.
pub(super) struct StackTable {
    ids: HashMap<Box<[u64]>, (i64, Unwind)>,
    await_ids: HashMap<AwaitStack, i64>,
    namer: Sender<NewStack>,
    roots: Vec<(u64, u64)>,
    /// Events whose stack was not kept because the table was full.
    pub(super) not_kept: u64,
}

impl StackTable {
    pub(super) fn new(mappings: &[Mapping], namer: Sender<NewStack>) -> Self {
        StackTable { ids: HashMap::new(), await_ids: HashMap::new(), namer, roots: roots(mappings), not_kept: 0 }
    }

    pub(super) fn id(&mut self, stack: &[u64], outcome: Outcome) -> (Option<i64>, Unwind) {
        if stack.is_empty() {
            return (None, Unwind::Failed);
        }
        // Equal walks by unwind tables end equally, unless a page was not in memory.
        if let Some(&(id, unwind)) = self.ids.get(stack) {
            return (Some(id), unwind);
        }
        let unwind = match outcome {
            Outcome::Complete => Unwind::Complete,
            Outcome::Truncated => Unwind::Truncated,
            Outcome::Failed => Unwind::Failed,
            Outcome::Unknown => self.judge(stack),
        };
        let Some(stack_id) = self.next_id() else { return (None, unwind) };
        self.ids.insert(stack.into(), (stack_id, unwind));
        self.send(stack_id, NewFrames::Addresses(stack.into()), unwind);
        (Some(stack_id), unwind)
    }

    /// The id of an await stack.
    pub(super) fn await_id(&mut self, stack: &AwaitStack) -> Option<i64> {
        if stack.is_empty() {
            return None;
        }
        if let Some(&id) = self.await_ids.get(stack) {
            return Some(id);
        }
        let stack_id = self.next_id()?;
        self.await_ids.insert(Arc::clone(stack), stack_id);
        self.send(stack_id, NewFrames::Await(Arc::clone(stack)), Unwind::Complete);
        Some(stack_id)
    }

    /// The id of a new stack, if there is room for it.
    fn next_id(&mut self) -> Option<i64> {
        let known = self.ids.len() + self.await_ids.len();
        if known >= MAX_STACKS {
            self.not_kept += 1;
            return None;
        }
        Some(i64::try_from(known).unwrap_or(i64::MAX).saturating_add(1))
    }

    fn send(&self, stack_id: i64, frames: NewFrames, unwind: Unwind) {
        // If the namer has ended, the stack has no names, but an id.
        let _ = self.namer.send(NewStack { stack_id, frames, unwind });
    }

    /// A frame-pointer walk does not report why it ended. It counts as complete if its outermost frame is in the C
    /// library, which starts threads and `main`; two frames there may be a leaf and a stray caller.
    fn judge(&self, stack: &[u64]) -> Unwind {
        match stack.last() {
            Some(last) if stack.len() >= 3 && self.roots.iter().any(|(start, end)| (*start..*end).contains(last)) => {
                Unwind::Complete
            }
            Some(_) => Unwind::Truncated,
            None => Unwind::Failed,
        }
    }
}

fn roots(mappings: &[Mapping]) -> Vec<(u64, u64)> {
    mappings
        .iter()
        .filter(|m| {
            let file = m.path.rsplit('/').next().unwrap_or_default();
            ["libc.so", "libc-", "libpthread", "ld-musl"].iter().any(|p| file.starts_with(p))
        })
        .map(|m| (m.start, m.end))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::AwaitFrame;

    #[test]
    fn the_same_stack_has_the_same_id_and_is_named_once() {
        let (to, from) = std::sync::mpsc::channel();
        let libc =
            Mapping { start: 100, end: 200, offset: 0, file: ("00:00".into(), 7), path: "/lib/libc.so.6".into() };
        let mut stacks = StackTable::new(&[libc], to);
        let whole = stacks.id(&[1, 2, 150], Outcome::Unknown);
        assert_eq!(whole, (Some(1), Unwind::Complete));
        assert_eq!(stacks.id(&[1, 2, 151], Outcome::Unknown), (Some(2), Unwind::Complete));
        assert_eq!(stacks.id(&[1, 2], Outcome::Unknown), (Some(3), Unwind::Truncated));
        assert_eq!(stacks.id(&[], Outcome::Unknown), (None, Unwind::Failed));
        assert_eq!(stacks.id(&[1, 2, 150], Outcome::Unknown), whole);
        assert_eq!(stacks.id(&[4, 5], Outcome::Failed), (Some(4), Unwind::Failed));
        assert_eq!(from.try_iter().count(), 4);
    }

    #[test]
    fn an_await_stack_has_an_id_among_the_others() {
        let (to, from) = std::sync::mpsc::channel();
        let mut stacks = StackTable::new(&[], to);
        let function = |name: &str| AwaitFrame { function: name.into(), file: None, line: None, origin: None };
        let stack = || AwaitStack::from([function("leaf"), function("task")]);
        assert_eq!(stacks.id(&[7], Outcome::Complete).0, Some(1));
        assert_eq!(stacks.await_id(&stack()), Some(2));
        assert_eq!(stacks.id(&[8], Outcome::Complete).0, Some(3));
        assert_eq!((stacks.await_id(&stack()), stacks.await_id(&AwaitStack::from([]))), (Some(2), None));
        assert_eq!(from.try_iter().count(), 3);
    }

    #[test]
    fn past_the_bound_stacks_are_counted_and_known_ones_keep_their_ids() {
        let (to, from) = std::sync::mpsc::channel();
        let mut stacks = StackTable::new(&[], to);
        let stack = |n: usize| [n as u64, 1];
        for n in 0..MAX_STACKS {
            assert!(stacks.id(&stack(n), Outcome::Complete).0.is_some());
        }
        assert_eq!(stacks.not_kept, 0);
        for n in 0..3 {
            assert_eq!(stacks.id(&stack(MAX_STACKS + n), Outcome::Complete).0, None);
        }
        assert_eq!((stacks.id(&stack(5), Outcome::Complete).0, stacks.not_kept), (Some(6), 3));
        assert_eq!(from.try_iter().count(), MAX_STACKS);
    }
}
