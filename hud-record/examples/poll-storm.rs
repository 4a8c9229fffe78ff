//! Polls as fast as Tokio can: tasks that only yield. The worst case for a profiler that probes polls.
//!
//! Prints the rate each second, and the total at the end (SIGTERM, SIGINT or `--duration`).

// An example is a crate that nobody links.
#![allow(missing_docs)]

use std::error::Error;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::runtime;
use tokio::task::yield_now;

#[derive(Parser)]
#[command(about = "Polls as fast as Tokio can")]
struct Args {
    /// Worker threads of the runtime
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    workers: u16,
    /// Tasks that yield
    #[arg(long, default_value_t = 8)]
    tasks: usize,
    /// Ends after this number of seconds [default: at SIGTERM or SIGINT]
    #[arg(long, value_name = "SECS")]
    duration: Option<u64>,
}

/// A counter on a cache line of its own, so that counting causes no contention.
#[repr(align(128))]
#[derive(Default)]
struct Counter(AtomicU64);

static STOP: AtomicBool = AtomicBool::new(false);

async fn yielder(polls: Arc<[Counter]>, own: usize) {
    while !STOP.load(Relaxed) {
        polls[own].0.fetch_add(1, Relaxed);
        yield_now().await;
    }
    // The poll that read the flag.
    polls[own].0.fetch_add(1, Relaxed);
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let (stop, stopped) = mpsc::channel::<()>();
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        // Dropping the sender ends the tasks.
        let _stop = stop;
        signals.forever().next();
    })?;

    let runtime = runtime::Builder::new_multi_thread().worker_threads(args.workers.into()).build()?;
    let counters: Arc<[Counter]> = (0..args.tasks).map(|_| Counter::default()).collect();
    let start = Instant::now();
    let tasks: Vec<_> = (0..args.tasks).map(|own| runtime.spawn(yielder(counters.clone(), own))).collect();
    say(format_args!("poll-storm pid={} workers={} tasks={}", std::process::id(), args.workers, args.tasks))?;

    let total = || counters.iter().map(|counter| counter.0.load(Relaxed)).sum::<u64>();
    let mut last = (start, 0);
    loop {
        let left =
            args.duration.map_or(Duration::MAX, |secs| Duration::from_secs(secs).saturating_sub(start.elapsed()));
        let wait = stopped.recv_timeout(left.min(Duration::from_secs(1)));
        let now = (Instant::now(), total());
        say(format_args!("{:.0} polls/s", rate(now.1 - last.1, now.0 - last.0)))?;
        last = now;
        if left <= Duration::from_secs(1) || wait != Err(mpsc::RecvTimeoutError::Timeout) {
            break;
        }
    }

    STOP.store(true, Relaxed);
    for task in tasks {
        runtime.block_on(task)?;
    }
    say(format_args!("total {} polls in {:.3} s", total(), start.elapsed().as_secs_f64()))?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a rate to look at")]
fn rate(count: u64, over: Duration) -> f64 {
    count as f64 / over.as_secs_f64()
}

fn say(line: impl std::fmt::Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
