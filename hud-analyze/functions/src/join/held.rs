//! Rows of the right side that rows of the left side may still match, by key.
//!
//! A key has a stack of intervals `[ts, last]`, the innermost on top. Rows of an as-of join have no end, so a new one
//! replaces the ones before it. Ends decrease from bottom to top: an interval that ends no later than one that began
//! after it can never be innermost again, and is removed. So intervals on top that have ended can be popped, and the
//! first one that has not ended is the answer.
//!
//! Rows stay in the batches that they came in. If much is held compared with the rows that may still match, those rows
//! are copied together.

use arrow::{
    array::{Array as _, ArrayRef, new_null_array},
    compute::interleave,
    datatypes::DataType,
};
use datafusion::{common::exec_datafusion_err, error::Result, execution::memory_pool::MemoryReservation};

use super::keys::{BatchKeys, ByKey};

/// No interval.
const NONE: u32 = u32::MAX;
/// Bytes of a batch beside its rows.
const BATCH_WEIGHT: usize = 256;
/// Bytes that may be held before rows are copied together: some thirty batches.
const LIGHT: usize = 256 << 10;

/// A row of a held batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    batch: u32,
    row: u32,
}

/// The time range in which rows of a key match a row.
struct Interval {
    ts: i64,
    last: i64,
    spot: Spot,
    below: u32,
}

struct Batch {
    columns: Vec<ArrayRef>,
    rows: usize,
    /// Intervals that reference it.
    live: usize,
    bytes: usize,
}

/// The held rows.
pub(super) struct Held {
    types: Vec<DataType>,
    /// A null of each column.
    nulls: Vec<ArrayRef>,
    batches: Vec<Option<Batch>>,
    free_batches: Vec<u32>,
    by_key: ByKey,
    intervals: Vec<Interval>,
    free: u32,
    in_use: usize,
    /// Rows and batches that are held.
    weight: usize,
    limit: usize,
    batch_bytes: usize,
    /// Bytes of keys that are not in the map itself.
    key_bytes: usize,
    reserved: MemoryReservation,
    batch_size: usize,
}

impl Held {
    pub(super) fn new(types: Vec<DataType>, by_key: ByKey, reserved: MemoryReservation, batch_size: usize) -> Self {
        let nulls = types.iter().map(|data_type| new_null_array(data_type, 1)).collect();
        Held {
            types,
            nulls,
            batches: Vec::new(),
            free_batches: Vec::new(),
            by_key,
            intervals: Vec::new(),
            free: NONE,
            in_use: 0,
            weight: 0,
            limit: LIGHT,
            batch_bytes: 0,
            key_bytes: 0,
            reserved,
            batch_size: batch_size.max(1),
        }
    }

    /// Whether it is time to [tidy](Held::tidy).
    pub(super) fn is_heavy(&self) -> bool {
        self.weight > self.limit
    }

    /// Reserves memory for the held rows; `extra` is other memory in use.
    pub(super) fn account(&mut self, extra: usize) -> Result<()> {
        let intervals = self.intervals.capacity() * size_of::<Interval>();
        let batches = self.batches.capacity() * size_of::<Option<Batch>>();
        let all = self.batch_bytes + self.by_key.size() + self.key_bytes + intervals + batches + extra;
        self.reserved.try_resize(all)
    }

    /// Holds a batch.
    pub(super) fn add(&mut self, columns: Vec<ArrayRef>, rows: usize) -> Result<u32> {
        let bytes = columns.iter().map(|c| c.to_data().get_slice_memory_size()).sum::<Result<usize, _>>()?;
        self.weight += rows + BATCH_WEIGHT;
        self.batch_bytes += bytes;
        let batch = Some(Batch { columns, rows, live: 0, bytes });
        if let Some(free) = self.free_batches.pop() {
            if let Some(place) = self.batches.get_mut(index(free)) {
                *place = batch;
            }
            return Ok(free);
        }
        let number = u32::try_from(self.batches.len()).ok().filter(|n| *n != NONE);
        let number = number.ok_or_else(|| exec_datafusion_err!("a join holds more batches than it can count"))?;
        self.batches.push(batch);
        Ok(number)
    }

    /// Lets the row `row` of `batch` match from `ts` to `last`. No row of an earlier `ts` comes after it.
    pub(super) fn open(&mut self, keys: &BatchKeys, row: usize, batch: u32, ts: i64, last: i64) -> Result<()> {
        let known = self.by_key.len();
        let row32 =
            u32::try_from(row).map_err(|_| exec_datafusion_err!("a batch has more rows than can be counted"))?;
        let Some(top) = self.by_key.entry(keys, row, NONE) else { return Ok(()) };
        let mut top = *top;
        if let (BatchKeys::Rows(rows, _), true) = (keys, self.by_key.len() > known) {
            self.key_bytes += rows.row(row).as_ref().len();
        }
        // Of those that began at the same instant, the shorter are further inside.
        let mut above = NONE;
        let mut at = top;
        while let Some(interval) = self.intervals.get(index(at))
            && interval.ts == ts
            && interval.last < last
        {
            above = at;
            at = interval.below;
        }
        while let Some(interval) = self.intervals.get(index(at))
            && interval.last <= last
        {
            let below = interval.below;
            self.close(at);
            at = below;
        }
        let new = self.place(Interval { ts, last, spot: Spot { batch, row: row32 }, below: at })?;
        match self.intervals.get_mut(index(above)) {
            Some(above) => above.below = new,
            None => top = new,
        }
        if let Some(known) = self.by_key.entry(keys, row, NONE) {
            *known = top;
        }
        Ok(())
    }

    /// The row that a left row of that key matches at `now`. Later calls have later times.
    pub(super) fn find(&self, keys: &BatchKeys, row: usize, now: i64) -> Option<Spot> {
        let mut at = self.by_key.get(keys, row)?;
        loop {
            let interval = self.intervals.get(index(at))?;
            if interval.last >= now {
                return Some(interval.spot);
            }
            at = interval.below;
        }
    }

    /// Removes intervals that have ended at `now`, drops unreferenced batches except `current`, and copies the
    /// remaining rows together if they are few compared with their batches. Earlier spots become invalid.
    pub(super) fn tidy(&mut self, now: i64, current: Option<u32>) -> Result<()> {
        let mut by_key = std::mem::replace(&mut self.by_key, ByKey::Integers(Default::default()));
        by_key.retain(|top| {
            while let Some(interval) = self.intervals.get(index(*top))
                && interval.last < now
            {
                let below = interval.below;
                self.close(*top);
                *top = below;
            }
            *top != NONE
        });
        self.key_bytes = by_key.key_bytes();
        self.by_key = by_key;
        self.forget_dead(current);
        if self.weight > self.limit / 2 {
            self.copy_together(current)?;
        }
        self.limit = LIGHT.max(self.weight.saturating_mul(2));
        Ok(())
    }

    /// Drops batches whose rows cannot match any more, except `current`. Earlier spots may refer to them.
    pub(super) fn forget_dead(&mut self, current: Option<u32>) {
        for number in 0..self.batches.len() {
            let number = u32::try_from(number).unwrap_or(NONE);
            let is_dead = |batch: &Option<Batch>| batch.as_ref().is_some_and(|batch| batch.live == 0);
            if Some(number) != current && self.batches.get(index(number)).is_some_and(is_dead) {
                self.forget(number);
            }
        }
    }

    /// Drops a batch without matching rows.
    pub(super) fn forget(&mut self, number: u32) {
        if let Some(batch) = self.batches.get_mut(index(number)).and_then(Option::take) {
            self.weight = self.weight.saturating_sub(batch.rows + BATCH_WEIGHT);
            self.batch_bytes = self.batch_bytes.saturating_sub(batch.bytes);
            self.free_batches.push(number);
        }
    }

    fn copy_together(&mut self, current: Option<u32>) -> Result<()> {
        // Rows of the current batch stay in place. In the order of the batches, so that each is dropped as soon as its
        // rows are copied, and little is held twice.
        let mut numbers = Vec::with_capacity(self.in_use);
        self.each_in_use(|number, interval| {
            if Some(interval.spot.batch) != current {
                numbers.push((interval.spot.batch, interval.spot.row, number));
            }
        });
        numbers.sort_unstable();
        for chunk in numbers.chunks(self.batch_size) {
            let spots: Vec<_> = chunk.iter().map(|(batch, row, _)| Some(Spot { batch: *batch, row: *row })).collect();
            let columns = self.rows(&spots)?;
            let copy = self.add(columns, chunk.len())?;
            for (row, (old, _, number)) in chunk.iter().enumerate() {
                if let Some(interval) = self.intervals.get_mut(index(*number)) {
                    interval.spot = Spot { batch: copy, row: u32::try_from(row).unwrap_or(u32::MAX) };
                }
                self.gain(copy);
                self.lose(*old);
            }
            self.forget_dead(current);
        }
        Ok(())
    }

    fn gain(&mut self, batch: u32) {
        if let Some(batch) = self.batches.get_mut(index(batch)).and_then(Option::as_mut) {
            batch.live += 1;
        }
    }

    fn lose(&mut self, batch: u32) {
        if let Some(batch) = self.batches.get_mut(index(batch)).and_then(Option::as_mut) {
            batch.live = batch.live.saturating_sub(1);
        }
    }

    fn each_in_use(&self, mut each: impl FnMut(u32, &Interval)) {
        let mut piles = Vec::new();
        match &self.by_key {
            ByKey::Integers(map) => piles.extend(map.values().copied()),
            ByKey::Rows(map) => piles.extend(map.values().copied()),
        }
        for mut at in piles {
            while let Some(interval) = self.intervals.get(index(at)) {
                each(at, interval);
                at = interval.below;
            }
        }
    }

    fn batch(&self, number: u32) -> Option<&Batch> {
        self.batches.get(index(number))?.as_ref()
    }

    /// The columns of these rows; null where there is none.
    pub(super) fn rows(&self, spots: &[Option<Spot>]) -> Result<Vec<ArrayRef>> {
        // Only the referenced batches, renumbered; the first is that of nulls.
        let mut used: Vec<&Batch> = Vec::new();
        let mut renumbered = vec![0; self.batches.len()];
        let mut places = Vec::with_capacity(spots.len());
        for spot in spots {
            let Some((spot, batch)) = spot.and_then(|spot| Some((spot, self.batch(spot.batch)?))) else {
                places.push((0, 0));
                continue;
            };
            let Some(number) = renumbered.get_mut(index(spot.batch)) else { continue };
            if *number == 0 {
                used.push(batch);
                *number = used.len();
            }
            places.push((*number, index(spot.row)));
        }
        let column = |at: usize| {
            let nulls = self.nulls.get(at).into_iter();
            let arrays = nulls.chain(used.iter().filter_map(|batch| batch.columns.get(at))).map(|array| &**array);
            Ok(interleave(&arrays.collect::<Vec<_>>(), &places)?)
        };
        (0..self.types.len()).map(column).collect()
    }

    fn place(&mut self, interval: Interval) -> Result<u32> {
        self.in_use += 1;
        self.gain(interval.spot.batch);
        if let Some(free) = self.intervals.get_mut(index(self.free)) {
            let number = self.free;
            self.free = free.below;
            *free = interval;
            return Ok(number);
        }
        let number = u32::try_from(self.intervals.len()).ok().filter(|number| *number != NONE);
        self.intervals.push(interval);
        number.ok_or_else(|| exec_datafusion_err!("a join holds more rows than it can count"))
    }

    fn close(&mut self, number: u32) {
        let Some(interval) = self.intervals.get_mut(index(number)) else { return };
        interval.below = self.free;
        let batch = interval.spot.batch;
        self.free = number;
        self.in_use = self.in_use.saturating_sub(1);
        self.lose(batch);
    }
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
