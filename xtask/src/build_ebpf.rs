//! Builds the kernel object that hud-record embeds.
//!
//! The object is committed, so it must be reproducible byte for byte on any machine with the same rustc and bpf-linker:
//! no path of the machine and no flag of the user's environment may enter it.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::sh::{cargo, command, output, root, run as sh, target_dir};
use crate::toolchain::sysroot;
use crate::{rustc, setup};

/// Rebuilds the kernel object, hud-ebpf/prebuilt/hud.bpf.o, and lints its source
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Builds it and compares it with the committed one, which is not changed
    #[arg(long)]
    check: bool,
    /// Accepted for uniformity: the object is always a release build
    #[arg(long)]
    release: bool,
}

const TARGET: &str = "bpfel-unknown-none";
/// The kernel accepts callbacks only from an object whose BTF has function information ("missing btf func_info").
const RUSTFLAGS: [&str; 2] = ["-Clinker=bpf-linker", "-Clink-arg=--btf"];

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::require_bpf_tools()?;
    if args.check {
        return check_committed();
    }
    let built = build()?;
    let prebuilt = prebuilt();
    let bytes = fs::read(&built).with_context(|| format!("failed to read {}", built.display()))?;
    // Renamed into place, so that a concurrent build of hud-record sees the old object or the new one.
    let part = prebuilt.with_extension("part");
    fs::write(&part, &bytes).with_context(|| format!("failed to write {}", part.display()))?;
    fs::rename(&part, &prebuilt).with_context(|| format!("failed to write {}", prebuilt.display()))?;
    println!("hud-ebpf/prebuilt/hud.bpf.o: {} bytes", bytes.len());
    // CI is otherwise the first to lint it.
    clippy()
}

fn build() -> Result<PathBuf> {
    let target = target_dir().join("ebpf");
    // Before the build: the remapping needs the paths of the dependencies.
    sh(cargo("fetch").arg("--locked").current_dir(hud_ebpf()))?;
    sh(cargo("build")
        .args(["--release", "--locked", "--target", TARGET, "-Zbuild-std=core", "--target-dir"])
        .arg(&target)
        .envs(environment()?)
        .current_dir(hud_ebpf()))
    .context("failed to build the kernel programs")?;
    // Removes the DWARF from which the BTF was made: ten times the size of the rest, and unused.
    let stripped = target.join("hud.bpf.o");
    sh(command(objcopy()?).arg("--strip-debug").arg(target.join(TARGET).join("release/hud")).arg(&stripped))?;
    Ok(stripped)
}

/// The objcopy of rustc's own LLVM.
fn objcopy() -> Result<PathBuf> {
    let libraries = output(command("rustc").args(["--print", "target-libdir"]))?;
    let objcopy = Path::new(libraries.trim_end()).with_file_name("bin").join("rust-objcopy");
    ensure!(objcopy.exists(), "this toolchain has no rust-objcopy: use the one that rustup installs");
    Ok(objcopy)
}

/// Lints the kernel programs with the flags of their build.
pub(crate) fn clippy() -> Result<()> {
    sh(cargo("clippy")
        .args(["--release", "--locked", "--target", TARGET, "-Zbuild-std=core", "--target-dir"])
        .arg(target_dir().join("ebpf"))
        .args(["--", "-Dwarnings"])
        .envs(environment()?)
        .current_dir(hud_ebpf()))
}

fn hud_ebpf() -> PathBuf {
    root().join("hud-ebpf")
}

fn prebuilt() -> PathBuf {
    hud_ebpf().join("prebuilt/hud.bpf.o")
}

/// The environment that makes the build reproducible, and possible with a stable rustc.
fn environment() -> Result<Vec<(&'static str, OsString)>> {
    let mut flags: Vec<OsString> = RUSTFLAGS.map(OsString::from).into();
    for (from, to) in places()? {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flags.push(flag);
    }
    // The encoded form allows spaces in paths, and takes precedence over RUSTFLAGS and every config file.
    let mut environment =
        vec![("CARGO_ENCODED_RUSTFLAGS", flags.join(&OsString::from("\x1f"))), ("RUSTC_BOOTSTRAP", "1".into())];
    environment.extend(rustc::environment()?);
    Ok(environment)
}

/// The directories of the sources, each with its name in the object.
fn places() -> Result<Vec<(PathBuf, &'static str)>> {
    let mut places = vec![(root(), "/hud"), (sysroot()?, "/rust")];
    // One folder per registry. Its name contains the registry's, which may be a mirror's.
    let sources = cargo_home()?.join("registry/src");
    for entry in fs::read_dir(&sources).with_context(|| format!("failed to read {}", sources.display()))? {
        places.push((entry?.path(), "/registry"));
    }
    Ok(places)
}

fn cargo_home() -> Result<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
        .context("neither CARGO_HOME nor a home directory is known")
}

/// Fails unless the committed object equals a build of its source.
pub(crate) fn check_committed() -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("failed to read {}", path.display()));
    let (built, prebuilt) = (read(&build()?)?, read(&prebuilt())?);
    let Some(at) = first_difference(&built, &prebuilt) else {
        println!("hud-ebpf/prebuilt/hud.bpf.o equals a build of its source: {} bytes", built.len());
        return Ok(());
    };
    bail!(
        "hud-ebpf/prebuilt/hud.bpf.o differs from a build of its source: committed {} bytes, built {} bytes, \
         first difference at byte {at}: run `cargo xtask build-ebpf` and commit it",
        prebuilt.len(),
        built.len(),
    );
}

/// The offset of the first difference of two files.
fn first_difference(left: &[u8], right: &[u8]) -> Option<usize> {
    match left.iter().zip(right).position(|(left, right)| left != right) {
        None if left.len() == right.len() => None,
        None => Some(left.len().min(right.len())),
        at => at,
    }
}
