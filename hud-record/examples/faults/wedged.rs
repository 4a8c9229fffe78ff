//! Programs that are stuck before hud attaches.

use std::hint::black_box;
use std::io::{self, Read as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Barrier, Mutex, PoisonError, mpsc as std_mpsc};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{Mutex as TaskMutex, Notify, RwLock as TaskRwLock, Semaphore, mpsc, oneshot};
use tokio::time::sleep;

use crate::fault::Fault;

const KIND: &str = "stuck";
const CYCLE: &[&str] = &["lock_cycle"];
const STARVED: &[&str] = &["never_woken", "semaphore_starved"];

#[derive(Default)]
struct Bank {
    ledger: Mutex<u64>,
    journal: Mutex<u64>,
}

#[derive(Default)]
struct Store {
    orders: TaskMutex<u64>,
    stock: TaskMutex<u64>,
}

pub(crate) const FAULTS: &[Fault] = &[
    Fault::new("std-deadlock", KIND, "both workers wait for each other's mutex", &["stuck_thread"], || {
        let (bank, both) = (Arc::<Bank>::default(), Arc::new(Barrier::new(2)));
        tokio::spawn(transfer_between_accounts(Arc::clone(&bank), Arc::clone(&both)));
        tokio::spawn(reverse_failed_transfer(bank, both));
        Ok(())
    }),
    Fault::new("endless-poll", KIND, "a poll computes and does not end", &["stuck_poll"], || {
        tokio::spawn(import_customer_archive());
        Ok(())
    })
    .also(&["imbalance", "cpu_share", "long_poll"]),
    Fault::new(
        "lock-over-runtime",
        KIND,
        "all workers wait for a lock whose holder waits for them",
        &["stuck_thread"],
        || {
            let bank = Arc::<Bank>::default();
            let (held, locked_by) = std_mpsc::channel();
            let (handle, of_thread) = (Handle::current(), Arc::clone(&bank));
            thread::Builder::new()
                .name("migration".to_owned())
                .spawn(move || migrate_schema(&handle, &of_thread, &held))?;
            let _ = locked_by.recv();
            (0..4).for_each(|_| drop(tokio::spawn(post_journal_entry(Arc::clone(&bank)))));
            Ok(())
        },
    ),
    Fault::new("accept-handshake", KIND, "the accept loop reads from a silent client", &["stuck_thread"], || {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        tokio::spawn(accept_clients(listener));
        // Connected for ever, and silent.
        std::mem::forget(client);
        Ok(())
    }),
    Fault::new("current-thread-lock", KIND, "the only worker waits for a lock", &["stuck_thread"], || {
        let bank = Arc::<Bank>::default();
        let (held, locked_by) = std_mpsc::channel();
        let of_thread = Arc::clone(&bank);
        thread::Builder::new().name("backup".to_owned()).spawn(move || {
            let _ledger = of_thread.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = held.send(());
            thread::sleep(Duration::from_secs(3600));
        })?;
        let _ = locked_by.recv();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let task = runtime.spawn(settle_daily_balances(bank));
        runtime.block_on(task).map_err(io::Error::other)
    })
    .on_its_own_thread(),
    Fault::new("task-deadlock", KIND, "two tasks wait for each other's tokio mutex", CYCLE, || {
        let (store, both) = (Arc::<Store>::default(), Arc::new(tokio::sync::Barrier::new(2)));
        tokio::spawn(reserve_stock_for_order(Arc::clone(&store), Arc::clone(&both)));
        tokio::spawn(cancel_order_and_restock(store, both));
        Ok(())
    }),
    Fault::new("self-deadlock", KIND, "a task locks a tokio mutex twice", CYCLE, || {
        tokio::spawn(audit_order_history(Arc::default()));
        Ok(())
    }),
    Fault::new("recursive-read", KIND, "a reader reads again behind a writer", CYCLE, || {
        let catalog = Arc::<TaskRwLock<u64>>::default();
        let go = Arc::new(Notify::new());
        tokio::spawn(render_category_page(Arc::clone(&catalog), Arc::clone(&go)));
        tokio::spawn(replace_product_catalog(catalog, go));
        Ok(())
    }),
    Fault::new("channel-circle", KIND, "two actors send to each other's full channel", CYCLE, || {
        let ((to_cart, cart), (to_price, price)) = (mpsc::channel(1), mpsc::channel(1));
        tokio::spawn(run_cart_actor(to_price, cart));
        tokio::spawn(run_pricing_actor(to_cart, price));
        Ok(())
    }),
    Fault::new("lost-notify", KIND, "a task waits for a notification that nobody sends", STARVED, || {
        tokio::spawn(wait_for_config_reload(Arc::default()));
        Ok(())
    }),
    Fault::new("lost-sender", KIND, "a task waits for an answer whose sender is forgotten", STARVED, || {
        let (answer, answered) = oneshot::channel();
        std::mem::forget(answer);
        tokio::spawn(await_upstream_reply(answered));
        Ok(())
    }),
    Fault::new("hold-and-wait", KIND, "two tasks hold a permit each and wait for two", STARVED, || {
        let (slots, both) = (Arc::new(Semaphore::new(2)), Arc::new(tokio::sync::Barrier::new(2)));
        for _ in 0..2 {
            tokio::spawn(merge_shards_with_two_slots(Arc::clone(&slots), Arc::clone(&both)));
        }
        Ok(())
    }),
    Fault::new("futurelock", KIND, "the losing branch of a select keeps the lock that the winner needs", CYCLE, || {
        let store = Arc::<Store>::default();
        tokio::spawn(hold_orders_briefly(Arc::clone(&store)));
        tokio::spawn(process_next_order(store));
        Ok(())
    }),
];

async fn transfer_between_accounts(bank: Arc<Bank>, both: Arc<Barrier>) {
    let ledger = bank.ledger.lock().unwrap_or_else(PoisonError::into_inner);
    both.wait();
    let journal = culprit!(bank.journal.lock().unwrap_or_else(PoisonError::into_inner));
    black_box(*ledger + *journal);
}

async fn reverse_failed_transfer(bank: Arc<Bank>, both: Arc<Barrier>) {
    let journal = bank.journal.lock().unwrap_or_else(PoisonError::into_inner);
    both.wait();
    let ledger = culprit!(bank.ledger.lock().unwrap_or_else(PoisonError::into_inner));
    black_box(*ledger + *journal);
}

/// A parser whose input never ends.
#[inline(never)]
fn parse_archive_records(input: &[u8]) -> u64 {
    let mut sum = 0_u64;
    while black_box(true) {
        sum = culprit!(black_box(input.iter().fold(sum, |sum, byte| sum.wrapping_mul(31) ^ u64::from(*byte))));
    }
    sum
}

async fn import_customer_archive() {
    sleep(Duration::from_millis(10)).await;
    black_box(parse_archive_records(&[7; 4096]));
}

fn migrate_schema(handle: &Handle, bank: &Bank, held: &std_mpsc::Sender<()>) {
    let ledger = bank.ledger.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = held.send(());
    thread::sleep(Duration::from_millis(200));
    let _ = handle.block_on(handle.spawn(async { 1_u64 }));
    black_box(*ledger);
}

async fn post_journal_entry(bank: Arc<Bank>) {
    sleep(Duration::from_millis(10)).await;
    let ledger = culprit!(bank.ledger.lock().unwrap_or_else(PoisonError::into_inner));
    black_box(*ledger);
}

#[inline(never)]
fn read_client_hello(mut client: &TcpStream) -> io::Result<[u8; 4]> {
    let mut hello = [0; 4];
    culprit!(client.read_exact(&mut hello))?;
    Ok(hello)
}

async fn accept_clients(listener: TcpListener) {
    sleep(Duration::from_millis(10)).await;
    while let Ok((client, _)) = listener.accept() {
        let _ = black_box(read_client_hello(&client));
    }
}

async fn settle_daily_balances(bank: Arc<Bank>) {
    sleep(Duration::from_millis(10)).await;
    let ledger = culprit!(bank.ledger.lock().unwrap_or_else(PoisonError::into_inner));
    black_box(*ledger);
}

async fn reserve_stock_for_order(store: Arc<Store>, both: Arc<tokio::sync::Barrier>) {
    let orders = store.orders.lock().await;
    both.wait().await;
    let stock = culprit!(store.stock.lock().await);
    black_box(*orders + *stock);
}

async fn cancel_order_and_restock(store: Arc<Store>, both: Arc<tokio::sync::Barrier>) {
    let stock = store.stock.lock().await;
    both.wait().await;
    let orders = culprit!(store.orders.lock().await);
    black_box(*orders + *stock);
}

async fn audit_order_history(store: Arc<Store>) {
    let orders = store.orders.lock().await;
    let again = culprit!(store.orders.lock().await);
    black_box(*orders + *again);
}

async fn render_category_page(catalog: Arc<TaskRwLock<u64>>, go: Arc<Notify>) {
    let outer = catalog.read().await;
    go.notify_one();
    sleep(Duration::from_millis(100)).await;
    let inner = culprit!(catalog.read().await);
    black_box(*outer + *inner);
}

async fn replace_product_catalog(catalog: Arc<TaskRwLock<u64>>, go: Arc<Notify>) {
    go.notified().await;
    let mut catalog = culprit!(catalog.write().await);
    *catalog += 1;
}

async fn run_cart_actor(pricing: mpsc::Sender<u64>, mut inbox: mpsc::Receiver<u64>) {
    for item in 0.. {
        if culprit!(pricing.send(item).await).is_err() {
            return;
        }
    }
    black_box(inbox.recv().await);
}

async fn run_pricing_actor(cart: mpsc::Sender<u64>, mut inbox: mpsc::Receiver<u64>) {
    for item in 0.. {
        if culprit!(cart.send(item).await).is_err() {
            return;
        }
    }
    black_box(inbox.recv().await);
}

async fn wait_for_config_reload(reload: Arc<Notify>) {
    sleep(Duration::from_millis(10)).await;
    culprit!(reload.notified().await);
}

async fn await_upstream_reply(answered: oneshot::Receiver<u64>) {
    sleep(Duration::from_millis(10)).await;
    let _ = culprit!(answered.await);
}

async fn merge_shards_with_two_slots(slots: Arc<Semaphore>, both: Arc<tokio::sync::Barrier>) {
    let Ok(first) = slots.acquire().await else { return };
    both.wait().await;
    let second = culprit!(slots.acquire().await);
    black_box((&first, &second));
}

async fn hold_orders_briefly(store: Arc<Store>) {
    let orders = store.orders.lock().await;
    sleep(Duration::from_millis(100)).await;
    black_box(*orders);
}

async fn process_next_order(store: Arc<Store>) {
    sleep(Duration::from_millis(20)).await;
    let mut locking = Box::pin(store.orders.lock());
    tokio::select! {
        orders = &mut locking => { black_box(*orders); },
        () = sleep(Duration::from_millis(20)) => {
            // The future in `locking` gets the lock, and is not polled any more.
            let orders = culprit!(store.orders.lock().await);
            black_box(*orders);
        }
    }
}
