//! The entries of debug information (DIEs), by unit: their nesting and attributes.
//!
//! A unit is read when needed. One pass keeps the entries that make up types, 24 bytes each; attributes are decoded on
//! each access.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    rc::Rc,
};

use gimli::{AttributeValue, DebuggingInformationEntry, DwTag, Dwarf, EndianSlice, LittleEndian, Unit, UnitOffset};

use crate::{
    symbols::{Origin, file_origin},
    tasks::layout::Line,
};

pub(super) type Slice = EndianSlice<'static, LittleEndian>;

/// Entries that are kept, of all units together. A program with 200 MB of debug information has 20 million.
const MOST_DIES: usize = 16 << 20;
/// Nesting depth of entries.
const MOST_DEPTH: usize = 256;
/// Bytes of a name that are read.
const LONGEST_NAME: usize = 16 << 10;

/// An entry of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Die {
    unit: u32,
    index: u32,
}

struct Entry {
    offset: usize,
    tag: DwTag,
    parent: u32,
    /// The first entry after its subtree.
    end: u32,
}

struct Entries {
    unit: Unit<Slice>,
    entries: Vec<Entry>,
    /// Functions by address; several if the linker folded functions.
    functions: BTreeMap<u64, Vec<u32>>,
    /// Vtables of trait objects.
    vtables: HashMap<u64, u32>,
    /// Structures that may be a task's, by name.
    cells: Vec<u32>,
}

/// Debug information.
pub(crate) struct Dies {
    dwarf: Dwarf<Slice>,
    /// Offset and size of each unit, in order.
    units: Vec<(usize, usize)>,
    /// The units that describe addresses: start, end and unit, sorted by start.
    ranges: Vec<(u64, u64, u32)>,
    read: HashMap<u32, Option<Rc<Entries>>>,
    left: usize,
}

impl Dies {
    pub(super) fn new(dwarf: Dwarf<Slice>) -> Self {
        let mut units = Vec::new();
        let mut headers = dwarf.units();
        while let Ok(Some(header)) = headers.next() {
            if let Some(offset) = header.debug_info_offset() {
                units.push((offset.0, header.length_including_self()));
            }
        }
        let mut dies = Dies { dwarf, units, ranges: Vec::new(), read: HashMap::new(), left: MOST_DIES };
        dies.ranges = dies.ranges();
        dies
    }

    /// By `.debug_aranges`, which covers data and code, else by the units' own ranges.
    fn ranges(&self) -> Vec<(u64, u64, u32)> {
        let mut ranges = Vec::new();
        let mut headers = self.dwarf.debug_aranges.headers();
        while let Ok(Some(header)) = headers.next() {
            let Some(unit) = self.unit_at(header.debug_info_offset().0) else { continue };
            let mut entries = header.entries();
            while let Ok(Some(entry)) = entries.next() {
                ranges.push((entry.address(), entry.address().saturating_add(entry.length()), unit));
            }
        }
        if ranges.is_empty() {
            for (unit, &(offset, _)) in (0..).zip(&self.units) {
                let Ok(header) = self.dwarf.unit_header(gimli::DebugInfoOffset(offset)) else { continue };
                let Ok(unit_die) = self.dwarf.unit(header) else { continue };
                let Ok(mut parts) = self.dwarf.unit_ranges(&unit_die) else { continue };
                while let Ok(Some(part)) = parts.next() {
                    ranges.push((part.begin, part.end, unit));
                }
            }
        }
        ranges.sort_unstable();
        ranges
    }

    /// The unit that contains an offset of `.debug_info`.
    fn unit_at(&self, offset: usize) -> Option<u32> {
        let index = self.units.partition_point(|&(start, _)| start <= offset).checked_sub(1)?;
        let &(start, size) = self.units.get(index)?;
        (offset - start < size).then(|| u32::try_from(index).ok())?
    }

    /// The units that describe an address: possibly several for a folded function.
    fn units_of(&self, address: u64) -> Vec<u32> {
        let end = self.ranges.partition_point(|&(start, ..)| start <= address);
        let mut units: Vec<u32> = Vec::new();
        for &(_, end, unit) in self.ranges.get(..end).unwrap_or_default().iter().rev().take(64) {
            if address < end && !units.contains(&unit) {
                units.push(unit);
            }
        }
        units
    }

    fn entries(&mut self, unit: u32) -> Option<Rc<Entries>> {
        if let Some(known) = self.read.get(&unit) {
            return known.clone();
        }
        let entries = self.pass(unit).map(Rc::new);
        self.read.insert(unit, entries.clone());
        entries
    }

    /// Reads a unit.
    fn pass(&mut self, index: u32) -> Option<Entries> {
        let &(offset, _) = self.units.get(usize::try_from(index).ok()?)?;
        let header = self.dwarf.unit_header(gimli::DebugInfoOffset(offset)).ok()?;
        let unit = self.dwarf.unit(header).ok()?;
        let (mut functions, mut vtables, mut cells) = (BTreeMap::<u64, Vec<u32>>::new(), HashMap::new(), Vec::new());
        let mut entries: Vec<Entry> = Vec::new();
        // Depth and index of open entries.
        let mut open: Vec<(isize, u32)> = Vec::new();
        let close = |entries: &mut Vec<Entry>, index: u32, end: u32| {
            if let Some(entry) = usize::try_from(index).ok().and_then(|i| entries.get_mut(i)) {
                entry.end = end;
            }
        };
        let mut cursor = unit.entries();
        while let Ok(Some(die)) = cursor.next_dfs() {
            let next = u32::try_from(entries.len()).ok()?;
            while let Some(&(depth, index)) = open.last()
                && depth >= die.depth()
            {
                open.pop();
                close(&mut entries, index, next);
            }
            let is_kept = match die.tag() {
                gimli::DW_TAG_variable => match name(&self.dwarf, &unit, die) {
                    Some(b"__awaitee") => true,
                    Some(name) if name.ends_with(b"{vtable}") => {
                        if let Some(address) = location(&unit, die) {
                            vtables.insert(address, next);
                        }
                        true
                    }
                    _ => false,
                },
                gimli::DW_TAG_subprogram => {
                    let low = die.attr_value(gimli::DW_AT_low_pc);
                    if let Some(Ok(Some(address))) = low.map(|value| self.dwarf.attr_address(&unit, value)) {
                        functions.entry(address).or_default().push(next);
                    }
                    true
                }
                gimli::DW_TAG_structure_type => {
                    if name(&self.dwarf, &unit, die).is_some_and(|n| n.starts_with(b"Cell<")) {
                        cells.push(next);
                    }
                    true
                }
                tag => KEPT.contains(&tag),
            };
            if !is_kept || open.len() >= MOST_DEPTH {
                continue;
            }
            self.left = self.left.checked_sub(1)?;
            let parent = open.last().map_or(u32::MAX, |&(_, index)| index);
            entries.push(Entry { offset: die.offset().0, tag: die.tag(), parent, end: next + 1 });
            if die.has_children() {
                open.push((die.depth(), next));
            }
        }
        let end = u32::try_from(entries.len()).ok()?;
        for (_, index) in open {
            close(&mut entries, index, end);
        }
        entries.shrink_to_fit();
        Some(Entries { unit, entries, functions, vtables, cells })
    }

    /// The functions at an address.
    pub(super) fn functions(&mut self, address: u64) -> Vec<Die> {
        let mut found = Vec::new();
        for unit in self.units_of(address) {
            if let Some(entries) = self.entries(unit) {
                let here = entries.functions.get(&address).into_iter().flatten();
                found.extend(here.map(|&index| Die { unit, index }));
            }
        }
        found
    }

    /// The function that contains an address.
    pub(super) fn function_around(&mut self, address: u64) -> Option<Die> {
        self.units_of(address).into_iter().find_map(|unit| {
            let entries = self.entries(unit)?;
            let (start, indexes) = entries.functions.range(..=address).next_back()?;
            let die = Die { unit, index: *indexes.first()? };
            // Relative to its start, since DWARF 4.
            let size = self.number(die, gimli::DW_AT_high_pc)?;
            (address - start < size).then_some(die)
        })
    }

    /// The vtable of a trait object at an address.
    pub(super) fn vtable(&mut self, address: u64) -> Option<Die> {
        let units = self.units_of(address);
        units.into_iter().find_map(|unit| Some(Die { unit, index: *self.entries(unit)?.vtables.get(&address)? }))
    }

    /// Structures of a unit that may be a task's.
    pub(super) fn cells(&mut self, like: Die) -> Vec<Die> {
        let Some(entries) = self.entries(like.unit) else { return Vec::new() };
        entries.cells.iter().map(|&index| Die { unit: like.unit, index }).collect()
    }

    /// The entry's offset in `.debug_info`, which identifies it.
    pub(super) fn id(&mut self, die: Die) -> Option<u64> {
        let (start, _) = *self.units.get(usize::try_from(die.unit).ok()?)?;
        let entries = self.entries(die.unit)?;
        u64::try_from(start.checked_add(entries.get(die)?.offset)?).ok()
    }

    pub(super) fn tag(&mut self, die: Die) -> Option<DwTag> {
        Some(self.entries(die.unit)?.get(die)?.tag)
    }

    pub(super) fn parent(&mut self, die: Die) -> Option<Die> {
        let parent = self.entries(die.unit)?.get(die)?.parent;
        (parent != u32::MAX).then_some(Die { index: parent, ..die })
    }

    /// The direct children of an entry.
    pub(super) fn children(&mut self, die: Die) -> Vec<Die> {
        let mut children = Vec::new();
        let Some(entries) = self.entries(die.unit) else { return children };
        let end = entries.get(die).map_or(0, |e| e.end);
        let mut next = die.index + 1;
        while next < end {
            let child = Die { index: next, ..die };
            children.push(child);
            // Always past this entry, even if the pass was damaged.
            next = entries.get(child).map_or(end, |e| e.end).max(next + 1);
        }
        children
    }

    /// All entries inside an entry, at any depth.
    pub(super) fn inside(&mut self, die: Die) -> impl Iterator<Item = Die> + use<> {
        let end = self.entries(die.unit).and_then(|e| Some(e.get(die)?.end)).unwrap_or(0);
        (die.index + 1..end).map(move |index| Die { index, ..die })
    }

    pub(super) fn name(&mut self, die: Die) -> Option<String> {
        let entries = self.entries(die.unit)?;
        let entry = entries.unit.entry(UnitOffset(entries.get(die)?.offset)).ok()?;
        let name = name(&self.dwarf, &entries.unit, &entry)?;
        Some(String::from_utf8_lossy(name.get(..LONGEST_NAME).unwrap_or(name)).into_owned())
    }

    /// A numeric attribute.
    pub(super) fn number(&mut self, die: Die, attribute: gimli::DwAt) -> Option<u64> {
        self.attribute(die, attribute)?.udata_value()
    }

    /// `DW_AT_discr_value`, of up to 16 bytes.
    pub(super) fn discriminant(&mut self, die: Die) -> Option<u128> {
        match self.attribute(die, gimli::DW_AT_discr_value)? {
            AttributeValue::Block(block) => {
                let mut bytes = [0; 16];
                let block = block.slice();
                bytes.get_mut(..block.len())?.copy_from_slice(block);
                Some(u128::from_le_bytes(bytes))
            }
            value => match value.sdata_value() {
                // The tag is compared as in memory, masked to its size.
                Some(value) => Some(u128::from_ne_bytes(i128::from(value).to_ne_bytes())),
                None => value.udata_value().map(u128::from),
            },
        }
    }

    /// The entry to which another one refers.
    pub(super) fn reference(&mut self, die: Die, attribute: gimli::DwAt) -> Option<Die> {
        let offset = match self.attribute(die, attribute)? {
            AttributeValue::UnitRef(UnitOffset(offset)) => return self.find(die.unit, offset),
            AttributeValue::DebugInfoRef(gimli::DebugInfoOffset(offset)) => offset,
            _ => return None,
        };
        let unit = self.unit_at(offset)?;
        let (start, _) = *self.units.get(usize::try_from(unit).ok()?)?;
        self.find(unit, offset - start)
    }

    fn find(&mut self, unit: u32, offset: usize) -> Option<Die> {
        let index = self.entries(unit)?.entries.binary_search_by_key(&offset, |e| e.offset).ok()?;
        Some(Die { unit, index: u32::try_from(index).ok()? })
    }

    /// The source line of an entry's declaration.
    pub(super) fn line(&mut self, die: Die) -> Option<Line> {
        let line = u32::try_from(self.number(die, gimli::DW_AT_decl_line)?).ok()?;
        let AttributeValue::FileIndex(index) = self.attribute(die, gimli::DW_AT_decl_file)? else { return None };
        let entries = self.entries(die.unit)?;
        let program = entries.unit.line_program.as_ref()?.header();
        let file = program.file(index)?;
        let text = |value| -> Option<String> {
            Some(self.dwarf.attr_string(&entries.unit, value).ok()?.to_string_lossy().into_owned())
        };
        let folder = file.directory(program).filter(|_| file.directory_index() != 0).and_then(text);
        let name = text(file.path_name())?;
        let short = folder.map_or(name.clone(), |folder| format!("{folder}/{name}"));
        let base = entries.unit.comp_dir.map(|dir| dir.to_string_lossy()).unwrap_or_default();
        let whole = Path::new(base.as_ref()).join(&short).to_string_lossy().into_owned();
        // Paths of the program's own crate are relative to its workspace, as users know them; others are absolute.
        let file = if file_origin(&whole).is_some_and(|origin| origin != Origin::Own) { whole } else { short };
        (file.len() <= LONGEST_NAME).then_some(Line { file, line })
    }

    fn attribute(&mut self, die: Die, attribute: gimli::DwAt) -> Option<AttributeValue<Slice>> {
        let entries = self.entries(die.unit)?;
        entries.unit.entry(UnitOffset(entries.get(die)?.offset)).ok()?.attr_value(attribute)
    }

    /// The units of a crate: named `…/@/<crate>.<hash>-cgu.<n>`.
    pub(super) fn units_of_crate(&mut self, krate: &str) -> Vec<u32> {
        let mark = format!("/@/{krate}.");
        let mut found = Vec::new();
        for (index, &(offset, _)) in (0..).zip(&self.units) {
            let Ok(header) = self.dwarf.unit_header(gimli::DebugInfoOffset(offset)) else { continue };
            let Ok(unit) = self.dwarf.unit(header) else { continue };
            if unit.name.is_some_and(|name| name.to_string_lossy().contains(&mark)) {
                found.push(index);
            }
        }
        found
    }

    /// The functions of a unit that may be a coroutine's body.
    pub(super) fn bodies(&mut self, unit: u32) -> Vec<Die> {
        let Some(entries) = self.entries(unit) else { return Vec::new() };
        let functions = (0..).zip(&entries.entries).filter(|(_, e)| e.tag == gimli::DW_TAG_subprogram);
        functions.map(|(index, _)| Die { unit, index }).collect()
    }

    pub(super) fn unit(die: Die) -> u32 {
        die.unit
    }
}

impl Entries {
    fn get(&self, die: Die) -> Option<&Entry> {
        self.entries.get(usize::try_from(die.index).ok()?)
    }
}

/// The entries that make up types.
const KEPT: [DwTag; 11] = [
    gimli::DW_TAG_namespace,
    gimli::DW_TAG_union_type,
    gimli::DW_TAG_enumeration_type,
    gimli::DW_TAG_variant_part,
    gimli::DW_TAG_variant,
    gimli::DW_TAG_member,
    gimli::DW_TAG_template_type_parameter,
    gimli::DW_TAG_pointer_type,
    gimli::DW_TAG_array_type,
    gimli::DW_TAG_base_type,
    gimli::DW_TAG_typedef,
];

fn name(dwarf: &Dwarf<Slice>, unit: &Unit<Slice>, die: &DebuggingInformationEntry<Slice>) -> Option<&'static [u8]> {
    Some(dwarf.attr_string(unit, die.attr_value(gimli::DW_AT_name)?).ok()?.slice())
}

/// The address of a variable, if its location is just that.
fn location(unit: &Unit<Slice>, die: &DebuggingInformationEntry<Slice>) -> Option<u64> {
    let expression = die.attr_value(gimli::DW_AT_location)?.exprloc_value()?;
    match expression.operations(unit.encoding()).next().ok()?? {
        gimli::Operation::Address { address } => Some(address),
        _ => None,
    }
}
