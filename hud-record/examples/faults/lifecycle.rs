//! Tasks that end otherwise than they should.

use std::panic;
use std::time::Duration;

use tokio::time::sleep;

use crate::fault::{Fault, Names};

const KIND: &str = "lifecycle";

pub(crate) const FAULTS: &[Fault] = &[
    Fault::new("panics", KIND, "a task panics again and again", &["panics"], || {
        // The report of each is not this program's output.
        panic::set_hook(Box::new(|_| {}));
        tokio::spawn(supervise_invoice_parser());
        Ok(())
    })
    .names(Names::Task),
    Fault::new("cancelled-work", KIND, "tasks are aborted before they are done", &["cancelled_work"], || {
        tokio::spawn(retry_with_short_deadline());
        Ok(())
    })
    .names(Names::Task),
];

async fn parse_invoice_line(line: usize) {
    sleep(Duration::from_millis(1)).await;
    let fields: [u64; 2] = [1, 2];
    std::hint::black_box(culprit!(fields[std::hint::black_box(line + 2)]));
}

async fn supervise_invoice_parser() {
    for line in 0.. {
        let _ = tokio::spawn(parse_invoice_line(line)).await;
        sleep(Duration::from_millis(10)).await;
    }
}

async fn fetch_recommendations() {
    culprit!(sleep(Duration::from_millis(80)).await);
}

async fn retry_with_short_deadline() {
    loop {
        let attempt = tokio::spawn(fetch_recommendations());
        sleep(Duration::from_millis(15)).await;
        attempt.abort();
        let _ = attempt.await;
    }
}
