//! The resources that futures wait for and the guards that coroutines hold: the paths to them through memory.

use std::collections::{HashSet, VecDeque};

use super::dies::{Die, Dies};
use crate::tasks::layout::{Guard, GuardKind, MOST_HOPS, Resource, ResourceKind, Way};

/// Types that one search visits.
const MOST_STEPS: usize = 800;
/// Depth in a local at which guards are searched.
const GUARD_DEPTH: usize = 4;
/// Members of one local that are searched for guards.
const MOST_MEMBERS: usize = 64;

const SEMAPHORE: &str = "tokio::sync::batch_semaphore::Semaphore";

/// Futures that await no other one, and their resources.
const LEAVES: [(&str, ResourceKind, &str); 9] = [
    ("tokio::sync::batch_semaphore::Acquire", ResourceKind::Semaphore, SEMAPHORE),
    ("tokio::sync::notify::Notified", ResourceKind::Notify, "tokio::sync::notify::Notify"),
    ("tokio::sync::notify::OwnedNotified", ResourceKind::Notify, "tokio::sync::notify::Notify"),
    ("tokio::sync::oneshot::Receiver", ResourceKind::Oneshot, "tokio::sync::oneshot::Inner"),
    ("tokio::sync::broadcast::Recv", ResourceKind::Broadcast, "tokio::sync::broadcast::Shared"),
    ("tokio::runtime::task::join::JoinHandle", ResourceKind::Task, "tokio::runtime::task::core::Header"),
    ("tokio::time::sleep::Sleep", ResourceKind::Timer, "tokio::time::instant::Instant"),
    ("tokio::runtime::io::scheduled_io::Readiness", ResourceKind::Io, "tokio::runtime::io::scheduled_io::ScheduledIo"),
    ("tokio::task::join_set::JoinSet", ResourceKind::TaskSet, ""),
];

/// Other resources, recognized by what a future leads to.
const OTHERS: [(&str, ResourceKind); 4] = [
    ("tokio::sync::mpsc::chan::Chan", ResourceKind::Channel),
    ("tokio::runtime::io::scheduled_io::ScheduledIo", ResourceKind::Io),
    ("tokio::runtime::task::core::Header", ResourceKind::Task),
    ("tokio::sync::oneshot::Inner", ResourceKind::Oneshot),
];

/// Types that searches do not enter: they lead to all of a runtime.
const CLOSED: [&str; 4] = [
    "tokio::runtime::scheduler::Handle",
    "tokio::runtime::handle::Handle",
    "core::task::wake::Waker",
    "core::task::wake::RawWaker",
];

/// The path of a type without its arguments.
pub(super) fn bare(path: &str) -> &str {
    path.split('<').next().unwrap_or(path)
}

/// Whether a type is a future known to await no other one.
pub(super) fn is_leaf(path: &str) -> bool {
    LEAVES.iter().any(|(leaf, ..)| *leaf == bare(path))
}

impl Dies {
    /// The full path of a type.
    pub(super) fn path(&mut self, die: Die) -> String {
        let mut parts = vec![self.name(die).unwrap_or_default()];
        let mut at = die;
        while let Some(parent) = self.parent(at)
            && parts.len() < 64
        {
            parts.push(self.name(parent).unwrap_or_default());
            at = parent;
        }
        parts.reverse();
        parts.join("::")
    }

    /// Members of a structure, of a union, or of all variants of an enum: offset and type.
    pub(super) fn members(&mut self, die: Die) -> Vec<(Die, u64, Die)> {
        let mut found = Vec::new();
        for child in self.children(die) {
            match self.tag(child) {
                Some(gimli::DW_TAG_member) => {
                    let offset = self.number(child, gimli::DW_AT_data_member_location).unwrap_or(0);
                    if let Some(of) = self.reference(child, gimli::DW_AT_type) {
                        found.push((child, offset, of));
                    }
                }
                Some(gimli::DW_TAG_variant_part) => {
                    for variant in self.children(child) {
                        if self.tag(variant) == Some(gimli::DW_TAG_variant) {
                            found.extend(self.members(variant));
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// The shortest path from a type to one whose name, without arguments, is wanted.
    fn way(&mut self, from: Die, is_wanted: impl Fn(&str) -> bool) -> Option<(Way, Die)> {
        let mut queue = VecDeque::from([(from, vec![0_u64])]);
        let mut seen = HashSet::from([from]);
        while let Some((die, way)) = queue.pop_front() {
            let path = self.path(die);
            let path = bare(&path);
            if die != from && is_wanted(path) {
                return Some((Way(way), die));
            }
            if CLOSED.contains(&path) {
                continue;
            }
            let mut next = Vec::new();
            if self.tag(die) == Some(gimli::DW_TAG_pointer_type) {
                if way.len() < MOST_HOPS
                    && let Some(to) = self.reference(die, gimli::DW_AT_type)
                {
                    next.push((to, way.iter().copied().chain([0]).collect()));
                }
            } else {
                for (_, offset, of) in self.members(die) {
                    let mut way = way.clone();
                    if let Some(last) = way.last_mut() {
                        *last = last.saturating_add(offset);
                    }
                    next.push((of, way));
                }
            }
            for (die, way) in next {
                if seen.len() < MOST_STEPS && seen.insert(die) {
                    queue.push_back((die, way));
                }
            }
        }
        None
    }

    /// The resource of a leaf, as far as its type shows it.
    pub(super) fn resource(&mut self, leaf: Die, path: &str) -> Option<Resource> {
        if let Some(&(_, kind, target)) = LEAVES.iter().find(|(known, ..)| *known == bare(path)) {
            if target.is_empty() {
                return Some(Resource { kind, way: Way(vec![0]), permits: None, needs: None });
            }
            let (way, of) = self.way(leaf, |path| path == target)?;
            let permits = if kind == ResourceKind::Semaphore { self.permits(of) } else { None };
            let needs = if kind == ResourceKind::Semaphore { self.needs(leaf) } else { None };
            return Some(Resource { kind, way, permits, needs });
        }
        let (way, of) = self.way(leaf, |path| OTHERS.iter().any(|(other, _)| *other == path))?;
        let path = self.path(of);
        let (_, kind) = OTHERS.iter().find(|(other, _)| *other == bare(&path))?;
        Some(Resource { kind: *kind, way, permits: None, needs: None })
    }

    /// `node.state` of an `Acquire`.
    fn needs(&mut self, acquire: Die) -> Option<u64> {
        let mut named = |of: Die, name: &str| {
            let members = self.members(of);
            members.into_iter().find(|(member, ..)| self.name(*member).as_deref() == Some(name))
        };
        let (_, at, node) = named(acquire, "node")?;
        let (_, inside, _) = named(node, "state")?;
        at.checked_add(inside)
    }

    fn permits(&mut self, semaphore: Die) -> Option<u64> {
        self.members(semaphore)
            .into_iter()
            .find_map(|(member, offset, _)| (self.name(member)? == "permits").then_some(offset))
    }

    /// Guards in the locals of a coroutine's state. `upvars` are its captures, by name and offset: if an argument was
    /// moved into a local of the same name, only the local counts.
    pub(super) fn guards(&mut self, state: Die, upvars: &[(String, u64)]) -> Vec<Guard> {
        let mut guards: Vec<Guard> = Vec::new();
        let members = self.members(state);
        let named: Vec<(String, u64, Die)> =
            members.into_iter().filter_map(|(m, offset, of)| Some((self.name(m)?, offset, of))).collect();
        let is_unnamed = |name: &str| name.strip_prefix("__").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
        let mut flags = Vec::new();
        for (name, offset, of) in &named {
            if is_unnamed(name) && self.name(*of).as_deref() == Some("bool") {
                flags.push(*offset);
            }
        }
        for (name, offset, of) in &named {
            let is_upvar = upvars.iter().any(|(upvar, at)| upvar == name && at == offset);
            let has_local = named.iter().any(|(other, at, _)| other == name && at != offset);
            if name == "__awaitee" || is_upvar && has_local {
                continue;
            }
            for (guard, kind, inside) in self.guards_in(*of) {
                let Some((mut way, semaphore)) = self.way(guard, |path| path == SEMAPHORE) else { continue };
                let at = offset.saturating_add(inside);
                if let Some(first) = way.0.first_mut() {
                    *first = first.saturating_add(at);
                }
                let count = self.members(guard).into_iter().find_map(|(member, offset, _)| {
                    let name = self.name(member)?;
                    (name == "permits" || name == "permits_acquired").then(|| at.saturating_add(offset))
                });
                let permits = self.permits(semaphore);
                let name = (!is_unnamed(name)).then(|| name.clone());
                guards.push(Guard { name, kind, way, count, permits, flags: flags.clone() });
            }
        }
        guards
    }

    /// Guards that exist whenever a type does: their type, kind and offset.
    fn guards_in(&mut self, of: Die) -> Vec<(Die, GuardKind, u64)> {
        let (mut found, mut todo, mut looked) = (Vec::new(), vec![(of, 0_u64, 0)], 0);
        while let Some((die, at, depth)) = todo.pop() {
            let tag = self.tag(die);
            if tag != Some(gimli::DW_TAG_structure_type) {
                continue;
            }
            let path = self.path(die);
            if let Some(kind) = guard_kind(bare(&path)) {
                found.push((die, kind, at));
            } else if depth < GUARD_DEPTH && !path.contains("{async_") {
                for (_, offset, of) in self.members(die) {
                    looked += 1;
                    if looked < MOST_MEMBERS {
                        todo.push((of, at.saturating_add(offset), depth + 1));
                    }
                }
            }
        }
        found
    }
}

fn guard_kind(path: &str) -> Option<GuardKind> {
    let (module, name) = path.rsplit_once("::")?;
    if module == "tokio::sync::mpsc::bounded" && name == "Receiver" {
        return Some(GuardKind::Receiver);
    }
    if !module.starts_with("tokio::sync::") {
        return None;
    }
    Some(match name {
        "MutexGuard" | "OwnedMutexGuard" | "MappedMutexGuard" | "OwnedMappedMutexGuard" => GuardKind::Mutex,
        "RwLockReadGuard" | "OwnedRwLockReadGuard" => GuardKind::Read,
        "RwLockWriteGuard" | "OwnedRwLockWriteGuard" | "RwLockMappedWriteGuard" | "OwnedRwLockMappedWriteGuard" => {
            GuardKind::Write
        }
        "SemaphorePermit" | "OwnedSemaphorePermit" => GuardKind::Permits,
        _ => return None,
    })
}
