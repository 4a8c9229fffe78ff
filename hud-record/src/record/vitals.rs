//! Once a second: how the target is, and what hud itself cost.

use std::fs;

use hud_common::session::{Columns as _, OverheadColumns, OverheadRow, ProcessColumns, ProcessRow};

use super::writer::BatchSender;
use crate::{kernel, probes::Probes};

/// Counts that only grow, as they were a second ago.
pub(super) struct Vitals {
    pid: u32,
    target: Option<Usage>,
    own_cpu: u64,
    probe_ns: Option<u64>,
    ring_bytes: u64,
    events: u64,
    process: ProcessColumns,
    overhead: OverheadColumns,
}

/// By `/proc/PID/stat` (proc(5)): times in ns, memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Usage {
    user: i64,
    system: i64,
    threads: i32,
    rss: i64,
}

impl Vitals {
    pub(super) fn new(pid: u32, probes: &Probes) -> Self {
        Vitals {
            pid,
            target: Usage::of(&pid.to_string()),
            own_cpu: kernel::own_cpu_time(),
            probe_ns: probes.run_time(),
            ring_bytes: 0,
            events: 0,
            process: ProcessColumns::default(),
            overhead: OverheadColumns::default(),
        }
    }

    /// Takes stock at `ts`; `ring_bytes` and `events` are the drain's totals.
    pub(super) fn take(&mut self, ts: i64, probes: &Probes, ring_bytes: u64, events: u64, out: &BatchSender) {
        if let Some(now) = Usage::of(&self.pid.to_string()) {
            let before = self.target.unwrap_or(now);
            self.process.push(ProcessRow {
                ts,
                cpu_user: now.user - before.user,
                cpu_sys: now.system - before.system,
                rss: now.rss,
                threads: now.threads,
                fds: open_files(self.pid),
            });
            self.target = Some(now);
        }
        let own_cpu = kernel::own_cpu_time();
        let probe_ns = probes.run_time();
        self.overhead.push(OverheadRow {
            ts,
            probe_ns: probe_ns.zip(self.probe_ns).map(|(now, before)| grown(now, before)),
            recorder_cpu: grown(own_cpu, self.own_cpu),
            recorder_rss: Usage::of("self").map_or(0, |u| u.rss),
            ring_bytes: grown(ring_bytes, self.ring_bytes),
            events: grown(events, self.events),
        });
        (self.own_cpu, self.probe_ns, self.ring_bytes, self.events) = (own_cpu, probe_ns, ring_bytes, events);
        out.burst().add(&mut self.process).add(&mut self.overhead);
    }
}

/// How many files a process has open, by the size of the folder that lists them: since Linux 6.2 it is their number,
/// before it is 0. Listing a hundred thousand of them would hold up the drain.
fn open_files(pid: u32) -> Option<i32> {
    let size = fs::metadata(format!("/proc/{pid}/fd")).ok()?.len();
    i32::try_from(size).ok().filter(|n| *n > 0)
}

fn grown(now: u64, before: u64) -> i64 {
    i64::try_from(now.saturating_sub(before)).unwrap_or(i64::MAX)
}

impl Usage {
    fn of(pid: &str) -> Option<Self> {
        Self::parse(&crate::target::read_text(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The name, in parentheses, may hold anything: fields count from the last parenthesis.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
        let tick = 1_000_000_000 / i64::try_from(rustix::param::clock_ticks_per_second()).ok()?;
        Some(Usage {
            user: field(14)?.checked_mul(tick)?,
            system: field(15)?.checked_mul(tick)?,
            threads: i32::try_from(field(20)?).ok()?,
            rss: field(24)?.checked_mul(i64::try_from(rustix::param::page_size()).ok()?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_are_counted_where_the_kernel_tells() {
        let held: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        assert!(open_files(std::process::id()).is_none_or(|n| n >= 50));
        drop(held);
    }

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_fields() {
        let stat =
            "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 6 0 100 1000000 512 18446744073709551615";
        let usage = Usage::parse(stat).unwrap();
        assert_eq!((usage.user, usage.system, usage.threads), (2_500_000_000, 500_000_000, 6));
        assert_eq!(usage.rss, 512 * 4096);
        assert_eq!(Usage::parse("nonsense"), None);
    }
}
