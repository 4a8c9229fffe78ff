//! Once a second: figures of the target, and hud's own cost.

use std::{
    fs,
    path::{Component, Path},
};

use hud_common::session::{Columns as _, OverheadColumns, OverheadRow, ProcessColumns, ProcessRow};

use super::queue::BatchSender;
use crate::{kernel, probes::Probes};

/// Counters as of a second ago.
pub(super) struct Vitals {
    pid: u32,
    target: Option<Usage>,
    machine: Option<i64>,
    throttled: Option<i64>,
    own_cpu: u64,
    probe_ns: Option<u64>,
    ring_bytes: u64,
    events: u64,
    process: ProcessColumns,
    overhead: OverheadColumns,
}

/// From `/proc/PID/stat` (proc(5)): times in ns, memory in bytes.
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
            machine: machine_cpu_time(),
            throttled: throttled(pid),
            own_cpu: kernel::own_cpu_time(),
            probe_ns: probes.run_time(),
            ring_bytes: 0,
            events: 0,
            process: ProcessColumns::default(),
            overhead: OverheadColumns::default(),
        }
    }

    /// Writes the figures as of `ts`; `ring_bytes` and `events` are the drain's totals.
    pub(super) fn take(&mut self, ts: i64, probes: &Probes, ring_bytes: u64, events: u64, out: &BatchSender) {
        if let Some(now) = Usage::of(&self.pid.to_string()) {
            let before = self.target.unwrap_or(now);
            let (cpu_user, cpu_sys) = (now.user - before.user, now.system - before.system);
            let (machine, throttled) = (machine_cpu_time(), throttled(self.pid));
            let since =
                |now: Option<i64>, before: Option<i64>| now.zip(before).map(|(now, before)| (now - before).max(0));
            self.process.push(ProcessRow {
                ts,
                cpu_user,
                cpu_sys,
                rss: now.rss,
                threads: now.threads,
                fds: open_files(self.pid),
                cpu_others: since(machine, self.machine).map(|all| (all - cpu_user - cpu_sys).max(0)),
                throttled: since(throttled, self.throttled),
            });
            (self.target, self.machine, self.throttled) = (Some(now), machine, throttled);
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

/// Open files of a process, by the size of the folder that lists them: since Linux 6.2 it is their number, before it is
/// 0. Listing a hundred thousand of them would delay the drain.
fn open_files(pid: u32) -> Option<i32> {
    let size = fs::metadata(format!("/proc/{pid}/fd")).ok()?.len();
    i32::try_from(size).ok().filter(|n| *n > 0)
}

/// CPU time that all processes of the machine have used (ns), and steal time, which its host gave to other guests: the
/// first line of `/proc/stat` (proc(5)).
fn machine_cpu_time() -> Option<i64> {
    let stat = crate::inspect::read_text("/proc/stat").ok()?;
    let times: Vec<i64> = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().flat_map(str::parse).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = times[..] else { return None };
    let ticks = [user, nice, system, irq, softirq, steal].iter().try_fold(0_i64, |sum, of| sum.checked_add(*of))?;
    ticks.checked_mul(tick()?)
}

/// How long CPU limits have throttled the threads of a process's control group (ns, summed over CPUs): `throttled_usec`
/// of `cpu.stat`, of the group and its ancestors (Documentation/admin-guide/cgroup-v2.rst). `None` if no group has it.
fn throttled(pid: u32) -> Option<i64> {
    const MOST_GROUPS: usize = 32;
    let groups = crate::inspect::read_text(format!("/proc/{pid}/cgroup")).ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let group = Path::new(group);
    // A group outside of hud's own namespace.
    if group.components().any(|part| !matches!(part, Component::Normal(_))) {
        return None;
    }
    let of = |group: &Path| {
        let stat = crate::inspect::read_text(Path::new("/sys/fs/cgroup").join(group).join("cpu.stat")).ok()?;
        let micros: i64 = stat.lines().find_map(|line| line.strip_prefix("throttled_usec "))?.trim().parse().ok()?;
        micros.checked_mul(1000)
    };
    group.ancestors().take(MOST_GROUPS).filter_map(of).reduce(i64::saturating_add)
}

/// A clock tick (ns).
fn tick() -> Option<i64> {
    Some(1_000_000_000 / i64::try_from(rustix::param::clock_ticks_per_second()).ok()?)
}

fn grown(now: u64, before: u64) -> i64 {
    i64::try_from(now.saturating_sub(before)).unwrap_or(i64::MAX)
}

impl Usage {
    fn of(pid: &str) -> Option<Self> {
        Self::parse(&crate::inspect::read_text(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The name, in parentheses, may contain anything: fields count from the last parenthesis.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
        let tick = tick()?;
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
    fn counts_open_files_if_the_kernel_reports_them() {
        let held: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        assert!(open_files(std::process::id()).is_none_or(|n| n >= 50));
        drop(held);
    }

    #[test]
    fn the_machine_uses_cpu_time() {
        let before = machine_cpu_time().unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_millis(50);
        while std::time::Instant::now() < until {}
        assert!(machine_cpu_time().unwrap() > before);
        // Whether there is a limit depends on the machine; a process that does not exist has none.
        assert_eq!(throttled(u32::MAX), None);
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
