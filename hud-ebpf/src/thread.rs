//! The state of each thread of the target, and the news of threads coming, renamed and going.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_current_comm, bpf_ktime_get_ns},
};
use hud_common::wire::{EventKind, Stream, ThreadChange, ThreadEvent, ThreadState};

use crate::maps::{NEW_THREAD, THREADS, count, send};

/// The state of the current thread, which is one of the target's; made and told to user space at first sight.
/// `None` where there is no room for it: an event of `stream` is then lost.
#[inline(always)]
pub fn current(tid: u32, stream: Stream) -> Option<*mut ThreadState> {
    if let Some(state) = THREADS.get_ptr_mut(tid) {
        return Some(state);
    }
    let state = insert(tid, 0);
    if state.is_none() {
        untracked(stream);
    }
    state
}

/// A state for a thread that has none, which bears the name of the current one, by whom it was started or which it is.
#[inline(always)]
fn insert(tid: u32, parent: u32) -> Option<*mut ThreadState> {
    let fresh = NEW_THREAD.get(0)?;
    let is_new = THREADS.insert(tid, fresh, BPF_NOEXIST as u64).is_ok();
    let state = THREADS.get_ptr_mut(tid)?;
    if is_new {
        let comm = bpf_get_current_comm().unwrap_or_default();
        // SAFETY: the thread map's own memory.
        unsafe { (*state).comm = comm };
        tell(tid, comm, ThreadChange::Seen, parent);
    }
    Some(state)
}

/// The current thread, which is one of the target's, starts a new one; it bears its parent's name until it runs.
#[inline(always)]
pub fn born(tid: u32, parent: u32) {
    let _ = insert(tid, parent);
}

/// Counts an event that cannot be followed.
#[inline(always)]
pub fn untracked(stream: Stream) {
    count!(streams[stream as usize].untracked);
}

/// Tells user space when the current thread has another name than before.
#[inline(always)]
pub fn note_name(tid: u32, state: &mut ThreadState) {
    let comm = bpf_get_current_comm().unwrap_or_default();
    let (a, b) = (halves(&comm), halves(&state.comm));
    if a.0 != b.0 || a.1 != b.1 {
        state.comm = comm;
        tell(tid, comm, ThreadChange::Renamed, 0);
    }
}

/// The current thread exits.
#[inline(always)]
pub fn gone(tid: u32) {
    if THREADS.remove(tid).is_ok() {
        tell(tid, bpf_get_current_comm().unwrap_or_default(), ThreadChange::Gone, 0);
    }
}

#[inline(always)]
fn tell(tid: u32, comm: [u8; 16], change: ThreadChange, parent: u32) {
    let event = ThreadEvent {
        kind: EventKind::Thread as u32,
        tid,
        // SAFETY: a helper without arguments.
        ts: unsafe { bpf_ktime_get_ns() },
        comm,
        change: change as u32,
        parent,
    };
    send(Stream::Threads, &event, size_of::<ThreadEvent>() as u64);
}

#[inline(always)]
fn halves(comm: &[u8; 16]) -> (u64, u64) {
    // Two words instead of a byte loop: the verifier walks every iteration.
    // SAFETY: 16 readable bytes; read_unaligned asks for no alignment.
    unsafe {
        let words = comm.as_ptr().cast::<u64>();
        (words.read_unaligned(), words.add(1).read_unaligned())
    }
}
