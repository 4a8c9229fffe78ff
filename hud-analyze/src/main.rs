//! `hud-analyze`: answers questions about a recorded session.

use std::process::ExitCode;

fn main() -> ExitCode {
    hud_analyze::main()
}
