//! The target's ELF file as the sandboxed child first reads it: tokio by symbols or by shape, task types and offsets by
//! debug information.

#![no_main]

use std::{fs::File, io::Write as _};

use hud_record::inspect::{Binary, Image, Tokio};
use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, memfd_create};

fuzz_target!(|bytes: &[u8]| {
    let mut file = File::from(memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("a file in memory"));
    file.write_all(bytes).expect("room for it");
    let Ok(binary) = Binary::read(&file) else { return };
    let _ = (binary.image(), binary.build_id(), binary.vaddr(0x1000), binary.has_symbols());
    if let Ok(mut tokio) = Tokio::find(&binary, || Image::of_file(&binary)) {
        tokio.guess(&binary, || Image::of_file(&binary));
        hud_record::symbols::learn_tokio(&file, &mut tokio);
        for (_, poll) in tokio.exact_polls() {
            // These reach a terminal and the session.
            assert!(!poll.name.chars().any(char::is_control), "{:?}", poll.name);
            assert!(poll.file.as_ref().is_none_or(|f| !f.chars().any(char::is_control)), "{:?}", poll.file);
        }
    }
});
