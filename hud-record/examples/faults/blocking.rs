//! Faults that block a worker: calls inside polls that put its thread to sleep.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};

use crate::fault::Fault;

const KIND: &str = "blocking";
/// What a worker's long sleeps also cause.
const ALSO: &[&str] = &["worker_blocked", "wake_delay", "short_sleeps"];

pub(crate) const FAULTS: &[Fault] = &[
    Fault::new("thread-sleep", KIND, "sleeps on the thread for 25 ms", &["long_poll"], || {
        tokio::spawn(throttle_outgoing_requests());
        Ok(())
    })
    .also(ALSO),
    Fault::new(
        "medium-sleeps",
        KIND,
        "sleeps for 6 ms in almost every poll",
        &["short_sleeps", "worker_blocked"],
        || {
            tokio::spawn(poll_legacy_payment_gateway());
            Ok(())
        },
    )
    .also(&["wake_delay", "long_poll"]),
    Fault::new("short-sleeps", KIND, "sleeps for 0.2 ms, 20 times in a row", &["short_sleeps"], || {
        tokio::spawn(read_serial_port_in_small_steps());
        Ok(())
    }),
    Fault::new("file-sync", KIND, "writes and syncs files inside a poll", &["long_poll"], || {
        tokio::spawn(append_to_write_ahead_log());
        Ok(())
    })
    .also(ALSO),
    Fault::new("socket-read", KIND, "reads from a blocking socket", &["long_poll"], || {
        let address = start_slow_rate_server()?;
        tokio::spawn(fetch_exchange_rates(address));
        Ok(())
    })
    .also(ALSO),
    Fault::new("child-process", KIND, "waits for a child process", &["long_poll"], || {
        tokio::spawn(convert_uploaded_thumbnails());
        Ok(())
    })
    .also(ALSO),
    Fault::new("pipe-full", KIND, "writes to a pipe whose reader is slow", &["long_poll"], || {
        let pipe = start_slow_log_collector()?;
        tokio::spawn(write_access_log(pipe));
        Ok(())
    })
    .also(ALSO),
    Fault::new("std-channel", KIND, "receives from a std channel", &["long_poll"], || {
        let (ask, asked) = mpsc::channel::<mpsc::Sender<u64>>();
        thread::Builder::new().name("pricing".to_owned()).spawn(move || {
            for answer in asked {
                thread::sleep(Duration::from_millis(25));
                let _ = answer.send(42);
            }
        })?;
        tokio::spawn(quote_shipping_prices(ask));
        Ok(())
    })
    .also(ALSO),
    Fault::new("nested-block-on", KIND, "runs a future with another executor's block_on", &["long_poll"], || {
        tokio::spawn(resolve_tenant_settings());
        Ok(())
    })
    .also(ALSO),
    Fault::new("dead-timeout", KIND, "a timeout around code that blocks cannot fire", &["long_poll"], || {
        tokio::spawn(lookup_user_with_deadline());
        Ok(())
    })
    .also(ALSO),
    Fault::new("block-in-place", KIND, "most of its time is in block_in_place", &["block_in_place_heavy"], || {
        (0..3).for_each(|_| drop(tokio::spawn(compress_attachments_in_place())));
        Ok(())
    }),
];

async fn throttle_outgoing_requests() {
    loop {
        counted!(thread::sleep(Duration::from_millis(25)));
        sleep(Duration::from_millis(75)).await;
    }
}

async fn poll_legacy_payment_gateway() {
    loop {
        counted!(thread::sleep(Duration::from_millis(6)));
        sleep(Duration::from_millis(1)).await;
    }
}

async fn read_serial_port_in_small_steps() {
    loop {
        for _ in 0..20 {
            counted!(thread::sleep(Duration::from_micros(200)));
        }
        sleep(Duration::from_millis(40)).await;
    }
}

#[inline(never)]
fn sync_log_segment() {
    let path = format!("/var/tmp/faults-{}.wal", std::process::id());
    let Ok(mut file) = OpenOptions::new().create(true).append(true).open(&path) else { return };
    let _ = std::fs::remove_file(&path);
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(25) {
        let _ = file.write_all(&[7; 16 << 10]);
        let _ = culprit!(file.sync_all());
    }
}

async fn append_to_write_ahead_log() {
    loop {
        counted!(sync_log_segment());
        sleep(Duration::from_millis(75)).await;
    }
}

fn start_slow_rate_server() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::Builder::new().name("rate-server".to_owned()).spawn(move || {
        for client in listener.incoming().flatten() {
            thread::sleep(Duration::from_millis(30));
            let _ = (&client).write_all(b"1.0837\n");
        }
    })?;
    Ok(address)
}

#[inline(never)]
fn read_rate_response(address: SocketAddr) -> io::Result<String> {
    let mut text = String::new();
    counted!(TcpStream::connect(address)?.read_to_string(&mut text))?;
    Ok(text)
}

async fn fetch_exchange_rates(address: SocketAddr) {
    loop {
        let _ = read_rate_response(address);
        sleep(Duration::from_millis(70)).await;
    }
}

#[inline(never)]
fn run_image_converter() -> io::Result<()> {
    let mut child = Command::new("sleep").arg("0.03").stdin(Stdio::null()).spawn()?;
    counted!(child.wait())?;
    Ok(())
}

async fn convert_uploaded_thumbnails() {
    loop {
        let _ = run_image_converter();
        sleep(Duration::from_millis(100)).await;
    }
}

fn start_slow_log_collector() -> io::Result<io::PipeWriter> {
    let (mut from, to) = io::pipe()?;
    thread::Builder::new().name("log-collector".to_owned()).spawn(move || {
        let mut room = vec![0_u8; 64 << 10];
        while from.read(&mut room).is_ok_and(|n| n > 0) {
            thread::sleep(Duration::from_millis(40));
        }
    })?;
    Ok(to)
}

#[inline(never)]
fn flush_log_lines(pipe: &mut io::PipeWriter, lines: &[u8]) {
    let _ = counted!(pipe.write_all(lines));
}

async fn write_access_log(mut pipe: io::PipeWriter) {
    let lines = vec![b'.'; 96 << 10];
    loop {
        flush_log_lines(&mut pipe, &lines);
        sleep(Duration::from_millis(40)).await;
    }
}

#[inline(never)]
fn receive_price_quote(ask: &mpsc::Sender<mpsc::Sender<u64>>) -> Option<u64> {
    let (answer, answered) = mpsc::channel();
    ask.send(answer).ok()?;
    counted!(answered.recv()).ok()
}

async fn quote_shipping_prices(ask: mpsc::Sender<mpsc::Sender<u64>>) {
    loop {
        std::hint::black_box(receive_price_quote(&ask));
        sleep(Duration::from_millis(50)).await;
    }
}

#[inline(never)]
fn wait_for_tenant_settings() {
    let (answer, answered) = oneshot::channel();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(25));
        let _ = answer.send(7_u64);
    });
    let _ = counted!(futures::executor::block_on(answered));
}

async fn resolve_tenant_settings() {
    loop {
        wait_for_tenant_settings();
        sleep(Duration::from_millis(75)).await;
    }
}

#[inline(never)]
fn query_directory_server() {
    counted!(thread::sleep(Duration::from_millis(60)));
}

async fn lookup_user_with_deadline() {
    loop {
        let _ = timeout(Duration::from_millis(20), async { query_directory_server() }).await;
        sleep(Duration::from_millis(60)).await;
    }
}

async fn compress_attachments_in_place() {
    loop {
        block_in_place(|| counted!(thread::sleep(Duration::from_millis(40))));
        sleep(Duration::from_millis(2)).await;
    }
}
