//! A Tokio program with well-behaved tasks and culprits of every kind, for tests and the demo.
//!
//! It measures itself. SIGUSR1 prints the measurements so far as one line of JSON; SIGTERM, SIGINT and the end of
//! `--duration` print the final ones and end the program. `--poll-log` also writes every poll, for tests that select
//! those of a window. The report's `types` have the names of the async functions below, and the type of each spawned
//! future is that function's own (`test_async_app::cpu_hog::{async_fn_env#0}`), by which hud names a task.

// An example is a crate that nobody links.
#![allow(missing_docs)]

#[path = "support/clock.rs"]
mod clock;
#[path = "support/truth.rs"]
mod truth;

use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use tokio::runtime::{self, Handle};
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::sleep;

use clock::thread_cpu_ns;
use truth::{Series, measured, timed};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const GOOD_CITIZENS: usize = 16;
const LOCK_CONTENDERS: usize = 4;
const BURN: Duration = ms(20);
const SLEEP: Duration = ms(15);

static GOOD_CITIZEN: Series = Series::new("good_citizen");
static YIELDING_WORKER: Series = Series::new("yielding_worker");
static CPU_HOG: Series = Series::new("cpu_hog");
static BLOCKING_SLEEPER: Series = Series::new("blocking_sleeper");
static LOCK_CONTENDER: Series = Series::new("lock_contender");
static FILE_READER: Series = Series::new("file_reader");
static POOL_USER: Series = Series::new("pool_user");
static POOL_WORK: Series = Series::new("pool_work");
static SHORT_LIVED_SPAWNER: Series = Series::new("short_lived_spawner");
static SHORT_LIVED: Series = Series::new("short_lived");
static TYPES: [&Series; 10] = [
    &GOOD_CITIZEN,
    &YIELDING_WORKER,
    &CPU_HOG,
    &BLOCKING_SLEEPER,
    &LOCK_CONTENDER,
    &FILE_READER,
    &POOL_USER,
    &POOL_WORK,
    &SHORT_LIVED_SPAWNER,
    &SHORT_LIVED,
];

static BURNS: Series = Series::new("burn");
static SLEEPS: Series = Series::new("sleep");
static LOCK_WAITS: Series = Series::new("lock_wait");
static FILE_READS: Series = Series::new("file_read");
static ACTIVITIES: [&Series; 4] = [&BURNS, &SLEEPS, &LOCK_WAITS, &FILE_READS];

// The well-behaved.

async fn good_citizen() {
    measured(&GOOD_CITIZEN, async {
        loop {
            sleep(ms(5)).await;
            black_box((0..100u64).sum::<u64>());
        }
    })
    .await
}

async fn yielding_worker() {
    measured(&YIELDING_WORKER, async {
        loop {
            for _ in 0..9 {
                black_box((0..1_000u64).sum::<u64>());
                yield_now().await;
            }
            sleep(ms(50)).await;
        }
    })
    .await
}

/// Blocks, but on a thread that is meant for it.
async fn pool_user() {
    measured(&POOL_USER, async {
        loop {
            POOL_WORK.note_spawn();
            // A closure, because DWARF names a closure's type by its location but a function's only `fn()`.
            if let Err(error) = spawn_blocking(|| timed(&POOL_WORK, pool_work)).await {
                eprintln!("test-async-app: pool_work: {error}");
            }
            sleep(ms(50)).await;
        }
    })
    .await
}

fn pool_work() {
    burn_cpu(ms(1));
    thread::sleep(ms(3));
}

async fn short_lived_spawner() {
    measured(&SHORT_LIVED_SPAWNER, async {
        let runtime = Handle::current();
        loop {
            for _ in 0..15 {
                spawn(&runtime, &SHORT_LIVED, short_lived());
            }
            sleep(ms(50)).await;
        }
    })
    .await
}

async fn short_lived() {
    measured(&SHORT_LIVED, async {
        black_box((0..1_000u64).sum::<u64>());
        yield_now().await;
        black_box((0..1_000u64).sum::<u64>());
    })
    .await
}

// The culprits.

/// Computes for far longer than a poll should take.
async fn cpu_hog() {
    measured(&CPU_HOG, async {
        loop {
            timed(&BURNS, || burn_cpu(BURN));
            sleep(ms(80)).await;
        }
    })
    .await
}

/// Puts its worker to sleep, and delays every task that waits for it.
async fn blocking_sleeper() {
    measured(&BLOCKING_SLEEPER, async {
        loop {
            timed(&SLEEPS, || thread::sleep(SLEEP));
            sleep(ms(85)).await;
        }
    })
    .await
}

static LEDGER: Mutex<u64> = Mutex::new(0);

/// Computes while it holds a lock that others wait for: mostly 0.3 ms, every eighth time 2 ms.
async fn lock_contender() {
    measured(&LOCK_CONTENDER, async {
        for round in 0u64.. {
            {
                let mut ledger = match LEDGER.try_lock() {
                    Ok(ledger) => ledger,
                    Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                    Err(TryLockError::WouldBlock) => {
                        timed(&LOCK_WAITS, || LEDGER.lock().unwrap_or_else(PoisonError::into_inner))
                    }
                };
                burn_cpu(if round % 8 == 0 { ms(2) } else { Duration::from_micros(300) });
                *ledger += 1;
            }
            sleep(ms(20)).await;
        }
    })
    .await
}

/// Reads a file with a blocking call. A file of /proc: no cleanup, and the kernel computes.
async fn file_reader() {
    measured(&FILE_READER, async {
        loop {
            match timed(&FILE_READS, || std::fs::read("/proc/self/maps")) {
                Ok(bytes) => drop(black_box(bytes)),
                Err(error) => eprintln!("test-async-app: /proc/self/maps: {error}"),
            }
            sleep(ms(20)).await;
        }
    })
    .await
}

/// Computes for `dur` of the thread's CPU time, so that a busy machine does not shorten the work.
///
/// The sum's code comes from std and is inlined here: a sampled leaf frame lies in std by its line, and in this
/// function only by its inlined frames. A profiler that ignores these attributes it to the wrong crate.
#[inline(never)]
fn burn_cpu(dur: Duration) {
    let end = u128::from(thread_cpu_ns()) + dur.as_nanos();
    let mut sum = 1u64;
    while u128::from(thread_cpu_ns()) < end {
        // About 0.1 ms, so that reading the clock takes a negligible part.
        for i in 0..100_000 {
            sum = black_box(sum.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(i));
        }
    }
}

// The program around the tasks.

#[derive(Parser)]
#[command(about = "A Tokio program with culprits, which measures itself")]
struct Args {
    /// Worker threads of the runtime
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    workers: u16,
    /// Ends after this number of seconds [default: at SIGTERM or SIGINT]
    #[arg(long, value_name = "SECS")]
    duration: Option<u64>,
    /// Ends with its standard input, and so with the program that started this one
    #[arg(long)]
    with_stdin: bool,
    /// Writes every poll to this file as CSV at the end (the first 5 million)
    #[arg(long, value_name = "FILE")]
    poll_log: Option<PathBuf>,
}

fn spawn(runtime: &Handle, series: &'static Series, task: impl Future<Output = ()> + Send + 'static) {
    series.note_spawn();
    runtime.spawn(task);
}

/// The program as a shared library, for a host (`host.rs`).
#[cfg(feature = "library")]
#[unsafe(no_mangle)]
extern "C" fn run_program() {
    if let Err(error) = main() {
        eprintln!("test-async-app: {error}");
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    // Opened now, so that a path that cannot be written is reported before the work.
    let log = args.poll_log.as_ref().map(File::create).transpose()?;
    if log.is_some() {
        truth::keep_log();
    }

    let mut signals = Signals::new([SIGUSR1, SIGTERM, SIGINT])?;
    if let Some(seconds) = args.duration {
        let end = signals.handle();
        thread::Builder::new().name("duration".to_owned()).spawn(move || {
            thread::sleep(Duration::from_secs(seconds));
            end.close();
        })?;
    }
    if args.with_stdin {
        let end = signals.handle();
        thread::Builder::new().name("stdin".to_owned()).spawn(move || {
            // An error also ends it: there is no parent.
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            end.close();
        })?;
    }
    for (name, pause) in [("metrics-flush", ms(250)), ("log-writer", ms(100))] {
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            loop {
                thread::sleep(pause);
                burn_cpu(Duration::from_micros(500));
            }
        })?;
    }

    let runtime = runtime::Builder::new_multi_thread().worker_threads(args.workers.into()).enable_all().build()?;
    let handle = runtime.handle();
    for _ in 0..GOOD_CITIZENS {
        spawn(handle, &GOOD_CITIZEN, good_citizen());
    }
    for _ in 0..LOCK_CONTENDERS {
        spawn(handle, &LOCK_CONTENDER, lock_contender());
    }
    spawn(handle, &YIELDING_WORKER, yielding_worker());
    spawn(handle, &CPU_HOG, cpu_hog());
    spawn(handle, &BLOCKING_SLEEPER, blocking_sleeper());
    spawn(handle, &FILE_READER, file_reader());
    spawn(handle, &POOL_USER, pool_user());
    spawn(handle, &SHORT_LIVED_SPAWNER, short_lived_spawner());
    say(format_args!("test-async-app pid={} workers={}", std::process::id(), args.workers))?;

    // On a plain thread, so that a slow reader of stdout delays no task.
    let account = thread::Builder::new().name("truth".to_owned()).spawn(move || -> io::Result<()> {
        while signals.forever().next() == Some(SIGUSR1) {
            say(truth::snapshot(&TYPES, &ACTIVITIES))?;
        }
        let last = truth::snapshot(&TYPES, &ACTIVITIES);
        if let Some(log) = log {
            truth::write_log(BufWriter::new(log))?;
        }
        say(last)
    })?;
    account.join().map_err(|_| "the truth thread panicked")??;
    runtime.shutdown_background();
    Ok(())
}

fn say(line: impl std::fmt::Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        // The reader has exited.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
