//! Context switches inside polls: pairs of tasks that block their workers in turns, at a chosen stack depth.

use std::hint::black_box;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};

use crate::{count, cpus, paced};

/// Switches per second of all pairs, at most.
const SWITCHES_PER_SECOND: usize = 100_000;
/// Each poll is one burst; between bursts the task is idle.
const BURST_PERIOD: Duration = Duration::from_millis(10);
const BURSTS_PER_SECOND: usize = 100;

/// Stack frames between the poll and the wait.
#[derive(Clone, Copy)]
pub(crate) enum Depth {
    Constant(u32),
    /// From 20 to 80, changing with each switch.
    Changing,
}

/// Four busy threads for each CPU, so that a switch is rarely to the idle thread.
pub(crate) fn pairs() -> usize {
    2 * cpus()
}

/// Spawns both sides of each pair. The runtime must have a worker for each side.
pub(crate) fn start(runtime: &Runtime, depth: Depth) {
    for number in 0..pairs() {
        let pair = Arc::new(Pair::default());
        for side in [Side::Left, Side::Right] {
            runtime.spawn(take_turns(pair.clone(), side, 2 * number + usize::from(side == Side::Right), depth));
        }
    }
    let handle = runtime.handle().clone();
    std::thread::spawn(move || keep_driver_attended(&handle));
}

/// A worker that leaves the driver's wait for a task that blocks notifies no other worker, so the timer of the task that would
/// wake it never fires: the program has stopped within its first second, once in some thousand bursts. An empty task from
/// outside wakes a worker, which goes back to wait in the driver.
fn keep_driver_attended(runtime: &Handle) {
    loop {
        std::thread::sleep(10 * BURST_PERIOD);
        drop(runtime.spawn(async {}));
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Side {
    #[default]
    Left,
    Right,
}

/// The side whose turn it is.
#[derive(Default)]
struct Pair {
    turn: Mutex<Side>,
    changed: Condvar,
}

impl Pair {
    /// Blocks until it is this side's turn, and passes the turn to the other: one context switch.
    fn hand_over(&self, own: Side) {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut turn = self.changed.wait_while(turn, |turn| *turn != own).unwrap_or_else(PoisonError::into_inner);
        *turn = if own == Side::Left { Side::Right } else { Side::Left };
        // The other side would otherwise wake into a locked mutex.
        drop(turn);
        self.changed.notify_one();
    }
}

async fn take_turns(pair: Arc<Pair>, side: Side, lane: usize, depth: Depth) {
    let burst = SWITCHES_PER_SECOND / BURSTS_PER_SECOND / (2 * pairs());
    let mut hand_over = || {
        pair.hand_over(side);
        count(lane);
    };
    let mut ticks = paced(BURST_PERIOD);
    let mut depths = (0..=60).map(|step| 20 + step * 37 % 61).cycle();
    loop {
        ticks.tick().await;
        match depth {
            Depth::Constant(depth) => descend(depth, &mut || (0..burst).for_each(|_| hand_over())),
            Depth::Changing => depths.by_ref().take(burst).for_each(|depth| descend(depth, &mut hand_over)),
        }
    }
}

/// Calls `innermost` below this number of further frames, each of about 80 bytes.
#[inline(never)]
fn descend(depth: u32, innermost: &mut dyn FnMut()) {
    let locals = black_box([depth; 8]);
    match depth.checked_sub(1) {
        Some(depth) => descend(depth, innermost),
        None => innermost(),
    }
    // Alive after the call: it can be neither a tail call nor a loop.
    black_box(&locals);
}
