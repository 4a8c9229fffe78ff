//! Whose code a function is, so that views attribute time to the first frame of the user's own code.
//!
//! Debug information gives the source path, and cargo's paths identify the origin: the registry and git checkouts of
//! CARGO_HOME, `/rustc/<hash>/library` or the toolchain's `library` for std, `vendor` for vendored crates. Symbols give
//! the crate: the user's own is the one that has `main`, on which no other crate depends. If neither is certain, the
//! origin is unknown.

use std::collections::BTreeSet;

use memchr::memmem;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind, read::elf::ElfFile64};

use super::frame::Origin;
use crate::inspect::{FunctionName, crate_with_main};

/// Crates identified by a binary.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Crates {
    /// Crates with `main`.
    own: BTreeSet<String>,
    /// Crates whose panic messages contain a registry path.
    dependencies: BTreeSet<String>,
}

/// Names in either set: real programs have hundreds.
const MOST_CRATES: usize = 10_000;

impl Crates {
    /// The crates of a binary, by its symbols and the paths in its read-only data.
    pub(super) fn of(elf: &ElfFile64<'_>) -> Self {
        let mut crates = Crates::default();
        for symbol in elf.symbols() {
            if let Ok(name) = symbol.name()
                && let Some(own) = crate_with_main(name)
                && crates.own.len() < MOST_CRATES
            {
                crates.own.insert(own);
            }
        }
        for section in elf.sections() {
            if matches!(section.kind(), SectionKind::ReadOnlyData | SectionKind::ReadOnlyString)
                && let Ok(data) = section.data()
            {
                crates.learn(data);
            }
        }
        crates
    }

    /// Finds the registry's paths in `data`: `/registry/src/<index>/<package>-<version>/`.
    fn learn(&mut self, data: &[u8]) {
        const MARK: &[u8] = b"/registry/src/";
        for at in memmem::find_iter(data, MARK) {
            let rest = data.get(at + MARK.len()..).unwrap_or_default();
            let rest = rest.get(..256).unwrap_or(rest);
            let mut parts = rest.split(|&b| b == b'/');
            let package = parts.nth(1).and_then(|p| std::str::from_utf8(p).ok());
            if let Some(name) = package.and_then(package_name)
                && parts.next().is_some()
                && self.dependencies.len() < MOST_CRATES
            {
                self.dependencies.insert(name.replace('-', "_"));
            }
        }
    }

    /// Whose code a function is, by its crate and its source path.
    ///
    /// The crate is that of the function, the path that of a line in it, which may be inlined from elsewhere: so a
    /// known crate takes precedence.
    pub(super) fn origin(&self, function: Option<&FunctionName>, file: Option<&str>) -> Option<Origin> {
        let function = function.filter(|f| f.is_rust);
        let crates = function.map(|f| f.crates.as_slice()).unwrap_or_default();
        let path = file.and_then(by_path);
        match (self.by_crates(crates), path) {
            // A user's crate may be called `core`.
            (Some(Origin::Std), None) if file.is_some() => Some(Origin::Own),
            (Some(origin), _) => Some(origin),
            // A line of std in a function of an unknown crate.
            (None, Some(Origin::Std)) if !crates.is_empty() && !file.is_some_and(|f| f.starts_with(STD_DEPS)) => None,
            (None, Some(origin)) => Some(origin),
            (None, None) => (function.is_some() && file.is_some()).then_some(Origin::Own),
        }
    }

    /// By the crates that a symbol may belong to: one, or for a trait's method the type's and the trait's.
    fn by_crates(&self, crates: &[String]) -> Option<Origin> {
        let (first, last) = (crates.first()?, crates.last()?);
        // No crate depends on the one with `main`: code that names it is its own.
        if crates.iter().any(|c| self.own.contains(c)) {
            return Some(Origin::Own);
        }
        let of_std = |name: &str| STD.contains(&name);
        let one = |name: &str| match name {
            "tokio" => Some(Origin::Tokio),
            name if of_std(name) => Some(Origin::Std),
            name if self.dependencies.contains(name) => Some(Origin::Dependency),
            _ => None,
        };
        match (of_std(first), of_std(last)) {
            // std's trait for a crate's type belongs to that crate, and so does its trait for a type of std.
            (false, true) => one(first),
            (true, false) => one(last),
            _ if first == last => one(first),
            // Of two crates one depends on the other; which one is unknown.
            _ => one(first).filter(|&origin| Some(origin) == one(last)),
        }
    }
}

/// Crates that come with the compiler.
const STD: [&str; 8] =
    ["std", "core", "alloc", "std_detect", "panic_unwind", "panic_abort", "compiler_builtins", "__rustc"];

/// Where std's own dependencies are built: `/rust/deps/hashbrown-0.15.2/…`.
const STD_DEPS: &str = "/rust/deps/";

/// Whose code a source file is, by its path.
pub(crate) fn by_path(file: &str) -> Option<Origin> {
    if file.contains("/rustc/") || file.contains("/rustlib/src/rust/") || file.starts_with(STD_DEPS) {
        return Some(Origin::Std);
    }
    // The number of folders between the marker and the crate's own.
    let (rest, depth) = [("/registry/src/", 1), ("/git/checkouts/", 2), ("/vendor/", 0)]
        .iter()
        .find_map(|&(mark, depth)| Some((file.split_once(mark)?.1, depth)))?;
    let folder = rest.split('/').nth(depth).unwrap_or_default();
    let is_tokio = folder == "tokio" || package_name(folder) == Some("tokio");
    Some(if is_tokio { Origin::Tokio } else { Origin::Dependency })
}

/// `tokio-util` of `tokio-util-0.7.0`.
fn package_name(folder: &str) -> Option<&str> {
    let (at, _) =
        folder.match_indices('-').find(|(at, _)| folder[at + 1..].starts_with(|c: char| c.is_ascii_digit()))?;
    let name = &folder[..at];
    (!name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::function;

    /// A symbol with rustc's mangling before v0.
    fn legacy(path: &[&str]) -> String {
        let path: String = path.iter().map(|part| format!("{}{part}", part.len())).collect();
        format!("_ZN{path}17h0123456789abcdefE")
    }

    #[test]
    fn knows_the_origin_by_path() {
        let crates = Crates::default();
        let rust = function(&legacy(&["f", "g"]));
        for (file, origin) in [
            ("/srv/app/src/main.rs", Origin::Own),
            ("/home/me/.cargo/registry/src/index-1949cf8c/tokio-1.54.1/src/park.rs", Origin::Tokio),
            ("/home/me/.cargo/git/checkouts/tokio-c0c2/3e5f/tokio/src/park.rs", Origin::Tokio),
            ("/home/me/.cargo/git/checkouts/tokio-c0c2/3e5f/tokio-util/src/lib.rs", Origin::Dependency),
            ("/home/me/.cargo/registry/src/index-1949cf8c/hyper-1.0.0/src/lib.rs", Origin::Dependency),
            ("/home/me/.cargo/registry/src/index-1949cf8c/hyper-1.0.0/src/tokio/io.rs", Origin::Dependency),
            ("/home/me/.cargo/registry/src/index-1949cf8c/tokio-util-0.7.0/src/lib.rs", Origin::Dependency),
            ("/rust/deps/hashbrown-0.15.2/src/raw.rs", Origin::Std),
            ("/srv/app/vendor/serde-1.0.0/src/de.rs", Origin::Dependency),
        ] {
            assert_eq!(crates.origin(Some(&rust), Some(file)), Some(origin), "{file}");
        }
        // A line of std inlined into a function of tokio, and a user's crate with the name of one of std's.
        let std_line = Some("/rustc/59807616e1fa/library/core/src/ops/function.rs");
        let (tokio, core) = (function(&legacy(&["tokio", "f"])), function(&legacy(&["core", "f"])));
        assert_eq!(crates.origin(Some(&tokio), std_line), Some(Origin::Tokio));
        assert_eq!(crates.origin(Some(&rust), std_line), None);
        assert_eq!(crates.origin(Some(&core), std_line), Some(Origin::Std));
        assert_eq!(crates.origin(Some(&core), Some("/srv/app/core/src/lib.rs")), Some(Origin::Own));
        // C code compiled into the binary.
        assert_eq!(crates.origin(Some(&function("inflate")), Some("/srv/app/zlib/inflate.c")), None);
        assert_eq!(crates.origin(None, None), None);
    }

    #[test]
    fn knows_certain_origins_by_crate() {
        let mut crates = Crates::default();
        crates.own.insert("app".into());
        crates.learn(b"\0/root/.cargo/registry/src/index-19/hyper-util-1.0.0/src/lib.rs\0/registry/src/x");
        for (symbol, origin) in [
            (legacy(&["app", "handler", "_$u7b$$u7b$closure$u7d$$u7d$"]), Some(Origin::Own)),
            ("_RNvCsbmNqQUJIY6D_3app4work".into(), Some(Origin::Own)),
            (legacy(&["hyper_util", "server"]), Some(Origin::Dependency)),
            (legacy(&["tokio", "runtime", "park"]), Some(Origin::Tokio)),
            (legacy(&["core", "ops", "call_once"]), Some(Origin::Std)),
            // In the workspace or in the registry: unknown.
            (legacy(&["worker", "run"]), None),
            // std's trait, implemented by the type's crate.
            (legacy(&["_$LT$app..Foo$u20$as$u20$core..future..Future$GT$", "poll"]), Some(Origin::Own)),
            (legacy(&["_$LT$worker..Foo$u20$as$u20$core..future..Future$GT$", "poll"]), None),
            (legacy(&["_$LT$worker..Foo$u20$as$u20$tokio..io..Read$GT$", "read"]), None),
            (legacy(&["_$LT$alloc..vec..Vec$LT$T$GT$$u20$as$u20$app..Trait$GT$", "f"]), Some(Origin::Own)),
            ("malloc".into(), None),
        ] {
            let name = function(&symbol);
            assert_eq!(crates.origin(Some(&name), None), origin, "{symbol}: {name:?}");
        }
        assert_eq!(crates.dependencies, BTreeSet::from(["hyper_util".to_string()]));
    }
}
