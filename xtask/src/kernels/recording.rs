//! The record check: whether hud records a program on a kernel, and whether hud-analyze verifies the session.

use serde_json::Value;

use super::console::{Command, Step};

/// What was recorded, in one of several ways.
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
    /// That hud-record logged.
    pub(crate) warnings: Vec<String>,
    pub(crate) failures: Vec<String>,
}

/// Rows of the tables that a recording is held to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) samples: u64,
    pub(crate) off_cpu: u64,
    pub(crate) polls: u64,
}

impl Recording {
    pub(crate) fn judge(step: &str, output: &Step) -> Self {
        let record = output.part("record");
        let mut failures = Vec::new();
        // Each command that fails says why; what depends on it is not reported again.
        let mut succeeded = |name: &str| {
            let part = output.part(name);
            let is_ok = part.is_some_and(|part| part.code == Some(0));
            if !is_ok && failures.is_empty() {
                failures.push(format!("{name}: {}", part.map_or("it did not run".to_owned(), ending)));
            }
            is_ok
        };
        let is_recorded = succeeded("record");
        // A session may be worth a look even where hud-record failed in the end.
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
            match rows {
                None => failures.push("rows: no table of counts".to_owned()),
                Some(rows) => failures.extend(rows.missing(step).map(|table| format!("no rows in {table}"))),
            }
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
        Some(Self { samples: column("samples")?, off_cpu: column("off_cpu")?, polls: column("polls")? })
    }

    /// The tables that lack the rows which this recording must have. Without BTF or with `--polls off`, polls may not be
    /// watched.
    fn missing(self, step: &str) -> impl Iterator<Item = &'static str> {
        let needs_polls = step == "auto" || step.starts_with("exact");
        let tables =
            [("samples", self.samples == 0), ("off_cpu", self.off_cpu == 0), ("polls", needs_polls && self.polls == 0)];
        tables.into_iter().filter(|(_, is_missing)| *is_missing).map(|(table, _)| table)
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

    fn recording(verify_code: i32, rows: &str) -> Recording {
        let console = format!(
            "HUD-ERR exact-1 record  WARN polls are not recorded\nHUD-ERR exact-1 record recorded\n\
             HUD-EXIT exact-1 record 0 11\n\
             HUD-ERR exact-1 verify hud-analyze: the session is not proven\nHUD-EXIT exact-1 verify {verify_code} 3\n{INFO}\
             HUD-OUT exact-1 rows samples,off_cpu,polls\nHUD-OUT exact-1 rows {rows}\nHUD-EXIT exact-1 rows 0 1\n"
        );
        Recording::judge("exact-1", &step(&console))
    }

    #[test]
    fn takes_a_verified_recording() {
        let recording = recording(0, "20,300,18608");
        assert_eq!(recording.failures, [""; 0]);
        assert!(recording.is_verified);
        assert_eq!((recording.exit_code, recording.duration_s), (Some(0), 17));
        assert_eq!((recording.events, recording.dropped), (18_622, 4));
        assert_eq!(recording.warnings, ["polls are not recorded"]);
        assert_eq!(recording.rows, Rows { samples: 20, off_cpu: 300, polls: 18_608 });
        assert_eq!((recording.complete_samples, recording.complete_off_cpu), (Some(0.995), Some(1.0)));
    }

    #[test]
    fn rejects_a_session_that_is_not_proven() {
        let recording = recording(1, "20,300,18608");
        assert_eq!(recording.failures, ["verify: exit code 1, hud-analyze: the session is not proven"]);
        assert_eq!(recording.events, 18_622);
    }

    #[test]
    fn rejects_a_session_without_rows() {
        assert_eq!(recording(0, "20,0,0").failures, ["no rows in off_cpu", "no rows in polls"]);
        assert_eq!(recording(0, "none").failures, ["rows: no table of counts"]);
    }

    #[test]
    fn takes_a_recording_without_polls_where_none_are_asked_for() {
        let console = INFO.replace("exact-1", "off")
            + "HUD-EXIT off record 0 1\nHUD-EXIT off verify 0 1\nHUD-OUT off rows samples,off_cpu,polls\n\
               HUD-OUT off rows 1,1,0\nHUD-EXIT off rows 0 1\n";
        assert_eq!(Recording::judge("off", &step(&console)).failures, [""; 0]);
    }

    #[test]
    fn reports_the_first_command_that_fails() {
        let console = "HUD-ERR auto record hud-record: attaching uprobes to tokio\nHUD-EXIT auto record 1 2\n";
        let recording = Recording::judge("auto", &step(console));
        assert_eq!(recording.failures, ["record: exit code 1, hud-record: attaching uprobes to tokio"]);
        assert_eq!(Recording::judge("auto", &Step::default()).failures, ["record: it did not run"]);
    }
}
