//! Full paths of functions for which debug information has bare names only.
//!
//! With `debug = "line-tables-only"` rustc (1.95) writes neither namespaces nor linkage names: a function is `select`,
//! a coroutine's body `{async_fn#0}`, followed by generic arguments with full paths. The symbol table names functions
//! that are not inlined. For inlined ones the path is composed of certain facts, in this order:
//!
//! 1. A copy of the function in the same unit that is not inlined has a symbol.
//! 2. A closure or coroutine that a generic function calls is usually one of that function's arguments:
//!    `poll<app::price_feed::{async_fn_env#0}, …>` calls `{async_fn#0}`, which is `app::price_feed::{closure}`.
//! 3. The source file gives crate and module. Types, and modules inside the file, are then missing from the path:
//!    `mio::poll::poll` for `mio::poll::Poll::poll`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use gimli::{AttributeValue, DebugInfoOffset, DebuggingInformationEntry, UnitOffset, UnitRef};

use crate::inspect::FunctionName;

type Slice = gimli::EndianSlice<'static, gimli::LittleEndian>;

/// Crate roots, and paths of one unit, that are kept: real programs have hundreds and thousands.
const MOST: usize = 100_000;
/// Depth of DIEs that is followed: inlining reaches about 40.
const MAX_DEPTH: isize = 512;

/// The crates that a binary is made of, by the folders of their sources.
#[derive(Debug, Default)]
pub(super) struct Crates {
    /// By the crate's root source file.
    roots: BTreeMap<String, BTreeSet<String>>,
    /// By the folder of that file.
    folders: BTreeMap<String, BTreeSet<String>>,
}

impl Crates {
    /// Adds a unit: its name, as rustc makes it (`src/main.rs/@/app.1a2b3c4d-cgu.0`), and its folder. Units of an
    /// incremental build do not name their crate.
    pub(super) fn add(&mut self, unit: &str, folder: &str) {
        let Some((root, codegen_unit)) = unit.split_once("/@/") else { return };
        let Some((krate, _)) = codegen_unit.split_once('.') else { return };
        let root = if root.starts_with('/') { root.to_string() } else { format!("{folder}/{root}") };
        let is_name = !krate.is_empty() && krate.chars().all(|c| c.is_alphanumeric() || c == '_');
        if let Some((folder, _)) = root.rsplit_once('/')
            && is_name
            && self.roots.len() < MOST
        {
            self.folders.entry(folder.into()).or_default().insert(krate.into());
            self.roots.entry(root).or_default().insert(krate.into());
        }
    }

    /// The path of the module in a source file.
    pub(super) fn module(&self, file: &str) -> Option<String> {
        if let Some(crates) = self.roots.get(file) {
            return only(crates).cloned();
        }
        // A crate of its own that `core` includes as a module.
        if let Some((_, inside)) = file.split_once("/stdarch/crates/core_arch/src/") {
            return Some(module("core::core_arch", inside));
        }
        let folders = file.match_indices('/').rev().map(|(at, _)| file.split_at(at));
        for (folder, inside) in folders {
            if let Some(crates) = self.folders.get(folder) {
                return Some(module(only(crates)?, inside.trim_start_matches('/')));
            }
        }
        // None of the crate's own code remains, only code inlined elsewhere.
        let (before, inside) = file.rsplit_once("/src/")?;
        let (parents, folder) = before.rsplit_once('/')?;
        let is_std = parents.ends_with("/library") && (file.contains("/rustc/") || file.contains("/rustlib/src/rust/"));
        let krate = if is_std {
            folder
        } else if parents.contains("/registry/src/") || parents.starts_with("/rust/deps") {
            let version = |(at, _): &(usize, &str)| folder[at + 1..].starts_with(|c: char| c.is_ascii_digit());
            &folder[..folder.match_indices('-').find(version)?.0]
        } else {
            return None;
        };
        Some(module(&krate.replace('-', "_"), inside))
    }
}

fn only<T: Ord>(set: &BTreeSet<T>) -> Option<&T> {
    set.first().filter(|_| set.len() == 1)
}

/// The module in a file, by the path from the folder of the crate's root.
fn module(krate: &str, inside: &str) -> String {
    let inside = inside.strip_suffix(".rs").unwrap_or(inside);
    let inside = inside.strip_suffix("/mod").unwrap_or(inside);
    let mut path = krate.to_string();
    for part in inside.split('/').filter(|part| !["lib", "main"].contains(part) || inside.contains('/')) {
        path.push_str("::");
        path.push_str(&part.replace('-', "_"));
    }
    path
}

/// Whether a name is not mangled.
pub(super) fn is_bare(name: &str) -> bool {
    !name.starts_with("_ZN") && !name.starts_with("_R")
}

/// A name without generic arguments: `f` of `f<A, fn() -> B>`.
fn without_arguments(name: &str) -> String {
    let (mut depth, mut previous, mut out) = (0_usize, ' ', String::with_capacity(name.len()));
    for c in name.chars() {
        match c {
            '<' => depth += 1,
            '>' if previous != '-' => depth = depth.saturating_sub(1),
            _ if depth == 0 => out.push(c),
            _ => {}
        }
        previous = c;
    }
    out
}

/// Whether a demangled symbol is that of the function with this bare name.
pub(super) fn is_symbol_of(symbol: &str, bare: &str) -> bool {
    let (symbol, bare) = (without_arguments(symbol), without_arguments(bare));
    let last = symbol.trim_end_matches(':').rsplit("::").next().unwrap_or_default();
    match bare.strip_prefix('{') {
        Some(made) if made.starts_with("shim") => last.contains("{shim"),
        Some(_) => last.starts_with("{closure"),
        None => last.strip_prefix(bare.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('{')),
    }
}

/// The path of a closure or coroutine, if it is an argument of the generic function that calls it.
fn argument_of(caller: &str, bare: &str) -> Option<String> {
    let (word, rest) = bare.strip_prefix('{')?.split_once('#')?;
    // `{async_fn#0}<T>` is the code of `…::{async_fn_env#0}<T>`.
    let wanted = format!("::{{{word}_env#{rest}");
    let is_path = |c: char| c.is_alphanumeric() || "_:{}#".contains(c);
    let mut found = BTreeSet::new();
    for (at, _) in caller.match_indices(&wanted) {
        let is_whole = caller[at + wanted.len()..].starts_with([',', '>', ' ', ')']);
        let begin = caller[..at].rfind(|c| !is_path(c)).map_or(0, |before| before + 1);
        if is_whole && begin > 0 && begin < at {
            found.insert(caller.get(begin..at + wanted.len())?);
        }
    }
    found.first().filter(|_| found.len() == 1).map(|path| as_symbol(path))
}

/// A path in the form of symbols: `app::{impl#0}::f::{async_fn_env#0}<T>` is `app::f::{closure}`.
fn as_symbol(path: &str) -> String {
    let path = without_arguments(path);
    let parts = path.split("::").filter(|part| !part.starts_with("{impl"));
    let parts: Vec<&str> = parts.map(|part| if part.starts_with('{') { made_up(part) } else { part }).collect();
    parts.join("::")
}

/// A name made by the compiler, as in legacy symbols: without its number, which has no meaning out of context.
fn made_up(part: &str) -> &'static str {
    if part.starts_with("{shim") { "{shim}" } else { "{closure}" }
}

/// Names an inlined function by its bare name, the functions around it and the module of its source file.
pub(super) fn inlined(bare: &str, known: Option<&str>, caller: Option<&str>, module: Option<&str>) -> FunctionName {
    let krate = |path: &str| path.split("::").next().unwrap_or_default().to_string();
    // If the code belongs to another crate than the argument, it is not the argument that is called.
    let argument = caller.and_then(|caller| argument_of(caller, bare));
    let argument = argument.filter(|path| module.is_none_or(|module| krate(module) == krate(path)));
    if let Some(shown) = known.map(str::to_string).or(argument) {
        return FunctionName { crates: vec![krate(&shown)], shown, is_rust: true };
    }
    let base = without_arguments(bare);
    let base = if base.starts_with('{') { made_up(&base) } else { &base };
    // The compiler generates it, at the lines of the dropped value.
    let module = if base == "drop_in_place" { Some("core::ptr") } else { module };
    let shown = module.map_or_else(|| base.to_string(), |module| format!("{module}::{base}"));
    FunctionName { shown, is_rust: true, crates: module.map(krate).into_iter().collect() }
}

/// Certain paths of one unit's functions, by DIE.
pub(super) type Paths = HashMap<DebugInfoOffset, String>;

/// Reads from a unit the functions that are inlined in some places and not in others, or by generic functions. `symbol`
/// gives the demangled symbol at an address.
pub(super) fn paths(unit: UnitRef<'_, Slice>, symbol: impl Fn(u64, &str) -> Option<String>) -> Paths {
    let mut found: HashMap<DebugInfoOffset, BTreeSet<String>> = HashMap::new();
    let mut names: HashMap<DebugInfoOffset, Option<Slice>> = HashMap::new();
    // The name of each open function, by depth.
    let mut open: Vec<(isize, Option<Slice>)> = Vec::new();
    let mut entries = unit.entries();
    while let Ok(Some(entry)) = entries.next_dfs() {
        let depth = entry.depth();
        while open.last().is_some_and(|(outer, _)| *outer >= depth) {
            open.pop();
        }
        let is_inlined = entry.tag() == gimli::DW_TAG_inlined_subroutine;
        if !is_inlined && entry.tag() != gimli::DW_TAG_subprogram || depth > MAX_DEPTH {
            continue;
        }
        let origin = origin(unit, entry);
        let name = match origin {
            Some(origin) => *names.entry(origin).or_insert_with(|| name_at(unit, origin)),
            None => name_of(unit, entry),
        };
        if let (Some(origin), Some(bare)) = (origin, name.and_then(text).filter(|name| is_bare(name)))
            && found.len() < MOST
        {
            let path = if is_inlined {
                open.last().and_then(|(_, caller)| argument_of(text((*caller)?)?, bare))
            } else {
                let address = entry.attr_value(gimli::DW_AT_low_pc).and_then(|value| unit.attr_address(value).ok()?);
                address.and_then(|address| symbol(address, bare))
            };
            if let Some(path) = path {
                found.entry(origin).or_default().insert(path);
            }
        }
        open.push((depth, name));
    }
    // If two sources give two paths, neither is certain.
    found.into_iter().filter_map(|(origin, paths)| Some((origin, only(&paths)?.clone()))).collect()
}

fn text(name: Slice) -> Option<&'static str> {
    std::str::from_utf8(name.slice()).ok()
}

/// The DIE to which an inlined or concrete instance of a function refers.
pub(super) fn origin(unit: UnitRef<'_, Slice>, entry: &DebuggingInformationEntry<Slice>) -> Option<DebugInfoOffset> {
    match entry.attr_value(gimli::DW_AT_abstract_origin)? {
        AttributeValue::UnitRef(offset) => offset.to_debug_info_offset(&unit.header),
        AttributeValue::DebugInfoRef(offset) => Some(offset),
        _ => None,
    }
}

/// The same, for the DIE at an offset.
pub(super) fn origin_at(unit: UnitRef<'_, Slice>, offset: UnitOffset) -> Option<DebugInfoOffset> {
    origin(unit, &unit.entry(offset).ok()?)
}

fn name_of(unit: UnitRef<'_, Slice>, entry: &DebuggingInformationEntry<Slice>) -> Option<Slice> {
    let value = entry.attr_value(gimli::DW_AT_linkage_name).or_else(|| entry.attr_value(gimli::DW_AT_name))?;
    unit.attr_string(value).ok()
}

/// The name of a DIE of this unit.
fn name_at(unit: UnitRef<'_, Slice>, offset: DebugInfoOffset) -> Option<Slice> {
    name_of(unit, &unit.entry(offset.to_unit_offset(&unit.header)?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crates() -> Crates {
        let mut crates = Crates::default();
        for (unit, folder) in [
            ("src/main.rs/@/my_server.1a2b3c-cgu.0", "/srv/my-server"),
            ("crates/core/src/lib.rs/@/my_core.4d5e-cgu.3", "/srv/my-server"),
            ("/root/.cargo/registry/src/index-19/md-5-0.10.6/src/lib.rs/@/md5.77-cgu.0", "/root/.cargo/registry"),
            ("examples/one.rs/@/one.1-cgu.0", "/srv/other"),
            ("examples/two.rs/@/two.1-cgu.0", "/srv/other"),
            // Incremental.
            ("src/lib.rs/@/03ajnyl9jpdrw8ej05os58ikh", "/srv/quick"),
            ("zlib/inflate.c", "/srv/my-server"),
        ] {
            crates.add(unit, folder);
        }
        crates
    }

    #[test]
    fn finds_the_module_of_a_source_file() {
        let crates = crates();
        let registry = "/root/.cargo/registry/src/index-19";
        for (file, module) in [
            ("/srv/my-server/src/main.rs", Some("my_server")),
            ("/srv/my-server/src/feed/mod.rs", Some("my_server::feed")),
            ("/srv/my-server/src/feed/price.rs", Some("my_server::feed::price")),
            ("/srv/my-server/crates/core/src/lib.rs", Some("my_core")),
            ("/srv/my-server/crates/core/src/main/lib.rs", Some("my_core::main::lib")),
            ("/srv/other/examples/two.rs", Some("two")),
            // The file does not say which of the two crates it is a module of.
            ("/srv/other/examples/shared.rs", None),
            ("/srv/quick/src/lib.rs", None),
            ("/srv/elsewhere/src/a.rs", None),
            (&format!("{registry}/md-5-0.10.6/src/block.rs"), Some("md5::block")),
            (&format!("{registry}/mio-1.0.4/src/sys/unix/selector/epoll.rs"), Some("mio::sys::unix::selector::epoll")),
            (&format!("{registry}/tokio-util-0.7.0/src/lib.rs"), Some("tokio_util")),
            ("/rustc/59807616e1fa/library/core/src/ops/function.rs", Some("core::ops::function")),
            ("/r/lib/rustlib/src/rust/library/std/src/sys/thread/unix.rs", Some("std::sys::thread::unix")),
            (
                "/rustc/5980/library/core/src/../../stdarch/crates/core_arch/src/x86/sse2.rs",
                Some("core::core_arch::x86::sse2"),
            ),
            ("/rust/deps/hashbrown-0.15.2/src/raw/mod.rs", Some("hashbrown::raw")),
        ] {
            assert_eq!(crates.module(file).as_deref(), module, "{file}");
        }
    }

    #[test]
    fn inlined_functions_have_full_paths() {
        let crates = crates();
        let tokio = "/root/.cargo/registry/src/index-19/tokio-1.54.1/src/runtime/task/core.rs";
        let price = "/srv/my-server/src/feed/price.rs";
        let poll = "poll<my_server::feed::price::price_feed::{async_fn_env#0}, alloc::sync::Arc<tokio::Handle>>";
        for (bare, caller, file, shown) in [
            ("take_waker", None, tokio, "tokio::runtime::task::core::take_waker"),
            ("drop_in_place<my_server::Job>", None, price, "core::ptr::drop_in_place"),
            ("poll<my_server::Job, S>", None, tokio, "tokio::runtime::task::core::poll"),
            ("{async_fn#0}", Some(poll), price, "my_server::feed::price::price_feed::{closure}"),
            // A closure of tokio's own, inside a generic function.
            (
                "{closure#0}<my_server::feed::price::price_feed::{async_fn_env#0}>",
                Some(poll),
                tokio,
                "tokio::runtime::task::core::{closure}",
            ),
            // Not the argument.
            ("{async_fn#1}", Some(poll), price, "my_server::feed::price::{closure}"),
            ("{async_fn#0}<u8>", Some(poll), price, "my_server::feed::price::{closure}"),
            ("{async_fn#0}", Some("{async_fn#0}"), price, "my_server::feed::price::{closure}"),
            ("{async_fn#0}", Some("join<a::f::{async_fn_env#0}, a::g::{async_fn_env#0}>"), "/x.rs", "{closure}"),
            // The argument is of another crate than the code.
            ("{async_fn#0}", Some(poll), tokio, "tokio::runtime::task::core::{closure}"),
            (
                "{async_block#2}<u8>",
                Some("run<(my_server::{impl#3}::serve::{async_fn#0}::{async_block_env#2}<u8>, u8)>"),
                price,
                "my_server::serve::{closure}::{closure}",
            ),
        ] {
            let name = inlined(bare, None, caller, crates.module(file).as_deref());
            assert_eq!(name.shown, shown, "{bare} in {caller:?}");
            assert!(name.is_rust);
        }
        let known =
            inlined("{async_fn#0}", Some("my_server::f::{closure}"), Some(poll), Some("my_server::feed::price"));
        assert_eq!((known.shown.as_str(), known.crates), ("my_server::f::{closure}", vec!["my_server".to_string()]));
    }

    #[test]
    fn compares_symbols_with_bare_names() {
        for (symbol, bare, is) in [
            ("app::handler::{closure}", "{async_fn#0}", true),
            ("app::handler::{closure#1}", "{async_block#1}", true),
            ("app::handler", "{async_fn#0}", false),
            ("<app::Foo as core::future::Future>::poll", "poll<u8>", true),
            ("<tokio::Handle>::bind::<app::user::{closure}>", "bind<app::user::{async_fn_env#0}>", true),
            ("core::ptr::drop_in_place<app::Foo>", "drop_in_place<app::Foo>", true),
            ("core::ops::function::FnOnce::call_once{shim}", "call_once<app::Foo>", true),
            ("core::ops::function::FnOnce::call_once{shim}", "{shim:vtable#0}", true),
            ("app::poll_all", "poll", false),
            ("app::run", "walk", false),
            ("inflate", "inflate", true),
        ] {
            assert_eq!(is_symbol_of(symbol, bare), is, "{symbol} of {bare}");
        }
    }
}
