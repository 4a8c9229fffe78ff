//! Where in a function a probe costs least.
//!
//! A uprobe replaces the first byte of an instruction. The kernel emulates a few kinds (`push`, direct jumps,
//! conditional jumps, calls and one-byte `nop`s: arch/x86/kernel/uprobes.c, `branch_setup_xol_ops` and
//! `push_setup_xol_ops`); any other is stepped out of line, which takes a second exception: 3 µs more on the machine of
//! docs/benchmarks, where `wake_by_ref` begins with `sub $0x18,%rsp`. So the probe is placed at the first emulated
//! instruction, if every call reaches it with the first argument still in `rdi`.

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, OpAccess, Register};

/// Instructions that are examined.
const MOST: usize = 24;

/// The best offset from a function's entry for a probe that reads `rdi`; 0 is the entry.
///
/// A conditional jump may also be reached from below it, in a loop: a probe there may be hit more than once per call.
pub(super) fn cheapest(code: &[u8]) -> u64 {
    let mut info = InstructionInfoFactory::new();
    for instruction in Decoder::with_ip(64, code, 0, DecoderOptions::NONE).into_iter().take(MOST) {
        if instruction.is_invalid() {
            break;
        }
        if is_emulated(&instruction) {
            return instruction.ip();
        }
        let changes_argument = info.info(&instruction).used_registers().iter().any(|r| {
            r.register().full_register() == Register::RDI && !matches!(r.access(), OpAccess::Read | OpAccess::CondRead)
        });
        if changes_argument || instruction.flow_control() != FlowControl::Next {
            break;
        }
    }
    0
}

fn is_emulated(instruction: &Instruction) -> bool {
    let push = instruction.code() == Code::Push_r64 && instruction.len() <= 2;
    let branch = match instruction.flow_control() {
        FlowControl::ConditionalBranch => instruction.is_jcc_short_or_near(),
        FlowControl::UnconditionalBranch => instruction.is_jmp_short_or_near(),
        FlowControl::Call => instruction.is_call_near(),
        _ => false,
    };
    push || branch || instruction.code() == Code::Nopd && instruction.len() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_instruction_that_the_kernel_emulates() {
        // sub $0x18,%rsp; mov (%rdi),%rax; lea 0x8(%rsp),%rcx; test $0x2,%al; jne
        let wake_by_ref =
            [0x48, 0x83, 0xec, 0x18, 0x48, 0x8b, 0x07, 0x48, 0x8d, 0x4c, 0x24, 0x08, 0xa8, 0x02, 0x75, 0x10];
        assert_eq!(cheapest(&wake_by_ref), 14);
        // push %rbx
        assert_eq!(cheapest(&[0x53, 0x48, 0x89, 0xfb]), 0);
        // push %r14
        assert_eq!(cheapest(&[0x48, 0x8b, 0x07, 0x41, 0x56]), 3);
    }

    #[test]
    fn never_past_a_change_of_the_argument_or_the_end_of_the_code() {
        // mov (%rdi),%rax; mov %rsi,%rdi; push %rbx
        assert_eq!(cheapest(&[0x48, 0x8b, 0x07, 0x48, 0x89, 0xf7, 0x53]), 0);
        // mov (%rdi),%rax; ret; push %rbx
        assert_eq!(cheapest(&[0x48, 0x8b, 0x07, 0xc3, 0x53]), 0);
        // xor %edi,%edi changes the whole register.
        assert_eq!(cheapest(&[0x48, 0x8b, 0x07, 0x31, 0xff, 0x53]), 0);
        assert_eq!(cheapest(&[]), 0);
        assert_eq!(cheapest(&[0x06, 0x07, 0x0f, 0xff, 0xff]), 0);
    }
}
