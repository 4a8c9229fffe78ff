//! Builds the programs that hud is shown and tested on.

use std::path::PathBuf;

use anyhow::Result;

use crate::sh::{cargo, run as sh, target_dir};

/// Builds them all, and returns their folder.
pub(crate) fn build() -> Result<PathBuf> {
    sh(cargo("build").args(["--profile", "example", "--package", "hud-examples", "--bins"]))?;
    Ok(target_dir().join("example"))
}
