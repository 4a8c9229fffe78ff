//! Threads that stay in stacks of known shape, for tests of the stack walk. Each is named after its shape:
//!
//! - `deep`: more frames than a stack can hold;
//! - `nested`: a hundred frames;
//! - `signal`: a signal handler's, on an alternate stack, over the sleep that it interrupted;
//! - `jit`: code in memory that belongs to no file, with a frame pointer;
//! - `vdso`: busy reading the time;
//! - `runtime`: an idle runtime;
//! - `library`: code of a shared library that is loaded at SIGUSR1 (`--library FILE`, with a function
//!   `void call(void (*)(void))`), calling back into the program.
//!
//! It prints `ready` when all but the last are in place, and `loaded` when that one is.

#![allow(missing_docs, reason = "an example is a crate that nobody links")]

#[path = "support/program.rs"]
mod program;

use std::{
    error::Error,
    ffi::CString,
    hint::black_box,
    io,
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    ptr,
    sync::mpsc::{self, Sender},
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use program::{received, say, signals};
use signal_hook::consts::SIGUSR1;

/// Keeps threads in stacks of known shape.
#[derive(Parser)]
struct Args {
    /// A shared library to load at SIGUSR1
    #[arg(long)]
    library: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut signals = signals(&[SIGUSR1])?;
    let (ready, is_ready) = mpsc::channel();
    type Shape = fn(Sender<()>);
    let shapes: [(&str, Shape); 6] = [
        ("deep", |ready| nest(300, &ready)),
        ("nested", |ready| nest(100, &ready)),
        ("signal", in_signal),
        ("jit", in_jit),
        ("vdso", in_vdso),
        ("runtime", in_runtime),
    ];
    for (name, shape) in shapes {
        let ready = ready.clone();
        thread::Builder::new().name(name.into()).spawn(move || shape(ready))?;
        is_ready.recv()?;
    }
    // The sleep begins a moment after its announcement.
    thread::sleep(Duration::from_millis(50));
    say(format_args!("stack-shapes pid={} ready", std::process::id()))?;
    if received(&mut signals, SIGUSR1)
        && let Some(library) = args.library
    {
        thread::Builder::new().name("library".into()).spawn(move || in_library(&library, &ready))?;
        is_ready.recv()?;
        say("loaded")?;
        // Until the test ends, which holds the other end.
        io::copy(&mut io::stdin(), &mut io::sink())?;
    }
    Ok(())
}

/// Sleeps repeatedly until the program ends.
fn doze() {
    loop {
        thread::sleep(Duration::from_millis(20));
    }
}

#[inline(never)]
fn nest(depth: u32, ready: &Sender<()>) {
    // Work after the call, which would otherwise become a jump.
    let before = black_box(depth);
    if depth > 0 {
        nest(depth - 1, ready);
    } else {
        let _ = ready.send(());
        doze();
    }
    black_box(before);
}

extern "C" fn handler(_: libc::c_int) {
    doze();
}

/// A signal handler on a stack of its own.
fn in_signal(ready: Sender<()>) {
    let stack = Box::leak(vec![0_u8; 256 << 10].into_boxed_slice());
    let on = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
    // SAFETY: the stack lives as long as the program; the handler only sleeps, which is async-signal-safe.
    unsafe {
        libc::sigaltstack(&raw const on, ptr::null_mut());
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK;
        libc::sigaction(libc::SIGUSR2, &raw const action, ptr::null_mut());
    }
    // SAFETY: a call without arguments.
    let me = unsafe { libc::pthread_self() };
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        // SAFETY: the thread never ends.
        unsafe { libc::pthread_kill(me, libc::SIGUSR2) };
        let _ = ready.send(());
    });
    thread::sleep(Duration::from_secs(3600));
}

extern "C" fn called() {
    doze();
}

/// Code that belongs to no file: `push rbp; mov rbp, rsp; call rdi; pop rbp; ret`.
fn in_jit(ready: Sender<()>) {
    const CODE: [u8; 8] = [0x55, 0x48, 0x89, 0xe5, 0xff, 0xd7, 0x5d, 0xc3];
    // SAFETY: a new page, written before it is executed; the code is a function of this type.
    let code: extern "C" fn(extern "C" fn()) = unsafe {
        let page = libc::mmap(
            ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if page == libc::MAP_FAILED {
            return;
        }
        ptr::copy_nonoverlapping(CODE.as_ptr(), page.cast(), CODE.len());
        std::mem::transmute(page)
    };
    let _ = ready.send(());
    code(called);
    black_box(());
}

fn in_vdso(ready: Sender<()>) {
    let _ = ready.send(());
    loop {
        black_box(Instant::now());
    }
}

fn in_runtime(ready: Sender<()>) {
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
        let _ = ready.send(());
        runtime.block_on(async { tokio::spawn(std::future::pending::<()>()).await }).unwrap_or_default();
    }
}

fn in_library(path: &std::path::Path, ready: &Sender<()>) {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return };
    // SAFETY: the library is the test's own, and has this function.
    let call: extern "C" fn(extern "C" fn()) = unsafe {
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
        let function = if library.is_null() { ptr::null_mut() } else { libc::dlsym(library, c"call".as_ptr()) };
        if function.is_null() {
            return;
        }
        std::mem::transmute(function)
    };
    let _ = ready.send(());
    call(called);
    black_box(());
}
