//! Layouts of futures, from the entries of their types.

use std::collections::{HashMap, HashSet};

use super::{
    bodies::Bodies,
    dies::{Die, Dies},
    ways::{bare, is_leaf},
};
use crate::tasks::layout::{
    CoroutineState, Layouts, Line, MOST_CALLERS, MOST_PARTS, MOST_TYPES, Member, Root, Shape, StateKind, Tag, Type,
    TypeId, Variant,
};

/// Nesting depth of types on the way to a future.
const MOST_DEPTH: usize = 64;
/// Locals of one state that are futures.
const MOST_LOCALS: usize = 16;
/// Bytes of one type, and of all, in an answer. A coroutine with a hundred `.await`s has about 10 kB.
const MOST_TYPE: usize = 4 << 20;
const MOST_ANSWER: usize = 24 << 20;
/// Visits of types in one request, to find those that contain futures.
const MOST_LOOKS: usize = 4 << 20;

/// The state of one request.
pub(super) struct Reader<'a> {
    dies: &'a mut Dies,
    layouts: Layouts,
    done: HashSet<Die>,
    todo: Vec<Die>,
    /// Whether a type contains a future.
    holds: HashMap<Die, bool>,
    /// Types that are futures regardless of their content, as they are awaited.
    awaited: HashSet<Die>,
    /// Whether a type was left out because it contains itself.
    cut: bool,
    looks: usize,
    bodies: Bodies,
}

impl<'a> Reader<'a> {
    pub(super) fn new(dies: &'a mut Dies) -> Self {
        Reader {
            dies,
            layouts: Layouts::default(),
            done: HashSet::new(),
            todo: Vec::new(),
            holds: HashMap::new(),
            awaited: HashSet::new(),
            cut: false,
            looks: MOST_LOOKS,
            bodies: Bodies::default(),
        }
    }

    pub(super) fn read(mut self, polls: &[(u64, u64)], objects: &[u64], callers: &[u64]) -> Layouts {
        for &(poll, id) in polls {
            if let Some(root) = self.root(poll, id) {
                self.layouts.roots.push((poll, root));
            }
        }
        for &caller in callers.iter().take(MOST_CALLERS) {
            if let Some(root) = self.blocked(caller) {
                self.layouts.blocked.push((caller, root));
            }
        }
        for &object in objects {
            let of = self.dies.vtable(object).and_then(|v| self.dies.reference(v, gimli::DW_AT_type));
            if let Some(concrete) = of.and_then(|of| self.dies.reference(of, gimli::DW_AT_containing_type))
                && let Some(id) = self.awaited(concrete)
            {
                self.layouts.objects.push((object, id));
            }
        }
        let mut bytes = 0;
        while let Some(die) = self.todo.pop()
            && self.layouts.types.len() < MOST_TYPES
            && bytes < MOST_ANSWER
        {
            let name = self.dies.path(die);
            let size = self.dies.number(die, gimli::DW_AT_byte_size).unwrap_or(0);
            let shape = self.shape(die, &name);
            let described = Type { name, size, shape };
            // Names may be of any length.
            let packed = postcard::to_allocvec(&described).map_or(0, |packed| packed.len());
            if let Some(id) = self.dies.id(die).filter(|_| packed < MOST_TYPE) {
                bytes += packed;
                self.layouts.types.push((id, described));
            }
        }
        self.layouts
    }

    /// Where the future of `poll<T, S>` is. `None` for folded functions of several types.
    fn root(&mut self, poll: u64, id_offset: u64) -> Option<Root> {
        let mut found: Option<(Die, Die)> = None;
        for function in self.dies.functions(poll) {
            let Some((future, scheduler)) = self.arguments(function) else { continue };
            self.layouts.has_types = true;
            let (name, other) = (self.dies.path(future), found.map(|(f, _)| self.dies.path(f)));
            if other.is_some_and(|other| other != name) {
                return None;
            }
            found = found.or(Some((future, scheduler)));
        }
        let (future, scheduler) = found?;
        let name = self.dies.path(future);
        let size = self.dies.number(future, gimli::DW_AT_byte_size).unwrap_or(0);
        self.awaited.insert(future);
        if let Some((stage, offset)) = self.stage(future, scheduler) {
            return Some(Root { name, of: self.awaited(stage)?, offset, size });
        }
        // `Stage` has the layout of C since tokio 1.40: a tag, followed by the future.
        let align = self.dies.number(future, gimli::DW_AT_alignment).unwrap_or(8).clamp(8, 4096);
        let offset = id_offset.checked_add(8)?.checked_next_multiple_of(align)?.checked_add(align)?;
        Some(Root { name, of: self.awaited(future)?, offset, size })
    }

    /// The future that the function around an address runs, if it is `block_on<F>`.
    fn blocked(&mut self, place: u64) -> Option<Root> {
        let function = self.dies.function_around(place)?;
        let mut at = function;
        while !self.dies.name(at).is_some_and(|name| name.starts_with("block_on<")) {
            let origin = self.dies.reference(at, gimli::DW_AT_abstract_origin);
            at = origin
                .or_else(|| self.dies.reference(at, gimli::DW_AT_specification))
                .filter(|&origin| origin != at)?;
        }
        let future = *self.type_arguments(function).first().or(self.type_arguments(at).first())?;
        let name = self.dies.path(future);
        let size = self.dies.number(future, gimli::DW_AT_byte_size).unwrap_or(0);
        Some(Root { name, of: self.awaited(future)?, offset: 0, size })
    }

    /// `T` and `S` of a function.
    fn arguments(&mut self, function: Die) -> Option<(Die, Die)> {
        let mut at = function;
        for _ in 0..4 {
            let arguments = self.type_arguments(at);
            if let [future, scheduler, ..] = arguments[..] {
                return Some((future, scheduler));
            }
            at = self
                .dies
                .reference(at, gimli::DW_AT_abstract_origin)
                .or_else(|| self.dies.reference(at, gimli::DW_AT_specification))?;
        }
        None
    }

    fn type_arguments(&mut self, die: Die) -> Vec<Die> {
        let children = self.dies.children(die);
        let parameters: Vec<Die> =
            children.into_iter().filter(|&c| self.dies.tag(c) == Some(gimli::DW_TAG_template_type_parameter)).collect();
        parameters.into_iter().filter_map(|p| self.dies.reference(p, gimli::DW_AT_type)).collect()
    }

    /// `Stage<T>` in `Cell<T, S>`, and its offset.
    fn stage(&mut self, future: Die, scheduler: Die) -> Option<(Die, u64)> {
        let cells = self.dies.cells(future).into_iter().chain(self.dies.cells(scheduler)).collect::<Vec<_>>();
        let cell = cells.into_iter().find(|&cell| self.type_arguments(cell) == [future, scheduler])?;
        let (mut at, mut offset) = self.member(cell, "core")?;
        let (stage, more) = self.member(at, "stage")?;
        (at, offset) = (stage, offset.checked_add(more)?);
        for _ in 0..6 {
            if self.dies.name(at)?.starts_with("Stage<") {
                return Some((at, offset));
            }
            let &(_, more, inner) = self.dies.members(at).first()?;
            (at, offset) = (inner, offset.checked_add(more)?);
        }
        None
    }

    fn member(&mut self, of: Die, name: &str) -> Option<(Die, u64)> {
        let members = self.dies.members(of);
        let (_, offset, at) = members.into_iter().find(|(m, ..)| self.dies.name(*m).as_deref() == Some(name))?;
        Some((at, offset))
    }

    /// Requests a type's layout, and returns its id.
    fn want(&mut self, die: Die) -> Option<TypeId> {
        if self.done.insert(die) {
            self.todo.push(die);
        }
        self.dies.id(die)
    }

    fn awaited(&mut self, die: Die) -> Option<TypeId> {
        self.awaited.insert(die);
        self.want(die)
    }

    fn shape(&mut self, die: Die, path: &str) -> Shape {
        if let Some(shape) = self.coroutine(die, path) {
            return shape;
        }
        if is_leaf(path) || !self.holds_inside(die, &mut vec![die]) {
            return Shape::Leaf(self.dies.resource(die, path));
        }
        if self.dies.tag(die) == Some(gimli::DW_TAG_pointer_type) {
            let to = self.dies.reference(die, gimli::DW_AT_type).and_then(|to| self.want(to));
            return to.map_or(Shape::Leaf(None), Shape::Pointer);
        }
        let special = self.object(die, path).or_else(|| self.slice(die, path));
        let special = special.or_else(|| self.list(die, path)).or_else(|| self.select(die));
        if let Some(shape) = special {
            return shape;
        }
        let part = self.dies.children(die);
        match part.into_iter().find(|&c| self.dies.tag(c) == Some(gimli::DW_TAG_variant_part)) {
            Some(part) => self.variants(part),
            None => Shape::Struct(self.parts(die)),
        }
    }

    /// Members that may lead to a future.
    fn parts(&mut self, die: Die) -> Vec<Member> {
        let members = self.dies.members(die);
        let mut parts = Vec::new();
        for (member, offset, of) in members.into_iter().take(MOST_PARTS) {
            if self.holds(of, &mut Vec::new())
                && let Some(of) = self.want(of)
            {
                parts.push(Member { name: self.dies.name(member).unwrap_or_default(), offset, of });
            }
        }
        parts
    }

    fn variants(&mut self, part: Die) -> Shape {
        let tag = self.dies.reference(part, gimli::DW_AT_discr).and_then(|member| self.tag(member));
        let mut variants = Vec::new();
        for variant in self.dies.children(part).into_iter().take(MOST_PARTS) {
            if self.dies.tag(variant) == Some(gimli::DW_TAG_variant) {
                let value = self.dies.discriminant(variant);
                variants.push(Variant { value, members: self.parts(variant) });
            }
        }
        Shape::Enum { tag, variants }
    }

    fn tag(&mut self, member: Die) -> Option<Tag> {
        let offset = self.dies.number(member, gimli::DW_AT_data_member_location).unwrap_or(0);
        let of = self.dies.reference(member, gimli::DW_AT_type)?;
        let size = self.dies.number(of, gimli::DW_AT_byte_size)?;
        [1, 2, 4, 8, 16].contains(&size).then_some(Tag { offset, size })
    }

    fn coroutine(&mut self, die: Die, path: &str) -> Option<Shape> {
        if !is_coroutine(path) {
            return None;
        }
        let children = self.dies.children(die);
        let part = children.into_iter().find(|&c| self.dies.tag(c) == Some(gimli::DW_TAG_variant_part))?;
        let tag = self.dies.reference(part, gimli::DW_AT_discr).and_then(|member| self.tag(member))?;
        let (mut states, mut begin, mut upvars) = (Vec::new(), None, Vec::new());
        for variant in self.dies.children(part).into_iter().take(MOST_PARTS) {
            let (Some(value), Some(&(member, offset, of))) =
                (self.dies.discriminant(variant), self.dies.members(variant).first())
            else {
                continue;
            };
            let Ok(value) = u64::try_from(value & tag.mask()) else { continue };
            let kind = match value {
                0 => StateKind::Unresumed,
                1 => StateKind::Returned,
                2 => StateKind::Panicked,
                _ => StateKind::Suspended,
            };
            let mut at = self.dies.line(member);
            let (mut awaitee, mut guards, mut futures) = (None, Vec::new(), Vec::new());
            if kind == StateKind::Unresumed {
                begin.clone_from(&at);
                let captured = self.dies.members(of);
                upvars = captured.into_iter().filter_map(|(m, at, _)| Some((self.dies.name(m)?, at))).collect();
            } else if kind == StateKind::Suspended {
                if let Some((awaited, inside)) = self.member(of, "__awaitee") {
                    // A macro's `.await`: the line where the macro is called is in the body.
                    if at.as_ref().map(|l| &l.file) != begin.as_ref().map(|l: &Line| &l.file) {
                        at = self.bodies.line(self.dies, die, path, awaited).or(at);
                    }
                    let offset = offset.saturating_add(inside);
                    let of = self.awaited(awaited)?;
                    awaitee = Some(Member { name: String::new(), offset, of });
                }
                guards = self.dies.guards(of, &upvars);
                futures = self.local_futures(of, offset);
            }
            states.push(CoroutineState { value, kind, at, awaitee, guards, futures });
        }
        Some(Shape::Coroutine { tag, begin, states })
    }

    /// Locals of a state that are coroutines, or boxes of them.
    fn local_futures(&mut self, state: Die, at: u64) -> Vec<Member> {
        let mut futures = Vec::new();
        for (member, offset, of) in self.dies.members(state) {
            let path = self.dies.path(of);
            let is_future = is_coroutine(&path) || path.starts_with("core::pin::Pin<") && path.contains("{async_");
            let name = self.dies.name(member).unwrap_or_default();
            if is_future
                && name != "__awaitee"
                && futures.len() < MOST_LOCALS
                && let Some(of) = self.want(of)
            {
                futures.push(Member { name, offset: at.saturating_add(offset), of });
            }
        }
        futures
    }

    /// `Pin<Box<dyn Future>>` and the like.
    fn object(&mut self, die: Die, path: &str) -> Option<Shape> {
        if !is_future_object(path) {
            return None;
        }
        let (_, data) = self.member(die, "pointer")?;
        let (_, vtable) = self.member(die, "vtable")?;
        Some(Shape::Object { data, vtable })
    }

    fn slice(&mut self, die: Die, path: &str) -> Option<Shape> {
        if !is_slice(path) {
            return None;
        }
        let (pointer, data) = self.member(die, "data_ptr")?;
        let (_, length) = self.member(die, "length")?;
        let of = self.dies.reference(pointer, gimli::DW_AT_type)?;
        Some(Shape::Slice { data, length, of: self.want(of)? })
    }

    /// `FuturesUnordered<F>`: `head_all` points to the first node, `next_all` of each to the next.
    fn list(&mut self, die: Die, path: &str) -> Option<Shape> {
        if !is_list(path) {
            return None;
        }
        let (pointer, head) = self.member(die, "head_all")?;
        let node = self.pointee(pointer)?;
        let (_, next) = self.member(node, "next_all")?;
        let (of, item) = self.member(node, "future")?;
        Some(Shape::List { head, next, item, of: self.want(of)? })
    }

    /// The target of an `AtomicPtr`.
    fn pointee(&mut self, mut die: Die) -> Option<Die> {
        for _ in 0..6 {
            if self.dies.tag(die) == Some(gimli::DW_TAG_pointer_type) {
                return self.dies.reference(die, gimli::DW_AT_type);
            }
            die = self.dies.members(die).first()?.2;
        }
        None
    }

    /// The closure of `select!`, which captures its futures and the set of finished ones.
    fn select(&mut self, die: Die) -> Option<Shape> {
        let (pointer, futures) = self.member(die, "_ref__futures")?;
        let (_, disabled) = self.member(die, "_ref__disabled")?;
        let of = self.dies.reference(pointer, gimli::DW_AT_type)?;
        Some(Shape::Select { futures, of: self.want(of)?, disabled })
    }

    /// Whether a type contains a future, or is one. `open` are the types around it.
    fn holds(&mut self, die: Die, open: &mut Vec<Die>) -> bool {
        if self.awaited.contains(&die) {
            return true;
        }
        if let Some(&known) = self.holds.get(&die) {
            return known;
        }
        if open.len() >= MOST_DEPTH || open.contains(&die) || self.looks == 0 {
            self.cut = true;
            return false;
        }
        self.looks -= 1;
        let before = std::mem::take(&mut self.cut);
        open.push(die);
        let holds = self.holds_inside(die, open);
        open.pop();
        // If something was left out, a negative result is not certain.
        if holds || !self.cut || open.is_empty() {
            self.holds.insert(die, holds);
        }
        self.cut |= before;
        holds
    }

    fn holds_inside(&mut self, die: Die, open: &mut Vec<Die>) -> bool {
        match self.dies.tag(die) {
            Some(gimli::DW_TAG_pointer_type) => {
                let path = self.dies.path(die);
                is_box_or_reference(&path)
                    && self.dies.reference(die, gimli::DW_AT_type).is_some_and(|to| self.holds(to, open))
            }
            Some(gimli::DW_TAG_structure_type) => {
                let path = self.dies.path(die);
                if is_coroutine(&path) || is_leaf(&path) || is_future_object(&path) || is_list(&path) {
                    return true;
                }
                if CLOSED.contains(&bare(&path)) {
                    return false;
                }
                if is_slice(&path) {
                    let of = self.member(die, "data_ptr").and_then(|(p, _)| self.dies.reference(p, gimli::DW_AT_type));
                    return of.is_some_and(|of| self.holds(of, open));
                }
                let members = self.dies.members(die);
                members.into_iter().take(MOST_PARTS).any(|(_, _, of)| self.holds(of, open))
            }
            Some(gimli::DW_TAG_union_type) => self.dies.members(die).into_iter().any(|(_, _, of)| self.holds(of, open)),
            _ => false,
        }
    }
}

/// Types that contain futures which they do not poll.
const CLOSED: [&str; 5] = [
    "alloc::sync::Arc",
    "alloc::rc::Rc",
    "core::task::wake::Waker",
    "core::task::wake::Context",
    "core::marker::PhantomData",
];

fn is_coroutine(path: &str) -> bool {
    let name = last(path);
    ["{async_fn_env#", "{async_block_env#", "{async_closure_env#"].iter().any(|kind| name.starts_with(kind))
}

/// The last part of a path.
fn last(path: &str) -> &str {
    let bare = bare(path);
    bare.rsplit("::").next().unwrap_or(bare)
}

/// The target of a box or an exclusive reference.
fn owned(path: &str) -> Option<&str> {
    path.strip_prefix("alloc::boxed::Box<").or_else(|| path.strip_prefix("&mut "))
}

fn is_box_or_reference(path: &str) -> bool {
    owned(path).is_some()
}

fn is_future_object(path: &str) -> bool {
    // Raw ones are a box's insides: `NonNull<dyn Future>`.
    let raw = || path.strip_prefix("*const ").or_else(|| path.strip_prefix("*mut "));
    owned(path).or_else(raw).and_then(|of| of.trim_start_matches('(').strip_prefix("dyn ")).is_some_and(|of| {
        let name = bare(of);
        name.ends_with("::Future") || name.ends_with("::Stream") || name.ends_with("::FusedFuture")
    })
}

fn is_slice(path: &str) -> bool {
    path.starts_with("alloc::boxed::Box<[") || path.starts_with("&mut [")
}

fn is_list(path: &str) -> bool {
    bare(path) == "futures_util::stream::futures_unordered::FuturesUnordered"
}
