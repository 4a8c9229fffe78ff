//! Provides what building the kernel object needs beyond a stable Rust: bpf-linker, and the source of `core`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::build_ebpf::{RUSTC, require_rustc, sysroot};
use crate::sh::{cargo, command, output, run as sh, succeeds_within, target_dir};

/// Installs what `build-ebpf` needs: bpf-linker and rust-src
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Takes rust-src from the Debian package at once, without asking rustup
    #[arg(long)]
    apt: bool,
}

/// The newest whose LLVM is that of rustc 1.95: from 0.11 on it is LLVM 23.
const BPF_LINKER: &str = "0.10.3";

/// Suites that may have rust-src of rustc's version. They hold several versions at a time, and move on.
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
    // Where its server cannot be reached, rustup fails at once or retries for minutes.
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

/// Fails unless `build-ebpf` can run here, and says what is missing.
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

/// Where `-Z build-std` looks for the standard library's source.
fn library() -> Result<PathBuf> {
    Ok(sysroot()?.join("lib/rustlib/src/rust/library"))
}

/// Unpacks Debian's rust-src of rustc's own version; nothing of it is installed, and apt's own state stays as it is.
fn from_debian(library: &Path) -> Result<&'static str> {
    let mirror = Mirror::of_this_machine()?;
    let work = target_dir().join("rust-src");
    for suite in SUITES {
        let _ = fs::remove_dir_all(&work);
        let apt = Apt::new(&work, &mirror, suite)?;
        let Some(version) = apt.version()? else { continue };
        let source = apt.unpack(&version)?;
        let parent = library.parent().unwrap_or(library);
        fs::create_dir_all(parent).with_context(|| format!("failed to write {}", parent.display()))?;
        // Copied whole under another name first: a source that stops half-way would be taken for one that is there.
        let part = parent.join("library.part");
        let _ = fs::remove_dir_all(&part);
        sh(command("cp").arg("-r").arg(&source).arg(&part))?;
        fs::rename(&part, library).with_context(|| format!("failed to write {}", library.display()))?;
        fs::remove_dir_all(&work)?;
        return Ok(suite);
    }
    bail!("none of {} has version {RUSTC}", SUITES.join(", "))
}

/// Where this machine gets its packages, and the key that it trusts for them.
struct Mirror {
    uri: String,
    signed_by: Option<String>,
}

impl Mirror {
    fn of_this_machine() -> Result<Self> {
        const DEB822: &str = "/etc/apt/sources.list.d/debian.sources";
        const ONE_LINE: &str = "/etc/apt/sources.list";
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::from_deb822(&read(DEB822))
            .or_else(|| Self::from_one_line(&read(ONE_LINE)))
            .with_context(|| format!("neither {DEB822} nor {ONE_LINE} names a Debian mirror"))
    }

    /// The first stanza's: the security archive, which has no such suites, comes later.
    fn from_deb822(text: &str) -> Option<Self> {
        text.split("\n\n").find_map(|stanza| {
            let field = |name: &str| {
                let value = stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
                value.split_whitespace().next().map(str::to_owned)
            };
            Some(Self { uri: field("URIs")?, signed_by: field("Signed-By") })
        })
    }

    fn from_one_line(text: &str) -> Option<Self> {
        text.lines().find_map(|line| {
            let rest = line.strip_prefix("deb ")?.trim_start();
            let (options, rest) = match rest.strip_prefix('[') {
                Some(rest) => rest.split_once(']')?,
                None => ("", rest),
            };
            let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
            Some(Self { uri: rest.split_whitespace().next()?.to_owned(), signed_by: signed_by.map(str::to_owned) })
        })
    }
}

/// apt with lists, a cache and a sources file of its own.
struct Apt<'a> {
    work: &'a Path,
    options: Vec<String>,
}

impl<'a> Apt<'a> {
    fn new(work: &'a Path, mirror: &Mirror, suite: &str) -> Result<Self> {
        for folder in ["parts.d", "lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(work.join(folder))?;
        }
        let signed_by = mirror.signed_by.iter().map(|key| format!("Signed-By: {key}\n")).collect::<String>();
        let source = format!("Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n{signed_by}", mirror.uri);
        fs::write(work.join("parts.d/rust-src.sources"), source)?;
        let at = |name: &str| work.join(name).display().to_string();
        let options = [
            "Dir::Etc::SourceList=/dev/null".to_owned(),
            format!("Dir::Etc::SourceParts={}", at("parts.d")),
            format!("Dir::State::Lists={}", at("lists")),
            format!("Dir::Cache={}", at("cache")),
            "Acquire::Languages=none".to_owned(),
            // apt's own user cannot write here.
            "APT::Sandbox::User=root".to_owned(),
        ];
        Ok(Self { work, options: options.into() })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = command(program);
        command.current_dir(self.work);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }

    /// The package's version that is rustc's. Without one, apt would take the newest.
    fn version(&self) -> Result<Option<String>> {
        sh(self.command("apt-get").args(["-qq", "update"]))?;
        let table = output(self.command("apt-cache").args(["madison", "rust-src"]))?;
        let mut versions = table.lines().filter_map(|line| line.split('|').nth(1).map(str::trim));
        Ok(versions.find(|version| version.starts_with(&format!("{RUSTC}+"))).map(str::to_owned))
    }

    /// Fetches the package, and returns where the library lies in it.
    fn unpack(&self, version: &str) -> Result<PathBuf> {
        sh(self.command("apt-get").args(["-qq", "download", &format!("rust-src={version}")]))?;
        let packages = entries(self.work)?.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb"));
        let package = packages.context("apt-get left no package")?;
        let tree = self.work.join("tree");
        sh(command("dpkg-deb").arg("-x").arg(package).arg(&tree))?;
        // /usr/src/rustc-1.95.0, at the time of writing.
        let sources = entries(&tree.join("usr/src"))?.into_iter().map(|folder| folder.join("library"));
        sources.into_iter().find(|library| library.join("core").is_dir()).context("the package has no library/core")
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>();
    read().with_context(|| format!("failed to read {}", folder.display()))
}
