//! A thousand task types, each with its own instance of every generic function of Tokio that handles a spawned future.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Runtime;

use crate::{compute, count};

/// A future of a type of its own; its code uses `N`, so that the compiler merges no two of them.
struct Work<const N: usize>;

impl<const N: usize> Future for Work<N> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        compute(u64::try_from(N).unwrap_or(0), 50);
        count(N);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[inline(never)]
fn spawn<const N: usize>(runtime: &Runtime) {
    runtime.spawn(Work::<N>);
}

/// Spawns the ten types whose numbers end in 0 to 9.
macro_rules! spawn_ten {
    ($runtime:ident, $tens:expr) => { spawn_ten!($runtime, $tens, 0 1 2 3 4 5 6 7 8 9) };
    ($runtime:ident, $tens:expr, $($ones:literal)*) => { $(spawn::<{ 10 * $tens + $ones }>($runtime);)* };
}

macro_rules! spawn_hundred {
    ($runtime:ident, $hundreds:literal) => { spawn_hundred!($runtime, $hundreds, 0 1 2 3 4 5 6 7 8 9) };
    ($runtime:ident, $hundreds:literal, $($tens:literal)*) => { $(spawn_ten!($runtime, (10 * $hundreds + $tens));)* };
}

macro_rules! spawn_thousand {
    ($runtime:ident, $($hundreds:literal)*) => { $(spawn_hundred!($runtime, $hundreds);)* };
}

/// Spawns a task of each type.
pub(crate) fn start(runtime: &Runtime) {
    spawn_thousand!(runtime, 0 1 2 3 4 5 6 7 8 9);
}
