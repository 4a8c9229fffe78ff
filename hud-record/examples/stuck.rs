//! Programs that are stuck before hud attaches, and one that only looks as if it were. Each mode is one of them.
//!
//! Prints a line once it is stuck, with the lines of code at which it is, and ends at SIGTERM or SIGINT.

// An example is a crate that nobody links.
#![allow(missing_docs)]

#[path = "support/program.rs"]
mod program;

use std::error::Error;
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{block_in_place, spawn_blocking};
use tokio::time::sleep;

#[derive(Parser)]
#[command(about = "Programs that are stuck before hud attaches")]
struct Args {
    /// How it is stuck
    mode: Mode,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// Both workers wait for each other's mutex
    Deadlock,
    /// A task that never ends its poll, and computes in it
    Infinite,
    /// The only worker of a current_thread runtime, the main thread, waits for a mutex that another thread holds
    CurrentThread,
    /// Not stuck: a task asleep in `block_in_place`, work of the pool that sleeps, a thread in `block_on`, and a
    /// worker with nothing to do
    Waiting,
}

/// A line of this file, counted when a task reaches it.
struct Line(AtomicU32);

impl Line {
    const fn new() -> Self {
        Line(AtomicU32::new(0))
    }

    fn is(&self, line: u32) {
        self.0.store(line, Ordering::Relaxed);
    }

    fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

static AB: Line = Line::new();
static BA: Line = Line::new();
static PARSE: Line = Line::new();
static SETTLE: Line = Line::new();

#[derive(Default)]
struct Bank {
    ledger: Mutex<u64>,
    journal: Mutex<u64>,
}

async fn transfer_ab(bank: Arc<Bank>, both: Arc<Barrier>) {
    let ledger = bank.ledger.lock().unwrap_or_else(PoisonError::into_inner);
    both.wait();
    AB.is(line!() + 1);
    let journal = bank.journal.lock().unwrap_or_else(PoisonError::into_inner);
    black_box(*ledger + *journal);
}

async fn transfer_ba(bank: Arc<Bank>, both: Arc<Barrier>) {
    let journal = bank.journal.lock().unwrap_or_else(PoisonError::into_inner);
    both.wait();
    BA.is(line!() + 1);
    let ledger = bank.ledger.lock().unwrap_or_else(PoisonError::into_inner);
    black_box(*ledger + *journal);
}

/// A parser whose input never ends.
#[inline(never)]
fn parse(input: &[u8]) -> u64 {
    let mut sum = 0_u64;
    PARSE.is(line!() + 1);
    while black_box(true) {
        sum = black_box(input.iter().fold(sum, |sum, byte| sum.wrapping_mul(31) ^ u64::from(*byte)));
    }
    sum
}

async fn infinite_parse(input: Vec<u8>) {
    // It has been polled before: its type is known by more than its spawn.
    sleep(Duration::from_millis(10)).await;
    black_box(parse(&input));
}

async fn settle(bank: Arc<Bank>) {
    sleep(Duration::from_millis(10)).await;
    SETTLE.is(line!() + 1);
    let ledger = bank.ledger.lock().unwrap_or_else(PoisonError::into_inner);
    black_box(*ledger);
}

#[inline(never)]
fn wait_for_ever() {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

async fn in_place() {
    block_in_place(wait_for_ever);
}

async fn never() {
    std::future::pending::<()>().await;
}

/// Starts the threads of a mode that ends by itself never.
fn start(mode: Mode, runtime: &Runtime) -> std::io::Result<()> {
    let _inside = runtime.enter();
    match mode {
        Mode::Deadlock => {
            let (bank, both) = (Arc::<Bank>::default(), Arc::new(Barrier::new(2)));
            runtime.spawn(transfer_ab(Arc::clone(&bank), Arc::clone(&both)));
            runtime.spawn(transfer_ba(bank, both));
        }
        Mode::Infinite => drop(runtime.spawn(infinite_parse(vec![7; 4096]))),
        Mode::CurrentThread => {}
        Mode::Waiting => {
            spawn_blocking(wait_for_ever);
            runtime.spawn(in_place());
            runtime.spawn(never());
            let handle = runtime.handle().clone();
            thread::Builder::new().name("block-on".to_owned()).spawn(move || handle.block_on(never()))?;
        }
    }
    Ok(())
}

/// A current_thread runtime on the main thread, stuck for a lock.
fn run_current_thread(bank: &Arc<Bank>) -> std::io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let task = runtime.spawn(settle(Arc::clone(bank)));
    runtime.block_on(task).map_err(std::io::Error::other)
}

/// Says where it is stuck once it is, and ends the process at a signal.
fn report(mode: Mode) -> Result<(), Box<dyn Error>> {
    let mut signals = program::signals(&[])?;
    let lines: &[&Line] = match mode {
        Mode::Deadlock => &[&AB, &BA],
        Mode::Infinite => &[&PARSE],
        Mode::CurrentThread => &[&SETTLE],
        Mode::Waiting => &[],
    };
    while lines.iter().any(|line| line.get() == 0) {
        thread::sleep(Duration::from_millis(1));
    }
    // From the line to the system call.
    thread::sleep(Duration::from_millis(300));
    let lines = lines.iter().map(|line| line.get().to_string()).collect::<Vec<_>>().join(",");
    program::say(format_args!("stuck pid={} lines={lines}", std::process::id()))?;
    signals.forever().next();
    std::process::exit(0)
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    if let Mode::CurrentThread = args.mode {
        let bank = Arc::<Bank>::default();
        let held = Arc::clone(&bank);
        let locked = Arc::new(Barrier::new(2));
        let waits = Arc::clone(&locked);
        thread::Builder::new().name("holder".to_owned()).spawn(move || {
            let _ledger = held.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            waits.wait();
            wait_for_ever();
        })?;
        locked.wait();
        thread::spawn(move || report(args.mode).map_err(|e| e.to_string()));
        run_current_thread(&bank)?;
        return Ok(());
    }
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    start(args.mode, &runtime)?;
    report(args.mode)
}
