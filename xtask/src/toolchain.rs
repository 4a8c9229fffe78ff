//! The Rust that the kernel object is built with.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::sh::{command, output};

/// The rustc of the committed object. Another version produces other bytes, and its LLVM may be newer than
/// bpf-linker's.
pub(crate) const RUSTC: &str = "1.95.0";

/// The toolchain's folder.
pub(crate) fn sysroot() -> Result<PathBuf> {
    Ok(output(command("rustc").args(["--print", "sysroot"]))?.trim_end().into())
}

/// Fails unless rustc has the version of the committed object.
pub(crate) fn require_rustc() -> Result<()> {
    let version = output(command("rustc").arg("--version"))?;
    let version = version.split_whitespace().nth(1).unwrap_or_default();
    ensure!(
        version == RUSTC,
        "the kernel object is built by rustc {RUSTC}, and this is {version}: try `cargo +{RUSTC} xtask build-ebpf`"
    );
    Ok(())
}
