//! `hud doctor`: what hud can record on this machine, what is missing, and what to do about it.

use std::io::Write as _;

use clap::Args;
use hud_common::wire::Stream;

use crate::{
    error::{Error, Result},
    kernel, privilege, probes,
};

/// Examples of its help.
pub const EXAMPLES: &str = "\
Examples:
  sudo hud doctor               everything, the kernel programs included
  hud doctor                    what an unprivileged user can do: hud dump, views of recorded sessions

A line per fact: `ok`, `limited` (something is not recorded) or `missing` (nothing can be recorded), and below it what
to do. Nothing is attached. Exit codes: 0 hud can record, 77 it cannot.";

/// Show what works here: kernel, BTF, rights, kernel programs
#[derive(Args, Clone, Copy, Debug)]
pub struct DoctorArgs {}

/// Exit code if hud cannot record here; the reason has been printed.
const CANNOT: u8 = 77;

/// How much of hud a fact leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// Everything.
    Ok,
    /// Some data is not recorded.
    Limited,
    /// Nothing can be recorded.
    Missing,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Limited => "limited",
            Level::Missing => "missing",
        }
    }
}

/// A fact about this machine.
#[derive(Debug)]
struct Fact {
    level: Level,
    topic: &'static str,
    found: String,
    /// The consequence, and what to do about it.
    advice: Option<String>,
}

impl Fact {
    fn ok(topic: &'static str, found: impl Into<String>) -> Self {
        Fact { level: Level::Ok, topic, found: found.into(), advice: None }
    }

    fn limited(topic: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Fact { level: Level::Limited, topic, found: found.into(), advice: Some(advice.into()) }
    }

    fn missing(topic: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Fact { level: Level::Missing, topic, found: found.into(), advice: Some(advice.into()) }
    }
}

impl DoctorArgs {
    /// Prints the facts and a conclusion. An error if hud cannot record here.
    pub fn run(self) -> Result<()> {
        let mut facts = vec![kernel_release(&kernel::release()), btf(), lockdown(), rights(), perf_events()];
        facts.extend(kernel_programs()?);
        facts.extend([probe_links(&kernel::release()), memory()]);
        let mut out = std::io::stdout().lock();
        let failed = |source| Error::Io { action: "write to stdout", source };
        for fact in &facts {
            writeln!(out, "{:<8} {:<16} {}", fact.level.name(), fact.topic, fact.found).map_err(failed)?;
            for line in fact.advice.iter().flat_map(|advice| advice.lines()) {
                writeln!(out, "{:25} {line}", "").map_err(failed)?;
            }
        }
        let worst = facts.iter().map(|fact| fact.level).max().unwrap_or(Level::Ok);
        let conclusion = match worst {
            Level::Ok => "hud can record everything here",
            Level::Limited => "hud can record here, with the limits above",
            Level::Missing => "hud cannot record here; recorded sessions can be read",
        };
        writeln!(out, "\n{conclusion}").map_err(failed)?;
        match facts.iter().find(|fact| fact.level == Level::Missing) {
            None => Ok(()),
            Some(_) => Err(Error::Recorder(Some(CANNOT))),
        }
    }
}

fn kernel_release(release: &str) -> Fact {
    let found = format!("Linux {release}, {}", std::env::consts::ARCH);
    match kernel::version(release) {
        (..=4, ..) | (5, ..=10, _) => Fact::missing(
            "kernel",
            found,
            "Linux up to 5.10 lacks attach cookies and callbacks in eBPF programs. 6.1 or newer is tested.",
        ),
        (5, ..) | (6, 0, _) => {
            Fact::limited("kernel", found, "hud is not tested on Linux before 6.1; the checks below tell more.")
        }
        _ => Fact::ok("kernel", found),
    }
}

fn btf() -> Fact {
    match kernel::Offsets::of_running_kernel() {
        Some(_) => Fact::ok("BTF", kernel::BTF_PATH),
        None => Fact::limited(
            "BTF",
            format!("{} is not there or cannot be read", kernel::BTF_PATH),
            "Stacks need frame pointers, tasks are known from probes only, and the parents of threads are not known.\n\
             A kernel with CONFIG_DEBUG_INFO_BTF has it.",
        ),
    }
}

fn lockdown() -> Fact {
    if kernel::is_locked_down() {
        return Fact::missing(
            "lockdown",
            "confidentiality",
            "The kernel does not let eBPF programs read its memory. Boot without lockdown=confidentiality.",
        );
    }
    Fact::ok("lockdown", "does not forbid eBPF programs to read memory")
}

fn rights() -> Fact {
    let missing = privilege::missing_to_attach();
    let found = || format!("no {}", missing.join(", no "));
    match missing.as_slice() {
        [] => Fact::ok("rights", "all five capabilities that recording needs"),
        ["CAP_CHECKPOINT_RESTORE"] => Fact::limited(
            "rights",
            found(),
            "The files that a program has mapped cannot be opened: most stacks end after a few frames.",
        ),
        _ => Fact::missing("rights", found(), "Run as root, or give hud the five capabilities that README lists."),
    }
}

fn perf_events() -> Fact {
    let Some(level) = kernel::perf_event_paranoid() else {
        return Fact::limited("CPU samples", "this kernel has no perf events", "There are no CPU samples.");
    };
    let found = format!("kernel.perf_event_paranoid is {level}");
    if level <= 2 || privilege::may_do_everything() {
        return Fact::ok("CPU samples", found);
    }
    Fact::limited(
        "CPU samples",
        found,
        "Above 2, this kernel requires CAP_SYS_ADMIN for perf events: no CPU samples, and before Linux 6.6 no polls.\n\
         Set it to 2, or run as root.",
    )
}

/// Loads every program, which needs rights.
fn kernel_programs() -> Result<Vec<Fact>> {
    const TOPIC: &str = "kernel programs";
    let checked = match probes::check(false) {
        Ok(checked) => checked,
        Err(Error::LockedDown) => return Ok(Vec::new()),
        Err(error @ (Error::NoPermission { .. } | Error::NoBpf { .. })) => {
            return Ok(vec![Fact::missing(TOPIC, error.to_string(), error.help().unwrap_or_default())]);
        }
        Err(error) => return Err(error),
    };
    let loaded = checked.iter().filter(|(_, verified)| verified.is_ok()).count();
    let all = format!("{loaded} of {} load", checked.len());
    let refused = checked.iter().filter_map(|(program, verified)| Some((program, verified.as_ref().err()?)));
    let mut facts: Vec<Fact> = refused
        .map(|(program, why)| {
            let found = format!("{program} is refused: {why}");
            match probes::lost_without(program) {
                Some((stream, lost)) => {
                    let instead = if stream == Some(Stream::Polls) { "; record with --polls off" } else { "" };
                    Fact::limited(TOPIC, found, format!("Without it, {lost}{instead}."))
                }
                None => Fact::missing(TOPIC, found, "Nothing can be recorded without it. Please report this."),
            }
        })
        .collect();
    facts.insert(0, Fact::ok(TOPIC, all));
    Ok(facts)
}

fn probe_links(release: &str) -> Fact {
    if probes::has_probe_links(release) {
        return Fact::ok("probes", "can be attached and detached at once");
    }
    Fact::limited(
        "probes",
        "uprobe_multi links are missing or unusable (Linux 6.6.35 or newer has them)",
        "Probes are attached one by one, and once they cost more than the budget they are detached for good.",
    )
}

/// Whether `hud dump` may read programs of the same user.
fn memory() -> Fact {
    if !privilege::missing_to_attach().contains(&"CAP_SYS_PTRACE") {
        return Fact::ok("hud dump", "can read every program");
    }
    match std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok().as_deref().map(str::trim) {
        None | Some("0") => Fact::ok("hud dump", "can read this user's programs"),
        Some(scope) => Fact::limited(
            "hud dump",
            format!("kernel.yama.ptrace_scope is {scope}"),
            "Reading another program's memory needs CAP_SYS_PTRACE: run hud dump as root.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_judged_by_what_was_tested() {
        let level = |release| kernel_release(release).level;
        assert_eq!(level("4.19.0"), Level::Missing);
        assert_eq!(level("5.10.0-28-amd64"), Level::Missing);
        assert_eq!(level("5.15.0-100-generic"), Level::Limited);
        assert_eq!(level("6.0.1"), Level::Limited);
        assert_eq!(level("6.1.176"), Level::Ok);
        assert_eq!(level("7.3.4"), Level::Ok);
    }

    #[test]
    fn probes_need_links_that_see_all_threads() {
        let level = |release| probe_links(release).level;
        assert_eq!(level("6.5.0"), Level::Limited);
        assert_eq!(level("6.8.0-45-generic"), Level::Limited);
        assert_eq!(level("6.6.35"), Level::Ok);
        assert_eq!(level("6.12.117"), Level::Ok);
    }
}
