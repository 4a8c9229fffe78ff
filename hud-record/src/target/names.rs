//! Names as people write them, and clean of anything that a terminal would act on.

/// A name that the target chose, as hud stores it: nothing that a terminal would act on, and not absurdly long.
pub fn clean(name: &str) -> String {
    const LONGEST: usize = 4096;
    let cut = name.char_indices().nth(LONGEST).map_or(name, |(end, _)| &name[..end]);
    hud_common::clean(cut).into_owned()
}

/// A function's name from its symbol: demangled, without the hash, `{closure}` for both manglings.
pub fn function_name(symbol: &str) -> String {
    // LLVM adds suffixes such as `.llvm.123` and `.cold`.
    let name = format!("{:#}", rustc_demangle::demangle(symbol));
    let name = name.replace("{{closure}}", "{closure}").replace("{closure#0}", "{closure}");
    clean(&name)
}

/// A future's type as people write it: `app::handler::{async_fn_env#0}` is `app::handler`.
pub(super) fn type_name(raw: &str) -> String {
    let mut name = raw.replace(", alloc::alloc::Global>", ">");
    for noise in ["::{async_fn_env#0}", "::{async_fn#0}", "::{impl#0}"] {
        name = name.replace(noise, "");
    }
    // Without debug information a coroutine is only a closure: the last one is the future itself.
    let name = name.replace("{{closure}}", "{closure#0}");
    let name = name.strip_suffix("::{closure#0}").unwrap_or(&name);
    let name = name
        .replace("{async_block_env#", "{async_block#")
        .replace("{closure_env#", "{closure#")
        .replace("{closure#0}", "{closure}");
    clean(&name)
}

/// Splits the arguments of `poll<T, S>` at the commas that are not inside brackets.
pub(super) fn generic_arguments(name: &str) -> Vec<&str> {
    let Some((_, rest)) = name.split_once('<') else {
        return Vec::new();
    };
    match rest.strip_suffix('>') {
        Some(inner) => split_arguments(inner),
        None => Vec::new(),
    }
}

/// Splits at the commas that are not inside brackets.
pub(super) fn split_arguments(inner: &str) -> Vec<&str> {
    let (mut depth, mut start, mut arguments) = (0i32, 0, Vec::new());
    let mut previous = ' ';
    for (i, c) in inner.char_indices() {
        match c {
            '<' | '(' | '[' | '{' => depth += 1,
            // The arrow of `fn() -> T` closes nothing.
            '>' if previous != '-' => depth -= 1,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                arguments.push(inner[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
        previous = c;
    }
    arguments.push(inner[start..].trim());
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_read_as_written() {
        for (raw, shown) in [
            ("app::handler::{async_fn_env#0}", "app::handler"),
            ("app::main::{async_fn#0}::{async_block_env#3}", "app::main::{async_block#3}"),
            ("app::f::{async_fn#0}::{closure_env#0}", "app::f::{closure}"),
            ("app::f::{{closure}}", "app::f"),
            ("app::f::{{closure}}::{{closure}}", "app::f::{closure}"),
            ("app::f::{closure#0}", "app::f"),
            ("app::run::{async_fn_env#0}<alloc::vec::Vec<u8, alloc::alloc::Global>>", "app::run<alloc::vec::Vec<u8>>"),
        ] {
            assert_eq!(type_name(raw), shown);
        }
    }

    #[test]
    fn arguments_split_at_their_own_commas() {
        assert_eq!(
            generic_arguments("poll<f<A, (B, C)>, alloc::sync::Arc<H, G>>"),
            ["f<A, (B, C)>", "alloc::sync::Arc<H, G>"]
        );
        assert_eq!(generic_arguments("poll<fn(A, B) -> C, S>"), ["fn(A, B) -> C", "S"]);
        assert!(generic_arguments("poll").is_empty());
    }

    #[test]
    fn absurdly_long_names_are_cut() {
        assert_eq!(clean(&"ä".repeat(9000)).chars().count(), 4096);
    }
}
