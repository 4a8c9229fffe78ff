//! Builds a file's unwind table from its `.eh_frame`.
//!
//! The file is untrusted: every read is checked, and the result is bounded. Code whose rules do not fit into a [`Row`]
//! is marked unknown, never guessed.

use std::collections::HashMap;

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, CommonInformationEntry, EhFrame, EhFrameOffset, EndianSlice,
    FrameDescriptionEntry, LittleEndian, Register, RegisterRule, UnwindContext, UnwindExpression, UnwindSection as _,
    X86_64,
};
use hud_common::unwind::{BUCKET_BITS, Row, Rule};
use object::{
    Object as _, ObjectSection as _, elf,
    read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _},
};

type Reader<'a> = EndianSlice<'a, LittleEndian>;
type Elf<'a> = ElfFile64<'a, object::LittleEndian>;

/// Rows of a table; the largest browsers have 4 million.
const MAX_ROWS: usize = 8 << 20;
/// Bytes of code that a table covers.
const MAX_SPAN: u64 = 4 << 30;

/// A file's unwind table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The base of the rows' addresses: the lowest address of the file's code.
    pub base: u64,
    /// Sorted by address; the first is 0.
    pub rows: Vec<Row>,
    /// Entry `n` is the row that applies at `n * BUCKET`; the last one is the last row.
    pub index: Vec<u32>,
    /// The file's segments with code.
    pub segments: Vec<Segment>,
}

/// A loadable segment with code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its offset in the file.
    pub offset: u64,
    /// Its address, before the load bias.
    pub vaddr: u64,
    /// Its size in the file.
    pub size: u64,
}

/// The address, before the load bias, of the code at a file offset. A mapping starts at its segment's page, which may
/// begin with the end of the previous segment in the file.
pub fn vaddr(segments: &[Segment], offset: u64) -> Option<u64> {
    let holds = |s: &&Segment| offset >= s.offset & !0xfff && offset < s.offset.saturating_add(s.size);
    let segment = segments.iter().find(holds)?;
    Some(segment.vaddr.wrapping_add(offset).wrapping_sub(segment.offset))
}

/// Why there is no table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Not an ELF file that hud can read.
    #[error("not an ELF file for x86_64: {0}")]
    Elf(String),
    /// No unwind information.
    #[error("it has no .eh_frame")]
    None,
    /// Too much unwind information.
    #[error("its unwind information exceeds hud's limits ({0})")]
    TooLarge(&'static str),
}

/// Builds the table of an ELF file's code.
pub fn build(file: &[u8]) -> Result<Table, TableError> {
    let elf = Elf::parse(file).map_err(|e| TableError::Elf(e.to_string()))?;
    if elf.elf_header().e_machine(object::LittleEndian) != elf::EM_X86_64 {
        return Err(TableError::Elf("for another processor".into()));
    }
    let segments = segments(&elf);
    let start = segments.iter().map(|s| s.vaddr).min();
    let end = segments.iter().map(|s| s.vaddr.saturating_add(s.size)).max();
    let (Some(start), Some(end)) = (start, end) else { return Err(TableError::Elf("no code in it".into())) };
    if end - start > MAX_SPAN {
        return Err(TableError::TooLarge("code"));
    }
    let (address, bytes) = eh_frame(&elf).ok_or(TableError::None)?;
    let mut bases = BaseAddresses::default().set_eh_frame(address);
    for (name, set) in [
        (".text", BaseAddresses::set_text as fn(BaseAddresses, u64) -> BaseAddresses),
        (".got", BaseAddresses::set_got),
        (".eh_frame_hdr", BaseAddresses::set_eh_frame_hdr),
    ] {
        if let Some(section) = elf.section_by_name(name) {
            bases = set(bases, section.address());
        }
    }
    let mut functions = Functions::new(bytes, bases, (start, end));
    functions.read()?;
    let rows = functions.into_rows(start, end)?;
    Ok(Table { base: start, index: index(&rows, end - start), rows, segments })
}

/// The file's segments with code.
fn segments(elf: &Elf<'_>) -> Vec<Segment> {
    let endian = elf.endian();
    let has_code = |h: &&elf::ProgramHeader64<object::LittleEndian>| {
        h.p_type(endian) == elf::PT_LOAD
            && h.p_flags(endian) & elf::PF_X != elf::ProgramFlags(0)
            && h.p_filesz(endian) > 0
    };
    let segment = |h: &elf::ProgramHeader64<object::LittleEndian>| Segment {
        offset: h.p_offset(endian),
        vaddr: h.p_vaddr(endian),
        size: h.p_filesz(endian),
    };
    elf.elf_program_headers().iter().filter(has_code).map(segment).collect()
}

/// Address and content of `.eh_frame`: by its section header, or without section headers by `PT_GNU_EH_FRAME`, whose
/// header points to it; then it extends to its segment's end, or its own terminator.
fn eh_frame<'a>(elf: &Elf<'a>) -> Option<(u64, &'a [u8])> {
    if let Some(section) = elf.section_by_name(".eh_frame")
        && let Ok(bytes) = section.data()
        && !bytes.is_empty()
    {
        return Some((section.address(), bytes));
    }
    let endian = elf.endian();
    let header = elf.elf_program_headers().iter().find(|h| h.p_type(endian) == elf::PT_GNU_EH_FRAME)?;
    let address = header.p_vaddr(endian);
    let bytes = header.data(endian, elf.data()).ok()?;
    let bases = BaseAddresses::default().set_eh_frame_hdr(address);
    let parsed = gimli::EhFrameHdr::new(bytes, LittleEndian).parse(&bases, 8).ok()?;
    let gimli::Pointer::Direct(at) = parsed.eh_frame_ptr() else { return None };
    elf.elf_program_headers().iter().filter(|h| h.p_type(endian) == elf::PT_LOAD).find_map(|h| {
        let skip = at.checked_sub(h.p_vaddr(endian))?;
        let bytes = h.data(endian, elf.data()).ok()?.get(usize::try_from(skip).ok()?..)?;
        (!bytes.is_empty()).then_some((at, bytes))
    })
}

/// The rows of one function.
struct Function {
    start: u64,
    end: u64,
    /// Its rows in `Functions::rows`, with addresses relative to `start`.
    rows: (usize, usize),
}

/// The functions of an `.eh_frame`.
struct Functions<'a> {
    section: EhFrame<Reader<'a>>,
    bases: BaseAddresses,
    code: (u64, u64),
    found: Vec<Function>,
    rows: Vec<Row>,
}

impl<'a> Functions<'a> {
    fn new(bytes: &'a [u8], bases: BaseAddresses, code: (u64, u64)) -> Self {
        let mut section = EhFrame::new(bytes, LittleEndian);
        section.set_address_size(8);
        Functions { section, bases, code, found: Vec::new(), rows: Vec::new() }
    }

    fn read(&mut self) -> Result<(), TableError> {
        let section = self.section;
        let bases = self.bases.clone();
        let mut cies: HashMap<usize, CommonInformationEntry<Reader<'a>>> = HashMap::new();
        let mut context = UnwindContext::new();
        let mut entries = section.entries(&bases);
        // An invalid entry ends the list, as the start of the next one is then unknown.
        while let Ok(Some(entry)) = entries.next() {
            let CieOrFde::Fde(fde) = entry else { continue };
            let fde = fde.parse(|section, bases, offset: EhFrameOffset| {
                if let Some(cie) = cies.get(&offset.0) {
                    return Ok(cie.clone());
                }
                let cie = section.cie_from_offset(bases, offset)?;
                cies.insert(offset.0, cie.clone());
                Ok(cie)
            });
            if let Ok(fde) = fde {
                self.function(&fde, &mut context);
            }
            if self.rows.len() > MAX_ROWS {
                return Err(TableError::TooLarge("rows"));
            }
        }
        Ok(())
    }

    fn function(&mut self, fde: &FrameDescriptionEntry<Reader<'a>>, context: &mut UnwindContext<usize>) {
        let start = fde.initial_address();
        let Some(end) = start.checked_add(fde.len()) else { return };
        // The linker leaves the entries of dropped functions, at address 0.
        if start < self.code.0 || end > self.code.1 || start >= end {
            return;
        }
        let from = self.rows.len();
        let is_signal = fde.is_signal_trampoline();
        let Ok(mut table) = fde.rows(&self.section, &self.bases, context) else { return };
        loop {
            let row = match table.next_row() {
                Ok(Some(row)) => row,
                Ok(None) => break,
                // Invalid rules: the whole function is marked unknown.
                Err(_) => {
                    self.rows.truncate(from);
                    self.rows.push(Row::default());
                    break;
                }
            };
            let Some(offset) = row.start_address().checked_sub(start).and_then(|o| u32::try_from(o).ok()) else {
                break;
            };
            let rule = if is_signal { signal() } else { rule(&self.section, row).unwrap_or_default() };
            self.rows.push(Row { address: offset, ..rule });
            if self.rows.len() > MAX_ROWS {
                return;
            }
        }
        self.found.push(Function { start, end, rows: (from, self.rows.len()) });
    }

    fn into_rows(mut self, base: u64, end: u64) -> Result<Vec<Row>, TableError> {
        self.found.sort_by_key(|f| f.start);
        let mut rows: Vec<Row> = Vec::with_capacity(self.rows.len() + self.rows.len() / 4 + 1);
        let mut push = |address: u64, rule: Row| {
            let Ok(address) = u32::try_from(address) else { return };
            match rows.last() {
                // If two functions claim the same code, the later one applies from its start.
                Some(last) if last.address > address => {}
                Some(last) if (last.cfa, last.rbp, last.rule) == (rule.cfa, rule.rbp, rule.rule) => {}
                Some(last) if last.address == address => {
                    rows.pop();
                    rows.push(Row { address, ..rule });
                }
                _ => rows.push(Row { address, ..rule }),
            }
        };
        push(0, Row::default());
        let mut functions = self.found.iter().peekable();
        while let Some(function) = functions.next() {
            let until = functions.peek().map_or(end, |next| next.start);
            for row in self.rows.get(function.rows.0..function.rows.1).unwrap_or_default() {
                let address = function.start.saturating_add(u64::from(row.address));
                if address < function.end.min(until) {
                    push(address - base, *row);
                }
            }
            // Padding between functions is never executed: a smaller gap is ignored.
            if until.saturating_sub(function.end) > 16 {
                push(function.end - base, Row::default());
            }
        }
        if rows.len() > MAX_ROWS {
            return Err(TableError::TooLarge("rows"));
        }
        Ok(rows)
    }
}

/// A row of `.eh_frame` as a [`Row`], if it can be expressed; without address.
fn rule(section: &EhFrame<Reader<'_>>, row: &gimli::UnwindTableRow<usize>) -> Option<Row> {
    let return_address = row.register(X86_64::RA);
    if matches!(return_address, Some(RegisterRule::Undefined)) {
        return Some(Row { rule: Rule::Outermost as u8, ..Row::default() });
    }
    if return_address != Some(RegisterRule::Offset(-8)) {
        return None;
    }
    let rbp = match row.register(X86_64::RBP) {
        None | Some(RegisterRule::SameValue | RegisterRule::Undefined) => Some(0),
        Some(RegisterRule::Offset(offset)) => words(offset).and_then(|w| i8::try_from(w).ok()).filter(|w| *w != 0),
        _ => None,
    };
    match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => {
            let rule = match *register {
                Register(7) => Rule::Rsp,
                Register(6) => Rule::Rbp,
                _ => return None,
            };
            let cfa = i16::try_from(words(*offset)?).ok()?;
            Some(Row { address: 0, cfa, rbp: rbp?, rule: rule as u8 })
        }
        CfaRule::Expression(cfa) => expression(section, cfa, row, rbp),
    }
}

/// The two forms of expression that occur: that of a procedure linkage table, and that of a realigned stack.
fn expression(
    section: &EhFrame<Reader<'_>>,
    cfa: &UnwindExpression<usize>,
    row: &gimli::UnwindTableRow<usize>,
    rbp: Option<i8>,
) -> Option<Row> {
    const BREG6: u8 = 0x76;
    const BREG7: u8 = 0x77;
    const BREG16: u8 = 0x80;
    const DEREF: u8 = 0x06;
    let code = cfa.get(section).ok()?;
    match *code.0.slice() {
        // rsp + 8 + (((rip & 15) >= N) << 3); lit0 is 0x30, and 0x1a, ge 0x2a, shl 0x24, plus 0x22.
        [BREG7, distance, BREG16, 0, 0x3f, 0x1a, n @ 0x30..=0x3f, 0x2a, 0x33, 0x24, 0x22] if rbp == Some(0) => {
            let cfa = i16::from(distance) / 8;
            (distance % 8 == 0 && distance < 64).then_some(Row {
                address: 0,
                cfa,
                rbp: i8::try_from(n - 0x30).ok()?,
                rule: Rule::Plt as u8,
            })
        }
        // *(rbp + distance), as a signed LEB128 of one byte; rbp itself is saved at rbp.
        [BREG6, distance, DEREF] if distance & 0x80 == 0 => {
            let saved = match row.register(X86_64::RBP) {
                Some(RegisterRule::Expression(e)) => e.get(section).ok()?,
                _ => return None,
            };
            let distance = i16::from((distance << 1).cast_signed() >> 1);
            (saved.0.slice() == [BREG6, 0] && distance % 8 == 0).then_some(Row {
                address: 0,
                cfa: distance / 8,
                rbp: 0,
                rule: Rule::AtRbp as u8,
            })
        }
        _ => None,
    }
}

fn signal() -> Row {
    Row { rule: Rule::Signal as u8, ..Row::default() }
}

fn words(bytes: i64) -> Option<i64> {
    (bytes % 8 == 0).then_some(bytes / 8)
}

/// The index of rows over `span` bytes of code.
fn index(rows: &[Row], span: u64) -> Vec<u32> {
    let buckets = (span >> BUCKET_BITS) + 1;
    let last = u32::try_from(rows.len().saturating_sub(1)).unwrap_or(u32::MAX);
    let mut row = 0_usize;
    let mut index: Vec<u32> = (0..buckets)
        .map(|bucket| {
            while rows.get(row + 1).is_some_and(|next| u64::from(next.address) <= bucket << BUCKET_BITS) {
                row += 1;
            }
            u32::try_from(row).unwrap_or(u32::MAX)
        })
        .collect();
    index.push(last);
    index
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    /// The row that applies at an address, as the kernel program looks it up.
    fn row(table: &Table, address: u64) -> Row {
        let bucket = usize::try_from((address - table.base) >> BUCKET_BITS).unwrap();
        let (low, high) = (table.index[bucket] as usize, table.index[bucket + 1] as usize);
        assert!(high - low <= 1 << BUCKET_BITS, "more rows than a search takes steps for");
        let rows = &table.rows[low..=high];
        let after = rows.partition_point(|r| u64::from(r.address) <= address - table.base);
        rows[after - 1]
    }

    #[test]
    fn rows_agree_with_eh_frame() {
        let file = std::fs::read("/proc/self/exe").unwrap();
        let table = build(&file).unwrap();
        let elf = Elf::parse(&*file).unwrap();
        let (address, bytes) = eh_frame(&elf).unwrap();
        let mut section = EhFrame::new(bytes, LittleEndian);
        section.set_address_size(8);
        let text = elf.section_by_name(".text").unwrap().address();
        let bases = BaseAddresses::default().set_eh_frame(address).set_text(text);
        let mut context = UnwindContext::new();
        let mut entries = section.entries(&bases);
        let (mut compared, mut rules) = (0, BTreeSet::new());
        while let Some(entry) = entries.next().unwrap() {
            let CieOrFde::Fde(fde) = entry else { continue };
            let fde = fde.parse(EhFrame::cie_from_offset).unwrap();
            // Except for the linker's leftovers.
            if fde.initial_address() < table.base {
                continue;
            }
            let mut expected = fde.rows(&section, &bases, &mut context).unwrap();
            while let Some(said) = expected.next_row().unwrap() {
                for address in [said.start_address(), said.end_address() - 1] {
                    let found = row(&table, address);
                    let wanted = rule(&section, said).unwrap_or_default();
                    assert_eq!(
                        (found.cfa, found.rbp, found.rule),
                        (wanted.cfa, wanted.rbp, wanted.rule),
                        "{address:#x}"
                    );
                    compared += 1;
                    rules.insert(found.rule);
                }
            }
        }
        assert!(compared > 10_000, "{compared}");
        assert!(rules.contains(&(Rule::Rsp as u8)) && rules.contains(&(Rule::Rbp as u8)), "{rules:?}");
    }

    /// The C library has code that compilers do not generate: procedure linkage tables, the start of threads, a
    /// signal's return.
    #[test]
    fn hand_written_code_has_its_rules() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let path = maps.lines().find_map(|l| l.split_whitespace().nth(5).filter(|p| p.contains("/libc.so"))).unwrap();
        let table = build(&std::fs::read(path).unwrap()).unwrap();
        let rules: BTreeSet<u8> = table.rows.iter().map(|r| r.rule).collect();
        for wanted in [Rule::Plt, Rule::Signal, Rule::Outermost] {
            assert!(rules.contains(&(wanted as u8)), "no {wanted:?} in {path}");
        }
    }

    #[test]
    fn without_section_headers_the_table_is_the_same() {
        let mut file = std::fs::read("/proc/self/exe").unwrap();
        let whole = build(&file).unwrap();
        // e_shoff, e_shnum and e_shstrndx.
        file[40..48].fill(0);
        file[60..64].fill(0);
        assert_eq!(build(&file).unwrap(), whole);
    }

    #[test]
    fn survives_any_bytes() {
        let file = std::fs::read("/proc/self/exe").unwrap();
        let head = &file[..1 << 20];
        for cut in [0, 3, 63, 64, 100, 4096, 1 << 16, 1 << 20] {
            let _ = build(&head[..cut]);
        }
        let mut seed = 7_u64;
        let mut damaged = head.to_vec();
        for _ in 0..200 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = usize::try_from(seed >> 44).unwrap() % 4096;
            damaged[at] ^= 1 << (seed & 7);
            let _ = build(&damaged);
        }
    }
}
