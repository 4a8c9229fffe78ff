//! Task types of a binary without debug information, by its symbols.
//!
//! With legacy mangling the symbol of `raw::poll` does not contain `T`. Two other symbols do: that of the body that the
//! poll function calls (`app::handler::{{closure}}`, unless inlined), and `drop_in_place::<Cell<T, S>>`, the drop glue
//! called by the third entry of the vtable, `dealloc` (tokio/src/runtime/task/raw.rs, `struct Vtable`).
//!
//! LLVM merges functions with equal code and keeps one symbol, so the glue of one type may serve others under its own
//! name, even if that type never runs. A coroutine's body contains its source location ([`super::stripped`]), so no two
//! of them are equal, and the location decides: a symbol names a type if its function contains the location; glue does
//! if nothing contradicts it. Otherwise only the location is known.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    binary::Binary,
    demangle,
    image::Image,
    stripped::{Search, Shape, SourceLocation},
    task_type::{Scheduler, TaskKind, kind},
    task_vtable::Vtable,
};

/// Depth to which a poll function's calls are followed: `raw::poll` → `Harness::poll` → `poll_future` → `T::poll`.
const MAX_CALLS: usize = 4;
/// Bytes of one function that are searched for calls.
const MAX_CODE: u64 = 64 << 10;

/// The type of one poll function, as far as its code shows it.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// `T, S`, or `T` alone, of the types that it may belong to. Empty if none is certain.
    pub(super) arguments: Vec<String>,
    /// The shape of its code; `None` if its vtable was not found.
    pub(super) shape: Option<Shape>,
}

/// Finds the types of poll functions (addresses in the file).
pub(super) fn types(binary: &Binary, image: &Image, polls: &BTreeSet<u64>) -> HashMap<u64, Found> {
    let glue = Glue::read(binary);
    let mut search = Search::new(binary, image);
    let evidence = vtables(binary, image, polls).into_iter().map(|(poll, vtables)| {
        let shape = search.as_mut().zip(vtables.first()).map(|(search, vtable)| search.shape(vtable));
        let location_function = shape.as_ref().and_then(|shape| glue.bodies.get(&shape.location_function?));
        let deallocs: BTreeSet<u64> = vtables.iter().map(Vtable::dealloc).collect();
        let drops = deallocs.into_iter().flat_map(|dealloc| calls(binary, &glue.functions, dealloc));
        Evidence {
            poll,
            drops: drops.filter(|c| glue.drops.contains_key(c)).collect(),
            bodies: bodies_called(binary, &glue, poll),
            location_function: location_function.cloned().unwrap_or_default(),
            shape,
        }
    });
    let evidence: Vec<Evidence> = evidence.collect();
    let dropped = evidence.iter().flat_map(|e| &e.drops).filter_map(|drop| glue.drops.get(drop)).flatten();
    let dropped: BTreeSet<&str> = dropped.map(|arguments| future(arguments)).collect();
    let mut written: HashMap<&str, BTreeSet<Option<SourceLocation>>> = HashMap::new();
    for (&address, names) in &glue.bodies {
        for name in names.iter().filter(|name| dropped.contains(name.as_str())) {
            let place = search.as_mut().and_then(|search| search.place_in(address));
            written.entry(name).or_default().insert(place);
        }
    }
    let named = settle(&evidence, &glue.drops, &written, &glue.own);
    let found = evidence.into_iter().zip(named);
    found.map(|(e, arguments)| (e.poll, Found { arguments, shape: e.shape })).collect()
}

/// The evidence for one poll function's type.
#[derive(Debug, Default)]
struct Evidence {
    poll: u64,
    /// Drop glue that its vtables lead to.
    drops: BTreeSet<u64>,
    /// Coroutine bodies that it calls.
    bodies: BTreeSet<String>,
    /// Symbols of the function that contains the coroutine's location, if they are a body's.
    location_function: BTreeSet<String>,
    shape: Option<Shape>,
}

impl Evidence {
    fn place(&self) -> Option<&SourceLocation> {
        self.shape.as_ref()?.place.as_ref()
    }

    fn scheduler(&self) -> Option<Scheduler> {
        self.shape.as_ref()?.scheduler
    }

    /// Whether its kind of work allows a type. For a worker's loop the name suffices.
    fn may_be(&self, future: &str) -> bool {
        let (found_kind, kind) = (self.shape.as_ref().map(|shape| shape.kind), kind(future));
        found_kind
            .is_none_or(|found_kind| found_kind == kind || (found_kind, kind) == (TaskKind::Blocking, TaskKind::Worker))
    }
}

/// The types that each poll function may belong to, empty if not certain. `drops` has the arguments of each drop glue,
/// `written` the locations of bodies with a symbol, and `own` the crates with a `main`.
fn settle(
    evidence: &[Evidence],
    drops: &HashMap<u64, BTreeSet<String>>,
    written: &HashMap<&str, BTreeSet<Option<SourceLocation>>>,
    own: &BTreeSet<String>,
) -> Vec<Vec<String>> {
    let one = |e: &Evidence| -> Vec<String> {
        let dropped = e.drops.iter().filter_map(|drop| drops.get(drop)).flatten();
        let dropped: BTreeSet<&String> = dropped.filter(|arguments| e.may_be(future(arguments))).collect();
        let those = |is: &dyn Fn(&str) -> bool| -> Vec<String> {
            dropped.iter().filter(|arguments| is(future(arguments))).map(ToString::to_string).collect()
        };
        let sharers = || evidence.iter().filter(|other| !other.drops.is_disjoint(&e.drops));
        let Some(place) = e.place() else {
            // Only symbols. A function that calls a body and drops a type of the same name belongs to that type.
            let agreed = those(&|future| coroutines(future).any(|coroutine| e.bodies.contains(coroutine)));
            if !agreed.is_empty() {
                return agreed;
            }
            // Glue alone names a type if no other type has it (the same future on another kind of scheduler may), and
            // if no other body is called, which may be that of the type.
            let mut schedulers: Vec<_> = sharers().map(Evidence::scheduler).collect();
            let count = schedulers.len();
            schedulers.dedup();
            let is_alone = count == 1 || count == 2 && schedulers.len() == 2 && !schedulers.contains(&None);
            let is_inside = |body: &String, future: &str| {
                coroutines(future).any(|c| body.strip_prefix(c).is_some_and(|rest| rest.starts_with("::")))
            };
            return those(&|future| is_alone && e.bodies.iter().all(|body| is_inside(body, future)));
        };
        // The body itself has a symbol: it is the coroutine's, unless the coroutine is inlined into a closure.
        let mut location_functions = e.location_function.iter();
        if let (Some(body), None) = (location_functions.next(), location_functions.next()) {
            if !is_of(body, &place.0, own) {
                return Vec::new();
            }
            let agreed = those(&|future| future == body);
            return if agreed.is_empty() { vec![body.clone()] } else { agreed };
        }
        // The body is inlined. A body that is called belongs to another coroutine, which this one awaits.
        let futures: BTreeSet<&str> = dropped.iter().map(|arguments| future(arguments)).collect();
        let mut futures = futures.into_iter();
        if let (Some(only), None, true) = (futures.next(), futures.next(), e.location_function.is_empty())
            && !e.bodies.contains(only)
            && sharers().all(|other| other.place() == Some(place))
            && written.get(only).is_none_or(|places| places.iter().all(|p| p.as_ref() == Some(place)))
            && coroutines(only).any(|coroutine| is_of(coroutine, &place.0, own))
        {
            return those(&|_| true);
        }
        Vec::new()
    };
    evidence.iter().map(one).collect()
}

/// `T` of `T, S`.
fn future(arguments: &str) -> &str {
    demangle::split_arguments(arguments).first().copied().unwrap_or_default()
}

/// The paths of coroutines or closures in a type: itself, and those in its arguments.
fn coroutines(future: &str) -> impl Iterator<Item = &str> {
    let itself = future.ends_with("{{closure}}").then_some(future);
    itself
        .into_iter()
        .chain(future.split(['<', '>', ',', '(', ')']).map(str::trim).filter(|p| p.ends_with("{{closure}}")))
}

/// Whether a path can belong to a source file, by the names that cargo and rustc give to folders and files. False if
/// they do not show it, or if modules lie elsewhere (`#[path]`).
fn is_of(path: &str, file: &str, own: &BTreeSet<String>) -> bool {
    let path = path.split('<').next().unwrap_or_default();
    let mut parts = path.split("::").filter(|part| !part.starts_with('{'));
    let Some(krate) = parts.next() else { return false };
    let (folder, inside) = match file.rsplit_once("/src/") {
        Some((before, inside)) => (before.rsplit('/').next(), inside),
        None => (None, file.strip_prefix("src/").unwrap_or_else(|| file.rsplit('/').next().unwrap_or(file))),
    };
    let inside = inside.strip_suffix(".rs").unwrap_or(inside);
    let mut modules: Vec<&str> = inside.split('/').collect();
    if modules.last() == Some(&"mod") {
        modules.pop();
    }
    if let ["bin", rest @ ..] = modules.as_slice() {
        modules = rest.to_vec();
    }
    // The crate's root: `src/main.rs`, `src/lib.rs`, `src/bin/tool.rs`, `examples/tool.rs`.
    if let [root] = modules.as_slice()
        && (["main", "lib"].contains(root) || root.replace('-', "_") == krate)
    {
        modules.clear();
    }
    let is_dependency =
        ["/registry/src/", "/git/checkouts/", "/vendor/", "/rustc/"].iter().any(|mark| file.contains(mark));
    let folder = folder.map(|folder| {
        let version =
            folder.match_indices('-').find(|(at, _)| folder[at + 1..].starts_with(|c: char| c.is_ascii_digit()));
        folder[..version.filter(|_| is_dependency).map_or(folder.len(), |(at, _)| at)].replace('-', "_")
    });
    let is_crate = folder.as_deref() == Some(krate) || !is_dependency && own.contains(krate);
    (is_crate || !is_dependency && !modules.is_empty()) && modules.iter().all(|module| parts.next() == Some(*module))
}

/// Relevant symbols of a binary.
#[derive(Default)]
struct Glue {
    /// Size of each function, by address.
    functions: BTreeMap<u64, u64>,
    /// `T, S` (or `T`) by the address of its drop glue.
    drops: HashMap<u64, BTreeSet<String>>,
    /// Demangled names of coroutine bodies, by address: of merged functions, all that remain.
    bodies: HashMap<u64, BTreeSet<String>>,
    /// Crates with `main`.
    own: BTreeSet<String>,
}

impl Glue {
    fn read(binary: &Binary) -> Self {
        let mut glue = Glue::default();
        for symbol in binary.symbols(|_| true) {
            if symbol.size == 0 {
                continue;
            }
            glue.functions.insert(symbol.address, symbol.size);
            if symbol.name.contains("drop_in_place") && symbol.name.contains("runtime..task..core..") {
                if let Some(arguments) = dropped(&demangled(&symbol.name)) {
                    glue.drops.entry(symbol.address).or_default().insert(arguments);
                }
            } else if symbol.name.contains("closure") {
                let body = demangled(&symbol.name);
                // The runtime's own closures are between the poll function and every future.
                if body.ends_with("{{closure}}")
                    && !["tokio::", "std::", "core::", "<"].iter().any(|p| body.starts_with(p))
                {
                    glue.bodies.entry(symbol.address).or_default().insert(body);
                }
            } else if let Some(own) = demangle::crate_with_main(&symbol.name) {
                glue.own.insert(own);
            }
        }
        glue
    }
}

fn demangled(symbol: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(symbol))
}

/// `T, S` of `…::drop_in_place<…Cell<T,S>>`, or `T` of `…Stage<T>`.
fn dropped(glue: &str) -> Option<String> {
    let start = ["::Cell<", "::CoreStage<", "::Stage<"].iter().find_map(|p| Some(glue.find(p)? + p.len()))?;
    let inside = glue.get(start..)?;
    let (mut depth, mut previous) = (1, ' ');
    for (end, c) in inside.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if previous != '-' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(inside[..end].to_string());
        }
        previous = c;
    }
    None
}

/// The vtables of each poll function in the image: several if functions of several types were merged.
fn vtables(binary: &Binary, image: &Image, polls: &BTreeSet<u64>) -> BTreeMap<u64, Vec<Vtable>> {
    let mut found: BTreeMap<u64, Vec<Vtable>> = BTreeMap::new();
    for at in image.addresses() {
        if image.pointer(at).is_some_and(|p| polls.contains(&p))
            && let Some(vtable) = Vtable::read(binary, image, at)
        {
            found.entry(vtable.poll()).or_default().push(vtable);
        }
    }
    found
}

/// The functions that a function calls or jumps to, by every `call rel32` (E8) and `jmp rel32` (E9) to a function's
/// start.
fn calls(binary: &Binary, functions: &BTreeMap<u64, u64>, address: u64) -> Vec<u64> {
    let size = functions.get(&address).copied().unwrap_or(0).min(MAX_CODE);
    let code = binary.bytes(address, size).unwrap_or_default();
    let mut targets = Vec::new();
    for (at, window) in (0u64..).zip(code.windows(5)) {
        if let [0xe8 | 0xe9, rel @ ..] = window
            && let Ok(rel) = <[u8; 4]>::try_from(rel)
        {
            let next = address.wrapping_add(at + 5);
            let target = next.wrapping_add_signed(i64::from(i32::from_le_bytes(rel)));
            if functions.contains_key(&target) {
                targets.push(target);
            }
        }
    }
    targets
}

/// The coroutine bodies that a poll function calls, directly or through tokio's harness.
fn bodies_called(binary: &Binary, glue: &Glue, poll: u64) -> BTreeSet<String> {
    let (mut level, mut seen, mut bodies) = (vec![poll], BTreeSet::from([poll]), BTreeSet::new());
    for _ in 0..MAX_CALLS {
        let mut next = Vec::new();
        for function in level {
            for target in calls(binary, &glue.functions, function) {
                if !seen.insert(target) {
                    continue;
                }
                match glue.bodies.get(&target) {
                    Some(body) => bodies.extend(body.iter().cloned()),
                    None => next.push(target),
                }
            }
        }
        level = next;
    }
    bodies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_task_from_drop_glue() {
        for (glue, arguments) in [
            (
                "core::ptr::drop_in_place<tokio::runtime::task::core::Cell<app::f::{{closure}},alloc::sync::Arc<H>>>",
                Some("app::f::{{closure}},alloc::sync::Arc<H>"),
            ),
            (
                "core::ptr::drop_in_place<tokio::runtime::task::core::CoreStage<app::f::{{closure}}>>",
                Some("app::f::{{closure}}"),
            ),
            ("core::ptr::drop_in_place<alloc::string::String>", None),
            ("core::ptr::drop_in_place<tokio::runtime::task::core::Cell<cut", None),
        ] {
            assert_eq!(dropped(glue).as_deref(), arguments);
        }
    }

    const MULTI: &str = "alloc::sync::Arc<tokio::runtime::scheduler::multi_thread::handle::Handle>";

    /// A poll function of a future declared at a line of `src/jobs.rs`, or of blocking work if there is none.
    fn evidence(poll: u64, line: Option<u32>, drops: &[u64], bodies: &[&str], location_function: &[&str]) -> Evidence {
        let set = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let kind = if line.is_some() { TaskKind::Task } else { TaskKind::Blocking };
        let scheduler = Some(if line.is_some() { Scheduler::MultiThread } else { Scheduler::Blocking });
        let place = line.map(|line| ("src/jobs.rs".to_string(), line));
        let shape =
            Some(Shape { poll, kind, scheduler, location_function: place.as_ref().map(|_| poll), place, near: None });
        Evidence {
            poll,
            drops: drops.iter().copied().collect(),
            bodies: set(bodies),
            location_function: set(location_function),
            shape,
        }
    }

    /// The result of `settle` if glue 1, 2, … drops these types.
    fn settled(evidence: &[Evidence], drops: &[&[&str]], written: &[(&str, u32)]) -> Vec<String> {
        let types = |types: &&[&str]| types.iter().map(|t| format!("{t},{MULTI}")).collect();
        let drops = (1..).zip(drops.iter().map(types)).collect();
        let place = |line| BTreeSet::from([Some(("src/jobs.rs".to_string(), line))]);
        let written = written.iter().map(|&(name, line)| (name, place(line))).collect();
        let named = settle(evidence, &drops, &written, &BTreeSet::from(["app".to_string()]));
        let futures = |types: Vec<String>| types.iter().map(|t| future(t).to_string()).collect::<Vec<_>>().join("|");
        named.into_iter().map(futures).collect()
    }

    const HASH: &str = "app::jobs::healthy_hash_file::{{closure}}";
    const RENDER: &str = "app::jobs::render_thumbnail::{{closure}}";

    /// `render_thumbnail` was shown as `healthy_hash_file`: both bodies are inlined, and the glue of one drops both.
    #[test]
    fn merged_glue_names_no_type() {
        let both = [evidence(10, Some(4), &[1], &[], &[]), evidence(20, Some(9), &[1], &[], &[])];
        assert_eq!(settled(&both, &[&[HASH]], &[]), ["", ""]);
        // All symbols remain, at one address.
        assert_eq!(settled(&both, &[&[HASH, RENDER]], &[]), ["", ""]);
        // One poll function remains, or its glue is not shared and has two symbols.
        assert_eq!(settled(&both[..1], &[&[HASH, RENDER]], &[]), [""]);
        // The same with blocking work, which has no location.
        let closures = ["BlockingTask<app::hash::{{closure}}>", "BlockingTask<app::render::{{closure}}>"]
            .map(|t| format!("tokio::runtime::blocking::task::{t}"));
        let both = [evidence(10, None, &[1], &[], &[]), evidence(20, None, &[1], &[], &[])];
        assert_eq!(settled(&both, &[&[&closures[0]]], &[]), ["", ""]);
    }

    #[test]
    fn a_body_with_its_location_names_the_type() {
        // Independent of the glue's name.
        let both = [evidence(10, Some(4), &[1], &[HASH], &[HASH]), evidence(20, Some(9), &[1], &[RENDER], &[RENDER])];
        assert_eq!(settled(&both, &[&[HASH]], &[]), [HASH, RENDER]);
        // A coroutine that is inlined into a library's closure.
        let closure = "futures::poll_fn::{{closure}}";
        assert_eq!(settled(&[evidence(10, Some(4), &[], &[closure], &[closure])], &[], &[]), [""]);
        // Two symbols of one function.
        assert_eq!(settled(&[evidence(10, Some(4), &[], &[HASH], &[HASH, RENDER])], &[], &[]), [""]);
    }

    #[test]
    fn glue_names_a_type_that_nothing_contradicts() {
        let one = [evidence(10, Some(4), &[1], &[], &[])];
        assert_eq!(settled(&one, &[&[HASH]], &[]), [HASH]);
        // The same coroutine on another kind of scheduler.
        let two = [evidence(10, Some(4), &[1], &[], &[]), evidence(20, Some(4), &[1], &[], &[])];
        assert_eq!(settled(&two, &[&[HASH]], &[]), [HASH, HASH]);
        // The body of that name is declared elsewhere, or is called: it belongs to another coroutine, which this one
        // awaits.
        assert_eq!(settled(&one, &[&[HASH]], &[(HASH, 4)]), [HASH]);
        assert_eq!(settled(&one, &[&[HASH]], &[(HASH, 5)]), [""]);
        assert_eq!(settled(&[evidence(10, Some(4), &[1], &[HASH], &[])], &[&[HASH]], &[]), [""]);
        // A type of another module.
        assert_eq!(settled(&one, &[&["app::mail::send::{{closure}}"]], &[]), [""]);
        assert_eq!(settled(&one, &[&["app::Fut"]], &[]), [""]);
        // A type around a coroutine of the module.
        let around = "tracing::Instrumented<app::jobs::f::{{closure}}>";
        assert_eq!(settled(&one, &[&[around]], &[]), [around]);
        // Blocking work is not a future.
        assert_eq!(settled(&[evidence(10, None, &[1], &[], &[])], &[&[HASH]], &[]), [""]);
    }

    #[test]
    fn blocking_work_is_named_by_consistent_symbols() {
        let task = "tokio::runtime::blocking::task::BlockingTask<app::hash::{{closure}}>";
        let named = |bodies: &[&str]| settled(&[evidence(10, None, &[1], bodies, &[])], &[&[task]], &[]).remove(0);
        assert_eq!(named(&[]), task);
        assert_eq!(named(&["app::hash::{{closure}}"]), task);
        assert_eq!(named(&["app::hash::{{closure}}::{{closure}}"]), task);
        // It may be the work itself, and the glue another type's.
        assert_eq!(named(&["app::render::{{closure}}"]), "");
    }

    #[test]
    fn matches_files_and_paths() {
        let own = BTreeSet::from(["app".to_string(), "twins".to_string()]);
        let registry = "/root/.cargo/registry/src/index-19/hyper-util-0.1.2/src/server.rs";
        for (path, file, is) in [
            ("app::f::{{closure}}", "src/main.rs", true),
            ("app::Type::f::{{closure}}", "/srv/app/src/lib.rs", true),
            ("app::jobs::f::{{closure}}", "src/jobs.rs", true),
            ("app::jobs::f::{{closure}}", "src/jobs/mod.rs", true),
            ("app::f::{{closure}}", "src/jobs.rs", false),
            ("app::mail::jobs::{{closure}}", "src/jobs.rs", false),
            // The owner of `src/main.rs` is known only for a crate with a `main`.
            ("lib::f::{{closure}}", "src/main.rs", false),
            ("my_lib::f::{{closure}}", "crates/my-lib/src/lib.rs", true),
            ("lib::jobs::f::{{closure}}", "crates/core/src/jobs.rs", true),
            ("twins::f::{{closure}}", "src/bin/twins.rs", true),
            ("twins::f::{{closure}}", "hud-record/examples/twins.rs", true),
            ("hyper_util::server::f::{{closure}}", registry, true),
            ("app::server::f::{{closure}}", registry, false),
            ("<app::Foo as app::Run>::run::{{closure}}", "src/main.rs", false),
            ("", "src/main.rs", false),
            ("::{{closure}}", "src/jobs.rs", false),
        ] {
            assert_eq!(is_of(path, file, &own), is, "{path} in {file}");
        }
    }
}
