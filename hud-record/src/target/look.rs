//! The first look at a target's binary: all that attaching takes of it.
//!
//! The file is the target's to make, so it is the confined child that reads it ([`crate::intake`]); the recorder opens it,
//! hands it over and gets this.

use std::{fs::File, io, os::fd::OwnedFd, path::Path};

use serde::{Deserialize, Serialize};

use super::{Binary, Image, Process, TaskVtable, Tokio, clean, shape};
use crate::{
    error::{Error, Result},
    intake::{
        Intake,
        protocol::{Answer, Request},
    },
};

/// Mappings of one file that are told. A binary has one with code; patched ones have some.
const MOST_MAPPINGS: usize = 1024;

/// What is known of a binary.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Looked {
    /// GNU build id, hexadecimal.
    pub(crate) build_id: Option<String>,
    /// The addresses that it occupies once it is loaded, before the load bias.
    pub(crate) image: (u64, u64),
    /// The distance between its addresses in its file and in the process; `None` where none of the mappings is its.
    pub(crate) load_bias: Option<u64>,
    /// Tokio in it.
    pub(crate) tokio: std::result::Result<Tokio, NoTokio>,
}

/// Why there is no tokio in a binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoTokio {
    /// It has symbols, but none of tokio's.
    NotTokio,
    /// It has no symbols, and nothing in it has the shape of tokio's tasks.
    Stripped,
}

/// Where the binary lies in the process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Place {
    /// By its mappings: address, and offset in the file.
    Mapped(Vec<(u64, u64)>),
    /// By the build that runs, of which it has the symbols.
    Biased(u64),
}

impl Looked {
    /// In the child: looks at a file, and at the process's memory where that was handed over.
    pub(crate) fn at(file: &File, memory: Option<&File>, place: &Place) -> std::result::Result<Self, String> {
        let binary = Binary::read(file)?;
        let load_bias = match place {
            Place::Biased(bias) => Some(*bias),
            Place::Mapped(mappings) => binary.load_bias(mappings),
        };
        let image = || match (memory, load_bias) {
            (Some(memory), Some(bias)) => Image::of_memory(&binary, memory, bias),
            _ => Image::of_file(&binary),
        };
        let tokio = Tokio::find(&binary, image).map(|mut tokio| {
            tokio.guess(&binary, image);
            tokio.find_task_id(&binary, image);
            tokio
        });
        Ok(Looked { build_id: binary.build_id().map(str::to_string), image: binary.image(), load_bias, tokio })
    }

    /// In the recorder: has the child look at the binary that runs.
    pub(crate) fn at_running(process: &Process, intake: &Intake) -> Result<Self> {
        let opened = |source: io::Error| match source.kind() {
            io::ErrorKind::PermissionDenied => Error::Denied { pid: process.pid, source },
            io::ErrorKind::NotFound => Error::Exited(process.pid),
            _ => Error::Binary { path: process.exe.clone(), source },
        };
        ask(&process.exe, &mapped(process)?, process, intake, || File::open(process.exe_path()).map_err(opened))
    }

    /// The same with a file that was given.
    pub(crate) fn at_given(path: &Path, process: &Process, load_bias: u64, intake: &Intake) -> Result<Self> {
        let opened = |source| Error::Binary { path: path.into(), source };
        ask(path, &Place::Biased(load_bias), process, intake, || File::open(path).map_err(opened))
    }

    /// Its tokio, or why there is none.
    pub(crate) fn into_tokio(self, path: &Path) -> Result<Tokio> {
        let path = path.to_path_buf();
        self.tokio.map_err(|why| match why {
            NoTokio::NotTokio => Error::NotTokio { path },
            NoTokio::Stripped => Error::Stripped { path },
        })
    }
}

/// The task vtables of a binary that is mapped into a process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct TaskVtables {
    /// The distance between its addresses in its file and in the process.
    pub(crate) load_bias: u64,
    /// Its tables.
    pub(crate) tables: Vec<TaskVtable>,
    /// Address, place in the file and size there of each segment without code.
    pub(crate) data: Vec<[u64; 3]>,
}

impl TaskVtables {
    /// In the child: looks at a file, and at the process's memory.
    pub(crate) fn at(file: &File, memory: &File, place: &Place) -> std::result::Result<Self, String> {
        let binary = Binary::read(file)?;
        let load_bias = match place {
            Place::Biased(bias) => *bias,
            Place::Mapped(mappings) => binary.load_bias(mappings).ok_or("not mapped")?,
        };
        let tables = shape::vtables(&binary, &Image::of_memory(&binary, memory, load_bias));
        let data = binary.data_places().take(MOST_MAPPINGS).collect();
        Ok(TaskVtables { load_bias, tables, data })
    }

    /// In the caller: has the child look at the binary that runs.
    pub(crate) fn of_running(process: &Process, intake: &Intake) -> Result<Self> {
        let denied = |source| Error::Denied { pid: process.pid, source };
        let files = [process.exe_path(), format!("/proc/{}/mem", process.pid).into()];
        let files = files.iter().map(|path| Ok(File::open(path).map_err(denied)?.into()));
        let files = files.collect::<Result<Vec<OwnedFd>>>()?;
        answer(&process.exe, intake, Request::Vtables(mapped(process)?), files, |answer| match answer {
            Answer::Vtables(found) => Some(found),
            _ => None,
        })
    }
}

/// Where the binary that a process runs is mapped.
fn mapped(process: &Process) -> Result<Place> {
    let exe = process.exe.to_string_lossy();
    let own = process.mappings()?.into_iter().filter(|m| m.path == exe).take(MOST_MAPPINGS);
    Ok(Place::Mapped(own.map(|m| (m.start, m.offset)).collect()))
}

fn ask(
    path: &Path,
    place: &Place,
    process: &Process,
    intake: &Intake,
    open: impl Fn() -> Result<File>,
) -> Result<Looked> {
    let mut files: Vec<OwnedFd> = vec![open()?.into()];
    // Without it, a stripped binary has no shape to be known by.
    files.extend(File::open(format!("/proc/{}/mem", process.pid)).ok().map(OwnedFd::from));
    answer(path, intake, Request::Look(place.clone()), files, |answer| match answer {
        Answer::Looked(looked) => Some(*looked),
        _ => None,
    })
}

/// Has the child answer a request about the binary at `path`; `wanted` takes the answer of that kind.
fn answer<T>(
    path: &Path,
    intake: &Intake,
    request: Request,
    files: Vec<OwnedFd>,
    wanted: impl FnOnce(Answer) -> Option<T>,
) -> Result<T> {
    let not = |what: String| Error::NotSupported { path: path.into(), what };
    match intake.ask(None, request, files) {
        Ok((_, Answer::Refused(why))) => Err(not(clean(&why))),
        Ok((_, answer)) => {
            wanted(answer).ok_or_else(|| not("not read: the process that reads it does not answer as it should".into()))
        }
        Err(e) => Err(not(format!("not read: {e}"))),
    }
}
