//! Has the sandboxed child inspect a binary: the recorder opens the files and passes their descriptors.

use std::{fs::File, io, os::fd::OwnedFd, path::Path};

use super::{
    demangle::clean,
    inspection::{Inspection, LoadAddress, MOST_MAPPINGS, TaskVtables},
    process::Process,
};
use crate::{
    error::{Error, Result},
    sandbox::{
        Sandbox,
        protocol::{Answer, Request},
    },
};

impl Inspection {
    /// Inspects the running binary of a process.
    pub(crate) fn of_running(process: &Process, sandbox: &Sandbox) -> Result<Self> {
        let opened = |source: io::Error| match source.kind() {
            io::ErrorKind::PermissionDenied => Error::Denied { pid: process.pid, source },
            io::ErrorKind::NotFound => Error::Exited(process.pid),
            _ => Error::Binary { path: process.exe.clone(), source },
        };
        ask(&process.exe, &mapped(process)?, process, sandbox, || File::open(process.exe_path()).map_err(opened))
    }

    /// Inspects a file that the user gave.
    pub(crate) fn of_given_file(path: &Path, process: &Process, load_bias: u64, sandbox: &Sandbox) -> Result<Self> {
        let opened = |source| Error::Binary { path: path.into(), source };
        ask(path, &LoadAddress::Bias(load_bias), process, sandbox, || File::open(path).map_err(opened))
    }
}

impl TaskVtables {
    /// Finds them in the running binary of a process.
    pub(crate) fn of_running(process: &Process, sandbox: &Sandbox) -> Result<Self> {
        let denied = |source| Error::Denied { pid: process.pid, source };
        let files = [process.exe_path(), format!("/proc/{}/mem", process.pid).into()];
        let files = files.iter().map(|path| Ok(File::open(path).map_err(denied)?.into()));
        let files = files.collect::<Result<Vec<OwnedFd>>>()?;
        answer(&process.exe, sandbox, Request::Vtables(mapped(process)?), files, |answer| match answer {
            Answer::Vtables(found) => Some(found),
            _ => None,
        })
    }
}

/// Where a process has mapped its binary.
fn mapped(process: &Process) -> Result<LoadAddress> {
    let exe = process.exe.to_string_lossy();
    let own = process.mappings()?.into_iter().filter(|m| m.path == exe).take(MOST_MAPPINGS);
    Ok(LoadAddress::Mappings(own.map(|m| (m.start, m.offset)).collect()))
}

fn ask(
    path: &Path,
    at: &LoadAddress,
    process: &Process,
    sandbox: &Sandbox,
    open: impl Fn() -> Result<File>,
) -> Result<Inspection> {
    let mut files: Vec<OwnedFd> = vec![open()?.into()];
    // A stripped binary is recognized only by its relocated data.
    files.extend(File::open(format!("/proc/{}/mem", process.pid)).ok().map(OwnedFd::from));
    answer(path, sandbox, Request::Inspect(at.clone()), files, |answer| match answer {
        Answer::Inspected(inspection) => Some(*inspection),
        _ => None,
    })
}

/// Sends a request about the binary at `path`; `wanted` selects the expected kind of answer.
fn answer<T>(
    path: &Path,
    sandbox: &Sandbox,
    request: Request,
    files: Vec<OwnedFd>,
    wanted: impl FnOnce(Answer) -> Option<T>,
) -> Result<T> {
    let not = |what: String| Error::NotSupported { path: path.into(), what };
    match sandbox.ask(None, request, files) {
        Ok((_, Answer::Refused(why))) => Err(not(clean(&why))),
        Ok((_, answer)) => {
            wanted(answer).ok_or_else(|| not("not readable: the sandboxed child gave an unexpected answer".into()))
        }
        Err(e) => Err(not(format!("not readable: {e}"))),
    }
}
