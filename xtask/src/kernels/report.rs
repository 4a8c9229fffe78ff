//! Results of the checks, as they arrive and as a report.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;

use super::cache::Kernel;
use super::guest::Ending;
use super::load::{Load, MOST_INSTRUCTIONS};
use super::lockdown::Refusal;
use super::recording::Recording;
use crate::results::grouped;

/// All results of one kernel, booted once.
pub(crate) struct Outcome {
    pub(crate) kernel: Kernel,
    pub(crate) is_locked_down: bool,
    /// As `uname -r` prints it.
    pub(crate) release: Option<String>,
    pub(crate) has_btf: bool,
    pub(crate) loads: Vec<Load>,
    pub(crate) recordings: Vec<Recording>,
    /// Of the lockdown check.
    pub(crate) refusals: Vec<Refusal>,
    /// Warnings in the kernel's log.
    pub(crate) warnings: Vec<String>,
    pub(crate) ending: Ending,
    /// The console's last lines, if the guest failed.
    pub(crate) last_lines: Vec<String>,
    pub(crate) duration: Duration,
}

impl Outcome {
    /// Of a kernel that has not been booted yet.
    pub(crate) fn new(kernel: Kernel, is_locked_down: bool) -> Self {
        Self {
            kernel,
            is_locked_down,
            release: None,
            has_btf: false,
            loads: Vec::new(),
            recordings: Vec::new(),
            refusals: Vec::new(),
            warnings: Vec::new(),
            ending: Ending::Done,
            last_lines: Vec::new(),
            duration: Duration::ZERO,
        }
    }

    /// The kernel's version, and whether it was locked down.
    pub(crate) fn name(&self) -> String {
        let version = &self.kernel.package.version;
        if self.is_locked_down { format!("{version} (locked down)") } else { version.to_string() }
    }

    /// Warnings of hud-record, each with the recording.
    fn recorder_warnings(&self) -> Vec<String> {
        let of = |one: &Recording| one.warnings.iter().map(|why| format!("{}: {why}", one.step)).collect::<Vec<_>>();
        self.recordings.iter().flat_map(of).collect()
    }

    /// Everything that failed, each with its step.
    pub(crate) fn failures(&self) -> Vec<String> {
        let of_loads = self.loads.iter().flat_map(|load| load.failures.iter().map(|why| (&load.step, why)));
        let of_recordings = self.recordings.iter().flat_map(|one| one.failures.iter().map(|why| (&one.step, why)));
        let of_refusals = self.refusals.iter().flat_map(|one| one.failures.iter().map(|why| (&one.step, why)));
        let all = of_loads.chain(of_recordings).chain(of_refusals);
        let mut failures: Vec<_> = all.map(|(step, why)| format!("{step}: {why}")).collect();
        match &self.ending {
            Ending::Done if self.loads.is_empty() && self.recordings.is_empty() && self.refusals.is_empty() => {
                failures.push("the guest ran no check".to_owned());
            }
            Ending::Done => {}
            Ending::Panicked(reason) => failures.push(format!("the kernel panicked: {reason}")),
            Ending::Stopped(status) => failures.push(format!("the guest ended before its checks did: {status}")),
            Ending::TimedOut => failures.push("the guest reported nothing for too long".to_owned()),
        }
        failures
    }
}

/// Shows which step runs; its result follows on the same line.
pub(crate) fn print_begin(step: &str) {
    print!("  {step:<12} ");
    // Only a progress message.
    let _ = std::io::stdout().flush();
}

/// Shows one load check.
pub(crate) fn print_load(load: &Load) {
    let largest = load.largest().map(|(name, count)| format!(", at most {} instructions ({name})", grouped(count)));
    let programs = format!("{} programs{}", load.programs.len(), largest.unwrap_or_default());
    print_step(&load.failures, &[], &programs, load.duration_s);
}

/// Shows one recording.
pub(crate) fn print_recording(recording: &Recording) {
    let facts = format!(
        "{} events, {} dropped, complete stacks {} of samples, {} of off-CPU intervals",
        grouped(recording.events),
        grouped(recording.dropped),
        share(recording.complete_samples),
        share(recording.complete_off_cpu),
    );
    print_step(&recording.failures, &recording.warnings, &facts, recording.duration_s);
}

/// Shows how hud-record refused to record.
pub(crate) fn print_refusal(refusal: &Refusal) {
    print_step(&refusal.failures, &[], &refusal.message, refusal.duration_s);
}

fn print_step(failures: &[String], warnings: &[String], facts: &str, duration_s: u64) {
    let verdict = if failures.is_empty() { "ok" } else { "FAILED" };
    println!("{verdict:<6} {duration_s:>4} s  {facts}");
    for failure in failures {
        println!("               {failure}");
    }
    for warning in warnings {
        println!("               hud-record warns: {warning}");
    }
}

/// Shows how a guest ended, unless it ended well.
pub(crate) fn print_ending(outcome: &Outcome) {
    if outcome.ending != Ending::Done {
        println!();
        for line in &outcome.last_lines {
            println!("  | {line}");
        }
        println!("  FAILED: {}", outcome.failures().last().map_or("", String::as_str));
    }
    for warning in &outcome.warnings {
        println!("  kernel log: {warning}");
    }
    println!("  {} s in all", outcome.duration.as_secs());
}

/// The report's text.
pub(crate) fn markdown(command_line: &str, qemu: &str, machine: &str, outcomes: &[Outcome]) -> Result<String> {
    let mut text =
        format!("`{command_line}`\n\n{machine}- {qemu}, without KVM: durations are those of an emulated CPU\n");
    text.push_str("\n| kernel | release | package | BTF | checks | duration |\n|---|---|---|---|---|---|\n");
    for outcome in outcomes {
        let substitute = if outcome.kernel.is_substitute {
            format!(" (instead of {}, which no suite has)", outcome.kernel.wanted)
        } else {
            String::new()
        };
        writeln!(
            text,
            "| {}{substitute} | {} | {} | {} | {} | {} s |",
            outcome.name(),
            outcome.release.as_deref().unwrap_or("did not boot"),
            outcome.kernel.package.file_name(),
            if outcome.has_btf { "yes" } else { "no" },
            if outcome.failures().is_empty() { "ok" } else { "**FAILED**" },
            outcome.duration.as_secs(),
        )?;
    }
    instructions(&mut text, outcomes)?;
    recordings(&mut text, outcomes)?;
    list(&mut text, "Failures", outcomes, Outcome::failures)?;
    list(&mut text, "Warnings of hud-record", outcomes, Outcome::recorder_warnings)?;
    list(&mut text, "Warnings in the kernels' logs", outcomes, |outcome| outcome.warnings.clone())?;
    Ok(text)
}

/// A table of programs and kernels, for each way to load them.
fn instructions(text: &mut String, outcomes: &[Outcome]) -> Result<()> {
    let steps: BTreeSet<_> =
        outcomes.iter().flat_map(|outcome| &outcome.loads).map(|load| load.step.as_str()).collect();
    // Nothing is loaded on a kernel that is locked down.
    let outcomes: Vec<_> = outcomes.iter().filter(|outcome| !outcome.is_locked_down).collect();
    for step in steps {
        let how = if step == "load" { "with BTF" } else { "without BTF (`--no-btf`)" };
        write!(
            text,
            "\n## Loading {how}\n\nInstructions that the verifier walked; each must stay below {}.\n\n| program |",
            grouped(MOST_INSTRUCTIONS)
        )?;
        let loads: Vec<_> =
            outcomes.iter().map(|outcome| outcome.loads.iter().find(|load| load.step == step)).collect();
        for outcome in &outcomes {
            write!(text, " {} |", outcome.name())?;
        }
        writeln!(text, "\n|---|{}", "---:|".repeat(outcomes.len()))?;
        let names: BTreeSet<_> = loads.iter().flatten().flat_map(|load| &load.programs).map(|(name, _)| name).collect();
        for name in names {
            write!(text, "| {name} |")?;
            for load in &loads {
                let verdict = load.and_then(|load| load.programs.iter().find(|(program, _)| program == name));
                write!(text, " {} |", verdict.map_or("-".to_owned(), |(_, verdict)| verdict.to_string()))?;
            }
            text.push('\n');
        }
    }
    Ok(())
}

fn recordings(text: &mut String, outcomes: &[Outcome]) -> Result<()> {
    if outcomes.iter().all(|outcome| outcome.recordings.is_empty()) {
        return Ok(());
    }
    text.push_str(
        "\n## Recordings\n\n| kernel | recording | exit code | verify | events | dropped | samples | off_cpu | polls | \
         complete stacks: samples | off-CPU | duration |\n|---|---|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for outcome in outcomes {
        for recording in &outcome.recordings {
            writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} s |",
                outcome.name(),
                recording.step,
                recording.exit_code.map_or("-".to_owned(), |code| code.to_string()),
                if recording.is_verified { "ok" } else { "**FAILED**" },
                grouped(recording.events),
                grouped(recording.dropped),
                grouped(recording.rows.samples),
                grouped(recording.rows.off_cpu),
                grouped(recording.rows.polls),
                share(recording.complete_samples),
                share(recording.complete_off_cpu),
                recording.duration_s,
            )?;
        }
    }
    Ok(())
}

fn list(text: &mut String, title: &str, outcomes: &[Outcome], of: impl Fn(&Outcome) -> Vec<String>) -> Result<()> {
    let lines: Vec<_> =
        outcomes.iter().flat_map(|outcome| of(outcome).into_iter().map(|line| (outcome.name(), line))).collect();
    if !lines.is_empty() {
        writeln!(text, "\n## {title}\n")?;
    }
    for (version, line) in lines {
        writeln!(text, "- {version}: `{}`", line.replace('`', "'"))?;
    }
    Ok(())
}

fn share(share: Option<f64>) -> String {
    share.map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}
