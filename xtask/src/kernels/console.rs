//! A guest's output on its serial console: the lines of `init.sh`, and the kernel's last messages.

use std::collections::BTreeMap;

/// A line that `init.sh` prints for this program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// The guest runs its first process.
    Booted {
        release: String,
        has_btf: bool,
        uptime_s: u64,
    },
    /// A step (a load check or a recording) starts.
    Begin(String),
    /// A line of a command's standard output or error. A step has several parts, each a command.
    Output {
        step: String,
        part: String,
        is_error: bool,
        text: String,
    },
    /// A command ended.
    Exit {
        step: String,
        part: String,
        code: i32,
        duration_s: u64,
    },
    End(String),
    /// A warning in the kernel's log.
    Kernel(String),
    Done,
    Panic(String),
}

impl Line {
    /// `None` if it is none of these lines.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let line = line.trim_end();
        if let Some((_, reason)) = line.split_once("Kernel panic - not syncing: ") {
            return Some(Self::Panic(reason.to_owned()));
        }
        let (keyword, rest) = line.split_once(' ').unwrap_or((line, ""));
        match keyword {
            "HUD-BOOT" => {
                let mut words = rest.split(' ');
                let release = words.next()?.to_owned();
                let has_btf = words.next()?.strip_prefix("btf=")? == "yes";
                let uptime_s = words.next()?.strip_prefix("uptime=")?.parse().ok()?;
                Some(Self::Booted { release, has_btf, uptime_s })
            }
            "HUD-BEGIN" => Some(Self::Begin(rest.to_owned())),
            "HUD-END" => Some(Self::End(rest.to_owned())),
            "HUD-KERNEL" => Some(Self::Kernel(rest.to_owned())),
            "HUD-DONE" => Some(Self::Done),
            "HUD-OUT" | "HUD-ERR" => {
                let (step, part, text) = step_and_part(rest)?;
                Some(Self::Output { step, part, is_error: keyword == "HUD-ERR", text: text.to_owned() })
            }
            "HUD-EXIT" => {
                let (step, part, rest) = step_and_part(rest)?;
                let (code, duration_s) = rest.split_once(' ')?;
                Some(Self::Exit { step, part, code: code.parse().ok()?, duration_s: duration_s.parse().ok()? })
            }
            _ => None,
        }
    }
}

/// `STEP PART REST`, where the rest may be empty.
fn step_and_part(text: &str) -> Option<(String, String, &str)> {
    let (step, rest) = text.split_once(' ')?;
    let (part, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    Some((step.to_owned(), part.to_owned(), rest))
}

/// The output of one command of a guest, and its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Command {
    pub(crate) out: Vec<String>,
    pub(crate) err: Vec<String>,
    /// None while it runs, or if its end was not reported.
    pub(crate) code: Option<i32>,
    pub(crate) duration_s: u64,
}

impl Command {
    /// Why it failed: its error message, else the last lines of its output.
    pub(crate) fn reason(&self) -> &str {
        let is_error = |line: &&String| line.starts_with("hud-") || line.starts_with("error:");
        let lines = || self.out.iter().chain(&self.err).filter(|line| !line.trim().is_empty());
        self.err.iter().find(is_error).or_else(|| lines().next_back()).map_or("no output", String::as_str)
    }

    pub(crate) fn text(&self) -> String {
        self.out.join("\n")
    }
}

/// The commands of one step, by part.
#[derive(Clone, Debug, Default)]
pub(crate) struct Step(BTreeMap<String, Command>);

impl Step {
    pub(crate) fn part(&self, name: &str) -> Option<&Command> {
        self.0.get(name)
    }

    /// Takes a line of one of this step's commands.
    pub(crate) fn take(&mut self, line: Line) {
        match line {
            Line::Output { part, is_error, text, .. } => {
                let command = self.0.entry(part).or_default();
                if is_error { command.err.push(text) } else { command.out.push(text) }
            }
            Line::Exit { part, code, duration_s, .. } => {
                let command = self.0.entry(part).or_default();
                (command.code, command.duration_s) = (Some(code), duration_s);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The step that a console's lines form.
    pub(in crate::kernels) fn step(console: &str) -> Step {
        let mut step = Step::default();
        console.lines().filter_map(Line::parse).for_each(|line| step.take(line));
        step
    }

    #[test]
    fn reads_the_lines_of_a_guest() {
        let booted = Line::Booted { release: "6.1.0-50-cloud-amd64".into(), has_btf: true, uptime_s: 7 };
        assert_eq!(Line::parse("HUD-BOOT 6.1.0-50-cloud-amd64 btf=yes uptime=7\r\n"), Some(booted));
        assert_eq!(Line::parse("HUD-BEGIN exact-1"), Some(Line::Begin("exact-1".into())));
        let exit = Line::Exit { step: "exact-1".into(), part: "record".into(), code: 137, duration_s: 12 };
        assert_eq!(Line::parse("HUD-EXIT exact-1 record 137 12"), Some(exit));
        assert_eq!(Line::parse("HUD-DONE"), Some(Line::Done));
        assert_eq!(Line::parse("[    1.0] usb 1-1: HUD-DONE"), None);
        assert_eq!(Line::parse("HUD-EXIT exact-1 record"), None);
    }

    #[test]
    fn reads_a_panic_after_a_time_stamp() {
        let panic = "[   12.345678] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100";
        assert_eq!(Line::parse(panic), Some(Line::Panic("Attempted to kill init! exitcode=0x00000100".into())));
    }

    #[test]
    fn takes_the_error_message_as_the_reason() {
        let failed = step(
            "HUD-OUT a record recorded\nHUD-ERR a record INFO attached\nHUD-ERR a record hud-record: no rights\n\
             HUD-ERR a record help: run as root\n",
        );
        assert_eq!(failed.part("record").unwrap().reason(), "hud-record: no rights");
        assert_eq!(step("HUD-OUT a record recorded\n").part("record").unwrap().reason(), "recorded");
    }

    #[test]
    fn keeps_blanks_and_empty_lines_of_an_output() {
        let step = step("HUD-OUT a info   \"x\": 1,\r\nHUD-OUT a info \r\nHUD-ERR a info oh\nHUD-EXIT a info 0 3\n");
        let info = step.part("info").unwrap();
        assert_eq!(info.out, ["  \"x\": 1,", ""]);
        assert_eq!((info.reason(), info.code, info.duration_s), ("oh", Some(0), 3));
    }
}
