//! The sandboxed child: gives up its rights, then answers requests, one at a time, until the socket closes.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    process::ExitCode,
};

use memmap2::Mmap;

use super::{
    confine,
    framing::{receive, send},
    protocol::{ARGUMENT, Answer, MOST_ADDRESSES, PackedTable, Request},
};
use crate::{
    inspect::{Inspection, LoadAddress, Loaded, TaskVtables},
    symbols::{Found, ModuleFile, ModuleId, ModuleInfo},
    unwind::table,
};

/// Modules that one child opens. A process maps dozens of files.
const MOST_MODULES: usize = 4096;

/// Runs as the sandboxed child if hud was started as one; `main` then ends with this exit code. To be called before
/// arguments are parsed.
pub fn divert() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != ARGUMENT || arguments.next().is_some() {
        return None;
    }
    // A user who types the argument gets an error, as standard input is no socket.
    Some(match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(2),
    })
}

fn serve() -> io::Result<()> {
    // SAFETY: this process has opened no descriptor yet. Those beyond the standard three were inherited, and nothing
    // here uses them.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket.peer_addr()?;
    send(&socket, &Answer::Hello(confine::enter()), &[])?;
    let mut modules = Modules::default();
    while let Some((request, files)) = receive::<Request>(&socket)? {
        send(&socket, &modules.answer(request, files), &[])?;
    }
    Ok(())
}

#[derive(Default)]
struct Modules(Vec<ModuleFile>);

impl Modules {
    fn answer(&mut self, request: Request, files: Vec<OwnedFd>) -> Answer {
        let mut files = files.into_iter().map(File::from);
        let file = files.next();
        let answered = match request {
            Request::Open => self.open(file),
            Request::Give { module, role } => self.with(module, |m| {
                if let Some(file) = &file {
                    m.give(role, file)?;
                } else {
                    m.give_none(role);
                }
                Ok(Answer::Opened(ModuleInfo { module, ..m.info() }))
            }),
            Request::Tokio { module, polls } => self.with(module, |m| Ok(Answer::Tokio(m.tokio(&polls)))),
            Request::Unwind => unwind(file),
            Request::Inspect(at) => inspect(file, files.next(), &at),
            Request::Vtables(at) => vtables(file, files.next(), &at),
            Request::Layouts { module, polls, objects, callers } => {
                self.with(module, |m| Ok(Answer::Layouts(m.layouts(&polls, &objects, &callers))))
            }
            Request::Frames { module, offsets } => self.with(module, |m| frames(m, &offsets)),
        };
        answered.unwrap_or_else(Answer::Refused)
    }

    fn open(&mut self, file: Option<File>) -> Result<Answer, String> {
        if self.0.len() >= MOST_MODULES {
            return Err("too many modules".into());
        }
        let module = ModuleFile::open(&file.ok_or("no file")?)?;
        let id = ModuleId::try_from(self.0.len()).map_err(|e| e.to_string())?;
        let opened = ModuleInfo { module: id, ..module.info() };
        self.0.push(module);
        Ok(Answer::Opened(opened))
    }

    fn with<T>(&mut self, id: ModuleId, act: impl FnOnce(&mut ModuleFile) -> Result<T, String>) -> Result<T, String> {
        act(usize::try_from(id).ok().and_then(|id| self.0.get_mut(id)).ok_or("no such module")?)
    }
}

fn inspect(file: Option<File>, memory: Option<File>, at: &Loaded) -> Result<Answer, String> {
    let inspection = Inspection::new(&file.ok_or("no file")?, memory.as_ref(), at)?;
    Ok(Answer::Inspected(Box::new(inspection)))
}

fn vtables(file: Option<File>, memory: Option<File>, at: &LoadAddress) -> Result<Answer, String> {
    let (file, memory) = file.zip(memory).ok_or("no file")?;
    Ok(Answer::Vtables(TaskVtables::new(&file, &memory, at)?))
}

fn unwind(file: Option<File>) -> Result<Answer, String> {
    let file = file.ok_or("no file")?;
    // SAFETY: private and read only. If the file is truncated, SIGBUS ends this process, which is expendable.
    let bytes = unsafe { Mmap::map(&file) }.map_err(|e| e.to_string())?;
    let table = table::build(&bytes).map_err(|e| e.to_string())?;
    Ok(Answer::Unwind(PackedTable::of(&table)))
}

/// The frames of the first offsets, up to the size of one message.
fn frames(module: &mut ModuleFile, offsets: &[u64]) -> Result<Answer, String> {
    const ENOUGH: usize = 1 << 20;
    let mut located = Vec::new();
    let mut bytes = 0;
    for &offset in offsets.iter().take(MOST_ADDRESSES) {
        let found = match module.find(offset) {
            Found::Resolved(found) => found,
            // Reports the frames found so far; the recorder asks for the rest again.
            Found::Wants(_) if !located.is_empty() => break,
            Found::Wants(object) => return Ok(Answer::Wants(object)),
        };
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        bytes += found.frames.iter().map(|f| 32 + length(&f.function) + length(&f.file)).sum::<usize>();
        located.push(found);
        if bytes >= ENOUGH {
            break;
        }
    }
    Ok(Answer::Frames(located))
}
