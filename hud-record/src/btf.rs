//! Offsets of members of the kernel's structures, by its BTF (Documentation/bpf/btf.rst).
//!
//! One pass over the bytes: the kernel has about 130,000 types, and hud needs ten. A library that made a value of
//! each took 150 ms of CPU time, a third of an attach.

/// `BTF_MAGIC` (include/uapi/linux/btf.h), in this machine's byte order.
const MAGIC: u16 = 0xeb9f;
/// Bytes of `struct btf_type` before the kind's own data.
const TYPE_BYTES: usize = 12;
/// Bytes of `struct btf_member`.
const MEMBER_BYTES: usize = 12;
/// Nesting of anonymous structures, or of modifiers: the kernel has three.
const MOST_NESTED: usize = 16;

const PTR: u32 = 2;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const TYPEDEF: u32 = 8;
const FUNC_PROTO: u32 = 13;

/// The types of a kernel.
pub(crate) struct Types<'a> {
    bytes: &'a [u8],
    strings: &'a [u8],
    /// The start of each type in `bytes`. Type 0 is `void`, which has no entry.
    begins: Vec<u32>,
}

/// A type.
#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    /// Number of its members, parameters or values.
    length: usize,
    /// Whether member offsets are combined with the sizes of bit fields.
    has_bit_fields: bool,
    /// The referenced type, or its own size.
    refers_to: u32,
    /// The start of its kind's own data.
    rest: usize,
}

impl<'a> Types<'a> {
    /// Parses `file`, which has the format of `/sys/kernel/btf/vmlinux`.
    pub(crate) fn parse(file: &'a [u8]) -> Option<Self> {
        let header = |at| Some(word(file, at)? as usize);
        let magic = u16::from_ne_bytes(file.get(..2)?.try_into().ok()?);
        if magic != MAGIC {
            return None;
        }
        let start = header(4)?;
        let section = |offset: usize, length: usize| {
            let begin = start.checked_add(offset)?;
            file.get(begin..begin.checked_add(length)?)
        };
        let bytes = section(header(8)?, header(12)?)?;
        let strings = section(header(16)?, header(20)?)?;
        let mut types = Types { bytes, strings, begins: vec![u32::MAX] };
        let mut at = 0;
        while at < bytes.len() {
            types.begins.push(u32::try_from(at).ok()?);
            let found = types.at(at)?;
            at = found.rest.checked_add(added(found.kind, found.length)?)?;
        }
        Some(types)
    }

    /// Offset in bytes and type id of a member of the structure `of`, also inside anonymous ones (`task_struct` uses
    /// `randomized_struct_fields_start`).
    pub(crate) fn member(&self, of: &str, name: &str) -> Option<(u32, u32)> {
        self.named(STRUCT, of).find_map(|found| self.member_of(found, name, MOST_NESTED))
    }

    /// The same for the structure with this id.
    pub(crate) fn member_by_id(&self, id: u32, name: &str) -> Option<(u32, u32)> {
        self.member_of(self.by_id(id)?, name, MOST_NESTED)
    }

    /// The number of parameters of the function to which the type `name` points.
    pub(crate) fn parameters(&self, name: &str) -> Option<usize> {
        self.named(TYPEDEF, name).find_map(|found| {
            let pointer = self.by_id(found.refers_to).filter(|t| t.kind == PTR)?;
            let prototype = self.by_id(pointer.refers_to).filter(|t| t.kind == FUNC_PROTO)?;
            Some(prototype.length)
        })
    }

    fn member_of(&self, of: Type, name: &str, nested: usize) -> Option<(u32, u32)> {
        (0..of.length).find_map(|index| {
            let at = of.rest.checked_add(index.checked_mul(MEMBER_BYTES)?)?;
            let field = |offset: usize| word(self.bytes, at.checked_add(offset)?);
            let (its_name, id, bits) = (field(0)?, field(4)?, field(8)?);
            let offset = if of.has_bit_fields { bits & 0x00ff_ffff } else { bits } / 8;
            if self.is_called(its_name, name) {
                return Some((offset, id));
            }
            let inner = self.by_id(id).filter(|t| its_name == 0 && matches!(t.kind, STRUCT | UNION))?;
            let (inside, id) = self.member_of(inner, name, nested.checked_sub(1)?)?;
            Some((offset.checked_add(inside)?, id))
        })
    }

    fn named(&self, kind: u32, name: &str) -> impl Iterator<Item = Type> {
        let all = self.begins.iter().skip(1).filter_map(|&begin| self.at(begin as usize));
        all.filter(move |t| t.kind == kind && self.is_called(t.name, name))
    }

    /// A type, without `const`, `volatile`, `restrict` and tags around it.
    fn by_id(&self, id: u32) -> Option<Type> {
        let mut found = self.at(*self.begins.get(id as usize)? as usize)?;
        for _ in 0..MOST_NESTED {
            if !matches!(found.kind, 9..=11 | 18) {
                return Some(found);
            }
            found = self.at(*self.begins.get(found.refers_to as usize)? as usize)?;
        }
        None
    }

    fn at(&self, at: usize) -> Option<Type> {
        let field = |offset: usize| word(self.bytes, at.checked_add(offset)?);
        let (name, info, refers_to) = (field(0)?, field(4)?, field(8)?);
        Some(Type {
            name,
            kind: info >> 24 & 0x1f,
            length: (info & 0xffff) as usize,
            has_bit_fields: info >> 31 == 1,
            refers_to,
            rest: at.checked_add(TYPE_BYTES)?,
        })
    }

    fn is_called(&self, offset: u32, name: &str) -> bool {
        let rest = self.strings.get(offset as usize..).and_then(|s| s.strip_prefix(name.as_bytes()));
        rest.is_some_and(|rest| rest.first() == Some(&0))
    }
}

/// The size of a kind's own data. `None` for unknown kinds, which cannot be skipped.
fn added(kind: u32, length: usize) -> Option<usize> {
    match kind {
        // Pointers, forwards, typedefs, modifiers, functions, floats and tags of types.
        2 | 7..=12 | 16 | 18 => Some(0),
        // Integers, variables and tags of declarations.
        1 | 14 | 17 => Some(4),
        // Arrays.
        3 => Some(12),
        // Enumerations and prototypes.
        6 | 13 => length.checked_mul(8),
        // Structures, unions, sections of data and enumerations of 64 bits.
        4 | 5 | 15 | 19 => length.checked_mul(12),
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    /// `struct outer { int a; struct { const long b : 8 at bit 64 }; }`, a typedef of a pointer to a function of two.
    fn file() -> Vec<u8> {
        let strings = b"\0outer\0a\0b\0call\0";
        let info = |kind: u32, length: u32| kind << 24 | length;
        let types = [
            // 1: int
            &[0, info(1, 0), 4, 32][..],
            // 2: const int
            &[0, info(10, 0), 1],
            // 3: anonymous, with bit fields: offset 64, size 8
            &[0, info(STRUCT, 1) | 1 << 31, 16, 9, 2, 8 << 24 | 64],
            // 4: outer; the anonymous one by way of a `volatile`
            &[1, info(STRUCT, 2), 24, 7, 1, 0, 0, 7, 64],
            // 5: the function, 6: a pointer to it
            &[0, info(FUNC_PROTO, 2), 0, 0, 1, 0, 1],
            &[0, info(PTR, 0), 5],
            // 7: volatile of 3
            &[0, info(9, 0), 3],
            // 8: call
            &[11, info(TYPEDEF, 0), 6],
        ]
        .concat();
        let length = u32::try_from(types.len() * 4).unwrap();
        let header = [u32::from(MAGIC) | 1 << 16, 24, 0, length, length, u32::try_from(strings.len()).unwrap()];
        let words = header.iter().chain(&types).flat_map(|word| word.to_ne_bytes());
        words.chain(strings.iter().copied()).collect()
    }

    #[test]
    fn members_are_found_inside_anonymous_structures() {
        let file = file();
        let types = Types::parse(&file).unwrap();
        assert_eq!(types.member("outer", "a"), Some((0, 1)));
        assert_eq!(types.member("outer", "b"), Some((16, 2)));
        assert_eq!(types.member_by_id(7, "b"), Some((8, 2)));
        assert_eq!(types.member("outer", "c"), None);
        assert_eq!(types.member("oute", "a"), None);
        assert_eq!(types.parameters("call"), Some(2));
        assert_eq!(types.parameters("outer"), None);
    }

    #[test]
    fn survives_a_damaged_file() {
        let file = file();
        for length in 0..file.len() {
            let _ = Types::parse(&file[..length]);
        }
        for at in 0..file.len() {
            for value in [0, 1, 9, 0x7f, 0xff] {
                let mut damaged = file.clone();
                damaged[at] = value;
                if let Some(types) = Types::parse(&damaged) {
                    let _ = (types.member("outer", "b"), types.member_by_id(3, "a"), types.parameters("call"));
                }
            }
        }
    }
}
