//! From an address of a module to its functions, inlined ones included.

use std::{
    cell::{OnceCell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
};

use addr2line::{Context, LookupContinuation as _, LookupResult, SplitDwarfLoad};
use gimli::{DebugInfoOffset, Dwarf, DwarfPackage, DwarfSections, EndianSlice, LittleEndian, UnitOffset, UnitRef};

use super::{
    frame::{LONGEST_NAME, MOST_FRAMES, ResolvedFrame},
    line_tables::{self, Paths},
    module_info::WantedObject,
    origin::Crates,
    symbol_table::Symbols,
};
use crate::inspect::{FunctionName, function};

pub(super) type Slice = EndianSlice<'static, LittleEndian>;
pub(super) type Sections = DwarfSections<Slice>;
pub(super) type Objects = HashMap<u64, Option<Sections>>;

/// Objects of split debug information that are read for one module: one for each codegen unit.
pub(super) const MOST_OBJECTS: usize = 16 << 10;

pub(super) struct Lookup {
    pub(super) dwarf: Option<Arc<Dwarf<Slice>>>,
    pub(super) context: Option<Context<Slice>>,
    pub(super) package: Option<DwarfPackage<Slice>>,
    pub(super) symbols: Symbols,
    pub(super) crates: Crates,
    /// The crates' source files; read when the first bare name is found.
    pub(super) sources: OnceCell<line_tables::Crates>,
    /// Full paths of inlined functions, by unit, for units with bare names only.
    pub(super) paths: RefCell<HashMap<DebugInfoOffset, Rc<Paths>>>,
}

/// A function as debug information describes it.
struct DebugFrame<'a> {
    name: Option<&'static str>,
    /// Written in Rust, and named without its path.
    is_bare: bool,
    is_rust: bool,
    die: Option<UnitOffset>,
    file: Option<&'a str>,
    position: Option<(Option<u32>, Option<u32>)>,
}

/// The functions at an address, innermost first; or the object that is needed to find them.
pub(super) fn frames(lookup: &Lookup, objects: &mut Objects, address: u64) -> Result<Vec<ResolvedFrame>, WantedObject> {
    let mut described = Vec::new();
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
            while described.len() < MOST_FRAMES
                && let Ok(Some(frame)) = found.next()
            {
                let name = frame.function.as_ref().and_then(|f| {
                    let raw: &'static [u8] = f.name.slice();
                    std::str::from_utf8(raw.get(..LONGEST_NAME).unwrap_or(raw)).ok()
                });
                // For a name that is not mangled, the unit's language shows that it is Rust's.
                let is_rust = frame.function.as_ref().is_some_and(|f| f.language == Some(gimli::DW_LANG_Rust));
                described.push(DebugFrame {
                    name,
                    is_bare: is_rust && name.is_some_and(line_tables::is_bare),
                    is_rust,
                    die: frame.dw_die_offset,
                    file: frame.location.as_ref().and_then(|l| l.file),
                    position: frame.location.as_ref().map(|l| (l.line, l.column)),
                });
            }
        }
    }
    if described.is_empty() {
        let symbol = lookup.symbols.find(address, |_| true).map(function);
        return Ok(symbol.map(|name| named(lookup, Some(name), None, None)).into_iter().collect());
    }
    if let (Some(innermost), Some(context)) = (described.first_mut(), &lookup.context)
        && innermost.is_bare
        && innermost.position.is_none_or(|(line, _)| line.is_none_or(|line| line == 0))
    {
        innermost.file = file_nearby(context, address, innermost);
    }
    let outermost = described.len() - 1;
    let names = described.iter().enumerate().map(|(depth, frame)| {
        let name = if depth == outermost {
            outermost_name(lookup, frame, address)
        } else {
            let caller = described.get(depth + 1).and_then(|caller| caller.name);
            frame.name.map(|name| inlined_name(lookup, frame, name, caller, address))
        };
        named(lookup, name, frame.file, frame.position)
    });
    Ok(names.collect())
}

/// The source file of the innermost function at an address without line: there the reported file is that of preceding
/// code. It is taken from nearby addresses of the same function.
fn file_nearby<'a>(context: &'a Context<Slice>, address: u64, function: &DebugFrame<'_>) -> Option<&'a str> {
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

/// Names a function that is not inlined. If debug information has no name or a bare one, the symbol table names it.
fn outermost_name(lookup: &Lookup, frame: &DebugFrame<'_>, address: u64) -> Option<FunctionName> {
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

/// Names a function that is inlined or has no symbol.
fn inlined_name(
    lookup: &Lookup,
    frame: &DebugFrame<'_>,
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

/// The full paths of the unit that contains an address, and the function to which the DIE of an inlined one refers.
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
    position: Option<(Option<u32>, Option<u32>)>,
) -> ResolvedFrame {
    let (line, column) = position.unwrap_or_default();
    let origin = lookup.crates.origin(function.as_ref(), file);
    let short = |text: &str| text.get(..text.floor_char_boundary(LONGEST_NAME)).unwrap_or_default().to_string();
    ResolvedFrame {
        origin,
        function: function.map(|f| short(&f.shown)),
        file: file.map(short),
        line: line.filter(|&line| line > 0),
        column: column.filter(|&column| column > 0),
    }
}

/// The object of split debug information that a lookup needs: from the package, or as it was received.
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
