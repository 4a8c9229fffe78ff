//! The target's ELF file: its segments, symbols, debug sections and build id.
//!
//! The target controls its content: every read is checked, and the sandboxed child does the reading
//! ([`crate::sandbox`]).

use std::{fs::File, os::unix::fs::FileExt as _};

use gimli::{EndianSlice, LittleEndian};
use memmap2::Mmap;
use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, ObjectSymbolTable as _, Relocation, RelocationFlags,
    RelocationTarget, elf,
    read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _},
};
use serde::{Deserialize, Serialize};

/// A reader of debug sections.
pub(crate) type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Bytes of a symbol's name that are read.
const LONGEST_NAME: usize = 64 << 10;
/// Largest accepted id of a module, and distance of thread-locals from the thread pointer.
const MOST_MODULES: u64 = 1 << 16;
const MOST_FIXED: i64 = 1 << 24;

/// An ELF file of the kind that hud can record.
pub struct Binary {
    data: Mmap,
    loads: Vec<Load>,
    relro: Option<(u64, u64)>,
    tls: Option<Tls>,
    tls_place: TlsPlace,
    build_id: Option<String>,
}

/// Where a thread has the binary's thread-locals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TlsPlace {
    /// Before the thread pointer, as those of an executable.
    Executable,
    /// At this distance from the thread pointer: a library that was loaded with the program.
    Fixed(i64),
    /// In the block of a module with this id, which a thread allocates when it first needs it.
    Module(u64),
    Unknown,
}

/// A loadable segment.
#[derive(Clone, Copy, Debug)]
struct Load {
    vaddr: u64,
    offset: u64,
    file_size: u64,
    mem_size: u64,
    executable: bool,
    writable: bool,
}

/// The segment of thread-local storage.
#[derive(Clone, Copy, Debug)]
struct Tls {
    mem_size: u64,
    align: u64,
}

/// A symbol of the binary.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Symbol {
    /// Mangled name.
    pub(crate) name: String,
    /// Address in the file's own address space; for thread-locals, offset in the TLS segment.
    pub(crate) address: u64,
    /// Size in bytes; 0 if unknown.
    pub(crate) size: u64,
    /// Whether it is a thread-local.
    pub(crate) is_tls: bool,
}

impl Binary {
    /// Reads a file. The error describes a file that hud cannot record.
    pub fn read(file: &File) -> Result<Self, String> {
        // SAFETY: the mapping is private and read only. If the file is truncated, SIGBUS ends this process, the
        // sandboxed child.
        let data = unsafe { Mmap::map(file) }.map_err(|e| format!("not readable ({e})"))?;
        let not = |what: &str| String::from(what);
        match data.get(..5) {
            Some([0x7f, b'E', b'L', b'F', 2]) => {}
            Some([0x7f, b'E', b'L', b'F', 1]) => return Err(not("a 32-bit binary")),
            _ => return Err(not("not an ELF binary")),
        }
        let elf = ElfFile64::<object::LittleEndian>::parse(&*data)
            .map_err(|e| not(&format!("a damaged ELF binary ({e})")))?;
        let endian = elf.endian();
        if elf.elf_header().e_machine(endian) != elf::EM_X86_64 {
            return Err(not("a binary for another processor"));
        }
        let mut loads = Vec::new();
        let (mut relro, mut tls) = (None, None);
        for header in elf.elf_program_headers() {
            match header.p_type(endian) {
                elf::PT_LOAD => loads.push(Load {
                    vaddr: header.p_vaddr(endian),
                    offset: header.p_offset(endian),
                    file_size: header.p_filesz(endian),
                    mem_size: header.p_memsz(endian),
                    executable: header.p_flags(endian) & elf::PF_X != elf::ProgramFlags(0),
                    writable: header.p_flags(endian) & elf::PF_W != elf::ProgramFlags(0),
                }),
                elf::PT_GNU_RELRO => {
                    let start = header.p_vaddr(endian);
                    relro = Some((start, start.saturating_add(header.p_memsz(endian))));
                }
                elf::PT_TLS => {
                    tls = Some(Tls { mem_size: header.p_memsz(endian), align: header.p_align(endian) });
                }
                _ => {}
            }
        }
        let build_id = elf.build_id().ok().flatten().map(hex);
        drop(elf);
        Ok(Binary { data, loads, relro, tls, tls_place: TlsPlace::Executable, build_id })
    }

    /// GNU build id, hexadecimal.
    pub fn build_id(&self) -> Option<&str> {
        self.build_id.as_deref()
    }

    /// The address, in the file's own address space, of the code at a file offset.
    pub fn vaddr(&self, offset: u64) -> Option<u64> {
        // A mapping starts at its segment's page, which may begin with the end of the previous segment in the file: so
        // only segments with code count.
        let page = |x: u64| x & !0xfff;
        let load = self
            .loads
            .iter()
            .find(|l| l.executable && offset >= page(l.offset) && offset < l.offset.saturating_add(l.file_size))?;
        Some(load.vaddr.wrapping_add(offset).wrapping_sub(load.offset))
    }

    /// The distance between addresses in the file and in a process with these mappings of it: address, and offset in
    /// the file.
    pub(crate) fn load_bias(&self, mappings: &[(u64, u64)]) -> Option<u64> {
        mappings.iter().find_map(|&(start, offset)| Some(start.wrapping_sub(self.vaddr(offset)?)))
    }

    /// The file offset of an address.
    pub fn file_offset(&self, vaddr: u64) -> Option<u64> {
        let load = self.loads.iter().find(|l| vaddr >= l.vaddr && vaddr - l.vaddr < l.file_size)?;
        load.offset.checked_add(vaddr - load.vaddr)
    }

    /// The file's content at an address.
    pub(crate) fn bytes(&self, vaddr: u64, size: u64) -> Option<&[u8]> {
        let start = usize::try_from(self.file_offset(vaddr)?).ok()?;
        self.data.get(start..start.checked_add(usize::try_from(size).ok()?)?)
    }

    /// Address, file offset and file size of each segment without code.
    pub(crate) fn data_places(&self) -> impl Iterator<Item = [u64; 3]> {
        self.loads.iter().filter(|l| !l.executable).map(|l| [l.vaddr, l.offset, l.file_size])
    }

    /// Address and size of the file-backed part of each segment without code.
    pub(crate) fn data_segments(&self) -> impl Iterator<Item = (u64, u64)> {
        self.loads.iter().filter(|l| !l.executable).map(|l| (l.vaddr, l.file_size.min(l.mem_size)))
    }

    /// Address and size of the data that relocation may change: the part of each writable segment that is read-only
    /// afterwards (`PT_GNU_RELRO`), or all of its file-backed part if the linker marked none.
    pub(crate) fn relocated_data(&self) -> impl Iterator<Item = (u64, u64)> {
        let (from, to) = self.relro.unwrap_or((0, u64::MAX));
        self.loads.iter().filter(|l| !l.executable && l.writable).filter_map(move |l| {
            let end = l.vaddr.saturating_add(l.file_size.min(l.mem_size)).min(to);
            let start = l.vaddr.max(from);
            (start < end).then(|| (start, end - start))
        })
    }

    /// Address and size of each segment without code and without writable data.
    pub(crate) fn read_only_data(&self) -> impl Iterator<Item = (u64, u64)> {
        let fixed = self.loads.iter().filter(|l| !l.executable && !l.writable);
        fixed.map(|l| (l.vaddr, l.file_size.min(l.mem_size)))
    }

    /// Whether an address is that of code.
    pub(crate) fn is_code(&self, vaddr: u64) -> bool {
        self.loads.iter().any(|l| l.executable && vaddr >= l.vaddr && vaddr - l.vaddr < l.file_size)
    }

    /// Every address outside of code at which the file contains `bytes`.
    pub(crate) fn find(&self, bytes: &[u8]) -> Vec<u64> {
        let segments = self.data_segments().filter_map(|(start, size)| Some((start, self.bytes(start, size)?)));
        segments
            .flat_map(|(start, data)| {
                memchr::memmem::find_iter(data, bytes)
                    .map(move |at| start.saturating_add(at as u64))
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// Address and content of `.eh_frame_hdr`, by its program header, which exists even without section headers.
    pub(crate) fn eh_frame_hdr(&self) -> Option<(u64, &[u8])> {
        let elf = self.elf()?;
        let endian = elf.endian();
        let header = elf.elf_program_headers().iter().find(|h| h.p_type(endian) == elf::PT_GNU_EH_FRAME)?;
        let address = header.p_vaddr(endian);
        Some((address, self.bytes(address, header.p_filesz(endian))?))
    }

    /// Size of the executable's own block of thread-local storage.
    pub(crate) fn tls_size(&self) -> Option<u64> {
        self.tls.map(|tls| tls.mem_size)
    }

    /// The address range of the loaded binary, before the load bias.
    pub fn image(&self) -> (u64, u64) {
        let start = self.loads.iter().map(|l| l.vaddr).min().unwrap_or(0);
        let end = self.loads.iter().map(|l| l.vaddr.saturating_add(l.mem_size)).max().unwrap_or(0);
        (start, end)
    }

    /// The distance from the thread pointer (`fsbase`), or from the block of [`Binary::tls_module`], to offset `value`
    /// of the TLS segment. An executable's block ends at the thread pointer: variant II of the ELF TLS model.
    pub fn tls_offset(&self, value: u64) -> Option<i64> {
        let tls = self.tls?;
        let value = i64::try_from(value).ok()?;
        match self.tls_place {
            TlsPlace::Executable => {
                let size = tls.mem_size.checked_next_multiple_of(tls.align.max(1))?;
                value.checked_sub(i64::try_from(size).ok()?)
            }
            TlsPlace::Fixed(distance) => value.checked_add(distance),
            TlsPlace::Module(_) => Some(value),
            TlsPlace::Unknown => None,
        }
    }

    /// The id of the module whose block holds its thread-locals; 0 if they are at a distance from the thread pointer.
    pub(crate) fn tls_module(&self) -> u64 {
        match self.tls_place {
            TlsPlace::Module(id) => id,
            _ => 0,
        }
    }

    /// It is a shared library: finds its thread-locals by what the loader wrote for it (`R_X86_64_DTPMOD64`,
    /// `R_X86_64_TPOFF64`: x86-64 psABI, table 4.10), in the process's memory at this load bias.
    pub(crate) fn find_tls(&mut self, loaded: Option<(&File, u64)>) {
        let find = || {
            let (memory, bias) = loaded?;
            let elf = self.elf()?;
            let read = |address: u64| {
                let mut word = [0; 8];
                memory.read_exact_at(&mut word, bias.wrapping_add(address)).ok()?;
                Some(u64::from_le_bytes(word))
            };
            let symbols = elf.dynamic_symbol_table();
            // Offset in the library's own segment, if the symbol is its own.
            let own = |relocation: &Relocation| match relocation.target() {
                RelocationTarget::Symbol(index) => {
                    let symbol = symbols.as_ref()?.symbol_by_index(index).ok()?;
                    (index.0 == 0 || symbol.is_definition()).then(|| symbol.address())
                }
                _ => Some(0),
            };
            let mut fixed = None;
            for (address, relocation) in elf.dynamic_relocations()? {
                let RelocationFlags::Elf { r_type } = relocation.flags() else { continue };
                if r_type == elf::R_X86_64_DTPMOD64 && own(&relocation).is_some() {
                    return read(address).filter(|&id| (1..=MOST_MODULES).contains(&id)).map(TlsPlace::Module);
                }
                if r_type == elf::R_X86_64_TPOFF64 && fixed.is_none() {
                    fixed = own(&relocation).and_then(|offset| {
                        let offset = i64::try_from(offset).ok()?.checked_add(relocation.addend())?;
                        read(address)?.cast_signed().checked_sub(offset)
                    });
                }
            }
            fixed.filter(|distance| (-MOST_FIXED..0).contains(distance)).map(TlsPlace::Fixed)
        };
        self.tls_place = find().unwrap_or(TlsPlace::Unknown);
    }

    /// Whether it has a symbol table.
    pub fn has_symbols(&self) -> bool {
        self.elf().is_some_and(|elf| elf.symbols().next().is_some())
    }

    /// Every defined symbol whose name passes `want`.
    pub(crate) fn symbols(&self, want: impl Fn(&str) -> bool) -> Vec<Symbol> {
        let Some(elf) = self.elf() else { return Vec::new() };
        elf.symbols()
            .filter(|s| s.is_definition() || s.kind() == object::SymbolKind::Tls)
            .filter_map(|s| {
                let name = s.name().ok().filter(|name| name.len() <= LONGEST_NAME)?;
                let is_tls = s.kind() == object::SymbolKind::Tls;
                want(name).then(|| Symbol { name: name.into(), address: s.address(), size: s.size(), is_tls })
            })
            .collect()
    }

    /// Calls `visit` with the content of each read-only data section.
    pub(crate) fn rodata(&self, mut visit: impl FnMut(&[u8])) {
        let Some(elf) = self.elf() else { return };
        for section in elf.sections() {
            if matches!(section.kind(), object::SectionKind::ReadOnlyData | object::SectionKind::ReadOnlyString)
                && let Ok(data) = section.data()
            {
                visit(data);
            }
        }
    }

    /// Address and value of each word that the loader moves with the binary (`R_X86_64_RELATIVE`).
    pub(crate) fn moved_words(&self) -> Vec<(u64, u64)> {
        let elf = self.elf();
        let relocations = elf.iter().filter_map(|elf| elf.dynamic_relocations()).flatten();
        let is_relative = |flags| matches!(flags, RelocationFlags::Elf { r_type } if r_type == elf::R_X86_64_RELATIVE);
        relocations
            .filter(|(_, relocation)| is_relative(relocation.flags()))
            .map(|(address, relocation)| (address, relocation.addend().cast_unsigned()))
            .collect()
    }

    fn elf(&self) -> Option<ElfFile64<'_>> {
        ElfFile64::parse(&*self.data).ok()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
