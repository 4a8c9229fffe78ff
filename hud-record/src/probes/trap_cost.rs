//! Tests `uprobe_multi` links on a function of hud's own, and measures what a hit costs.

use std::{
    io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::{
    switch::Attach as _,
    uprobes::{Places, Programs, Uprobes},
};
use crate::kernel;

/// Tests the links on a function of this process.
///
/// Linux before 6.6 may accept the program and refuse the link. 6.6.0 to 6.6.34, 6.7, 6.8 and 6.9.0 to 6.9.4 take a
/// link's process id for a thread's and run the program for that thread alone (46ba0e49b642): the polls of all workers
/// would be missing silently. So the test needs a hit by a second thread.
pub(super) fn test(programs: &Programs) -> io::Result<Tested> {
    let without = median_call();
    let place = own_place("poll_enter", false)?;
    let probes = Uprobes::new(programs.clone(), vec![place], "/proc/self/exe", std::process::id())?;
    let mut tested = Tested { probes, without };
    tested.probes.attach()?;
    // 6.1 answers EINVAL, as it does for an instruction that it cannot probe. This function has none of those.
    if !tested.probes.refused().places.is_empty() {
        return Err(io::Error::other("the kernel refuses the link"));
    }
    let runs = || programs.runs("poll_enter");
    let before = runs()?;
    let hit = || (0..8).for_each(|_| measured());
    thread::Builder::new().name("hud-self-test".into()).spawn(hit)?.join().map_err(|_| io::Error::other("panic"))?;
    let by_another_thread = runs()?;
    measured();
    // If the kernel counts no runs at all, its version decides.
    let is_counted = runs()? > before;
    let is_seen = if is_counted { by_another_thread >= before + 8 } else { !filters_by_thread(&kernel::release()) };
    if is_seen { Ok(tested) } else { Err(io::Error::other("links see only one thread of a process")) }
}

/// A program's cost of hitting a probe, without the kernel programs' run time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrapCost {
    /// The entry of a function.
    pub(crate) entry: Duration,
    /// The entry and the return.
    pub(crate) entry_and_return: Duration,
}

/// Probes on a function of this process, attached by a test. Other threads detach them when this is dropped.
pub(crate) struct Tested {
    probes: Uprobes,
    /// The duration of a call without probes.
    without: Duration,
}

impl Tested {
    /// Measures with the real programs, which return at once as this is not their target.
    pub(crate) fn trap_cost(mut self) -> io::Result<TrapCost> {
        let entry = median_call().saturating_sub(self.without);
        self.probes.add(own_place("poll_return", true)?);
        self.probes.attach()?;
        Ok(TrapCost { entry, entry_and_return: median_call().saturating_sub(self.without) })
    }
}

impl Drop for Tested {
    /// The function is not called any more, so nothing waits for this: a grace period needs CPU time of the kernel's
    /// threads. Beside 2,000 busy threads, three of them took 4.6 s of an attach.
    fn drop(&mut self) {
        drop(self.probes.release());
    }
}

/// The duration of a call of [`measured`]. Programs do work between two hits, which evicts the kernel's path from the
/// first-level caches: a sixth more than hits in a loop.
fn median_call() -> Duration {
    const CALLS: usize = 400;
    let mut memory = vec![0_u8; 128 << 10];
    let mut calls: Vec<Duration> = (0..CALLS)
        .map(|_| {
            memory.iter_mut().step_by(64).for_each(|byte| *byte = byte.wrapping_add(1));
            let start = Instant::now();
            measured();
            start.elapsed()
        })
        .collect();
    let (_, median, _) = calls.select_nth_unstable(CALLS / 2);
    *median
}

/// The place of [`measured`], to test probes on.
fn own_place(program: &'static str, is_return: bool) -> io::Result<Places> {
    let address = measured as *const () as u64;
    let maps = crate::inspect::mappings(Path::new("/proc/self/maps"))?;
    let place = maps
        .iter()
        .find(|m| (m.start..m.end).contains(&address))
        .map(|m| address - m.start + m.offset)
        .ok_or_else(|| io::Error::other("hud's own code is not mapped"))?;
    Ok(Places { program, is_return, at: vec![(place, 0)] })
}

/// Whether a kernel has `uprobe_multi` links (Linux 6.6) that see every thread of a process, by its release.
pub(crate) fn has_probe_links(release: &str) -> bool {
    kernel::version(release) >= (6, 6, 0) && !filters_by_thread(release)
}

/// Whether this kernel's `uprobe_multi` links see one thread only, by its release.
fn filters_by_thread(release: &str) -> bool {
    match kernel::version(release) {
        (6, 6, patch) => patch < 35,
        (6, 7 | 8, _) => true,
        (6, 9, patch) => patch < 5,
        _ => false,
    }
}

/// Begins with a jump, as `raw::poll` does: an instruction that the kernel emulates.
#[unsafe(naked)]
extern "C" fn measured() {
    core::arch::naked_asm!("jmp 2f", "2:", "ret")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_filter_by_thread_are_known_by_their_release() {
        for (release, expected) in [
            ("6.6.34-amd64", true),
            ("6.6.35", false),
            ("6.8.0-45-generic", true),
            ("6.9.4", true),
            ("6.9.5", false),
            ("6.10.1", false),
            ("6.1.176", false),
            ("7.3.4+deb13-cloud-amd64", false),
            ("", false),
        ] {
            assert_eq!(filters_by_thread(release), expected, "{release}");
        }
    }
}
