//! Whose code a frame is, so that views can put the blame on the first frame of the user's own.

/// Whose code it is, by the path of its source, else by its crate.
///
/// Paths are those that cargo and rustc give: the registry and git checkouts of CARGO_HOME, `/rustc/<hash>/library` or
/// the toolchain's own `library` for std, `vendor` for vendored crates.
pub(super) fn origin(file: Option<&str>, function: Option<&str>, in_binary: bool) -> Option<&'static str> {
    if !in_binary {
        return Some("system");
    }
    match file {
        Some(file) => Some(by_path(file)),
        None => function.and_then(by_crate),
    }
}

fn by_path(file: &str) -> &'static str {
    if file.contains("/rustc/") || file.contains("/rustlib/src/rust/") {
        return "std";
    }
    let vendored = ["/registry/src/", "/git/checkouts/", "/vendor/"].iter().find_map(|p| file.split_once(p));
    match vendored {
        // std's own dependencies (hashbrown, backtrace, …) are built from a registry of its own.
        Some((_, rest)) if rest.split('/').any(|part| part.starts_with("tokio-1.") || part == "tokio") => "tokio",
        Some(_) => "dependency",
        None => "own",
    }
}

/// Without a path only the crates that everyone has are sure.
fn by_crate(function: &str) -> Option<&'static str> {
    let start = function.trim_start_matches(['<', '&', '_']).trim_start();
    match start.split("::").next().unwrap_or_default() {
        "std" | "core" | "alloc" | "rust_begin_unwind" | "__rust_begin_short_backtrace" => Some("std"),
        "tokio" => Some("tokio"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_tell_whose_code_it_is() {
        for (file, whose) in [
            ("/srv/app/src/main.rs", "own"),
            ("/home/me/.cargo/registry/src/index-1949cf8c/tokio-1.54.1/src/park.rs", "tokio"),
            ("/home/me/.cargo/registry/src/index-1949cf8c/hyper-1.0.0/src/lib.rs", "dependency"),
            ("/home/me/.cargo/registry/src/index-1949cf8c/tokio-util-0.7.0/src/lib.rs", "dependency"),
            ("/rustc/59807616e1fa/library/core/src/num/uint_macros.rs", "std"),
            ("/srv/app/vendor/serde-1.0.0/src/de.rs", "dependency"),
        ] {
            assert_eq!(origin(Some(file), Some("f"), true), Some(whose), "{file}");
        }
        assert_eq!(origin(None, Some("<core::option::Option<T>>::map"), true), Some("std"));
        assert_eq!(origin(None, Some("app::f"), true), None);
        assert_eq!(origin(None, None, false), Some("system"));
    }
}
