//! `hud-analyze`: answers questions about a recorded session.

use std::process::ExitCode;

/// Planning a view is a hundred thousand small allocations, and a scan frees what others fill: a third of the time of a short
/// query by the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc 2 and 3 (`mi_option_e` in its mimalloc.h), which the crate has no name for.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> ExitCode {
    // How long freed memory stays ours (ms; 10 by default). A scan frees each buffer and asks for the next one, and filling
    // new pages with zeros was a tenth of it.
    // SAFETY: it sets a number, by an index that both versions have.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 1000) };
    hud_analyze::main()
}
