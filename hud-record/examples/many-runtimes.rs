//! A program with every kind of runtime at once: two multi-threaded, one current-thread, a `LocalSet`,
//! `block_in_place`, and `block_on` inside a running runtime.
//!
//! The threads of each runtime have its name: `first`, `second` (their blocking pools too), `single`, `local`. Each
//! task type counts its polls by name, as test-async-app does. SIGUSR1 and the end print the report as one line of
//! JSON, which lists under `threads`, by runtime, the ids of the threads that polled its tasks.

// An example is a crate that nobody links.
#![allow(missing_docs)]

#[path = "support/clock.rs"]
mod clock;
#[path = "support/program.rs"]
mod program;
#[path = "support/truth.rs"]
mod truth;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use clap::Parser;
use signal_hook::consts::SIGUSR1;
use tokio::runtime::{Builder, Handle};
use tokio::task::{LocalSet, block_in_place, spawn_blocking, spawn_local};
use tokio::time::sleep;

use truth::{Series, measured, timed};

static FIRST_SLEEPER: Series = Series::new("first_sleeper");
static SECOND_SLEEPER: Series = Series::new("second_sleeper");
static SINGLE_SLEEPER: Series = Series::new("single_sleeper");
static LOCAL_SLEEPER: Series = Series::new("local_sleeper");
static IN_PLACE: Series = Series::new("in_place");
static NESTED: Series = Series::new("nested");
static NESTED_CHILD: Series = Series::new("nested_child");
static TYPES: [&Series; 7] =
    [&FIRST_SLEEPER, &SECOND_SLEEPER, &SINGLE_SLEEPER, &LOCAL_SLEEPER, &IN_PLACE, &NESTED, &NESTED_CHILD];

static SLEEPS: Series = Series::new("sleep");
static ACTIVITIES: [&Series; 1] = [&SLEEPS];

static THREADS: Mutex<BTreeMap<&'static str, BTreeSet<i32>>> = Mutex::new(BTreeMap::new());

const NAP: Duration = Duration::from_millis(4);
const PAUSE: Duration = Duration::from_millis(16);

/// Records that this thread polls tasks of this runtime.
fn here(runtime: &'static str) {
    let tid = rustix::thread::gettid().as_raw_nonzero().get();
    THREADS.lock().unwrap_or_else(PoisonError::into_inner).entry(runtime).or_default().insert(tid);
}

/// Blocks its thread with a sleep, which a profiler can distinguish from an idle runtime.
fn nap() {
    timed(&SLEEPS, || thread::sleep(NAP));
}

async fn first_sleeper() {
    measured(&FIRST_SLEEPER, async {
        loop {
            here("first");
            nap();
            sleep(PAUSE).await;
        }
    })
    .await
}

async fn second_sleeper() {
    measured(&SECOND_SLEEPER, async {
        loop {
            here("second");
            nap();
            sleep(PAUSE).await;
        }
    })
    .await
}

async fn single_sleeper() {
    measured(&SINGLE_SLEEPER, async {
        loop {
            here("single");
            nap();
            sleep(PAUSE).await;
        }
    })
    .await
}

async fn local_sleeper() {
    measured(&LOCAL_SLEEPER, async {
        loop {
            here("local");
            nap();
            sleep(PAUSE).await;
        }
    })
    .await
}

/// Passes its worker's core to another thread, 20 times a second, and blocks.
async fn in_place() {
    measured(&IN_PLACE, async {
        loop {
            here("first");
            block_in_place(nap);
            sleep(PAUSE + PAUSE).await;
        }
    })
    .await
}

/// Runs a future to completion inside a task: by `block_on` within `block_in_place`, and on a thread of the pool.
async fn nested() {
    measured(&NESTED, async {
        loop {
            here("second");
            let inside = Handle::current();
            block_in_place(|| inside.block_on(async { sleep(Duration::from_millis(2)).await }));
            let handle = Handle::current();
            let on_pool = spawn_blocking(move || {
                handle.block_on(async {
                    NESTED_CHILD.note_spawn();
                    // The future of `block_on` is no task; the one that it spawns is.
                    if let Err(error) = tokio::spawn(nested_child()).await {
                        eprintln!("many-runtimes: {error}");
                    }
                })
            });
            if let Err(error) = on_pool.await {
                eprintln!("many-runtimes: {error}");
            }
            sleep(PAUSE + PAUSE).await;
        }
    })
    .await
}

async fn nested_child() {
    measured(&NESTED_CHILD, async {
        black_box((0..1_000u64).sum::<u64>());
        sleep(Duration::from_millis(1)).await;
    })
    .await
}

#[derive(Parser)]
#[command(about = "Every kind of runtime at once")]
struct Args {
    /// Ends after this number of seconds [default: at SIGTERM or SIGINT]
    #[arg(long, value_name = "SECS")]
    duration: Option<u64>,
    /// Writes every poll to this file as CSV at the end
    #[arg(long, value_name = "FILE")]
    poll_log: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let log = args.poll_log.as_ref().map(File::create).transpose()?;
    if log.is_some() {
        truth::keep_log();
    }
    let mut signals = program::signals(&[SIGUSR1])?;
    program::end_after(&signals, args.duration)?;

    let first = Builder::new_multi_thread().worker_threads(2).thread_name("first").enable_all().build()?;
    let second = Builder::new_multi_thread().worker_threads(3).thread_name("second").enable_all().build()?;
    for series in [&FIRST_SLEEPER, &IN_PLACE, &SECOND_SLEEPER, &NESTED, &SINGLE_SLEEPER, &LOCAL_SLEEPER] {
        series.note_spawn();
    }
    first.spawn(first_sleeper());
    first.spawn(in_place());
    second.spawn(second_sleeper());
    second.spawn(nested());
    thread::Builder::new().name("single".to_owned()).spawn(|| {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { tokio::spawn(single_sleeper()).await }).map_err(std::io::Error::other)
    })?;
    thread::Builder::new().name("local".to_owned()).spawn(|| {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let tasks = LocalSet::new();
        tasks.block_on(&runtime, async { spawn_local(local_sleeper()).await }).map_err(std::io::Error::other)
    })?;
    program::say(format_args!("many-runtimes pid={}", std::process::id()))?;

    while signals.forever().next() == Some(SIGUSR1) {
        program::say(account())?;
    }
    let last = account();
    if let Some(log) = log {
        truth::write_log(BufWriter::new(log))?;
    }
    program::say(last)?;
    first.shutdown_background();
    second.shutdown_background();
    Ok(())
}

fn account() -> serde_json::Value {
    let mut account = truth::snapshot(&TYPES, &ACTIVITIES);
    if let Some(account) = account.as_object_mut() {
        let threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
        account.insert("threads".to_owned(), serde_json::json!(*threads));
    }
    account
}
