//! How many threads work at one answer, and work that they share.

use std::{num::NonZero, thread};

/// However many processors there are: hud runs beside what it watches.
const MOST: usize = 8;
/// Segments of which each thread reads the rows before those are taken in.
const AT_ONCE: usize = 16;

/// As many as there are processors, within bounds.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).min(MOST)
}

/// Has all threads `read` items, and gives what they read to `take`, in the order of the items. Of few items at a time, as
/// what was read is held until it is taken.
pub(crate) fn in_order<T: Sync, R: Send, E>(
    items: &[T],
    read: impl Fn(&T) -> R + Sync,
    mut take: impl FnMut(&T, R) -> Result<(), E>,
) -> Result<(), E> {
    for some in items.chunks(threads() * AT_ONCE) {
        let done: Vec<R> = thread::scope(|scope| {
            let read = &read;
            let parts: Vec<_> = some
                .chunks(AT_ONCE)
                .map(|part| scope.spawn(move || part.iter().map(read).collect::<Vec<_>>()))
                .collect();
            let part = |part: thread::ScopedJoinHandle<'_, Vec<R>>| {
                part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            parts.into_iter().flat_map(part).collect()
        });
        for (item, read) in some.iter().zip(done) {
            take(item, read)?;
        }
    }
    Ok(())
}
