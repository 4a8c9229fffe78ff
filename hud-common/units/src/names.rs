//! Names of types and functions as people write them, without the compiler's additions.
//!
//! `app::run::{async_fn_env#0}<alloc::vec::Vec<u8>>` is `app::run`, and `core::pin::Pin<alloc::boxed::Box<dyn
//! core::future::Future>>` is `Pin<Box<dyn Future>>`: generic arguments are removed, except those of wrappers of the
//! standard library, tokio and the like, which nothing else distinguishes. Names come from an untrusted program: the
//! work is linear in their length, and nesting is followed to [`DEEPEST`] levels.

use hud_files::clean;

/// Levels of brackets that are parsed.
const DEEPEST: usize = 24;

/// Crates whose types are distinguished by their arguments.
const WRAPPERS: [&str; 14] = [
    "core",
    "alloc",
    "std",
    "tokio",
    "tokio_util",
    "tokio_stream",
    "futures",
    "futures_core",
    "futures_util",
    "futures_channel",
    "tracing",
    "tower",
    "hyper",
    "async_stream",
];

/// A type or function as people write it: `app::handler`, `app::handler::{closure}`, `Timeout<app::handler>`.
pub fn short_type(name: &str) -> String {
    let short = shorten(name.trim(), 0, false);
    clean(if short.is_empty() { name } else { &short }).into_owned()
}

/// `is_inner` is true inside a wrapper, where the library's paths only take space.
fn shorten(name: &str, depth: usize, is_inner: bool) -> String {
    if depth > DEEPEST {
        return "…".into();
    }
    for (prefix, kept) in
        [("&mut ", "&mut "), ("&", "&"), ("*const ", "*const "), ("*mut ", "*mut "), ("impl ", "impl ")]
    {
        if let Some(rest) = name.strip_prefix(prefix) {
            return format!("{kept}{}", shorten(without_lifetime(rest.trim_start()), depth + 1, is_inner));
        }
    }
    // The first trait of `dyn Future<Output = ()> + Send + 'static` suffices.
    if let Some(rest) = name.strip_prefix("dyn ") {
        let first = split(rest, Splitter::Plus).into_iter().next().unwrap_or(rest);
        return format!("dyn {}", shorten(first.trim(), depth + 1, true));
    }
    for (open, close) in [('(', ')'), ('[', ']')] {
        if let Some(inner) = name.strip_prefix(open).and_then(|rest| rest.strip_suffix(close)) {
            let parts = split(inner, Splitter::Comma);
            let parts: Vec<_> = parts.iter().map(|part| shorten(part.trim(), depth + 1, is_inner)).collect();
            return format!("{open}{}{close}", parts.join(", "));
        }
    }
    path(name, depth, is_inner)
}

/// A path of segments: modules, types, functions and the compiler's insertions between them.
fn path(name: &str, depth: usize, is_inner: bool) -> String {
    let mut segments: Vec<String> = Vec::new();
    let mut arguments = None;
    for segment in split(name, Splitter::Path) {
        if let Some(inner) = segment.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')) {
            if segments.is_empty() {
                // `<T as Trait>::f` and `<T>::f`: people say `T::f`.
                let of = split(inner, Splitter::As).into_iter().next().unwrap_or(inner);
                segments.push(shorten(of.trim(), depth + 1, false));
            } else {
                arguments = Some(inner);
            }
            continue;
        }
        let (segment, inner) = match segment.find('<') {
            Some(at) if !segment.starts_with('{') => {
                let (before, rest) = segment.split_at(at);
                (before, rest.strip_prefix('<').map(|rest| rest.strip_suffix('>').unwrap_or(rest)))
            }
            _ => (segment, None),
        };
        // `{async_fn_env#0}<u8>`: the arguments are those of the function.
        let (segment, inner) = match segment.split_once("}<") {
            Some((made_up, rest)) => (made_up, Some(rest.strip_suffix('>').unwrap_or(rest))),
            None => (segment, inner),
        };
        arguments = inner;
        if let Some(shown) = legible(segment, segments.is_empty()) {
            segments.push(shown);
        }
    }
    // For the linker only.
    if segments.len() > 1 && segments.last().is_some_and(|last| is_hash(last)) {
        segments.pop();
    }
    // A type without a path has been shortened already.
    let is_wrapper = (segments.len() == 1 || segments.first().is_some_and(|first| WRAPPERS.contains(&first.as_str())))
        && segments.last().is_some_and(|last| last.starts_with(char::is_uppercase));
    match (segments.pop(), arguments) {
        (Some(last), arguments) if is_wrapper => {
            let parts: Vec<_> = arguments.map(|inner| wrapped(inner, depth)).unwrap_or_default();
            match parts.is_empty() {
                false => format!("{last}<{}>", parts.join(", ")),
                true if is_inner => last,
                true => {
                    segments.push(last);
                    segments.join("::")
                }
            }
        }
        (Some(last), _) => {
            segments.push(last);
            segments.join("::")
        }
        (None, _) => String::new(),
    }
}

/// A wrapper's arguments, without lifetimes, allocators and associated types.
fn wrapped(inner: &str, depth: usize) -> Vec<String> {
    split(inner, Splitter::Comma)
        .into_iter()
        .map(str::trim)
        .filter(|part| !part.is_empty() && !part.starts_with('\'') && *part != "alloc::alloc::Global")
        .filter(|part| split(part, Splitter::Equals).get(1).is_none_or(|value| value.is_empty()))
        .map(|part| shorten(part, depth + 1, true))
        .collect()
}

/// A segment as it is shown; `None` if nobody wrote it.
fn legible(segment: &str, is_first: bool) -> Option<String> {
    if segment.is_empty() {
        return None;
    }
    let Some(inside) = segment.strip_prefix('{') else { return Some(segment.into()) };
    let inside = inside.strip_prefix('{').unwrap_or(inside).trim_end_matches('}');
    let (word, number) = inside.split_once('#').unwrap_or((inside, "0"));
    let word = word.strip_suffix("_env").unwrap_or(word);
    match word {
        // The body of an `async fn` is shown as the function, and an `impl` has no name.
        "async_fn" | "impl" if !is_first => None,
        "vtable.shim" => Some("{shim}".into()),
        _ if word.starts_with("shim:") => Some("{shim}".into()),
        _ if number == "0" => Some(format!("{{{word}}}")),
        _ => Some(format!("{{{word}#{number}}}")),
    }
}

/// Whether a segment is the hash at the end of a mangled name.
fn is_hash(segment: &str) -> bool {
    segment.strip_prefix('h').is_some_and(|hex| hex.len() == 16 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn without_lifetime(rest: &str) -> &str {
    match rest.strip_prefix('\'') {
        Some(named) => named.split_once(' ').map_or(rest, |(_, of)| of.trim_start()),
        None => rest,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Splitter {
    Path,
    Comma,
    Plus,
    As,
    Equals,
}

/// The parts of a name between `::` outside brackets.
pub fn segments(name: &str) -> Vec<&str> {
    split(name, Splitter::Path)
}

/// The parts of a text between separators outside brackets.
fn split(text: &str, by: Splitter) -> Vec<&str> {
    let separator = match by {
        Splitter::Path => "::",
        Splitter::Comma => ",",
        Splitter::Plus => " + ",
        Splitter::As => " as ",
        Splitter::Equals => "=",
    };
    let (mut depth, mut start, mut parts, mut previous) = (0_usize, 0, Vec::new(), b' ');
    let mut skip_to = 0;
    for (at, byte) in text.bytes().enumerate() {
        if at < skip_to {
            continue;
        }
        match byte {
            b'<' | b'(' | b'[' | b'{' => depth += 1,
            // The arrow of `fn() -> T` closes nothing.
            b'>' if previous != b'-' => depth = depth.saturating_sub(1),
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ if depth == 0 && text.get(at..).is_some_and(|rest| rest.starts_with(separator)) => {
                parts.push(text.get(start..at).unwrap_or_default());
                start = at + separator.len();
                skip_to = start;
            }
            _ => {}
        }
        previous = byte;
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_as_people_write_them() {
        for (raw, shown) in [
            ("app::handler", "app::handler"),
            ("app::handler::{closure}", "app::handler::{closure}"),
            ("app::handler::{async_fn_env#0}", "app::handler"),
            ("app::handler::{async_fn#0}::{closure_env#1}", "app::handler::{closure#1}"),
            ("app::handler::{{closure}}", "app::handler::{closure}"),
            ("app::main::{async_fn#0}::{async_block_env#3}", "app::main::{async_block#3}"),
            ("app::run::{async_fn_env#0}<alloc::vec::Vec<u8, alloc::alloc::Global>>", "app::run"),
            ("app::run<alloc::vec::Vec<u8>>", "app::run"),
            ("<app::Server as core::future::future::Future>::poll", "app::Server::poll"),
            ("<tokio::runtime::Handle>::bind::<app::pool_user::{closure}>", "tokio::runtime::Handle::bind"),
            (
                "core::pin::Pin<alloc::boxed::Box<dyn core::future::future::Future<Output = ()> + Send>>",
                "Pin<Box<dyn Future>>",
            ),
            ("tokio::time::timeout::Timeout<app::handler::{async_fn_env#0}>", "Timeout<app::handler>"),
            ("alloc::boxed::Box<[u8], alloc::alloc::Global>", "Box<[u8]>"),
            (
                "core::ops::function::FnOnce::call_once{{vtable.shim}}",
                "core::ops::function::FnOnce::call_once{{vtable.shim}}",
            ),
            (
                "core::ops::function::FnOnce::call_once::{shim:vtable#0}",
                "core::ops::function::FnOnce::call_once::{shim}",
            ),
            ("app::f::h0123456789abcdef", "app::f"),
            ("&mut app::Thing<u8>", "&mut app::Thing"),
            ("(app::A<u8>, fn(u8) -> app::B)", "(app::A, fn(u8) -> app::B)"),
            ("future at src/main.rs:42", "future at src/main.rs:42"),
            ("{closure}", "{closure}"),
            ("{async_fn#0}", "{async_fn}"),
            ("", ""),
        ] {
            assert_eq!(short_type(raw), shown, "{raw}");
            assert_eq!(short_type(shown), shown, "again: {raw}");
        }
    }

    #[test]
    fn hostile_names_are_survived() {
        let deep = format!("{}x{}", "core::pin::Pin<".repeat(5_000), ">".repeat(5_000));
        assert!(short_type(&deep).len() < 1_000);
        for name in [
            "<",
            ">",
            "<<>",
            "{",
            "}}}{{",
            "::",
            "a::<",
            "::<>::",
            "\x1b[2J::<x>",
            "é<ß>::日本",
            "<T as ",
            "dyn ",
            "&",
            "'a",
        ] {
            let short = short_type(name);
            assert!(!short.chars().any(char::is_control), "{name:?}: {short:?}");
        }
    }
}
