//! Builds test-async-app in the ways of other projects: with older versions of tokio, and with other compiler and
//! linker options.
//!
//! Cargo keeps one tokio 1 a workspace, so each version gets a crate of its own, generated under `target/fixtures`. It
//! starts from the workspace's lock file: common dependencies are built once, in a shared target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::sh::{cargo, command, root, run as sh, target_dir};

/// The oldest supported version, and those in between at which tokio's internals or a distribution's choice changed.
const TOKIO: [&str; 4] = ["1.38.2", "1.43.4", "1.47.1", "1.50.0"];

const PROGRAM: &str = "test-async-app";
/// Is also built with line tables only, and stripped of a default release build.
const LOOKALIKES: &str = "lookalikes";
/// The folder of test-async-app as a shared library that a program without tokio loads.
const LIBRARY: &str = "library";

/// Builds of the workspace's own tokio. Those of `crate_flags` differ in the last step only, so they cost seconds.
const KINDS: [Kind; 8] = [
    Kind { name: "fat-lto", profile: "fat", flags: "", crate_flags: &[] },
    Kind { name: "lines", profile: "lines", flags: "", crate_flags: &[] },
    Kind { name: "v0", profile: "example", flags: "-Csymbol-mangling-version=v0", crate_flags: &[] },
    Kind { name: "frame-pointers", profile: "example", flags: "-Cforce-frame-pointers=yes", crate_flags: &[] },
    Kind { name: "static", profile: "example", flags: "", crate_flags: &["-Ctarget-feature=+crt-static"] },
    Kind { name: "non-pie", profile: "example", flags: "", crate_flags: &["-Crelocation-model=static"] },
    Kind { name: "abort", profile: "abort", flags: "", crate_flags: &[] },
    Kind { name: "relr", profile: "example", flags: "", crate_flags: &["-Clink-arg=-Wl,-z,pack-relative-relocs"] },
];

struct Kind {
    name: &'static str,
    profile: &'static str,
    /// For every crate.
    flags: &'static str,
    /// For the program's own crate, where they apply to the link of the program.
    crate_flags: &'static [&'static str],
}

/// Builds all fixtures, as `<folder>/tokio-<version>/test-async-app` and `<folder>/<kind>/test-async-app`, and a copy
/// of each, and of the default release build, without any symbol under `<folder>/stripped`. Of lookalikes,
/// `lines/lookalikes` and `stripped/plain/lookalikes`; `library/test-async-app` is the host of a library.
pub(crate) fn build(folder: &Path) -> Result<()> {
    let clap_etc = dependencies()?;
    for version in TOKIO {
        let fixture = Fixture::generate(&format!("tokio-{version}"), &programs(), &clap_etc, Some(version))?;
        sh(fixture.cargo("build", "example").args(["--bin", PROGRAM]))?;
        fixture.publish(folder, "example", &fixture.name, PROGRAM)?;
        strip(folder, &fixture.name, PROGRAM)?;
    }
    // One crate for all: only the command differs.
    let fixture = Fixture::generate("newest", &programs(), &clap_etc, None)?;
    for kind in &KINDS {
        let mut command = fixture.cargo(if kind.crate_flags.is_empty() { "build" } else { "rustc" }, kind.profile);
        command.args(["--bin", PROGRAM]);
        if !kind.flags.is_empty() {
            command.env("RUSTFLAGS", kind.flags);
        }
        if !kind.crate_flags.is_empty() {
            command.arg("--").args(kind.crate_flags);
        }
        sh(&mut command)?;
        fixture.publish(folder, kind.profile, kind.name, PROGRAM)?;
        strip(folder, kind.name, PROGRAM)?;
    }
    sh(fixture.cargo("build", "lines").args(["--bin", LOOKALIKES]))?;
    fixture.publish(folder, "lines", "lines", LOOKALIKES)?;
    strip(folder, "plain", LOOKALIKES)?;
    strip(folder, "plain", PROGRAM)?;
    let library = Fixture::generate(LIBRARY, &library(), &clap_etc, None)?;
    sh(&mut library.cargo("build", "example"))?;
    for file in [PROGRAM, "libtest_async_app.so"] {
        library.publish(folder, "example", LIBRARY, file)?;
        strip(folder, LIBRARY, file)?;
    }
    Ok(())
}

fn source(program: &str) -> PathBuf {
    root().join("hud-record/examples").join(program).with_extension("rs")
}

/// The targets of a manifest: the programs.
fn programs() -> String {
    let target = |name| format!("[[bin]]\nname = \"{name}\"\npath = {:?}\n", source(name));
    target(PROGRAM) + &target(LOOKALIKES)
}

/// The targets of a manifest: the program as a shared library, and a host that runs it.
fn library() -> String {
    format!(
        "[features]\ndefault = [\"library\"]\nlibrary = []\n\
         [lib]\nname = \"test_async_app\"\ncrate-type = [\"cdylib\"]\npath = {:?}\n\
         [[bin]]\nname = \"{PROGRAM}\"\npath = {:?}\n",
        source(PROGRAM),
        source("host"),
    )
}

/// Writes `<folder>/<name>/<program>` as `strip = true` leaves it to `<folder>/stripped/<name>/<program>`.
fn strip(folder: &Path, name: &str, program: &str) -> Result<()> {
    let place = folder.join("stripped").join(name);
    fs::create_dir_all(&place)?;
    let part = place.join(format!("{program}.part"));
    sh(command("strip").arg("-s").arg("-o").arg(&part).arg(folder.join(name).join(program)))?;
    fs::rename(&part, place.join(program)).with_context(|| format!("failed to write to {}", place.display()))
}

/// A generated crate.
struct Fixture {
    name: String,
    folder: PathBuf,
    target: PathBuf,
}

impl Fixture {
    fn generate(name: &str, targets: &str, dependencies: &str, tokio: Option<&str>) -> Result<Self> {
        let fixtures = target_dir().join("fixtures");
        let folder = fixtures.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
        let mut manifest = format!(
            "# Generated by xtask/src/fixtures.rs.\n\
             [package]\nname = \"hud-fixture-{}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
             [workspace]\n{targets}[dependencies]\n{dependencies}\n{PROFILES}",
            name.replace('.', "-"),
        );
        if let Some(version) = tokio {
            let at = manifest.find("\ntokio = ").context("test-async-app does not depend on tokio")?;
            let line = manifest[at + 1..].lines().next().unwrap_or_default().to_owned();
            let from = line.split('"').nth(1).context("tokio has no version")?;
            manifest = manifest.replace(&line, &line.replacen(from, &format!("={version}"), 1));
        }
        // The lock file starts as the workspace's, and is left to cargo otherwise, which then needs no network.
        let (lock, initial) = (fs::read(root().join("Cargo.lock"))?, folder.join("workspace.lock"));
        let is_same = fs::read(&initial).is_ok_and(|old| old == lock)
            && fs::read(folder.join("Cargo.toml")).is_ok_and(|old| old == manifest.as_bytes());
        if !is_same {
            fs::write(folder.join("Cargo.toml"), manifest)?;
            fs::write(folder.join("Cargo.lock"), &lock)?;
            fs::write(initial, &lock)?;
        }
        Ok(Self { name: name.to_owned(), folder, target: fixtures.join("build") })
    }

    fn cargo(&self, subcommand: &str, profile: &str) -> Command {
        let mut command = cargo(subcommand);
        command.args(["--profile", profile, "--target-dir"]).arg(&self.target).current_dir(&self.folder);
        command
    }

    /// Moves the program to its final path by a rename: the old one may be running.
    fn publish(&self, folder: &Path, profile: &str, name: &str, program: &str) -> Result<()> {
        let built = self.target.join(profile).join(program);
        let place = folder.join(name);
        fs::create_dir_all(&place)?;
        let part = place.join(format!("{program}.part"));
        fs::copy(&built, &part).with_context(|| format!("failed to copy {}", built.display()))?;
        fs::rename(&part, place.join(program)).with_context(|| format!("failed to write to {}", place.display()))
    }
}

/// As the workspace's own profile `example`; the same with fat LTO; and the one that README recommends for every crate.
const PROFILES: &str = r#"
[profile.example]
inherits = "release"
debug = "full"
[profile.example.package."*"]
debug = false
[profile.example.package.tokio]
debug = "full"
[profile.fat]
inherits = "example"
lto = "fat"
[profile.abort]
inherits = "release"
lto = "fat"
panic = "abort"
[profile.lines]
inherits = "release"
debug = "line-tables-only"
"#;

/// The dependencies of the examples as lines of a manifest: the workspace's, for equal features and versions.
fn dependencies() -> Result<String> {
    let examples = fs::read_to_string(root().join("hud-record/examples/Cargo.toml"))?;
    let workspace = fs::read_to_string(root().join("Cargo.toml"))?;
    let names = section(&examples, "[dependencies]").filter_map(|line| line.strip_suffix(".workspace = true"));
    let lines: Vec<&str> = names
        .filter_map(|name| {
            section(&workspace, "[workspace.dependencies]").find(|line| line.starts_with(&format!("{name} = ")))
        })
        .collect();
    ensure!(!lines.is_empty(), "hud-record/examples/Cargo.toml has no dependencies of the workspace");
    Ok(lines.join("\n"))
}

/// The lines of a manifest from a heading to the next one.
fn section<'a>(manifest: &'a str, heading: &str) -> impl Iterator<Item = &'a str> {
    manifest.lines().skip_while(move |line| *line != heading).skip(1).take_while(|line| !line.starts_with('['))
}
