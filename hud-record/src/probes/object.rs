//! The kernel object.

/// The object that `cargo xtask build-ebpf` builds from hud-ebpf.
pub(super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../hud-ebpf/prebuilt/hud.bpf.o"));
