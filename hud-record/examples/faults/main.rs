//! The programs of the truth table: each has one fault, or none, and keeps an account of it.
//!
//! `faults NAME` prints a line once the fault is in progress, its account as a line of JSON at SIGUSR1, and ends at SIGTERM
//! or SIGINT. `cargo xtask truth` compares hud's findings with that account.

// An example is a crate that nobody links.
#![allow(missing_docs)]

#[macro_use]
mod account;
#[macro_use]
mod work;
mod blocking;
mod computing;
mod fault;
mod growth;
mod healthy;
mod lifecycle;
mod locks;
mod scheduling;
mod wedged;

#[path = "../support/clock.rs"]
mod clock;
#[path = "../support/program.rs"]
mod program;

use std::error::Error;
use std::thread;
use std::time::Duration;

use clap::Parser;
use signal_hook::consts::SIGUSR1;
use tokio::runtime::{Builder, Runtime};

use fault::{Fault, Scheduler};

#[derive(Parser)]
#[command(about = "Programs with one fault each, for the truth table")]
struct Args {
    /// The fault
    #[arg(required_unless_present = "list")]
    name: Option<String>,
    /// Print the names of all faults, with their kinds
    #[arg(long)]
    list: bool,
}

fn all() -> impl Iterator<Item = &'static Fault> {
    let families = [
        blocking::FAULTS,
        computing::FAULTS,
        locks::FAULTS,
        wedged::FAULTS,
        scheduling::FAULTS,
        growth::FAULTS,
        lifecycle::FAULTS,
        healthy::FAULTS,
    ];
    families.into_iter().flatten()
}

/// The runtime of a fault; `None` for one that the main thread runs by itself.
fn runtime(scheduler: Scheduler) -> std::io::Result<Option<Runtime>> {
    let mut builder = match scheduler {
        Scheduler::MultiThread => Builder::new_multi_thread(),
        Scheduler::OwnThread => return Ok(None),
    };
    builder.worker_threads(fault::WORKERS).max_blocking_threads(fault::POOL_THREADS).enable_all().build().map(Some)
}

/// Reports that the fault is in progress once it is, and prints the account at each SIGUSR1.
fn report(fault: &Fault) -> Result<(), Box<dyn Error>> {
    let mut signals = program::signals(&[SIGUSR1])?;
    while !fault.is_healthy() && !account::is_begun() {
        thread::sleep(Duration::from_millis(1));
    }
    // A fault that is stuck has lasted for a while by then, and another one repeats.
    thread::sleep(Duration::from_millis(700));
    program::say(format_args!("faults {} pid={}", fault.name, std::process::id()))?;
    while program::received(&mut signals, SIGUSR1) {
        program::say(fault.account())?;
    }
    std::process::exit(0)
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    if args.list {
        for fault in all() {
            program::say(format_args!("{}\t{}", fault.name, fault.kind))?;
        }
        return Ok(());
    }
    let name = args.name.unwrap_or_default();
    let fault = all().find(|fault| fault.name == name).ok_or_else(|| format!("no fault is named {name}"))?;
    account::begin();
    let Some(runtime) = runtime(fault.scheduler)? else {
        thread::Builder::new().name("report".to_owned()).spawn(|| report(fault).map_err(|e| e.to_string()))?;
        return Ok((fault.start)()?);
    };
    {
        let _inside = runtime.enter();
        runtime.spawn(work::answer_health_probe());
        (fault.start)()?;
    }
    report(fault)
}
