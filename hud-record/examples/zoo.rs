//! Tasks that wait in every known way, one of each, and their true state: for tests of `hud dump`.
//!
//! Its second line of output is that state as JSON, once all tasks wait: for each task its id, the lines of the program
//! at which it waits, outermost first, and its resource. SIGUSR1 prints it again. It ends with its standard input. With
//! `storm PAIRS` that number of pairs of tasks wake each other instead, without pause; with `many TASKS MEGABYTES` that
//! number of tasks wait beside that amount of memory.

#![allow(missing_docs, reason = "an example is a crate that nobody links")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "it runs or it does not")]

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    future::{Future, pending, poll_fn},
    io::Read as _,
    pin::Pin,
    sync::{
        Arc, Mutex as StdMutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};

use futures::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, join_all},
    stream::{self, FuturesUnordered},
};
use serde_json::{Value, json};
use signal_hook::{consts::SIGUSR1, iterator::Signals};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream, UdpSocket, UnixStream},
    runtime::{Builder, Handle},
    sync::{Barrier, Mutex, Notify, OnceCell, RwLock, Semaphore, broadcast, mpsc, oneshot, watch},
    task::{JoinSet, LocalSet},
    time::{Instant, interval, sleep, sleep_until, timeout},
};

/// The true state of a task, by its own account.
#[derive(Default)]
struct Truth {
    function: &'static str,
    lines: Vec<u32>,
    waits_for: BTreeSet<&'static str>,
    held: Option<&'static str>,
}

static TRUTH: StdMutex<BTreeMap<u64, Truth>> = StdMutex::new(BTreeMap::new());
/// The holder of each lock, by a name of the lock.
static HOLDERS: StdMutex<BTreeMap<&'static str, u64>> = StdMutex::new(BTreeMap::new());

fn id() -> u64 {
    tokio::task::try_id().map_or(0, |id| id.to_string().parse().unwrap())
}

fn note(function: &'static str, line: u32, what: &'static str, held: Option<&'static str>) {
    let mut truth = TRUTH.lock().unwrap_or_else(PoisonError::into_inner);
    let task = truth.entry(id()).or_default();
    if task.function.is_empty() {
        task.function = function.trim_end_matches("::{{closure}}");
    }
    if line > 0 {
        task.lines.push(line);
    }
    if !what.is_empty() {
        task.waits_for.insert(what);
    }
    task.held = task.held.or(held);
}

fn holds(what: &'static str) {
    HOLDERS.lock().unwrap_or_else(PoisonError::into_inner).insert(what, id());
}

/// The next line awaits; the innermost one names the resource.
macro_rules! here {
    () => {
        note(std::any::type_name_of_val(&|| {}), line!() + 1, "", None)
    };
    ($what:literal) => {
        note(std::any::type_name_of_val(&|| {}), line!() + 1, $what, None)
    };
    ($what:literal, $held:literal) => {
        note(std::any::type_name_of_val(&|| {}), line!() + 1, $what, Some($held))
    };
}

/// Tasks that report where they wait.
const ALL: usize = 78;
/// Those in the second runtime.
const ON_ONE_THREAD: usize = 4;

const LONG: Duration = Duration::from_secs(3600);

async fn asleep() {
    here!("timer");
    sleep(LONG).await;
}

async fn nested() {
    here!();
    level_two().await;
}

async fn level_two() {
    here!();
    level_three(7).await;
}

async fn level_three(number: u64) -> u64 {
    here!("timer");
    sleep(LONG).await;
    number
}

async fn until() {
    here!("timer");
    sleep_until(Instant::now() + LONG).await;
}

async fn ticks() {
    let mut interval = interval(LONG);
    interval.tick().await;
    here!("timer");
    interval.tick().await;
}

async fn mutex_holder(lock: Arc<Mutex<u64>>) {
    let guard = lock.lock().await;
    holds("mutex");
    here!("timer");
    sleep(LONG).await;
    drop(guard);
}

async fn mutex_waiter(lock: Arc<Mutex<u64>>) {
    here!("Mutex<u64>", "mutex");
    let guard = lock.lock().await;
    drop(guard);
}

async fn transfer_ab(a: Arc<Mutex<u32>>, b: Arc<Mutex<i64>>, both: Arc<Barrier>) {
    let from = a.lock().await;
    holds("a");
    both.wait().await;
    here!("Mutex<i64>", "b");
    let to = b.lock().await;
    drop((from, to));
}

async fn transfer_ba(a: Arc<Mutex<u32>>, b: Arc<Mutex<i64>>, both: Arc<Barrier>) {
    let from = b.lock().await;
    holds("b");
    both.wait().await;
    here!("Mutex<u32>", "a");
    let to = a.lock().await;
    drop((from, to));
}

async fn owned_holder(lock: Arc<Mutex<String>>) {
    let guard = lock.lock_owned().await;
    holds("owned");
    here!("timer");
    sleep(LONG).await;
    drop(guard);
}

async fn owned_waiter(lock: Arc<Mutex<String>>) {
    here!("Mutex<", "owned");
    let guard = lock.lock_owned().await;
    drop(guard);
}

async fn reader(lock: Arc<RwLock<u8>>) {
    let guard = lock.read().await;
    holds("rwlock");
    here!("timer");
    sleep(LONG).await;
    drop(guard);
}

async fn writer(lock: Arc<RwLock<u8>>) {
    here!("RwLock<u8> (to write)", "rwlock");
    let guard = lock.write().await;
    drop(guard);
}

async fn reader_behind(lock: Arc<RwLock<u8>>) {
    here!("RwLock<u8> (to read)", "rwlock");
    let guard = lock.read().await;
    drop(guard);
}

async fn permit_holder(permits: Arc<Semaphore>) {
    let permit = permits.acquire_many(3).await;
    holds("permits");
    here!("timer");
    sleep(LONG).await;
    drop(permit);
}

async fn permit_waiter(permits: Arc<Semaphore>) {
    here!("Semaphore", "permits");
    let permit = permits.acquire().await;
    drop(permit);
}

async fn owned_permit_waiter(permits: Arc<Semaphore>) {
    here!("Semaphore", "permits");
    let permit = permits.acquire_owned().await;
    drop(permit);
}

struct Transaction<'a> {
    guard: tokio::sync::MutexGuard<'a, u16>,
}

async fn guard_in_struct(lock: Arc<Mutex<u16>>) {
    let transaction = Transaction { guard: lock.lock().await };
    holds("struct");
    here!("timer");
    sleep(LONG).await;
    drop(transaction.guard);
}

async fn waits_for_struct(lock: Arc<Mutex<u16>>) {
    here!("Mutex<u16>", "struct");
    let guard = lock.lock().await;
    drop(guard);
}

/// The lock is free: the remains of a guard in memory hold nothing.
async fn dropped_guard(lock: Arc<Mutex<i8>>) {
    let mut guard = lock.lock().await;
    *guard += 1;
    drop(guard);
    here!("timer");
    sleep(LONG).await;
}

async fn receives(mut channel: mpsc::Receiver<u64>) {
    here!("mpsc channel");
    let _ = channel.recv().await;
}

async fn receives_unbounded(mut channel: mpsc::UnboundedReceiver<u64>) {
    here!("mpsc channel");
    let _ = channel.recv().await;
}

async fn sends(channel: mpsc::Sender<u64>) {
    let _ = channel.send(1).await;
    here!("bounded mpsc channel");
    let _ = channel.send(2).await;
}

/// Two of them each wait for capacity in the other's channel.
async fn actor(
    sender: mpsc::Sender<u64>,
    mut receiver: mpsc::Receiver<u64>,
    both: Arc<Barrier>,
    [own, other]: [&'static str; 2],
) {
    let _ = sender.send(1).await;
    holds(own);
    both.wait().await;
    note("zoo::actor", line!() + 1, "bounded mpsc channel", Some(other));
    let _ = sender.send(2).await;
    let _ = receiver.recv().await;
}

/// Holds a read lock, and waits for another one behind a writer that waits for the first.
async fn reads_twice(lock: Arc<RwLock<i16>>) {
    let guard = lock.read().await;
    holds("twice");
    let between = tokio::spawn(writes_between(lock.clone())).id().to_string().parse().unwrap();
    while !TRUTH.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&between) {
        sleep(Duration::from_millis(1)).await;
    }
    sleep(Duration::from_millis(20)).await;
    here!("RwLock<i16> (to read)", "twice");
    let again = lock.read().await;
    drop((guard, again));
}

/// The lock is assigned to a future that was polled once, while its task waits for the same lock.
async fn futurelock(lock: Arc<Mutex<i128>>) {
    let mut future = Box::pin(takes(lock.clone()));
    {
        let _guard = lock.lock().await;
        tokio::select! {
            biased;
            () = &mut future => {}
            () = sleep(Duration::from_millis(1)) => {}
        }
    }
    holds("futurelock");
    here!("Mutex<i128>", "futurelock");
    let again = lock.lock().await;
    drop(again);
    future.await;
}

async fn takes(lock: Arc<Mutex<i128>>) {
    *lock.lock().await += 1;
}

async fn writes_between(lock: Arc<RwLock<i16>>) {
    here!("RwLock<i16> (to write)", "twice");
    let guard = lock.write().await;
    drop(guard);
}

async fn oneshot_value(value: oneshot::Receiver<u64>) {
    here!("oneshot");
    let _ = value.await;
}

async fn notified(notify: Arc<Notify>) {
    here!("Notify");
    notify.notified().await;
}

async fn broadcast_value(mut channel: broadcast::Receiver<u64>) {
    here!("broadcast");
    let _ = channel.recv().await;
}

async fn watched(mut channel: watch::Receiver<u64>) {
    here!("Notify");
    let _ = channel.changed().await;
}

async fn barrier(barrier: Arc<Barrier>) {
    here!("Notify");
    barrier.wait().await;
}

async fn initializes(cell: Arc<OnceCell<u64>>) {
    here!();
    cell.get_or_init(|| level_three(3)).await;
}

async fn waits_for_cell(cell: Arc<OnceCell<u64>>) {
    here!("OnceCell");
    cell.get_or_init(|| async { 4 }).await;
}

async fn joins() {
    let handle = tokio::spawn(asleep());
    here!("the end of task");
    let _ = handle.await;
}

async fn joins_set() {
    let mut set = JoinSet::new();
    for _ in 0..3 {
        set.spawn(asleep());
    }
    here!("JoinSet");
    let _ = set.join_next().await;
}

async fn joins_blocking() {
    let handle = tokio::task::spawn_blocking(|| thread::sleep(LONG));
    here!("the end of task");
    let _ = handle.await;
}

async fn selects(mut channel: mpsc::Receiver<u64>) {
    here!("timer");
    tokio::select! {
        () = sleep(LONG) => {}
        _ = channel.recv() => {}
        () = level_two() => {}
    }
}

async fn selects_one_of_two(notify: Arc<Notify>) {
    let never = pending::<()>();
    tokio::pin!(never);
    here!("Notify");
    tokio::select! {
        () = notify.notified() => {}
        () = &mut never, if false => {}
    }
}

async fn joins_three() {
    here!();
    tokio::join!(asleep(), nested(), async {});
}

async fn tries_three() {
    here!();
    let _ = tokio::try_join!(fallible(), fallible());
}

async fn fallible() -> Result<(), Infallible> {
    here!("timer");
    sleep(LONG).await;
    Ok(())
}

async fn joins_by_futures() {
    here!();
    futures::join!(asleep(), asleep());
}

async fn joins_all() {
    here!();
    join_all([asleep(), asleep(), asleep()]).await;
}

async fn joins_all_of_forty() {
    here!();
    join_all((0..40).map(|_| asleep())).await;
}

async fn unordered() {
    let mut all: FuturesUnordered<_> = (0..5).map(level_three).collect();
    here!();
    all.next().await;
}

async fn buffered() {
    let mut all = stream::iter(0..9).map(level_three).buffer_unordered(4);
    here!();
    all.next().await;
}

async fn timeout_of_leaf(notify: Arc<Notify>) {
    here!("Notify");
    let _ = timeout(LONG, notify.notified()).await;
}

async fn timeout_of_function() {
    here!();
    let _ = timeout(LONG, nested()).await;
}

async fn boxed() {
    let future = Box::pin(asleep());
    here!();
    future.await;
}

async fn behind_a_trait_object() {
    let future: BoxFuture<'static, ()> = nested().boxed();
    here!();
    future.await;
}

fn recursive(depth: u32) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        if depth == 0 {
            here!("timer");
            sleep(LONG).await;
        } else {
            here!();
            recursive(depth - 1).await;
        }
    })
}

async fn calls_a_closure() {
    let closure = async |times: u32| {
        here!("timer");
        sleep(LONG * times).await;
    };
    here!();
    closure(1).await;
}

async fn in_a_block() {
    let number = 3_u64;
    here!();
    let sum = async { level_three(number).await + 1 };
    note_again();
    sum.await;
}

/// Records the line of the block's own `.await`, and that of the block.
fn note_again() {
    let mut truth = TRUTH.lock().unwrap_or_else(PoisonError::into_inner);
    let lines = &mut truth.get_mut(&id()).unwrap().lines;
    let inner = lines[0];
    lines.insert(0, inner + 2);
}

trait Store {
    fn load(&self, key: u64) -> impl Future<Output = u64> + Send;
}

struct Disk;

impl Store for Disk {
    async fn load(&self, key: u64) -> u64 {
        here!();
        level_three(key).await
    }
}

async fn generic<S: Store + Sync>(store: S) {
    here!();
    store.load(1).await;
}

/// A future written by hand.
struct ByHand {
    polls: u64,
}

impl Future for ByHand {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.polls == 0 {
            note("zoo::ByHand", 0, "ByHand", None);
        }
        self.polls += 1;
        Poll::Pending
    }
}

async fn awaits_by_hand() {
    here!("ByHand");
    ByHand { polls: 0 }.await;
}

async fn awaits_poll_fn() {
    let never = |_: &mut Context<'_>| Poll::<()>::Pending;
    here!("PollFn");
    poll_fn(never).await;
}

async fn awaits_pending() {
    here!("Pending");
    pending::<()>().await;
}

async fn large() {
    let mut buffer = [0_u8; 8192];
    buffer[line!() as usize % 8192] = 1;
    here!("timer");
    sleep(LONG).await;
    std::hint::black_box(&buffer);
}

async fn aligned() {
    let number = std::hint::black_box(1_u128 << 100);
    here!("timer");
    sleep(LONG).await;
    std::hint::black_box(number);
}

async fn shared(future: futures::future::Shared<BoxFuture<'static, ()>>) {
    here!("Shared");
    future.await;
}

async fn accepts(listener: TcpListener) {
    here!("listening");
    let _ = listener.accept().await;
}

async fn reads(mut stream: TcpStream) {
    let mut byte = [0];
    here!("I/O on fd");
    let _ = stream.read_exact(&mut byte).await;
}

async fn reads_lines(stream: TcpStream) {
    let mut lines = BufReader::new(stream).lines();
    here!("I/O on fd");
    let _ = lines.next_line().await;
}

async fn datagram(socket: UdpSocket) {
    let mut bytes = [0; 8];
    here!("UDP");
    let _ = socket.recv_from(&mut bytes).await;
}

async fn unix(mut stream: UnixStream) {
    let mut byte = [0];
    here!("I/O on fd");
    let _ = stream.read(&mut byte).await;
}

async fn duplex() {
    let (mut one, other) = tokio::io::duplex(16);
    one.write_all(b"1").await.unwrap();
    let mut bytes = [0; 8];
    here!("ReadExact");
    let _ = one.read_exact(&mut bytes).await;
    drop(other);
}

async fn interrupted() {
    here!();
    let _ = tokio::signal::ctrl_c().await;
}

fn spawn_all(handle: &Handle) {
    let _in = handle.enter();
    macro_rules! spawn {
        ($($future:expr),* $(,)?) => { $(drop(tokio::spawn($future));)* };
    }
    spawn!(asleep(), nested(), until(), ticks(), joins(), joins_set(), joins_blocking());
    spawn!(
        joins_three(),
        tries_three(),
        joins_by_futures(),
        joins_all(),
        joins_all_of_forty(),
        unordered(),
        buffered()
    );
    spawn!(timeout_of_function(), boxed(), behind_a_trait_object(), recursive(4), calls_a_closure(), in_a_block());
    spawn!(generic(Disk), awaits_by_hand(), awaits_poll_fn(), awaits_pending(), large(), aligned(), duplex());
    spawn!(ByHand { polls: 0 }, interrupted());
    let shared_future = pending::<()>().boxed().shared();
    spawn!(shared(shared_future.clone()), shared(shared_future));

    let lock = Arc::new(Mutex::new(0));
    let waiters = in_order(mutex_waiter(lock.clone()), mutex_waiter(lock.clone()));
    spawn!(in_order(mutex_holder(lock), waiters));
    let (a, b, both) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)), Arc::new(Barrier::new(2)));
    spawn!(transfer_ab(a.clone(), b.clone(), both.clone()), transfer_ba(a, b, both));
    let lock = Arc::new(Mutex::new(String::new()));
    spawn!(in_order(owned_holder(lock.clone()), owned_waiter(lock)));
    let lock = Arc::new(RwLock::new(0));
    spawn!(in_order(reader(lock.clone()), in_order(writer(lock.clone()), reader_behind(lock))));
    let permits = Arc::new(Semaphore::new(3));
    let waiters = in_order(permit_waiter(permits.clone()), owned_permit_waiter(permits.clone()));
    spawn!(in_order(permit_holder(permits), waiters));
    let lock = Arc::new(Mutex::new(0));
    spawn!(in_order(guard_in_struct(lock.clone()), waits_for_struct(lock)));
    spawn!(dropped_guard(Arc::new(Mutex::new(0))));
    let cell = Arc::new(OnceCell::new());
    spawn!(in_order(initializes(cell.clone()), waits_for_cell(cell)));

    let (sender, receiver) = mpsc::channel(1);
    let (kept, other) = mpsc::channel(1);
    let (unbounded, unbounded_receiver) = mpsc::unbounded_channel();
    let (oneshot, value) = oneshot::channel();
    let (broadcast, _) = broadcast::channel(4);
    let (watch, watcher) = watch::channel(0);
    let (full, nobody_reads) = mpsc::channel(1);
    spawn!(receives(receiver), selects(other), receives_unbounded(unbounded_receiver), oneshot_value(value));
    spawn!(broadcast_value(broadcast.subscribe()), watched(watcher), sends(full), barrier(Arc::new(Barrier::new(2))));
    let (one, other, both) = (mpsc::channel(1), mpsc::channel(1), Arc::new(Barrier::new(2)));
    spawn!(actor(one.0, other.1, both.clone(), ["actor", "other actor"]));
    spawn!(actor(other.0, one.1, both, ["other actor", "actor"]));
    spawn!(reads_twice(Arc::new(RwLock::new(0))), futurelock(Arc::new(Mutex::new(0))));
    let notify = Arc::new(Notify::new());
    spawn!(notified(notify.clone()), selects_one_of_two(notify.clone()), timeout_of_leaf(notify.clone()));

    let address = "127.0.0.1:0";
    let sockets = handle.block_on(async {
        let listener = TcpListener::bind(address).await.unwrap();
        let at = listener.local_addr().unwrap();
        let (one, two) = (TcpStream::connect(at).await.unwrap(), TcpStream::connect(at).await.unwrap());
        let (three, four) = (listener.accept().await.unwrap(), listener.accept().await.unwrap());
        let (unix_one, unix_two) = UnixStream::pair().unwrap();
        spawn!(accepts(listener), reads(one), reads_lines(two), unix(unix_one));
        spawn!(datagram(UdpSocket::bind(address).await.unwrap()));
        (three, four, unix_two)
    });
    // All of it remains: nothing is sent, closed or dropped.
    std::mem::forget((sender, kept, unbounded, oneshot, broadcast, watch, nobody_reads, notify, sockets));
}

/// A task that spawns a task, and another one once the first waits.
async fn in_order(first: impl Future<Output = ()> + Send + 'static, second: impl Future<Output = ()> + Send + 'static) {
    let first: u64 = tokio::spawn(first).id().to_string().parse().unwrap();
    while !TRUTH.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&first) {
        sleep(Duration::from_millis(1)).await;
    }
    // It reports this just before it waits.
    sleep(Duration::from_millis(20)).await;
    tokio::spawn(second);
}

/// A current-thread runtime with a `LocalSet`, on a thread of its own.
fn one_thread() {
    thread::spawn(|| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.spawn(nested());
        runtime.spawn(asleep());
        let local = LocalSet::new();
        local.spawn_local(asleep());
        local.spawn_local(local_only());
        runtime.block_on(local.run_until(asleep()));
    });
}

/// Threads outside of tasks that wait for futures; one of them is hard to identify.
fn blocks_on(handle: &Handle) {
    let (one, other) = (handle.clone(), handle.clone());
    thread::spawn(move || one.block_on(nested()));
    thread::spawn(move || other.block_on(asleep()));
}

async fn local_only() {
    let number = std::rc::Rc::new(1_u64);
    here!();
    level_three(*number).await;
    drop(number);
}

/// A runtime whose thread is blocked: three of its tasks were never polled, and one of the three was cancelled. Another
/// one has ended, and its handle is kept.
fn stuck() {
    thread::spawn(|| {
        let runtime = Builder::new_current_thread().build().unwrap();
        let ended = runtime.spawn(async {});
        runtime.block_on(tokio::task::yield_now());
        let (one, two, three) = (runtime.spawn(asleep()), runtime.spawn(nested()), runtime.spawn(nested()));
        three.abort();
        std::mem::forget((ended, one, two, three));
        runtime.block_on(async { thread::sleep(LONG) });
    });
}

/// Pairs of tasks that wake each other all the time. A task waits in one of two functions, each called at one line.
/// Returns the pairs of lines.
fn storm(pairs: usize) -> Vec<[u32; 2]> {
    for _ in 0..pairs {
        let (one, other) = (mpsc::channel(1), mpsc::channel(1));
        tokio::spawn(plays(one.0, other.1, true));
        tokio::spawn(plays(other.0, one.1, false));
    }
    vec![[PLAYS + 4, PLAYS + 15], [PLAYS + 6, PLAYS + 19], [PLAYS + 7, PLAYS + 15]]
}

const PLAYS: u32 = line!();
async fn plays(sender: mpsc::Sender<[u64; 4]>, mut receiver: mpsc::Receiver<[u64; 4]>, begins: bool) {
    let mut ball = [7; 4];
    if begins {
        serves(&sender, ball).await;
    }
    while let Some(back) = catches(&mut receiver).await {
        serves(&sender, back).await;
        ball = back;
    }
    std::hint::black_box(ball);
}

async fn serves(sender: &mpsc::Sender<[u64; 4]>, ball: [u64; 4]) {
    // There usually is capacity.
    sender.send(ball).await.unwrap();
}

async fn catches(receiver: &mut mpsc::Receiver<[u64; 4]>) -> Option<[u64; 4]> {
    receiver.recv().await
}

/// This number of tasks, every other one asleep, the rest after the first in the queue of a lock; and this number of
/// megabytes of integers beside them.
fn many(tasks: usize, megabytes: usize) -> Value {
    let lock = Arc::new(Mutex::new(0));
    for number in 0..tasks {
        if number % 2 == 0 {
            tokio::spawn(one_of_many(number));
        } else {
            tokio::spawn(queues(lock.clone()));
        }
    }
    let mut seed = 1_u64;
    let numbers: Vec<u64> = std::iter::repeat_with(|| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    })
    .take(megabytes << 17)
    .collect();
    let is_queued = || WAITING.load(Ordering::Relaxed) == tasks;
    while !is_queued() {
        thread::sleep(Duration::from_millis(10));
    }
    settle();
    json!({ "tasks": tasks, "numbers": std::hint::black_box(numbers.leak()).len() })
}

/// A task reports itself just before it waits: this waits until all other threads are idle.
fn settle() {
    let is_asleep = |task: &std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('S'))
    };
    let mut quiet = 0;
    while quiet < 5 {
        let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        // This one is running.
        quiet = if threads.filter(|task| !is_asleep(task)).count() <= 1 { quiet + 1 } else { 0 };
        thread::sleep(Duration::from_millis(10));
    }
}

/// Tasks that are about to wait.
static WAITING: AtomicUsize = AtomicUsize::new(0);

async fn one_of_many(number: usize) {
    WAITING.fetch_add(1, Ordering::Relaxed);
    sleep(LONG + Duration::from_millis(number as u64)).await;
}

async fn queues(lock: Arc<Mutex<u64>>) {
    WAITING.fetch_add(1, Ordering::Relaxed);
    let mut guard = lock.lock().await;
    sleep(LONG).await;
    *guard += 1;
}

fn account(alive: usize) -> Value {
    let truth = TRUTH.lock().unwrap_or_else(PoisonError::into_inner);
    let tasks: Vec<Value> = truth
        .iter()
        .filter(|(id, _)| **id != 0)
        .map(|(id, t)| {
            json!({ "id": id, "function": t.function, "lines": t.lines, "waits_for": t.waits_for, "held": t.held })
        })
        .collect();
    let holders = HOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
    json!({ "alive": alive, "tasks": tasks, "holders": *holders })
}

fn main() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, numbers @ ..] = arguments.as_slice() {
        let _in = runtime.enter();
        let number = |at: usize| numbers.get(at).map_or(0, |n| n.parse().expect("a number"));
        let truth = match mode.as_str() {
            "storm" => json!({ "lines": storm(number(0)) }),
            "many" => many(number(0), number(1)),
            _ => panic!("storm PAIRS, many TASKS MEGABYTES, or nothing"),
        };
        println!("ready\n{truth}");
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    }
    spawn_all(runtime.handle());
    one_thread();
    stuck();
    blocks_on(runtime.handle());
    // The futures that three threads run by `block_on` are no tasks: five lines.
    let is_blocked = || TRUTH.lock().unwrap().get(&0).is_some_and(|t| t.lines.len() == 5);
    while !is_blocked()
        || account(0)["tasks"].as_array().unwrap().len() < ALL
        || runtime.metrics().num_alive_tasks() != ALL - ON_ONE_THREAD
    {
        thread::sleep(Duration::from_millis(10));
    }
    settle();
    let mut signals = Signals::new([SIGUSR1]).unwrap();
    let handle = runtime.handle().clone();
    let (ready, is_ready) = std::sync::mpsc::channel();
    thread::spawn(move || {
        ready.send(()).unwrap();
        for _ in &mut signals {
            println!("{}", account(handle.metrics().num_alive_tasks()));
        }
    });
    // Nothing starts after this: tests compare its memory over time.
    is_ready.recv().unwrap();
    println!("ready\n{}", account(runtime.metrics().num_alive_tasks()));
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    // Its blocking task never returns.
    std::process::exit(0);
}
