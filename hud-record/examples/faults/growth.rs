//! Things that grow without end: tasks, threads, file descriptors, memory.

use std::fs::File;
use std::hint::black_box;
use std::thread;
use std::time::Duration;

use tokio::time::sleep;

use crate::fault::{Fault, Names};

const KIND: &str = "growth";

pub(crate) const FAULTS: &[Fault] = &[
    Fault::new("tasks-grow", KIND, "each connection leaves a task behind", &["tasks_grow"], || {
        tokio::spawn(accept_idle_connections());
        Ok(())
    })
    .also(&["memory_grow"])
    .names(Names::Task),
    Fault::new("threads-grow", KIND, "each request leaves a thread behind", &["threads_grow"], || {
        tokio::spawn(start_watcher_per_request());
        Ok(())
    })
    .also(&["memory_grow"])
    .names(Names::Nothing),
    Fault::new("fds-grow", KIND, "each request leaves a file open", &["fds_grow"], || {
        tokio::spawn(open_template_per_request());
        Ok(())
    })
    // The kernel's table of descriptors grows by doubling, and waits for an RCU grace period each time: 20 ms were seen.
    .also(&["long_poll"])
    .names(Names::Nothing),
    Fault::new("memory-grow", KIND, "a cache is never emptied", &["memory_grow"], || {
        tokio::spawn(cache_every_response());
        Ok(())
    })
    .names(Names::Nothing),
];

async fn keep_connection_open() {
    culprit!(std::future::pending::<()>().await);
}

async fn accept_idle_connections() {
    loop {
        tokio::spawn(keep_connection_open());
        sleep(Duration::from_millis(5)).await;
    }
}

async fn start_watcher_per_request() {
    loop {
        let watcher = || thread::sleep(Duration::from_secs(3600));
        let _ = counted!(thread::Builder::new().name("watcher".to_owned()).stack_size(64 << 10).spawn(watcher));
        sleep(Duration::from_millis(20)).await;
    }
}

async fn open_template_per_request() {
    loop {
        std::mem::forget(counted!(File::open("/proc/self/exe")));
        sleep(Duration::from_millis(20)).await;
    }
}

async fn cache_every_response() {
    let mut cache = Vec::new();
    loop {
        cache.push(counted!(vec![7_u8; 1 << 20]));
        black_box(&cache);
        sleep(Duration::from_millis(50)).await;
    }
}
