//! From a task to the future that waits: a walk through its memory by the layouts of its types.
//!
//! The target runs meanwhile. A task's memory is read twice in one call and must be equal, and memory behind pointers
//! is read again with it after the walk. An equal header before and after proves nothing: a whole poll may have passed
//! in between. (Of 102,255 double reads of tasks that wake each other all the time, no accepted one was inconsistent;
//! of single reads 0.2 to 0.4 % were.) Every pointer may be wrong and every list may be a ring: all steps are bounded.

use std::collections::{BTreeSet, HashMap};

use super::{
    layout::{
        GuardKind, Layouts, MOST_TYPES, Member, Resource, ResourceKind, Shape, StateKind, Tag, Type, TypeId, Way,
    },
    memory::{Memory, Span},
};

/// Steps of one chain.
const MOST_STEPS: usize = 1024;
/// Nesting depth of types, futures among them.
const MOST_DEPTH: usize = 256;
/// Types that are visited for one chain.
const MOST_LOOKS: usize = 64 << 10;
/// Futures of one list or slice that are walked.
const MOST_ITEMS: u64 = 64;
/// Bytes outside of the task that are read for one chain.
const MOST_BYTES: u64 = 1 << 20;
/// Bytes behind one pointer that are read at once.
const MOST_AT_ONCE: u64 = 64 << 10;
/// Memory ranges outside of the task that are read for one chain.
const MOST_CHUNKS: usize = 1000;

/// The known types.
#[derive(Debug, Default)]
pub(super) struct Types {
    types: HashMap<TypeId, Type>,
    /// Concrete types of trait objects, by the address of their vtable in the file. `None` if unknown.
    objects: HashMap<u64, Option<TypeId>>,
}

impl Types {
    /// Adds an answer; requested objects without an answer are unknown.
    pub(super) fn add(&mut self, layouts: Layouts, asked: &[u64]) {
        let room = MOST_TYPES.saturating_sub(self.types.len());
        self.types.extend(layouts.types.into_iter().take(room));
        for &object in asked {
            self.objects.entry(object).or_insert(None);
        }
        for (object, of) in layouts.objects {
            if let Some(known) = self.objects.get_mut(&object) {
                *known = Some(of);
            }
        }
    }

    pub(super) fn get(&self, of: TypeId) -> Option<&Type> {
        self.types.get(&of)
    }

    /// The resource that a leaf waits for.
    pub(super) fn resource(&self, of: TypeId) -> Option<&Resource> {
        match &self.get(of)?.shape {
            Shape::Leaf(resource) => resource.as_ref(),
            _ => None,
        }
    }
}

/// The kind of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum What {
    /// A coroutine at one of its `.await`s: the index of its state.
    Await(TypeId, usize),
    /// A coroutine that was not polled yet.
    Unresumed(TypeId),
    /// A future that awaits no other one.
    Leaf(TypeId),
    /// A trait object of an unknown type.
    Object,
    /// This number of further ones, not walked.
    More(u64),
}

/// A step, outermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Step {
    pub(super) depth: usize,
    pub(super) what: What,
}

/// A leaf's resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    /// The leaf's step.
    pub(super) step: usize,
    pub(super) kind: ResourceKind,
    /// The address of the resource; of a timer the deadline, in ns of CLOCK_MONOTONIC.
    pub(super) at: u64,
    /// For a semaphore: the address of the number of its free permits.
    pub(super) permits: Option<u64>,
}

/// A guard or permit that a coroutine holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    /// The coroutine's step.
    pub(super) step: usize,
    /// The index of its state's guard, or of its local future.
    pub(super) local: usize,
    pub(super) kind: GuardKind,
    /// The address of the semaphore.
    pub(super) at: u64,
    /// Number of permits.
    pub(super) count: Option<u64>,
    /// False if it may have been dropped already.
    pub(super) is_certain: bool,
}

/// A task's await chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) steps: Vec<Step>,
    pub(super) waits: Vec<Wait>,
    pub(super) holds: Vec<Hold>,
}

impl Chain {
    /// The resource for which the future at a step waits.
    pub(super) fn wait_at(&self, step: usize) -> Option<&Wait> {
        self.waits.iter().find(|wait| wait.step == step)
    }
}

/// Why there is no chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The memory changed while it was read, or is inconsistent, which amounts to the same.
    Torn,
    /// The types behind these vtables are needed (addresses in the file).
    Objects(BTreeSet<u64>),
}

/// A chain, with the memory outside of the task that was read for it.
pub(super) struct Walked {
    pub(super) chain: Chain,
    pub(super) outside: Vec<(Span, Vec<u8>)>,
    /// Whether some memory could not be read.
    pub(super) has_gaps: bool,
}

/// The memory of one task, as far as it was read.
pub(super) struct Walk<'a> {
    memory: &'a Memory,
    types: &'a Types,
    load_bias: u64,
    /// The task itself.
    at: u64,
    cell: &'a [u8],
    /// Memory outside of the task.
    chunks: Vec<(Span, Vec<u8>)>,
    bytes: u64,
    /// Whether some memory could not be read: then the chain may change although what was read does not.
    has_gaps: bool,
    /// Current depth, and types visited so far.
    inside: usize,
    looks: usize,
    /// Addresses of awaited coroutines.
    awaited: BTreeSet<u64>,
    /// Step and index of the local future that is being walked and may not be awaited.
    unpolled: Option<(usize, usize)>,
    objects: BTreeSet<u64>,
    chain: Chain,
}

impl<'a> Walk<'a> {
    /// The chain of the task at an address, with its memory `cell`, from the type at an offset in it.
    pub(super) fn chain(
        memory: &'a Memory,
        types: &'a Types,
        load_bias: u64,
        (at, cell): (u64, &'a [u8]),
        (of, offset): (TypeId, u64),
    ) -> Result<Chain, Broken> {
        Self::walked(memory, types, load_bias, (at, cell), (of, offset)).map(|walk| walk.chain)
    }

    /// The same, with the memory that it depends on.
    pub(super) fn walked(
        memory: &'a Memory,
        types: &'a Types,
        load_bias: u64,
        (at, cell): (u64, &'a [u8]),
        (of, offset): (TypeId, u64),
    ) -> Result<Walked, Broken> {
        let mut walk = Walk {
            memory,
            types,
            load_bias,
            at,
            cell,
            chunks: Vec::new(),
            bytes: 0,
            has_gaps: false,
            inside: 0,
            looks: 0,
            awaited: BTreeSet::new(),
            unpolled: None,
            objects: BTreeSet::new(),
            chain: Chain::default(),
        };
        walk.step(of, at.checked_add(offset).ok_or(Broken::Torn)?, 0, false)?;
        if !walk.objects.is_empty() {
            return Err(Broken::Objects(walk.objects));
        }
        if !walk.is_unchanged() {
            return Err(Broken::Torn);
        }
        Ok(Walked { chain: walk.chain, outside: walk.chunks, has_gaps: walk.has_gaps })
    }

    /// Whether all memory that was read is unchanged.
    fn is_unchanged(&self) -> bool {
        if self.chunks.is_empty() {
            return true;
        }
        let cell = Span { start: self.at, end: self.at.saturating_add(self.cell.len() as u64) };
        let pieces: Vec<Span> = [cell].into_iter().chain(self.chunks.iter().map(|(span, _)| *span)).collect();
        let size = self.cell.len() + self.chunks.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        let mut now = vec![0; size];
        if self.memory.read(&pieces, &mut now) != size {
            return false;
        }
        let mut now = now.as_slice();
        let parts = [self.cell].into_iter().chain(self.chunks.iter().map(|(_, bytes)| bytes.as_slice()));
        parts.into_iter().all(|before| match now.split_at_checked(before.len()) {
            Some((this, rest)) => {
                now = rest;
                this == before
            }
            None => false,
        })
    }

    /// Continues at the type at an address. `is_awaited`: a coroutine awaits it, so it must be suspended.
    fn step(&mut self, of: TypeId, at: u64, depth: usize, is_awaited: bool) -> Result<(), Broken> {
        let steps = &self.chain.steps;
        if self.inside >= MOST_DEPTH || self.looks >= MOST_LOOKS || steps.len() >= MOST_STEPS {
            if steps.last().is_none_or(|step| step.what != What::More(1)) {
                self.push(depth, What::More(1));
            }
            return Ok(());
        }
        self.looks += 1;
        self.inside += 1;
        let done = self.look(of, at, depth, is_awaited);
        self.inside -= 1;
        done
    }

    fn look(&mut self, of: TypeId, at: u64, depth: usize, is_awaited: bool) -> Result<(), Broken> {
        let types = self.types;
        let Some(of_type) = types.get(of) else { return Ok(()) };
        match &of_type.shape {
            Shape::Coroutine { tag, states, .. } => {
                let value = self.number(at, *tag).ok_or(Broken::Torn)?;
                let found = states.iter().enumerate().find(|(_, s)| u128::from(s.value) == value);
                let (index, state) = found.ok_or(Broken::Torn)?;
                match state.kind {
                    StateKind::Suspended if self.unpolled.is_some() && self.awaited.contains(&at) => {}
                    StateKind::Suspended => {
                        let step = self.push(depth, What::Await(of, index));
                        if self.unpolled.is_none() {
                            self.awaited.insert(at);
                            self.holds(step, at, &state.guards);
                        }
                        if let Some(awaitee) = &state.awaitee {
                            self.step(awaitee.of, add(at, awaitee.offset)?, depth + 1, true)?;
                        }
                        if self.unpolled.is_none() {
                            self.unpolled(step, at, &state.futures);
                        }
                    }
                    _ if is_awaited => return Err(Broken::Torn),
                    StateKind::Unresumed => drop(self.push(depth, What::Unresumed(of))),
                    StateKind::Returned | StateKind::Panicked => {}
                }
            }
            Shape::Struct(parts) => {
                // Other parts of a structure may not have been polled yet.
                let is_awaited = is_awaited && of_type.name.starts_with("core::pin::Pin<");
                self.all(parts, at, depth, is_awaited)?;
            }
            Shape::Enum { tag, variants } => {
                let value = match tag {
                    Some(tag) => Some(self.number(at, *tag).ok_or(Broken::Torn)?),
                    None => None,
                };
                let mask = tag.map_or(0, |tag| tag.mask());
                let is = |v: &&super::layout::Variant| v.value.is_some_and(|v| Some(v & mask) == value);
                let variant = variants.iter().find(is).or_else(|| variants.iter().find(|v| v.value.is_none()));
                if let Some(variant) = variant {
                    self.all(&variant.members, at, depth, false)?;
                }
            }
            Shape::Pointer(to) => {
                let to_at = self.word(at).ok_or(Broken::Torn)?;
                self.follow(*to, to_at, depth, is_awaited)?;
            }
            Shape::Object { data, vtable } => {
                let (data, vtable) = (self.word(add(at, *data)?), self.word(add(at, *vtable)?));
                let (data, vtable) = data.zip(vtable).ok_or(Broken::Torn)?;
                match types.objects.get(&vtable.wrapping_sub(self.load_bias)) {
                    Some(Some(concrete)) => self.follow(*concrete, data, depth, is_awaited)?,
                    Some(None) => drop(self.push(depth, What::Object)),
                    // There can be no vtable: it is no such object.
                    None if vtable == 0 || !vtable.is_multiple_of(8) => return Err(Broken::Torn),
                    None => drop(self.objects.insert(vtable.wrapping_sub(self.load_bias))),
                }
            }
            Shape::Slice { data, length, of } => {
                let (data, length) = (self.word(add(at, *data)?), self.word(add(at, *length)?));
                let (data, length) = data.zip(length).ok_or(Broken::Torn)?;
                let size = types.get(*of).map_or(0, |of| of.size);
                for index in 0..length.min(MOST_ITEMS) {
                    self.step(*of, add(data, index.saturating_mul(size))?, depth, false)?;
                }
                if length > MOST_ITEMS {
                    self.push(depth, What::More(length - MOST_ITEMS));
                }
            }
            Shape::Select { futures, of, disabled } => {
                let (futures, disabled) = (self.word(add(at, *futures)?), self.word(add(at, *disabled)?));
                let (futures, disabled) = futures.zip(disabled).ok_or(Broken::Torn)?;
                let Some(Shape::Struct(branches)) = types.get(*of).map(|t| &t.shape) else { return Ok(()) };
                for branch in branches {
                    let index = branch.name.trim_start_matches('_').parse::<u64>().unwrap_or(u64::MAX);
                    let bits = self.byte(add(disabled, index / 8 % 8)?).ok_or(Broken::Torn)?;
                    if bits >> (index % 8) & 1 == 0 {
                        self.step(branch.of, add(futures, branch.offset)?, depth, false)?;
                    }
                }
            }
            Shape::List { head, next, item, of } => {
                let mut node = self.word(add(at, *head)?).ok_or(Broken::Torn)?;
                for count in 0.. {
                    if node == 0 {
                        break;
                    }
                    if count == MOST_ITEMS {
                        self.push(depth, What::More(0));
                        break;
                    }
                    self.step(*of, add(node, *item)?, depth, false)?;
                    node = self.word(add(node, *next)?).ok_or(Broken::Torn)?;
                }
            }
            Shape::Leaf(resource) => {
                let step = self.push(depth, What::Leaf(of));
                if let (Some((step, local)), Some(resource)) = (self.unpolled, resource) {
                    self.given(step, local, at, resource);
                } else if let Some(resource) = resource
                    && let Some(found) = self.go(at, &resource.way)
                {
                    let place = match resource.kind {
                        ResourceKind::Timer => self.instant(found),
                        _ => Some(found),
                    };
                    let permits = resource.permits.and_then(|offset| found.checked_add(offset));
                    self.chain.waits.extend(place.map(|at| Wait { step, kind: resource.kind, at, permits }));
                }
            }
        }
        Ok(())
    }

    fn all(&mut self, parts: &[Member], at: u64, depth: usize, is_awaited: bool) -> Result<(), Broken> {
        for part in parts {
            self.step(part.of, add(at, part.offset)?, depth, is_awaited)?;
        }
        Ok(())
    }

    /// Continues behind a pointer, whose target is read at once.
    fn follow(&mut self, to: TypeId, at: u64, depth: usize, is_awaited: bool) -> Result<(), Broken> {
        if at == 0 {
            return Ok(());
        }
        let size = self.types.get(to).map_or(0, |t| t.size);
        if size > 8 && self.here(at, size.min(MOST_AT_ONCE)).is_none() {
            // If not all of it can be read, parts of it may.
            self.fetch(at, size.min(MOST_AT_ONCE));
        }
        self.step(to, at, depth, is_awaited)
    }

    fn push(&mut self, depth: usize, what: What) -> usize {
        self.chain.steps.push(Step { depth, what });
        self.chain.steps.len() - 1
    }

    /// Examines local futures that are not awaited. Once polled they are in the queues of their resources, and may have
    /// been granted them: then no other task gets them until they are polled again.
    fn unpolled(&mut self, step: usize, coroutine: u64, futures: &[Member]) {
        for (local, future) in futures.iter().enumerate() {
            let Some(at) = coroutine.checked_add(future.offset) else { continue };
            let (steps, waits, objects) = (self.chain.steps.len(), self.chain.waits.len(), self.objects.clone());
            self.unpolled = Some((step, local));
            // A future that was moved away or has finished is inconsistent.
            let _ = self.step(future.of, at, 0, false);
            self.unpolled = None;
            self.chain.steps.truncate(steps);
            self.chain.waits.truncate(waits);
            self.objects = objects;
        }
    }

    /// Notes a grant to an unpolled future.
    fn given(&mut self, step: usize, local: usize, leaf: u64, resource: &Resource) {
        let needs = resource.needs.and_then(|offset| self.word(leaf.checked_add(offset)?));
        if needs == Some(0)
            && let Some(at) = self.go(leaf, &resource.way)
        {
            let hold = Hold { step, local, kind: GuardKind::Unpolled, at, count: None, is_certain: true };
            if !self.chain.holds.contains(&hold) {
                self.chain.holds.push(hold);
            }
        }
    }

    /// Guards that a coroutine holds. A guard that was dropped before the `.await` stays in memory; drop flags beside
    /// it then show that something was dropped.
    fn holds(&mut self, step: usize, coroutine: u64, guards: &[super::layout::Guard]) {
        for (index, guard) in guards.iter().enumerate() {
            let Some(at) = self.go(coroutine, &guard.way) else { continue };
            let flags: Vec<Option<u8>> =
                guard.flags.iter().map(|&flag| self.byte(coroutine.checked_add(flag)?)).collect();
            let is_certain = match flags[..] {
                [] => true,
                // Debug information does not relate flags to locals: one guard and one flag belong together.
                [Some(0)] if guards.len() == 1 => continue,
                [Some(1)] if guards.len() == 1 => true,
                _ => flags.iter().all(|flag| *flag == Some(1)),
            };
            let count = match guard.count {
                Some(offset) => {
                    coroutine.checked_add(offset).and_then(|at| self.number(at, Tag { offset: 0, size: 4 }))
                }
                None => Some(1),
            };
            let count = count.and_then(|count| u64::try_from(count).ok());
            let hold = Hold { step, local: index, kind: guard.kind, at, count, is_certain };
            // The same guard may appear twice: an argument and the local into which it was moved.
            if !self.chain.holds.iter().any(|other| other.at == at && other.step == step) {
                self.chain.holds.push(hold);
            }
        }
    }

    /// The end of a path.
    fn go(&mut self, mut at: u64, way: &Way) -> Option<u64> {
        let (last, hops) = way.0.split_last()?;
        for hop in hops {
            at = self.word(at.checked_add(*hop)?).filter(|&to| to != 0)?;
        }
        at.checked_add(*last)
    }

    /// std's `Instant`: seconds and nanoseconds.
    fn instant(&mut self, at: u64) -> Option<u64> {
        let seconds = self.word(at)?;
        let nanos = self.number(at, Tag { offset: 8, size: 4 })?;
        let nanos = u64::try_from(nanos).ok().filter(|&n| n < 1_000_000_000)?;
        seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
    }

    fn number(&mut self, at: u64, tag: Tag) -> Option<u128> {
        let mut value = [0; 16];
        let bytes = self.read(at.checked_add(tag.offset)?, tag.size)?;
        value.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(u128::from_le_bytes(value))
    }

    fn word(&mut self, at: u64) -> Option<u64> {
        Some(u64::from_le_bytes(self.read(at, 8)?.try_into().ok()?))
    }

    fn byte(&mut self, at: u64) -> Option<u8> {
        self.read(at, 1)?.first().copied()
    }

    fn read(&mut self, at: u64, size: u64) -> Option<&[u8]> {
        if self.here(at, size).is_none() && !self.fetch(at, size) {
            return None;
        }
        self.here(at, size)
    }

    /// Memory that was already read.
    fn here(&self, at: u64, size: u64) -> Option<&[u8]> {
        let part = |start: u64, bytes: &'_ [u8]| -> Option<(usize, usize)> {
            let from = usize::try_from(at.checked_sub(start)?).ok()?;
            let to = from.checked_add(usize::try_from(size).ok()?)?;
            (to <= bytes.len()).then_some((from, to))
        };
        if let Some((from, to)) = part(self.at, self.cell) {
            return self.cell.get(from..to);
        }
        let chunks = self.chunks.iter();
        let mut inside = chunks.filter_map(|(span, bytes)| part(span.start, bytes).and_then(|(a, b)| bytes.get(a..b)));
        inside.next()
    }

    fn fetch(&mut self, at: u64, size: u64) -> bool {
        let has_room = self.chunks.len() < MOST_CHUNKS && self.bytes.saturating_add(size) <= MOST_BYTES;
        let span = at.checked_add(size).filter(|_| has_room).map(|end| Span { start: at, end });
        let Some((span, bytes)) = span.and_then(|span| Some((span, self.memory.bytes(span)?))) else {
            self.has_gaps = true;
            return false;
        };
        self.bytes += size;
        self.chunks.push((span, bytes));
        true
    }
}

fn add(at: u64, offset: u64) -> Result<u64, Broken> {
    at.checked_add(offset).ok_or(Broken::Torn)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        inspect::Process,
        tasks::layout::{CoroutineState, Variant},
    };

    /// Walks memory of this process: from `root`, at the start of `cell`.
    fn walk(types: Vec<(TypeId, Shape)>, cell: &[u64]) -> Result<Chain, Broken> {
        let memory =
            Memory::open(&Process { pid: std::process::id(), exe: "/proc/self/exe".into(), library: None }).unwrap();
        let types = types.into_iter().map(|(id, shape)| (id, Type { name: format!("t{id}"), size: 16, shape }));
        let mut known = Types::default();
        known.add(Layouts { types: types.collect(), ..Layouts::default() }, &[9]);
        let bytes: Vec<u8> = cell.iter().flat_map(|word| word.to_le_bytes()).collect();
        Walk::chain(&memory, &known, 0x1000, (cell.as_ptr() as u64, &bytes), (1, 0))
    }

    fn what(chain: Result<Chain, Broken>) -> Vec<What> {
        chain.unwrap().steps.iter().map(|step| step.what).collect()
    }

    fn part(of: TypeId, offset: u64) -> Member {
        Member { name: format!("__{}", offset / 8), offset, of }
    }

    fn coroutine(awaitee: TypeId) -> Shape {
        let state = |value, kind| {
            let (guards, futures) = (Vec::new(), Vec::new());
            CoroutineState { value, kind, at: None, awaitee: None, guards, futures }
        };
        let suspended = CoroutineState { awaitee: Some(part(awaitee, 8)), ..state(3, StateKind::Suspended) };
        let states = vec![state(0, StateKind::Unresumed), state(1, StateKind::Returned), suspended];
        Shape::Coroutine { tag: Tag { offset: 0, size: 1 }, begin: None, states }
    }

    #[test]
    fn walks_to_the_future_that_waits() {
        let leaf = || (3, Shape::Leaf(None));
        assert_eq!(what(walk(vec![(1, coroutine(3)), leaf()], &[3, 0])), [What::Await(1, 2), What::Leaf(3)]);
        assert_eq!(what(walk(vec![(1, coroutine(3)), leaf()], &[0, 0])), [What::Unresumed(1)]);
        // An awaited coroutine must be suspended: else the read was torn.
        let inner = || vec![(1, coroutine(2)), (2, coroutine(3)), leaf()];
        assert_eq!(what(walk(inner(), &[3, 3, 0])), [What::Await(1, 2), What::Await(2, 2), What::Leaf(3)]);
        for torn in [[3, 1, 0], [3, 0, 0], [3, 77, 0], [77, 0, 0]] {
            assert_eq!(walk(inner(), &torn), Err(Broken::Torn), "{torn:?}");
        }
        // Through a box, and through memory anywhere in this process.
        let there = Box::new([3_u64, 0]);
        let boxed = vec![(1, Shape::Pointer(2)), (2, coroutine(3)), leaf()];
        assert_eq!(what(walk(boxed, &[there.as_ptr() as u64])), [What::Await(2, 2), What::Leaf(3)]);
    }

    #[test]
    fn takes_one_variant_of_an_enum() {
        let variant = |value, of| Variant { value, members: vec![part(of, 8)] };
        let niche = Shape::Enum {
            tag: Some(Tag { offset: 0, size: 4 }),
            variants: vec![variant(None, 2), variant(Some(u128::MAX), 3)],
        };
        let types = || vec![(1, niche.clone()), (2, Shape::Leaf(None)), (3, Shape::Leaf(None))];
        assert_eq!(what(walk(types(), &[5, 0])), [What::Leaf(2)]);
        // Its value is -1, of the tag's size.
        assert_eq!(what(walk(types(), &[0xffff_ffff, 0])), [What::Leaf(3)]);
    }

    #[test]
    fn leaves_out_branches_that_are_done() {
        let futures = Box::new([0_u64; 3]);
        let disabled = Box::new(0b010_u64);
        let types = vec![
            (1, Shape::Select { futures: 0, of: 2, disabled: 8 }),
            (2, Shape::Struct(vec![part(3, 0), part(4, 8), part(5, 16)])),
            (3, Shape::Leaf(None)),
            (4, Shape::Leaf(None)),
            (5, Shape::Leaf(None)),
        ];
        let cell = [futures.as_ptr() as u64, std::ptr::from_ref(&*disabled) as u64];
        assert_eq!(what(walk(types, &cell)), [What::Leaf(3), What::Leaf(5)]);
    }

    /// Memory and layouts are untrusted.
    #[test]
    fn ends_on_any_memory_and_layout() {
        // A type that contains itself, a pointer to itself, a ring of nodes, an endless slice.
        let itself = vec![(1, Shape::Struct(vec![part(1, 0), part(1, 0)]))];
        assert!(walk(itself, &[0]).unwrap().steps.len() <= MOST_STEPS);
        let mut ring = Box::new([0_u64; 2]);
        ring[0] = ring.as_ptr() as u64;
        let pointer = vec![(1, Shape::Pointer(1))];
        assert_eq!(what(walk(pointer, &ring[..])), [What::More(1)]);
        let list = vec![(1, Shape::List { head: 0, next: 0, item: 8, of: 2 }), (2, Shape::Leaf(None))];
        let steps = what(walk(list, &ring[..]));
        assert_eq!((steps.len() as u64, steps.last()), (MOST_ITEMS + 1, Some(&What::More(0))));
        let slice = vec![(1, Shape::Slice { data: 0, length: 8, of: 2 }), (2, Shape::Leaf(None))];
        assert_eq!(walk(slice, &[8, u64::MAX]).unwrap().steps.len() as u64, MOST_ITEMS + 1);
        // Invalid pointers, and an offset out of all bounds.
        for lie in [1, 0x1000, 1 << 47, u64::MAX, u64::MAX - 7] {
            let types = vec![(1, Shape::Pointer(2)), (2, coroutine(3)), (3, Shape::Leaf(None))];
            assert_eq!(walk(types, &[lie]), Err(Broken::Torn), "{lie:#x}");
        }
        assert_eq!(
            walk(vec![(1, Shape::Struct(vec![part(2, u64::MAX)])), (2, Shape::Leaf(None))], &[0]),
            Err(Broken::Torn)
        );
        let way = Resource { kind: ResourceKind::Notify, way: Way(vec![0; 16]), permits: None, needs: None };
        assert_eq!(walk(vec![(1, Shape::Leaf(Some(way)))], &[8]).unwrap().waits, []);
        // A type without layout, and an object whose type is unknown or must be requested.
        assert_eq!(what(walk(Vec::new(), &[0])), []);
        let object = || vec![(1, Shape::Object { data: 0, vtable: 8 })];
        assert_eq!(what(walk(object(), &[0, 0x1009])), [What::Object]);
        assert_eq!(walk(object(), &[0, 0x2000]), Err(Broken::Objects(BTreeSet::from([0x1000]))));
    }
}
