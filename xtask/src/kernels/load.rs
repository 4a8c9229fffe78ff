//! The load check: whether a kernel's verifier accepts each of hud's programs, and the number of instructions that it
//! verifies.

use std::fmt;

use super::console::Step;

/// The verifier gives up after a million instructions, and a kernel may need four times as many as another for the same
/// program: a program near the limit on a tested kernel exceeds it on an untested one.
pub(crate) const MOST_INSTRUCTIONS: u64 = 400_000;

/// The verifier's verdict on a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Accepted, with the number of instructions that the verifier walked.
    Verified(u64),
    /// With the verifier's reason.
    Refused(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verified(instructions) => f.write_str(&crate::results::grouped(*instructions)),
            Self::Refused(_) => f.write_str("refused"),
        }
    }
}

/// The result of `hud-record check` on one kernel.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) step: String,
    pub(crate) programs: Vec<(String, Verdict)>,
    pub(crate) duration_s: u64,
    pub(crate) failures: Vec<String>,
}

impl Load {
    pub(crate) fn judge(step: &str, output: &Step) -> Self {
        let mut load = Self { step: step.to_owned(), programs: Vec::new(), duration_s: 0, failures: Vec::new() };
        let Some(check) = output.part("check") else {
            load.failures.push("hud-record check did not run".to_owned());
            return load;
        };
        load.programs = check.out.iter().filter_map(|line| program(line)).collect();
        load.duration_s = check.duration_s;
        for (name, verdict) in &load.programs {
            match verdict {
                Verdict::Refused(reason) => load.failures.push(format!("{name} is refused: {reason}")),
                Verdict::Verified(count) if *count >= MOST_INSTRUCTIONS => {
                    load.failures.push(format!("{name} takes the verifier {verdict} instructions"));
                }
                Verdict::Verified(_) => {}
            }
        }
        let is_ok = check.code == Some(0) && check.out.iter().any(|line| line.trim() == "check ok");
        if load.programs.is_empty() || (!is_ok && load.failures.is_empty()) {
            let code = check.code.map_or("no exit code".to_owned(), |code| format!("exit code {code}"));
            load.failures.push(format!("hud-record check: {code}, {}", check.reason()));
        }
        load
    }

    /// The program with the most verified instructions.
    pub(crate) fn largest(&self) -> Option<(&str, u64)> {
        let verified = self.programs.iter().filter_map(|(name, verdict)| match verdict {
            Verdict::Verified(count) => Some((name.as_str(), *count)),
            Verdict::Refused(_) => None,
        });
        verified.max_by_key(|&(_, count)| count)
    }
}

/// `program NAME ok COUNT` or `program NAME refused REASON…`.
fn program(line: &str) -> Option<(String, Verdict)> {
    let mut words = line.trim().splitn(4, ' ');
    if words.next()? != "program" {
        return None;
    }
    let name = words.next()?.to_owned();
    let verdict = match (words.next()?, words.next().unwrap_or_default()) {
        ("ok", count) => Verdict::Verified(count.parse().ok()?),
        ("refused", reason) => Verdict::Refused(reason.to_owned()),
        _ => return None,
    };
    Some((name, verdict))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::console::tests::step;

    fn failures(console: &str) -> Vec<String> {
        Load::judge("load", &step(console)).failures
    }

    #[test]
    fn takes_verified_programs() {
        let console = "HUD-OUT load check program sched_switch_btf ok 163286\n\
                       HUD-OUT load check program poll_enter ok 6001\n\
                       HUD-OUT load check check ok\nHUD-EXIT load check 0 7\n";
        let load = Load::judge("load", &step(console));
        assert_eq!(load.failures, [""; 0]);
        assert_eq!(load.programs[1], ("poll_enter".to_owned(), Verdict::Verified(6001)));
        assert_eq!((load.largest(), load.duration_s), (Some(("sched_switch_btf", 163_286)), 7));
    }

    #[test]
    fn rejects_a_refused_program_with_its_reason() {
        let console = "HUD-OUT load check program panicked refused math between map_value pointer and register\n\
                       HUD-OUT load check program poll_return ok 1104\n\
                       HUD-OUT load check check failed\nHUD-EXIT load check 1 7\n";
        assert_eq!(failures(console), ["panicked is refused: math between map_value pointer and register"]);
    }

    #[test]
    fn rejects_a_program_near_the_limit() {
        let console = "HUD-OUT load check program sample_cpu ok 400000\n\
                       HUD-OUT load check check ok\nHUD-EXIT load check 0 7\n";
        assert_eq!(failures(console), ["sample_cpu takes the verifier 400,000 instructions"]);
    }

    #[test]
    fn rejects_a_check_without_an_end() {
        let console = "HUD-OUT load check program sample_cpu ok 4\nHUD-ERR load check killed\n";
        assert_eq!(failures(console), ["hud-record check: no exit code, killed"]);
        let console =
            "HUD-OUT load check program sample_cpu ok 4\nHUD-OUT load check check ok\nHUD-EXIT load check 1 0\n";
        assert_eq!(failures(console), ["hud-record check: exit code 1, check ok"]);
    }

    #[test]
    fn rejects_a_check_of_no_programs() {
        let console = "HUD-ERR load check error: unrecognized subcommand 'check'\nHUD-EXIT load check 2 0\n";
        assert_eq!(failures(console), ["hud-record check: exit code 2, error: unrecognized subcommand 'check'"]);
        assert_eq!(failures("HUD-OUT load check check ok\nHUD-EXIT load check 0 0\n").len(), 1);
        assert_eq!(failures(""), ["hud-record check did not run"]);
    }
}
