//! `hud-analyze`: analyzes recorded sessions.

use std::process::ExitCode;

/// Planning a view makes a hundred thousand small allocations, and a scan frees buffers on other threads than those that
/// allocated them. With the system's allocator that took a third of a short query's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc 2 and 3 (`mi_option_e` in its mimalloc.h), for which the crate has no constant.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> ExitCode {
    // How long freed memory is kept before it is returned to the system (ms; default 10). A scan frees each buffer and
    // allocates the next one; zeroing new pages took a tenth of its time.
    // SAFETY: the call stores an integer at an index that exists in both versions.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 1000) };
    hud_analyze::main()
}
