//! Tasks that wake each other in known ways, with a log: which task spawned, woke or aborted which.
//!
//! It begins at SIGUSR1 (`--now`: at once), prints `done` at the end, and waits for a signal to exit. `--log` then
//! writes the facts, as CSV `kind,mono_ns,of,by,detail`. Ids are Tokio's; `by` is empty if no task caused the event.
//!
//! | kind | of | by | detail | mono_ns |
//! |---|---|---|---|---|
//! | `spawn` | the new task | its parent | its async function | just before |
//! | `wake` | the woken task | the task in which the waker was used | `channel`, `timer`, `self`, `yield`, `join` | see below |
//! | `end` | the task | the task that aborted it | `completed`, `cancelled`, `panicked` | just before |
//!
//! A wake's time is just before it for `channel`, `self`, `yield` and `join`; for `timer` it is the time of the
//! sleeper's next poll, just after. Neither a timer nor a `yield_now` is woken in a task: the worker does it between
//! two. The facts are complete except for the conductor's own wakes, whose order depends on timing.

// An example is a crate that nobody links.
#![allow(missing_docs)]

#[path = "support/clock.rs"]
mod clock;
#[path = "support/facts.rs"]
mod facts;
#[path = "support/program.rs"]
mod program;

use std::error::Error;
use std::future::{pending, poll_fn};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use clap::Parser;
use signal_hook::consts::SIGUSR1;
use tokio::runtime;
use tokio::sync::mpsc;
use tokio::task::{self, JoinHandle, yield_now};
use tokio::time;

use clock::mono_ns;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[derive(Parser)]
#[command(about = "Tasks that wake each other in known ways")]
struct Args {
    /// Worker threads of the runtime
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    workers: u16,
    /// Number of wakes of each kind
    #[arg(long, default_value_t = 100)]
    rounds: u64,
    /// Begins at once, not at SIGUSR1
    #[arg(long)]
    now: bool,
    /// Writes the facts to this file at the end
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

/// Tokio shows an id only as text.
fn number(id: task::Id) -> u64 {
    id.to_string().parse().unwrap_or(0)
}

fn me() -> Option<u64> {
    task::try_id().map(number)
}

fn own() -> u64 {
    me().unwrap_or(0)
}

/// Spawns, and logs it: the time is read before, the id is known after.
fn spawn<T: Send + 'static>(name: &'static str, future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    let ts = mono_ns();
    let handle = tokio::spawn(future);
    facts::note("spawn", ts, number(handle.id()), me(), name);
    handle
}

fn completed() {
    facts::note("end", mono_ns(), own(), None, "completed");
}

/// Sleeps, which is one wake by no task.
async fn sleep(dur: Duration) {
    time::sleep(dur).await;
    facts::note("wake", mono_ns(), own(), None, "timer");
}

/// A player: it waits for the ball, rests, and returns it. By then the other player waits.
struct Side {
    other: Arc<AtomicU64>,
    to: mpsc::UnboundedSender<u64>,
    from: mpsc::UnboundedReceiver<u64>,
}

impl Side {
    fn send(&self, round: u64) {
        facts::note("wake", mono_ns(), self.other.load(Relaxed), me(), "channel");
        // The other player exists while rounds are left.
        let _ = self.to.send(round);
    }
}

async fn ping(mut side: Side, rounds: u64) {
    for round in 0..rounds {
        sleep(ms(2)).await;
        side.send(round);
        side.from.recv().await;
    }
    completed();
}

async fn pong(mut side: Side, rounds: u64) {
    for _ in 0..rounds {
        let Some(round) = side.from.recv().await else { break };
        sleep(ms(2)).await;
        side.send(round);
    }
    completed();
}

async fn napper(rounds: u64) {
    for _ in 0..rounds {
        sleep(ms(1)).await;
    }
    completed();
}

/// Wakes itself during its poll.
async fn self_waker(rounds: u64) {
    for _ in 0..rounds {
        let mut is_woken = false;
        poll_fn(|cx| {
            if is_woken {
                return Poll::Ready(());
            }
            is_woken = true;
            facts::note("wake", mono_ns(), own(), me(), "self");
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
    completed();
}

async fn yielder(rounds: u64) {
    for _ in 0..rounds {
        facts::note("wake", mono_ns(), own(), None, "yield");
        yield_now().await;
    }
    completed();
}

/// Waits for a task, which wakes it when it ends.
async fn joiner(rounds: u64) {
    let own_id = own();
    for _ in 0..rounds {
        let child = spawn("joined", joined(own_id));
        // A task that ends normally returns its value.
        let _ = child.await;
    }
    completed();
}

async fn joined(joiner: u64) {
    // By then the waiter waits for it.
    sleep(ms(2)).await;
    completed();
    facts::note("wake", mono_ns(), joiner, me(), "join");
}

/// Spawns tasks that wait forever, and aborts them.
async fn reaper(rounds: u64) {
    for _ in 0..rounds {
        let victim = spawn("victim", victim());
        // By then it has been polled.
        sleep(ms(2)).await;
        facts::note("end", mono_ns(), number(victim.id()), me(), "cancelled");
        victim.abort();
    }
    completed();
}

async fn victim() {
    pending::<()>().await;
}

async fn panicker() {
    sleep(ms(2)).await;
    facts::note("end", mono_ns(), own(), None, "panicked");
    panic!("as it is meant to");
}

/// Spawns all others and waits for them.
async fn conductor(rounds: u64) {
    let (to_pong, from_ping) = mpsc::unbounded_channel();
    let (to_ping, from_pong) = mpsc::unbounded_channel();
    let ids: [Arc<AtomicU64>; 2] = Default::default();
    let [ping_id, pong_id] = &ids;
    let ping_side = Side { other: pong_id.clone(), to: to_pong, from: from_pong };
    let pong_side = Side { other: ping_id.clone(), to: to_ping, from: from_ping };
    let (pinger, ponger) = (spawn("ping", ping(ping_side, rounds)), spawn("pong", pong(pong_side, rounds)));
    // Set before the first ball, which ping holds back for 2 ms.
    ping_id.store(number(pinger.id()), Relaxed);
    pong_id.store(number(ponger.id()), Relaxed);
    let all = [
        pinger,
        ponger,
        spawn("napper", napper(rounds)),
        spawn("self_waker", self_waker(rounds)),
        spawn("yielder", yielder(rounds)),
        spawn("joiner", joiner(rounds)),
        spawn("reaper", reaper(rounds)),
    ];
    let panickers: Vec<_> = (0..rounds.min(20)).map(|_| spawn("panicker", panicker())).collect();
    for task in all.into_iter().chain(panickers) {
        // The panicking tasks return an error.
        let _ = task.await;
    }
    completed();
}

static IS_TOLD: OnceLock<()> = OnceLock::new();

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut signals = program::signals(&[SIGUSR1])?;
    std::panic::set_hook(Box::new(|info| {
        // Expected panics are not printed.
        if info.payload().downcast_ref::<&str>() != Some(&"as it is meant to") && IS_TOLD.set(()).is_ok() {
            eprintln!("wakes: {info}");
        }
    }));
    let runtime = runtime::Builder::new_multi_thread().worker_threads(args.workers.into()).enable_time().build()?;
    program::say(format_args!("wakes pid={} workers={}", std::process::id(), args.workers))?;
    if !args.now && !program::received(&mut signals, SIGUSR1) {
        return Ok(());
    }
    runtime.block_on(async { spawn("conductor", conductor(args.rounds)).await })?;
    if let Some(log) = &args.log {
        facts::write(log)?;
    }
    program::say("done")?;
    signals.forever().next();
    Ok(())
}
