//! How the target's futures lie in memory: what a walk from a task to the future that waits takes.
//!
//! Debug information says it; the sandboxed child reads that ([`super::debuginfo`]) and answers with these. Whoever walks
//! believes none of it: an offset may lead out of the type, a type may contain itself.

use serde::{Deserialize, Serialize};

/// A type: the offset of its entry in `.debug_info`.
pub(crate) type TypeId = u64;

/// Types that one answer may hold.
pub(crate) const MOST_TYPES: usize = 64 << 10;
/// Places in the code that one request may ask about.
pub(crate) const MOST_CALLERS: usize = 8192;
/// Suspension points, members or variants that one type may have.
pub(crate) const MOST_PARTS: usize = 4096;

/// What debug information says of some task types and trait objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layouts {
    /// Whether it has types at all: line tables alone have none.
    pub(crate) has_types: bool,
    /// The types that can be on the way.
    pub(crate) types: Vec<(TypeId, Type)>,
    /// By the address of a poll function.
    pub(crate) roots: Vec<(u64, Root)>,
    /// What `block_on` runs, by a place in its code.
    pub(crate) blocked: Vec<(u64, Root)>,
    /// The concrete type by the address of a trait object's vtable.
    pub(crate) objects: Vec<(u64, TypeId)>,
}

/// Where in a task of some type its future lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Root {
    /// The future's type as the compiler names it.
    pub(crate) name: String,
    /// What lies at `offset`: the future, or the `Stage` that holds it while it is not done.
    pub(crate) of: TypeId,
    /// From the task's header.
    pub(crate) offset: u64,
    /// The size of the future.
    pub(crate) size: u64,
}

/// A type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Type {
    /// As the compiler names it.
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) shape: Shape,
}

/// A part of a type that may lead to a future.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) offset: u64,
    pub(crate) of: TypeId,
}

/// Where the number lies that says which variant there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tag {
    pub(crate) offset: u64,
    /// In bytes: 1, 2, 4, 8 or 16.
    pub(crate) size: u64,
}

impl Tag {
    /// The values that it can have.
    pub(crate) fn mask(self) -> u128 {
        let bits = u32::try_from(self.size).ok().and_then(|size| size.checked_mul(8));
        let unused = bits.and_then(|bits| 128_u32.checked_sub(bits));
        unused.and_then(|unused| u128::MAX.checked_shr(unused)).unwrap_or(0)
    }
}

/// A place in the source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) file: String,
    pub(crate) line: u32,
}

/// What there is to a type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Shape {
    /// What an `async` function, block or closure compiles to.
    Coroutine {
        tag: Tag,
        /// Where it is written.
        begin: Option<Line>,
        states: Vec<CoroutineState>,
    },
    /// All of these are there.
    Struct(Vec<Member>),
    /// Those of one variant are.
    Enum { tag: Option<Tag>, variants: Vec<Variant> },
    /// A pointer to one that it owns or has to itself: `Box<F>`, `&mut F`.
    Pointer(TypeId),
    /// A trait object that is a future.
    Object { data: u64, vtable: u64 },
    /// `Box<[F]>`.
    Slice { data: u64, length: u64, of: TypeId },
    /// `select!`: a tuple of futures behind one pointer, and behind another the set of those that are done.
    Select { futures: u64, of: TypeId, disabled: u64 },
    /// `FuturesUnordered`: a list of nodes.
    List { head: u64, next: u64, item: u64, of: TypeId },
    /// A future that awaits no other one.
    Leaf(Option<Resource>),
}

/// A variant of an enum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Variant {
    /// The tag's value; the one without is there for all values that no other one has.
    pub(crate) value: Option<u128>,
    pub(crate) members: Vec<Member>,
}

/// A state of a coroutine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CoroutineState {
    pub(crate) value: u64,
    pub(crate) kind: StateKind,
    /// Of the `.await`.
    pub(crate) at: Option<Line>,
    /// What is awaited.
    pub(crate) awaitee: Option<Member>,
    /// Locals that hold a lock or permits.
    pub(crate) guards: Vec<Guard>,
    /// Locals that are futures. Those that are not awaited as well are not polled, and yet may be in a lock's queue.
    pub(crate) futures: Vec<Member>,
}

/// What a state of a coroutine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StateKind {
    /// Not polled yet.
    Unresumed,
    /// Done.
    Returned,
    /// Done, by a panic.
    Panicked,
    /// Waiting at an `.await`.
    Suspended,
}

/// A way through memory: from an address, each number but the last is added and the pointer there followed; the last one is
/// added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Way(pub(crate) Vec<u64>);

/// Pointers that one way may follow.
pub(crate) const MOST_HOPS: usize = 16;

/// What a leaf waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resource {
    pub(crate) kind: ResourceKind,
    /// To the resource, or for a timer to its deadline.
    pub(crate) way: Way,
    /// Of a semaphore: where in it the number of free permits lies.
    pub(crate) permits: Option<u64>,
    /// Of a semaphore: where in the leaf the number of permits lies that it still needs. With 0 it has been given them.
    pub(crate) needs: Option<u64>,
}

impl Resource {
    /// Whether its way ends at the thing itself.
    pub(crate) fn leads_to_memory(&self) -> bool {
        !matches!(self.kind, ResourceKind::Timer)
    }
}

/// What kind of thing is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum ResourceKind {
    /// The semaphore under a mutex, a lock, a bounded channel or a semaphore.
    Semaphore,
    Notify,
    Oneshot,
    /// Messages of a channel.
    Channel,
    Broadcast,
    /// The end of a task.
    Task,
    Timer,
    /// A file descriptor that is not ready.
    Io,
    /// The end of any of a set of tasks.
    TaskSet,
}

/// A local that holds a lock or permits, unless it was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Guard {
    /// `None` for a temporary.
    pub(crate) name: Option<String>,
    pub(crate) kind: GuardKind,
    /// From the coroutine to the semaphore.
    pub(crate) way: Way,
    /// From the coroutine to how many permits it holds, where the guard says it.
    pub(crate) count: Option<u64>,
    /// Where in the semaphore the number of free permits lies.
    pub(crate) permits: Option<u64>,
    /// Flags that say whether locals were dropped; debug information does not say whose they are.
    pub(crate) flags: Vec<u64>,
}

/// What kind of guard it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum GuardKind {
    Mutex,
    Read,
    Write,
    Permits,
    /// The receiving end of a bounded channel: it makes room, and so holds what senders wait for.
    Receiver,
    /// A future that is not polled, and has been given what it queued for.
    Unpolled,
}
