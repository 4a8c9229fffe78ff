//! Programs that seem to have a blocked worker but have none, and programs whose blocked worker is easily missed. Each
//! mode is one of them.
//!
//! Prints a line once its load runs, and ends at SIGTERM, SIGINT or after `--for`.

// An example is a crate that nobody links.
#![allow(missing_docs)]

#[path = "support/clock.rs"]
mod clock;
#[path = "support/program.rs"]
mod program;

use std::error::Error;
use std::hint::black_box;
use std::thread;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{LocalSet, block_in_place, spawn_blocking, spawn_local, yield_now};
use tokio::time::{MissedTickBehavior, interval, sleep};

use clock::thread_cpu_ns;

#[derive(Parser)]
#[command(about = "Programs in which something looks as if a task held its worker")]
struct Args {
    /// The program's load
    mode: Mode,
    /// Ends after this number of seconds [default: at SIGTERM or SIGINT]
    #[arg(long = "for", value_name = "SECS")]
    seconds: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// Blocking work that began before hud attaches and continues: asleep, computing, and asleep below large stack
    /// frames
    Pool,
    /// `block_in_place` around sleeps and around computing: another thread takes over the worker's core
    InPlace,
    /// A task that sleeps on its thread for 0.2 ms, 20 times in a row, 16 times a second
    ShortSleeps,
    /// Tasks that keep two workers busy for 70 % of the time, in polls of 1 ms
    ShortPolls,
    /// Two tasks that compute for 4 ms in each poll, without pause
    Shards,
    /// A task that computes in one endless poll
    Endless,
    /// A `LocalSet` on a thread of its own, with a task that sleeps there
    Local,
}

const WORKERS: usize = 2;

/// Keeps a CPU busy for this CPU time of the thread.
#[inline(never)]
fn compute(time: Duration) {
    let end = thread_cpu_ns() + u64::try_from(time.as_nanos()).unwrap_or(0);
    while thread_cpu_ns() < end {
        black_box((0..2_000_u64).fold(1, |sum: u64, n| black_box(sum.wrapping_mul(31) ^ n)));
    }
}

#[inline(never)]
fn pool_sleeper() {
    loop {
        thread::sleep(Duration::from_millis(60));
    }
}

#[inline(never)]
fn pool_computer() {
    loop {
        compute(Duration::from_millis(40));
        thread::sleep(Duration::from_millis(40));
    }
}

/// 256 KiB below the runtime's frames, where the blocking task's data lies.
#[inline(never)]
fn pool_deep_sleeper() {
    let mut room = [0_u8; 256 << 10];
    black_box(&mut room);
    loop {
        thread::sleep(Duration::from_millis(60));
        black_box(&mut room);
    }
}

async fn in_place_sleeper() {
    loop {
        block_in_place(|| thread::sleep(Duration::from_millis(30)));
        sleep(Duration::from_millis(20)).await;
    }
}

async fn in_place_computer() {
    loop {
        block_in_place(|| compute(Duration::from_millis(30)));
        sleep(Duration::from_millis(20)).await;
    }
}

async fn short_sleeper() {
    loop {
        for _ in 0..20 {
            thread::sleep(Duration::from_micros(200));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn short_poller() {
    let mut ticks = interval(Duration::from_millis(6));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        compute(Duration::from_millis(1));
    }
}

async fn shard() {
    loop {
        compute(Duration::from_millis(4));
        yield_now().await;
    }
}

async fn endless() {
    loop {
        compute(Duration::from_millis(1));
        // A future that is always ready: the poll continues.
        std::future::ready(()).await;
    }
}

/// A task that is almost always idle, as every program has one.
async fn bystander() {
    let mut ticks = interval(Duration::from_millis(5));
    loop {
        ticks.tick().await;
        black_box((0..1_000_u64).sum::<u64>());
    }
}

async fn local_sleeper() {
    loop {
        thread::sleep(Duration::from_millis(15));
        sleep(Duration::from_millis(15)).await;
    }
}

fn start(mode: Mode, runtime: &Runtime) -> std::io::Result<()> {
    let _inside = runtime.enter();
    runtime.spawn(bystander());
    match mode {
        Mode::Pool => {
            spawn_blocking(pool_sleeper);
            spawn_blocking(pool_computer);
            spawn_blocking(pool_deep_sleeper);
        }
        Mode::InPlace => {
            runtime.spawn(in_place_sleeper());
            runtime.spawn(in_place_computer());
        }
        Mode::ShortSleeps => drop(runtime.spawn(short_sleeper())),
        Mode::ShortPolls => (0..8).for_each(|_| drop(runtime.spawn(short_poller()))),
        Mode::Shards => (0..WORKERS).for_each(|_| drop(runtime.spawn(shard()))),
        Mode::Endless => drop(runtime.spawn(endless())),
        Mode::Local => {
            thread::Builder::new().name("local".to_owned()).spawn(|| -> std::io::Result<()> {
                let runtime = Builder::new_current_thread().enable_all().build()?;
                let tasks = LocalSet::new();
                runtime
                    .block_on(tasks.run_until(async { spawn_local(local_sleeper()).await }))
                    .map_err(std::io::Error::other)
            })?;
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut signals = program::signals(&[])?;
    program::end_after(&signals, args.seconds)?;
    let runtime = Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    start(args.mode, &runtime)?;
    // The load runs by then.
    thread::sleep(Duration::from_millis(100));
    program::say(format_args!("lookalikes pid={}", std::process::id()))?;
    signals.forever().next();
    // Does not wait for endless blocking work.
    runtime.shutdown_background();
    std::process::exit(0)
}
