//! The memory layout of the target's futures: the data for a walk from a task to the future that waits.
//!
//! The sandboxed child reads it from debug information ([`super::debuginfo`]). It is untrusted: an offset may lead out
//! of the type, a type may contain itself.

use serde::{Deserialize, Serialize};

/// A type: the offset of its entry in `.debug_info`.
pub(crate) type TypeId = u64;

/// Types in one answer.
pub(crate) const MOST_TYPES: usize = 64 << 10;
/// Return addresses in one request.
pub(crate) const MOST_CALLERS: usize = 8192;
/// Suspension points, members or variants of one type.
pub(crate) const MOST_PARTS: usize = 4096;

/// The layouts of task types and trait objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layouts {
    /// Whether debug information contains types: line tables alone do not.
    pub(crate) has_types: bool,
    /// The types between a task and its leaves.
    pub(crate) types: Vec<(TypeId, Type)>,
    /// By the address of a poll function.
    pub(crate) roots: Vec<(u64, Root)>,
    /// The future that `block_on` runs, by a return address.
    pub(crate) blocked: Vec<(u64, Root)>,
    /// The concrete type by the address of a trait object's vtable.
    pub(crate) objects: Vec<(u64, TypeId)>,
}

/// Where the future is in a task of some type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Root {
    /// The future's type as the compiler names it.
    pub(crate) name: String,
    /// The type at `offset`: the future, or the `Stage` that holds it until it finishes.
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

/// The discriminant of an enum or coroutine.
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

/// A source line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) file: String,
    pub(crate) line: u32,
}

/// The structure of a type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Shape {
    /// The type of an `async` function, block or closure.
    Coroutine {
        tag: Tag,
        /// Where it is declared.
        begin: Option<Line>,
        states: Vec<CoroutineState>,
    },
    /// All of these members exist.
    Struct(Vec<Member>),
    /// The members of one variant exist.
    Enum { tag: Option<Tag>, variants: Vec<Variant> },
    /// A pointer that owns its target or has exclusive access: `Box<F>`, `&mut F`.
    Pointer(TypeId),
    /// A trait object that is a future.
    Object { data: u64, vtable: u64 },
    /// `Box<[F]>`.
    Slice { data: u64, length: u64, of: TypeId },
    /// `select!`: a pointer to a tuple of futures, and one to the set of those that have finished.
    Select { futures: u64, of: TypeId, disabled: u64 },
    /// `FuturesUnordered`: a list of nodes.
    List { head: u64, next: u64, item: u64, of: TypeId },
    /// A future that awaits no other one.
    Leaf(Option<Resource>),
}

/// A variant of an enum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Variant {
    /// The tag's value; the variant without is the default.
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
    /// The awaited future.
    pub(crate) awaitee: Option<Member>,
    /// Locals that hold a lock or permits.
    pub(crate) guards: Vec<Guard>,
    /// Locals that are futures. Those that are not awaited as well are not polled, and may yet be in a lock's queue.
    pub(crate) futures: Vec<Member>,
}

/// The kind of a coroutine's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StateKind {
    /// Not polled yet.
    Unresumed,
    /// Finished.
    Returned,
    /// Finished by a panic.
    Panicked,
    /// Waiting at an `.await`.
    Suspended,
}

/// A path through memory: each number but the last is added to the address, and the pointer there followed; the last
/// one is added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Way(pub(crate) Vec<u64>);

/// Pointers that one path may follow.
pub(crate) const MOST_HOPS: usize = 16;

/// The resource that a leaf waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resource {
    pub(crate) kind: ResourceKind,
    /// To the resource, or for a timer to its deadline.
    pub(crate) way: Way,
    /// For a semaphore: the offset in it of the number of free permits.
    pub(crate) permits: Option<u64>,
    /// For a semaphore: the offset in the leaf of the number of permits that it still needs. 0 means that it was
    /// granted them.
    pub(crate) needs: Option<u64>,
}

impl Resource {
    /// Whether its path ends at the resource itself.
    pub(crate) fn leads_to_memory(&self) -> bool {
        !matches!(self.kind, ResourceKind::Timer)
    }
}

/// The kind of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum ResourceKind {
    /// The semaphore inside a mutex, a lock, a bounded channel or a semaphore.
    Semaphore,
    Notify,
    Oneshot,
    /// A channel's messages.
    Channel,
    Broadcast,
    /// A task's end.
    Task,
    Timer,
    /// A file descriptor that is not ready.
    Io,
    /// The end of any task of a set.
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
    /// Offset from the coroutine to the number of permits that it holds, if the guard stores it.
    pub(crate) count: Option<u64>,
    /// Offset in the semaphore of the number of free permits.
    pub(crate) permits: Option<u64>,
    /// Drop flags; debug information does not relate them to locals.
    pub(crate) flags: Vec<u64>,
}

/// The kind of a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum GuardKind {
    Mutex,
    Read,
    Write,
    Permits,
    /// The receiver of a bounded channel: it makes room, and so holds the senders' resource.
    Receiver,
    /// A future that is not polled and was granted the lock that it queued for.
    Unpolled,
}
