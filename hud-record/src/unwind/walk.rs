//! Walks the stack of a thread that is asleep, from outside, by the same tables and rules as the kernel program
//! (hud-ebpf/src/unwind.rs).
//!
//! The kernel program has all registers of the thread; `/proc/PID/task/TID/syscall` has the program counter and the stack
//! pointer only. The caller's `rbp` becomes known in the first frame that saved it. Until then a frame whose CFA is
//! relative to `rbp` has an unknown one (the standard library is built with frame pointers, the C library's system calls
//! save none): it is found by the size of the frame, which the function's first instructions tell, if there is a return
//! address behind a call. Where there is none, the walk ends and says so.

use hud_common::{
    unwind::{BUCKET_BITS, Outcome, ROW_STEPS, Row, Rule},
    wire::MAX_FRAMES,
};

/// Rules of a function that are passed on the way from a call in it to its start.
const MOST_RULES: usize = 1024;
/// Instructions that make a frame.
const MOST_PROLOGUE: usize = 64;

/// The unwind tables of a process.
pub(crate) trait Tables {
    /// The rule that applies at an address, and the address from which on it does; `None` if no code is mapped there.
    fn row(&self, address: u64) -> Option<(u64, Row)>;
}

/// The memory of a process.
pub(crate) trait Words {
    /// The 8 bytes at an address, which need not be aligned.
    fn word(&mut self, address: u64) -> Option<u64>;
}

/// A stack: runtime addresses, leaf first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Walked {
    pub(crate) addresses: Vec<u64>,
    pub(crate) outcome: Outcome,
}

/// The row that applies `offset` bytes behind the base of a table with this number of index entries.
pub(crate) fn find_row(
    offset: u64,
    buckets: u32,
    index: impl Fn(u32) -> Option<u32>,
    row: impl Fn(u32) -> Option<Row>,
) -> Option<Row> {
    let bucket = u32::try_from(offset >> BUCKET_BITS).ok().filter(|bucket| *bucket < buckets)?;
    // The last one at the address or before. There is at least one: the row that applies at the bucket's first byte.
    let (mut low, high) = (index(bucket)?, index(bucket.checked_add(1)?)?);
    let mut count = high.checked_sub(low)?.checked_add(1)?;
    for _ in 0..ROW_STEPS {
        if count <= 1 {
            break;
        }
        let half = count / 2;
        let middle = low.checked_add(half)?;
        if u64::from(row(middle)?.address) <= offset {
            low = middle;
        }
        count -= half;
    }
    row(low)
}

/// A walk in progress.
struct Walk<'a, T, W> {
    tables: &'a T,
    memory: &'a mut W,
    pc: u64,
    sp: u64,
    /// `None` until a frame has saved it.
    bp: Option<u64>,
    /// Whether `pc` is a return address: it may already belong to the code after the call.
    is_return: bool,
}

/// Walks the stack of a thread that was asleep at this program counter with this stack pointer.
pub(crate) fn walk(tables: &impl Tables, memory: &mut impl Words, pc: u64, sp: u64) -> Walked {
    let mut walk = Walk { tables, memory, pc, sp, bp: None, is_return: false };
    let mut addresses = Vec::new();
    let outcome = loop {
        if walk.pc == 0 {
            // The creator of this thread put no return address below its first function.
            break Outcome::Complete;
        }
        let Some((_, row)) = tables.row(walk.address()) else {
            if addresses.is_empty() {
                // The leaf is certain; its caller is unknown.
                addresses.push(walk.pc);
            }
            break Outcome::Failed;
        };
        if addresses.len() >= MAX_FRAMES {
            break Outcome::Truncated;
        }
        addresses.push(walk.pc);
        if row.rule == Rule::Outermost as u8 {
            break Outcome::Complete;
        }
        if walk.leave_frame(row).is_none() {
            // By the ABI the outermost frame has no frame pointer.
            let is_outermost = row.rule == Rule::Unknown as u8 && walk.is_return && walk.bp == Some(0);
            break if is_outermost { Outcome::Complete } else { Outcome::Failed };
        }
    };
    Walked { addresses, outcome }
}

impl<T: Tables, W: Words> Walk<'_, T, W> {
    /// The address whose rule applies: of a caller that of its call.
    fn address(&self) -> u64 {
        self.pc.wrapping_sub(self.is_return.into())
    }

    /// Moves from a frame to its caller's; `None` if that cannot be found.
    fn leave_frame(&mut self, row: Row) -> Option<()> {
        let distance = i64::from(row.cfa) * 8;
        // Where the caller's rbp lies; `None` = it is unchanged.
        let mut saved = None;
        let cfa = match row.rule {
            rule if rule == Rule::Signal as u8 => return self.leave_signal(),
            rule if rule == Rule::Rsp as u8 => self.sp.checked_add_signed(distance)?,
            rule if rule == Rule::Rbp as u8 => match self.bp {
                Some(bp) => bp.checked_add_signed(distance)?,
                None => self.find_cfa()?,
            },
            rule if rule == Rule::Plt as u8 => {
                let is_past = self.pc & 15 >= u64::from(row.rbp.unsigned_abs());
                self.sp.checked_add_signed(distance)?.checked_add(if is_past { 8 } else { 0 })?
            }
            rule if rule == Rule::AtRbp as u8 => {
                saved = self.bp;
                self.memory.word(self.bp?.checked_add_signed(distance)?)?
            }
            // No rule: a frame pointer, if it is one.
            _ if self.is_sigreturn() => return self.leave_signal(),
            _ => {
                saved = self.bp.filter(|bp| *bp != 0);
                saved?.checked_add(16)?
            }
        };
        // Each frame lies further out than the one before, so the walk ends.
        if cfa <= self.sp || cfa & 7 != 0 {
            return None;
        }
        if row.rule != Rule::Plt as u8 && row.rbp != 0 {
            saved = Some(cfa.checked_add_signed(i64::from(row.rbp) * 8)?);
        }
        let pc = self.memory.word(cfa.checked_sub(8)?)?;
        if let Some(saved) = saved {
            self.bp = Some(self.memory.word(saved)?);
        }
        (self.pc, self.sp, self.is_return) = (pc, cfa, true);
        Some(())
    }

    /// The CFA of a function that addresses it by `rbp`, whose value is unknown: by the size of its frame, if its caller's
    /// return address is where that says.
    fn find_cfa(&mut self) -> Option<u64> {
        let size = self.frame_size()?;
        let cfa = self.sp.checked_add(size)?.checked_add(16)?;
        let back = self.memory.word(cfa.checked_sub(8)?)?;
        self.tables.row(back.checked_sub(1)?)?;
        self.is_after_call(back).then_some(cfa)
    }

    /// Bytes of the stack that the function takes below the saved `rbp`, by its first instructions. (Compilers move the
    /// stack pointer there only, unless the size of a frame is known at run time.)
    fn frame_size(&mut self) -> Option<u64> {
        let mut at = self.frame_pointer_set()?;
        if self.code::<3>(at)? != [0x48, 0x89, 0xe5] {
            return None;
        }
        at += 3;
        let mut size = 0_u64;
        for _ in 0..MOST_PROLOGUE {
            let [one, two, three, four, five, six, seven, _] = self.code::<8>(at)?;
            let (length, taken) = match [one, two, three] {
                // push r8 to r15, push rax to rdi
                [0x41, 0x50..=0x57, _] => (2, 8),
                [0x50..=0x57, ..] => (1, 8),
                // sub $imm8, %rsp; sub $imm32, %rsp
                [0x48, 0x83, 0xec] => (4, u64::from(four)),
                [0x48, 0x81, 0xec] => (7, u64::from(u32::from_le_bytes([four, five, six, seven]))),
                // movq $0, (%rsp): touches a page of a large frame.
                [0x48, 0xc7, 0x04] if [four, five, six, seven] == [0x24, 0, 0, 0] => (8, 0),
                _ => break,
            };
            (at, size) = (at.checked_add(length)?, size.checked_add(taken)?);
        }
        Some(size)
    }

    /// Where the function copies `rsp` to `rbp`: right after it has pushed `rbp`.
    fn frame_pointer_set(&self) -> Option<u64> {
        let mut at = self.address();
        for _ in 0..MOST_RULES {
            let (start, row) = self.tables.row(at)?;
            if (row.rule, row.cfa, row.rbp) == (Rule::Rsp as u8, 2, -2) {
                return Some(start);
            }
            at = start.checked_sub(1)?;
        }
        None
    }

    /// Whether the instruction before `back` is a call: e8 with a distance, or ff with 2 as its operation.
    fn is_after_call(&mut self, back: u64) -> bool {
        let Some(code) = back.checked_sub(8).and_then(|at| self.code::<8>(at)) else { return false };
        let is_indirect = |pair: &[u8]| matches!(pair, [0xff, operation] if operation >> 3 & 7 == 2);
        code.get(3) == Some(&0xe8) || code.windows(2).skip(1).any(is_indirect)
    }

    fn code<const N: usize>(&mut self, at: u64) -> Option<[u8; N]> {
        self.memory.word(at)?.to_le_bytes().first_chunk().copied()
    }

    /// Moves from the return of a signal handler to the interrupted code, whose registers lie in the `ucontext` at rsp
    /// (arch/x86/include/uapi/asm/sigcontext.h, `struct sigcontext_64` at byte 40).
    fn leave_signal(&mut self) -> Option<()> {
        let mut register = |offset: u64| self.memory.word(self.sp.checked_add(40 + offset)?);
        let (bp, sp, pc) = (register(80)?, register(120)?, register(128)?);
        // An alternate stack may lie anywhere, so nothing is known of the order of the two; frames are bounded.
        (self.bp, self.sp, self.pc, self.is_return) = (Some(bp), sp, pc, false);
        Some(())
    }

    /// Whether the code is `mov $15, %rax; syscall`: `rt_sigreturn` in C libraries without unwind information.
    fn is_sigreturn(&mut self) -> bool {
        const CODE: u64 = u64::from_le_bytes([0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f]);
        self.memory.word(self.pc) == Some(CODE)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Rules by their first address; code ends where a rule is `None`.
    #[derive(Default)]
    struct Rules(Vec<(u64, Option<Row>)>);

    impl Tables for Rules {
        fn row(&self, address: u64) -> Option<(u64, Row)> {
            let (start, row) = self.0.iter().rev().find(|(start, _)| *start <= address)?;
            Some((*start, (*row)?))
        }
    }

    #[derive(Default)]
    struct Bytes(HashMap<u64, u8>);

    impl Bytes {
        fn put(&mut self, at: u64, bytes: &[u8]) {
            self.0.extend((at..).zip(bytes.iter().copied()));
        }

        fn word_at(&mut self, at: u64, word: u64) {
            self.put(at, &word.to_le_bytes());
        }
    }

    impl Words for Bytes {
        fn word(&mut self, address: u64) -> Option<u64> {
            let mut word = [0; 8];
            for (at, byte) in (address..).zip(&mut word) {
                *byte = *self.0.get(&at)?;
            }
            Some(u64::from_le_bytes(word))
        }
    }

    fn row(rule: Rule, cfa: i16, rbp: i8) -> Option<Row> {
        Some(Row { address: 0, cfa, rbp, rule: rule as u8 })
    }

    /// A system call at 0x1010 in a function that saves nothing; its caller at 0x2000 has a frame pointer; that one's
    /// caller at 0x3000 has none and restores rbp; the thread starts at 0x4000.
    fn program() -> (Rules, Bytes) {
        let rules = Rules(vec![
            (0x1000, row(Rule::Rsp, 1, 0)),
            (0x1fff, None),
            (0x2000, row(Rule::Rsp, 1, 0)),
            (0x2001, row(Rule::Rsp, 2, -2)),
            (0x2004, row(Rule::Rbp, 2, -2)),
            (0x2fff, None),
            (0x3000, row(Rule::Rsp, 1, 0)),
            (0x3001, row(Rule::Rsp, 5, -2)),
            (0x3fff, None),
            (0x4000, row(Rule::Outermost, 0, 0)),
            (0x4fff, None),
        ]);
        let mut memory = Bytes::default();
        for at in (0x7000..0x8000).step_by(8) {
            memory.word_at(at, 0x55);
        }
        for at in 0x1000..0x5000 {
            memory.put(at, &[0x90]);
        }
        // push %rbp; mov %rsp, %rbp; push %r15; push %rbx; sub $0x18, %rsp: 40 bytes.
        memory.put(0x2000, &[0x55, 0x48, 0x89, 0xe5, 0x41, 0x57, 0x53, 0x48, 0x83, 0xec, 0x18]);
        // Calls before 0x2040 and 0x3040.
        memory.put(0x2040 - 5, &[0xe8]);
        memory.put(0x3040 - 2, &[0xff, 0xd0]);
        (rules, memory)
    }

    #[test]
    fn finds_a_frame_pointer_that_the_registers_do_not_have() {
        let (rules, mut memory) = program();
        memory.word_at(0x7000, 0x2040);
        memory.word_at(0x7030, 0xbeef);
        memory.word_at(0x7038, 0x3040);
        memory.word_at(0x7038 + 8 + 8 * 3, 0xfeed);
        memory.word_at(0x7038 + 8 + 8 * 4, 0x4010);
        let whole = Walked { addresses: vec![0x1010, 0x2040, 0x3040, 0x4010], outcome: Outcome::Complete };
        assert_eq!(walk(&rules, &mut memory, 0x1010, 0x7000), whole);
        // A frame of 0x28 bytes in other words, and of more than a page.
        memory.put(0x2004, &[0x48, 0x81, 0xec, 0x28, 0, 0, 0]);
        assert_eq!(walk(&rules, &mut memory, 0x1010, 0x7000), whole);
        memory.put(0x2004, &[0x50, 0x48, 0x81, 0xec, 0x10, 0, 0, 0, 0x48, 0xc7, 0x04, 0x24, 0, 0, 0, 0]);
        memory.put(0x2014, &[0x48, 0x83, 0xec, 0x10]);
        assert_eq!(walk(&rules, &mut memory, 0x1010, 0x7000), whole);
    }

    #[test]
    fn a_frame_of_unknown_size_ends_the_walk() {
        let cut = Walked { addresses: vec![0x1010, 0x2040], outcome: Outcome::Failed };
        let whole = |memory: &mut Bytes| {
            memory.word_at(0x7000, 0x2040);
            memory.word_at(0x7038, 0x3040);
            memory.word_at(0x7038 + 8 + 8 * 4, 0x4010);
        };
        // Not the return address of a call; no code; another size; no frame pointer after all.
        let spoil: [fn(&mut Bytes); 4] = [
            |memory| memory.put(0x3040 - 2, &[0x90, 0x90]),
            |memory| memory.word_at(0x7038, 0x5040),
            |memory| memory.put(0x200a, &[0x20]),
            |memory| memory.put(0x2001, &[0x90]),
        ];
        for (n, spoil) in spoil.iter().enumerate() {
            let (rules, mut memory) = program();
            whole(&mut memory);
            assert_eq!(walk(&rules, &mut memory, 0x1010, 0x7000).outcome, Outcome::Complete);
            spoil(&mut memory);
            assert_eq!(walk(&rules, &mut memory, 0x1010, 0x7000), cut, "{n}");
        }
    }

    #[test]
    fn ends_where_the_caller_is_unknown() {
        let (rules, mut memory) = program();
        memory.word_at(0x7000, 0x2040);
        let walked = walk(&rules, &mut memory, 0x1010, 0x7000);
        assert_eq!(walked, Walked { addresses: vec![0x1010, 0x2040], outcome: Outcome::Failed });
        // Not in mapped code, or without a stack.
        let walked = walk(&rules, &mut memory, 0x9010, 0x7000);
        assert_eq!(walked, Walked { addresses: vec![0x9010], outcome: Outcome::Failed });
        for sp in [0, 0x6ff8, 0x7ffd, u64::MAX, u64::MAX - 7] {
            assert_eq!(walk(&rules, &mut memory, 0x1010, sp).outcome, Outcome::Failed, "{sp:#x}");
        }
    }

    #[test]
    fn a_walk_has_an_end() {
        let (rules, mut memory) = program();
        for at in (0x7000..0x8000).step_by(8) {
            memory.word_at(at, 0x1010);
        }
        let walked = walk(&rules, &mut memory, 0x1010, 0x7000);
        assert_eq!((walked.addresses.len(), walked.outcome), (MAX_FRAMES, Outcome::Truncated));
        // A signal's frame that leads to itself.
        let rules = Rules(vec![(0x1000, row(Rule::Signal, 0, 0)), (0x1fff, None)]);
        memory.word_at(0x7000 + 160, 0x7000);
        memory.word_at(0x7000 + 168, 0x1010);
        let walked = walk(&rules, &mut memory, 0x1010, 0x7000);
        assert_eq!((walked.addresses.len(), walked.outcome), (MAX_FRAMES, Outcome::Truncated));
    }

    #[test]
    fn finds_the_row_that_applies() {
        let rows: Vec<Row> = [0_u32, 10, 20, 300, 301, 900].map(|address| Row { address, ..Row::default() }).to_vec();
        let index = [0_u32, 2, 4, 4, 5];
        let found = |offset| {
            let entry = |n: u32| index.get(n as usize).copied();
            find_row(offset, 4, entry, |n| rows.get(n as usize).copied()).map(|row| row.address)
        };
        for (offset, address) in [(0, 0), (9, 0), (10, 10), (255, 20), (256, 20), (300, 300), (899, 301), (1000, 900)] {
            assert_eq!(found(offset), Some(address), "{offset}");
        }
        assert_eq!((found(1024), found(u64::MAX)), (None, None));
    }
}
