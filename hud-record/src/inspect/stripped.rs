//! Tokio in a stripped binary, by the shape of its data and code.
//!
//! A vtable counts as a task's ([`super::task_vtable`]) only after its functions have been examined as well: a probe is
//! attached to the function identified as tokio's `poll`, and would record false events elsewhere.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    binary::Binary,
    functions::{Body, Code},
    image::Image,
    task_type::{Scheduler, TaskKind},
    task_vtable::Vtable,
};

/// Functions near the vtable's that are searched for the operations typical of them. In a debug build, without
/// inlining, hundreds lie between.
const WIDE: usize = 1024;
/// Functions that are searched for source locations: fewer, as in an optimized build.
const NEARBY: usize = 48;
/// Functions that are searched for the worker's loop.
const FAR: usize = 4096;
/// A message that only a worker's loop contains, in every version: `core.park.take().expect("park missing")`
/// (tokio/src/runtime/scheduler/multi_thread/worker.rs).
const WORKER_MESSAGE: &[u8] = b"park missing";
/// The panic messages of a coroutine that is polled after its end, each with its source location: the first if it can
/// end, the second if it can panic.
const COROUTINE_MESSAGES: [&[u8]; 2] = [b"`async fn` resumed after completion", b"`async fn` resumed after panicking"];

/// A file and a line.
pub(super) type SourceLocation = (String, u32);

/// The result of the search.
pub(super) struct Shapes {
    /// Task types.
    pub(super) tasks: Vec<Shape>,
    /// `wake_by_val` and `wake_by_ref`, and the code of each.
    pub(super) wakes: Vec<(u64, Vec<u8>)>,
}

/// A task type.
#[derive(Debug)]
pub(super) struct Shape {
    /// Its poll function.
    pub(super) poll: u64,
    /// Its kind of work.
    pub(super) kind: TaskKind,
    /// Its scheduler, if its code shows it.
    pub(super) scheduler: Option<Scheduler>,
    /// The location of its coroutine, if its code shows it.
    pub(super) place: Option<SourceLocation>,
    /// The function that contains this location: the coroutine's body, or one into which it is inlined.
    pub(super) location_function: Option<u64>,
    /// The location of its coroutine or of one that it awaits, if that is all that its code shows.
    pub(super) near: Option<SourceLocation>,
}

/// Finds tokio in a binary as it runs. `None` if there is no task type.
pub(super) fn find(binary: &Binary, image: &Image) -> Option<Shapes> {
    let mut search = Search::new(binary, image)?;
    let vtables: Vec<Vtable> = image.addresses().filter_map(|at| search.vtable(at)).collect();
    // Functions that the linker has folded count as one type.
    let vtables: BTreeMap<u64, Vtable> = vtables.into_iter().map(|v| (v.poll(), v)).collect();
    if vtables.is_empty() {
        return None;
    }
    let tasks = vtables.values().map(|vtable| search.shape(vtable)).collect();
    Some(Shapes { tasks, wakes: search.wakes(vtables.keys().copied()) })
}

/// Reads the shapes of task types from a binary's code.
pub(super) struct Search<'a> {
    code: Code<'a>,
    binary: &'a Binary,
    image: &'a Image,
    /// Addresses of the messages that only a worker's loop, and coroutines, contain.
    worker_messages: BTreeSet<u64>,
    coroutine_messages: [BTreeSet<u64>; 2],
    /// The scheduler of each `schedule` function.
    schedulers: BTreeMap<u64, Option<Scheduler>>,
}

/// The coroutine locations in a function.
enum Locations {
    Nothing,
    /// That of the outermost coroutine.
    Place(SourceLocation),
    /// Several candidates for the outermost.
    Unclear,
}

impl<'a> Search<'a> {
    /// `None` if the binary has no table of its functions.
    pub(super) fn new(binary: &'a Binary, image: &'a Image) -> Option<Self> {
        let code = Code::read(binary, image)?;
        let (worker_messages, coroutine_messages) = (BTreeSet::new(), Default::default());
        let mut search =
            Search { code, binary, image, worker_messages, coroutine_messages, schedulers: BTreeMap::new() };
        search.worker_messages = search.texts(WORKER_MESSAGE);
        search.coroutine_messages = COROUTINE_MESSAGES.map(|text| search.texts(text));
        Some(search)
    }

    /// The shape of the type with this vtable.
    pub(super) fn shape(&mut self, vtable: &Vtable) -> Shape {
        let poll = vtable.poll();
        if !vtable.is_task() {
            let Search { code, worker_messages, .. } = self;
            let is_worker = code.any(poll, FAR, |body| !body.data.is_disjoint(worker_messages));
            let kind = if is_worker { TaskKind::Worker } else { TaskKind::Blocking };
            let scheduler = Some(Scheduler::Blocking);
            return Shape { poll, kind, scheduler, place: None, location_function: None, near: None };
        }
        let schedule = vtable.schedule();
        let scheduler = match self.schedulers.get(&schedule) {
            Some(&known) => known,
            None => self.scheduler(schedule),
        };
        self.schedulers.insert(schedule, scheduler);
        let found = self.coroutine(poll);
        // In a program that aborts on panics, a coroutine that never ends has no location: the nearest may be that of one
        // which it awaits.
        let (found, near) = match &self.coroutine_messages {
            [_, panicked] if panicked.is_empty() => (None, found.map(|(near, _)| near)),
            _ => (found, None),
        };
        let (place, location_function) = found.unzip();
        Shape { poll, kind: TaskKind::Task, scheduler, place, location_function, near }
    }

    /// The vtable at an address, if there is one.
    fn vtable(&mut self, at: u64) -> Option<Vtable> {
        let vtable = Vtable::read(self.binary, self.image, at)?;
        let [poll, _, dealloc, try_read_output, drop_join_handle, drop_abort_handle, shutdown] = vtable.functions;
        // They differ, so even a linker that folds equal functions keeps them apart.
        let is_own = ![dealloc, try_read_output, drop_join_handle, drop_abort_handle, shutdown].contains(&poll);
        (is_own
            && vtable.functions.iter().all(|&f| self.code.begins(f))
            && self.code.any(poll, WIDE, |body| body.compares_and_swaps)
            && self.code.any(shutdown, WIDE, |body| body.compares_and_swaps)
            && self.code.any(drop_abort_handle, WIDE, |body| counts_references(body)))
        .then_some(vtable)
    }

    /// `wake_by_val` and `wake_by_ref`, by the table with which the poll functions make their wakers. Empty if it is
    /// ambiguous.
    fn wakes(&mut self, polls: impl Iterator<Item = u64>) -> Vec<(u64, Vec<u8>)> {
        let mut tables = BTreeSet::new();
        for poll in polls {
            tables.extend(self.code.reach(poll, NEARBY).iter().flat_map(|body| body.data.iter().copied()));
        }
        let wakers: Vec<[u64; 2]> = tables.into_iter().filter_map(|at| self.waker(at)).collect();
        match wakers[..] {
            [wakes] => wakes.into_iter().map(|f| (f, self.code.bytes(f).to_vec())).collect(),
            _ => Vec::new(),
        }
    }

    /// `wake_by_val` and `wake_by_ref` of the waker's table at an address, if it is tokio's for tasks
    /// (tokio/src/runtime/task/waker.rs): its `clone` adds a reference and returns a waker with the same table.
    fn waker(&mut self, at: u64) -> Option<[u64; 2]> {
        let [clone, by_val, by_ref, drop] = self.functions::<4>(at)?;
        (self.code.any(clone, NEARBY, |body| body.data.contains(&at))
            && self.code.any(clone, NEARBY, |body| counts_references(body))
            && self.code.any(drop, NEARBY, |body| counts_references(body))
            && self.code.any(by_val, NEARBY, |body| body.compares_and_swaps)
            && self.code.any(by_ref, NEARBY, |body| body.compares_and_swaps))
        .then_some([by_val, by_ref])
    }

    /// The scheduler of a `schedule` function, by the source file in its panics.
    fn scheduler(&mut self, schedule: u64) -> Option<Scheduler> {
        const FILES: [(&str, Scheduler); 3] = [
            ("/runtime/scheduler/multi_thread/", Scheduler::MultiThread),
            ("/runtime/scheduler/current_thread/", Scheduler::CurrentThread),
            ("/task/local.rs", Scheduler::Local),
        ];
        self.code.reach(schedule, NEARBY).iter().find_map(|body| {
            let files: Vec<String> = body.data.iter().filter_map(|&at| Some(self.location(at)?.0)).collect();
            FILES.iter().find(|(part, _)| files.iter().any(|file| file.contains(part))).map(|&(_, name)| name)
        })
    }

    /// The location of the coroutine that a poll function polls, by the nearest function that contains one, and that
    /// function. `None` if several are equally near with different locations, as the outermost is then unknown.
    fn coroutine(&mut self, poll: u64) -> Option<(SourceLocation, u64)> {
        let (mut seen, mut queue) = (BTreeSet::from([poll]), VecDeque::from([(poll, 0)]));
        let mut nearest: Option<(u32, SourceLocation, u64)> = None;
        while let Some((function, distance)) = queue.pop_front() {
            if nearest.as_ref().is_some_and(|(nearest, ..)| distance > *nearest) {
                break;
            }
            match (self.locations(function), &nearest) {
                (Locations::Nothing, _) => {}
                (Locations::Unclear, _) => return None,
                (Locations::Place(place), Some((_, other, _))) if place != *other => return None,
                (Locations::Place(place), _) => nearest = Some((distance, place, function)),
            }
            for &next in &self.code.body(function).functions {
                if seen.len() < NEARBY && seen.insert(next) {
                    queue.push_back((next, distance + 1));
                }
            }
        }
        nearest.map(|(_, place, function)| (place, function))
    }

    /// The location of the outermost coroutine in a function. Coroutines inlined into it come later in the code if they
    /// can end. (True of all 130 examples and fixtures whose debug information shows it.) If one cannot end, the
    /// outermost is unknown.
    fn locations(&mut self, function: u64) -> Locations {
        let (mut ends, mut panics) = (Vec::new(), BTreeSet::new());
        for &(panic, argument) in &self.code.body(function).calls {
            let Some(place) = argument.and_then(|at| self.location(at)) else { continue };
            let locations = &self.code.body(panic).data;
            let [ended, panicked] = &self.coroutine_messages;
            if !locations.is_disjoint(ended) {
                ends.push(place);
            } else if !locations.is_disjoint(panicked) {
                panics.insert(place);
            }
        }
        let mut endless = panics.into_iter().filter(|place| !ends.contains(place));
        match (ends.first(), endless.next(), endless.next()) {
            (None, None, _) => Locations::Nothing,
            (Some(place), None, _) => Locations::Place(place.clone()),
            (None, Some(place), None) => Locations::Place(place),
            _ => Locations::Unclear,
        }
    }

    /// The location of the outermost coroutine in a function, if certain.
    pub(super) fn place_in(&mut self, function: u64) -> Option<SourceLocation> {
        match self.locations(function) {
            Locations::Place(place) => Some(place),
            Locations::Nothing | Locations::Unclear => None,
        }
    }

    /// The `N` functions in the table at an address.
    fn functions<const N: usize>(&self, at: u64) -> Option<[u64; N]> {
        let mut functions = [0; N];
        for (place, function) in (at..).step_by(8).zip(&mut functions) {
            *function = self.image.pointer(place).filter(|&f| self.code.begins(f))?;
        }
        Some(functions)
    }

    /// Addresses of a text and, as older compilers use them, of pointers to it.
    fn texts(&self, text: &[u8]) -> BTreeSet<u64> {
        let texts = self.binary.find(text);
        if texts.is_empty() {
            return BTreeSet::new();
        }
        let pointers = self.image.addresses().filter(|&at| self.image.pointer(at).is_some_and(|p| texts.contains(&p)));
        pointers.chain(texts.iter().copied()).collect()
    }

    /// File and line of the `core::panic::Location` at an address, if there is one.
    fn location(&self, at: u64) -> Option<(String, u32)> {
        let word = |n: u64| self.image.word(at.checked_add(n * 8)?);
        let (file, length, place) = (self.image.pointer(at)?, word(1)?, word(2)?);
        if !(4..=1024).contains(&length) {
            return None;
        }
        let file = std::str::from_utf8(self.binary.bytes(file, length)?).ok().filter(|f| f.ends_with(".rs"))?;
        Some((file.into(), u32::try_from(place & u64::from(u32::MAX)).ok()?))
    }
}

/// Whether a function changes a task's reference count: one reference is 64 (tokio/src/runtime/task/state.rs,
/// `REF_ONE`).
fn counts_references(body: &Body) -> bool {
    body.adds && body.has_64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    use crate::inspect::{Process, task_vtable::FUNCTIONS};

    fn this_process() -> (Binary, Image, u64) {
        let myself = Process { pid: std::process::id(), exe: std::env::current_exe().unwrap(), library: None };
        let binary = Binary::read(&File::open(myself.exe_path()).unwrap()).unwrap();
        let own = myself.mappings().unwrap().into_iter().filter(|m| m.path == myself.exe.to_string_lossy());
        let load_bias = binary.load_bias(&own.map(|m| (m.start, m.offset)).collect::<Vec<_>>()).unwrap();
        let image = Image::of_memory(&binary, &File::open("/proc/self/mem").unwrap(), load_bias);
        (binary, image, load_bias)
    }

    /// Thousands of function tables, Rust's and C's, and none of tokio's.
    #[test]
    fn a_program_without_tokio_has_nothing_of_its_shape() {
        let (binary, image, _) = this_process();
        let mut search = Search::new(&binary, &image).unwrap();
        let tables = image.addresses().filter(|&at| search.functions::<FUNCTIONS>(at).is_some()).count();
        assert!(tables > 100, "only {tables} tables of {FUNCTIONS} functions were looked at");
        let first = image.addresses().find_map(|at| search.vtable(at)).map(|v| v.poll());
        assert_eq!(first, None);
        assert!(find(&binary, &image).is_none());
    }

    #[test]
    fn texts_and_places_are_found_in_the_running_program() {
        let (binary, image, load_bias) = this_process();
        let search = Search::new(&binary, &image).unwrap();
        let here = std::panic::Location::caller();
        let at = (std::ptr::from_ref(here) as u64).wrapping_sub(load_bias);
        assert_eq!(search.location(at), Some((here.file().to_owned(), here.line())));
        assert_eq!(search.location(at + 8), None);
        let function = (find as fn(&Binary, &Image) -> Option<Shapes>) as usize as u64;
        assert!(search.code.begins(function.wrapping_sub(load_bias)));
        assert!(!search.code.begins(function.wrapping_sub(load_bias) + 1));
    }
}
