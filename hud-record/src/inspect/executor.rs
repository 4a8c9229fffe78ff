//! Executors other than tokio, recognized by the paths of their sources in a binary's panic messages, or by their symbols.

use std::{fs, io};

use memchr::memmem;

use super::{demangle::clean, search::in_pieces};

/// Maximum characters of a version.
const LONGEST_VERSION: usize = 24;

/// The crate of each executor, its name in symbols with the length before it, and the name by which it is known.
const EXECUTORS: [(&str, &str, &str); 4] = [
    ("async-executor", "14async_executor", "smol (async-executor"),
    ("monoio", "6monoio", "monoio"),
    ("glommio", "7glommio", "glommio"),
    ("compio-runtime", "14compio_runtime", "compio (compio-runtime"),
];

/// Searches a file for an executor.
pub(crate) fn search(file: fs::File) -> Option<String> {
    search_in(file).ok()?
}

fn search_in(file: impl io::Read) -> io::Result<Option<String>> {
    let finders = EXECUTORS.map(|(path, symbol, _)| (memmem::Finder::new(path), memmem::Finder::new(symbol)));
    let mut by_symbol = None;
    let by_path = in_pieces(file, |piece| {
        finders.iter().enumerate().find_map(|(index, (path, symbol))| {
            // Of a mangled name: `_ZN14async_executor…` or `_RNv…Cs…_14async_executor…`.
            let is_mangled = |at: usize| at > 0 && matches!(piece.get(at - 1), Some(b'N' | b'_'));
            if by_symbol.is_none() && symbol.find_iter(piece).any(is_mangled) {
                by_symbol = Some(index);
            }
            let version = path.find_iter(piece).find_map(|at| version_at(piece, at, path.needle().len()))?;
            Some(shown(index, Some(&version)))
        })
    })?;
    Ok(by_path.or_else(|| by_symbol.map(|index| shown(index, None))))
}

/// The version in a path `…/NAME-1.2.3/src/…` whose name begins at `at`.
fn version_at(buffer: &[u8], at: usize, length: usize) -> Option<String> {
    let before = buffer.get(at.checked_sub(1)?)?;
    let rest = buffer.get(at + length..)?.strip_prefix(b"-")?;
    let end = rest.iter().take(LONGEST_VERSION).position(|&b| b == b'/')?;
    let text = std::str::from_utf8(rest.get(..end)?).ok()?;
    let is_version = *before == b'/' && text.starts_with(|c: char| c.is_ascii_digit());
    (is_version && rest.get(end..)?.starts_with(b"/src/")).then(|| clean(text))
}

/// `smol (async-executor 1.13.1)`, or `glommio 0.9.0`.
fn shown(index: usize, version: Option<&str>) -> String {
    let name = EXECUTORS.get(index).map_or("", |(.., name)| name);
    let version = version.map_or_else(String::new, |version| format!(" {version}"));
    format!("{name}{version}{}", if name.contains('(') { ")" } else { "" })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{super::search::PIECE, *};

    fn found(text: &[u8]) -> Option<String> {
        search_in(text).unwrap()
    }

    #[test]
    fn executors_are_known_by_paths_and_symbols() {
        let path = |of: &str| found(format!("registry/src/index-19/{of}/src/lib.rs").as_bytes());
        assert_eq!(path("async-executor-1.13.1").unwrap(), "smol (async-executor 1.13.1)");
        assert_eq!(path("monoio-0.2.4").unwrap(), "monoio 0.2.4");
        assert_eq!(path("glommio-0.9.0").unwrap(), "glommio 0.9.0");
        assert_eq!(path("compio-runtime-0.5.1").unwrap(), "compio (compio-runtime 0.5.1)");
        assert_eq!(path("monoio-macros-0.1.0"), None);
        assert_eq!(path("not-monoio-0.2.4"), None);
        assert_eq!(found(b"_ZN14async_executor8Executor3run17h0E").unwrap(), "smol (async-executor)");
        assert_eq!(found(b"_RNvMCsabc_6monoio7builder").unwrap(), "monoio");
        assert_eq!(found(b"16monoio 6monoio"), None);
    }

    #[test]
    fn an_executor_is_found_wherever_it_lies() {
        for at in [PIECE - 30, PIECE - 14, PIECE - 3, 2 * PIECE + 7] {
            let mut text = vec![b'x'; at];
            text.extend_from_slice(b"/async-executor-1.13.1/src/lib.rs");
            text.resize(3 * PIECE, b'y');
            assert_eq!(found(&text).unwrap(), "smol (async-executor 1.13.1)", "at {at}");
        }
    }
}
