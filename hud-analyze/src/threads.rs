//! Number of threads for a query, and a parallel map that keeps the order.

use std::{num::NonZero, thread};

/// Upper limit: hud may run beside the program that it profiles.
const MOST: usize = 8;
/// Items per thread and round: results are held in memory until the round ends.
const AT_ONCE: usize = 16;

/// The number of processors, limited.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).min(MOST)
}

/// Calls `read` for all items on all threads, and `take` with each result in the order of the items. Works in rounds, as
/// results are held in memory until they are taken.
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
