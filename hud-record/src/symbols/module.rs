//! A mapped file in the sandboxed child: its segments, symbols and debug information, in the file itself or in separate
//! ones.
//!
//! The worst effect of any file is the end of this process. They stay mapped while the child lives, and
//! the child is replaced when its memory exceeds a bound; so nothing here is freed, and readers borrow. No path is
//! opened: other files come as descriptors.

use std::{
    borrow::Cow,
    cell::{OnceCell, RefCell},
    collections::HashMap,
    fs::File,
    sync::Arc,
};

use addr2line::Context;
use gimli::{Dwarf, DwarfPackage, DwarfSections, EndianSlice, LittleEndian, SectionId};
use object::{
    CompressionFormat, Object as _, ObjectSection as _, elf,
    read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _},
};

use super::{
    file_map,
    frame::{LONGEST_NAME, ResolvedAddress},
    lookup::{Lookup, MOST_OBJECTS, Objects, Sections, Slice, frames},
    module_info::{ModuleInfo, Role, WantedObject},
    origin::Crates,
    symbol_table::Symbols,
};
use crate::{
    inspect::{TokioDebug, local, poll_types},
    tasks::{DebugInfo, Layouts},
};

type Elf = ElfFile64<'static>;
/// Largest file (bytes). Debug information of the largest programs takes a few gigabytes.
const LARGEST_FILE: u64 = 16 << 30;
/// Bytes to which a module's compressed sections may decompress in all.
const MOST_UNPACKED: u64 = 768 << 20;
/// Highest compression ratio. Debug information compresses to a third, at best to a tenth.
const MOST_TIMES: u64 = 64;
/// A mapped file and the files that belong to it.
pub(crate) struct ModuleFile {
    main: Part,
    loads: Vec<Load>,
    build_id: Option<Vec<u8>>,
    /// Its separate debug file.
    debug: Option<Part>,
    supplement: Option<Part>,
    package: Option<Part>,
    /// Objects of split debug information that were received; `None` for those that do not exist.
    objects: Objects,
    /// Built when the first address is looked up, as more files may come before.
    lookup: Option<Lookup>,
    /// For the layouts of futures; opened when first needed.
    debug_info: Option<DebugInfo>,
    unpacked: u64,
}

/// A mapped ELF file.
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

/// The result of a lookup.
pub(crate) enum Found {
    Resolved(ResolvedAddress),
    /// An object of split debug information is needed first.
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

    /// Its state so far.
    pub(crate) fn info(&self) -> ModuleInfo {
        let debug = self.debug.as_ref().unwrap_or(&self.main);
        let link = if self.has_debug() { None } else { self.main.elf.gnu_debuglink().ok().flatten() };
        let supplement = if self.supplement.is_some() { None } else { debug.elf.gnu_debugaltlink().ok().flatten() };
        let short = |bytes: &[u8]| bytes.get(..LONGEST_NAME).unwrap_or(bytes).to_vec();
        ModuleInfo {
            module: 0,
            build_id: self.build_id.as_deref().map(short),
            has_debug: self.has_debug(),
            debug_link: link.map(|(name, crc)| (short(name), crc)),
            supplement: supplement.map(|(name, id)| (short(name), short(id))),
        }
    }

    /// Adds a file that belongs to it, if it is the right one.
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
                // A wrong one is detected when its unit's id is compared.
                let object = map(file, |_| true).ok().and_then(|(_, elf)| self.object(&elf, id));
                self.objects.insert(id, object);
                Ok(())
            }
        }
    }

    /// Notes that a file does not exist.
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
            return Found::Resolved(ResolvedAddress { address: offset, is_signal_return, frames: Vec::new() });
        };
        let lookup = match self.lookup.take() {
            Some(lookup) => lookup,
            None => self.look_up(),
        };
        let found = frames(&lookup, &mut self.objects, address);
        self.lookup = Some(lookup);
        file_map::relieve();
        match found {
            Ok(frames) => Found::Resolved(ResolvedAddress { address, is_signal_return, frames }),
            Err(wanted) => Found::Wants(wanted),
        }
    }

    /// The address, in the file's own address space, of the code at a file offset.
    fn vaddr(&self, offset: u64) -> Option<u64> {
        // A mapping starts at its segment's page, which may begin with the end of the previous segment in the file.
        let page = |x: u64| x & !0xfff;
        let load =
            self.loads.iter().find(|l| offset >= page(l.offset) && offset < l.offset.saturating_add(l.file_size))?;
        Some(load.vaddr.wrapping_add(offset).wrapping_sub(load.offset))
    }

    /// Debug information about tokio.
    pub(crate) fn tokio(&mut self, polls: &[u64]) -> TokioDebug {
        let mut unpacked = self.unpacked;
        let debug = self.dwarf(&mut unpacked).map(|dwarf| {
            let found = local(&dwarf);
            TokioDebug {
                task_id_offset: found.map(|l| l.task_id),
                worker: found.and_then(|l| l.worker).map(bytemuck::cast),
                polls: poll_types(dwarf, polls, file_map::relieve),
            }
        });
        self.unpacked = unpacked;
        debug.unwrap_or_default()
    }

    /// The layouts of the tasks of poll functions, of trait objects, and of the futures that `block_on` runs at return
    /// addresses.
    pub(crate) fn layouts(&mut self, polls: &[(u64, u64)], objects: &[u64], callers: &[u64]) -> Layouts {
        let mut unpacked = self.unpacked;
        if self.debug_info.is_none() {
            self.debug_info = self.dwarf(&mut unpacked).map(DebugInfo::new);
        }
        self.unpacked = unpacked;
        // Symbols select quickly the few of thousands of addresses that are in `block_on`.
        let symbols =
            (!callers.is_empty()).then(|| Symbols::of(&[self.debug.as_ref().map(|d| &d.elf), Some(&self.main.elf)]));
        let is_block_on = |place: &&u64| {
            let symbol = symbols.as_ref().and_then(|s| s.find(**place, |_| true));
            symbol.is_some_and(|name| name.contains("8block_on"))
        };
        let callers: Vec<u64> = callers.iter().filter(is_block_on).copied().collect();
        let layouts = self.debug_info.as_mut().map(|info| info.layouts(polls, objects, &callers)).unwrap_or_default();
        file_map::relieve();
        layouts
    }

    /// The debug information of the file itself or of its debug file.
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
            symbols: Symbols::of(&[self.debug.as_ref().map(|d| &d.elf), Some(&self.main.elf)]),
            crates: Crates::of(&self.main.elf),
            sources: OnceCell::new(),
            paths: RefCell::default(),
        }
    }

    /// The sections of an object of split debug information, if it contains the unit.
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

/// `mov $15, %rax; syscall`: the end of every signal trampoline on x86-64. Debuggers recognize it by these bytes too.
const SIGNAL_RETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];

fn empty() -> Slice {
    EndianSlice::new(&[], LittleEndian)
}

/// Maps a file permanently, if it is the right ELF file.
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

/// The debug sections that lookups need, if the file has any.
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

/// A section's content, decompressed within bounds; empty if it is missing, damaged or too large.
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
