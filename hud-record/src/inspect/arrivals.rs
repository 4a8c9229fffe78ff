//! Detects processes soon after they start, without rights and without reading all of /proc.
//!
//! `/proc/loadavg` names the newest process id of this pid namespace. Reading it takes microseconds, so it can be read
//! often; only processes with newer ids than before are looked at, again and again for a second, as a process forks before
//! it executes its program.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::process::{is_named, read_text};

/// How long a process is looked at for the program that it executes.
const YOUNG: Duration = Duration::from_secs(1);
/// Processes that are looked at. If more start at once, the caller's search of all processes finds the one.
const MOST: usize = 512;

/// New processes.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    newest: Option<u32>,
    young: VecDeque<(u32, Instant)>,
}

impl Arrivals {
    /// Whether a process that started recently has this name.
    pub(crate) fn has(&mut self, name: &str) -> bool {
        let newest = read_text("/proc/loadavg").ok().and_then(|text| newest_in(&text));
        if let Some(newest) = newest {
            self.add(newest, Instant::now());
        }
        self.young.iter().any(|&(pid, _)| is_named(pid, name))
    }

    /// Notes processes up to the newest one. Ids of threads are among them, and harmless.
    fn add(&mut self, newest: u32, now: Instant) {
        let known = self.newest.replace(newest).unwrap_or(newest);
        // Ids begin again at the end; the next ones are noted.
        self.young.extend((known.saturating_add(1)..=newest).take(MOST).map(|pid| (pid, now)));
        while self.young.len() > MOST || self.young.front().is_some_and(|(_, since)| now - *since > YOUNG) {
            self.young.pop_front();
        }
    }
}

/// The last field of `/proc/loadavg`.
fn newest_in(loadavg: &str) -> Option<u32> {
    loadavg.split_whitespace().nth(4)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn new_processes_are_looked_at_for_a_second() {
        let mut arrivals = Arrivals::default();
        let (now, pids) = (Instant::now(), |of: &Arrivals| of.young.iter().map(|(pid, _)| *pid).collect::<Vec<_>>());
        arrivals.add(100, now);
        assert!(arrivals.young.is_empty());
        arrivals.add(102, now);
        assert_eq!(pids(&arrivals), [101, 102]);
        arrivals.add(103, now + YOUNG / 2);
        arrivals.add(103, now + YOUNG * 5 / 4);
        assert_eq!(pids(&arrivals), [103]);
        // The ids begin again.
        arrivals.add(2, now + YOUNG * 5 / 4);
        arrivals.add(3, now + YOUNG * 5 / 4);
        assert_eq!(pids(&arrivals), [103, 3]);
        arrivals.add(u32::MAX, now + YOUNG * 5 / 4);
        assert_eq!(arrivals.young.len(), MOST);
    }

    #[test]
    fn a_process_that_starts_is_detected() {
        let mut arrivals = Arrivals::default();
        assert!(!arrivals.has("sleep-of-hud"));
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("sleep-of-hud");
        std::fs::copy("/bin/sleep", &program).unwrap();
        let mut child = std::process::Command::new(&program).arg("60").spawn().unwrap();
        let detected = arrivals.has("sleep-of-hud");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(detected);
        assert!(!arrivals.has("sleep-of-hud"));
    }
}
