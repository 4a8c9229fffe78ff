//! Builds hud's programs, and the programs that tests and benchmarks record.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::fixtures;
use crate::sh::{cargo, run as sh, target_dir};

/// Builds the programs that tests and benchmarks record, and prints their folder (for HUD_TEST_TARGETS)
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(Args {}: &Args) -> Result<()> {
    println!("{}", build_all()?.display());
    Ok(())
}

/// Builds the programs of the truth table, which other builds of the examples leave out.
pub(crate) const FAULTS: [&str; 8] =
    ["--profile", "example", "--package", "hud-examples", "--features", "faults", "--bin", "faults"];

/// A build profile.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Debug,
    Release,
}

/// One of hud's programs: the given binary, or else a build of the source here.
pub(crate) fn given_or_built(given: Option<&Path>, package: &str, profile: Profile) -> Result<PathBuf> {
    if let Some(given) = given {
        return given.canonicalize().with_context(|| format!("failed to find {}", given.display()));
    }
    let (options, folder): (&[&str], _) = match profile {
        Profile::Debug => (&[], "debug"),
        Profile::Release => (&["--release"], "release"),
    };
    sh(cargo("build").args(options).args(["--package", package, "--bins"]))?;
    Ok(target_dir().join(folder).join(package))
}

/// Builds the programs of hud-record/examples with the profile `example`: release, with debug information. Returns
/// their folder.
pub(crate) fn build() -> Result<PathBuf> {
    sh(cargo("build").args(["--profile", "example", "--package", "hud-examples", "--bins"]))?;
    Ok(target_dir().join("example"))
}

/// Builds one of them. Returns its path.
pub(crate) fn build_program(name: &str) -> Result<PathBuf> {
    sh(cargo("build").args(["--profile", "example", "--package", "hud-examples", "--bin", name]))?;
    Ok(target_dir().join("example").join(name))
}

/// Builds `harm` with its mode of 1,000 task types, in release; returns the binary. It takes minutes, and only a
/// benchmark needs it.
pub(crate) fn build_monomorphs() -> Result<PathBuf> {
    sh(cargo("build").args(["--release", "--package", "hud-examples", "--bin", "harm", "--features", "monomorphs"]))?;
    Ok(target_dir().join("release/harm"))
}

/// Also builds them as `cargo build --release` does by default, without debug information, into the subfolder `plain`,
/// and the fixtures: other versions of tokio, other ways to link.
pub(crate) fn build_all() -> Result<PathBuf> {
    let folder = build()?;
    sh(cargo("build").args(FAULTS))?;
    let plain = folder.join("plain");
    sh(cargo("build").args(["--release", "--package", "hud-examples", "--bins"]))?;
    fs::create_dir_all(&plain)?;
    for program in ["test-async-app", "stack-shapes", "harm", "twins", "lookalikes", "stuck"] {
        let built = target_dir().join("release").join(program);
        fs::copy(&built, plain.join(program)).with_context(|| format!("failed to copy {}", built.display()))?;
    }
    fixtures::build(&folder)?;
    Ok(folder)
}
