//! The state of each thread of the target, and events of threads that start, are renamed or exit.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_current_comm, bpf_ktime_get_ns},
};
use hud_wire::{EventKind, Stream, ThreadChange, ThreadEvent, ThreadState};

use crate::maps::{NEW_THREAD, THREADS, count, send};

/// The state of the current thread, which is one of the target's; created and reported when it is first observed. `None`
/// if the map is full: an event of `stream` is then lost.
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

/// Creates a state for a thread. The thread has the name of the current one: it is that thread, or was started by it.
#[inline(always)]
fn insert(tid: u32, parent: u32) -> Option<*mut ThreadState> {
    let fresh = NEW_THREAD.get(0)?;
    let is_new = THREADS.insert(tid, fresh, BPF_NOEXIST as u64).is_ok();
    let state = THREADS.get_ptr_mut(tid)?;
    if is_new {
        let comm = bpf_get_current_comm().unwrap_or_default();
        // SAFETY: the thread map's own memory.
        unsafe { (*state).comm = comm };
        report(tid, comm, ThreadChange::Seen, parent);
    }
    Some(state)
}

/// The current thread, one of the target's, starts a new one, which has its parent's name until it runs.
#[inline(always)]
pub fn born(tid: u32, parent: u32) {
    let _ = insert(tid, parent);
}

/// Counts an event that was lost for lack of room in a map.
#[inline(always)]
pub fn untracked(stream: Stream) {
    count!(streams[stream as usize].untracked);
}

/// Reports a new name of the current thread.
#[inline(always)]
pub fn update_name(tid: u32, state: &mut ThreadState) {
    let comm = bpf_get_current_comm().unwrap_or_default();
    let (a, b) = (halves(&comm), halves(&state.comm));
    if a.0 != b.0 || a.1 != b.1 {
        state.comm = comm;
        report(tid, comm, ThreadChange::Renamed, 0);
    }
}

/// The current thread exits.
#[inline(always)]
pub fn gone(tid: u32) {
    if THREADS.remove(tid).is_ok() {
        report(tid, bpf_get_current_comm().unwrap_or_default(), ThreadChange::Gone, 0);
    }
}

#[inline(always)]
fn report(tid: u32, comm: [u8; 16], change: ThreadChange, parent: u32) {
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
