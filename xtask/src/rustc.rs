//! Wraps rustc while the kernel object is built, so that the object does not depend on the checkout's path.
//!
//! Cargo gives each crate an identity (`-C metadata`) that is part of every symbol's name. For a crate of the workspace
//! it is derived from the path within the workspace, but hud-wire is outside hud-ebpf's: its identity, and with it
//! hud-ebpf's, would depend on the absolute path.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

/// Set if this program runs as cargo's rustc wrapper.
const MARK: &str = "HUD_XTASK_IS_RUSTC";

/// The crates of this repository in the kernel object.
const CRATES: [&str; 2] = ["hud", "hud_wire"];

/// The environment that makes cargo call this program instead of rustc.
pub(crate) fn environment() -> Result<[(&'static str, OsString); 2]> {
    let this = env::current_exe().context("failed to find this program's own file")?;
    Ok([("RUSTC_WRAPPER", this.into()), (MARK, "1".into())])
}

/// Whether cargo called this program instead of rustc.
pub(crate) fn is_wrapper() -> bool {
    env::var_os(MARK).is_some()
}

/// Replaces this process by the rustc that the arguments name.
pub(crate) fn exec() -> Result<()> {
    let mut args: Vec<OsString> = env::args_os().skip(1).collect();
    let name = args.windows(2).find(|pair| pair[0] == "--crate-name").map(|pair| pair[1].clone());
    if let Some(name) = name.filter(|name| CRATES.iter().any(|own| name == own)) {
        for arg in &mut args {
            if arg.to_string_lossy().starts_with("metadata=") {
                *arg = OsString::from("metadata=");
                arg.push(&name);
            }
        }
    }
    let (rustc, args) = args.split_first().context("cargo named no rustc")?;
    Err(Command::new(rustc).args(args).exec()).with_context(|| format!("failed to start {}", rustc.display()))
}
