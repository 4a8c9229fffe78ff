//! The symbols by which tokio's functions are recognized, and its version.

use super::{binary::Binary, demangle::clean};

/// Whether a symbol is a `tokio::runtime::task::raw::poll`, by legacy or v0 mangling.
pub(super) fn is_poll(name: &str) -> bool {
    // Legacy: the path, a hash and nothing else. v0: an instance (`_RI`) of the path, followed by its arguments.
    name.starts_with("_ZN5tokio7runtime4task3raw4poll17h")
        || (name.starts_with("_RI") && name.contains("5tokio7runtime4task3raw4poll"))
}

/// Whether a symbol is `tokio::runtime::task::waker::wake_by_val` or `wake_by_ref`.
pub(super) fn is_wake(name: &str) -> bool {
    const PATHS: [&str; 2] = ["5tokio7runtime4task5waker11wake_by_val", "5tokio7runtime4task5waker11wake_by_ref"];
    PATHS.iter().any(|path| match name.strip_prefix("_ZN") {
        Some(legacy) => legacy.strip_prefix(path).is_some_and(|rest| rest.starts_with("17h")),
        None => name.starts_with("_RNv") && name.ends_with(path),
    })
}

/// Whether a symbol is a `tokio::runtime::task::list::OwnedTasks::<S>::bind_inner`.
pub(super) fn is_spawn(name: &str) -> bool {
    name.contains("5tokio7runtime4task4list") && name.contains("OwnedTasks") && name.contains("10bind_inner")
}

/// Whether a symbol is `std::panicking::rust_panic`, which had a plain name before Rust 1.88.
pub(super) fn is_panic(name: &str) -> bool {
    name == "rust_panic"
        || name.starts_with("_RNv") && name.ends_with("10rust_panic")
        || name.starts_with("_ZN3std9panicking10rust_panic17h")
}

/// Whether a symbol is the thread-local `tokio::runtime::context::CONTEXT`.
pub(super) fn is_context(name: &str) -> bool {
    name.contains("5tokio7runtime7context7CONTEXT") && (name.contains("VAL") || name.contains("__getit"))
}

/// [`super::Tokio::tls_tagged`] of a version.
pub(super) fn is_tagged(version: Option<&str>) -> bool {
    version.is_some_and(|v| is_before(v, 40))
}

/// Whether a version of tokio 1 is older than 1.`minor`.
fn is_before(version: &str, minor: u32) -> bool {
    version.strip_prefix("1.").and_then(|v| v.split('.').next()?.parse::<u32>().ok()).is_some_and(|m| m < minor)
}

/// Tokio's version, by the source paths in its panics.
pub(super) fn version(binary: &Binary) -> Option<String> {
    let mut found = None;
    binary.rodata(|data| found = found.take().or_else(|| version_in(data)));
    found
}

/// The version in the first path of Tokio's sources (`…/tokio-1.54.1/src/…`).
pub(crate) fn version_in(data: &[u8]) -> Option<String> {
    const BEFORE: &[u8] = b"/tokio-";
    memchr::memmem::find_iter(data, BEFORE).find_map(|at| {
        let rest = data.get(at + BEFORE.len()..)?;
        let end = rest.iter().take(LONGEST_VERSION).position(|&b| b == b'/')?;
        let text = std::str::from_utf8(rest.get(..end)?).ok()?;
        text.starts_with(|c: char| c.is_ascii_digit()).then(|| clean(text))
    })
}

/// Maximum characters of a version.
const LONGEST_VERSION: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poll_symbols_of_both_manglings() {
        assert!(is_poll("_ZN5tokio7runtime4task3raw4poll17h0123456789abcdefE"));
        assert!(is_poll("_RINvNtNtNtCs6k_5tokio7runtime4task3raw4pollNCNvCs1_3app7handler0E"));
        assert!(!is_poll("_ZN5tokio7runtime4task3raw7dealloc17h0123456789abcdefE"));
        assert!(!is_poll("_ZN5tokio7runtime4task3raw4poll28_$u7b$$u7b$closure$u7d$$u7d$17h0123456789abcdefE"));
    }

    #[test]
    fn symbols_of_wakes_spawns_and_panics() {
        assert!(is_wake("_ZN5tokio7runtime4task5waker11wake_by_val17h0123456789abcdefE"));
        assert!(is_wake("_RNvNtNtNtCs6k_5tokio7runtime4task5waker11wake_by_ref"));
        assert!(!is_wake("_ZN5tokio7runtime4task5waker10clone_waker17h0123456789abcdefE"));
        assert!(is_spawn("_ZN5tokio7runtime4task4list19OwnedTasks$LT$S$GT$10bind_inner17h0123456789abcdefE"));
        assert!(!is_spawn("_ZN5tokio7runtime4task4list19OwnedTasks$LT$S$GT$6remove17h0123456789abcdefE"));
        assert!(is_panic("_RNvCsfLfy6EI15iL_7___rustc10rust_panic") && is_panic("rust_panic"));
        assert!(!is_panic("_ZN3std9panicking20rust_panic_with_hook17h0123456789abcdefE"));
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(is_before("1.9.0", 40) && is_before("1.38.2", 40));
        assert!(!is_before("1.40.0", 40) && !is_before("1.54.1", 40) && !is_before("2.0.0", 40));
    }
}
