//! Whose code a mapped file is, as far as its path says it.

use std::path::Path;

use super::frame::Origin;

/// The kind of file that contains code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ModuleKind {
    /// The binary, or the shared library with tokio.
    Program,
    Libc,
    Kernel,
    /// A library of the system.
    System,
    /// Another library, possibly a plugin of the user's.
    Library,
}

impl ModuleKind {
    pub(crate) fn by_path(path: &str) -> Self {
        // The C library and its parts, of glibc and musl.
        const LIBC: [&str; 9] = [
            "libc",
            "libm",
            "libpthread",
            "libdl",
            "librt",
            "libresolv",
            "ld-linux-x86-64",
            "ld-musl-x86_64",
            "libc.musl-x86_64",
        ];
        // The folders of distributions' libraries.
        const SYSTEM: [&str; 5] = ["/usr/", "/lib/", "/lib64/", "/nix/store/", "/snap/"];
        let name = Path::new(path).file_name().and_then(|n| n.to_str()).unwrap_or_default();
        // `libc.so.6`, or `libc-2.31.so` before glibc 2.34.
        let stem = name.split_once(".so").map_or(name, |(stem, _)| stem);
        let stem = stem.split_once("-2.").map_or(stem, |(stem, _)| stem);
        if path.starts_with('[') {
            ModuleKind::Kernel
        } else if LIBC.contains(&stem) {
            ModuleKind::Libc
        } else if SYSTEM.iter().any(|folder| path.starts_with(folder)) {
            ModuleKind::System
        } else {
            ModuleKind::Library
        }
    }

    /// Whose code it is, as the session states it; `None` if not certain.
    pub(crate) fn origin(self, origin: Option<Origin>) -> Option<&'static str> {
        match (self, origin) {
            (ModuleKind::Kernel, _) => Some("kernel"),
            (ModuleKind::Libc, _) => Some("libc"),
            (_, Some(Origin::Std)) => Some("std"),
            (_, Some(Origin::Tokio)) => Some("tokio"),
            (_, Some(Origin::Dependency)) => Some("dependency"),
            (ModuleKind::Program | ModuleKind::Library, Some(Origin::Own)) => Some("own"),
            (ModuleKind::Program, None) => None,
            (ModuleKind::System | ModuleKind::Library, _) => Some("system"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_kind_of_a_module_by_its_path() {
        for (path, place) in [
            ("/usr/lib/x86_64-linux-gnu/libc.so.6", ModuleKind::Libc),
            ("/lib/x86_64-linux-gnu/libpthread-2.31.so", ModuleKind::Libc),
            ("/usr/lib64/ld-linux-x86-64.so.2", ModuleKind::Libc),
            ("/lib/ld-musl-x86_64.so.1", ModuleKind::Libc),
            ("/usr/lib/x86_64-linux-gnu/libcrypto.so.3", ModuleKind::System),
            ("/srv/app/plugin.so", ModuleKind::Library),
            ("[vdso]", ModuleKind::Kernel),
        ] {
            assert_eq!(ModuleKind::by_path(path), place, "{path}");
        }
        assert_eq!(ModuleKind::System.origin(Some(Origin::Own)), Some("system"));
        assert_eq!(ModuleKind::System.origin(Some(Origin::Std)), Some("std"));
        assert_eq!(ModuleKind::Library.origin(Some(Origin::Own)), Some("own"));
        assert_eq!(ModuleKind::Program.origin(None), None);
    }
}
