//! Builds of the programs: with full debug information, with line tables only, without any, and stripped.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::sh::{cargo, command, run as sh, target_dir};
use crate::targets::FAULTS;

/// The debug information and symbols of a build.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Build {
    /// Full debug information
    Debug,
    /// Line tables only
    Lines,
    /// Symbols only, as `cargo build --release` leaves them by default
    None,
    /// No symbols either
    Stripped,
}

impl Build {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Lines => "lines",
            Self::None => "none",
            Self::Stripped => "stripped",
        }
    }

    /// Whether functions have names in it.
    pub(super) fn has_names(self) -> bool {
        self != Self::Stripped
    }

    /// Whether it has line numbers.
    pub(super) fn has_lines(self) -> bool {
        matches!(self, Self::Debug | Self::Lines)
    }
}

/// Makes the wanted builds in this folder. Returns their paths.
pub(super) fn build(folder: &Path, wanted: &[Build]) -> Result<Vec<(Build, PathBuf)>> {
    fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let path = |build: Build| folder.join(format!("faults-{}", build.name()));
    // Line tables last: cargo keeps one program per profile, and other tests use the one with all debug information.
    if wanted.iter().any(|build| *build != Build::Lines) {
        compile("full", &path(Build::Debug))?;
    }
    for (build, option) in [(Build::None, "--strip-debug"), (Build::Stripped, "--strip-all")] {
        if wanted.contains(&build) {
            sh(command("strip").arg(option).arg("-o").args([path(build), path(Build::Debug)]))?;
        }
    }
    if wanted.contains(&Build::Lines) {
        compile("line-tables-only", &path(Build::Lines))?;
    }
    Ok(wanted.iter().map(|build| (*build, path(*build))).collect())
}

fn compile(debug: &str, to: &Path) -> Result<()> {
    let profile = |name: &str| format!("profile.example{name}.debug=\"{debug}\"");
    let mut command = cargo("build");
    command.args(["--config", &profile(""), "--config", &profile(".package.tokio")]);
    sh(command.args(FAULTS))?;
    let built = target_dir().join("example/faults");
    fs::copy(&built, to).with_context(|| format!("failed to copy {}", built.display()))?;
    Ok(())
}
