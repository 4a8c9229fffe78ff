//! A mapped file with its symbols and debug information, as the sandboxed child reads it to symbolize stacks.
//!
//! The child keeps what it maps until it exits, as does this target: a run of a minute leaves some hundred megabytes.

#![no_main]

use std::{fs::File, io::Write as _};

use hud_record::symbols;
use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, memfd_create};

fuzz_target!(|bytes: &[u8]| {
    let mut file = File::from(memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("a file in memory"));
    file.write_all(bytes).expect("room for it");
    // All over the corpus's code.
    let offsets: Vec<u64> = (0x3b0..0x460).step_by(8).chain([0, 1, 0x1000, 0x1080, u64::MAX]).collect();
    std::hint::black_box(symbols::read(&file, &offsets));
});
