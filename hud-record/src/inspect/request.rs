//! Has the sandboxed child inspect a binary: the recorder opens the files and passes their descriptors.

use std::{fs::File, io, os::fd::OwnedFd, path::Path};

use super::{
    demangle::clean,
    inspection::{Inspection, LoadAddress, Loaded, MOST_MAPPINGS, TaskVtables},
    process::Process,
    search,
};
use crate::{
    error::{Error, Result},
    sandbox::{
        Sandbox,
        protocol::{Answer, Request},
    },
};

/// Libraries that are inspected.
const MOST_CANDIDATES: usize = 16;

impl Inspection {
    /// Inspects the running binary of a process. If it has no tokio, inspects the shared libraries that may have, and
    /// sets [`Process::library`] to the one with most task types.
    pub(crate) fn of_running(process: &mut Process, sandbox: &Sandbox) -> Result<Self> {
        let own = Self::of_file_with_tokio(process, sandbox)?;
        if own.tokio.is_ok() {
            return Ok(own);
        }
        let candidates = search::libraries_with_tokio(process);
        let mut found: Vec<(usize, Process, Self)> = Vec::new();
        for library in candidates.into_iter().take(MOST_CANDIDATES) {
            let of = Process { library: Some(library), ..process.clone() };
            match Self::of_file_with_tokio(&of, sandbox) {
                Ok(inspection) => {
                    let types = inspection.tokio.as_ref().map_or(0, |tokio| tokio.poll_fns.len());
                    found.push((types, of, inspection));
                }
                Err(e) => tracing::debug!("{e}"),
            }
        }
        found.retain(|(types, ..)| *types > 0);
        found.sort_by_key(|(types, ..)| *types);
        let Some((_, of, mut inspection)) = found.pop() else { return Ok(own) };
        *process = of;
        if let Ok(tokio) = &mut inspection.tokio {
            let library = clean(&process.tokio_file().to_string_lossy());
            tokio.notes.push(format!("tokio is in the shared library {library}"));
            let others = found.iter().map(|(_, of, _)| clean(&of.tokio_file().to_string_lossy()));
            tokio.notes.extend(others.map(|other| format!("the tasks of tokio in {other} are not recorded")));
        }
        Ok(inspection)
    }

    /// Inspects the binary of a process, or its library.
    fn of_file_with_tokio(process: &Process, sandbox: &Sandbox) -> Result<Self> {
        let opened = |source: io::Error| match source.kind() {
            io::ErrorKind::PermissionDenied => Error::Denied { pid: process.pid, source },
            io::ErrorKind::NotFound => Error::Exited(process.pid),
            _ => Error::Binary { path: process.tokio_file(), source },
        };
        let open = || File::open(process.tokio_path()).map_err(opened);
        ask(&process.tokio_file(), mapped(process)?, process, sandbox, open)
    }

    /// Inspects a file that the user gave, with the symbols of the one with tokio.
    pub(crate) fn of_given_file(path: &Path, process: &Process, load_bias: u64, sandbox: &Sandbox) -> Result<Self> {
        let opened = |source| Error::Binary { path: path.into(), source };
        ask(path, LoadAddress::Bias(load_bias), process, sandbox, || File::open(path).map_err(opened))
    }
}

impl TaskVtables {
    /// Finds them in the file with tokio of a process.
    pub(crate) fn of_running(process: &Process, sandbox: &Sandbox) -> Result<Self> {
        let denied = |source| Error::Denied { pid: process.pid, source };
        let files = [process.tokio_path(), format!("/proc/{}/mem", process.pid).into()];
        let files = files.iter().map(|path| Ok(File::open(path).map_err(denied)?.into()));
        let files = files.collect::<Result<Vec<OwnedFd>>>()?;
        answer(&process.tokio_file(), sandbox, Request::Vtables(mapped(process)?), files, |answer| match answer {
            Answer::Vtables(found) => Some(found),
            _ => None,
        })
    }
}

/// Where a process has mapped the file with tokio.
fn mapped(process: &Process) -> Result<LoadAddress> {
    let mappings = process.tokio_mappings()?.into_iter().take(MOST_MAPPINGS);
    Ok(LoadAddress::Mappings(mappings.map(|m| (m.start, m.offset)).collect()))
}

fn ask(
    path: &Path,
    at: LoadAddress,
    process: &Process,
    sandbox: &Sandbox,
    open: impl Fn() -> Result<File>,
) -> Result<Inspection> {
    let mut files: Vec<OwnedFd> = vec![open()?.into()];
    let loaded = Loaded { at, is_library: process.library.is_some() };
    // A stripped binary is recognized only by its relocated data.
    files.extend(File::open(format!("/proc/{}/mem", process.pid)).ok().map(OwnedFd::from));
    answer(path, sandbox, Request::Inspect(loaded), files, |answer| match answer {
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
