//! A program that starts its runtime on SIGUSR1. A task then blocks its worker ten times, and the program prints a
//! line. For tests of threads that start after hud has attached.

#![allow(missing_docs, reason = "an example is a crate that nobody links")]

use std::{error::Error, io, thread, time::Duration};

use signal_hook::{consts::SIGUSR1, iterator::Signals};

async fn napper() {
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(15));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut signals = Signals::new([SIGUSR1])?;
    println!("late-runtime pid={}", std::process::id());
    signals.forever().next();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("late-worker")
        .enable_all()
        .build()?;
    runtime.block_on(runtime.spawn(napper()))?;
    println!("10 naps taken in the late runtime");
    // Until the test ends, which holds the other end.
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}
