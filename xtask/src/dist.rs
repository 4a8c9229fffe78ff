//! Packages for a release: a tarball and a Debian package with static recorders, and their checksums.
//!
//! `hud` and `hud-record` are linked statically, so that they run on any x86_64 Linux, in a container without a C library
//! too. hud-analyze is for an engineer's machine and is linked dynamically.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::sh::{cargo, command, output, root, run as sh, target_dir};
use crate::targets;

/// Builds release packages: static recorders, completions, man pages, unit file, licences, checksums
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder for the packages [default: dist, in the target folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Leaves hud-analyze out, whose release build takes 20 minutes
    #[arg(long)]
    without_analyze: bool,
    /// Uses the dev profile, to check the packaging without waiting for a release build
    #[arg(long)]
    dev: bool,
    /// Leaves out the check that the packages record in an empty root folder (it needs root)
    #[arg(long)]
    no_check: bool,
}

/// With musl, where rustup has installed it; else with glibc, which is as static.
const MUSL: &str = "x86_64-unknown-linux-musl";
const GLIBC: &str = "x86_64-unknown-linux-gnu";
const SHELLS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/{}"),
    ("zsh", "usr/share/zsh/vendor-completions/_{}"),
    ("fish", "usr/share/fish/vendor_completions.d/{}.fish"),
];
const RECORDERS: [&str; 2] = ["hud", "hud-record"];
const EXECUTABLE: u32 = 0o755;
const READABLE: u32 = 0o644;

pub(crate) fn run(args: &Args) -> Result<()> {
    let out = args.out.clone().unwrap_or_else(|| target_dir().join("dist"));
    fs::create_dir_all(&out).with_context(|| format!("failed to create {}", out.display()))?;
    let programs = build(args)?;
    let name = format!("hud-{}-x86_64-linux", env!("CARGO_PKG_VERSION"));
    let stage = out.join("stage");
    let _ = fs::remove_dir_all(&stage);
    install(&programs, &stage)?;
    let packages = [tarball(&stage, &out, &name)?, debian(&stage, &out)?];
    let mut sums = String::new();
    for package in &packages {
        sums += &output(command("sha256sum").arg(package).current_dir(&out))?;
    }
    fs::write(out.join("SHA256SUMS"), sums)?;
    if !args.no_check {
        check(&out, &packages)?;
    }
    for package in &packages {
        let bytes = fs::metadata(out.join(package))?.len();
        println!("{}: {:.1} MB", out.join(package).display(), bytes as f64 / 1e6);
    }
    Ok(())
}

/// Builds the programs and returns their paths.
fn build(args: &Args) -> Result<Vec<PathBuf>> {
    let sysroot = output(command("rustc").args(["--print", "sysroot"]))?;
    let target = if Path::new(sysroot.trim()).join("lib/rustlib").join(MUSL).is_dir() { MUSL } else { GLIBC };
    let profile: &[&str] = if args.dev { &[] } else { &["--release"] };
    let name = if args.dev { "debug" } else { "release" };
    // With a target, the flags do not apply to build scripts and procedural macros, which cannot be static.
    sh(cargo("build")
        .args(profile)
        .args(["--locked", "-p", "hud-record", "--bins", "--target", target])
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static"))?;
    let folder = target_dir().join(target).join(name);
    let mut programs: Vec<_> = RECORDERS.iter().map(|name| folder.join(name)).collect();
    for program in &programs {
        let kind = output(command("readelf").arg("-lW").arg(program))?;
        ensure!(!kind.contains("INTERP"), "{} is not static", program.display());
    }
    if !args.without_analyze {
        sh(cargo("build").args(profile).args(["--locked", "-p", "hud-analyze", "--bins"]))?;
        programs.push(target_dir().join(name).join("hud-analyze"));
    }
    Ok(programs)
}

/// Lays the files out as in a root folder.
fn install(programs: &[PathBuf], stage: &Path) -> Result<()> {
    for program in programs {
        let name = program.file_name().and_then(OsStr::to_str).context("a program's name")?;
        let to = stage.join("usr/bin").join(name);
        place(&to, EXECUTABLE, &fs::read(program)?)?;
        sh(command("strip").arg(&to))?;
        for (shell, path) in SHELLS {
            let script = output(Command::new(&to).args(["completions", shell]))?;
            place(&stage.join(path.replace("{}", name)), READABLE, script.as_bytes())?;
        }
        let manual = output(Command::new(&to).arg("manual"))?;
        place(&stage.join(format!("usr/share/man/man1/{name}.1")), READABLE, manual.as_bytes())?;
    }
    let unit = fs::read_to_string(root().join("docs/hud-record.service"))?.replace("/usr/local/bin", "/usr/bin");
    place(&stage.join("usr/lib/systemd/system/hud-record@.service"), READABLE, unit.as_bytes())?;
    for name in ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "CHANGELOG.md", "docs/CONTAINERS.md"] {
        let to = stage.join("usr/share/doc/hud").join(Path::new(name).file_name().unwrap_or_default());
        place(&to, READABLE, &fs::read(root().join(name))?)?;
    }
    Ok(())
}

fn place(path: &Path, mode: u32, content: &[u8]) -> Result<()> {
    let failed = || format!("failed to write {}", path.display());
    fs::create_dir_all(path.parent().unwrap_or(path)).with_context(failed)?;
    fs::write(path, content).with_context(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(failed)
}

/// The seconds since 1970 that files in packages have: those of the last commit, so that equal sources make equal packages.
fn time() -> Result<String> {
    Ok(output(command("git").args(["log", "-1", "--format=%ct"]))?.trim().to_owned())
}

fn tarball(stage: &Path, out: &Path, name: &str) -> Result<String> {
    let package = format!("{name}.tar.gz");
    sh(command("tar")
        .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
        .arg(format!("--mtime=@{}", time()?))
        .arg(format!("--transform=s,^usr,{name},"))
        .arg("-czf")
        .arg(out.join(&package))
        .arg("-C")
        .arg(stage)
        .arg("usr"))?;
    Ok(package)
}

fn debian(stage: &Path, out: &Path) -> Result<String> {
    let version = env!("CARGO_PKG_VERSION");
    let control = format!(
        "Package: hud\nVersion: {version}\nArchitecture: amd64\nMaintainer: The hud authors <hud@localhost>\n\
         Section: devel\nPriority: optional\nHomepage: {}\nDescription: heads-up display and profiler for async Rust\n \
         hud attaches to a running Tokio program by eBPF and shows which tasks block\n a worker thread and why, where \
         CPU time is spent, and how long polls take.\n",
        env!("CARGO_PKG_REPOSITORY")
    );
    place(&stage.join("DEBIAN/control"), READABLE, control.as_bytes())?;
    let package = format!("hud_{version}_amd64.deb");
    sh(command("dpkg-deb")
        .args(["--root-owner-group", "-Zgzip", "--build"])
        .arg(stage)
        .arg(out.join(&package))
        .env("SOURCE_DATE_EPOCH", time()?)
        .stdout(Stdio::null()))?;
    Ok(package)
}

/// Installs each package in an empty root folder, and records a program there that it starts itself: hud.
fn check(out: &Path, packages: &[String]) -> Result<()> {
    sh(command("sha256sum").args(["--check", "--quiet", "SHA256SUMS"]).current_dir(out))?;
    let target = env::var_os("HUD_TEST_TARGETS").map_or_else(targets::build_all, |folder| Ok(folder.into()))?;
    for package in packages {
        let install = out.join("root");
        let _ = fs::remove_dir_all(&install);
        fs::create_dir_all(&install)?;
        let recorder = if package.ends_with(".deb") {
            sh(command("dpkg-deb").arg("-x").arg(out.join(package)).arg(&install))?;
            "/usr/bin/hud-record".to_owned()
        } else {
            sh(command("tar").arg("-xzf").arg(out.join(package)).arg("-C").arg(&install))?;
            format!("/{}/bin/hud-record", package.trim_end_matches(".tar.gz"))
        };
        for folder in ["proc", "sys", "tmp", "dev"] {
            fs::create_dir_all(install.join(folder))?;
        }
        fs::copy(target.join("static/test-async-app"), install.join("app"))?;
        // The root folder has nothing else: no C library, no shell, no user database.
        let script = format!(
            "mount -t proc proc {root}/proc && mount --rbind /sys {root}/sys && mount --bind /dev {root}/dev && \
             exec chroot {root} {recorder} --headless --export /tmp/session -- /app --duration 3",
            root = install.display()
        );
        sh(command("unshare").args(["--mount", "sh", "-c", &script]).stdout(Stdio::null()))?;
        let manifest = fs::read_to_string(install.join("tmp/session/manifest.json"))?;
        let manifest: serde_json::Value = serde_json::from_str(&manifest)?;
        let polls = manifest["streams"]["polls"]["stored"].as_u64().unwrap_or(0);
        ensure!(manifest["complete"] == true && polls > 1000, "{package} recorded {polls} polls: {manifest:#}");
        println!("{package}: installed in an empty root folder, {polls} polls recorded");
        let _ = fs::remove_dir_all(&install);
    }
    Ok(())
}
