//! Demangled names, sanitised for terminals.

/// Sanitises a name that the target chose, and cuts it at 4,096 characters.
pub fn clean(name: &str) -> String {
    hud_common::clean_name(name)
}

/// A function's name, from its symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FunctionName {
    /// Demangled and readable, not sanitised.
    pub(crate) shown: String,
    /// Whether it is mangled as rustc does.
    pub(crate) is_rust: bool,
    /// The crate that it belongs to; for a trait's method both crates, the type's and the trait's, if the symbol does
    /// not show which.
    pub(crate) crates: Vec<String>,
}

/// Demangles a symbol of Rust or C++, without the hash and without suffixes of LLVM and GCC.
pub(crate) fn function(symbol: &str) -> FunctionName {
    let bare = without_suffix(symbol);
    if is_legacy(bare) || bare.starts_with("_R") {
        if let Ok(name) = rustc_demangle::try_demangle(bare) {
            return FunctionName { shown: legible(&format!("{name:#}")), is_rust: true, crates: crate_of_symbol(bare) };
        }
    } else if bare.starts_with("_Z")
        && let Ok(symbol) = cpp_demangle::Symbol::new(bare)
        && let Ok(shown) =
            symbol.demangle_with_options(&cpp_demangle::DemangleOptions::new().no_params().no_return_type())
    {
        return FunctionName { shown, is_rust: false, crates: Vec::new() };
    }
    FunctionName { shown: bare.into(), is_rust: false, crates: Vec::new() }
}

/// A symbol without the suffixes by which compilers mark split, specialised or renamed functions: `.llvm.123`, `.cold`,
/// `.part.0`.
fn without_suffix(symbol: &str) -> &str {
    const WORDS: [&str; 6] = ["llvm", "cold", "part", "constprop", "isra", "lto_priv"];
    let mut bare = symbol.find(".llvm.").filter(|&at| at > 0).map_or(symbol, |at| &symbol[..at]);
    while let Some((rest, suffix)) = bare.rsplit_once('.')
        && !rest.is_empty()
        && (WORDS.contains(&suffix) || !suffix.is_empty() && suffix.bytes().all(|b| b.is_ascii_digit()))
    {
        bare = rest;
    }
    bare
}

/// Whether a symbol has rustc's mangling before v0: as C++, with a hash at the end.
fn is_legacy(symbol: &str) -> bool {
    symbol.starts_with("_ZN")
        && symbol.strip_suffix('E').and_then(|s| s.get(s.len().checked_sub(19)?..)).is_some_and(|hash| {
            hash.strip_prefix("17h").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
        })
}

/// The crates that a Rust symbol may belong to: see [`FunctionName::crates`].
pub(crate) fn crate_of_symbol(symbol: &str) -> Vec<String> {
    if let Some(v0) = symbol.strip_prefix("_R")
        && let Some(krate) = v0_crate(v0)
    {
        return vec![krate.into()];
    }
    let Ok(name) = rustc_demangle::try_demangle(symbol) else { return Vec::new() };
    let name = format!("{name:#}");
    let head = |path: &str| {
        let path = path.trim_start_matches(['<', '&', '*', '(', '[', ' ']);
        let path = ["mut ", "const ", "dyn "].iter().fold(path, |p, word| p.strip_prefix(word).unwrap_or(p));
        let krate = path.split_once("::")?.0;
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        (!krate.is_empty() && krate.chars().all(is_name)).then(|| krate.to_string())
    };
    match name.strip_prefix('<') {
        // `<type as trait>::method`, `<type>::method`: the type has brackets of its own.
        Some(rest) => {
            let (mut depth, mut at) = (1, rest.len());
            let mut trait_at = None;
            for (i, c) in rest.char_indices() {
                match c {
                    '<' => depth += 1,
                    '>' if !rest[..i].ends_with('-') => depth -= 1,
                    ' ' if depth == 1 && rest[i..].starts_with(" as ") => trait_at = Some(i + 4),
                    _ => {}
                }
                if depth == 0 {
                    at = i;
                    break;
                }
            }
            let of_trait = trait_at.and_then(|t| head(rest.get(t..at)?));
            head(&rest[..at]).into_iter().chain(of_trait).collect()
        }
        // `core::fmt::num::<impl core::fmt::Debug for u32>::fmt`: the crate that contains it comes first.
        None => head(&name).into_iter().collect(),
    }
}

/// The crate, if a symbol is a crate's `main`.
pub(crate) fn crate_with_main(symbol: &str) -> Option<String> {
    let is_main = match symbol.strip_prefix("_ZN") {
        // `<length><crate>4main17h<hash>E`, no more
        Some(path) => path.get(..path.len().checked_sub(20)?)?.strip_suffix("4main").is_some_and(|krate| {
            let digits = krate.bytes().take_while(u8::is_ascii_digit).count();
            krate[..digits].parse() == Ok(krate.len() - digits)
        }),
        None => symbol.starts_with("_RNvC") && symbol.ends_with("4main"),
    };
    if is_main { crate_of_symbol(symbol).into_iter().next() } else { None }
}

/// The crate in which a v0 symbol's path begins; for methods that of the `impl`. `None` if a type would have to be
/// parsed.
fn v0_crate(mut path: &str) -> Option<&str> {
    // Nested paths, instances and impls each add one step; real ones have dozens.
    for _ in 0..256 {
        let mut rest = path.chars();
        path = match rest.next()? {
            'N' => rest.as_str().get(1..)?,
            'I' => rest.as_str(),
            'M' | 'X' => without_disambiguator(rest.as_str())?,
            'C' => {
                let name = without_disambiguator(rest.as_str())?;
                let digits = name.bytes().take_while(u8::is_ascii_digit).count();
                let (length, name) = (name.get(..digits)?.parse().ok()?, name.get(digits..)?);
                return name.strip_prefix('_').unwrap_or(name).get(..length);
            }
            _ => return None,
        };
    }
    None
}

/// The rest after the optional `s<base 62>_`.
fn without_disambiguator(path: &str) -> Option<&str> {
    match path.strip_prefix('s') {
        Some(rest) => Some(rest.split_once('_')?.1),
        None => Some(path),
    }
}

/// A path in readable form: `app::handler::{async_fn_env#0}` is `app::handler`, and `{closure_env#0}`, `{closure#0}`
/// and `{{closure}}` are `{closure}`.
fn legible(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find('{') {
        let (before, brace) = rest.split_at(at);
        out.push_str(before);
        let Some(end) = brace.find('}') else {
            rest = brace;
            break;
        };
        let double = brace.starts_with("{{") && brace[end..].starts_with("}}");
        let (inside, after) =
            if double { (&brace[2..end], &brace[end + 2..]) } else { (&brace[1..end], &brace[end + 1..]) };
        let (word, number) = inside.split_once('#').unwrap_or((inside, "0"));
        let word = word.strip_suffix("_env").unwrap_or(word);
        match word {
            // The body of an `async fn` is the function to its author, and an `impl` has no name.
            "async_fn" | "impl" if out.ends_with("::") => out.truncate(out.len() - 2),
            _ => {
                let word = word.strip_prefix("shim:").map_or(word, |_| "shim");
                let word = if word == "vtable.shim" { "shim" } else { word };
                out.push('{');
                out.push_str(word);
                if number != "0" {
                    out.push('#');
                    out.push_str(number);
                }
                out.push('}');
            }
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// A future's type in readable form: `app::handler::{async_fn_env#0}` is `app::handler`.
pub(crate) fn type_name(raw: &str) -> String {
    let name = raw.replace(", alloc::alloc::Global>", ">");
    // Without debug information a coroutine is just a closure: the last one is the future itself.
    let name = name.strip_suffix("::{{closure}}").or_else(|| name.strip_suffix("::{closure#0}")).unwrap_or(&name);
    clean(&legible(name))
}

/// Splits the arguments of `poll<T, S>` at the commas that are not inside brackets.
pub(crate) fn generic_arguments(name: &str) -> Vec<&str> {
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
            // The arrow of `fn() -> T` closes no bracket.
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
    fn demangles_types() {
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
    fn demangles_functions() {
        for (symbol, shown, krate) in [
            ("_ZN3app7handler17h0123456789abcdefE", "app::handler", "app"),
            ("_ZN3app7handler28_$u7b$$u7b$closure$u7d$$u7d$17h0123456789abcdefE", "app::handler::{closure}", "app"),
            ("_ZN3app7handler17h0123456789abcdefE.llvm.1234567890", "app::handler", "app"),
            ("_ZN3app7handler17h0123456789abcdefE.cold", "app::handler", "app"),
            ("_ZN3app7handler17h0123456789abcdefE.531", "app::handler", "app"),
            ("memcpy.part.0.constprop.1", "memcpy", ""),
            ("_RNCNvCsbmNqQUJIY6D_3app7handler0B3_", "app::handler::{closure}", "app"),
            ("_RNCNvCsbmNqQUJIY6D_3app7handlers_0B3_", "app::handler::{closure#1}", "app"),
            ("_RNvCsbmNqQUJIY6D_3app4main", "app::main", "app"),
            (
                "_ZN14test_async_app12good_citizen28_$u7b$$u7b$closure$u7d$$u7d$17h0784f6e1a6f08a42E.llvm.5895175725286781191",
                "test_async_app::good_citizen::{closure}",
                "test_async_app",
            ),
            // Only the impl identifies the crate that contains it.
            (
                "_RNvXs1_NtNtCs6EqeszZuBx3_5tokio4sync6notifyNtB5_17NotifyWaitersListNtNtNtCsgEmfK2I1SDS_4core3ops4drop4Drop4drop",
                "<tokio::sync::notify::NotifyWaitersList as core::ops::drop::Drop>::drop",
                "tokio",
            ),
            (
                "_RNvXNtCsgEmfK2I1SDS_4core3anytNtB2_3Any7type_idCscx7JUV4rqLf_14test_async_app",
                "<u16 as core::any::Any>::type_id",
                "core",
            ),
            (
                "_RINvMNtNtNtNtCs6EqeszZuBx3_5tokio7runtime9scheduler12multi_thread6handleNtB3_6Handle13bind_new_taskNCNvCscx7JUV4rqLf_14test_async_app9pool_user0EB1D_",
                "<tokio::runtime::scheduler::multi_thread::handle::Handle>::bind_new_task::<test_async_app::pool_user::{closure}>",
                "tokio",
            ),
            ("malloc", "malloc", ""),
            ("_ZNSt6vectorIiSaIiEE9push_backEOi", "std::vector<int, std::allocator<int> >::push_back", ""),
            ("_Z", "_Z", ""),
            ("_R", "_R", ""),
            ("", "", ""),
        ] {
            let name = function(symbol);
            assert_eq!((name.shown.as_str(), name.crates.join("|").as_str()), (shown, krate), "{symbol}");
        }
    }

    #[test]
    fn finds_the_crate_with_main() {
        assert_eq!(crate_with_main("_ZN14test_async_app4main17h0123456789abcdefE").as_deref(), Some("test_async_app"));
        assert_eq!(crate_with_main("_RNvCsbmNqQUJIY6D_14test_async_app4main").as_deref(), Some("test_async_app"));
        assert_eq!(crate_with_main("_ZN4clap3app4main17h0123456789abcdefE"), None);
        assert_eq!(crate_with_main("_ZN3app4main28_$u7b$$u7b$closure$u7d$$u7d$17h0123456789abcdefE"), None);
        assert_eq!(crate_with_main("main"), None);
    }

    #[test]
    fn shows_compiler_made_names() {
        for (raw, shown) in [
            ("tokio::worker::{impl#0}::launch::{closure_env#0}", "tokio::worker::launch::{closure}"),
            ("app::f::{closure#2}::{closure#0}", "app::f::{closure#2}::{closure}"),
            ("app::f::{async_fn#0}::{async_closure_env#1}", "app::f::{async_closure#1}"),
            (
                "<F as core::ops::FnOnce<A>>::call_once::{shim:vtable#0}",
                "<F as core::ops::FnOnce<A>>::call_once::{shim}",
            ),
            ("core::ops::FnOnce::call_once{{vtable.shim}}", "core::ops::FnOnce::call_once{shim}"),
            ("broken{", "broken{"),
            ("{}}{{", "{}}{{"),
        ] {
            assert_eq!(legible(raw), shown);
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
        assert_eq!(clean(&"ä".repeat(9000)).chars().count(), 4097);
    }
}
