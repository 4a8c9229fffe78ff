//! What the recorder and its sandbox say to each other: requests with descriptors one way, answers the other.
//!
//! A message is its length (4 bytes, little endian) and so many bytes of postcard. Descriptors travel with the length.

use std::{
    cmp::Ordering,
    collections::HashMap,
    io::{self, IoSlice, IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use hud_common::unwind::Row;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    inspect::{Inspection, Place, PollType, TaskVtables},
    tasks::Layouts,
    unwind::table::{Segment, Table},
};

/// Bytes of a message that are believed, either way. The largest are unwind tables.
const LONGEST: u32 = 64 << 20;
/// Descriptors that one message carries.
pub(crate) const MOST_FILES: usize = 4;

/// Addresses that one request may ask for.
pub(crate) const MOST_ADDRESSES: usize = 256;
/// Functions at one address, inlined ones included. Real code goes to about 40.
pub(crate) const MOST_FRAMES: usize = 128;
/// Bytes of a name that are handed on, before it is cleaned and cut to what the session takes.
pub(crate) const LONGEST_NAME: usize = 16 << 10;

/// A mapped file that the child has opened, for as long as that child lives.
pub(crate) type ModuleId = u32;

/// What the recorder asks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Open a mapped file. With its descriptor. Answered by `Opened`.
    Open,
    /// Another file that belongs to a module. With its descriptor, or none where there is no such file. Answered by
    /// `Opened` again.
    Give {
        /// The module.
        module: ModuleId,
        /// What it is to it.
        role: Role,
    },
    /// The functions at offsets of the file, inlined ones included. Answered by `Frames` or `Wants`.
    Frames {
        /// The module.
        module: ModuleId,
        /// At most [`MOST_ADDRESSES`].
        offsets: Vec<u64>,
    },
    /// What debug information tells of tokio. Answered by `Tokio`. Takes seconds where it is hundreds of megabytes.
    Tokio {
        /// The module.
        module: ModuleId,
        /// The addresses of its poll functions.
        polls: Vec<u64>,
    },
    /// The unwind table of a file. With its descriptor. Answered by `Unwind`.
    Unwind,
    /// A first look at the target's binary. With its descriptor, and one of the process's memory where that is to be had.
    /// Answered by `Inspection`.
    Look(Place),
    /// The task vtables of a mapped binary. With its descriptor, and one of the process's memory. Answered by `Vtables`.
    Vtables(Place),
    /// How the futures of tasks lie in memory, and what is behind trait objects. Answered by `Layouts`.
    Layouts {
        /// The module.
        module: ModuleId,
        /// Addresses of poll functions, and where in their tasks the id lies.
        polls: Vec<(u64, u64)>,
        /// Addresses of the vtables of trait objects.
        objects: Vec<u64>,
        /// Places in the code that may be in `block_on`.
        callers: Vec<u64>,
    },
}

/// What a file is to a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Its separate debug file, found by build id: whether it is the right one is checked.
    DebugById,
    /// Its separate debug file, found by `.gnu_debuglink`: whether its checksum is the right one is checked.
    DebugByLink,
    /// What its debug file shares with others (`.gnu_debugaltlink`).
    Supplement,
    /// A package of split debug information (`.dwp`).
    Package,
    /// An object of split debug information (`.dwo`), by its id.
    Object(u64),
}

/// What the child answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Said unasked, once, when it starts.
    Hello(Confinement),
    /// What is known of a module by now.
    Opened(Opened),
    /// The functions at the first of the offsets asked for: at least one offset, not always all.
    Frames(Vec<ResolvedAddress>),
    /// What debug information tells of tokio.
    Tokio(TokioDebug),
    /// A file's unwind table.
    Unwind(PackedTable),
    /// What attaching takes of a binary.
    Inspection(Box<Inspection>),
    /// A binary's task vtables.
    Vtables(TaskVtables),
    /// How futures lie in memory.
    Layouts(Layouts),
    /// This first, then ask again.
    Wants(WantedObject),
    /// It is no file of the kind that hud can read, or the request made no sense.
    Refused(String),
}

/// What holds the child.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// It runs as another user than root.
    pub unprivileged: bool,
    /// It has no capability and can get none.
    pub no_capabilities: bool,
    /// It can open no file (landlock).
    pub no_files: bool,
    /// It can make few system calls (seccomp).
    pub few_calls: bool,
}

/// A module, as far as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Opened {
    pub(crate) module: ModuleId,
    pub(crate) build_id: Option<Vec<u8>>,
    /// Its debug information, wherever it lies, is at hand.
    pub(crate) has_debug: bool,
    /// The name and checksum of a separate debug file.
    pub(crate) debug_link: Option<(Vec<u8>, u32)>,
    /// The path and build id of what the debug file shares with others.
    pub(crate) supplement: Option<(Vec<u8>, Vec<u8>)>,
}

/// The functions at an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedAddress {
    /// In the file's own address space.
    pub address: u64,
    /// The code behind it is that to which a signal handler returns: its caller was interrupted, it did not call.
    pub is_signal_return: bool,
    /// Innermost first; none where nothing is known.
    pub frames: Vec<ResolvedFrame>,
}

/// A function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedFrame {
    /// Its name, as people write it.
    pub function: Option<String>,
    /// The source file.
    pub file: Option<String>,
    /// The line in it.
    pub line: Option<u32>,
    /// The column in the line, from 1.
    pub column: Option<u32>,
    /// Origin code it is, where that is sure.
    pub whose: Option<Origin>,
}

/// Origin code a function of the target's own binaries is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// The user's.
    Own,
    /// A crate that the user's code depends on.
    Dependency,
    /// Tokio.
    Tokio,
    /// The standard library.
    Std,
}

/// What debug information tells of tokio.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokioDebug {
    /// Poll functions by address.
    pub(crate) polls: HashMap<u64, PollType>,
    /// The offset of the current task's id in tokio's thread-local context.
    pub(crate) task_id_offset: Option<u64>,
    /// The words of a [`WorkerPlace`](hud_common::wire::WorkerPlace).
    pub(crate) worker: Option<[u64; 4]>,
}

/// A [`Table`], its rows and its index as bytes: there are millions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackedTable {
    base: u64,
    rows: Vec<u8>,
    index: Vec<u8>,
    segments: Vec<[u64; 3]>,
}

impl PackedTable {
    pub(crate) fn of(table: &Table) -> Self {
        PackedTable {
            base: table.base,
            rows: bytemuck::cast_slice(&table.rows).to_vec(),
            index: bytemuck::cast_slice(&table.index).to_vec(),
            segments: table.segments.iter().map(|s| [s.offset, s.vaddr, s.size]).collect(),
        }
    }

    /// The table; `None` where it makes no sense. (The kernel program takes any, but others' tables lie beside it.)
    pub(crate) fn unpack(&self) -> Option<Table> {
        let rows: Vec<Row> = self.rows.chunks_exact(size_of::<Row>()).map(bytemuck::pod_read_unaligned).collect();
        let index: Vec<u32> = self.index.chunks_exact(size_of::<u32>()).map(bytemuck::pod_read_unaligned).collect();
        let segments =
            self.segments.iter().map(|&[offset, vaddr, size]| Segment { offset, vaddr, size }).collect::<Vec<_>>();
        let is_inside = index.iter().all(|&row| usize::try_from(row).is_ok_and(|row| row < rows.len()));
        let is_sorted = index.is_sorted() && rows.is_sorted_by_key(|row| row.address);
        (is_inside && is_sorted && !segments.is_empty()).then_some(Table { base: self.base, rows, index, segments })
    }
}

/// An object of split debug information that a lookup needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WantedObject {
    /// Its id.
    pub(crate) id: u64,
    /// Where the compiler wrote it; relative to `folder`.
    pub(crate) path: Vec<u8>,
    pub(crate) folder: Vec<u8>,
}

/// Sends one message, with descriptors.
pub(crate) fn send(socket: &UnixStream, message: &impl Serialize, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let body = postcard::to_allocvec(message).map_err(invalid)?;
    let length = u32::try_from(body.len()).ok().filter(|&l| l <= LONGEST).ok_or_else(|| invalid("too long"))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(invalid("too many files"));
    }
    let length = length.to_le_bytes();
    // Four bytes: they go whole or not at all.
    rustix::net::sendmsg(socket.as_fd(), &[IoSlice::new(&length)], &mut ancillary, SendFlags::NOSIGNAL)?;
    (&mut &*socket).write_all(&body)
}

/// Takes one message with its descriptors; `None` once the other side is gone.
pub(crate) fn receive<T: DeserializeOwned>(mut socket: &UnixStream) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut iov = [IoSliceMut::new(&mut length)];
    let got = loop {
        match rustix::net::recvmsg(socket.as_fd(), &mut iov, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?.bytes,
        }
    };
    let mut files = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            files.extend(received);
        }
    }
    if got == 0 {
        return Ok(None);
    }
    socket.read_exact(length.get_mut(got..).unwrap_or_default())?;
    let length = checked(length)?;
    // Memory as the bytes arrive, not as they are announced.
    let mut body = Vec::new();
    socket.take(length.into()).read_to_end(&mut body)?;
    if u32::try_from(body.len()).ok() != Some(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some((postcard::from_bytes(&body).map_err(invalid)?, files)))
}

/// The message in `bytes`, once they are all of it.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<Option<T>> {
    let Some((length, body)) = bytes.split_first_chunk() else { return Ok(None) };
    let length = usize::try_from(checked(*length)?).map_err(invalid)?;
    match body.len().cmp(&length) {
        Ordering::Less => Ok(None),
        Ordering::Equal => postcard::from_bytes(body).map(Some).map_err(invalid),
        // Nobody speaks unasked.
        Ordering::Greater => Err(invalid("more than a message")),
    }
}

fn checked(length: [u8; 4]) -> io::Result<u32> {
    let length = u32::from_le_bytes(length);
    if length > LONGEST { Err(invalid("a message that is too long")) } else { Ok(length) }
}

fn invalid(what: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn messages_and_descriptors_arrive() {
        let (one, other) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/proc/self/status").unwrap();
        send(&one, &Request::Give { module: 7, role: Role::Object(9) }, &[file.as_fd()]).unwrap();
        send(&one, &Request::Frames { module: 7, offsets: vec![1, u64::MAX] }, &[]).unwrap();
        let (request, files) = receive::<Request>(&other).unwrap().unwrap();
        assert!(matches!(request, Request::Give { module: 7, role: Role::Object(9) }));
        let mut text = String::new();
        std::fs::File::from(files.into_iter().next().unwrap()).read_to_string(&mut text).unwrap();
        assert!(text.starts_with("Name:"));
        let (request, files) = receive::<Request>(&other).unwrap().unwrap();
        assert!(matches!(request, Request::Frames { offsets, .. } if offsets == [1, u64::MAX]));
        assert!(files.is_empty());
        drop(one);
        assert!(receive::<Request>(&other).unwrap().is_none());
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for bytes in [&[0xff; 8][..], &[8, 0, 0, 0, 1, 2], &[3, 0, 0, 0, 0xff, 0xff, 0xff], &[1, 0]] {
            let (mut one, other) = UnixStream::pair().unwrap();
            one.write_all(bytes).unwrap();
            drop(one);
            assert!(receive::<Answer>(&other).is_err(), "{bytes:?}");
            assert!(!matches!(decode::<Answer>(bytes), Ok(Some(_))), "{bytes:?}");
        }
    }
}
