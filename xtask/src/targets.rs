//! Builds the programs that hud is tried on.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::sh::{cargo, run as sh, target_dir};

/// Builds an example of hud-record in release, with full debug info, and returns the folder of such programs.
///
/// Debug info is what a program that cares for its profiles has: hud takes the tasks' types and lines from it. It is
/// asked for here, for the program and Tokio alone: as a profile of its own it would have hud-record's dependencies
/// (which the example does not use, but which cargo builds for it) compiled a second time.
pub(crate) fn build(example: &str) -> Result<PathBuf> {
    sh(cargo("rustc")
        .args(["--release", "--package", "hud-record", "--example", example])
        .args(["--config", "profile.release.package.tokio.debug=true"])
        .args(["--", "-Cdebuginfo=2", "-Cstrip=none"]))?;
    let built = target_dir().join("release/examples").join(example);
    let folder = target_dir().join("targets");
    fs::create_dir_all(&folder)?;
    // Kept apart: a plain `cargo build --release --examples` puts programs without debug info in the same place.
    fs::copy(&built, folder.join(example)).with_context(|| format!("failed to copy {}", built.display()))?;
    Ok(folder)
}
