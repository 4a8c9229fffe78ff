//! The functions of a binary without symbols: where they begin, and what they refer to.
//!
//! They come from `.eh_frame_hdr`, the sorted table that unwinding uses; stripping keeps it, as the program needs it. A
//! function ends where the next one begins.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    rc::Rc,
};

use gimli::{BaseAddresses, EhFrameHdr, LittleEndian, Pointer};
use iced_x86::{Code as Op, Decoder, DecoderOptions, FlowControl, Instruction, OpKind, Register};

use super::{binary::Binary, image::Image};

/// Bytes of one function that are decoded.
const MAX_FUNCTION: u64 = 256 << 10;
/// Bytes that are decoded in all: a fraction of a second's work.
const MAX_CODE: u64 = 64 << 20;

/// The functions of a binary.
pub(super) struct Code<'a> {
    binary: &'a Binary,
    image: &'a Image,
    /// Start addresses, sorted.
    starts: Vec<u64>,
    bodies: HashMap<u64, Rc<Body>>,
    left: u64,
}

/// The features of a function's code that matter here.
#[derive(Default)]
pub(super) struct Body {
    /// Functions that it calls, jumps to, or takes the address of.
    pub(super) functions: BTreeSet<u64>,
    /// Other addresses in the binary that it takes.
    pub(super) data: BTreeSet<u64>,
    /// Direct calls, each with the last address put into `rdi` before.
    pub(super) calls: Vec<(u64, Option<u64>)>,
    /// Whether it has a `lock cmpxchg` of 8 bytes.
    pub(super) compares_and_swaps: bool,
    /// Whether it adds to 8 bytes under `lock`.
    pub(super) adds: bool,
    /// Whether it has the constant 64, or its negative.
    pub(super) has_64: bool,
}

impl<'a> Code<'a> {
    /// The functions of `binary`; `None` if it has no table of them.
    pub(super) fn read(binary: &'a Binary, image: &'a Image) -> Option<Self> {
        let (address, bytes) = binary.eh_frame_hdr()?;
        let bases = BaseAddresses::default().set_eh_frame_hdr(address);
        let header = EhFrameHdr::new(bytes, LittleEndian).parse(&bases, 8).ok()?;
        let table = header.table()?;
        let mut entries = table.iter(&bases);
        let mut starts = Vec::new();
        // Bounded by the section's size.
        while let Ok(Some((Pointer::Direct(start), _))) = entries.next() {
            starts.push(start);
        }
        starts.sort_unstable();
        starts.dedup();
        Some(Code { binary, image, starts, bodies: HashMap::new(), left: MAX_CODE })
    }

    /// Whether a function begins at an address.
    pub(super) fn begins(&self, address: u64) -> bool {
        self.starts.binary_search(&address).is_ok() && self.binary.is_code(address)
    }

    /// The bytes of a function, possibly with padding after it.
    pub(super) fn bytes(&self, function: u64) -> &'a [u8] {
        let next = self.starts.partition_point(|&s| s <= function);
        let size = self.starts.get(next).map_or(MAX_FUNCTION, |end| end - function).min(MAX_FUNCTION);
        let bytes = self.binary.bytes(function, size);
        // The last function may be shorter.
        bytes.or_else(|| self.binary.bytes(function, 256)).unwrap_or_default()
    }

    /// The features of a function.
    pub(super) fn body(&mut self, function: u64) -> Rc<Body> {
        if let Some(body) = self.bodies.get(&function) {
            return Rc::clone(body);
        }
        let bytes = self.bytes(function);
        let size = bytes.len() as u64;
        let body = if size <= self.left {
            self.left -= size;
            Rc::new(self.decode(function, bytes))
        } else {
            Rc::default()
        };
        self.bodies.insert(function, Rc::clone(&body));
        body
    }

    /// The features of the functions reachable from one, itself included: nearest first, at most `most`.
    pub(super) fn reach(&mut self, function: u64, most: usize) -> Vec<Rc<Body>> {
        let mut reached = Vec::new();
        self.visit(function, most, |_, body| {
            reached.push(Rc::clone(body));
            false
        });
        reached
    }

    /// The functions themselves, by address.
    pub(super) fn nearest(&mut self, function: u64, most: usize) -> Vec<u64> {
        let mut reached = Vec::new();
        self.visit(function, most, |function, _| {
            reached.push(function);
            false
        });
        reached
    }

    /// Whether any of these functions satisfies the condition. Stops at the first.
    pub(super) fn any(&mut self, function: u64, most: usize, mut holds: impl FnMut(&Rc<Body>) -> bool) -> bool {
        self.visit(function, most, |_, body| holds(body))
    }

    /// Visits these functions, nearest first, until `holds`. Returns whether it did.
    fn visit(&mut self, function: u64, most: usize, mut holds: impl FnMut(u64, &Rc<Body>) -> bool) -> bool {
        let (mut seen, mut queue) = (HashSet::from([function]), VecDeque::from([function]));
        while let Some(function) = queue.pop_front() {
            let body = self.body(function);
            if holds(function, &body) {
                return true;
            }
            for &next in &body.functions {
                if seen.len() < most && seen.insert(next) {
                    queue.push_back(next);
                }
            }
        }
        false
    }

    fn decode(&self, function: u64, bytes: &[u8]) -> Body {
        let mut body = Body::default();
        let mut argument = None;
        let mut instruction = Instruction::default();
        let mut decoder = Decoder::with_ip(64, bytes, function, DecoderOptions::NONE);
        let end = function.saturating_add(bytes.len() as u64);
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            if instruction.is_invalid() {
                continue;
            }
            let target = match instruction.flow_control() {
                FlowControl::Call | FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
                    Some(instruction.near_branch_target())
                }
                // Through the table by which the linker binds functions of other crates.
                FlowControl::IndirectCall | FlowControl::IndirectBranch => self.loaded(&instruction),
                _ => None,
            };
            if let Some(target) = target {
                // Not a jump within the function.
                if self.begins(target) && !(target > function && target < end) {
                    body.functions.insert(target);
                    body.calls.push((target, argument.take()));
                }
                continue;
            }
            let taken = match instruction.code() {
                Op::Mov_r64_rm64 => self.loaded(&instruction),
                _ => address_taken(&instruction),
            };
            if let Some(address) = taken {
                if self.begins(address) {
                    body.functions.insert(address);
                } else if self.binary.file_offset(address).is_some() {
                    body.data.insert(address);
                }
            }
            if instruction.op_count() > 0 && instruction.op0_register().full_register() == Register::RDI {
                argument = taken;
            }
            if instruction.has_lock_prefix() {
                match instruction.code() {
                    Op::Cmpxchg_rm64_r64 => body.compares_and_swaps = true,
                    Op::Xadd_rm64_r64 | Op::Add_rm64_imm8 | Op::Sub_rm64_imm8 | Op::Add_rm64_r64 | Op::Sub_rm64_r64 => {
                        body.adds = true;
                    }
                    _ => {}
                }
            }
            body.has_64 |= immediate(&instruction).is_some_and(|value| matches!(value.cast_signed(), 64 | -64));
        }
        body
    }

    /// The pointer that an instruction reads from a fixed address.
    fn loaded(&self, instruction: &Instruction) -> Option<u64> {
        let is_fixed = instruction.is_ip_rel_memory_operand() && instruction.segment_prefix() == Register::None;
        is_fixed.then(|| self.image.pointer(instruction.ip_rel_memory_address()))?
    }
}

/// The address that an instruction takes: `lea x(%rip)`, or `mov $x` if the binary is loaded at a fixed address.
fn address_taken(instruction: &Instruction) -> Option<u64> {
    if instruction.is_ip_rel_memory_operand() {
        return (instruction.code() == Op::Lea_r64_m).then(|| instruction.ip_rel_memory_address());
    }
    immediate(instruction)
}

/// An instruction's constant, extended to 8 bytes.
fn immediate(instruction: &Instruction) -> Option<u64> {
    (0..instruction.op_count())
        .find(|&operand| is_immediate(instruction.op_kind(operand)))
        .map(|o| instruction.immediate(o))
}

fn is_immediate(kind: OpKind) -> bool {
    matches!(kind, OpKind::Immediate8to64 | OpKind::Immediate32 | OpKind::Immediate32to64 | OpKind::Immediate64)
}
