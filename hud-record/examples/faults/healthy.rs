//! Healthy programs: every finding about them is a false alarm, except that their CPUs are taken where they are.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::fault::Fault;

const KIND: &str = "healthy";

pub(crate) const FAULTS: &[Fault] = &[
    Fault::new("idle", KIND, "waits for requests", &[], || Ok(())),
    Fault::new("moderate", KIND, "short requests, a queue, and work of the blocking pool", &[], || {
        (0..16).for_each(|_| drop(tokio::spawn(serve_moderate_requests())));
        let (jobs, queue) = mpsc::channel(64);
        tokio::spawn(deliver_queued_messages(queue));
        tokio::spawn(queue_messages(jobs));
        tokio::spawn(read_files_on_the_pool());
        Ok(())
    }),
    Fault::new("busy", KIND, "polls of 0.5 ms on 70 % of its workers' time", &[], || {
        (0..28).for_each(|_| drop(tokio::spawn(serve_busy_requests())));
        Ok(())
    }),
    Fault::new("bursty", KIND, "300 requests of 20 µs at once, five times a second", &[], || {
        tokio::spawn(accept_request_bursts());
        Ok(())
    }),
    Fault::new("crowded", KIND, "another process takes its CPUs", &[], || {
        let cpus = thread::available_parallelism()?.get();
        for _ in 0..2 * cpus {
            // Ends with its parent: the pipe to it closes.
            let mut burner = Command::new("sh");
            burner.args(["-c", "(while :; do :; done) & read _; kill $!"]).stdin(Stdio::piped()).stdout(Stdio::null());
            std::mem::forget(burner.spawn()?);
        }
        (0..16).for_each(|_| drop(tokio::spawn(serve_moderate_requests())));
        Ok(())
    })
    .also(&["cpu_starved"]),
];

async fn serve_moderate_requests() {
    let mut ticks = interval(Duration::from_millis(40));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        compute!(Duration::from_micros(300));
        sleep(Duration::from_millis(2)).await;
        compute!(Duration::from_micros(100));
    }
}

async fn queue_messages(jobs: mpsc::Sender<u64>) {
    for message in 0.. {
        if jobs.send(message).await.is_err() {
            return;
        }
        sleep(Duration::from_millis(3)).await;
    }
}

async fn deliver_queued_messages(mut queue: mpsc::Receiver<u64>) {
    while let Some(message) = queue.recv().await {
        compute!(Duration::from_micros(50));
        std::hint::black_box(message);
    }
}

async fn read_files_on_the_pool() {
    loop {
        let _ = spawn_blocking(|| thread::sleep(Duration::from_millis(5))).await;
        sleep(Duration::from_millis(20)).await;
    }
}

async fn serve_busy_requests() {
    let mut ticks = interval(Duration::from_millis(10));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        compute!(Duration::from_micros(500));
    }
}

async fn answer_burst_request(done: Arc<tokio::sync::Semaphore>) {
    compute!(Duration::from_micros(20));
    done.add_permits(1);
}

async fn accept_request_bursts() {
    loop {
        let done = Arc::new(tokio::sync::Semaphore::new(0));
        for _ in 0..300 {
            tokio::spawn(answer_burst_request(Arc::clone(&done)));
        }
        let _ = done.acquire_many(300).await;
        sleep(Duration::from_millis(180)).await;
    }
}
