//! The meaning of the kernel's refusals, as hud's errors.

use crate::{error::Error, kernel, privilege};

pub(super) fn missing(what: &str) -> Error {
    Error::Kernel {
        what: format!("the kernel object has no {what}"),
        why: "hud-ebpf/prebuilt is out of date; run `cargo xtask build-ebpf`".into(),
    }
}

/// A hint if the system denies perf events to processes with all the capabilities that hud asks for.
pub(super) fn paranoid() -> String {
    match kernel::perf_event_paranoid() {
        Some(level @ 3..) => format!(
            " (kernel.perf_event_paranoid is {level}: above 2 this kernel requires CAP_SYS_ADMIN for perf events; set it to 2)"
        ),
        _ => String::new(),
    }
}

/// The error for a program that the verifier rejected.
pub(super) fn rejection(program: &str, why: &str) -> Error {
    Error::Rejected { program: program.into(), release: kernel::release(), why: why.into() }
}

/// The verifier's reason: the last line of its log before the statistics.
pub(super) fn verdict(log: &str) -> &str {
    let statistics = ["processed ", "verification time", "stack depth", "func#", "mark_precise", "max_states"];
    let is_reason = |line: &&str| !line.is_empty() && !statistics.iter().any(|s| line.starts_with(s));
    log.lines().rev().map(str::trim).find(is_reason).unwrap_or_default()
}

/// The system's error behind one of aya's.
pub(super) fn kernel_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a std::io::Error> {
    std::iter::successors(Some(error), |e| e.source()).find_map(|e| e.downcast_ref())
}

/// Translates an error of aya's: no permission, no eBPF, or a rejected program.
pub(super) fn refused(what: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    let mut why = error.to_string();
    let mut source = error.source();
    let io = kernel_error(error);
    while let Some(e) = source {
        let text = e.to_string();
        if !why.contains(&text) {
            why = format!("{why}: {text}");
        }
        source = e.source();
    }
    let is_denied = io.map(std::io::Error::kind) == Some(std::io::ErrorKind::PermissionDenied);
    let why = match why.split_once("Verifier output:") {
        Some((call, log)) => {
            let reason = verdict(log);
            // The verifier reports "permission denied" for rejected programs too.
            let lacks_rights = is_denied && privilege::lacks_bpf();
            if !reason.is_empty() && !lacks_rights {
                return rejection(what.rsplit('/').next().unwrap_or(what), reason);
            }
            call.trim().trim_end_matches('.').to_string()
        }
        None => why.lines().next().unwrap_or_default().trim().to_string(),
    };
    let what = what.to_string();
    match io.map(std::io::Error::kind) {
        Some(std::io::ErrorKind::PermissionDenied) => Error::NoPermission { what, why },
        Some(std::io::ErrorKind::NotFound | std::io::ErrorKind::Unsupported) => Error::NoBpf { what, why },
        _ if io.and_then(std::io::Error::raw_os_error) == Some(rustix::io::Errno::NOSYS.raw_os_error()) => {
            Error::NoBpf { what, why }
        }
        _ => Error::Kernel { what, why },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_reason_is_the_last_line_before_its_statistics() {
        let log = "63: (79) r1 = *(u64 *)(r0 +1688)\nR1 !read_ok\nverification time 12 usec\nstack depth 96+0\nprocessed 90 \
                   insns (limit 1000000) max_states_per_insn 0\n";
        assert_eq!(verdict(log), "R1 !read_ok");
        assert_eq!(verdict(" verification time 12 usec\nstack depth 96\nprocessed 90 insns\n"), "");
    }
}
