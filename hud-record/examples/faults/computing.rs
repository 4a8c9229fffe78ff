//! Faults that compute inside polls, or poll without doing anything.

use std::future::Future;
use std::hint::black_box;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::sleep;

use crate::fault::{Fault, Names};

const KIND: &str = "computing";
const ALSO: &[&str] = &["wake_delay", "imbalance"];

pub(crate) const FAULTS: &[Fault] = &[
    Fault::new("long-compute", KIND, "computes for 40 ms in a poll", &["long_poll"], || {
        tokio::spawn(send_monthly_reports());
        Ok(())
    })
    .also(ALSO),
    Fault::new("very-long-compute", KIND, "computes for 250 ms in a poll", &["long_poll"], || {
        tokio::spawn(register_new_accounts());
        Ok(())
    })
    .also(ALSO),
    Fault::new("sort", KIND, "sorts a large list in a poll", &["long_poll"], || {
        tokio::spawn(publish_leaderboard());
        Ok(())
    })
    .also(ALSO),
    Fault::new("page-faults", KIND, "touches fresh memory in a poll", &["long_poll"], || {
        tokio::spawn(decode_video_frames());
        Ok(())
    })
    .also(ALSO),
    Fault::new("busy-wait", KIND, "waits for a flag in a loop", &["long_poll"], || {
        tokio::spawn(drain_hardware_ring());
        Ok(())
    })
    .also(ALSO),
    Fault::new("yield-spin", KIND, "waits for a flag with yield_now", &["self_waking"], || {
        tokio::spawn(wait_for_ready_flag());
        Ok(())
    })
    .also(&["imbalance", "cpu_share"])
    .names(Names::Task),
    Fault::new("self-waking", KIND, "a future wakes itself in each poll", &["self_waking"], || {
        tokio::spawn(forward_queued_frames());
        Ok(())
    })
    .also(&["imbalance", "cpu_share"])
    .names(Names::Task),
];

#[inline(never)]
fn sum_invoice_totals() {
    counted!(compute!(Duration::from_millis(40)));
}

async fn send_monthly_reports() {
    loop {
        sum_invoice_totals();
        sleep(Duration::from_millis(80)).await;
    }
}

#[inline(never)]
fn hash_password_with_many_rounds() {
    counted!(compute!(Duration::from_millis(250)));
}

async fn register_new_accounts() {
    loop {
        hash_password_with_many_rounds();
        sleep(Duration::from_millis(400)).await;
    }
}

#[inline(never)]
fn sort_leaderboard_entries(entries: &mut [u64]) {
    let mut seed = 1_u64;
    for entry in entries.iter_mut() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *entry = seed;
    }
    counted!(entries.sort_by_key(|entry| black_box(*entry).swap_bytes()));
}

async fn publish_leaderboard() {
    let mut entries = vec![0_u64; 800_000];
    loop {
        sort_leaderboard_entries(&mut entries);
        sleep(Duration::from_millis(100)).await;
    }
}

#[inline(never)]
fn fill_fresh_frame_buffer() {
    let mut frame = vec![0_u8; 96 << 20];
    counted!(frame.iter_mut().step_by(4096).for_each(|byte| *byte = 1));
    black_box(&frame);
}

async fn decode_video_frames() {
    loop {
        fill_fresh_frame_buffer();
        sleep(Duration::from_millis(100)).await;
    }
}

#[inline(never)]
fn spin_until_descriptor_is_ready(ready: &AtomicBool) {
    counted!(while !ready.swap(false, Ordering::Acquire) {
        std::hint::spin_loop()
    });
}

async fn drain_hardware_ring() {
    loop {
        let ready = Arc::new(AtomicBool::new(false));
        let device = Arc::clone(&ready);
        let raise = move || {
            thread::sleep(Duration::from_millis(30));
            device.store(true, Ordering::Release);
        };
        if thread::Builder::new().name("device".to_owned()).spawn(raise).is_ok() {
            spin_until_descriptor_is_ready(&ready);
        }
        sleep(Duration::from_millis(60)).await;
    }
}

static READY: AtomicBool = AtomicBool::new(false);

async fn wait_for_ready_flag() {
    while !READY.load(Ordering::Acquire) {
        culprit!(yield_now().await);
    }
}

/// Has nothing to do, and asks to be polled again at once.
struct ForwardWhenQueued;

impl Future for ForwardWhenQueued {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if READY.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

async fn forward_queued_frames() {
    let _ = culprit!(ForwardWhenQueued.await);
}
