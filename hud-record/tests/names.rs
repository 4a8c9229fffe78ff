//! Symbols: the results of the resolver and its sandboxed child for real binaries, for damaged ones, and when the child
//! is killed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use hud_common::session::Table;
use hud_record::{
    sandbox::Sandbox,
    symbols::{BinaryId, Cache, Origin, ResolvedAddress, Resolver, Sources},
};
use object::{Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _};
use rustix::process::Signal;
use support::{Recording, program};

/// A resolver with a child of its own, and no cache.
fn resolver() -> (Resolver, Arc<Sources>) {
    with_cache(Cache::default())
}

fn with_cache(cache: Cache) -> (Resolver, Arc<Sources>) {
    let sandbox = Sandbox::start(Some(Path::new(env!("CARGO_BIN_EXE_hud-record")))).unwrap();
    let sources = Arc::new(Sources::new(sandbox, cache));
    (Resolver::new(Arc::clone(&sources), None), sources)
}

/// The child, and its peak memory (kB).
fn peak(sources: &Sources) -> (u32, u64) {
    let pid = sources.sandbox().pid().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    (pid, peak.trim().trim_end_matches(" kB").parse().unwrap())
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

    /// The offset of the only function whose symbol has `part`.
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
    assert_eq!(outermost.origin, Some(Origin::Own), "{context}");
}

#[test]
fn the_child_is_confined() {
    let (mut resolver, sources) = resolver();
    let binary = resolver.open(Path::new("/proc/self/exe"), Path::new("/x")).unwrap();
    assert!(resolver.resolve(binary, &[0])[0].frames.is_empty());
    let confinement = sources.sandbox().confinement().unwrap();
    eprintln!("{confinement:?}");
    assert!(confinement.unprivileged && confinement.no_capabilities && confinement.few_calls);
    // According to the kernel.
    let status = fs::read_to_string(format!("/proc/{}/status", sources.sandbox().pid().unwrap())).unwrap();
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
    let pid = sources.sandbox().pid().unwrap();
    drop((resolver, sources));
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it outlives its parent");
}

/// Name, compiler flags, and commands that follow.
type Kind = (&'static str, &'static [&'static str], &'static [&'static [&'static str]]);

#[test]
fn debug_information_is_found_wherever_it_lies() {
    let base = tempfile::tempdir().unwrap();
    // Compression, and split debug information as rustc makes it.
    let kinds: [Kind; 6] = [
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
    // Another debug file of that name is rejected.
    let folder = base.path().join("debuglink");
    let (binary, debug) = (folder.join("small"), folder.join("small.debug"));
    let mut bytes = fs::read(&debug).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&debug, &bytes).unwrap();
    let (mut resolver, _sources) = resolver();
    let id = resolver.open(&binary, &binary).unwrap();
    assert!(resolver.resolve(id, &[last])[0].frames.is_empty());
}

/// A copy of a file that may be changed.
fn copy(from: &Path, folder: &Path, name: &str) -> PathBuf {
    let to = folder.join(name);
    fs::copy(from, &to).unwrap();
    to
}

/// Sends a request, and has the child killed while it has it.
fn resolve_and_kill(
    resolver: &mut Resolver,
    sources: &Sources,
    binary: BinaryId,
    offset: u64,
    times: u32,
) -> ResolvedAddress {
    std::thread::scope(|scope| {
        let mut last = None;
        let mut stop = || {
            support::until("another child", || sources.sandbox().pid().is_some_and(|pid| last != Some(pid)));
            let pid = sources.sandbox().pid().unwrap();
            last = Some(pid);
            support::signal_process(pid, Signal::STOP);
            pid
        };
        let mut pid = stop();
        let asking = scope.spawn(move || resolver.resolve(binary, &[offset]).remove(0));
        for left in (0..times).rev() {
            // It is stopped: the request waits in its socket.
            let unread = || fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok();
            assert!(unread());
            std::thread::sleep(std::time::Duration::from_millis(300));
            support::signal_process(pid, Signal::KILL);
            if left > 0 {
                pid = stop();
            }
        }
        asking.join().unwrap()
    })
}

#[test]
fn a_child_that_is_killed_costs_nothing_once_and_names_twice() {
    let dir = tempfile::tempdir().unwrap();
    let binary = compiled(dir.path(), &["-g"]);
    let offset = Symbols::of(&binary).offset("5outer");
    let (mut resolver, sources) = resolver();
    let id = resolver.open(&binary, &binary).unwrap();
    let once = resolve_and_kill(&mut resolver, &sources, id, offset, 1);
    assert_eq!(once.frames.last().unwrap().function.as_deref(), Some("small::outer"));
    assert!(resolver.notes().is_empty(), "{:?}", resolver.notes());
    // A child that is killed while idle is replaced silently.
    let pid = sources.sandbox().pid().unwrap();
    support::signal_process(pid, Signal::KILL);
    let has_ended = || fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|s| s.contains("State:\tZ"));
    support::until("its end", has_ended);
    assert_whole(&mut resolver, id, offset + 4, "after the next one");
    // Killed a second time during a request about the same file, which is then given up.
    let other = copy(&binary, dir.path(), "other");
    let twice = resolver.open(&other, &other).unwrap();
    assert!(resolve_and_kill(&mut resolver, &sources, twice, offset + 6, 2).frames.is_empty());
    assert!(resolver.notes().iter().any(|n| n.contains("other") && n.contains("twice")), "{:?}", resolver.notes());
    assert_whole(&mut resolver, id, offset + 5, "the others are");
}

#[test]
fn a_file_that_is_truncated_while_it_is_read_costs_its_names_only() {
    let dir = tempfile::tempdir().unwrap();
    let binary = compiled(dir.path(), &["-g"]);
    let offset = Symbols::of(&binary).offset("5outer");
    let victim = copy(&binary, dir.path(), "victim");
    let (mut resolver, _sources) = resolver();
    let (id, good) = (resolver.open(&victim, &victim).unwrap(), resolver.open(&binary, &binary).unwrap());
    fs::File::options().write(true).open(&victim).unwrap().set_len(4096).unwrap();
    assert!(resolver.resolve(id, &[offset])[0].frames.is_empty());
    assert_whole(&mut resolver, good, offset, "the other file");
}

#[test]
fn garbage_costs_names_only() {
    let dir = tempfile::tempdir().unwrap();
    let binary = compiled(dir.path(), &["-g"]);
    let whole = fs::read(&binary).unwrap();
    let offset = Symbols::of(&binary).offset("5outer");
    let (mut resolver, sources) = resolver();
    let good = resolver.open(&binary, &binary).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(below).unwrap()).unwrap()
    };
    let mut named = 0;
    for round in 0..60 {
        let mut bytes = whole.clone();
        match round % 3 {
            // Cut anywhere; damaged in the headers; damaged anywhere.
            0 => bytes.truncate(random(whole.len())),
            1 => (0..8).for_each(|_| bytes[random(64 + 56 * 14)] = u8::try_from(random(256)).unwrap()),
            _ => (0..whole.len() / 50).for_each(|_| bytes[4096 + random(whole.len() - 4096)] ^= 0x55),
        }
        let broken = dir.path().join("broken");
        fs::write(&broken, &bytes).unwrap();
        // A file that is not ELF is not sent to the child at all.
        if let Some(id) = resolver.open(&broken, &broken) {
            let offsets: Vec<u64> = (0..64).map(|i| offset + i * 97).collect();
            named += resolver.resolve(id, &offsets).iter().filter(|l| !l.frames.is_empty()).count();
        }
        fs::remove_file(&broken).unwrap();
    }
    eprintln!("{named} addresses of broken files have names; {:?}", resolver.notes());
    assert_whole(&mut resolver, good, offset, "after all of them");
    assert!(sources.sandbox().pid().is_some());
}

#[test]
fn a_section_that_unpacks_to_too_much_is_left_packed() {
    let dir = tempfile::tempdir().unwrap();
    let binary = compiled(dir.path(), &["-g"]);
    let offset = Symbols::of(&binary).offset("5outer");
    run("objcopy", &["--compress-debug-sections=zlib", "small"], dir.path());
    let mut bytes = fs::read(&binary).unwrap();
    let headers: Vec<usize> = {
        let elf = object::File::parse(&*bytes).unwrap();
        let packed = elf.sections().filter(|s| s.name().is_ok_and(|n| n.starts_with(".debug_")));
        packed.filter_map(|s| usize::try_from(s.file_range()?.0).ok()).collect()
    };
    // `ch_size`, behind `ch_type` and `ch_reserved`: 600 MB each.
    headers.iter().for_each(|&at| bytes[at + 8..at + 16].copy_from_slice(&600_000_000_u64.to_le_bytes()));
    fs::write(&binary, &bytes).unwrap();
    let (mut resolver, sources) = resolver();
    let id = resolver.open(&binary, &binary).unwrap();
    let found = resolver.resolve(id, &[offset]).remove(0);
    // The symbol table has it.
    assert_eq!(found.frames.last().unwrap().function.as_deref(), Some("small::outer"));
    assert_eq!(found.frames.last().unwrap().file, None);
    let peak = peak(&sources).1;
    assert!(peak < 100_000, "{peak} kB");
}

#[test]
fn without_debug_information_the_symbol_table_names() {
    let dir = tempfile::tempdir().unwrap();
    let binary = compiled(dir.path(), &[]);
    let offset = Symbols::of(&binary).offset("5outer");
    run("objcopy", &["--strip-debug", "small"], dir.path());
    let (mut one, _sources) = resolver();
    let id = one.open(&binary, &binary).unwrap();
    let found = one.resolve(id, &[offset, offset + 3]);
    for located in &found {
        let frame = located.frames.last().unwrap();
        assert_eq!((frame.function.as_deref(), frame.line), (Some("small::outer"), None));
        // The crate that has `main`.
        assert_eq!(frame.origin, Some(Origin::Own));
    }
    run("objcopy", &["--strip-all", "small"], dir.path());
    let (mut two, _sources) = resolver();
    let id = two.open(&binary, &binary).unwrap();
    assert_eq!(two.resolve(id, &[offset])[0].frames, []);
}

#[test]
fn the_cache_serves_the_next_session() {
    let dir = tempfile::tempdir().unwrap();
    let binary = compiled(dir.path(), &["-g", "-Csplit-debuginfo=unpacked", "-Clink-arg=-Wl,--build-id"]);
    let offset = Symbols::of(&binary).offset("5outer");
    let folder = dir.path().join("cache");
    let (mut one, _sources) = with_cache(Cache::in_folder(&folder));
    let id = one.open(&binary, &binary).unwrap();
    assert_whole(&mut one, id, offset, "at first");
    // Functions inlined there are in the objects only.
    let functions = |resolver: &mut Resolver, id, offset| resolver.resolve(id, &[offset]).remove(0).frames.len();
    assert_eq!(functions(&mut one, id, offset + 4), 2);
    one.save();
    let objects =
        || fs::read_dir(dir.path()).unwrap().flatten().filter(|f| f.path().extension().is_some_and(|e| e == "dwo"));
    assert!(objects().count() > 0);
    objects().for_each(|f| fs::remove_file(f.path()).unwrap());
    // Its debug information has been removed, but it is not read again.
    let (mut two, _sources) = with_cache(Cache::in_folder(&folder));
    // By its build id, wherever it is now.
    let moved = copy(&binary, dir.path(), "moved");
    let id = two.open(&moved, &moved).unwrap();
    assert_whole(&mut two, id, offset, "then");
    assert_eq!(functions(&mut two, id, offset + 4), 2);
    assert_eq!(functions(&mut two, id, offset + 5), 1);
}

#[test]
fn a_container_has_its_own_debug_files() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root, to chroot");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("sleeper.rs");
    fs::write(&source, "#[inline(never)]\nfn outer() { loop { std::thread::park() } }\nfn main() { outer() }\n")
        .unwrap();
    let flags = ["-g", "-Ctarget-feature=+crt-static", "-Clink-arg=-Wl,--build-id", "-o", "sleeper", "sleeper.rs"];
    run("rustc", &flags, dir.path());
    let binary = dir.path().join("sleeper");
    let offset = Symbols::of(&binary).offset("5outer");
    let id: String = {
        let data = fs::read(&binary).unwrap();
        let elf = object::File::parse(&*data).unwrap();
        elf.build_id().unwrap().unwrap().iter().map(|b| format!("{b:02x}")).collect()
    };
    let debug = format!("usr/lib/debug/.build-id/{}/{}.debug", &id[..2], &id[2..]);
    fs::create_dir_all(dir.path().join(&debug).parent().unwrap()).unwrap();
    run("objcopy", &["--only-keep-debug", "sleeper", &debug], dir.path());
    run("objcopy", &["--strip-all", "sleeper"], dir.path());
    let mut child = Command::new("chroot").arg(dir.path()).arg("/sleeper").spawn().unwrap();
    let exe = PathBuf::from(format!("/proc/{}/exe", child.id()));
    support::until("the chroot", || fs::read_link(&exe).is_ok_and(|e| e.ends_with("sleeper")));
    let sandbox = Sandbox::start(Some(Path::new(env!("CARGO_BIN_EXE_hud-record")))).unwrap();
    let mut resolver = Resolver::new(Arc::new(Sources::new(sandbox, Cache::default())), Some(child.id()));
    let id = resolver.open(&exe, Path::new("/sleeper")).unwrap();
    let found = resolver.resolve(id, &[offset]).remove(0);
    child.kill().unwrap();
    child.wait().unwrap();
    let frame = found.frames.last().unwrap();
    assert_eq!((frame.function.as_deref(), frame.line), (Some("sleeper::outer"), Some(2)), "{:?}", resolver.notes());
}

#[test]
fn the_vdso_is_a_file_like_any_other() {
    use std::os::unix::fs::FileExt as _;
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let range = maps.lines().find(|l| l.ends_with("[vdso]")).unwrap().split(' ').next().unwrap();
    let (start, end) = range.split_once('-').unwrap();
    let (start, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
    let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
    fs::File::open("/proc/self/mem").unwrap().read_exact_at(&mut bytes, start).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vdso");
    fs::write(&path, &bytes).unwrap();
    let elf = object::File::parse(&*bytes).unwrap();
    let clock = elf.dynamic_symbols().find(|s| s.name() == Ok("__vdso_clock_gettime")).unwrap();
    let (mut resolver, _sources) = resolver();
    let id = resolver.open(&path, Path::new("[vdso]")).unwrap();
    let found = resolver.resolve(id, &[clock.address() + 4]).remove(0);
    let name = found.frames[0].function.clone().unwrap();
    assert!(name.ends_with("clock_gettime"), "{name}");
}

/// Every function of hud's test programs, with each mangling.
#[test]
fn names_are_readable() {
    for kind in ["plain", "v0", "fat-lto"] {
        let binary = program(kind).join("test-async-app");
        let symbols = Symbols::of(&binary);
        let (mut resolver, _sources) = resolver();
        let id = resolver.open(&binary, &binary).unwrap();
        let offsets: Vec<u64> = symbols.0.iter().map(|(_, offset, _)| *offset).collect();
        let found = resolver.resolve(id, &offsets);
        let names: Vec<_> = found.iter().filter_map(|l| l.frames.last()?.function.clone()).collect();
        assert!(names.len() * 100 >= offsets.len() * 99, "{kind}: {} of {}", names.len(), offsets.len());
        for name in &names {
            for noise in ["17h", "{{", "#0}", "_env#", "{async_fn#", "{impl#", "_ZN", ".llvm.", "_R", "$LT$"] {
                // `_R` begins a symbol; inside one it may be anything.
                let has = if noise == "_R" { name.starts_with("_RN") } else { name.contains(noise) };
                assert!(!has, "{kind}: {name} has {noise}");
            }
        }
        // The body of an async function, and a closure of `main`.
        for name in ["test_async_app::cpu_hog::{closure}", "test_async_app::burn_cpu", "test_async_app::main"] {
            // With fat LTO they are inlined.
            if kind == "fat-lto" && name != "test_async_app::main" {
                continue;
            }
            let origin: Vec<_> =
                found.iter().flat_map(|l| &l.frames).filter(|f| f.function.as_deref() == Some(name)).collect();
            assert!(!origin.is_empty(), "{kind}: no {name}");
            assert!(origin.iter().all(|f| f.origin == Some(Origin::Own)), "{kind}: {origin:?}");
        }
        // All origins reported for tokio and std are true.
        for frame in found.iter().flat_map(|l| &l.frames) {
            let name = frame.function.as_deref().unwrap_or_default();
            let expected = match name.split("::").next().unwrap_or_default() {
                "tokio" => Some(Origin::Tokio),
                "std" => Some(Origin::Std),
                "test_async_app" => Some(Origin::Own),
                _ => continue,
            };
            assert_eq!(frame.origin, expected, "{kind}: {frame:?}");
        }
    }
}

/// `debug = "line-tables-only"`, which README recommends, has neither namespaces nor linkage names. So its names were
/// worse than those of a build without debug information: `{async_fn#0}`, `select`, `take_waker`.
#[test]
fn line_tables_take_nothing_from_names() {
    let dir = tempfile::tempdir().unwrap();
    let lines = program("lines").join("test-async-app");
    let symbols = Symbols::of(&lines);
    copy(&lines, dir.path(), "bare");
    run("objcopy", &["--strip-debug", "bare"], dir.path());
    let within = |(_, offset, size): &(String, u64, u64)| [1, 3, 5, 7].map(|eighths| offset + size * eighths / 8);
    let offsets: Vec<u64> = symbols.0.iter().flat_map(within).collect();
    let located = |binary: &Path| {
        let (mut resolver, _sources) = resolver();
        let id = resolver.open(binary, binary).unwrap();
        resolver.resolve(id, &offsets)
    };
    let (with, without) = (located(&lines), located(&dir.path().join("bare")));
    let outermost = |located: &ResolvedAddress| located.frames.last().and_then(|f| f.function.clone());
    let pairs: Vec<_> = with.iter().map(outermost).zip(without.iter().map(outermost)).collect();
    // For merged functions of std, debug information and the symbol table may have different names.
    let is_std =
        |name: &Option<String>| name.as_deref().is_some_and(|n| !n.contains("tokio") && !n.contains("test_async_app"));
    let others: Vec<_> = pairs.iter().filter(|(with, without)| with != without && !is_std(without)).collect();
    assert!(others.len() * 200 <= pairs.len(), "{} of {} are others: {others:#?}", others.len(), pairs.len());

    let (mut inlined, mut own, mut bare) = (0, 0, Vec::new());
    for frame in with.iter().flat_map(|l| &l.frames) {
        let Some(file) = &frame.file else { continue };
        let name = frame.function.as_deref().unwrap();
        // Code of the C library in the binary is not Rust's.
        if !file.ends_with(".rs") {
            continue;
        }
        inlined += 1;
        // Functions that std exports under a C name: `rust_eh_personality`.
        if file.contains("/rustc/") && !name.contains(['{', ':']) {
            continue;
        }
        if !name.contains("::") || name.starts_with('{') {
            bare.push(frame);
            continue;
        }
        for noise in ["{async_fn", "{async_block", "_env#", "{impl"] {
            assert!(!name.contains(noise), "{frame:?}");
        }
        if name == "core::ptr::drop_in_place" {
            // At the lines of the dropped value.
            continue;
        }
        if file.ends_with("examples/test-async-app.rs") {
            own += 1;
            assert!(name.contains("test_async_app::"), "{frame:?}");
            assert_eq!(frame.origin, Some(Origin::Own), "{frame:?}");
        } else if file.contains("/registry/src/") && file.contains("/tokio-1.") {
            assert!(name.contains("tokio::"), "{frame:?}");
            assert_eq!(frame.origin, Some(Origin::Tokio), "{frame:?}");
        }
    }
    assert!(bare.is_empty(), "{} of {inlined}: {:#?}", bare.len(), bare.get(..20.min(bare.len())));
    assert!(inlined > 5_000 && own > 100, "{inlined} frames, {own} of its own");
    let names: BTreeSet<&str> = with.iter().flat_map(|l| &l.frames).filter_map(|f| f.function.as_deref()).collect();
    // Its code has no line, after code of the program's own.
    assert!(!names.contains("test_async_app::encode_utf8_raw"));
    for name in
        ["test_async_app::cpu_hog::{closure}", "test_async_app::burn_cpu", "test_async_app::short_lived::{closure}"]
    {
        assert!(names.contains(&name), "no {name}");
    }
}

/// With line tables only, task types come from the code.
#[test]
fn line_tables_leave_task_types_their_names() {
    if !support::may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let types = |binary: &str| {
        let target = support::Target::start(&program(binary).join("test-async-app"), &[]);
        let recording =
            support::record(target.pid(), &dir.path().join(format!("session-{binary}")), &["--duration", "1"]);
        target.stop();
        let kinds = recording.texts(Table::TaskTypes, "kind");
        let schedulers = recording.texts(Table::TaskTypes, "scheduler");
        let names = recording.texts(Table::TaskTypes, "name");
        // Blocking work may have no name.
        let tasks = kinds.into_iter().zip(schedulers).zip(names).filter(|((kind, _), _)| kind == "task");
        tasks.map(|((_, scheduler), name)| (scheduler, name)).collect::<BTreeSet<_>>()
    };
    let full = types("");
    assert!(full.iter().filter(|(_, name)| name.starts_with("test_async_app::")).count() >= 9, "{full:?}");
    assert_eq!(types("lines"), full);
}

/// `render_thumbnail` was shown as `healthy_hash_file`, which did not even run, as LLVM had merged their drop glue; and
/// a plain `async fn` and `async {}` had no name. If symbols are not certain, the location is.
#[test]
fn types_that_symbols_confuse_have_a_name_or_location_of_their_own() {
    if !support::may_trace() {
        return;
    }
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/twins.rs")).unwrap();
    let lines: Vec<&str> = source.lines().collect();
    let dir = tempfile::tempdir().unwrap();
    let target = support::Target::start(&program("plain/twins"), &["ill"]);
    let session = dir.path().join("session");
    let recording = support::record(target.pid(), &session, &["--duration", "1"]);
    target.stop();

    let texts = |column| recording.texts(Table::TaskTypes, column);
    let places = texts("file").into_iter().zip(recording.integers(Table::TaskTypes, "line"));
    let mut written = BTreeSet::new();
    let mut placed = 0;
    for ((name, kind), (file, line)) in texts("name").into_iter().zip(texts("kind")).zip(places) {
        eprintln!("{kind} {name} {file} {line:?}");
        if kind != "task" {
            assert!(!name.contains("async") && !name.contains("future"), "{name}");
            continue;
        }
        let line = line.unwrap_or_else(|| panic!("{name} has no place"));
        let at = lines[usize::try_from(line).unwrap() - 1].trim();
        assert!(file.ends_with("examples/twins.rs"), "{name}, {file}");
        let function = at.strip_prefix("async fn ").and_then(|rest| rest.split('(').next());
        if name.starts_with("future at ") {
            placed += 1;
            assert!(name.ends_with(&format!("examples/twins.rs:{line}")), "{name}, {at}");
        } else {
            match function {
                Some(function) => assert_eq!(name, format!("twins::{function}"), "{at}"),
                // A block in a function: symbols contain no more of it.
                None => assert!(["twins::spawn", "twins::spawn::{closure}"].contains(&name.as_str()), "{name}, {at}"),
            }
        }
        written.insert(function.unwrap_or(at).to_string());
    }
    for function in ["healthy_hash_file", "render_thumbnail", "fetch", "fetch_twice", "nothing"] {
        assert!(written.contains(function), "no {function} in {written:?}");
    }
    assert!(written.iter().any(|at| at.contains("async {}")), "{written:?}");
    let notes = &recording.manifest.notes;
    assert_eq!(placed > 0, notes.iter().any(|n| n.contains("their future's source location")), "{notes:?}");
}

/// The frames of a recording that debug information names, in the program's own source.
fn own_lines(recording: &Recording) -> usize {
    let files = recording.texts(Table::Frames, "file");
    let origins = recording.texts(Table::Frames, "origin");
    files.iter().zip(&origins).filter(|(f, o)| f.ends_with("test-async-app.rs") && *o == "own").count()
}

#[test]
fn a_binary_that_was_replaced_or_deleted_is_read_as_it_runs() {
    if !support::may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for gone in ["replaced", "deleted"] {
        let binary = copy(&program("test-async-app"), dir.path(), &format!("app-{gone}"));
        let target = support::Target::start(&binary, &[]);
        if gone == "replaced" {
            // By another build, without debug information, as a deployment does.
            let other = copy(&program("plain/test-async-app"), dir.path(), "new");
            fs::rename(other, &binary).unwrap();
        } else {
            fs::remove_file(&binary).unwrap();
        }
        let session = dir.path().join(gone);
        let recording = support::record(target.pid(), &session, &["--duration", "2"]);
        assert!(own_lines(&recording) > 3, "{gone}: {:?}", recording.texts(Table::Frames, "function"));
        let columns = recording.integers(Table::Frames, "col");
        assert!(columns.iter().flatten().any(|&c| c > 1), "{gone}: no columns");
    }
}

/// Run by `cargo xtask bench names`, which parses its output.
#[test]
#[ignore = "a measurement, of the binary in HUD_BIG_BINARY"]
fn every_function_of_a_large_binary() {
    let binary = PathBuf::from(std::env::var_os("HUD_BIG_BINARY").expect("HUD_BIG_BINARY"));
    let offsets: Vec<u64> = Symbols::of(&binary).0.iter().map(|(_, offset, size)| offset + size / 2).collect();
    let began = std::time::Instant::now();
    let (mut resolver, sources) = resolver();
    let id = resolver.open(&binary, &binary).unwrap();
    let whole =
        |located: &[ResolvedAddress]| located.iter().filter(|l| l.frames.iter().any(|f| f.line.is_some())).count();
    assert!(whole(&resolver.resolve(id, &offsets[..1])) > 0, "the first function has no line");
    let first = began.elapsed();
    let (mut named, mut children, mut most) = (0, std::collections::HashSet::new(), 0);
    for some in offsets.chunks(1000) {
        named += whole(&resolver.resolve(id, some));
        let (child, peak) = peak(&sources);
        children.insert(child);
        most = most.max(peak);
    }
    println!(
        "functions={} named={named} first_ms={} all_ms={} peak_kb={most} children={}",
        offsets.len(),
        first.as_millis(),
        began.elapsed().as_millis(),
        children.len()
    );
}
