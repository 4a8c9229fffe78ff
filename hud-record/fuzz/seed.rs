//! The program of the corpus: the smallest one with everything that hud searches for in a Tokio program. See
//! corpus/README.md.

#![no_std]
#![no_main]
#![feature(thread_local, fn_traits, unboxed_closures)]

use core::sync::atomic::{AtomicU64, Ordering::{AcqRel, Acquire}};

pub mod runtime {
    pub mod context {
        #[allow(non_snake_case)]
        pub mod CONTEXT {
            pub struct Context {
                pub scheduler: u64,
                pub current_task_id: Option<core::num::NonZeroU64>,
            }
            #[thread_local]
            pub static mut __RUST_STD_INTERNAL_VAL: Context = Context { scheduler: 1, current_task_id: None };
        }
    }
    pub mod task {
        pub mod raw {
            use super::super::super::*;

            #[repr(C)]
            pub struct Vtable {
                pub poll: unsafe fn(*const AtomicU64),
                schedule: unsafe fn(*const AtomicU64),
                dealloc: unsafe fn(*const AtomicU64),
                try_read_output: unsafe fn(*const AtomicU64),
                drop_join_handle_slow: unsafe fn(*const AtomicU64),
                drop_abort_handle: unsafe fn(*const AtomicU64),
                shutdown: unsafe fn(*const AtomicU64),
                trailer_offset: usize,
                scheduler_offset: usize,
                id_offset: usize,
            }

            #[inline(never)]
            pub unsafe fn poll<T: FnOnce() + Default, S>(header: *const AtomicU64) {
                let _ = unsafe { (*header).compare_exchange(4, 1, AcqRel, Acquire) };
                unsafe { context::CONTEXT::__RUST_STD_INTERNAL_VAL.scheduler += 1 };
                T::default()();
            }
            #[inline(never)]
            unsafe fn schedule<const N: u64>(header: *const AtomicU64) {
                unsafe { (*header).store(N, core::sync::atomic::Ordering::Release) };
            }
            #[inline(never)]
            unsafe fn release(header: *const AtomicU64) {
                unsafe { (*header).fetch_sub(64, AcqRel) };
            }
            #[inline(never)]
            unsafe fn shutdown(header: *const AtomicU64) {
                let _ = unsafe { (*header).compare_exchange(1, 32, AcqRel, Acquire) };
            }
            #[unsafe(no_mangle)]
            pub static VTABLE: Vtable = Vtable {
                poll: poll::<crate::app::Handler, u64>,
                schedule: schedule::<1>,
                dealloc: schedule::<2>,
                try_read_output: schedule::<3>,
                drop_join_handle_slow: schedule::<4>,
                drop_abort_handle: release,
                shutdown,
                trailer_offset: 128,
                scheduler_offset: 32,
                id_offset: 40,
            };
        }
    }
}

use runtime::context;

pub mod app {
    #[derive(Default)]
    pub struct Handler;
    pub fn work() {
        unsafe { core::arch::asm!("pause") }
    }
}
impl FnOnce<()> for app::Handler {
    type Output = ();
    extern "rust-call" fn call_once(self, (): ()) {
        app::work();
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn _start() -> ! {
    let state = AtomicU64::new(4);
    unsafe { (core::ptr::read_volatile(&raw const runtime::task::raw::VTABLE).poll)(&raw const state) };
    loop {}
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
