//! The bpf(2) system call, for features that aya 0.14 lacks: `uprobe_multi` links, batch updates of maps, and elements of
//! hud's own types.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use aya_obj::generated::{bpf_attr, bpf_cmd};
use bytemuck::{AnyBitPattern, NoUninit};

/// Elements per call.
const BATCH: usize = 64 << 10;

/// Writes `values` to an array from element `first` on (BPF_MAP_UPDATE_BATCH, Linux 5.6).
pub(crate) fn write_array<T: NoUninit>(map: BorrowedFd<'_>, first: u32, values: &[T]) -> io::Result<()> {
    // Elements of an array are padded to multiples of 8 bytes in the map, but passed unpadded.
    let mut next = first;
    for values in values.chunks(BATCH) {
        let count = u32::try_from(values.len()).map_err(io::Error::other)?;
        let end = next.checked_add(count).ok_or_else(|| io::Error::other("past the end of the map"))?;
        let keys: Vec<u32> = (next..end).collect();
        let mut attr = zeroed();
        attr.batch.keys = keys.as_ptr() as u64;
        attr.batch.values = values.as_ptr() as u64;
        attr.batch.count = count;
        attr.batch.map_fd = map.as_raw_fd().cast_unsigned();
        call(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attr)?;
        next = end;
    }
    Ok(())
}

/// Reads an element of an array.
pub(crate) fn read_array<T: AnyBitPattern>(map: BorrowedFd<'_>, index: u32) -> io::Result<T> {
    // The kernel writes whole elements, which are no larger than this.
    let mut element = [0_u64; 2];
    if size_of::<T>() > size_of_val(&element) {
        return Err(io::Error::other("a large element"));
    }
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd().cast_unsigned();
    attr.__bindgen_anon_2.key = (&raw const index) as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = element.as_mut_ptr() as u64;
    call(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr)?;
    bytemuck::bytes_of(&element)
        .get(..size_of::<T>())
        .map(bytemuck::pod_read_unaligned)
        .ok_or_else(|| io::Error::other("too short"))
}

/// An empty argument.
pub(crate) fn zeroed() -> bpf_attr {
    // SAFETY: a union of structures of plain integers.
    unsafe { std::mem::zeroed() }
}

/// A call that returns a file descriptor.
pub(crate) fn open(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let fd = call(command, attr)?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just opened it for this process, close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Any call.
pub(crate) fn call(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: `attr` has the given size, and its pointers are valid for the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_long, attr, size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
