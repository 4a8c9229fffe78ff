//! `hud-analyze`: answers questions about a recorded session.

use std::process::ExitCode;

/// Planning a view is a hundred thousand small allocations, and a scan frees what others fill: a third of the time of a short
/// query by the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    hud_analyze::main()
}
