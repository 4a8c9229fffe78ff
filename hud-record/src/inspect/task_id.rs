//! The thread-local that holds the current task's id, by the code that sets it.
//!
//! Each poll of a task stores the task's id there and restores the previous one at its end (`TaskIdGuard` in
//! tokio/src/runtime/task/core.rs, since 1.23): code near `raw::poll` that loads 8 bytes of thread-local storage and
//! stores its argument there, or a value read from the task. This needs neither symbols nor debug information.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{
    Code as Op, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, OpAccess, OpKind, Register,
    UsedMemory,
};

use super::{binary::Binary, functions::Code, image::Image};

/// Poll functions whose code is decoded: a few suffice.
const POLLS: usize = 24;
/// Functions around each of them.
const NEARBY: usize = 32;
/// Poll functions that must agree.
const ENOUGH: usize = 2;

/// The distance from `fsbase` to the current task's id, as `polls` use it.
///
/// Until tokio 1.39 the field was an `Option`, the id behind its tag (`is_tagged`).
pub(super) fn distance(binary: &Binary, image: &Image, polls: &[u64], is_tagged: bool) -> Option<i64> {
    // A library's code calls `__tls_get_addr`.
    if binary.tls_module() != 0 {
        return None;
    }
    let mut code = Code::read(binary, image)?;
    let first = binary.tls_offset(0)?;
    let mut by_function: BTreeMap<u64, BTreeSet<i64>> = BTreeMap::new();
    let mut votes: BTreeMap<i64, usize> = BTreeMap::new();
    let polls = || polls.iter().take(POLLS);
    for &poll in polls() {
        let mut replaced = BTreeSet::new();
        for function in code.nearest(poll, NEARBY) {
            let found = by_function.entry(function).or_insert_with(|| replaced_by(&code, image, function, first));
            replaced.extend(found.iter().copied());
        }
        for place in replaced {
            *votes.entry(place).or_default() += 1;
        }
    }
    let most = *votes.values().max()?;
    if most < ENOUGH || most * 2 < polls().count() {
        return None;
    }
    let places: Vec<i64> = votes.into_iter().filter(|&(_, count)| count == most).map(|(place, _)| place).collect();
    match (is_tagged, places.as_slice()) {
        (false, &[place]) => Some(place),
        (true, &[place]) => Some(place),
        (true, &[tag, place]) if place == tag + 8 => Some(place),
        _ => None,
    }
}

/// The relevant content of a register.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Value {
    /// An address in thread-local storage, by its distance from `fsbase`.
    Local(i64),
    /// The distance itself.
    Distance(i64),
    /// The first argument, or a value from memory that is not thread-local.
    Passed,
}

/// The positions in thread-local storage that a function loads, and where it stores a value that was passed to it. The
/// storage begins at `first`.
///
/// Decoded from top to bottom, without regard to jumps: correct as long as compilers lay out short functions in the order
/// of their source. So several functions must agree.
fn replaced_by(code: &Code<'_>, image: &Image, function: u64, first: i64) -> BTreeSet<i64> {
    let (mut loaded, mut stored) = (BTreeSet::new(), BTreeSet::new());
    let mut registers: BTreeMap<Register, Value> = BTreeMap::from([(Register::RDI, Value::Passed)]);
    let mut info = InstructionInfoFactory::new();
    let mut instruction = Instruction::default();
    let mut decoder = Decoder::with_ip(64, code.bytes(function), function, DecoderOptions::NONE);
    let is_place = |place: i64| (first..0).contains(&place) && place % 8 == 0;
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            break;
        }
        let used = info.info(&instruction);
        let memory = used.used_memory().first();
        let local = memory.and_then(|memory| local_address(memory, &registers));
        if let (Some(memory), Some(place)) = (memory, local) {
            let words = (0_i64..).step_by(8).take(memory.memory_size().size() / 8);
            let places = words.filter_map(|word| place.checked_add(word)).filter(|&place| is_place(place));
            match memory.access() {
                OpAccess::Read => loaded.extend(places),
                OpAccess::Write if stores_passed(&instruction, &registers) => stored.extend(places),
                _ => {}
            }
        }
        let result = result(&instruction, image, local, first, &registers);
        if instruction.flow_control() == FlowControl::Call || instruction.flow_control() == FlowControl::IndirectCall {
            registers.retain(|register, _| PRESERVED.contains(register));
        }
        for written in used.used_registers().iter().filter(|r| writes(r.access())) {
            registers.remove(&written.register().full_register());
        }
        if let Some(value) = result {
            registers.insert(instruction.op0_register().full_register(), value);
        }
    }
    &loaded & &stored
}

/// Registers that a called function restores.
const PRESERVED: [Register; 7] =
    [Register::RBX, Register::RBP, Register::RSP, Register::R12, Register::R13, Register::R14, Register::R15];

fn writes(access: OpAccess) -> bool {
    matches!(access, OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite | OpAccess::ReadCondWrite)
}

/// The address of an access in thread-local storage.
fn local_address(memory: &UsedMemory, registers: &BTreeMap<Register, Value>) -> Option<i64> {
    let displacement = memory.displacement().cast_signed();
    let base = registers.get(&memory.base()).copied();
    let index = registers.get(&memory.index()).copied().filter(|_| memory.scale() == 1);
    match (memory.segment(), memory.base(), memory.index()) {
        (Register::FS, Register::None, Register::None) => Some(displacement),
        (Register::FS, _, Register::None) => match base {
            Some(Value::Distance(distance)) => distance.checked_add(displacement),
            _ => None,
        },
        (_, _, Register::None) => match base {
            Some(Value::Local(place)) => place.checked_add(displacement),
            _ => None,
        },
        _ => match (base, index) {
            (Some(Value::Local(place)), Some(Value::Distance(distance)))
            | (Some(Value::Distance(distance)), Some(Value::Local(place))) => {
                place.checked_add(distance)?.checked_add(displacement)
            }
            _ => None,
        },
    }
}

/// Whether an instruction stores a value that was passed to the function.
fn stores_passed(instruction: &Instruction, registers: &BTreeMap<Register, Value>) -> bool {
    instruction.op_count() == 2
        && instruction.op1_kind() == OpKind::Register
        && registers.get(&instruction.op1_register().full_register()) == Some(&Value::Passed)
}

/// The content of an instruction's first operand, a register, after it; `local` is the thread-local that it reads.
fn result(
    instruction: &Instruction,
    image: &Image,
    local: Option<i64>,
    first: i64,
    registers: &BTreeMap<Register, Value>,
) -> Option<Value> {
    let is_distance = |distance: i64| (first..0).contains(&distance).then_some(Value::Distance(distance));
    // The linker's table of distances, used where they are not in the code.
    let fixed = || {
        let is_fixed = instruction.is_ip_rel_memory_operand() && instruction.segment_prefix() == Register::None;
        is_fixed
            .then(|| image.word(instruction.ip_rel_memory_address()))?
            .and_then(|word| is_distance(word.cast_signed()))
    };
    let register = |operand: Register| registers.get(&operand.full_register()).copied();
    let sum = |a: Option<Value>, b: Option<Value>| match (a?, b?) {
        (Value::Local(place), Value::Distance(distance)) | (Value::Distance(distance), Value::Local(place)) => {
            Some(Value::Local(place.checked_add(distance)?))
        }
        _ => None,
    };
    match instruction.code() {
        // `fs:0` holds its own address.
        Op::Mov_r64_rm64 if local == Some(0) => Some(Value::Local(0)),
        Op::Mov_r64_rm64 | Op::Mov_rm64_r64 if instruction.op1_kind() == OpKind::Register => {
            (instruction.op0_kind() == OpKind::Register).then(|| register(instruction.op1_register()))?
        }
        Op::Mov_r64_rm64 => fixed().or_else(|| local.is_none().then_some(Value::Passed)),
        Op::Movups_xmm_xmmm128 | Op::Movaps_xmm_xmmm128 | Op::Movdqu_xmm_xmmm128 | Op::Movdqa_xmm_xmmm128
            if instruction.op1_kind() == OpKind::Memory =>
        {
            local.is_none().then_some(Value::Passed)
        }
        Op::Mov_rm64_imm32 if instruction.op0_kind() == OpKind::Register => is_distance(instruction.immediate32to64()),
        Op::Lea_r64_m => local_of_lea(instruction, registers).map(Value::Local),
        Op::Add_r64_rm64 | Op::Add_rm64_r64 if instruction.op0_kind() == OpKind::Register => {
            let added = match instruction.op1_kind() {
                OpKind::Register => register(instruction.op1_register()),
                _ if local == Some(0) => Some(Value::Local(0)),
                _ => fixed(),
            };
            sum(register(instruction.op0_register()), added)
        }
        Op::Add_rm64_imm8 | Op::Add_rm64_imm32 if instruction.op0_kind() == OpKind::Register => {
            match register(instruction.op0_register())? {
                Value::Local(place) => Some(Value::Local(place.checked_add(instruction.immediate(1).cast_signed())?)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The address that `lea` calculates, if it is one in thread-local storage.
fn local_of_lea(instruction: &Instruction, registers: &BTreeMap<Register, Value>) -> Option<i64> {
    let displacement = instruction.memory_displacement64().cast_signed();
    let value = |register: Register| registers.get(&register.full_register()).copied();
    match (value(instruction.memory_base()), instruction.memory_index()) {
        (Some(Value::Local(place)), Register::None) => place.checked_add(displacement),
        (base, index) if instruction.memory_index_scale() == 1 => match (base?, value(index)?) {
            (Value::Local(place), Value::Distance(distance)) | (Value::Distance(distance), Value::Local(place)) => {
                place.checked_add(distance)?.checked_add(displacement)
            }
            _ => None,
        },
        _ => None,
    }
}
