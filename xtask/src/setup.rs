//! Installs the tools that the kernel object needs beyond stable Rust: bpf-linker, and the source of `core`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::debian::{self, Apt, Mirror, entries};
use crate::sh::{cargo, command, run as sh, succeeds_within, target_dir};
use crate::toolchain::{RUSTC, require_rustc, sysroot};

/// Installs what `build-ebpf` needs: bpf-linker and rust-src
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Takes rust-src from the Debian package without asking rustup first
    #[arg(long)]
    apt: bool,
}

/// The newest version with the LLVM of rustc 1.95: 0.11 has LLVM 23.
const BPF_LINKER: &str = "0.10.3";

/// Suites that may have rust-src of rustc's version. Each has several versions at a time, and they change.
const SUITES: [&str; 3] = ["trixie-backports", "sid", "forky"];

pub(crate) fn run(args: &Args) -> Result<()> {
    require_rustc()?;
    if has_bpf_linker() {
        println!("bpf-linker {BPF_LINKER} is there");
    } else {
        sh(cargo("install").args(["--locked", "--force", &format!("bpf-linker@{BPF_LINKER}")]))?;
    }

    let library = library()?;
    if library.join("core").is_dir() {
        println!("rust-src is there");
        return Ok(());
    }
    // If its server is unreachable, rustup fails at once or retries for minutes.
    let rustup = || {
        succeeds_within(Duration::from_secs(120), command("rustup").args(["component", "add", "rust-src"]))
            && library.join("core").is_dir()
    };
    if !args.apt && rustup() {
        println!("rust-src {RUSTC} comes from rustup");
        return Ok(());
    }
    ensure!(
        Path::new("/usr/bin/apt-get").exists(),
        "rustup did not provide rust-src, and this is no Debian: put the source of rustc {RUSTC} at {}",
        library.display()
    );
    let suite = from_debian(&library).context("failed to take rust-src from the Debian package")?;
    println!("rust-src {RUSTC} comes from Debian's {suite}");
    Ok(())
}

/// Fails unless `build-ebpf` can run here, and names the missing tool.
pub(crate) fn require_bpf_tools() -> Result<()> {
    require_rustc()?;
    ensure!(has_bpf_linker(), "there is no bpf-linker {BPF_LINKER}: run `cargo xtask setup`");
    ensure!(library()?.join("core").is_dir(), "there is no rust-src: run `cargo xtask setup`");
    Ok(())
}

fn has_bpf_linker() -> bool {
    let version = Command::new("bpf-linker").arg("--version").output();
    version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == format!("bpf-linker {BPF_LINKER}"))
}

/// The folder in which `-Z build-std` looks for the standard library's source.
fn library() -> Result<PathBuf> {
    Ok(sysroot()?.join("lib/rustlib/src/rust/library"))
}

/// Unpacks Debian's rust-src of rustc's version. Nothing is installed, and apt's own state does not change.
fn from_debian(library: &Path) -> Result<&'static str> {
    let mirror = Mirror::of_this_machine()?;
    let work = target_dir().join("rust-src");
    for suite in SUITES {
        let _ = fs::remove_dir_all(&work);
        let apt = Apt::update(&work, &mirror, suite)?;
        // Without a version, apt would take the newest.
        let versions = apt.versions(&["rust-src"])?;
        let Some((_, version)) = versions.iter().find(|(_, version)| version.starts_with(&format!("{RUSTC}+"))) else {
            continue;
        };
        let package = apt.download(&format!("rust-src={version}"), &work)?;
        let source = unpacked_library(&package, &work.join("tree"))?;
        let parent = library.parent().unwrap_or(library);
        fs::create_dir_all(parent).with_context(|| format!("failed to write {}", parent.display()))?;
        // Copied completely under another name first: a partial copy would be mistaken for the source.
        let part = parent.join("library.part");
        let _ = fs::remove_dir_all(&part);
        sh(command("cp").arg("-r").arg(&source).arg(&part))?;
        fs::rename(&part, library).with_context(|| format!("failed to write {}", library.display()))?;
        fs::remove_dir_all(&work)?;
        return Ok(suite);
    }
    bail!("none of {} has version {RUSTC}", SUITES.join(", "))
}

/// Unpacks the package, and returns the path of its library.
fn unpacked_library(package: &Path, tree: &Path) -> Result<PathBuf> {
    debian::unpack(package, tree)?;
    // /usr/src/rustc-1.95.0, at the time of writing.
    let sources = entries(&tree.join("usr/src"))?.into_iter().map(|folder| folder.join("library"));
    sources.into_iter().find(|library| library.join("core").is_dir()).context("the package has no library/core")
}
