//! Locks of std that tasks wait for on their worker: holders that sleep, compute, or are many.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::fault::Fault;

const KIND: &str = "lock";
const ASLEEP: &[&str] = &["lock_owner_asleep"];
const BUSY: &[&str] = &["lock_owner_busy"];
const ALSO: &[&str] = &["long_poll", "worker_blocked", "wake_delay", "short_sleeps"];

type Cache = Arc<Mutex<Vec<u64>>>;

/// Tasks that need the cache for a moment.
fn spawn_readers(cache: &Cache) {
    (0..2).for_each(|_| drop(tokio::spawn(read_price_cache(Arc::clone(cache)))));
}

pub(crate) const FAULTS: &[Fault] = &[
    Fault::new("mutex-asleep", KIND, "a task sleeps while it holds a mutex", ASLEEP, || {
        let cache = Cache::default();
        spawn_readers(&cache);
        tokio::spawn(refresh_price_cache(cache));
        Ok(())
    })
    .also(ALSO),
    Fault::new("mutex-busy", KIND, "a task computes while it holds a mutex", BUSY, || {
        let cache = Cache::default();
        spawn_readers(&cache);
        tokio::spawn(reindex_price_cache(cache));
        Ok(())
    })
    .also(ALSO),
    Fault::new("rwlock-asleep", KIND, "a task sleeps while it writes", ASLEEP, || {
        let routes = Arc::<RwLock<Vec<u64>>>::default();
        (0..2).for_each(|_| drop(tokio::spawn(match_request_route(Arc::clone(&routes)))));
        tokio::spawn(reload_routing_table(routes));
        Ok(())
    })
    .also(ALSO),
    Fault::new("pool-holds-mutex", KIND, "work of the blocking pool sleeps while it holds a mutex", ASLEEP, || {
        let cache = Cache::default();
        spawn_readers(&cache);
        spawn_blocking(move || rebuild_search_index(&cache));
        Ok(())
    })
    .also(ALSO),
    Fault::new("thread-holds-mutex", KIND, "a thread without tasks sleeps while it holds a mutex", ASLEEP, || {
        let cache = Cache::default();
        spawn_readers(&cache);
        thread::Builder::new().name("metrics-flush".to_owned()).spawn(move || flush_metrics_registry(&cache))?;
        Ok(())
    })
    .also(ALSO),
    Fault::new("lock-convoy", KIND, "six threads and two tasks compute under one mutex in turn", BUSY, || {
        let cache = Cache::default();
        for _ in 0..6 {
            let cache = Arc::clone(&cache);
            thread::Builder::new().name("ingest".to_owned()).spawn(move || {
                loop {
                    update_shared_histogram(&cache);
                }
            })?;
        }
        (0..2).for_each(|_| drop(tokio::spawn(record_request_latency(Arc::clone(&cache)))));
        Ok(())
    })
    .also(&["long_poll", "worker_blocked", "wake_delay", "short_sleeps", "cpu_starved"]),
];

async fn read_price_cache(cache: Cache) {
    loop {
        std::hint::black_box(cache.lock().unwrap_or_else(PoisonError::into_inner).len());
        sleep(Duration::from_millis(3)).await;
    }
}

async fn refresh_price_cache(cache: Cache) {
    loop {
        {
            let mut prices = cache.lock().unwrap_or_else(PoisonError::into_inner);
            counted!(thread::sleep(Duration::from_millis(20)));
            prices.clear();
        }
        sleep(Duration::from_millis(60)).await;
    }
}

#[inline(never)]
fn sort_prices_under_lock(cache: &Cache) {
    let mut prices = cache.lock().unwrap_or_else(PoisonError::into_inner);
    counted!(compute!(Duration::from_millis(20)));
    prices.clear();
}

async fn reindex_price_cache(cache: Cache) {
    loop {
        sort_prices_under_lock(&cache);
        sleep(Duration::from_millis(60)).await;
    }
}

async fn match_request_route(routes: Arc<RwLock<Vec<u64>>>) {
    loop {
        std::hint::black_box(routes.read().unwrap_or_else(PoisonError::into_inner).len());
        sleep(Duration::from_millis(3)).await;
    }
}

async fn reload_routing_table(routes: Arc<RwLock<Vec<u64>>>) {
    loop {
        {
            let mut table = routes.write().unwrap_or_else(PoisonError::into_inner);
            counted!(thread::sleep(Duration::from_millis(20)));
            table.clear();
        }
        sleep(Duration::from_millis(60)).await;
    }
}

fn rebuild_search_index(cache: &Cache) {
    loop {
        let mut prices = cache.lock().unwrap_or_else(PoisonError::into_inner);
        counted!(thread::sleep(Duration::from_millis(20)));
        prices.clear();
        drop(prices);
        thread::sleep(Duration::from_millis(60));
    }
}

fn flush_metrics_registry(cache: &Cache) {
    loop {
        let mut metrics = cache.lock().unwrap_or_else(PoisonError::into_inner);
        counted!(thread::sleep(Duration::from_millis(20)));
        metrics.clear();
        drop(metrics);
        thread::sleep(Duration::from_millis(60));
    }
}

#[inline(never)]
fn update_shared_histogram(cache: &Cache) {
    let mut histogram = cache.lock().unwrap_or_else(PoisonError::into_inner);
    counted!(compute!(Duration::from_millis(2)));
    histogram.clear();
}

async fn record_request_latency(cache: Cache) {
    loop {
        update_shared_histogram(&cache);
        sleep(Duration::from_millis(10)).await;
    }
}
