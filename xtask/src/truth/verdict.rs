//! Compares findings with an account.

use super::account::{Account, Figures, Finding, Names, Site};
use super::builds::Build;

/// The task that every program has and that does nothing wrong.
const INNOCENT: &str = "answer_health_probe";
/// Rules whose type of task is the one that waits.
const OF_WAITING: [&str; 4] = ["wake_delay", "cpu_starved", "lock_owner_asleep", "lock_owner_busy"];

/// How much of a fault was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The rule and the code.
    Found,
    /// One of them.
    InPart,
    Missed,
    /// Nothing is wrong with the program.
    Healthy,
}

/// How the code was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Right,
    Wrong,
    Missing,
    /// The build has no names, or the fault has no code.
    Nothing,
}

/// The result of a comparison.
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    /// The finding that reports the fault.
    pub(super) finding: Option<Finding>,
    pub(super) named: Named,
    /// Whether its line is right; `None` without a line.
    pub(super) is_line_right: Option<bool>,
    /// The program's own figures in the finding's time range.
    pub(super) own: Figures,
    /// Findings about something that is not wrong.
    pub(super) alarms: Vec<Finding>,
}

pub(super) fn of(account: &Account, found: &[Finding], build: Build, is_loaded: bool) -> Verdict {
    let has = |rules: &[String], rule: &str| rules.iter().any(|of| of == rule);
    let is_alarm = |f: &&Finding| {
        let is_true = has(&account.rules, &f.rule) || has(&account.also, &f.rule);
        let is_of_load = is_loaded && f.rule == "cpu_starved";
        !(is_true || is_of_load) || accuses_innocent(f)
    };
    let rank = |f: &&Finding| {
        let is_rule = has(&account.rules, &f.rule);
        (is_rule, named(account, f, build) == Named::Right)
    };
    let about = |f: &&Finding| !account.is_healthy() && !is_alarm(f);
    // The first of equals: findings are sorted by severity.
    let best = found.iter().filter(about).rev().max_by_key(rank);
    let name = best.map_or(Named::Missing, |f| named(account, f, build));
    let is_named = matches!(name, Named::Right | Named::Nothing);
    let outcome = match best {
        _ if account.is_healthy() => Outcome::Healthy,
        Some(f) if has(&account.rules, &f.rule) && is_named => Outcome::Found,
        Some(f) if has(&account.rules, &f.rule) || name == Named::Right => Outcome::InPart,
        _ => Outcome::Missed,
    };
    let best = best.filter(|_| outcome != Outcome::Missed).cloned();
    Verdict {
        outcome,
        named: if outcome == Outcome::Found || outcome == Outcome::InPart { name } else { Named::Nothing },
        is_line_right: best
            .as_ref()
            .filter(|_| build.has_lines() && name == Named::Right)
            .and_then(|f| line(account, f)),
        own: best.as_ref().map(|f| account.within(f.since, f.until)).unwrap_or_default(),
        alarms: found.iter().filter(is_alarm).cloned().collect(),
        finding: best,
    }
}

fn accuses_innocent(f: &Finding) -> bool {
    let names = |of: &Option<String>| of.as_ref().is_some_and(|name| name.contains(INNOCENT));
    !OF_WAITING.contains(&f.rule.as_str()) && (names(&f.function) || names(&f.task_type))
}

fn named(account: &Account, f: &Finding, build: Build) -> Named {
    let is = |name: &Option<String>| name.as_ref().is_some_and(|name| account.sites.iter().any(|s| is_same(s, name)));
    // A waiting task's type is not the culprit's.
    let by_type = account.names == Names::Task && is(&f.task_type);
    match account.names {
        Names::Nothing => Named::Nothing,
        _ if is(&f.function) || by_type => Named::Right,
        _ if !build.has_names() => Named::Nothing,
        Names::Function if f.function.is_some() => Named::Wrong,
        Names::Task if f.function.is_some() || f.task_type.is_some() => Named::Wrong,
        _ => Named::Missing,
    }
}

/// Lines from the head of a function to the cause in it, where a future is named by its place.
const HEAD: i64 = 5;

/// Whether a name is that of a place's function: the last two parts of both, without what compilers add; or `future at
/// FILE:LINE` with the line of the function's head, as without type information.
fn is_same(site: &Site, name: &str) -> bool {
    if let Some((file, line)) = name.strip_prefix("future at ").and_then(|place| place.rsplit_once(':')) {
        let is_file = site.file.ends_with(file) || file.ends_with(&site.file);
        let line = line.parse::<i64>().ok();
        return is_file && line.is_some_and(|line| (0..=HEAD).contains(&(site.line - line)));
    }
    let parts = |name: &str| -> Vec<String> {
        let plain = without_generics(name);
        let all: Vec<String> = plain.split("::").filter(|part| !is_added(part)).map(str::to_owned).collect();
        all.iter().rev().take(2).cloned().collect()
    };
    let (own, of) = (parts(&site.function), parts(name));
    !of.is_empty() && own.iter().zip(&of).all(|(a, b)| a == b)
}

/// `{{closure}}`, `{async_fn#0}` and the like.
fn is_added(part: &str) -> bool {
    part.is_empty() || part.starts_with('{')
}

/// A name without its generic arguments.
fn without_generics(name: &str) -> String {
    let mut depth = 0_usize;
    let mut plain = String::new();
    for c in name.chars() {
        match c {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            _ if depth == 0 => plain.push(c),
            _ => {}
        }
    }
    plain
}

fn line(account: &Account, f: &Finding) -> Option<bool> {
    let (file, line) = (f.file.as_ref()?, f.line?);
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    Some(account.sites.iter().any(|site| site.line == line && name(&site.file) == name(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_names_without_what_compilers_add() {
        let site = Site { function: "faults::blocking::write_log".into(), file: "src/log.rs".into(), line: 12 };
        for name in [
            "faults::blocking::write_log",
            "faults::blocking::write_log::{async_fn#0}",
            "write_log",
            "future at src/log.rs:10",
        ] {
            assert!(is_same(&site, name), "{name}");
        }
        for name in ["faults::blocking::write_logs", "other::write_log", "", "{closure#0}", "future at other.rs:10"] {
            assert!(!is_same(&site, name), "{name}");
        }
    }
}
