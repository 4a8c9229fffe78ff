//! Programs that a recorder can slow down most. Each mode is one kind of load and counts its own units of work.
//!
//! SIGUSR1 prints the totals so far as one line of JSON; SIGTERM, SIGINT and `--for` print them and end the program:
//! `ops` (units of work), `cpu_ns` (CPU time of the process) and `mono_ns` (CLOCK_MONOTONIC).
//!
//! `cargo xtask bench harm` measures these programs with and without a recorder.

// An example is a crate that nobody links.
#![allow(missing_docs)]

#[path = "support/clock.rs"]
mod clock;
#[cfg(feature = "monomorphs")]
#[path = "support/monomorphs.rs"]
mod monomorphs;
#[path = "support/program.rs"]
mod program;
#[path = "support/switches.rs"]
mod switches;

use std::error::Error;
use std::future::poll_fn;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use signal_hook::consts::SIGUSR1;
use tokio::runtime::{self, Runtime};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use switches::Depth;

#[derive(Parser)]
#[command(about = "Programs that a recorder can slow down most")]
struct Args {
    /// The load
    mode: Mode,
    /// Worker threads of the runtime [default: one or one per CPU, by mode]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
    /// Threads of the mode `threads`
    #[arg(long, default_value_t = 2_000)]
    threads: usize,
    /// Ends after this number of seconds [default: at SIGTERM or SIGINT]
    #[arg(long = "for", value_name = "SECS")]
    seconds: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// A task that wakes itself in every poll, on one worker; unit: a poll
    SelfWake,
    /// Two tasks on one worker that wake each other by `tokio::sync::Notify`; unit: a wake
    NotifyPingPong,
    /// 20,000 tasks on one worker that each sleep 1 ms in a loop; unit: a tick
    Timers,
    /// 100,000 context switches per second by futex, inside polls; unit: a switch
    SwitchesFlat,
    /// The same, 100 stack frames below the poll
    #[value(name = "switches-100")]
    Switches100,
    /// The same, 500 stack frames below the poll
    #[value(name = "switches-500")]
    Switches500,
    /// The same, at a depth that changes between 20 and 80 frames from switch to switch
    SwitchesDeepChanging,
    /// Threads (2,000 by default) that each sleep 10 ms and compute for a moment, in a loop; unit: a wake
    Threads,
    /// 30,000 spawned tasks per second, each of which computes for about 10 µs; unit: a task
    Spawns,
    /// 1,000 task types, each polled without pause; unit: a poll
    #[cfg(feature = "monomorphs")]
    Monomorphs,
    /// 300 short-lived threads per second beside tasks that compute; unit: a piece of computing
    ThreadChurn,
    /// Clients, handlers and a short task per request, on all CPUs; unit: a request
    Saturated,
}

impl Mode {
    fn default_workers(self) -> usize {
        match self {
            // Timers: workers contend for the lock of the timer wheel, so the CPU time per tick varies.
            Self::SelfWake | Self::NotifyPingPong | Self::Timers => 1,
            // Each side of a pair blocks its worker.
            Self::SwitchesFlat | Self::Switches100 | Self::Switches500 | Self::SwitchesDeepChanging => {
                2 * switches::pairs()
            }
            Self::Threads | Self::Spawns | Self::ThreadChurn | Self::Saturated => cpus(),
            #[cfg(feature = "monomorphs")]
            Self::Monomorphs => cpus(),
        }
    }

    /// Starts the load, and returns while it runs.
    fn start(self, runtime: &Runtime, workers: usize, threads: usize) -> std::io::Result<()> {
        match self {
            Self::SelfWake => drop(runtime.spawn(self_wake())),
            Self::NotifyPingPong => {
                let ends = [Arc::new(Notify::new()), Arc::new(Notify::new())];
                ends[0].notify_one();
                for own in 0..2 {
                    runtime.spawn(wake_each_other(ends[own].clone(), ends[1 - own].clone()));
                }
            }
            Self::Timers => (0..20_000).for_each(|lane| drop(runtime.spawn(sleep_in_a_loop(lane)))),
            Self::SwitchesFlat => switches::start(runtime, Depth::Constant(0)),
            Self::Switches100 => switches::start(runtime, Depth::Constant(100)),
            Self::Switches500 => switches::start(runtime, Depth::Constant(500)),
            Self::SwitchesDeepChanging => switches::start(runtime, Depth::Changing),
            Self::Threads => {
                // hud-record requires a runtime with running workers.
                runtime.spawn(heartbeat());
                for lane in 0..threads {
                    let thread = thread::Builder::new().stack_size(64 << 10);
                    thread.spawn(move || sleep_and_compute(lane))?;
                }
            }
            Self::Spawns => drop(runtime.spawn(spawn_tasks())),
            #[cfg(feature = "monomorphs")]
            Self::Monomorphs => monomorphs::start(runtime),
            Self::ThreadChurn => {
                for lane in 0..workers {
                    runtime.spawn(compute_in_a_loop(lane));
                }
                runtime.spawn(churn_threads());
            }
            Self::Saturated => {
                for lane in 0..64 * workers {
                    let (requests, received) = mpsc::unbounded_channel();
                    runtime.spawn(handler(received));
                    runtime.spawn(client(lane, requests));
                }
            }
        }
        Ok(())
    }
}

/// A counter on a cache line of its own, so that counting causes no contention.
#[repr(align(128))]
struct Lane(AtomicU64);

/// Units of work done so far, counted separately by each task or thread.
static UNITS: [Lane; 64] = [const { Lane(AtomicU64::new(0)) }; 64];

/// Counts a unit of work of this task or thread.
fn count(lane: usize) {
    UNITS[lane % UNITS.len()].0.fetch_add(1, Relaxed);
}

/// Computes for about 2 ns per round, in registers: a sum in memory takes once or twice as long, depending on the CPU's
/// predictions.
#[inline(never)]
fn compute(seed: u64, rounds: u32) -> u64 {
    let mixed = |sum: u64, i: u32| (sum ^ (sum >> 29)).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(i.into());
    black_box((0..rounds).fold(seed, mixed))
}

fn cpus() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Ticks that do not catch up: a program that was slowed down must not be faster afterwards.
fn paced(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

async fn self_wake() {
    poll_fn(|cx| {
        count(0);
        cx.waker().wake_by_ref();
        Poll::<()>::Pending
    })
    .await
}

async fn wake_each_other(own: Arc<Notify>, other: Arc<Notify>) {
    loop {
        own.notified().await;
        count(0);
        other.notify_one();
    }
}

async fn sleep_in_a_loop(lane: usize) {
    loop {
        sleep(Duration::from_millis(1)).await;
        count(lane);
    }
}

async fn heartbeat() {
    loop {
        sleep(Duration::from_millis(10)).await;
    }
}

fn sleep_and_compute(lane: usize) {
    loop {
        thread::sleep(Duration::from_millis(10));
        compute(1, 200);
        count(lane);
    }
}

async fn spawn_tasks() {
    let mut ticks = paced(Duration::from_millis(5));
    loop {
        ticks.tick().await;
        for lane in 0..150 {
            tokio::spawn(short_task(lane));
        }
    }
}

async fn short_task(lane: usize) {
    compute(1, 5_000);
    count(lane);
}

async fn compute_in_a_loop(lane: usize) {
    loop {
        compute(1, 20_000);
        count(lane);
        yield_now().await;
    }
}

/// Two plain threads and one of the blocking pool every 10 ms, longer than the pool keeps an idle thread.
async fn churn_threads() {
    let mut ticks = paced(Duration::from_millis(10));
    let short_life = || {
        compute(1, 20_000);
        count(63);
    };
    loop {
        ticks.tick().await;
        for _ in 0..2 {
            thread::spawn(short_life);
        }
        spawn_blocking(short_life);
    }
}

type Request = oneshot::Sender<u64>;

async fn client(lane: usize, requests: mpsc::UnboundedSender<Request>) {
    loop {
        let (answer, answered) = oneshot::channel();
        if requests.send(answer).is_err() || answered.await.is_err() {
            break;
        }
        count(lane);
    }
}

async fn handler(mut requests: mpsc::UnboundedReceiver<Request>) {
    while let Some(answer) = requests.recv().await {
        tokio::spawn(answer_request(answer));
    }
}

async fn answer_request(answer: Request) {
    // The client lives as long as the process.
    let _ = answer.send(compute(1, 5_000));
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut signals = program::signals(&[SIGUSR1])?;
    program::end_after(&signals, args.seconds)?;
    let workers = args.workers.map_or(args.mode.default_workers(), usize::from);
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_keep_alive(Duration::from_millis(1))
        .enable_time()
        .build()?;
    args.mode.start(&runtime, workers, args.threads)?;
    program::say(format_args!("harm pid={} workers={workers}", std::process::id()))?;
    while signals.forever().next() == Some(SIGUSR1) {
        program::say(totals())?;
    }
    program::say(totals())?;
    // Does not wait for tasks that block or never return.
    runtime.shutdown_background();
    Ok(())
}

fn totals() -> serde_json::Value {
    serde_json::json!({
        "mono_ns": clock::mono_ns(),
        "cpu_ns": clock::process_cpu_ns(),
        "ops": UNITS.iter().map(|lane| lane.0.load(Relaxed)).sum::<u64>(),
    })
}
