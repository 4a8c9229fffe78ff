//! Names: what the resolver and its confined child make of real binaries, of broken ones, and of being killed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use hud_record::{
    intake::Intake,
    names::{BinaryId, Cache, Resolver, Sources, Whose},
};
use object::{Object as _, ObjectSegment as _, ObjectSymbol as _};

/// A resolver with a child of its own, and no cache.
fn resolver() -> (Resolver, Arc<Sources>) {
    with_cache(Cache::default())
}

fn with_cache(cache: Cache) -> (Resolver, Arc<Sources>) {
    let intake = Intake::start_program(Path::new(env!("CARGO_BIN_EXE_hud-record"))).unwrap();
    let sources = Arc::new(Sources::new(intake, cache));
    (Resolver::new(Arc::clone(&sources), None), sources)
}

/// Where the functions of a binary lie in its file, by their symbols.
struct Symbols(Vec<(String, u64, u64)>);

impl Symbols {
    fn of(binary: &Path) -> Self {
        let data = fs::read(binary).unwrap();
        let elf = object::File::parse(&*data).unwrap();
        let offset = |address: u64| {
            elf.segments().find_map(|s| {
                let inside = address.checked_sub(s.address()).filter(|&d| d < s.file_range().1)?;
                Some(s.file_range().0 + inside)
            })
        };
        let symbols = elf.symbols().filter(|s| s.kind() == object::SymbolKind::Text && s.size() > 0);
        Symbols(symbols.filter_map(|s| Some((s.name().ok()?.into(), offset(s.address())?, s.size()))).collect())
    }

    /// The offset of the one function whose symbol has `part`.
    fn offset(&self, part: &str) -> u64 {
        let found: Vec<_> = self.0.iter().filter(|(name, ..)| name.contains(part)).collect();
        assert_eq!(found.len(), 1, "{part}: {found:?}");
        found[0].1
    }
}

/// A program of few functions, compiled with further flags.
fn compiled(folder: &Path, flags: &[&str]) -> PathBuf {
    let source = folder.join("small.rs");
    fs::write(&source, SMALL).unwrap();
    let binary = folder.join("small");
    let mut rustc = Command::new("rustc");
    rustc.current_dir(folder).arg(&source).args(["-Copt-level=1", "-o"]).arg(&binary).args(flags);
    assert!(rustc.status().unwrap().success());
    binary
}

const SMALL: &str = "\
#[inline(never)]
fn outer(n: u64) -> u64 {
    std::hint::black_box(n) + 1
}
fn main() {
    println!(\"{}\", outer(std::env::args().count() as u64));
}
";

fn run(program: &str, arguments: &[&str], folder: &Path) {
    assert!(Command::new(program).args(arguments).current_dir(folder).status().unwrap().success(), "{program}");
}

/// Asserts that `outer` of the program is found by its DWARF: function, file and line.
fn assert_whole(resolver: &mut Resolver, binary: BinaryId, offset: u64, context: &str) {
    let found = resolver.resolve(binary, &[offset]).remove(0);
    let outermost = found.frames.last().unwrap_or_else(|| panic!("{context}: nothing; {:?}", resolver.notes()));
    assert_eq!(outermost.function.as_deref(), Some("small::outer"), "{context}");
    assert!(outermost.file.as_deref().is_some_and(|f| f.ends_with("/small.rs")), "{context}: {found:?}");
    assert!(matches!(outermost.line, Some(2 | 3)), "{context}: {found:?}");
    assert!(outermost.column.is_some(), "{context}");
    assert_eq!(outermost.whose, Some(Whose::Own), "{context}");
}

#[test]
fn the_child_may_do_nothing() {
    let (mut resolver, sources) = resolver();
    let binary = resolver.open(Path::new("/proc/self/exe"), Path::new("/x")).unwrap();
    assert!(resolver.resolve(binary, &[0])[0].frames.is_empty());
    let confinement = sources.intake().confinement().unwrap();
    eprintln!("{confinement:?}");
    assert!(confinement.unprivileged && confinement.no_capabilities && confinement.few_calls);
    // As the kernel sees it.
    let status = fs::read_to_string(format!("/proc/{}/status", sources.intake().pid().unwrap())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(&format!("{name}:"))).unwrap();
        line.split_once(':').unwrap().1.trim().to_string()
    };
    if rustix::process::geteuid().is_root() {
        assert_eq!(field("Uid"), "65534\t65534\t65534\t65534");
        assert_eq!(field("Gid"), "65534\t65534\t65534\t65534");
        assert_eq!(field("Groups"), "");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2");
    let pid = sources.intake().pid().unwrap();
    drop((resolver, sources));
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it outlives whoever started it");
}

#[test]
fn debug_information_is_found_wherever_it_lies() {
    let base = tempfile::tempdir().unwrap();
    // Compression, and split debug information as rustc makes it.
    let kinds: [(&str, &[&str], &[&[&str]]); 6] = [
        ("as it is", &["-g"], &[]),
        ("zlib", &["-g"], &[&["objcopy", "--compress-debug-sections=zlib", "small"]]),
        ("zstd", &["-g"], &[&["objcopy", "--compress-debug-sections=zstd", "small"]]),
        ("dwo", &["-g", "-Csplit-debuginfo=unpacked"], &[]),
        ("dwp", &["-g", "-Csplit-debuginfo=packed"], &[]),
        (
            "debuglink",
            &["-g"],
            &[
                &["objcopy", "--only-keep-debug", "small", "small.debug"],
                &["objcopy", "--strip-all", "--add-gnu-debuglink=small.debug", "small"],
            ],
        ),
    ];
    let mut last = 0;
    for (kind, flags, commands) in kinds {
        let folder = base.path().join(kind.replace(' ', "-"));
        fs::create_dir(&folder).unwrap();
        let binary = compiled(&folder, flags);
        let offset = Symbols::of(&binary).offset("5outer");
        for command in commands {
            run(command[0], &command[1..], &folder);
        }
        let (mut resolver, _sources) = resolver();
        let id = resolver.open(&binary, &binary).unwrap();
        assert_whole(&mut resolver, id, offset, kind);
        last = offset;
    }
    // Another debug file of that name is not believed.
    let folder = base.path().join("debuglink");
    let (binary, debug) = (folder.join("small"), folder.join("small.debug"));
    let mut bytes = fs::read(&debug).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&debug, &bytes).unwrap();
    let (mut resolver, _sources) = resolver();
    let id = resolver.open(&binary, &binary).unwrap();
    assert!(resolver.resolve(id, &[last])[0].frames.is_empty());
}
