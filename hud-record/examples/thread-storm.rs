//! Thousands of short-lived threads: plain ones, and those of Tokio's blocking pool, whose threads here exit a
//! millisecond after their work.
//!
//! The storm begins at SIGUSR1 (`--now`: at once). When it is over, the program prints the number of threads of each
//! kind, and waits for a signal to end. `--log` then writes each thread as CSV: `kind,mono_ns,of,by,detail` with the
//! kind `began` or `ended`, the thread's id under `of`, and `plain`, `pool` or `worker` as detail.

// An example is a crate that nobody links.
#![allow(missing_docs)]

#[path = "support/clock.rs"]
mod clock;
#[path = "support/facts.rs"]
mod facts;
#[path = "support/program.rs"]
mod program;

use std::error::Error;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use clap::Parser;
use signal_hook::consts::SIGUSR1;
use tokio::runtime;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use clock::mono_ns;

#[derive(Parser)]
#[command(about = "Threads that come and go by the thousand")]
struct Args {
    /// Total number of plain threads
    #[arg(long, default_value_t = 2000)]
    threads: u32,
    /// Plain threads at a time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    width: u32,
    /// Bursts of work for the blocking pool, each of 16 pieces
    #[arg(long, default_value_t = 100)]
    bursts: u32,
    /// Begins at once, not at SIGUSR1
    #[arg(long)]
    now: bool,
    /// Writes each thread's begin and end to this file
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

static BEGAN: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static STORMING: AtomicBool = AtomicBool::new(false);

fn tid() -> u64 {
    rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs().into()
}

/// Runs on a CPU, sleeps, and runs again.
fn short_life() {
    black_box((0..20_000u64).sum::<u64>());
    thread::sleep(Duration::from_micros(500));
    black_box((0..20_000u64).sum::<u64>());
}

fn plain() {
    facts::note("began", mono_ns(), tid(), None, "plain");
    BEGAN[0].fetch_add(1, Relaxed);
    short_life();
    facts::note("ended", mono_ns(), tid(), None, "plain");
}

/// Workers start before the storm; during it, only the pool grows.
fn kind() -> &'static str {
    if STORMING.load(Relaxed) { "pool" } else { "worker" }
}

async fn pool_bursts(bursts: u32) {
    for _ in 0..bursts {
        let work: Vec<_> = (0..16).map(|_| spawn_blocking(short_life)).collect();
        for piece in work {
            if let Err(error) = piece.await {
                eprintln!("thread-storm: {error}");
            }
        }
        // Longer than the pool keeps an idle thread.
        sleep(Duration::from_millis(5)).await;
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut signals = program::signals(&[SIGUSR1])?;
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_keep_alive(Duration::from_millis(1))
        .on_thread_start(|| {
            facts::note("began", mono_ns(), tid(), None, kind());
            if STORMING.load(Relaxed) {
                BEGAN[1].fetch_add(1, Relaxed);
            }
        })
        .on_thread_stop(|| facts::note("ended", mono_ns(), tid(), None, kind()))
        .enable_all()
        .build()?;
    // Both workers run once each has run a task; one task could leave one of them asleep.
    let up = std::sync::Arc::new(std::sync::Barrier::new(2));
    let warm: Vec<_> = (0..2)
        .map(|_| {
            let up = up.clone();
            runtime.spawn(async move {
                up.wait();
            })
        })
        .collect();
    for task in warm {
        runtime.block_on(task)?;
    }
    program::say(format_args!("thread-storm pid={}", std::process::id()))?;
    if !args.now && !program::received(&mut signals, SIGUSR1) {
        return Ok(());
    }

    STORMING.store(true, Relaxed);
    let pool = runtime.spawn(pool_bursts(args.bursts));
    let mut left = args.threads;
    while left > 0 {
        let width = left.min(args.width);
        let batch: Vec<_> = (0..width).map(|_| thread::spawn(plain)).collect();
        for thread in batch {
            thread.join().map_err(|_| "a thread panicked")?;
        }
        left -= width;
    }
    runtime.block_on(pool)?;
    // The pool's last threads exit.
    thread::sleep(Duration::from_millis(50));
    if let Some(log) = &args.log {
        facts::write(log)?;
    }
    let [plain, pool] = [&BEGAN[0], &BEGAN[1]].map(|n| n.load(Relaxed));
    program::say(serde_json::json!({ "plain": plain, "pool": pool, "workers": 2 }))?;
    signals.forever().next();
    Ok(())
}
