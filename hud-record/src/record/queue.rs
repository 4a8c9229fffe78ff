//! The queue to the writer. The drain never waits here: a disk may hang for minutes, while the ring lasts for a second.
//!
//! The queue is bounded by bytes. Beyond the bound rows are dropped and counted, and the writer reports them as `drops`
//! of the stage `writer` once it continues. Records of losses and names have twice the room, and the namer waits for
//! it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use arrow::array::RecordBatch;
use hud_common::session::{Columns, Table};

use super::{account::KernelAccount, disk::waits};
use crate::kernel;

/// Largest queue (bytes): 0.9 s at 230,000 polls/s with their wakes, 20 s at 10,000.
const MOST: u64 = 20 << 20;
/// Interval at which a waiting sender checks for room.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Numbers of rows by table.
pub(super) type Counts = BTreeMap<Table, u64>;

/// Rows of a table, and their size in bytes.
pub(super) struct Rows {
    pub(super) table: Table,
    pub(super) batch: RecordBatch,
    pub(super) bytes: u64,
}

/// A message to the writer.
pub(super) enum Message {
    Rows(Vec<Rows>),
    /// The kernel's part of the account as of `ts`, and the rows dropped by then.
    Account {
        ts: i64,
        kernel: Vec<KernelAccount>,
        given_up: Counts,
    },
    /// Seal every log.
    SealAll,
}

/// State shared by the writer and its senders.
#[derive(Debug, Default)]
pub(super) struct Flow {
    bytes: AtomicU64,
    /// The writer has ended: there will be no more room.
    is_over: AtomicBool,
    given_up: Mutex<GivenUp>,
}

/// Rows for which there was no room.
#[derive(Debug, Default)]
struct GivenUp {
    all: Counts,
    unreported: Counts,
    /// When the first unreported row was dropped (CLOCK_MONOTONIC).
    since: u64,
}

impl Flow {
    fn given_up(&self) -> std::sync::MutexGuard<'_, GivenUp> {
        // Its numbers are consistent after each step.
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message was processed.
    pub(super) fn done(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The writer takes no more messages.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// The rows dropped since the last call, and since when.
    pub(super) fn unreported(&self) -> Option<(u64, Counts)> {
        let mut given_up = self.given_up();
        let unreported = std::mem::take(&mut given_up.unreported);
        (!unreported.is_empty()).then_some((given_up.since, unreported))
    }

    /// All rows dropped so far.
    pub(super) fn all_given_up(&self) -> Counts {
        self.given_up().all.clone()
    }
}

/// Sends batches to the writer. Cheap to clone; the writer ends when every handle is dropped.
#[derive(Clone)]
pub(super) struct BatchSender {
    to: Sender<Message>,
    flow: Arc<Flow>,
    can_wait: bool,
}

/// Creates a queue to a writer.
pub(super) fn queue() -> (BatchSender, Receiver<Message>, Arc<Flow>) {
    let (to, from) = mpsc::channel();
    let flow = Arc::<Flow>::default();
    (BatchSender { to, flow: Arc::clone(&flow), can_wait: false }, from, flow)
}

impl BatchSender {
    /// A handle that waits if there is no room.
    pub(super) fn patient(&self) -> Self {
        BatchSender { can_wait: true, ..self.clone() }
    }

    /// Sends the rows of `columns`, if there are any; without room they are dropped and counted. After the writer's end
    /// they are lost too (its error is reported at the end).
    pub(super) fn send<C: Columns>(&self, columns: &mut C) {
        self.burst().add(columns);
    }

    /// For rows of several tables: they are sent together, and the writer wakes once.
    pub(super) fn burst(&self) -> Burst<'_> {
        Burst { out: self, rows: Vec::new() }
    }

    /// Makes room for the rows of `columns`, if there are any.
    fn admit<C: Columns>(&self, columns: &mut C) -> Option<Rows> {
        if columns.is_empty() {
            return None;
        }
        let batch = columns.finish();
        let bytes = batch.get_array_memory_size() as u64;
        let most = if waits(C::TABLE) { 2 * MOST } else { MOST };
        while self.can_wait && self.is_full(most) && !self.flow.is_over.load(Ordering::Relaxed) {
            thread::sleep(LOOK_AGAIN);
        }
        if self.is_full(most) {
            self.give_up(C::TABLE, batch.num_rows() as u64);
            return None;
        }
        self.flow.bytes.fetch_add(bytes, Ordering::Relaxed);
        Some(Rows { table: C::TABLE, batch, bytes })
    }

    fn is_full(&self, most: u64) -> bool {
        self.flow.bytes.load(Ordering::Relaxed) >= most
    }

    fn give_up(&self, table: Table, rows: u64) {
        let mut given_up = self.flow.given_up();
        if given_up.unreported.is_empty() {
            given_up.since = kernel::now();
        }
        *given_up.unreported.entry(table).or_default() += rows;
        *given_up.all.entry(table).or_default() += rows;
    }

    /// Sends the kernel's part of the account as of `ts`; the writer adds its own. Left out without room: the next one
    /// contains it too.
    pub(super) fn account(&self, ts: i64, kernel: Vec<KernelAccount>) {
        if !self.is_full(MOST) {
            let _ = self.to.send(Message::Account { ts, kernel, given_up: self.flow.all_given_up() });
        }
    }

    /// Seals every log, regardless of its age.
    pub(super) fn seal_all(&self) {
        let _ = self.to.send(Message::SealAll);
    }
}

/// Rows of several tables, sent together in the order of adding. Sent when dropped.
pub(super) struct Burst<'a> {
    out: &'a BatchSender,
    rows: Vec<Rows>,
}

impl Burst<'_> {
    /// Adds the rows of `columns`, as [`BatchSender::send`] sends them.
    pub(super) fn add<C: Columns>(&mut self, columns: &mut C) -> &mut Self {
        self.rows.extend(self.out.admit(columns));
        self
    }
}

impl Drop for Burst<'_> {
    fn drop(&mut self) {
        if !self.rows.is_empty() {
            let _ = self.out.to.send(Message::Rows(std::mem::take(&mut self.rows)));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hud_common::session::{CoverageColumns, CoverageRow, WakeColumns, WakeRow};

    use super::*;

    fn wakes(rows: usize) -> WakeColumns {
        let mut columns = WakeColumns::default();
        let row = WakeRow { ts: 1, task_id: 2, waker_task_id: None, waker_tid: 3 };
        (0..rows).for_each(|_| columns.push(row.clone()));
        columns
    }

    #[test]
    fn drops_and_counts_rows_while_the_writer_hangs() {
        let (out, from, flow) = queue();
        let (batches, rows) = (1000, 4096);
        for _ in 0..batches {
            out.send(&mut wakes(rows));
        }
        drop(out);
        let (mut stored, mut bytes) = (0, 0);
        for message in from {
            let Message::Rows(rows) = message else { panic!("another message") };
            for Rows { batch, bytes: size, .. } in rows {
                stored += batch.num_rows();
                bytes += size;
                flow.done(size);
            }
        }
        assert!((MOST..MOST + (1 << 20)).contains(&bytes), "{bytes} bytes were on their way");
        let (since, unreported) = flow.unreported().unwrap();
        assert!(since > 0);
        assert_eq!(unreported, [(Table::Wakes, (batches * rows - stored) as u64)].into());
        assert_eq!((flow.unreported(), flow.all_given_up()), (None, unreported));
    }

    #[test]
    fn sends_a_burst_as_one_message_in_order() {
        let (out, from, _flow) = queue();
        let mut coverage = CoverageColumns::default();
        coverage.push(CoverageRow { ts: 1, dur: 2, stream: "polls".into(), reason: "still on".into() });
        out.burst().add(&mut coverage).add(&mut wakes(0)).add(&mut wakes(3));
        out.burst().add(&mut wakes(0));
        drop(out);
        let messages: Vec<_> = from.iter().collect();
        let [Message::Rows(rows)] = messages.as_slice() else { panic!("{} messages", messages.len()) };
        let sent: Vec<_> = rows.iter().map(|r| (r.table, r.batch.num_rows())).collect();
        assert_eq!(sent, [(Table::Coverage, 1), (Table::Wakes, 3)]);
    }

    #[test]
    fn an_account_contains_the_rows_dropped_before_it() {
        let (out, from, flow) = queue();
        out.give_up(Table::Polls, 3);
        out.account(1, Vec::new());
        out.give_up(Table::Polls, 4);
        let Ok(Message::Account { given_up, .. }) = from.try_recv() else { panic!("no account") };
        assert_eq!(given_up, [(Table::Polls, 3)].into());
        assert_eq!(flow.unreported().unwrap().1, [(Table::Polls, 7)].into());
    }

    #[test]
    fn a_patient_sender_waits_for_room_or_the_writers_end() {
        let (out, from, flow) = queue();
        let size = 1 << 15;
        let batches = 64;
        let sender = {
            let out = out.patient();
            thread::spawn(move || (0..batches).for_each(|_| out.send(&mut wakes(size))))
        };
        drop(out);
        for stored in 0..batches {
            let Ok(Message::Rows(rows)) = from.recv() else { panic!("{stored} batches came") };
            let [Rows { batch, bytes, .. }] = rows.as_slice() else { panic!("{} batches at once", rows.len()) };
            assert_eq!(batch.num_rows(), size);
            flow.done(*bytes);
        }
        sender.join().unwrap();
        assert_eq!(flow.unreported(), None);

        let (out, _from, flow) = queue();
        flow.bytes.store(u64::MAX / 2, Ordering::Relaxed);
        flow.end();
        out.patient().send(&mut wakes(1));
        assert_eq!(flow.all_given_up(), [(Table::Wakes, 1)].into());
    }
}
