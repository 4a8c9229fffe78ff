//! The kernel's functions by /proc/kallsyms, if hud may read their addresses.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
};

/// Bytes that are read: 200,000 symbols take 10 MB.
const MOST: u64 = 128 << 20;

/// Functions of the kernel and its modules, by address.
pub struct KernelSymbols {
    /// Address, and start and length of the name in `names`.
    symbols: Vec<(u64, u32, u32)>,
    names: String,
}

impl KernelSymbols {
    /// Reads them; `None` if the kernel hides their addresses.
    pub fn read() -> Option<Self> {
        Self::from(File::open("/proc/kallsyms").ok()?)
    }

    fn from(list: impl std::io::Read) -> Option<Self> {
        let mut this = KernelSymbols { symbols: Vec::new(), names: String::new() };
        let mut list = BufReader::new(list.take(MOST));
        let mut line = String::new();
        // `ffffffff81000000 T _stext`, and after a tab the module in brackets.
        while list.read_line(&mut line).is_ok_and(|n| n > 0) {
            let mut fields = line.split_ascii_whitespace();
            if let (Some(address), Some(kind), Some(name)) = (fields.next(), fields.next(), fields.next())
                && let Ok(address) = u64::from_str_radix(address, 16)
                && address != 0
                && matches!(kind, "t" | "T" | "w" | "W")
                && let Ok(start) = u32::try_from(this.names.len())
            {
                this.names.push_str(name);
                if let Some(module) = fields.next() {
                    this.names.push(' ');
                    this.names.push_str(module);
                }
                let length = u32::try_from(this.names.len()).unwrap_or(u32::MAX).saturating_sub(start);
                this.symbols.push((address, start, length));
            }
            line.clear();
        }
        this.symbols.sort_unstable();
        this.symbols.shrink_to_fit();
        this.names.shrink_to_fit();
        // Hidden addresses are all zero.
        (!this.symbols.is_empty()).then_some(this)
    }

    /// The function that an address lies in.
    pub fn find(&self, address: u64) -> Option<&str> {
        let end = self.symbols.partition_point(|&(start, ..)| start <= address);
        let &(_, start, length) = self.symbols.get(end.checked_sub(1)?)?;
        self.names.get(usize::try_from(start).ok()?..usize::try_from(start.checked_add(length)?).ok()?)
    }
}

/// Whether an address is in the kernel's half of the address space.
pub const fn is_kernel(address: u64) -> bool {
    address >= 1 << 63
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn functions_are_found_by_address() {
        let list = "ffffffff81000100 T second\nffffffff81000000 t first\nffffffff81000080 d data\n\
                    ffffffffc0000000 t third\t[ext4]\nnonsense\n";
        let symbols = KernelSymbols::from(list.as_bytes()).unwrap();
        for (address, name) in [
            (0xffff_ffff_8100_0000, Some("first")),
            (0xffff_ffff_8100_00ff, Some("first")),
            (0xffff_ffff_8100_0100, Some("second")),
            (0xffff_ffff_c000_0001, Some("third [ext4]")),
            (0xffff_ffff_80ff_ffff, None),
        ] {
            assert_eq!(symbols.find(address), name, "{address:x}");
        }
        assert!(KernelSymbols::from(&b"0000000000000000 T hidden\n"[..]).is_none());
    }

    #[test]
    fn reads_this_kernels_symbols() {
        // Hidden from a process without CAP_SYSLOG.
        match KernelSymbols::read() {
            Some(symbols) => {
                let (address, ..) = *symbols.symbols.first().unwrap();
                assert!(is_kernel(address) && symbols.find(address).is_some());
            }
            None => eprintln!("skipped: this kernel hides its addresses"),
        }
    }
}
