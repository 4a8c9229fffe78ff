//! Tasks that get no worker, no CPU or no pool thread in time, and storms of events.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{Notify, broadcast, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::fault::{Fault, Names, POOL_THREADS};

const KIND: &str = "scheduling";

pub(crate) const FAULTS: &[Fault] = &[
    Fault::new("own-threads", KIND, "the program's own threads take all CPUs", &["cpu_starved"], || {
        let cpus = thread::available_parallelism()?.get();
        for _ in 0..4 * cpus {
            thread::Builder::new().name("analytics".to_owned()).spawn(train_ranking_model)?;
        }
        (0..4).for_each(|_| drop(tokio::spawn(serve_search_requests())));
        Ok(())
    })
    .also(&["wake_delay"])
    .names(Names::Nothing),
    Fault::new("overload", KIND, "tasks need more than their workers have", &["wake_delay"], || {
        (0..80).for_each(|_| drop(tokio::spawn(resize_map_tiles())));
        Ok(())
    })
    .also(&["cpu_starved"])
    .names(Names::Task),
    Fault::new(
        "lifo-slot",
        KIND,
        "a woken task waits for its waker's poll while a worker idles",
        &["lifo_serialised", "wake_delay"],
        || {
            let decoded = Arc::new(Notify::new());
            tokio::spawn(render_decoded_pages(Arc::clone(&decoded)));
            tokio::spawn(decode_page_then_checksum(decoded));
            Ok(())
        },
    )
    .also(&["imbalance"])
    .names(Names::Task),
    Fault::new("pool-saturated", KIND, "more blocking work than the pool has threads", &["pool_saturated"], || {
        tokio::spawn(accept_image_uploads());
        Ok(())
    }),
    Fault::new("timer-storm", KIND, "2,000 tasks with timers of 20 ms", &["timer_storm", "wake_storm"], || {
        (0..2_000).for_each(|_| drop(tokio::spawn(expire_idle_connection())));
        Ok(())
    })
    .also(&["wake_delay", "cpu_starved"])
    .names(Names::Task),
    Fault::new("wake-storm", KIND, "one message wakes 2,000 tasks", &["wake_storm"], || {
        let (ticks, _) = broadcast::channel(16);
        for _ in 0..2_000 {
            tokio::spawn(follow_price_ticks(ticks.subscribe()));
        }
        tokio::spawn(broadcast_price_ticks(ticks));
        Ok(())
    })
    .also(&["wake_delay", "cpu_starved", "long_poll"])
    .names(Names::Task),
    Fault::new("spawn-storm", KIND, "a task for each of 40,000 samples a second", &["spawn_rate"], || {
        tokio::spawn(ingest_metric_samples());
        Ok(())
    })
    .also(&["wake_delay", "cpu_starved"])
    .names(Names::Task),
    Fault::new(
        "slow-consumer",
        KIND,
        "a queue grows as its consumer is always busy",
        &["task_saturated", "cpu_share"],
        || {
            let (jobs, queue) = mpsc::unbounded_channel();
            tokio::spawn(index_documents(queue));
            tokio::spawn(crawl_documents(jobs));
            Ok(())
        },
    )
    .also(&["imbalance", "memory_grow"])
    .names(Names::Task),
    Fault::new("missed-ticks", KIND, "an interval catches up missed ticks in a burst", &["missed_ticks_burst"], || {
        tokio::spawn(sample_sensor_values());
        Ok(())
    })
    .names(Names::Task),
];

fn train_ranking_model() {
    loop {
        culprit!(compute!(Duration::from_millis(50)));
    }
}

async fn serve_search_requests() {
    loop {
        compute!(Duration::from_millis(2));
        sleep(Duration::from_millis(5)).await;
    }
}

async fn resize_map_tiles() {
    let mut ticks = interval(Duration::from_millis(60));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        counted!(compute!(Duration::from_millis(2)));
    }
}

async fn decode_page_then_checksum(decoded: Arc<Notify>) {
    loop {
        decoded.notify_one();
        // Shorter than a long poll, and until its end the woken task waits in this worker's LIFO slot.
        counted!(compute!(Duration::from_millis(8)));
        sleep(Duration::from_millis(10)).await;
    }
}

async fn render_decoded_pages(decoded: Arc<Notify>) {
    loop {
        decoded.notified().await;
        compute!(Duration::from_micros(100));
    }
}

#[inline(never)]
fn resize_uploaded_image() {
    counted!(thread::sleep(Duration::from_millis(40)));
}

async fn accept_image_uploads() {
    let queued = Arc::new(tokio::sync::Semaphore::new(16 * POOL_THREADS));
    while let Ok(permit) = Arc::clone(&queued).acquire_owned().await {
        spawn_blocking(move || {
            resize_uploaded_image();
            drop(permit);
        });
    }
}

async fn expire_idle_connection() {
    loop {
        culprit!(sleep(Duration::from_millis(20)).await);
    }
}

async fn follow_price_ticks(mut ticks: broadcast::Receiver<u64>) {
    while !matches!(ticks.recv().await, Err(broadcast::error::RecvError::Closed)) {}
}

async fn broadcast_price_ticks(ticks: broadcast::Sender<u64>) {
    for tick in 0.. {
        let _ = counted!(ticks.send(tick));
        sleep(Duration::from_millis(50)).await;
    }
}

async fn aggregate_metric_sample(sample: u64) {
    counted!(std::hint::black_box(sample));
}

async fn ingest_metric_samples() {
    loop {
        for sample in 0..200 {
            drop(tokio::spawn(aggregate_metric_sample(sample)));
        }
        sleep(Duration::from_millis(4)).await;
    }
}

async fn crawl_documents(jobs: mpsc::UnboundedSender<[u64; 16]>) {
    let mut ticks = interval(Duration::from_millis(10));
    // Catching up would be a long poll of its own.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for page in 0..400 {
            let _ = jobs.send([page; 16]);
        }
    }
}

async fn index_documents(mut queue: mpsc::UnboundedReceiver<[u64; 16]>) {
    while let Some(document) = queue.recv().await {
        counted!(compute!(Duration::from_micros(50)));
        std::hint::black_box(document);
    }
}

async fn sample_sensor_values() {
    let mut ticks = interval(Duration::from_millis(5));
    loop {
        for _ in 0..200 {
            culprit!(ticks.tick().await);
        }
        // The connection is away: about 100 ticks are missed.
        sleep(Duration::from_millis(500)).await;
    }
}
