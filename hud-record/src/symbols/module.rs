//! A mapped file as the sandbox reads it: its segments, its symbols and its debug information, wherever that lies.
//!
//! This runs in the confined child: whatever the files hold, the worst that they can do is to end it. They stay mapped
//! for as long as the child lives, and it lives no longer than its memory is within bounds; so nothing here is freed, and
//! readers simply borrow. No path is ever opened: what else is needed comes as a descriptor.

use std::{
    borrow::Cow,
    cell::{OnceCell, RefCell},
    collections::HashMap,
    fs::File,
    rc::Rc,
    sync::Arc,
};

use addr2line::{Context, LookupContinuation as _, LookupResult, SplitDwarfLoad};
use gimli::{
    DebugInfoOffset, Dwarf, DwarfPackage, DwarfSections, EndianSlice, LittleEndian, SectionId, UnitOffset, UnitRef,
};
use object::{
    CompressionFormat, Object as _, ObjectSection as _, elf,
    read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _, Sym as _},
};

use super::{
    line_tables::{self, Paths},
    file_map,
    origin::Crates,
};
use crate::{
    sandbox::protocol::{LONGEST_NAME, ResolvedAddress, MOST_FRAMES, ResolvedFrame, Opened, Role, TokioDebug, WantedObject},
    inspect::{FunctionName, function, local, poll_types},
    tasks::{DebugInfo, Layouts},
};

type Elf = ElfFile64<'static>;
type Slice = EndianSlice<'static, LittleEndian>;
type Sections = DwarfSections<Slice>;
type Objects = HashMap<u64, Option<Sections>>;

/// Bytes of a file. Debug information of the largest programs goes to a few gigabytes.
const LARGEST_FILE: u64 = 16 << 30;
/// Bytes that a module's compressed sections may unpack to, all together.
const MOST_UNPACKED: u64 = 768 << 20;
/// How much larger than itself a compressed section may be. Debug information packs to a third, to a tenth at best.
const MOST_TIMES: u64 = 64;
/// Symbols that are read. The largest browsers have a million.
const MOST_SYMBOLS: usize = 4 << 20;
/// Objects of split debug information that are read for one module: one for each codegen unit.
const MOST_OBJECTS: usize = 16 << 10;
/// How far a symbol that tells no size reaches, where no other one comes before: hand-written assembly is short.
const SHORT: u64 = 4096;

/// A module.
pub(crate) struct ModuleFile {
    main: Part,
    loads: Vec<Load>,
    build_id: Option<Vec<u8>>,
    /// Its debug file, where that is another one.
    debug: Option<Part>,
    supplement: Option<Part>,
    package: Option<Part>,
    /// Objects of split debug information that were handed over; `None` for those that are not to be had.
    objects: Objects,
    /// Made when the first address is looked up: until then more files may come.
    lookup: Option<Lookup>,
    /// What futures are laid out by; opened when that is first asked for.
    debug_info: Option<DebugInfo>,
    unpacked: u64,
}

/// One of its files.
struct Part {
    data: &'static [u8],
    elf: Elf,
}

/// A segment with code.
struct Load {
    vaddr: u64,
    offset: u64,
    file_size: u64,
}

struct Lookup {
    dwarf: Option<Arc<Dwarf<Slice>>>,
    context: Option<Context<Slice>>,
    package: Option<DwarfPackage<Slice>>,
    symbols: Symbols,
    crates: Crates,
    /// The crates' source files; read when a name is met that is not whole.
    sources: OnceCell<line_tables::Crates>,
    /// Whole paths of inlined functions, by unit, of units that have bare names only.
    paths: RefCell<HashMap<DebugInfoOffset, Rc<Paths>>>,
}

/// What is at an address.
pub(crate) enum Found {
    /// This.
    ResolvedAddress(ResolvedAddress),
    /// It takes an object of split debug information.
    Wants(WantedObject),
}

impl ModuleFile {
    /// Opens a mapped file.
    pub(crate) fn open(file: &File) -> Result<Self, String> {
        let (data, elf) = map(file, |_| true)?;
        let endian = elf.endian();
        if elf.elf_header().e_machine(endian) != elf::EM_X86_64 {
            return Err("for another processor".into());
        }
        let code = |h: &&elf::ProgramHeader64<_>| {
            h.p_type(endian) == elf::PT_LOAD && h.p_flags(endian) & elf::PF_X != elf::ProgramFlags(0)
        };
        let loads = elf.elf_program_headers().iter().filter(code).map(|h| Load {
            vaddr: h.p_vaddr(endian),
            offset: h.p_offset(endian),
            file_size: h.p_filesz(endian),
        });
        Ok(ModuleFile {
            loads: loads.collect(),
            build_id: elf.build_id().ok().flatten().map(<[u8]>::to_vec),
            main: Part { data, elf },
            debug: None,
            supplement: None,
            package: None,
            objects: HashMap::new(),
            lookup: None,
            debug_info: None,
            unpacked: 0,
        })
    }

    /// What is known of it by now.
    pub(crate) fn opened(&self) -> Opened {
        let debug = self.debug.as_ref().unwrap_or(&self.main);
        let link = if self.has_debug() { None } else { self.main.elf.gnu_debuglink().ok().flatten() };
        let supplement = if self.supplement.is_some() { None } else { debug.elf.gnu_debugaltlink().ok().flatten() };
        let short = |bytes: &[u8]| bytes.get(..LONGEST_NAME).unwrap_or(bytes).to_vec();
        Opened {
            module: 0,
            build_id: self.build_id.as_deref().map(short),
            has_debug: self.has_debug(),
            debug_link: link.map(|(name, crc)| (short(name), crc)),
            supplement: supplement.map(|(name, id)| (short(name), short(id))),
        }
    }

    /// Takes a file that belongs to it, if it is the right one.
    pub(crate) fn give(&mut self, role: Role, file: &File) -> Result<(), String> {
        match role {
            Role::DebugById => {
                let id = self.build_id.clone().ok_or("no build id")?;
                let is_right = |(_, elf): &(&[u8], ElfFile64<'_>)| elf.build_id().ok().flatten() == Some(id.as_slice());
                self.take_debug(map(file, is_right)?)
            }
            Role::DebugByLink => {
                let (_, crc) = self.main.elf.gnu_debuglink().ok().flatten().ok_or("no link")?;
                self.take_debug(map(file, |(data, _)| crc32fast::hash(data) == crc)?)
            }
            Role::Supplement => {
                let debug = self.debug.as_ref().unwrap_or(&self.main);
                let (_, id) = debug.elf.gnu_debugaltlink().ok().flatten().ok_or("no link")?;
                let is_right = |(_, elf): &(&[u8], ElfFile64<'_>)| elf.build_id().ok().flatten() == Some(id);
                let (data, elf) = map(file, is_right)?;
                self.supplement = Some(Part { data, elf });
                self.lookup = None;
                Ok(())
            }
            Role::Package => {
                let (data, elf) = map(file, |_| true)?;
                self.package = Some(Part { data, elf });
                self.lookup = None;
                Ok(())
            }
            Role::Object(id) => {
                if self.objects.len() >= MOST_OBJECTS {
                    return Err("too many objects".into());
                }
                // Whether it is the right one shows as its unit's id is compared.
                let object = map(file, |_| true).ok().and_then(|(_, elf)| self.object(&elf, id));
                self.objects.insert(id, object);
                Ok(())
            }
        }
    }

    /// Notes that a file is not to be had.
    pub(crate) fn give_none(&mut self, role: Role) {
        if let Role::Object(id) = role
            && self.objects.len() < MOST_OBJECTS
        {
            self.objects.insert(id, None);
        }
    }

    fn take_debug(&mut self, (data, elf): (&'static [u8], Elf)) -> Result<(), String> {
        if elf.section_by_name(".debug_info").is_none() && elf.symbols().next().is_none() {
            return Err("no debug information".into());
        }
        self.debug = Some(Part { data, elf });
        self.lookup = None;
        self.debug_info = None;
        Ok(())
    }

    fn has_debug(&self) -> bool {
        let has = |part: &Part| part.elf.section_by_name(".debug_info").is_some();
        has(&self.main) || self.debug.as_ref().is_some_and(has)
    }

    /// The functions at an offset of the file.
    pub(crate) fn find(&mut self, offset: u64) -> Found {
        let behind = usize::try_from(offset).ok().and_then(|o| self.main.data.get(o.checked_add(1)?..));
        let is_signal_return = behind.is_some_and(|code| code.starts_with(&SIGNAL_RETURN));
        let Some(address) = self.vaddr(offset) else {
            return Found::ResolvedAddress(ResolvedAddress { address: offset, is_signal_return, frames: Vec::new() });
        };
        let lookup = match self.lookup.take() {
            Some(lookup) => lookup,
            None => self.look_up(),
        };
        let found = frames(&lookup, &mut self.objects, address);
        self.lookup = Some(lookup);
        file_map::relieve();
        match found {
            Ok(frames) => Found::ResolvedAddress(ResolvedAddress { address, is_signal_return, frames }),
            Err(wanted) => Found::Wants(wanted),
        }
    }

    /// The address, in the file's own address space, of the code at a file offset.
    fn vaddr(&self, offset: u64) -> Option<u64> {
        // A mapping starts at its segment's page, whose beginning may belong to the segment before it in the file.
        let page = |x: u64| x & !0xfff;
        let load =
            self.loads.iter().find(|l| offset >= page(l.offset) && offset < l.offset.saturating_add(l.file_size))?;
        Some(load.vaddr.wrapping_add(offset).wrapping_sub(load.offset))
    }

    /// What debug information tells of tokio.
    pub(crate) fn tokio(&mut self, polls: &[u64]) -> TokioDebug {
        let mut unpacked = self.unpacked;
        let told = self.dwarf(&mut unpacked).map(|dwarf| {
            let found = local(&dwarf);
            TokioDebug {
                task_id_offset: found.map(|l| l.task_id),
                worker: found.and_then(|l| l.worker).map(bytemuck::cast),
                polls: poll_types(dwarf, polls, file_map::relieve),
            }
        });
        self.unpacked = unpacked;
        told.unwrap_or_default()
    }

    /// The layouts of the tasks of some poll functions, of trait objects, and of what `block_on` runs where some places in
    /// the code are in it.
    pub(crate) fn layouts(&mut self, polls: &[(u64, u64)], objects: &[u64], callers: &[u64]) -> Layouts {
        let mut unpacked = self.unpacked;
        if self.debug_info.is_none() {
            self.debug_info = self.dwarf(&mut unpacked).map(DebugInfo::new);
        }
        self.unpacked = unpacked;
        // Symbols tell quickly which few of thousands of places are worth a look.
        let symbols = (!callers.is_empty()).then(|| Symbols::of(&[self.debug.as_ref(), Some(&self.main)]));
        let is_block_on = |place: &&u64| {
            let symbol = symbols.as_ref().and_then(|s| s.find(**place, |_| true));
            symbol.is_some_and(|name| name.contains("8block_on"))
        };
        let callers: Vec<u64> = callers.iter().filter(is_block_on).copied().collect();
        let layouts = self.debug_info.as_mut().map(|info| info.layouts(polls, objects, &callers)).unwrap_or_default();
        file_map::relieve();
        layouts
    }

    /// The debug information of its own or of its debug file.
    fn dwarf(&self, unpacked: &mut u64) -> Option<Dwarf<Slice>> {
        let debug = match &self.debug {
            Some(debug) if debug.elf.section_by_name(".debug_info").is_some() => debug,
            _ => &self.main,
        };
        let shared = self.supplement.as_ref().and_then(|s| sections(&s.elf, "", unpacked));
        sections(&debug.elf, "", unpacked).map(|s| s.borrow_with_sup(shared.as_ref(), |s| *s))
    }

    fn look_up(&mut self) -> Lookup {
        let mut unpacked = self.unpacked;
        let dwarf = self.dwarf(&mut unpacked).map(Arc::new);
        let package = self.package.as_ref().and_then(|package| {
            let load = |id: SectionId| -> gimli::Result<Slice> {
                Ok(id.dwo_name().map_or_else(empty, |name| section(&package.elf, name, &mut unpacked)))
            };
            DwarfPackage::load(load, empty()).ok()
        });
        self.unpacked = unpacked;
        Lookup {
            context: dwarf.as_ref().and_then(|dwarf| Context::from_arc_dwarf(Arc::clone(dwarf)).ok()),
            dwarf,
            package,
            symbols: Symbols::of(&[self.debug.as_ref(), Some(&self.main)]),
            crates: Crates::of(&self.main.elf),
            sources: OnceCell::new(),
            paths: RefCell::default(),
        }
    }

    /// The sections of an object of split debug information, if it holds the unit.
    fn object(&mut self, elf: &Elf, id: u64) -> Option<Sections> {
        let sections = sections(elf, ".dwo", &mut self.unpacked)?;
        let mut dwarf = sections.borrow(|section| *section);
        dwarf.file_type = gimli::DwarfFileType::Dwo;
        let mut units = dwarf.units();
        while let Ok(Some(header)) = units.next() {
            if dwarf.unit(header).is_ok_and(|unit| unit.dwo_id == Some(gimli::DwoId(id))) {
                return Some(sections);
            }
        }
        None
    }
}

/// `mov $15, %rax; syscall`: how every signal trampoline on x86-64 ends a handler. Debuggers know it by these bytes too.
const SIGNAL_RETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];

fn empty() -> Slice {
    EndianSlice::new(&[], LittleEndian)
}

/// Maps a file for good, if it is an ELF file and the right one.
fn map(file: &File, is_right: impl FnOnce(&(&[u8], ElfFile64<'_>)) -> bool) -> Result<(&'static [u8], Elf), String> {
    let size = file.metadata().map_err(|e| e.to_string())?.len();
    if size > LARGEST_FILE {
        return Err("too large".into());
    }
    let data = file_map::map(file).map_err(|e| e.to_string())?;
    let parsed = ElfFile64::parse(&*data).map_err(|e| format!("not an ELF file: {e}"))?;
    if !is_right(&(&*data, parsed)) {
        return Err("another file".into());
    }
    let data = file_map::keep(data);
    Ok((data, ElfFile64::parse(data).map_err(|e| e.to_string())?))
}

/// The debug sections of a file that lookups need, if it has any.
fn sections(elf: &Elf, suffix: &str, unpacked: &mut u64) -> Option<Sections> {
    elf.section_by_name(&format!(".debug_info{suffix}"))?;
    let load = |id: SectionId| -> gimli::Result<Slice> {
        let is_needed = !matches!(
            id,
            SectionId::DebugLoc
                | SectionId::DebugLocLists
                | SectionId::DebugMacinfo
                | SectionId::DebugMacro
                | SectionId::DebugTypes
        );
        let name = if suffix.is_empty() { Some(id.name()) } else { id.dwo_name() };
        Ok(name.filter(|_| is_needed).map_or_else(empty, |name| section(elf, name, unpacked)))
    };
    DwarfSections::load(load).ok()
}

/// A section's content, unpacked within bounds; none where it is missing, broken or too large.
fn section(elf: &Elf, name: &str, unpacked: &mut u64) -> Slice {
    let Some(data) = elf.section_by_name(name).and_then(|s| s.compressed_data().ok()) else { return empty() };
    if data.format != CompressionFormat::None {
        let packed = u64::try_from(data.data.len()).unwrap_or(u64::MAX);
        let size = data.uncompressed_size;
        let most = packed.saturating_mul(MOST_TIMES).saturating_add(1 << 20);
        if size > most || size > MOST_UNPACKED.saturating_sub(*unpacked) {
            return empty();
        }
        *unpacked += size;
    }
    match data.decompress() {
        Ok(Cow::Borrowed(data)) => EndianSlice::new(data, LittleEndian),
        Ok(Cow::Owned(data)) => EndianSlice::new(data.leak(), LittleEndian),
        Err(_) => empty(),
    }
}

/// A function as debug information has it.
struct Told<'a> {
    name: Option<&'static str>,
    /// Written in Rust, and named without its path.
    is_bare: bool,
    is_rust: bool,
    die: Option<UnitOffset>,
    file: Option<&'a str>,
    place: Option<(Option<u32>, Option<u32>)>,
}

/// The functions at an address, innermost first; or what it takes to know them.
fn frames(lookup: &Lookup, objects: &mut Objects, address: u64) -> Result<Vec<ResolvedFrame>, WantedObject> {
    let mut told = Vec::new();
    if let Some(context) = &lookup.context {
        let mut result = context.find_frames(address);
        let found = loop {
            result = match result {
                LookupResult::Output(found) => break found,
                LookupResult::Load { load, continuation } => {
                    continuation.resume(split(lookup.package.as_ref(), objects, &load)?)
                }
            };
        };
        if let Ok(mut found) = found {
            while told.len() < MOST_FRAMES
                && let Ok(Some(frame)) = found.next()
            {
                let name = frame.function.as_ref().and_then(|f| {
                    let raw: &'static [u8] = f.name.slice();
                    std::str::from_utf8(raw.get(..LONGEST_NAME).unwrap_or(raw)).ok()
                });
                // A name that is not mangled: the unit's language says whose it is.
                let is_rust = frame.function.as_ref().is_some_and(|f| f.language == Some(gimli::DW_LANG_Rust));
                told.push(Told {
                    name,
                    is_bare: is_rust && name.is_some_and(line_tables::is_bare),
                    is_rust,
                    die: frame.dw_die_offset,
                    file: frame.location.as_ref().and_then(|l| l.file),
                    place: frame.location.as_ref().map(|l| (l.line, l.column)),
                });
            }
        }
    }
    if told.is_empty() {
        let symbol = lookup.symbols.find(address, |_| true).map(function);
        return Ok(symbol.map(|name| named(lookup, Some(name), None, None)).into_iter().collect());
    }
    if let (Some(innermost), Some(context)) = (told.first_mut(), &lookup.context)
        && innermost.is_bare
        && innermost.place.is_none_or(|(line, _)| line.is_none_or(|line| line == 0))
    {
        innermost.file = file_nearby(context, address, innermost);
    }
    let outermost = told.len() - 1;
    let names = told.iter().enumerate().map(|(depth, frame)| {
        let name = if depth == outermost {
            outermost_name(lookup, frame, address)
        } else {
            let caller = told.get(depth + 1).and_then(|caller| caller.name);
            frame.name.map(|name| inlined_name(lookup, frame, name, caller, address))
        };
        named(lookup, name, frame.file, frame.place)
    });
    Ok(names.collect())
}

/// The source file of the innermost function at an address whose code has no line there: then the file that comes with it is
/// that of whatever code lies before. Other addresses of the same function tell.
fn file_nearby<'a>(context: &'a Context<Slice>, address: u64, function: &Told<'_>) -> Option<&'a str> {
    const FAR: u64 = 64;
    let around =
        (1..=FAR).flat_map(|distance| [address.checked_add(distance), address.checked_sub(distance)]).flatten();
    around.into_iter().find_map(|near| {
        let mut frames = context.find_frames(near).skip_all_loads().ok()?;
        while let Ok(Some(frame)) = frames.next() {
            let is_it = frame.dw_die_offset == function.die
                && frame.function.as_ref().and_then(|f| std::str::from_utf8(f.name.slice()).ok()) == function.name;
            if is_it && let Some(location) = frame.location.filter(|l| l.line.is_some_and(|line| line > 0)) {
                return location.file;
            }
        }
        None
    })
}

/// A function that is not inlined. Where debug information has no name for it, or a bare one, the symbol table names it.
fn outermost_name(lookup: &Lookup, frame: &Told<'_>, address: u64) -> Option<FunctionName> {
    match frame.name {
        Some(name) if !frame.is_bare => {
            let name = function(name);
            Some(FunctionName { is_rust: name.is_rust || frame.is_rust, ..name })
        }
        Some(name) => {
            let is_its = |symbol: &str| line_tables::is_symbol_of(&function(symbol).shown, name);
            let symbol = lookup.symbols.find(address, is_its).map(function);
            let symbol = symbol.map(|symbol| FunctionName { is_rust: true, ..symbol });
            Some(symbol.unwrap_or_else(|| inlined_name(lookup, frame, name, None, address)))
        }
        None => lookup.symbols.find(address, |_| true).map(function),
    }
}

/// A function that is inlined into its caller, or has no symbol.
fn inlined_name(
    lookup: &Lookup,
    frame: &Told<'_>,
    name: &'static str,
    caller: Option<&'static str>,
    address: u64,
) -> FunctionName {
    if !frame.is_bare {
        let name = function(name);
        return FunctionName { is_rust: name.is_rust || frame.is_rust, ..name };
    }
    let module = frame.file.and_then(|file| sources(lookup).module(file));
    let (paths, die) = paths(lookup, address, frame.die).unzip();
    let known = die.as_ref().and_then(|die| paths.as_ref()?.get(die));
    line_tables::inlined(name, known.map(String::as_str), caller, module.as_deref())
}

/// The crates' source files.
fn sources(lookup: &Lookup) -> &line_tables::Crates {
    lookup.sources.get_or_init(|| {
        let mut crates = line_tables::Crates::default();
        let Some(dwarf) = &lookup.dwarf else { return crates };
        let mut units = dwarf.units();
        while let Ok(Some(header)) = units.next() {
            let Ok(unit) = dwarf.unit(header) else { continue };
            let text = |text: Option<Slice>| text.map(|t| t.to_string_lossy()).unwrap_or_default();
            crates.add(&text(unit.name), &text(unit.comp_dir));
        }
        crates
    })
}

/// The whole paths of the unit that holds an address, and the function that the DIE of an inlined one refers to.
fn paths(lookup: &Lookup, address: u64, die: Option<UnitOffset>) -> Option<(Rc<Paths>, DebugInfoOffset)> {
    let unit: UnitRef<'_, Slice> = lookup.context.as_ref()?.find_dwarf_and_unit(address).skip_all_loads()?;
    let die = line_tables::origin_at(unit, die?)?;
    let known = lookup.paths.borrow().get(&unit.header.debug_info_offset()?).cloned();
    let paths = known.unwrap_or_else(|| {
        Rc::new(line_tables::paths(unit, |address, name| {
            let is_its = |symbol: &str| line_tables::is_symbol_of(&function(symbol).shown, name);
            Some(function(lookup.symbols.at(address, is_its)?).shown)
        }))
    });
    lookup.paths.borrow_mut().insert(unit.header.debug_info_offset()?, Rc::clone(&paths));
    Some((paths, die))
}

fn named(
    lookup: &Lookup,
    function: Option<FunctionName>,
    file: Option<&str>,
    place: Option<(Option<u32>, Option<u32>)>,
) -> ResolvedFrame {
    let (line, column) = place.unwrap_or_default();
    let whose = lookup.crates.whose(function.as_ref(), file);
    let short = |text: &str| text.get(..text.floor_char_boundary(LONGEST_NAME)).unwrap_or_default().to_string();
    ResolvedFrame {
        whose,
        function: function.map(|f| short(&f.shown)),
        file: file.map(short),
        line: line.filter(|&line| line > 0),
        column: column.filter(|&column| column > 0),
    }
}

/// The object of split debug information that a lookup needs: from the package, or as it was handed over.
fn split(
    package: Option<&DwarfPackage<Slice>>,
    objects: &mut Objects,
    load: &SplitDwarfLoad<Slice>,
) -> Result<Option<Arc<Dwarf<Slice>>>, WantedObject> {
    let id = load.dwo_id;
    if let Some(known) = objects.get(&id.0) {
        return Ok(known.as_ref().map(|object| {
            let mut dwarf = object.borrow(|section| *section);
            dwarf.make_dwo(&load.parent);
            Arc::new(dwarf)
        }));
    }
    if objects.len() >= MOST_OBJECTS {
        return Ok(None);
    }
    if let Some(package) = package
        && let Ok(Some(dwarf)) = package.find_cu(id, &load.parent)
    {
        return Ok(Some(Arc::new(dwarf)));
    }
    let bytes = |text: Option<Slice>| {
        text.map(|t| t.slice().get(..LONGEST_NAME).unwrap_or(t.slice()).to_vec()).unwrap_or_default()
    };
    Err(WantedObject { id: id.0, path: bytes(load.path), folder: bytes(load.comp_dir) })
}

/// The symbols of functions, by address.
#[derive(Default)]
struct Symbols(Vec<Symbol>);

#[derive(Clone, Copy)]
struct Symbol {
    address: u64,
    size: u64,
    name: &'static str,
    /// Of several at an address: the one that is told more widely.
    rank: u8,
}

impl Symbols {
    /// Those of the first file that has a symbol table; else what the last one exports.
    fn of(parts: &[Option<&Part>]) -> Self {
        let parts = || parts.iter().flatten();
        let endian = object::Endianness::Little;
        let tables = parts().map(|p| p.elf.elf_symbol_table()).chain(parts().map(|p| p.elf.elf_dynamic_symbol_table()));
        let mut symbols = Vec::new();
        for table in tables {
            for symbol in table.iter().take(MOST_SYMBOLS) {
                let kind = symbol.st_type();
                let is_code = kind == elf::STT_FUNC || kind == elf::STT_GNU_IFUNC || kind == elf::STT_NOTYPE;
                if !is_code || symbol.is_undefined(endian) || symbol.st_value(endian) == 0 {
                    continue;
                }
                let Ok(name) = symbol.name(endian, table.strings()) else { continue };
                let Some(name) = name.get(..name.len().min(LONGEST_NAME)).and_then(|n| std::str::from_utf8(n).ok())
                else {
                    continue;
                };
                // Labels of the assembler.
                if name.is_empty() || name.starts_with(".L") || name.starts_with('$') {
                    continue;
                }
                let rank = match (kind, symbol.st_bind()) {
                    (elf::STT_NOTYPE, _) => 0,
                    (_, elf::STB_LOCAL) => 1,
                    (_, elf::STB_WEAK) => 2,
                    _ => 3,
                };
                symbols.push(Symbol { address: symbol.st_value(endian), size: symbol.st_size(endian), name, rank });
            }
            if !symbols.is_empty() {
                break;
            }
        }
        symbols.sort_by_key(|s| (s.address, s.rank, s.size));
        symbols.shrink_to_fit();
        Symbols(symbols)
    }

    /// The symbol that an address lies in, of those that are fit. Between symbols there is none: the code there has lost its
    /// name.
    fn find(&self, address: u64, is_fit: impl Fn(&str) -> bool) -> Option<&'static str> {
        let end = self.0.partition_point(|s| s.address <= address);
        let next = self.0.get(end).map_or(u64::MAX, |s| s.address);
        // The best at the nearest address; where that is a label inside a function, the function before it.
        self.0.get(..end)?.iter().rev().take(16).find_map(|s| {
            let reach = if s.size > 0 { s.size } else { SHORT.min(next.saturating_sub(s.address)) };
            (address - s.address < reach && is_fit(s.name)).then_some(s.name)
        })
    }

    /// The one symbol at an address that is fit.
    fn at(&self, address: u64, is_fit: impl Fn(&str) -> bool) -> Option<&'static str> {
        let begin = self.0.partition_point(|s| s.address < address);
        let here = self.0.get(begin..)?.iter().take_while(|s| s.address == address);
        let mut fit = here.map(|s| s.name).filter(|name| is_fit(name));
        fit.next().filter(|_| fit.next().is_none())
    }
}
