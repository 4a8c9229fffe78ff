//! Demonstrates hud: records the example program and shows what blocks its workers.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::sh::{cargo, command, output, root, run as sh, show, succeeds, target_dir};
use crate::targets;

/// Builds hud-record, records the example program and prints its problems
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long to record
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Keeps the session of the demo before this one
    #[arg(long)]
    keep: bool,
}

/// Build time of hud-analyze on a machine with two CPUs.
const ANALYZE_MINUTES: u32 = 25;

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(cfg!(target_os = "linux"), "hud records on Linux only");
    let privilege = Privilege::find()?;

    // Recording, live cockpit and findings are hud-record's. hud-analyze includes DataFusion, whose build takes many
    // times longer.
    heading("building hud-record and the example program");
    let bins = target_dir();
    sh(cargo("build").args(["--release", "--package", "hud-record", "--bins"]))?;
    let example = targets::build_program("test-async-app")?;
    let [hud, hud_record] = ["hud", "hud-record"].map(|name| bins.join("release").join(name));

    let session = session(&bins.join("demo"), args.keep)?;
    heading("starting test-async-app: a well-behaved Tokio program but for a task that computes and one that sleeps");
    let target = Target::start(&example)?;
    let (pid, seconds) = (target.0.id().to_string(), args.seconds.to_string());
    let mut record = privilege.command(&hud_record);
    record.args(["--pid", &pid, "--headless", "--duration", &seconds, "--export"]).arg(&session);
    show_and_run(&mut record)?;
    drop(target);
    privilege.give_to_user(&session)?;

    let window = format!("{seconds}s");
    show_and_run(command(&hud).arg("attach").arg(&session).args(["--format", "screen", "--window", &window]))?;

    heading("next things to try");
    let [hud, session] = [&hud, &session].map(|path| short(path.display().to_string()));
    println!("{}{hud} --pid <PID of your program>", privilege.prefix());
    println!("\nand with hud-analyze, which takes {ANALYZE_MINUTES} minutes to build:");
    println!("cargo build --release --package hud-analyze");
    for view in ["blocking", "workers", "timeline --from +2s --to +2.2s", "replay"] {
        let (view, options) = view.split_once(' ').unwrap_or((view, ""));
        println!("{hud} {view} {session} {options}");
    }
    println!("{hud} sql {session} -c \"SELECT type_id, count(*), max(dur) FROM polls GROUP BY 1 ORDER BY 3 DESC\"");
    Ok(())
}

/// The session's path. A previous session is removed, unless `keep`.
fn session(folder: &Path, keep: bool) -> Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let mut session = folder.join("session");
    if keep {
        let mut number = 1;
        while session.exists() {
            number += 1;
            session.set_file_name(format!("session-{number}"));
        }
    } else if session.exists() {
        fs::remove_dir_all(&session).with_context(|| format!("failed to remove {}", session.display()))?;
    }
    Ok(session)
}

fn show_and_run(command: &mut Command) -> Result<()> {
    heading(&short(show(command)));
    sh(command)
}

/// The command as a user may type it here.
fn short(command: String) -> String {
    match std::env::current_dir() {
        Ok(here) if here == root() => command.replace(&format!("{}/", here.display()), ""),
        _ => command,
    }
}

fn heading(text: &str) {
    println!("\n== {text}");
}

/// The example program while it is recorded.
///
/// It exits when its standard input ends, which the kernel closes however this program ends.
struct Target(Child);

impl Target {
    fn start(program: &Path) -> Result<Self> {
        let mut child = command(program)
            .arg("--with-stdin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {}", program.display()))?;
        let stdout = child.stdout.take();
        let target = Self(child);
        let mut ready = String::new();
        BufReader::new(stdout.context("no pipe")?).read_line(&mut ready)?;
        ensure!(!ready.is_empty(), "{} ended at once", program.display());
        print!("{ready}");
        Ok(target)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // It has nothing to clean up, and may have exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How to run commands that need root: loading kernel programs and reading another program's memory. Building does not.
enum Privilege {
    Root,
    Sudo { owner: String },
}

impl Privilege {
    fn find() -> Result<Self> {
        let id = |what| Ok::<_, anyhow::Error>(output(command("id").arg(what))?.trim().to_owned());
        let user = id("-u")?;
        if user == "0" {
            return Ok(Self::Root);
        }
        if !succeeds(command("sudo").arg("--version")) {
            bail!("hud-record loads eBPF programs, which needs root, and there is no sudo: run this as root");
        }
        println!("hud-record loads eBPF programs, which needs root: it will be run by sudo (the builds are not)");
        Ok(Self::Sudo { owner: format!("{user}:{}", id("-g")?) })
    }

    fn prefix(&self) -> &'static str {
        match self {
            Self::Root => "",
            Self::Sudo { .. } => "sudo -E ",
        }
    }

    fn command(&self, program: &Path) -> Command {
        match self {
            Self::Root => command(program),
            Self::Sudo { .. } => {
                let mut sudo = command("sudo");
                sudo.arg("-E").arg(program);
                sudo
            }
        }
    }

    /// Makes the user the owner of files that root wrote, so that the user can remove them.
    fn give_to_user(&self, session: &Path) -> Result<()> {
        match self {
            Self::Root => Ok(()),
            Self::Sudo { owner } => sh(command("sudo").args(["chown", "-R", owner]).arg(session)),
        }
    }
}
