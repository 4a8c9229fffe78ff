//! A program without Tokio that loads one with it: runs `libtest_async_app.so`, which lies beside it, as Python runs an
//! extension.

// An example is a crate that nobody links.
#![allow(missing_docs)]

use std::error::Error;
use std::ffi::{CStr, CString, c_char, c_int, c_void};

// In every C library.
unsafe extern "C" {
    fn dlopen(path: *const c_char, mode: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlerror() -> *const c_char;
}

const RTLD_NOW: c_int = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::current_exe()?.with_file_name("libtest_async_app.so");
    let path = CString::new(path.into_os_string().into_encoded_bytes())?;
    // SAFETY: the strings end with a zero byte. `run_program` is a function of that type.
    unsafe {
        let library = dlopen(path.as_ptr(), RTLD_NOW);
        let run = if library.is_null() { library } else { dlsym(library, c"run_program".as_ptr()) };
        if run.is_null() {
            return Err(CStr::from_ptr(dlerror()).to_string_lossy().into());
        }
        std::mem::transmute::<*mut c_void, extern "C" fn()>(run)();
    }
    Ok(())
}
