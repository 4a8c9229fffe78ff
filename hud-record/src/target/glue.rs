//! Task types of a binary without debug information, by its symbols.
//!
//! Under legacy mangling `raw::poll`'s symbol hides `T`. Two others spell it out: the body that the poll calls
//! (`app::handler::{{closure}}`, unless it is inlined), and `drop_in_place::<Cell<T, S>>`, the drop glue that the third
//! entry of the same vtable, `dealloc`, calls (tokio/src/runtime/task/raw.rs, `struct Vtable`). LLVM merges functions
//! with equal code, so the glue of one type may serve, under its own name, for many: a name counts only where both
//! agree, or where nothing contradicts it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{binary::Binary, image::Image, names};

/// Distance of `dealloc` from `poll` in a vtable.
const DEALLOC: u64 = 16;
/// How deep the calls of a poll function are followed: `raw::poll` → `Harness::poll` → `poll_future` → `T::poll`.
const MAX_CALLS: usize = 4;
/// Code of one function that is looked at.
const MAX_CODE: u64 = 64 << 10;

/// Gives `T, S` for those of `polls` (addresses in the file) that the glue names.
pub(super) fn types(binary: &Binary, image: &Image, polls: &BTreeSet<u64>) -> HashMap<u64, Vec<String>> {
    let glue = Glue::read(binary);
    let evidence: Vec<Evidence> = vtables(image, polls)
        .into_iter()
        .map(|(poll, dealloc)| Evidence {
            poll,
            drops: calls(binary, &glue.functions, dealloc).into_iter().filter(|c| glue.drops.contains_key(c)).collect(),
            bodies: bodies_called(binary, &glue, poll),
        })
        .collect();
    // A type has at most two polls, one for each kind of scheduler: glue that more of them share was merged.
    let mut sharers: HashMap<u64, usize> = HashMap::new();
    for drop in evidence.iter().flat_map(|e| &e.drops) {
        *sharers.entry(*drop).or_default() += 1;
    }
    evidence
        .into_iter()
        .filter_map(|e| {
            let of = |drop: &u64| glue.drops.get(drop).into_iter().flatten().cloned();
            let dropped: BTreeSet<String> = e.drops.iter().flat_map(of).collect();
            let is_called = |arguments: &String| {
                names::split_arguments(arguments).first().is_some_and(|future| e.bodies.contains(*future))
            };
            let agreed: Vec<String> = dropped.iter().filter(|a| is_called(a)).cloned().collect();
            let found = if !agreed.is_empty() {
                agreed
            } else if e.bodies.len() == 1 {
                e.bodies.into_iter().collect()
            } else if e.bodies.is_empty() && e.drops.iter().all(|d| sharers.get(d).is_some_and(|&n| n <= 2)) {
                dropped.into_iter().collect()
            } else {
                Vec::new()
            };
            (!found.is_empty()).then_some((e.poll, found))
        })
        .collect()
}

/// What the code tells of one poll function.
struct Evidence {
    poll: u64,
    /// Drop glue that its vtable leads to.
    drops: BTreeSet<u64>,
    /// Coroutine bodies that it calls.
    bodies: BTreeSet<String>,
}

/// What the symbol table tells.
#[derive(Default)]
struct Glue {
    /// Size of each function, by address.
    functions: BTreeMap<u64, u64>,
    /// `T, S` (or `T`) by the address of its drop glue.
    drops: HashMap<u64, BTreeSet<String>>,
    /// Demangled names of coroutine bodies, by address.
    bodies: HashMap<u64, String>,
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
                // The runtime's own closures are on the way to every future.
                if body.ends_with("{{closure}}")
                    && !["tokio::", "std::", "core::", "<"].iter().any(|p| body.starts_with(p))
                {
                    glue.bodies.insert(symbol.address, body);
                }
            }
        }
        glue
    }
}

fn demangled(symbol: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(symbol))
}

/// `T, S` of `…::drop_in_place<…Cell<T,S>>`, or `T` of `…Stage<T>`, whichever is inside.
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

/// Pairs of `poll` and `dealloc` in the vtables of the image.
fn vtables(image: &Image, polls: &BTreeSet<u64>) -> BTreeMap<u64, u64> {
    let mut found = BTreeMap::new();
    for at in image.addresses() {
        if let Some(poll) = image.pointer(at).filter(|p| polls.contains(p))
            && let Some(dealloc) = image.pointer(at.saturating_add(DEALLOC))
        {
            found.insert(poll, dealloc);
        }
    }
    found
}

/// Where a function calls or jumps to, by every `call rel32` (E8) and `jmp rel32` (E9) that leads to a function's start.
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
                    Some(body) => drop(bodies.insert(body.clone())),
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
    fn the_glue_spells_out_the_task() {
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
}
