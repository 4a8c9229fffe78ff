//! The record check: whether hud records a program on a kernel, and whether hud-analyze verifies the session.

use serde_json::Value;

use super::console::{Command, Step};
use super::versions::Version;

/// The recording as uid 1000, with exactly the capabilities that hud-record requires.
pub(crate) const CAPABILITIES: &str = "capabilities";

/// From this level of kernel.perf_event_paranoid on, Debian's kernels let only CAP_SYS_ADMIN open perf events.
const PARANOID: i32 = 3;

/// The first Linux that attaches uprobes without perf events.
const UPROBE_MULTI: [u32; 2] = [6, 6];

/// Part of hud-record's message if it cannot sample the CPUs.
const NOT_SAMPLED: &str = "the CPUs are not sampled";

/// The same for uprobes.
const NO_POLLS: &str = "polls are not recorded";

/// A recording, in one of several ways.
#[derive(Clone, Debug)]
pub(crate) struct Recording {
    pub(crate) step: String,
    /// Of hud-record.
    pub(crate) exit_code: Option<i32>,
    pub(crate) is_verified: bool,
    pub(crate) events: u64,
    pub(crate) dropped: u64,
    pub(crate) rows: Rows,
    /// Shares, from 0 to 1, of samples and of off-CPU intervals whose stack is complete.
    pub(crate) complete_samples: Option<f64>,
    pub(crate) complete_off_cpu: Option<f64>,
    pub(crate) duration_s: u64,
    /// Lines that hud-record logged.
    pub(crate) warnings: Vec<String>,
    pub(crate) failures: Vec<String>,
}

/// Rows of the tables that a recording must have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) samples: u64,
    pub(crate) off_cpu: u64,
    pub(crate) polls: u64,
    /// Rows of `coverage` which say that kernel.perf_event_paranoid denies samples.
    pub(crate) samples_denied: u64,
}

impl Recording {
    pub(crate) fn judge(step: &str, output: &Step, kernel: &Version) -> Self {
        let record = output.part("record");
        let mut failures = Vec::new();
        let level = paranoid(output);
        let perf_events_are_denied = step == CAPABILITIES && level.is_some_and(|level| level >= PARANOID);
        // Each failed command has its reason; its consequences are not reported again.
        let mut succeeded = |name: &str| {
            let part = output.part(name);
            let is_ok = part.is_some_and(|part| part.code == Some(0));
            if !is_ok && failures.is_empty() {
                failures.push(format!("{name}: {}", part.map_or("it did not run".to_owned(), ending)));
            }
            is_ok
        };
        let is_recorded = succeeded("record");
        // A session may be useful even if hud-record failed in the end.
        let is_verified = succeeded("verify");
        let has_info = succeeded("info");
        let has_rows = succeeded("rows");

        let info = output.part("info").filter(|_| has_info).and_then(|info| serde_json::from_str(&info.text()).ok());
        let info: Value = info.unwrap_or_default();
        let rows = output.part("rows").filter(|_| has_rows).and_then(|rows| Rows::parse(&rows.out));
        if is_recorded && has_info && info.is_null() {
            failures.push("info: its output is no JSON".to_owned());
        }
        if is_recorded && has_rows {
            let needs = Needs::new(step, kernel, perf_events_are_denied);
            match rows {
                None => failures.push("rows: no table of counts".to_owned()),
                Some(rows) => failures.extend(rows.missing(&needs).map(|table| format!("no rows in {table}"))),
            }
        }
        if step == CAPABILITIES && level.is_none() {
            failures.push("paranoid: no level".to_owned());
        }
        if let Some(record) = record.filter(|_| is_recorded && perf_events_are_denied) {
            failures.extend(denial_failures(record, rows.unwrap_or_default(), kernel));
        }
        let streams = info["manifest"]["streams"].as_object();
        let total = |what: &str| -> u64 {
            streams.into_iter().flatten().filter_map(|(_, account)| account[what].as_u64()).sum()
        };
        Self {
            step: step.to_owned(),
            exit_code: record.and_then(|record| record.code),
            is_verified,
            events: total("produced"),
            dropped: total("dropped"),
            rows: rows.unwrap_or_default(),
            complete_samples: info["complete_stacks"]["samples"].as_f64(),
            complete_off_cpu: info["complete_stacks"]["off_cpu"].as_f64(),
            duration_s: ["record", "verify", "info", "rows"]
                .iter()
                .filter_map(|name| Some(output.part(name)?.duration_s))
                .sum(),
            warnings: record.map(warnings).unwrap_or_default(),
            failures,
        }
    }
}

/// The guest's kernel.perf_event_paranoid.
fn paranoid(output: &Step) -> Option<i32> {
    output.part("paranoid")?.out.first()?.trim().parse().ok()
}

/// The faults of a recording that could not open perf events: there can be no samples, and hud-record must say so, to
/// its user and in the session.
fn denial_failures(record: &Command, rows: Rows, kernel: &Version) -> Vec<String> {
    let mut failures = Vec::new();
    let mut reported = vec![NOT_SAMPLED];
    if rows.polls == 0 && !kernel.is_at_least(UPROBE_MULTI) {
        reported.push(NO_POLLS);
    }
    if rows.samples > 0 {
        failures.push(format!("{} samples, though the kernel denies perf events", rows.samples));
    }
    reported.retain(|what| !record.err.iter().any(|line| line.contains(what)));
    failures.extend(reported.iter().map(|what| format!("record: it does not report that {what}")));
    if rows.samples_denied == 0 {
        failures.push("coverage does not report that perf_event_paranoid denies samples".to_owned());
    }
    failures
}

fn ending(command: &Command) -> String {
    let code = command.code.map_or("no exit code".to_owned(), |code| format!("exit code {code}"));
    format!("{code}, {}", command.reason())
}

/// Lines of a log at the level of warnings: ` WARN message`.
fn warnings(command: &Command) -> Vec<String> {
    let warnings = command.err.iter().filter_map(|line| line.trim_start().strip_prefix("WARN "));
    warnings.map(str::to_owned).collect()
}

impl Rows {
    /// Reads a header and a line of CSV.
    fn parse(csv: &[String]) -> Option<Self> {
        let [header, values] = csv else { return None };
        let column = |name: &str| {
            let at = header.split(',').position(|column| column == name)?;
            values.split(',').nth(at)?.parse().ok()
        };
        Some(Self {
            samples: column("samples")?,
            off_cpu: column("off_cpu")?,
            polls: column("polls")?,
            samples_denied: column("samples_denied")?,
        })
    }

    /// The tables that lack the rows which this recording must have.
    fn missing(self, needs: &Needs) -> impl Iterator<Item = &'static str> {
        let tables = [
            ("samples", needs.samples && self.samples == 0),
            ("off_cpu", self.off_cpu == 0),
            ("polls", needs.polls && self.polls == 0),
        ];
        tables.into_iter().filter(|(_, is_missing)| *is_missing).map(|(table, _)| table)
    }
}

/// The tables that must have rows, beside `off_cpu`.
struct Needs {
    samples: bool,
    polls: bool,
}

impl Needs {
    /// Without BTF or with `--polls off`, polls may be unobserved.
    fn new(step: &str, kernel: &Version, perf_events_are_denied: bool) -> Self {
        let watches_polls = step == "auto" || step.starts_with("exact") || step == CAPABILITIES;
        let has_uprobes = !perf_events_are_denied || kernel.is_at_least(UPROBE_MULTI);
        Self { samples: !perf_events_are_denied, polls: watches_polls && has_uprobes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::console::tests::step;

    const INFO: &str = r#"HUD-OUT exact-1 info {
HUD-OUT exact-1 info   "complete_stacks": { "samples": 0.995, "off_cpu": 1.0 },
HUD-OUT exact-1 info   "manifest": { "streams": {
HUD-OUT exact-1 info     "polls": { "produced": 18612, "stored": 18608, "dropped": 4, "expired": 0 },
HUD-OUT exact-1 info     "ends": { "produced": 10, "stored": 10, "dropped": 0, "expired": 0 } } }
HUD-OUT exact-1 info }
HUD-EXIT exact-1 info 0 2
"#;

    fn judge(name: &str, console: &str) -> Recording {
        Recording::judge(name, &step(console), &"6.12.117".parse().unwrap())
    }

    fn recording(verify_code: i32, rows: &str) -> Recording {
        let console = format!(
            "HUD-ERR exact-1 record  WARN polls are not recorded\nHUD-ERR exact-1 record recorded\n\
             HUD-EXIT exact-1 record 0 11\n\
             HUD-ERR exact-1 verify hud-analyze: the session is not proven\nHUD-EXIT exact-1 verify {verify_code} 3\n{INFO}\
             HUD-OUT exact-1 rows samples,off_cpu,polls,samples_denied\nHUD-OUT exact-1 rows {rows}\nHUD-EXIT exact-1 rows 0 1\n"
        );
        judge("exact-1", &console)
    }

    #[test]
    fn takes_a_verified_recording() {
        let recording = recording(0, "20,300,18608,0");
        assert_eq!(recording.failures, [""; 0]);
        assert!(recording.is_verified);
        assert_eq!((recording.exit_code, recording.duration_s), (Some(0), 17));
        assert_eq!((recording.events, recording.dropped), (18_622, 4));
        assert_eq!(recording.warnings, ["polls are not recorded"]);
        assert_eq!(recording.rows, Rows { samples: 20, off_cpu: 300, polls: 18_608, samples_denied: 0 });
        assert_eq!((recording.complete_samples, recording.complete_off_cpu), (Some(0.995), Some(1.0)));
    }

    #[test]
    fn rejects_a_session_that_is_not_proven() {
        let recording = recording(1, "20,300,18608,0");
        assert_eq!(recording.failures, ["verify: exit code 1, hud-analyze: the session is not proven"]);
        assert_eq!(recording.events, 18_622);
    }

    #[test]
    fn rejects_a_session_without_rows() {
        assert_eq!(recording(0, "20,0,0,0").failures, ["no rows in off_cpu", "no rows in polls"]);
        assert_eq!(recording(0, "none").failures, ["rows: no table of counts"]);
    }

    #[test]
    fn takes_a_recording_without_polls_where_none_are_asked_for() {
        let console = INFO.replace("exact-1", "off")
            + "HUD-EXIT off record 0 1\nHUD-EXIT off verify 0 1\nHUD-OUT off rows samples,off_cpu,polls,samples_denied\n\
               HUD-OUT off rows 1,1,0,0\nHUD-EXIT off rows 0 1\n";
        assert_eq!(judge("off", &console).failures, [""; 0]);
    }

    fn failures_with_capabilities(kernel: &str, paranoid: i32, log: &str, rows: &str) -> Vec<String> {
        let console = INFO.replace("exact-1", "capabilities")
            + &format!(
                "HUD-OUT capabilities paranoid {paranoid}\nHUD-EXIT capabilities paranoid 0 0\n\
                 HUD-ERR capabilities record {log}\nHUD-EXIT capabilities record 0 1\n\
                 HUD-EXIT capabilities verify 0 1\nHUD-OUT capabilities rows samples,off_cpu,polls,samples_denied\n\
                 HUD-OUT capabilities rows {rows}\nHUD-EXIT capabilities rows 0 1\n"
            );
        Recording::judge(CAPABILITIES, &step(&console), &kernel.parse().unwrap()).failures
    }

    const DENIED: &str = " INFO note: the CPUs are not sampled: Permission denied (kernel.perf_event_paranoid is 3)";

    #[test]
    fn takes_a_recording_without_samples_where_perf_events_are_denied() {
        assert_eq!(failures_with_capabilities("6.12", 3, DENIED, "0,300,18608,1"), [""; 0]);
        assert_eq!(failures_with_capabilities("6.12", 2, "", "20,300,18608,0"), [""; 0]);
        let without_polls = format!("{DENIED}; polls are not recorded");
        assert_eq!(failures_with_capabilities("6.1.176", 3, &without_polls, "0,300,0,1"), [""; 0]);
    }

    #[test]
    fn rejects_a_recording_that_does_not_report_what_is_denied() {
        assert_eq!(
            failures_with_capabilities("6.12", 3, "", "0,300,18608,0"),
            [
                "record: it does not report that the CPUs are not sampled",
                "coverage does not report that perf_event_paranoid denies samples"
            ]
        );
        assert_eq!(
            failures_with_capabilities("6.1.176", 3, DENIED, "0,300,0,1"),
            ["record: it does not report that polls are not recorded"]
        );
    }

    #[test]
    fn rejects_a_recording_that_lacks_what_is_not_denied() {
        assert_eq!(
            failures_with_capabilities("6.12", 3, DENIED, "0,0,0,1"),
            ["no rows in off_cpu", "no rows in polls"]
        );
        assert_eq!(failures_with_capabilities("6.12", 2, "", "0,300,18608,0"), ["no rows in samples"]);
        assert_eq!(
            failures_with_capabilities("6.12", 3, DENIED, "20,300,18608,1"),
            ["20 samples, though the kernel denies perf events"]
        );
    }

    #[test]
    fn reports_the_first_command_that_fails() {
        let console = "HUD-ERR auto record hud-record: attaching uprobes to tokio\nHUD-EXIT auto record 1 2\n";
        let recording = judge("auto", console);
        assert_eq!(recording.failures, ["record: exit code 1, hud-record: attaching uprobes to tokio"]);
        assert_eq!(judge("auto", "").failures, ["record: it did not run"]);
    }
}
