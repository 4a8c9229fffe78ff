//! Task types with ambiguous symbols: of equal layout, so that several share one drop glue; inlined into the functions
//! that poll them; or empty. For tests of names on builds without full debug information.
//!
//! Its argument selects the types that it spawns; the code of all is present.

#![allow(missing_docs, reason = "an example is a crate that nobody links")]

use std::{error::Error, hint::black_box, sync::Arc, thread, time::Duration};

use signal_hook::{consts::SIGTERM, iterator::Signals};
use tokio::{runtime::Runtime, task::spawn_blocking, time::sleep};

const PERIOD: Duration = Duration::from_millis(5);

/// Never runs with the argument `ill`.
async fn healthy_hash_file(path: Arc<str>) -> u64 {
    let mut sum = 0;
    loop {
        sleep(PERIOD).await;
        sum = path.bytes().fold(sum, |sum: u64, byte| sum.rotate_left(5) ^ u64::from(byte));
        if black_box(sum) == 1 {
            return sum;
        }
    }
}

/// The same drop glue, but other code.
async fn render_thumbnail(path: Arc<str>) -> u64 {
    let mut pixels = 0;
    loop {
        sleep(PERIOD).await;
        thread::sleep(Duration::from_millis(2));
        pixels += path.len() as u64;
        if black_box(pixels) == 1 {
            return pixels;
        }
    }
}

/// Spawned, and also awaited by others.
async fn fetch(path: Arc<str>) -> u64 {
    sleep(PERIOD).await;
    path.len() as u64
}

/// The future that it awaits has a symbol; it has none.
async fn fetch_twice(path: Arc<str>) -> u64 {
    fetch(Arc::clone(&path)).await + fetch(path).await
}

async fn nothing() {}

fn spawn(runtime: &Runtime, is_ill: bool) {
    let path: Arc<str> = std::env::args().next().unwrap_or_default().into();
    if is_ill {
        runtime.spawn(render_thumbnail(Arc::clone(&path)));
    } else {
        runtime.spawn(healthy_hash_file(Arc::clone(&path)));
    }
    runtime.spawn(async move {
        loop {
            fetch(Arc::clone(&path)).await;
            tokio::spawn(fetch(Arc::clone(&path)));
            tokio::spawn(fetch_twice(Arc::clone(&path)));
            tokio::spawn(nothing());
            tokio::spawn(async {});
            let (one, other) = (Arc::clone(&path), Arc::clone(&path));
            spawn_blocking(move || black_box(one.len()) + 1);
            spawn_blocking(move || black_box(other.len()) * 3);
        }
    });
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut signals = Signals::new([SIGTERM])?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    spawn(&runtime, std::env::args().nth(1).is_some_and(|argument| argument == "ill"));
    println!("twins pid={}", std::process::id());
    signals.forever().next();
    Ok(())
}
