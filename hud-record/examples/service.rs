//! A service for measurements: clients and handlers are tasks that exchange requests and answers over channels.
//!
//! A request is three polls: the client's timer, the handler, the client with the answer; the defaults make 100,000
//! polls a second and leave the CPUs mostly idle. With `--rate 0` a client sends its next request as soon as it has its
//! answer (two polls a request), which takes all available CPU time.
//!
//! Prints the rates each second. SIGUSR1 prints the totals so far as one line of JSON, and SIGTERM, SIGINT and `--for`
//! print them and end the program: `ops`, `polls`, `cpu_ns` (of the process), `mono_ns`, and the latencies `p50_ns`,
//! `p99_ns`, `max_ns`.

// An example is a crate that nobody links.
#![allow(missing_docs)]

#[path = "support/clock.rs"]
mod clock;
#[path = "support/program.rs"]
mod program;

use std::error::Error;
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use clap::Parser;
use signal_hook::consts::SIGUSR1;
use tokio::runtime;
use tokio::sync::mpsc;
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use clock::{mono_ns, process_cpu_ns};

#[derive(Parser)]
#[command(about = "A service of clients and handlers that exchange messages")]
struct Args {
    /// Worker threads of the runtime
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    workers: u16,
    /// Clients, each with a handler of its own
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// Requests per second in total; 0 = as fast as answers come
    #[arg(long, default_value_t = 33_333)]
    rate: u32,
    /// Computing time of a handler, in rounds of two or three nanoseconds
    #[arg(long, default_value_t = 5_000)]
    work: u32,
    /// Seconds between storms of one second: tasks that only yield, short-lived tasks and threads; 0 = none
    #[arg(long, value_name = "SECS", default_value_t = 0)]
    storms: u64,
    /// Ends after this number of seconds [default: at SIGTERM or SIGINT]
    #[arg(long = "for", value_name = "SECS")]
    seconds: Option<u64>,
}

/// Counters of one client and its handler, on their own cache lines.
#[repr(align(128))]
struct Account {
    ops: AtomicU64,
    polls: AtomicU64,
    /// Latencies in buckets: eight for each power of two.
    latencies: [AtomicU64; 512],
}

impl Default for Account {
    fn default() -> Self {
        Self { ops: AtomicU64::new(0), polls: AtomicU64::new(0), latencies: [const { AtomicU64::new(0) }; 512] }
    }
}

impl Account {
    fn answered(&self, latency: u64) {
        self.ops.fetch_add(1, Relaxed);
        let power = latency.max(8).ilog2();
        let eighth = (latency >> (power - 3)) & 7;
        if let Some(bucket) = usize::try_from(u64::from(power) * 8 + eighth).ok().and_then(|n| self.latencies.get(n)) {
            bucket.fetch_add(1, Relaxed);
        }
    }
}

/// Counts the polls of `body`, which is the task's entire body.
async fn counted<F: Future>(account: &Account, body: F) -> F::Output {
    let mut body = pin!(body);
    std::future::poll_fn(|cx| {
        account.polls.fetch_add(1, Relaxed);
        body.as_mut().poll(cx)
    })
    .await
}

async fn client(
    account: Arc<Account>,
    first: Instant,
    every: Option<Duration>,
    requests: mpsc::UnboundedSender<u64>,
    mut answers: mpsc::UnboundedReceiver<u64>,
) {
    counted(&account, async {
        let mut ticks = every.map(|every| {
            let mut ticks = interval_at(first, every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            ticks
        });
        loop {
            if let Some(ticks) = &mut ticks {
                ticks.tick().await;
            }
            let sent = mono_ns();
            if requests.send(sent).is_err() || answers.recv().await.is_none() {
                break;
            }
            account.answered(mono_ns().saturating_sub(sent));
        }
    })
    .await
}

async fn handler(
    account: Arc<Account>,
    work: u32,
    mut requests: mpsc::UnboundedReceiver<u64>,
    answers: mpsc::UnboundedSender<u64>,
) {
    counted(&account, async {
        while let Some(request) = requests.recv().await {
            if answers.send(compute(request, work)).is_err() {
                break;
            }
        }
    })
    .await
}

/// Generates one second of the recorder's highest load, repeatedly.
async fn storms(account: Arc<Account>, every: Duration) {
    counted(&account, async {
        loop {
            tokio::time::sleep(every).await;
            let end = Instant::now() + Duration::from_secs(1);
            let yielders: Vec<_> = (0..4).map(|_| tokio::spawn(yielder(account.clone(), end))).collect();
            for _ in 0..100 {
                for _ in 0..100 {
                    tokio::spawn(short_lived(account.clone()));
                }
                // A thread each: the interval is longer than the pool keeps an idle thread.
                spawn_blocking(|| thread::sleep(Duration::from_micros(100)));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            for task in yielders {
                if let Err(error) = task.await {
                    eprintln!("service: {error}");
                }
            }
        }
    })
    .await
}

async fn yielder(account: Arc<Account>, end: Instant) {
    counted(&account, async {
        while Instant::now() < end {
            for _ in 0..100 {
                yield_now().await;
            }
        }
    })
    .await
}

async fn short_lived(account: Arc<Account>) {
    counted(&account, yield_now()).await
}

/// In registers: a sum in memory takes once or twice as long, depending on the CPU's predictions, which any interrupt
/// can change.
#[inline(never)]
fn compute(seed: u64, rounds: u32) -> u64 {
    let mixed = |sum: u64, i: u32| (sum ^ (sum >> 29)).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(i.into());
    black_box((0..rounds).fold(seed, mixed))
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let signals = program::signals(&[SIGUSR1])?;
    program::end_after(&signals, args.seconds)?;
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(args.workers.into())
        .thread_keep_alive(Duration::from_millis(1))
        .enable_time()
        .build()?;
    // The last is the storms'.
    let accounts: Vec<Arc<Account>> = (0..=args.clients).map(|_| Arc::default()).collect();
    let every = (args.rate > 0).then(|| Duration::from_secs(1) * args.clients / args.rate);
    let start = Instant::now();
    for (number, account) in (0..args.clients).zip(&accounts) {
        let (requests, incoming) = mpsc::unbounded_channel();
        let (answers, answered) = mpsc::unbounded_channel();
        // Spread over the interval.
        let first = start + every.unwrap_or_default() * number / args.clients;
        runtime.spawn(handler(account.clone(), args.work, incoming, answers));
        runtime.spawn(client(account.clone(), first, every, requests, answered));
    }
    if let (Some(account), 1..) = (accounts.last(), args.storms) {
        runtime.spawn(storms(account.clone(), Duration::from_secs(args.storms)));
    }
    program::say(format_args!("service pid={} workers={}", std::process::id(), args.workers))?;

    // The thread for signals only forwards them; dropping the sender ends the program.
    let (report, reports) = channel::<()>();
    let mut signals = signals;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        while signals.forever().next() == Some(SIGUSR1) {
            if report.send(()).is_err() {
                break;
            }
        }
    })?;
    let mut last = Totals::take(&accounts);
    let mut next = std::time::Instant::now() + Duration::from_secs(1);
    loop {
        match reports.recv_timeout(next.saturating_duration_since(std::time::Instant::now())) {
            Ok(()) => program::say(Totals::take(&accounts).to_json())?,
            Err(RecvTimeoutError::Timeout) => {
                let now = Totals::take(&accounts);
                program::say(now.rates_since(&last))?;
                last = now;
                next += Duration::from_secs(1);
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    program::say(Totals::take(&accounts).to_json())?;
    runtime.shutdown_background();
    Ok(())
}

struct Totals {
    mono_ns: u64,
    cpu_ns: u64,
    ops: u64,
    polls: u64,
    latencies: Vec<u64>,
}

impl Totals {
    fn take(accounts: &[Arc<Account>]) -> Self {
        let sum = |of: fn(&Account) -> &AtomicU64| accounts.iter().map(|a| of(a).load(Relaxed)).sum();
        let latencies =
            (0..512).map(|n| accounts.iter().filter_map(|a| a.latencies.get(n)).map(|b| b.load(Relaxed)).sum());
        Self {
            mono_ns: mono_ns(),
            cpu_ns: process_cpu_ns(),
            ops: sum(|a| &a.ops),
            polls: sum(|a| &a.polls),
            latencies: latencies.collect(),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "rates to look at")]
    fn rates_since(&self, last: &Self) -> String {
        let over = (self.mono_ns - last.mono_ns).max(1) as f64 / 1e9;
        let rate = |now: u64, then: u64| (now - then) as f64 / over;
        let cpu = rate(self.cpu_ns, last.cpu_ns) / 1e7;
        let (ops, polls) = (rate(self.ops, last.ops), rate(self.polls, last.polls));
        format!("{ops:.0} ops/s {polls:.0} polls/s {cpu:.0} % of a CPU")
    }

    /// The middle of the bucket that contains this percentile.
    fn percentile(&self, percent: u64) -> Option<u64> {
        let rank = (self.latencies.iter().sum::<u64>() * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let bucket = self.latencies.iter().position(|n| {
            seen += n;
            seen >= rank
        })?;
        let bucket = u64::try_from(bucket).ok()?;
        let (power, eighth) = (bucket / 8, bucket % 8);
        Some((8 + eighth) * (1 << power) / 8 + (1 << power) / 16)
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "mono_ns": self.mono_ns,
            "cpu_ns": self.cpu_ns,
            "ops": self.ops,
            "polls": self.polls,
            "p50_ns": self.percentile(50),
            "p99_ns": self.percentile(99),
            "max_ns": self.percentile(100),
        })
    }
}
