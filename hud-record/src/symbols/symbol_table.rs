//! The functions of a file by its symbol table.

use object::{
    elf,
    read::elf::{ElfFile64, Sym as _},
};

use super::frame::LONGEST_NAME;

/// Symbols that are read. The largest browsers have a million.
const MOST_SYMBOLS: usize = 4 << 20;
/// Reach of a symbol without size that no other one follows: hand-written assembly is short.
const SHORT: u64 = 4096;

/// The symbols of functions, by address.
#[derive(Default)]
pub(super) struct Symbols(Vec<Symbol>);

#[derive(Clone, Copy)]
struct Symbol {
    address: u64,
    size: u64,
    name: &'static str,
    /// Rank among several symbols at an address: the wider the binding, the higher.
    rank: u8,
}

impl Symbols {
    /// Symbols of the first file with a symbol table, else the exported ones.
    pub(super) fn of(files: &[Option<&ElfFile64<'static>>]) -> Self {
        let files = || files.iter().flatten();
        let endian = object::Endianness::Little;
        let tables = files().map(|f| f.elf_symbol_table()).chain(files().map(|f| f.elf_dynamic_symbol_table()));
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
                // The assembler's labels.
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

    /// The acceptable symbol that contains an address; `None` between symbols.
    pub(super) fn find(&self, address: u64, is_fit: impl Fn(&str) -> bool) -> Option<&'static str> {
        let end = self.0.partition_point(|s| s.address <= address);
        let next = self.0.get(end).map_or(u64::MAX, |s| s.address);
        // The best one at the nearest address; if that is a label inside a function, the function before it.
        self.0.get(..end)?.iter().rev().take(16).find_map(|s| {
            let reach = if s.size > 0 { s.size } else { SHORT.min(next.saturating_sub(s.address)) };
            (address - s.address < reach && is_fit(s.name)).then_some(s.name)
        })
    }

    /// The acceptable symbol at an address, if there is one only.
    pub(super) fn at(&self, address: u64, is_fit: impl Fn(&str) -> bool) -> Option<&'static str> {
        let begin = self.0.partition_point(|s| s.address < address);
        let here = self.0.get(begin..)?.iter().take_while(|s| s.address == address);
        let mut fit = here.map(|s| s.name).filter(|name| is_fit(name));
        fit.next().filter(|_| fit.next().is_none())
    }
}
