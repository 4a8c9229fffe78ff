//! The lockdown check: whether hud-record refuses to record on a kernel that does not let programs read its memory, and
//! says why.

use super::console::Step;

/// The exit code for "no permission or no eBPF".
const NO_PERMISSION: i32 = 77;

const MESSAGE: &str = "the kernel is locked down";

/// How hud-record ended on a kernel that is locked down.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) step: String,
    /// Lines that hud-record printed.
    pub(crate) message: String,
    pub(crate) duration_s: u64,
    pub(crate) failures: Vec<String>,
}

impl Refusal {
    pub(crate) fn judge(step: &str, output: &Step) -> Self {
        let Some(record) = output.part("record") else {
            let failures = vec!["hud-record did not run".to_owned()];
            return Self { step: step.to_owned(), message: String::new(), duration_s: 0, failures };
        };
        let message = record.reason().to_owned();
        let mut failures = Vec::new();
        if record.code != Some(NO_PERMISSION) {
            let code = record.code.map_or("no exit code".to_owned(), |code| format!("exit code {code}"));
            failures.push(format!("hud-record: {code} instead of {NO_PERMISSION}, {message}"));
        }
        if !record.err.iter().any(|line| line.contains(MESSAGE)) {
            failures.push(format!("hud-record does not report that {MESSAGE}: {message}"));
        }
        Self { step: step.to_owned(), message, duration_s: record.duration_s, failures }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::console::tests::step;

    fn failures(console: &str) -> Vec<String> {
        Refusal::judge("lockdown", &step(console)).failures
    }

    #[test]
    fn takes_a_refusal_that_says_why() {
        let console = "HUD-ERR lockdown record hud-record: the kernel is locked down (lockdown=confidentiality)\n\
                       HUD-ERR lockdown record help: boot with lockdown=integrity\nHUD-EXIT lockdown record 77 1\n";
        let refusal = Refusal::judge("lockdown", &step(console));
        assert_eq!(refusal.failures, [""; 0]);
        assert_eq!(refusal.message, "hud-record: the kernel is locked down (lockdown=confidentiality)");
    }

    #[test]
    fn rejects_another_exit_code_or_message() {
        let console = "HUD-ERR lockdown record hud-record: the kernel is locked down\nHUD-EXIT lockdown record 1 1\n";
        assert_eq!(failures(console), ["hud-record: exit code 1 instead of 77, hud-record: the kernel is locked down"]);
        let console = "HUD-ERR lockdown record hud-record: no permission\nHUD-EXIT lockdown record 77 1\n";
        assert_eq!(
            failures(console),
            ["hud-record does not report that the kernel is locked down: hud-record: no permission"]
        );
        assert_eq!(failures(""), ["hud-record did not run"]);
    }
}
